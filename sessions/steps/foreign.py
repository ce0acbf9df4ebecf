"""The step that runs an administrator's own setup script, as schroot does; and the root that such scripts make."""

from __future__ import annotations

import os

from sessions.data import TYPE_CHECKING
from sessions.errors import StepFailed
from sessions.linux import files, removal
from sessions.steps.base import Context, Note, Stage, Step
from sessions.steps.programs import Command, ProgramStep
from sessions.steps.unmounting import is_mounted, unmount_all

if TYPE_CHECKING:
    from typing import ClassVar


class RunScript(ProgramStep):
    """An executable of a setup.d directory, called with the stage and ``ok`` or ``fail``.

    Its setup-stop is run even if it never started, as schroot does.
    """

    kind: ClassVar[str] = "script"
    always_undone: ClassVar[bool] = True
    # There is no stage for that: setup-stop would take away what has to last.
    is_left_at_rest: ClassVar[bool] = True
    path: str

    def wants_sync(self, context: Context) -> bool:
        """Whatever it does, and wherever, only its setup-stop takes away."""
        return True

    @property
    def name(self) -> str:
        """Its name without the directory."""
        return os.path.basename(self.path)

    @property
    def remedy(self) -> str:
        """It is the administrator's own."""
        return f"mend {self.path}, or mask it with a link to /dev/null"

    def do(self, context: Context) -> None:
        """Run it for the stage at hand."""
        self._run(self._command(context), context, may_be_stopped=True)

    def undo(self, context: Context) -> None:
        """End a run of it that outlived its engine, then run setup-stop; a script that is gone counts as undone."""
        self._end_earlier_run(context)
        if not files.is_there(self.path):
            context.say("W", f"{self.path} is gone: what it set up is left as it is")
            return
        try:
            self._run(self._command(context), context, may_be_stopped=False)
        except (StepFailed, OSError) as error:
            if not context.force:
                raise
            context.say("W", f"{error}: given up, as --force asks")

    def _command(self, context: Context) -> Command:
        return Command(self.name, self.path, (context.stage.value, context.status))

    def is_present(self, context: Context) -> bool:
        """It is asked to recover each time."""
        return context.stage is not Stage.RECOVER

    def describe(self) -> str:
        """One line."""
        return f"run {self.path}"


class ForeignRoot(Step):
    """The place where scripts of an administrator mount the root of a custom chroot: nothing on the way up.

    It is planned before those scripts, so that its undo comes after theirs and takes away what they have left there.
    """

    kind: ClassVar[str] = "foreign-root"
    path: str

    def check(self, context: Context) -> Note:
        """Refuse a name that is taken."""
        if os.path.lexists(self.path):
            raise StepFailed(f"{self.path} exists already", hint=f"if nothing uses it: rmdir {self.path}")
        return {}

    def do(self, context: Context) -> None:
        """Nothing."""

    def is_present(self, context: Context) -> bool:
        """There is nothing to do again."""
        return True

    def undo(self, context: Context) -> None:
        """Unmount what is still mounted there, and remove the place, which is empty but for what a failure has left."""

        def found(target: str) -> None:
            context.say("W", f"{target} was left mounted by the setup scripts of {context.session.chroot.name}")

        unmount_all(os.path.realpath(self.path), context, found)
        removal.remove_tree(self.path)

    def describe(self) -> str:
        """One line."""
        return f"(at the end: unmount what scripts have left at {self.path})"


class ForeignMountPoint(Step):
    """The directory of a custom chroot's root, unless a script has made it already; it goes with the ForeignRoot."""

    kind: ClassVar[str] = "foreign-mount-point"
    path: str

    @property
    def is_marked(self) -> bool:
        """What an earlier step takes away needs no mark of its own."""
        return False

    def do(self, context: Context) -> None:
        """Make it if it is missing."""
        try:
            files.make_directory(self.path, 0o755)
        except FileExistsError:
            pass

    def is_present(self, context: Context) -> bool:
        """Whether it is there."""
        return os.path.isdir(self.path)

    def describe(self) -> str:
        """One line."""
        return f"make the mount point {self.path}, unless a script has"


class RootIsMounted(Step):
    """Scripts of the administrator have mounted a root by now: without one, nothing must be written in its place."""

    kind: ClassVar[str] = "root-is-mounted"
    path: str

    @property
    def is_marked(self) -> bool:
        """It changes nothing."""
        return False

    def do(self, context: Context) -> None:
        """Raise unless something is mounted there."""
        if not self.is_present(context):
            chroot = context.session.chroot
            raise StepFailed(
                f"no setup script has mounted a root for {chroot.source.kind} chroot {chroot.name} at {self.path}",
                hint="put one that does into setup.d, with a name before 10mount: see schroot-setup(5)",
            )

    def is_present(self, context: Context) -> bool:
        """Whether something is mounted there."""
        try:
            return is_mounted(os.open(self.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC))
        except FileNotFoundError:
            return False

    def describe(self) -> str:
        """One line."""
        return f"see that a root is mounted at {self.path}"
