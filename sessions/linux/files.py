"""Files below a root that somebody else may be changing: resolved in-root, acted on by descriptor, on one mount.

Paths inside a chroot are opened by openat2(2) with RESOLVE_IN_ROOT, so an absolute link or ``..`` stays inside.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sessions.errors import SessionsError
from sessions.linux import syscall, trace

_IN_ROOT = syscall.RESOLVE_IN_ROOT | syscall.RESOLVE_NO_MAGICLINKS
_ONE_TREE = syscall.RESOLVE_BENEATH | syscall.RESOLVE_NO_XDEV | syscall.RESOLVE_NO_SYMLINKS
_MOST_LINKS = 40
# Directories open at once while a tree is removed; what lies deeper is moved up first.
_DEEPEST = 64
# How often a directory that is never empty is emptied again, and how many are moved up, if somebody makes ever more.
_MOST_IDLE_ROUNDS = 8
_MOST_MOVED = 1_000_000
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_IMMUTABLE_OR_APPEND = 0x10 | 0x20


class MountInTheWay(SessionsError):
    """A tree cannot be removed because something is mounted in it."""


@contextmanager
def directory(path: str) -> Iterator[int]:
    """A descriptor (O_PATH) of the directory at a path of the host that only root can change, closed afterwards."""
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
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


def locate(root_fd: int, path: str) -> tuple[int, str]:
    """The directory (a descriptor, O_PATH) and the last name that `path` leads to inside the root.

    Links are followed, also when the last one dangles, so that the name itself is never a link at that moment; it
    need not exist. Raises OSError as open(2) would.
    """
    for _link in range(_MOST_LINKS):
        above, _slash, name = path.rstrip("/").rpartition("/")
        if name in ("", ".", ".."):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        fd = open_in_root(root_fd, above or "/", os.O_PATH | os.O_DIRECTORY)
        try:
            target = os.readlink(name, dir_fd=fd)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return fd, name
            os.close(fd)
            raise
        os.close(fd)
        path = target if target.startswith("/") else f"{above}/{target}"
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def missing_directories(root_fd: int, path: str) -> list[str]:
    """Those of `path` and the directories above it that do not exist inside the root, topmost first."""
    missing: list[str] = []
    while path.strip("/"):
        try:
            os.close(open_in_root(root_fd, path, os.O_PATH))
            break
        except FileNotFoundError:
            missing.insert(0, path)
            path = path.rstrip("/").rpartition("/")[0]
    return missing


def make_in_root(root_fd: int, path: str, *, as_file: bool) -> None:
    """Make one directory (0755), or an empty file (0644), at `path` inside the root; the directory above exists."""
    fd, name = locate(root_fd, path)
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
    fd, name = locate(root_fd, path)
    try:
        os.symlink(points_to, name, dir_fd=fd)
    except FileExistsError:
        pass
    finally:
        os.close(fd)


def remove_made(root_fd: int, path: str) -> None:
    """Undo :func:`make_in_root`: remove an empty directory or an empty file; anything else is left alone."""
    try:
        fd, name = locate(root_fd, path)
    except OSError:
        return
    try:
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            os.rmdir(name, dir_fd=fd)
        elif stat.S_ISREG(found.st_mode) and found.st_size == 0:
            os.unlink(name, dir_fd=fd)
    except OSError as error:
        # Not empty, still in use, or by now something else than what was made: not ours to remove.
        kept = (errno.ENOENT, errno.ENOTEMPTY, errno.EBUSY, errno.EROFS, errno.ENOTDIR, errno.EISDIR)
        if error.errno not in kept:
            raise
    finally:
        os.close(fd)


def replace_file(
    root_fd: int,
    path: str,
    data: bytes,
    *,
    temporary: str,
    mode: int | None = None,
    original: os.stat_result | None = None,
) -> None:
    """Put a regular file with `data` at `path` inside the root, at once, in place of whatever file or link leads there.

    Owner and mode are those of a regular file that was there; else root's and `mode` (0644). Missing directories
    above are made. `temporary` is the name the file has in its directory before it is renamed. A file that holds
    `data` already, or that is the host's own file, of which `original` tells, is left as it is.
    """
    fd, name = _locate_for_writing(root_fd, path)
    try:
        old = _regular_file(fd, name)
        if old is not None and (_is_same(old, original) or _holds(fd, name, old, data)):
            return
        owner = (old.st_uid, old.st_gid) if old is not None else (0, 0)
        new_mode = mode if mode is not None else stat.S_IMODE(old.st_mode) if old is not None else 0o644
        trace.point("write", path)
        try:
            _create(fd, temporary, data, owner, new_mode)
            os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
        except BaseException:
            _unlink_if_there(fd, temporary)
            raise
        trace.point("wrote", path)
    finally:
        os.close(fd)


def _create(dir_fd: int, name: str, data: bytes, owner: tuple[int, int], mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        file_fd = os.open(name, flags, 0o600, dir_fd=dir_fd)
    except FileExistsError:  # left by a write that was killed
        os.unlink(name, dir_fd=dir_fd)
        file_fd = os.open(name, flags, 0o600, dir_fd=dir_fd)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file_fd, view) :]
        if owner != (os.geteuid(), os.getegid()):
            os.fchown(file_fd, *owner)
        os.fchmod(file_fd, mode)
        trace.point("created", name)
    finally:
        os.close(file_fd)


def _is_same(status: os.stat_result, other: os.stat_result | None) -> bool:
    return other is not None and os.path.samestat(status, other)


def _holds(dir_fd: int, name: str, status: os.stat_result, data: bytes) -> bool:
    if status.st_size != len(data):
        return False
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    with open(fd, "rb") as file:
        return file.read() == data


def remove_temporary(root_fd: int, path: str, temporary: str) -> None:
    """Remove what a :func:`replace_file` that was killed left beside `path`."""
    try:
        fd, _name = _locate_or_link(root_fd, path)
    except OSError:
        return
    try:
        _unlink_if_there(fd, temporary)
    finally:
        os.close(fd)


def _locate_for_writing(root_fd: int, path: str) -> tuple[int, str]:
    """As :func:`_locate_or_link`; makes the directories above."""
    try:
        return locate(root_fd, path)
    except FileNotFoundError:
        for missing in missing_directories(root_fd, path)[:-1]:
            make_in_root(root_fd, missing, as_file=False)
        return _locate_or_link(root_fd, path)


def _locate_or_link(root_fd: int, path: str) -> tuple[int, str]:
    """As :func:`locate`; but the link itself where its target's directory does not exist."""
    try:
        return locate(root_fd, path)
    except FileNotFoundError:
        above, _slash, name = path.rstrip("/").rpartition("/")
        return open_in_root(root_fd, above or "/", os.O_PATH | os.O_DIRECTORY), name


