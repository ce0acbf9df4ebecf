"""The cache of unpacked archives: one tree for each, which any number of sessions share below layers of their own.

Below the cache's directory, which only root can enter, there are::

    NAME        an archive that was unpacked wholly: the directory "tree", and a record of it
    .NAME       the same while somebody unpacks it; whoever does so holds a lock (flock(2)) on it
    .STAMP      what a session is about to unpack, or what is being removed
    NAME -> X   another name of X, for an archive that has changed its times but not its contents

A tree is complete when it has its name. Without a lock on it, what has a name with a dot is a leftover. Who uses a tree
is said by the journals, and by nothing else: a session publishes its journal, which names the tree, before it takes a
shared lock and looks whether the tree is there; who takes one away holds the lock alone while the journals are read.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sessions import records
from sessions.data import Frozen, replace
from sessions.linux import files, proc, removal, syscall, trace
from sessions.model import Owner, Places

TREE = "tree"
_RECORD = "record"
# An extended attribute of a complete entry: the boot in which it was unpacked, until it is known to be on the disk.
# The kernel keeps changes of names and attributes in order over a power cut; the contents of files may come later.
_STATE_ATTRIBUTE = "trusted.chroot-sessions.unpacked"
_SYNCED = b"synced"
# The names that we give: of an archive by its path, size and time, and then by more or by its digest.
_NAME = r"[0-9a-f]{8}-[0-9a-f]+-[0-9a-f]+(-[0-9a-f]+){1,2}"
_HIDDEN = rf"\.([0-9a-f]+|{_NAME})"


class Record(Frozen):
    """What is written down beside a tree: of which archive it is, and who has unpacked it."""

    archive: str
    stamp: str
    """The session's, so that it knows its own again."""
    session: str
    user: str
    owner: Owner
    since_ns: int
    digest: str = ""
    """Of the archive; not known while nobody has had the time to work it out."""
    size_bytes: int = 0
    """The archive's without its compression: more or less the room that it takes."""


class Entry(Frozen):
    """A complete tree: its place, its record if that can be read, and when it was used last."""

    path: str
    record: Record | None
    used_ns: int

    @property
    def size_bytes(self) -> int:
        """The room that it takes, as far as that is known."""
        return self.record.size_bytes if self.record else 0


def leading_to(path: str) -> str:
    """The place of the tree that `path` is or leads to; empty if there is none."""
    try:
        target = os.readlink(path)
    except OSError:
        return path if os.path.isdir(path) else ""
    other = f"{os.path.dirname(path)}/{os.path.basename(target)}"
    return other if os.path.isdir(other) and not os.path.islink(other) else ""


def hidden(path: str) -> str:
    """Where a tree is until it is complete."""
    parent, name = os.path.split(path)
    return f"{parent}/.{name}"


def _own(path: str, stamp: str) -> str:
    """A name beside it that nobody else uses."""
    return f"{os.path.dirname(path)}/.{stamp}"


@contextmanager
def held(path: str) -> Iterator[int | None]:
    """A descriptor of a complete tree's directory, which nobody takes away within the block; None if there is none."""
    fd = _lock(path, fcntl.LOCK_SH)
    try:
        yield fd if fd is not None and _is_usable(fd) else None
    finally:
        if fd is not None:
            os.close(fd)


