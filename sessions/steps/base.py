"""What a step is: one reversible effect as data, with what it may use while it is done or undone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum

from sessions.data import TYPE_CHECKING, Frozen, Mutable, field, impossible
from sessions.model import (
    BlockDevice,
    BtrfsSnapshot,
    Custom,
    Directory,
    File,
    Host,
    Image,
    Loopback,
    LvmSnapshot,
    Plain,
    Session,
    ZfsSnapshot,
)

if TYPE_CHECKING:
    from typing import Any, ClassVar, TypeAlias

    from sessions.linux.archive import Progress

Note: TypeAlias = "dict[str, Any]"


class Stage(StrEnum):
    """The stages of a session's life, as setup scripts are told them."""

    START = "setup-start"
    RECOVER = "setup-recover"
    STOP = "setup-stop"


class Context(Mutable):
    """What a step may use besides its own fields; the engine makes one for each walk through a plan.

    ``note`` is what the journal knows of the step at hand: what its check found, what its do remembered. ``remember``
    adds to it, in the journal, before it returns. ``held`` keeps things open until the walk is over.
    """

    session: Session
    stage: Stage
    say: Callable[[str, str], None]
    """Takes "I", "W" or "E" and a line for the user."""
    succeeded: bool = True
    """For setup-stop: whether the session was up, so that what it changed is to be kept (repacking an archive)."""
    force: bool = False
    script_timeout_s: float | None = None
    progress: Progress | None = None
    """Shows how far the unpacking of an archive has come, to a person who waits for it."""
    seen: Session | None = None
    """The session as foreign scripts are told of it, if otherwise than it is."""
    note: Note = field(default_factory=dict)
    is_done: bool = False
    """For undo of a step that asks for it: whether the journal says that do came to its end."""
    is_begun: bool = True
    """For undo of a step that is always undone: whether it may have been begun, by all that the journal says."""
    is_stuck: bool = False
    """For undo: whether something that was done later could not be undone, and is in the way."""
    remember: Callable[[Note], None] = lambda note: None
    held: ExitStack = field(default_factory=ExitStack)

    @property
    def status(self) -> str:
        """The second argument of a setup script."""
        return "ok" if self.succeeded else "fail"


class Step(Frozen):
    """One reversible effect.

    The order is check, begin mark, do; later undo, and an undone mark where it matters that it is not repeated.
    ``undo`` is total: legal after nothing, half or all of ``do``, and legal twice. Steps raise SessionsError or
    OSError; the engine names them.
    """

    kind: ClassVar[str] = ""
    survives_reboot: ClassVar[bool] = False
    """Whether the effect is still there after the machine was restarted; recovery does the others again."""
    is_left_at_rest: ClassVar[bool] = False
    """Whether it is left alone when a session is laid to rest, although a restart of the machine takes it away."""
    always_undone: ClassVar[bool] = False
    """Whether undo is called even if the step was never begun, as schroot calls every script for setup-stop."""
    asks_whether_done: ClassVar[bool] = False
    """Whether undo goes by :attr:`Context.is_done`: only then the journal is told when do has come to its end."""
    is_shared: ClassVar[bool] = False
    """Whether other sessions have the same effect, and the last one's undo takes it away: it is never marked undone."""

    @property
    def is_marked(self) -> bool:
        """Whether the journal follows it; not, if its effect goes with what an earlier step takes away."""
        return True

    @property
    def remedy(self) -> str:
        """What to do when it fails and the failure has no hint of its own."""
        return ""

    def wants_sync(self, context: Context) -> bool:
        """Whether the journal must be on the disk before do, since its effect could be found without an owner.

        The begin mark is, too, unless the step is undone even without one.
        """
        return False

    def check(self, context: Context) -> Note:
        """Raise if something is in the way; return what undo will have to know. Changes nothing."""
        return {}

    def do(self, context: Context) -> None:
        """Bring the effect about."""
        raise NotImplementedError(self.kind)

    def undo(self, context: Context) -> None:
        """Take the effect away; nothing there is success."""

    def is_present(self, context: Context) -> bool:
        """Whether the effect is there already, so that recovery need not do it again."""
        return False

    def verify(self, context: Context) -> None:
        """For a step that survives a reboot: raise if its effect is not there any more."""

    def describe(self) -> str:
        """One line: what do does, to what."""
        return self.kind


@contextmanager
def opened_original(session: Session) -> Iterator[int]:
    """The directory behind the root of a session that is no copy (a descriptor), mounted or not: what is made inside is
    there. Raises OSError, such as FileNotFoundError, where it is not.
    """
    root_fd = _open_original(session)
    try:
        yield root_fd
    finally:
        os.close(root_fd)


def _open_original(session: Session) -> int:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    match session.chroot.source:
        case Directory(directory=directory) | Plain(directory=directory):
            return os.open(directory, flags)
        case File():
            return os.open(session.unpack_directory + session.path.removeprefix(session.location), flags)
        case BtrfsSnapshot():
            return os.open(session.snapshot, flags)
        case Loopback() | BlockDevice() | LvmSnapshot() | ZfsSnapshot():
            from sessions.steps import devices

            return devices.open_root(session)
        case Image() | Custom() | Host():
            return os.open(session.path, flags)  # which has no other name
        case unknown:
            raise impossible(unknown)
