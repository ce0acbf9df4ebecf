"""The journal: one append-only file that *is* a session.

Line 1 holds the session and its whole plan; each further line is a mark. A line is a checksum, a blank, a JSON value
and a newline. The file appears complete or not at all, and everything known of a session is computed from it.
"""

from __future__ import annotations

import binascii
import errno
import json
import os
import stat
from collections.abc import Sequence
from enum import StrEnum
from functools import cached_property, lru_cache

from sessions import owners, records
from sessions.data import TYPE_CHECKING, Mutable, field
from sessions.errors import JournalError, SessionExists, TornJournal
from sessions.linux import trace
from sessions.linux.files import sync_directory
from sessions.linux.publish import publish
from sessions.model import Chroot, Owner, Session

if TYPE_CHECKING:
    from typing import Any, NoReturn

    from sessions.steps import Note, Step

FORMAT = 1
# Room kept for the marks of each step, so that a disk that fills up later does not stop them.
_MARKS_PER_STEP_BYTES = 512
_LARGEST_BYTES = 16 * 1024 * 1024
_LONGEST_KNOWN_BYTES = 64


class StepState(StrEnum):
    """How far a step has come, by its last mark."""

    NEW = "new"
    BEGUN = "begun"
    DONE = "done"
    UNDONE = "undone"
    STUCK = "stuck"


class State(StrEnum):
    """How far a session has come: computed, never stored."""

    STARTING = "starting"
    UP = "up"
    STOPPING = "stopping"
    BROKEN = "broken"
    DOWN = "down"
    """Up before the machine was restarted, or laid to rest for that: recover or end it."""


class Header(Mutable):
    """The first line: the session, and its plan as recorded; :attr:`plan` makes steps of it when they are wanted."""

    session: Session
    steps: int
    recorded_plan: list[Any] = field(default_factory=list)

    @cached_property
    def plan(self) -> tuple[Step, ...]:
        """Every step, in order; raises ValueError if one cannot be read."""
        from sessions import steps  # for who changes a session: to run a command in it takes none

        return tuple(steps.decode(step) for step in self.recorded_plan)


# First lines that this process has written or read, by their very bytes: a short session reads its own three times.
_HEADERS: dict[bytes, Header] = {}
_MOST_HEADERS = 64


