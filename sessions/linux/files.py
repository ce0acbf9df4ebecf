"""Files below a root that somebody else may be changing: resolved in-root, acted on by descriptor.

Paths inside a chroot are opened by openat2(2) with RESOLVE_IN_ROOT, so an absolute link or ``..`` stays inside.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from sessions.errors import SessionsError
from sessions.linux import syscall, trace

_IN_ROOT = syscall.RESOLVE_IN_ROOT | syscall.RESOLVE_NO_MAGICLINKS
_MOST_LINKS = 40
MADE_ATTRIBUTE = "trusted.chroot-sessions.made"
_LEAST_READ_BYTES = 4096
# What is said of a path that leads to nothing, and of one that somebody inside has laid where we do not go.
_ABSENT = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.EINVAL, errno.EACCES, errno.ENAMETOOLONG)
)


def is_absence(error: OSError) -> bool:
    """Whether an error proves that nothing is at a path; any other, as EMFILE or EIO, proves nothing."""
    return error.errno in _ABSENT


class directory:
    """A descriptor (O_PATH) of the directory at a path of the host that only root can change, closed afterwards."""

    __slots__ = ("_fd", "_path")

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> int:
        self._fd = os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._fd

    def __exit__(self, *_exception: object) -> None:
        os.close(self._fd)


def is_there(path: str) -> bool:
    """Whether anything is at a path, a link that leads nowhere too; raises OSError where that cannot be told."""
    try:
        os.lstat(path)
    except OSError as error:
        if not is_absence(error):
            raise
        return False
    return True


def path_of(fd: int) -> str:
    """The path of an open directory, without links, as the kernel knows it."""
    return os.readlink(f"/proc/self/fd/{fd}")


def read_whole(path: str) -> bytes:
    """A file of the host's, in as few system calls as there can be."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_descriptor(fd)
    finally:
        os.close(fd)


def read_descriptor(fd: int) -> bytes:
    """What is left to be read of an open file."""
    pieces = []
    status = os.fstat(fd)
    # Less than was asked for is the end of a file on a disk; the kernel's own, which have no size, come in pieces.
    ends_short = stat.S_ISREG(status.st_mode) and status.st_size > 0
    asked_bytes = max(status.st_size, _LEAST_READ_BYTES) + 1
    while piece := os.read(fd, asked_bytes):
        pieces.append(piece)
        if ends_short and len(piece) < asked_bytes:
            break
    return b"".join(pieces)


def names_in(path: str) -> list[str]:
    """What there is in a directory, in order; nothing if there is no such directory."""
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []


def sync_directory(path: str) -> None:
    """Put the names in a directory on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file_system(path: str) -> None:
    """Put all of the file system that a directory is on on its disk (syncfs(2))."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscall.syncfs(fd)
    finally:
        os.close(fd)


def ensure_own_directory(path: str, mode: int) -> None:
    """Make a directory of ours, and what is missing above it, unless it is there.

    Raises SessionsError if it is a link, not a directory, not root's, or writable by others.
    """
    try:
        found = os.lstat(path)
    except OSError:
        _make_with_parents(path, mode)
        found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise SessionsError(
            f"{path} is not a directory that only its owner, the calling user, can write to",
            hint="look at it, then remove it or mend owner and mode",
        )


def _make_with_parents(path: str, mode: int) -> None:
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        # Somebody may be quicker; what they make has to stand the same test.
        with suppress(FileExistsError):
            _make_directory(path, mode)
    except OSError as error:
        raise SessionsError(
            f"cannot make the directory {path}: {error.strerror}", hint="make it writable, or name another place"
        ) from None


def _make_directory(path: str, mode: int, dir_fd: int | None = None) -> None:
    trace.point("mkdir", path)
    os.mkdir(path, mode, dir_fd=dir_fd)
    # What the umask took away is given back; changing that for a moment would change it for all threads.
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        made = stat.S_IMODE(os.fstat(fd).st_mode)
        if made & 0o777 != mode:
            os.fchmod(fd, made & ~0o777 | mode)
    finally:
        os.close(fd)
    trace.point("made", path)


def make_directory(path: str, mode: int) -> None:
    """mkdir(2) with exactly `mode`, whatever the umask; FileExistsError if anything is there."""
    _make_directory(path, mode)