def _regular_file(dir_fd: int, name: str) -> os.stat_result | None:
    try:
        found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    return found if stat.S_ISREG(found.st_mode) else None


def _unlink_if_there(dir_fd: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        pass


def remove_tree(path: str) -> None:
    """Remove a directory and all below it; nothing there is success.

    Works by descriptor, follows no link, stays on one mount: raises MountInTheWay, naming the place, when it comes to
    one. Raises OSError for whatever else cannot be removed. `path` itself is one of ours, above it only root writes.
    """
    try:
        parent_fd = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _Removal(path).remove(parent_fd, os.path.basename(path))
    finally:
        os.close(parent_fd)


class _Removal:
    """One removal: its top directory and the number of deep directories moved up to it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.top_fd = -1
        self.moved = 0

    def remove(self, parent_fd: int, name: str) -> None:
        """Empty and remove the top: again while deep directories come up, and a few times if others fill it."""
        idle_rounds = 0
        while True:
            moved_before = self.moved
            try:
                self.top_fd = self._open(parent_fd, name, self.path)
            except FileNotFoundError:
                return
            except NotADirectoryError:
                os.unlink(name, dir_fd=parent_fd)
                return
            try:
                self._empty(self.top_fd, self.path, 0)
                trace.point("rmdir", self.path)
                _rmdir(name, parent_fd)
                trace.point("removed", self.path)
                return
            except OSError as error:
                idle_rounds = idle_rounds + 1 if self.moved == moved_before else 0
                if error.errno != errno.ENOTEMPTY or idle_rounds == _MOST_IDLE_ROUNDS or self.moved > _MOST_MOVED:
                    raise
            finally:
                os.close(self.top_fd)

    def _open(self, dir_fd: int, name: str, path: str) -> int:
        try:
            return syscall.openat2(dir_fd, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, _ONE_TREE)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise MountInTheWay(f"something is mounted on {path}", hint=f"unmount it: umount {path}") from None
            if error.errno == errno.ELOOP:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
            raise

    def _empty(self, fd: int, path: str, depth: int) -> None:
        with os.scandir(fd) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_directory in found:
            below = f"{path}/{name}"
            try:
                if is_directory:
                    self._remove_directory(fd, name, below, depth)
                else:
                    trace.point("unlink", below)
                    _unlink(name, fd)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                # Changed by somebody else since it was listed; what is there now keeps the directory from being empty.
                continue
            except OSError as error:
                if error.errno == errno.EBUSY:
                    raise MountInTheWay(
                        f"something is mounted on {below}", hint=f"unmount it: umount {below}"
                    ) from None
                raise OSError(error.errno, error.strerror, below) from None

    def _remove_directory(self, fd: int, name: str, path: str, depth: int) -> None:
        if depth >= _DEEPEST:
            self.moved += 1
            _rename(name, fd, f".deep-{os.getpid()}-{self.moved}", self.top_fd)
            return
        below_fd = self._open(fd, name, path)
        try:
            self._empty(below_fd, path, depth + 1)
        finally:
            os.close(below_fd)
        try:
            _rmdir(name, fd)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise


def _unlink(name: str, dir_fd: int) -> None:
    try:
        os.unlink(name, dir_fd=dir_fd)
    except PermissionError:
        _make_mutable(dir_fd)
        _make_mutable_below(name, dir_fd)
        os.unlink(name, dir_fd=dir_fd)


def _rmdir(name: str, dir_fd: int) -> None:
    try:
        os.rmdir(name, dir_fd=dir_fd)
    except PermissionError:
        _make_mutable(dir_fd)
        _make_mutable_below(name, dir_fd)
        os.rmdir(name, dir_fd=dir_fd)


def _rename(name: str, dir_fd: int, new_name: str, new_dir_fd: int) -> None:
    try:
        os.rename(name, new_name, src_dir_fd=dir_fd, dst_dir_fd=new_dir_fd)
    except PermissionError:
        _make_mutable(dir_fd)
        _make_mutable(new_dir_fd)
        _make_mutable_below(name, dir_fd)
        os.rename(name, new_name, src_dir_fd=dir_fd, dst_dir_fd=new_dir_fd)


def _make_mutable_below(name: str, dir_fd: int) -> None:
    """Make a file or directory mutable; nothing else can have the flags, and to open a device does things."""
    try:
        path_fd = syscall.openat2(dir_fd, name, os.O_PATH | os.O_NOFOLLOW, _ONE_TREE)
    except OSError:
        return
    try:
        mode = os.fstat(path_fd).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            fd = os.open(f"/proc/self/fd/{path_fd}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _make_mutable(fd)
            finally:
                os.close(fd)
    finally:
        os.close(path_fd)


def _make_mutable(fd: int) -> None:
    """Take the flags of chattr +i and +a away (ioctl_iflags(2)); a file system without them has nothing to take."""
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH:
        return
    try:
        (flags,) = struct.unpack("i", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, struct.pack("i", 0))[:4])
        if flags & _FS_IMMUTABLE_OR_APPEND:
            fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("i", flags & ~_FS_IMMUTABLE_OR_APPEND))
    except OSError:
        pass