class Journal(Mutable):
    """An open journal. Marks are written before this object changes."""

    path: str
    fd: int
    header: Header
    states: list[StepState]
    notes: dict[int, Note] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    is_up: bool = False
    was_up: bool = False
    """Whether it has ever been up, so that what it changed is worth keeping."""
    is_going_down: bool = False
    is_damaged: bool = False
    boot_id: str = ""
    mount_namespace: int = 0
    pid_namespace: int = 0
    """The boot, the mount namespace and the pid namespace (0: not known) of the last begin or recover."""
    has_synced_name: bool = False
    """Whether this process has seen to it that the journal outlives a power cut."""

    @property
    def session(self) -> Session:
        """The session."""
        return self.header.session

    @property
    def plan(self) -> tuple[Step, ...]:
        """Every step, in order; raises JournalError if one cannot be read."""
        try:
            return self.header.plan
        except ValueError as error:
            raise _bad(self.path, f"cannot be used: {error}") from None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the session stays."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def state(self, *, boot_id: str, is_locked: bool) -> State:
        """The session's state; `is_locked` says whether somebody is acting on it right now."""
        if self.is_going_down or self.is_damaged:
            return State.STOPPING if is_locked else State.BROKEN
        if self.is_up and self.boot_id == boot_id:
            return State.UP
        if is_locked:
            return State.STARTING
        return State.DOWN if self.was_up else State.BROKEN

    def begin(self, index: int, note: Note) -> None:
        """Mark a step as begun, with what undo will have to know."""
        if note:
            self._append({"mark": "begin", "step": index, "note": note})
        else:
            self._append_plain("begin", index)

    def remember(self, index: int, note: Note) -> None:
        """Add to what is known of a step."""
        self._append({"mark": "note", "step": index, "note": note})

    def done(self, index: int) -> None:
        """Mark a step as done."""
        self._append_plain("done", index)

    def undone(self, *indexes: int) -> None:
        """Mark steps as undone, unless they are."""
        for index in indexes:
            if self.states[index] is not StepState.UNDONE:
                self._append_plain("undone", index)

    def stuck(self, index: int, reason: str) -> None:
        """Mark a step as one that could not be undone."""
        self._append({"mark": "stuck", "step": index, "reason": reason[:256]})

    def up(self) -> None:
        """Mark the session as up."""
        self._append({"mark": "up"})

    def down(self) -> None:
        """Mark the session as going down."""
        self._append({"mark": "down"})

    def rest(self) -> None:
        """Mark the session as laid to rest: from now on it is as after a restart of the machine."""
        self._append({"mark": "rest"})

    def recover(self, boot_id: str, mount_namespace: int, pid_namespace: int) -> None:
        """Mark the beginning of a recovery, in the boot and the namespaces that it happens in."""
        where = {"boot_id": boot_id, "mount_namespace": mount_namespace, "pid_namespace": pid_namespace}
        self._append({"mark": "recover", **where})

    def sync(self) -> None:
        """Put the journal on the disk, and its name unless that is there already."""
        if self.has_synced_name:
            os.fdatasync(self.fd)
            return
        os.fsync(self.fd)
        sync_directory(os.path.dirname(self.path))
        self.has_synced_name = True

    def remove(self) -> None:
        """The end of the session."""
        trace.point("unlink journal")
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass
        trace.point("unlinked journal")

    def _append_plain(self, kind: str, index: int) -> None:
        line = _plain_line(kind, index)
        self._write(_value(line[:-1]), line)

    def _append(self, mark: dict[str, Any]) -> None:
        self._write(mark, _line(mark))

    def _write(self, mark: dict[str, Any], line: bytes) -> None:
        trace.point("mark", mark)
        written = os.write(self.fd, line)
        if written != len(line):
            os.ftruncate(self.fd, os.fstat(self.fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        trace.point("marked", mark)
        self._apply(mark)

    def _apply(self, mark: dict[str, Any]) -> None:
        """Take a mark, just written or read, into account; raises ValueError or KeyError if it is none."""
        kind = mark["mark"]
        if kind == "up":
            self.is_up = self.was_up = True
        elif kind == "down":
            self.is_going_down = True
        elif kind == "rest":
            self.is_up, self.boot_id = False, ""
        elif kind == "recover":
            self.boot_id, self.mount_namespace = str(mark["boot_id"]), int(mark["mount_namespace"])
            self.pid_namespace = int(mark.get("pid_namespace", 0))
            self.is_up = False
        else:
            self._apply_to_step(kind, mark)

    def _apply_to_step(self, kind: str, mark: dict[str, Any]) -> None:
        index = mark["step"]
        if not isinstance(index, int) or not 0 <= index < len(self.states):
            raise ValueError(f"no step {index!r}")
        if kind == "note":
            self.notes[index] = {**self.notes.get(index, {}), **mark["note"]}
        elif kind == "begin":
            self.states[index] = StepState.BEGUN
            self.notes[index] = dict(mark.get("note", {}))
        elif kind == "stuck":
            self.states[index] = StepState.STUCK
            self.reasons[index] = str(mark["reason"])
        else:
            self.states[index] = StepState(kind)


def file_name(session_id: str, chroot: Chroot, owner: Owner | None) -> str:
    """The name of a session's journal: the session, the chroot (a checksum of its full name) and the mark of the owner
    of an automatic session, so that listing the directory tells who holds what and whose owner is gone.
    """
    name = f"{session_id},{checksum(chroot.full_name)}"
    return f"{name},{owners.mark(owner)}" if owner else name


def checksum(full_name: str) -> str:
    """What stands for a chroot in the names of journals."""
    return f"{binascii.crc32(full_name.encode()):08x}"


def create(directory: str, session: Session, plan: Sequence[Step]) -> Journal:
    """Write a new journal, whole, and only then give it its name.

    The caller holds the session's lock. Raises SessionExists if the name is taken, OSError if it cannot be written.
    """
    path = os.path.join(directory, file_name(session.id, session.chroot, session.owner))
    line = _line({"format": FORMAT, "session": session, "plan": plan})
    trace.point("create journal")
    try:
        fd = publish(
            directory,
            os.path.basename(path),
            line,
            temporary=f".{session.stamp}",
            reserved_bytes=len(line) + _MARKS_PER_STEP_BYTES * (len(plan) + 2),
        )
    except FileExistsError:
        raise SessionExists(session.id) from None
    trace.point("created journal")
    header = Header(session, len(plan))
    header.plan = tuple(plan)
    _keep(line.removesuffix(b"\n"), header)
    return _new(path, fd, header)


def _keep(line: bytes, header: Header) -> None:
    if len(_HEADERS) >= _MOST_HEADERS:
        _HEADERS.clear()
    _HEADERS[line] = header


def _new(path: str, fd: int, header: Header) -> Journal:
    session = header.session
    states = [StepState.NEW] * header.steps
    journal = Journal(path, fd, header, states, boot_id=session.boot_id, mount_namespace=session.mount_namespace)
    journal.pid_namespace = session.pid_namespace
    return journal


def _line(value: Any) -> bytes:
    text = records.to_json(value).encode()
    return b"%08x %s\n" % (binascii.crc32(text), text)


@lru_cache(maxsize=1024)
def _plain_line(kind: str, index: int) -> bytes:
    """The line of a mark that says nothing but its kind and step: the same in every journal."""
    return _line({"mark": kind, "step": index})


def open_existing(path: str, *, for_marks: bool) -> Journal:
    """Open a journal; `for_marks`, which takes the session's lock, also cuts a last line off that a crash has torn.

    Raises FileNotFoundError, or JournalError if it is not one of ours or its first line cannot be used: TornJournal if
    there is none. Marks that cannot be read make it damaged, not useless: every step of the plan then counts as begun.
    """
    flags = (os.O_RDWR | os.O_APPEND) if for_marks else os.O_RDONLY
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        hint = "make its directory writable" if error.errno == errno.EROFS else "look at the file"
        raise JournalError(f"journal {path} cannot be opened: {error.strerror}", hint=hint) from None
    try:
        return _read(path, fd, for_marks)
    except OSError as error:
        os.close(fd)
        raise JournalError(f"journal {path} cannot be read: {error.strerror}", hint="look at the disk") from None
    except BaseException:
        os.close(fd)
        raise


def _bad(path: str, reason: str) -> JournalError:
    hint = "if nothing of that session is mounted or running, remove the file"
    return JournalError(f"journal {path} {reason}", hint=hint)


def _read(path: str, fd: int, for_marks: bool) -> Journal:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise _bad(path, "is not a regular file that only its owner, the calling user, can write to")
    if status.st_size > _LARGEST_BYTES:
        raise _bad(path, f"is longer than {_LARGEST_BYTES} bytes")
    data = _read_all(fd, status.st_size)
    first, newline, rest = data.partition(b"\n")
    if not newline:
        _raise_torn(path)
    try:
        header = _header(first)
        _check(path, header.session)
    except ValueError as error:
        raise _bad(path, f"cannot be used: {error}") from None
    journal = _new(path, fd, header)
    torn_at = _read_marks(journal, rest, status.st_size - len(rest))
    if for_marks:
        # A plan that cannot be read is found out before anything is done by it.
        len(journal.plan)
        if torn_at is not None:
            os.ftruncate(fd, torn_at)
    return journal


def _raise_torn(path: str) -> NoReturn:
    """A journal gets its name when it is whole, so that only a power cut does this, and only before it was synced."""
    from sessions import names

    session_id = os.path.basename(path).partition(",")[0]
    if names.is_valid(session_id):
        raise TornJournal(f"journal {path} never came to the disk before a power cut", session_id)
    raise _bad(path, "cannot be used: it is cut short")


def _header(line: bytes) -> Header:
    """The header that a first line holds; raises ValueError if it holds none."""
    if line in _HEADERS:
        return _HEADERS[line]
    value = _value(line)
    if not isinstance(value, dict) or not isinstance(value.get("plan"), list):
        raise ValueError("it has no session and plan")
    if value.get("format") != FORMAT:
        raise ValueError(f"its format is {value.get('format')!r}, and this version reads {FORMAT}")
    header = Header(records.decode(Session, value.get("session")), len(value["plan"]), value["plan"])
    _keep(line, header)
    return header


def _check(path: str, session: Session) -> None:
    """Whether the file's name is the one that its contents ask for, which also makes the session's name valid."""
    from sessions import names

    if not names.is_valid(session.id):
        raise ValueError(f"{session.id!r} is not a session name")
    if os.path.basename(path) != file_name(session.id, session.chroot, session.owner):
        raise ValueError("its name is not that of the session in it")


def _read_marks(journal: Journal, data: bytes, offset: int) -> int | None:
    """Apply every mark; where the last line is torn, return the offset at which it starts."""
    *lines, torn = data.split(b"\n")
    for line in lines:
        try:
            journal._apply(_value(line))
        except (ValueError, KeyError, TypeError, OverflowError):
            journal.is_damaged = True
        offset += len(line) + 1
    return offset if torn else None


def _value(line: bytes) -> Any:
    """What a line holds, not to be changed; raises ValueError. The many short lines are the same in every journal."""
    return _known_value(line) if len(line) <= _LONGEST_KNOWN_BYTES else _parse(line)


@lru_cache(maxsize=1024)
def _known_value(line: bytes) -> Any:
    return _parse(line)


def _parse(line: bytes) -> Any:
    checksum, _blank, text = line.partition(b" ")
    if checksum != b"%08x" % binascii.crc32(text):
        raise ValueError("its checksum is wrong")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def _read_all(fd: int, size_bytes: int) -> bytes:
    pieces = []
    offset = 0
    while offset < size_bytes:
        piece = os.pread(fd, size_bytes - offset, offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)