def _lock(path: str, operation: int) -> int | None:
    """A locked descriptor of the directory of that name; None if there is none. Raises BlockingIOError."""
    while True:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if files.is_absence(error):
                return None
            raise
        try:
            fcntl.flock(fd, operation)
            if _is_at(path, fd):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _is_at(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _is_usable(fd: int) -> bool:
    """Whether a tree is as it was unpacked: after a restart of the machine only one that was on the disk by then."""
    try:
        state = os.getxattr(fd, _STATE_ATTRIBUTE)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise
    return state == _SYNCED or state == proc.boot_id().encode()


def is_synced(fd: int) -> bool:
    """Whether a tree is known to be on the disk."""
    return os.getxattr(fd, _STATE_ATTRIBUTE) == _SYNCED


def sync(fd: int, path: str) -> None:
    """See to it that a tree outlives a power cut."""
    if not is_synced(fd):
        trace.point("sync", path)
        syscall.syncfs(fd)
        os.setxattr(fd, _STATE_ATTRIBUTE, _SYNCED)
        os.fsync(fd)
        files.sync_directory(os.path.dirname(path))
        trace.point("synced", path)


def touch(path: str | int) -> None:
    """Note that a tree was used just now."""
    with suppress(FileNotFoundError):
        os.utime(path)


def link(alias: str, path: str) -> None:
    """Let another name lead to a tree."""
    with suppress(FileExistsError):
        trace.point("link", alias)
        os.symlink(os.path.basename(path), alias)
        trace.point("linked", alias)


def claim(path: str, record: Record) -> int | None:
    """Begin to unpack what is not there: the locked directory, which is at `hidden` and holds nothing but the record.

    None if somebody else is at it, or was. A directory of one who has died is taken away.
    """
    own, place = _own(path, record.stamp), hidden(path)
    files.ensure_own_directory(os.path.dirname(path), 0o700)
    try:
        _remove(_lock(place, fcntl.LOCK_EX | fcntl.LOCK_NB), place, own)
    except BlockingIOError:
        return None
    removal.remove_tree(own)
    files.make_directory(own, 0o700)
    fd = _lock(own, fcntl.LOCK_EX)
    if fd is None:
        return None
    try:
        write_record(own, record)
        os.rename(own, place)
        trace.point("claimed", place)
    except OSError as error:
        os.close(fd)
        removal.remove_tree(own)
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise
        return None
    old_fd = _lock(path, fcntl.LOCK_EX)
    if old_fd is not None and _is_usable(old_fd):
        os.close(old_fd)
        _remove(fd, place, own)
        return None
    _remove(old_fd, path, own)
    return fd


def publish(fd: int, path: str, *, is_lasting: bool) -> None:
    """Give a tree that is complete its name; with `is_lasting` it outlives a power cut from now on."""
    os.setxattr(fd, _STATE_ATTRIBUTE, proc.boot_id().encode())
    if is_lasting:
        sync(fd, path)
    trace.point("publish", path)
    try:
        os.rename(hidden(path), path)
    except NotADirectoryError:  # a name that leads nowhere any more
        os.unlink(path)
        os.rename(hidden(path), path)
    if is_lasting:
        files.sync_directory(os.path.dirname(path))
    trace.point("published", path)


def withdraw(path: str, stamp: str) -> None:
    """Take away what the session of that stamp has begun to unpack and has not published."""
    own, place = _own(path, stamp), hidden(path)
    removal.remove_tree(own)
    record = read_record(place)
    if record and record.stamp == stamp:
        fd = _lock(place, fcntl.LOCK_EX)
        # Somebody may have taken it away meanwhile, and be unpacking there.
        record = read_record(place)
        if record and record.stamp == stamp:
            _remove(fd, place, own)
        elif fd is not None:
            os.close(fd)


def await_children(path: str) -> None:
    """Wait for those to end whom one that has died while unpacking has started: they have its lock until they do."""
    fd = _lock(hidden(path), fcntl.LOCK_EX)
    if fd is not None:
        os.close(fd)


def _remove(fd: int | None, path: str, other: str) -> None:
    """Remove what we hold the lock of, under another name; half removed, it must not be taken for whole."""
    if fd is None:
        return
    try:
        trace.point("rename", path)
        os.rename(path, other)
        trace.point("renamed", other)
        removal.remove_tree(other)
    finally:
        os.close(fd)


def take_away(path: str, why_not: Callable[[], str]) -> str:
    """Remove a tree unless somebody is looking at it, or `why_not`, which is asked when nobody can be, objects.

    Why it was not removed; empty if it was, or was gone.
    """
    try:
        fd = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "it is just being used"
    reason = why_not() if fd is not None else ""
    if not reason:
        _remove(fd, path, _own(path, os.urandom(12).hex()))
    elif fd is not None:
        os.close(fd)
    return reason


def entries(places: Places) -> list[Entry]:
    """Every complete tree, the one that was used least lately first."""
    found = []
    for path in _paths(places, _NAME):
        if not os.path.islink(path):
            with suppress(FileNotFoundError):
                found.append(Entry(path, read_record(path), os.lstat(path).st_mtime_ns))
    return sorted(found, key=lambda entry: (entry.used_ns, entry.path))


def leftovers(places: Places) -> list[str]:
    """What is no complete tree and no other name of one, and nobody is at it."""
    incomplete = [path for path in _paths(places, _HIDDEN) if not _is_locked(path)]
    return incomplete + [path for path in _paths(places, _NAME) if os.path.islink(path) and not leading_to(path)]


def _is_locked(path: str) -> bool:
    try:
        fd = _lock(path, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    if fd is not None:
        os.close(fd)
    return False


def is_usable(path: str) -> bool:
    """Whether a complete tree is as it was unpacked."""
    with held(path) as fd:
        return fd is not None


def drop(path: str) -> bool:
    """Remove a leftover; False if somebody is at it."""
    if os.path.islink(path):
        os.unlink(path)
        return True
    try:
        fd = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if fd is None:
        with suppress(FileNotFoundError):
            os.unlink(path)
        return True
    _remove(fd, path, _own(path, os.urandom(12).hex()))
    return True


def _paths(places: Places, names: str) -> list[str]:
    """What has a name of such a form; all else, as the lost+found of a file system of its own, is not ours."""
    top = places.archive_dir
    return [f"{top}/{name}" for name in files.names_in(top) if re.fullmatch(names, name)]


def read_record(path: str) -> Record | None:
    """The record in a directory of the cache; None if there is none that can be read."""
    try:
        return records.decode(Record, json.loads(files.read_whole(f"{path}/{_RECORD}")))
    except (OSError, ValueError, RecursionError):
        return None


def write_record(path: str, record: Record) -> None:
    """Write the record, in the place of the one before."""
    new = f"{path}/.{_RECORD}-{os.urandom(6).hex()}"
    with open(new, "w", encoding="utf-8") as file:
        json.dump(records.encode(record), file)
    os.rename(new, f"{path}/{_RECORD}")


def completed(record: Record, digest: str, size_bytes: int) -> Record:
    """The record of a tree that is complete."""
    return replace(record, digest=digest, size_bytes=size_bytes)
