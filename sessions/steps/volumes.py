"""The step that makes a logical volume's snapshot for a session."""

from __future__ import annotations

from sessions.data import TYPE_CHECKING
from sessions.errors import SessionsError, StepFailed
from sessions.linux import holders, proc, trace, volumes
from sessions.steps.base import Context, Note, Step
from sessions.steps.lasting import recorder, wait_for_earlier

if TYPE_CHECKING:
    from typing import ClassVar


class LogicalSnapshot(Step):
    """A snapshot `path` of the logical volume `origin`, tagged with the session's stamp as it is created.

    `options` are those of lvcreate(8) that the chroot's configuration has: with a size it is a classic snapshot, else
    one of a thin volume.
    """

    kind: ClassVar[str] = "lvm-snapshot"
    survives_reboot: ClassVar[bool] = True
    path: str
    origin: str
    options: tuple[str, ...] = ()

    def wants_sync(self, context: Context) -> bool:
        """The volume group is everybody's, and nothing but the journal leads to the snapshot."""
        return True

    def check(self, context: Context) -> Note:
        """LVM, what it needs of the kernel, and the origin have to be there; lvcreate finds out about room."""
        volumes.check(self.origin, self.options)
        volumes.volume(self.path)
        return {}

    def do(self, context: Context) -> None:
        """Create it; LVM refuses a name that is taken."""
        trace.point("snapshot", self.path)
        volumes.create_snapshot(self.origin, self.path, _tag(context), self.options, recorder(context))
        trace.point("made", self.path)

    def undo(self, context: Context) -> None:
        """Remove it, if it carries our tag; an earlier command of LVM has to come to its end first."""
        wait_for_earlier(context, volumes.SLOW_S)
        if not context.force:
            self._remove(context)
            return
        try:
            self._remove(context)
        except SessionsError:
            proc.end_all(lambda: holders.openers(self.path))
            self._remove(context)

    def _remove(self, context: Context) -> None:
        try:
            volumes.remove(self.path, _tag(context), recorder(context))
        except SessionsError as error:
            held = f": {holders.of_device(self.path)}" if "in use" in error.text else ""
            raise StepFailed(f"{error.text}{held}", hint=error.hint) from error
        trace.point("removed", self.path)

    def verify(self, context: Context) -> None:
        """It has to be there with our tag, and not to have run full; what is not active is activated."""
        end = f"sessions end {context.session.id}"
        state = volumes.state(self.path, _tag(context))
        if state is not None and not state.is_active:
            volumes.activate(self.path, recorder(context))
            state = volumes.state(self.path, _tag(context))
        if state is None:
            raise StepFailed(f"{self.path} is gone, so the session cannot be recovered", hint=end)
        if state.is_lost:
            raise StepFailed(f"{self.path} has run full, and what was in it is lost", hint=end)

    def describe(self) -> str:
        """One line."""
        options = f" ({' '.join(self.options)})" if self.options else ""
        how = "classic" if volumes.is_sized(self.options) else "thin"
        return f"make {self.path}, a {how} snapshot of {self.origin}{options}"


def _tag(context: Context) -> str:
    return f"chroot-sessions-{context.session.stamp}"
