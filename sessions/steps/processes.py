"""The step that sees to it that nobody lives in a session when it is taken down."""

from __future__ import annotations

from sessions import owners
from sessions.data import TYPE_CHECKING
from sessions.errors import StepFailed
from sessions.linux import files, proc, syscall
from sessions.model import Custom
from sessions.steps.base import Context, Note, Step

if TYPE_CHECKING:
    from typing import ClassVar


class EndProcesses(Step):
    """Nothing on the way up; on the way down every process rooted in the session is ended."""

    kind: ClassVar[str] = "end-processes"
    root: str

    def check(self, context: Context) -> Note:
        """Note from which pid on processes can have been started in the session."""
        return {"since_pid": proc.last_pid(), "realm": owners.realm()}

    def do(self, context: Context) -> None:
        """Nothing."""

    def is_present(self, context: Context) -> bool:
        """There is nothing to do again."""
        return True

    def undo(self, context: Context) -> None:
        """End them; nobody is ended where nothing is mounted, since that would be somebody else's place.

        A process that is older than the session, and has come to stand in it later, is found when it keeps something
        from being unmounted: to look at all the processes of a machine takes a tenth of a short session's time.
        """
        try:
            with files.directory(self.root) as fd:
                if not syscall.is_mount_root(fd):
                    return
                is_overlay = syscall.filesystem_type(fd) == syscall.OVERLAYFS_MAGIC
                place = proc.tree(files.path_of(fd), owns_device=is_overlay)
        except FileNotFoundError:
            return
        since_pid = context.note.get("since_pid", 0) if context.note.get("realm") == owners.realm() else 0
        # What scripts have mounted they unmount themselves, and find nobody then.
        if isinstance(context.session.chroot.source, Custom):
            since_pid = 0
        left = proc.end_all(lambda: proc.rooted_in(place, since_pid=since_pid))
        if left:
            raise StepFailed(f"cannot end {proc.describe(left)}", hint="end it by hand, then end the session again")

    def describe(self) -> str:
        """One line."""
        return f"(at the end: end the processes in {self.root})"
