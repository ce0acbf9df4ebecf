"""The lock of one session: held while its journal is acted on, by one process at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from sessions.errors import CannotLock, SessionsError
from sessions.linux import files, signals, trace

_PAUSE_S = 0.02


@contextmanager
def session_lock(
    lock_dir: str, session_id: str, *, signals_wait: bool = False, timeout_s: float | None = None
) -> Iterator[None]:
    """Hold the session's lock; wait for whoever has it, but no longer than `timeout_s`.

    With `signals_wait`, signals that ask us to stop take their course only after the block, when the lock is gone.
    The file is removed while it is held; whoever then gets a lock on a file that has no name any more starts again.
    Raises CannotLock if the lock cannot be made, SessionsError if it is not to be had in time.
    """
    path = os.path.join(lock_dir, session_id)
    fd = _take(lock_dir, path, timeout_s)
    with signals.held_back() if signals_wait else nullcontext():
        try:
            yield
        finally:
            # Not even without it does a signal leave the file behind from here on.
            with nullcontext() if signals_wait else signals.held_back():
                trace.point("unlock session")
                _unlink(path, fd)
                os.close(fd)


def _unlink(path: str, fd: int) -> None:
    """Remove our lock file; not another one that has its name, after somebody has emptied the directory.

    One that cannot be removed is nobody's any more, and does no harm.
    """
    try:
        if os.fstat(fd).st_nlink > 0:
            os.unlink(path)
    except OSError:
        pass


def _take(lock_dir: str, path: str, timeout_s: float | None) -> int:
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        fd = _open(lock_dir, path)
        try:
            _lock(fd, path, deadline_s)
            if os.fstat(fd).st_nlink > 0:
                trace.point("locked session")
                return fd
        except OSError as error:
            os.close(fd)
            raise CannotLock(f"cannot take the lock {path}: {error.strerror}", hint="try again later") from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _lock(fd: int, path: str, deadline_s: float | None) -> None:
    if deadline_s is None:
        fcntl.flock(fd, fcntl.LOCK_EX)
        return
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                session_id = os.path.basename(path)
                raise SessionsError(
                    f"session {session_id} is being changed by somebody else", hint="try again when that is done"
                ) from None
        time.sleep(_PAUSE_S)


def _open(lock_dir: str, path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            files.ensure_own_directory(lock_dir, 0o700)
            return os.open(path, flags, 0o600)
    except OSError as error:
        raise CannotLock(
            f"cannot make the lock {path}: {error.strerror}",
            hint="make that directory writable, or name another --runtime-dir",
        ) from error


@contextmanager
def device_lock(lock_dir: str) -> Iterator[None]:
    """Held while a loop device is looked for or made: of one file there must not be two.

    It is on the directory itself, so that who is killed leaves nothing; root alone can open that.
    """
    files.ensure_own_directory(lock_dir, 0o700)
    fd = os.open(lock_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def is_locked(lock_dir: str, session_id: str) -> bool:
    """Whether somebody is acting on the session at this moment."""
    try:
        fd = os.open(os.path.join(lock_dir, session_id), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
