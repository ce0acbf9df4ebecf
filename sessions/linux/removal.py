"""Removing trees that somebody else may be changing: by descriptor, following no link, staying on one mount."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

from sessions.errors import SessionsError
from sessions.linux import syscall, trace

# For single names out of a directory's own list. RESOLVE_BENEATH would add nothing to them, but for an EXDEV, which
# looks like a mount, when somebody moves a directory away at that very moment.
_ONE_TREE = syscall.RESOLVE_NO_XDEV | syscall.RESOLVE_NO_SYMLINKS
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
        try:
            with os.scandir(fd) as entries:
                found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
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