def open_in_root(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` as a process whose root is `root_fd` would; magic links such as /proc/self/root are refused."""
    return syscall.openat2(root_fd, path, flags, _IN_ROOT, mode)


def exists_in_root(root_fd: int, path: str) -> bool:
    """Whether there is something at `path` inside the root."""
    try:
        os.close(open_in_root(root_fd, path, os.O_PATH))
    except OSError as error:
        if not is_absence(error):
            raise
        return False
    return True


def locate(root_fd: int, path: str) -> tuple[int, str, os.stat_result | None]:
    """The directory (a descriptor, O_PATH) and the last name that `path` leads to inside the root, and what is there.

    Links are followed, also when the last one dangles, so that the name itself is never a link at that moment; where
    nothing has that name there is no status. Raises OSError as open(2) would.
    """
    for _link in range(_MOST_LINKS):
        above, _slash, name = path.rstrip("/").rpartition("/")
        if name in ("", ".", ".."):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        fd = open_in_root(root_fd, above or "/", os.O_PATH | os.O_DIRECTORY)
        try:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISLNK(found.st_mode):
                return fd, name, found
            target = os.readlink(name, dir_fd=fd)
        except FileNotFoundError:
            return fd, name, None
        except OSError as error:
            os.close(fd)
            if error.errno == errno.EINVAL:  # a link no more
                continue
            raise
        os.close(fd)
        path = target if target.startswith("/") else f"{above}/{target}"
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def prefixes(path: str) -> list[str]:
    """`path` and the directories above it, topmost last and without the root."""
    found = []
    while path.strip("/"):
        found.append(path)
        path = path.rstrip("/").rpartition("/")[0]
    return found


def missing_directories(root_fd: int, path: str) -> list[str]:
    """Those of `path` and the directories above it that do not exist inside the root, topmost first."""
    missing: list[str] = []
    for one in prefixes(path):
        try:
            os.close(open_in_root(root_fd, one, os.O_PATH))
            break
        except FileNotFoundError:
            missing.insert(0, one)
    return missing


def make_in_root(root_fd: int, path: str, *, as_file: bool) -> None:
    """Make one directory (0755), or an empty file (0644), at `path` inside the root; the directory above exists."""
    fd, name, _found = locate(root_fd, path)
    try:
        if as_file:
            trace.point("create", path)
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=fd))
            trace.point("created", path)
        else:
            _make_directory(name, 0o755, fd)
    finally:
        os.close(fd)


def make_link(root_fd: int, path: str, points_to: str) -> None:
    """Make a symbolic link at `path` inside the root, unless there is something already."""
    fd, name, _found = locate(root_fd, path)
    try:
        os.symlink(points_to, name, dir_fd=fd)
    except FileExistsError:
        pass
    finally:
        os.close(fd)


def remove_made(root_fd: int, path: str) -> None:
    """Undo :func:`make_in_root`: remove an empty directory or an empty file; anything else is left alone.

    What cannot be removed, since somebody has mounted something on it too, is marked: :func:`is_made` tells them then.
    """
    try:
        fd, name, found = locate(root_fd, path)
    except OSError as error:
        if not is_absence(error):
            raise
        return
    try:
        if found is not None and not _try_to_remove(name, fd, found):
            try:
                os.setxattr(f"/proc/self/fd/{fd}/{name}", MADE_ATTRIBUTE, b"1", follow_symlinks=False)
            except OSError:
                return
            # Once more: whoever has unmounted his meanwhile may have seen no mark.
            _try_to_remove(name, fd, found)
    finally:
        os.close(fd)


def is_made(root_fd: int, path: str) -> bool:
    """Whether `path` was left by who had made it, for whoever is the last to use it to :func:`remove_made`."""
    try:
        fd, name, found = locate(root_fd, path)
    except OSError as error:
        if not is_absence(error):
            raise
        return False
    try:
        return found is not None and bool(
            os.getxattr(f"/proc/self/fd/{fd}/{name}", MADE_ATTRIBUTE, follow_symlinks=False)
        )
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP) and not is_absence(error):
            raise
        return False
    finally:
        os.close(fd)


def _try_to_remove(name: str, fd: int, found: os.stat_result) -> bool:
    """Remove an empty directory or file; False if it is in use."""
    try:
        if stat.S_ISDIR(found.st_mode):
            os.rmdir(name, dir_fd=fd)
        elif stat.S_ISREG(found.st_mode) and found.st_size == 0:
            os.unlink(name, dir_fd=fd)
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        # By now something else than what was made: not ours to remove.
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
            raise
    return True
