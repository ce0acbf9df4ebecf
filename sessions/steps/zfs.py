"""Steps that make a session's own snapshot and clone of a ZFS dataset, and mount it.

The commands are those of zfs(8); no module is loaded by them, since they are called only where the kernel has ZFS.
"""

from __future__ import annotations

from sessions import mountwords
from sessions.data import TYPE_CHECKING
from sessions.errors import StepFailed
from sessions.linux import holders, lasting, run, trace
from sessions.steps.base import Context, Note, Step
from sessions.steps.lasting import recorder, wait_for_earlier
from sessions.steps.mounts import MountStep, check_kernel_knows, clear_staging, mount_by_program

if TYPE_CHECKING:
    from typing import ClassVar

# User property (zfsprops(7)) that holds the stamp of the session that something was made for.
STAMP_PROPERTY = "chroot-sessions:stamp"
_PACKAGE = "zfsutils-linux"
_SLOW_S = 120.0


def _ask(*words: str) -> run.Outcome:
    return run.call(["zfs", *words], package=_PACKAGE, timeout_s=_SLOW_S)


def _stamp(name: str) -> str | None:
    """The stamp of ours that a dataset or a snapshot itself has, not one above it; None if there is no such thing.

    Raises StepFailed where that cannot be told, as while its pool has not been imported.
    """
    outcome = _ask("get", "-H", "-s", "local", "-o", "value", STAMP_PROPERTY, name)
    if outcome.status == 0:
        return outcome.output.decode(errors="replace").strip()
    pool = name.partition("/")[0].partition("@")[0]
    if outcome.reason().endswith("does not exist") and _ask("list", "-H", "-o", "name", pool).status == 0:
        return None
    raise StepFailed(
        f"zfs cannot tell whether there is {name}: {outcome.reason()}", hint="see zpool status, zpool import"
    )


class _OwnDataset(Step):
    """Something of ZFS that is the session's own: it carries the stamp from the moment that there is such a name."""

    survives_reboot: ClassVar[bool] = True
    name: str

    @property
    def remedy(self) -> str:
        """It is named after the chroot's dataset."""
        return "look at zfs-dataset of the chroot, and at zpool status"

    def wants_sync(self, context: Context) -> bool:
        """The pool is everybody's, and nothing but the journal leads to what is made there."""
        return True

    def check(self, context: Context) -> Note:
        """Refuse a name that is taken, or that could be an option."""
        if self.name.startswith("-"):
            raise StepFailed(f"{self.name} is not the name of a dataset", hint="mend zfs-dataset of the chroot")
        if _stamp(self.name) is not None:
            raise StepFailed(f"{self.name} exists already", hint=f"look at it, then: zfs destroy {self.name}")
        return {}

    def _change(self, context: Context, *words: str) -> None:
        """Let zfs(8) do something, which goes on if we die; raises StepFailed, naming who is in the way."""
        argv = ["zfs", *words]
        outcome = lasting.call(
            argv, recorder(context), package=_PACKAGE, environment=run.PLAIN_ENVIRONMENT, timeout_s=_SLOW_S
        )
        if outcome.status != 0:
            is_busy = outcome.reason().endswith("is busy")
            held = f": {holders.of_source(self.name)}" if is_busy else ""
            raise StepFailed(f"cannot {words[0]} {self.name}: {outcome.reason()}{held}", hint=self.remedy)

    def _create(self, context: Context) -> None:
        raise NotImplementedError(self.kind)

    def _destroy(self, context: Context) -> None:
        raise NotImplementedError(self.kind)

    def do(self, context: Context) -> None:
        """Make it, stamped."""
        trace.point("create", self.name)
        self._create(context)
        trace.point("created", self.name)

    def undo(self, context: Context) -> None:
        """Destroy it if it is ours; nothing there is success. An earlier command has to come to its end first."""
        wait_for_earlier(context, _SLOW_S)
        found = _stamp(self.name)
        if found == context.session.stamp:
            trace.point("destroy", self.name)
            self._destroy(context)
            trace.point("destroyed", self.name)
        elif found is not None:
            context.say("W", f"{self.name} does not carry the stamp of this session: left alone")

    def verify(self, context: Context) -> None:
        """It has to be there, with our stamp."""
        if _stamp(self.name) != context.session.stamp:
            raise StepFailed(
                f"{self.name} is gone, so the session cannot be recovered", hint=f"sessions end {context.session.id}"
            )

    def _stamped(self, context: Context) -> str:
        return f"{STAMP_PROPERTY}={context.session.stamp}"


class DatasetSnapshot(_OwnDataset):
    """A snapshot of a dataset, made with the chroot's own options (words of zfs-snapshot(8))."""

    kind: ClassVar[str] = "zfs-snapshot"
    options: str = ""

    def check(self, context: Context) -> Note:
        """The kernel has to have ZFS, and the dataset has to be there."""
        check_kernel_knows("zfs")
        dataset = self.name.partition("@")[0]
        if not dataset.startswith("-") and _stamp(dataset) is None:
            raise StepFailed(f"Dataset '{dataset}' does not exist", hint="make it, or mend zfs-dataset of the chroot")
        return super().check(context)

    def _create(self, context: Context) -> None:
        self._change(context, "snapshot", "-o", self._stamped(context), *self.options.split(), self.name)

    def _destroy(self, context: Context) -> None:
        # Made with -r, there is one of that name in each dataset below.
        recursive = ("-r",) if "-r" in self.options.split() else ()
        self._change(context, "destroy", *recursive, self.name)

    def describe(self) -> str:
        """One line."""
        options = f" ({self.options})" if self.options else ""
        return f"make the ZFS snapshot {self.name}{options}"


class DatasetClone(_OwnDataset):
    """A dataset that is a clone of the session's snapshot; it goes with all that was made below it."""

    kind: ClassVar[str] = "zfs-clone"
    snapshot: str = ""

    def _create(self, context: Context) -> None:
        properties = ("-o", "mountpoint=legacy", "-o", self._stamped(context))
        self._change(context, "clone", *properties, self.snapshot, self.name)

    def _destroy(self, context: Context) -> None:
        self._change(context, "destroy", "-r", self.name)

    def describe(self) -> str:
        """One line."""
        return f"clone {self.snapshot} to {self.name}"


class MountedDataset(MountStep):
    """A dataset whose mountpoint is legacy, mounted by mount(8), which has a helper of ZFS for that."""

    kind: ClassVar[str] = "zfs"
    dataset: str
    mount_options: str = ""

    def check(self, context: Context) -> Note:
        """The kernel has to have ZFS: to ask it for that would make it load the module."""
        check_kernel_knows("zfs")
        mountwords.parse(self.mount_options)
        return super().check(context)

    def _mount(self, target_fd: int, context: Context) -> None:
        mount_by_program("zfs", mountwords.parse(self.mount_options).text, self.dataset, target_fd, context)

    def undo(self, context: Context) -> None:
        """Unmount it, also where it was left half way."""
        clear_staging(context)
        super().undo(context)

    def describe(self) -> str:
        """One line."""
        options = f" ({self.mount_options})" if self.mount_options else ""
        return f"mount the ZFS dataset {self.dataset} on {self._where()}{options}"
