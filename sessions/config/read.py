"""Opening files that decide what root does: only regular files of root's that nobody else may write, and small ones."""

from __future__ import annotations

import errno
import os
import stat
import time

LARGEST_FILE_BYTES = 1 << 20
# Two changes of a file within one tick of the kernel's clock leave the same times behind.
UNSETTLED_NS = 50_000_000

Signature = tuple[int, int, int, int, int] | None
"""Device, inode, size, time of modification and of change: any change of a file changes one of them. None: no file."""


class Untrusted(Exception):
    """A file that is there but must not or cannot be read; ``is_skipped`` tells the kinds that schroot passes over."""

    def __init__(self, reason: str, remedy: str, *, is_skipped: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy
        self.is_skipped = is_skipped


def signature(path: str) -> Signature:
    """What os.stat says about `path` now, links followed; None if it says nothing."""
    try:
        seen = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


def read_trusted(path: str) -> str:
    """The text of `path`, bytes that are not UTF-8 escaped as surrogates.

    Raises FileNotFoundError when there is no such file (a dangling link is none either), and Untrusted when it is
    there but may not be believed or cannot be read. The checks look at the open descriptor, so that what is checked
    is what is read.
    """
    try:
        # Without O_NONBLOCK a fifo would hold us until somebody writes to it.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the path
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise _not_regular() from None
        if error.errno == errno.ELOOP:
            reason = f"Failed to stat file: {error.strerror}"
            raise Untrusted(reason, "correct the link, or remove it", is_skipped=True) from None
        raise _unreadable(error) from None
    try:
        _check(os.fstat(fd), path)
        content = _read_all(fd)
    except OSError as error:
        raise _unreadable(error) from None
    finally:
        os.close(fd)
    if len(content) > LARGEST_FILE_BYTES:
        raise Untrusted(f"the file is larger than {LARGEST_FILE_BYTES} bytes", "split it, or move it away")
    return content.decode("utf-8", "surrogateescape")


def read_trusted_again(path: str) -> str:
    """As :func:`read_trusted`, from memory while the file is what it was; raises the same."""
    now = signature(path)
    kept = _TEXTS.get(path)
    if kept is not None and kept[0] == now:
        return kept[1]
    text = read_trusted(path)
    if now is not None and time.time_ns() - now[3] > UNSETTLED_NS:
        _TEXTS[path] = now, text
    return text


# Files read by read_trusted_again: what each was just before it was read, and its text.
_TEXTS: dict[str, tuple[Signature, str]] = {}


def _check(seen: os.stat_result, path: str) -> None:
    """Raise Untrusted, in schroot's words, unless it is a regular file of root's that others cannot write."""
    if not stat.S_ISREG(seen.st_mode):
        raise _not_regular()
    if seen.st_uid != 0:
        raise Untrusted("File is not owned by user root", f"chown root {path}")
    if seen.st_mode & stat.S_IWOTH:
        raise Untrusted("File has write permissions for others", f"chmod o-w {path}")


def _read_all(fd: int) -> bytes:
    """Everything in the file, or one byte more than it may hold."""
    pieces = []
    left = LARGEST_FILE_BYTES + 1
    while left and (piece := os.read(fd, left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _not_regular() -> Untrusted:
    return Untrusted("File is not a regular file", "move it away, or replace it by a file", is_skipped=True)


def _unreadable(error: OSError) -> Untrusted:
    return Untrusted(f"cannot be read: {error.strerror}", "make it readable for root, or remove it")
