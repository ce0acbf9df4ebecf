"""Events: a line for each thing of note that happens to sessions, in a log of our own and in the system's.

Our log is a file of JSON lines in the runtime directory, and the one before it: when it has grown to a certain size,
it takes that one's place. It is no truth. Nothing but people and their programs reads it, and nothing fails, or waits,
because a line could not be written.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from sessions.errors import SessionsError
from sessions.linux import files, proc, syscall
from sessions.model import Places, Session

LOG = "log"
OLD_LOG = "log.1"
LARGEST_LOG_BYTES = 1 << 20
JOURNAL_SOCKET = "/run/systemd/journal/socket"
SYSLOG_SOCKET = "/dev/log"
# syslog(3): facility daemon, and how bad it is.
_DAEMON, _ERROR, _INFORMATION = 3 << 3, 3, 6
# What a line may be at most, so that a datagram of it is always taken.
_LONGEST_VALUE = 2048
_ENCODER = json.JSONEncoder(separators=(",", ":"))

Value = str | int | float | None


class Event(StrEnum):
    """What can happen."""

    BEGIN = "begin"
    """A session is up."""
    END = "end"
    """A session is gone."""
    FAILURE = "failure"
    """Something could not be done with a session; ``during`` says what."""
    LOCK_WAIT = "lock-wait"
    """Somebody begins to wait for a chroot; ``reason`` says for whom."""
    LOCK_WAIT_OVER = "lock-wait-over"
    """Somebody does not wait any more; ``outcome`` says how it came out."""
    RECOVERY = "recovery"
    """A session has been recovered."""
    REST = "rest"
    """A session has been laid to rest."""
    CARRY_OVER = "carry-over"
    """What was begun while the state directory could not be written to has been carried over to it."""
    UNPACKED = "unpacked"
    """A session has unpacked an archive into the cache; ``bytes`` is its size without its compression."""
    EVICTED = "evicted"
    """An unpacked archive was taken out of the cache; ``reason`` says why."""
    REMOVAL = "removal"
    """The garbage collector has taken something away."""


def tell(places: Places, event: Event, **fields: Value) -> None:
    """Write an event down, with what is known of it; what is empty or None is left out."""
    now_ns = time.time_ns()
    known = {name: _plain(value) for name, value in fields.items() if value not in ("", None)}
    try:
        record = {"time": _rfc3339(now_ns), "event": event, **known, "pid": os.getpid(), "boot": proc.boot_id()}
        _append(places.events_dir, _ENCODER.encode(record).encode() + b"\n")
    except (OSError, SessionsError):
        pass
    _tell_system(event, known, now_ns)


def of(session: Session) -> dict[str, Value]:
    """What every event of a session says of it."""
    return {
        "session": session.id,
        "chroot": session.chroot.full_name,
        "caller": session.caller.name,
        "user": session.user.name,
    }


@contextmanager
def told_if_it_fails(places: Places, session: Session, during: str) -> Iterator[None]:
    """Tell of a failure within the block, which goes on to whoever called."""
    try:
        yield
    except BaseException as error:
        tell(places, Event.FAILURE, **of(session), during=during, error=str(error) or type(error).__name__)
        raise


class Clock:
    """How long something has taken."""

    def __init__(self) -> None:
        self._started_ns = time.monotonic_ns()

    @property
    def duration_s(self) -> float:
        """Since this was made."""
        return round((time.monotonic_ns() - self._started_ns) / 1e9, 6)


def _plain(value: Value) -> Value:
    """A value for one line, and not a long one."""
    return " ".join(value.split())[:_LONGEST_VALUE] if isinstance(value, str) else value


def _rfc3339(now_ns: int) -> str:
    seconds, rest_ns = divmod(now_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest_ns // 1000:06d}Z"


def _append(directory: str, line: bytes) -> None:
    """Write a line with one write(2), which makes it whole among those of others who write at the same time."""
    fd = _open(directory)
    try:
        if os.fstat(fd).st_size >= LARGEST_LOG_BYTES:
            _retire(directory, fd)
            os.close(fd)
            fd = _open(directory)
        if os.write(fd, line) != len(line):
            # There is no more room: what comes later is not to be glued to half a line.
            _retire(directory, fd)
    finally:
        os.close(fd)


def _open(directory: str) -> int:
    path = f"{directory}/{LOG}"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        files.ensure_own_directory(directory, 0o700)
        return os.open(path, flags, 0o600)


def _retire(directory: str, fd: int) -> None:
    """Let the log take the place of the old one, unless somebody else is about to, or already has."""
    path = f"{directory}/{LOG}"
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.lstat(path), os.fstat(fd)):
            os.rename(path, f"{directory}/{OLD_LOG}")
    except (BlockingIOError, FileNotFoundError):
        pass


def _tell_system(event: Event, fields: dict[str, Value], now_ns: int) -> None:
    """Send it to systemd's journal, with a field for each value, or to whoever else listens where syslog(3) sends."""
    listening = [path for path in (JOURNAL_SOCKET, SYSLOG_SOCKET) if os.access(path, os.W_OK)]
    if not listening:
        return
    message = " ".join([event, *(f"{name}={_word(value)}" for name, value in fields.items())])
    severity = _ERROR if event is Event.FAILURE else _INFORMATION
    entry = {"MESSAGE": message, "PRIORITY": severity, "SYSLOG_IDENTIFIER": "sessions", "SYSLOG_FACILITY": _DAEMON >> 3}
    entry |= {f"SESSIONS_{name.upper()}": value for name, value in {"event": event, **fields}.items()}
    lines = "".join(f"{name}={value}\n" for name, value in entry.items())
    stamp = time.strftime("%b %e %H:%M:%S", time.localtime(now_ns // 1_000_000_000))
    text = f"<{_DAEMON | severity}>{stamp} sessions[{os.getpid()}]: {message}"
    for path in listening:
        data = lines if path == JOURNAL_SOCKET else text
        try:
            syscall.send_datagram(path, data.encode("utf-8", "backslashreplace"))
            return
        except OSError:
            continue


def _word(value: Value) -> str:
    """A value in a message: as it is if that is one plain word, else as JSON has it."""
    text = str(value)
    is_plain = text.isascii() and text.isprintable() and not {'"', " "} & set(text)
    return text if is_plain else _ENCODER.encode(text)
