"""Files that appear complete or not at all, whoever dies: written without a name, and only then linked to theirs."""

from __future__ import annotations

import errno
import os

from sessions.linux import files, syscall


def publish(
    directory: str, name: str, data: bytes, *, temporary: str, reserved_bytes: int = 0, is_synced: bool = False
) -> int:
    """Make the file `name` with `data`; its descriptor, open for reading and appending.

    `temporary` is the name it has until then on file systems that have no files without one. `reserved_bytes` is how
    long it may become without asking the disk for more. With `is_synced` it outlives a power cut from now on. Raises
    FileExistsError if the name is taken.
    """
    fd, unnamed = _open(directory, os.path.join(directory, temporary))
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        if reserved_bytes:
            _reserve(fd, reserved_bytes)
        if is_synced:
            os.fsync(fd)
        _link(fd, directory, name)
        if is_synced:
            _sync_name(directory, name)
    except BaseException:
        os.close(fd)
        raise
    finally:
        # Once it has its name it is there, whatever becomes of the other one.
        if unnamed:
            _unlink(unnamed)
    return fd


def _open(directory: str, temporary: str) -> tuple[int, str]:
    """A new file and the name that it has for now, which is empty where it needs none."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
    try:
        return os.open(directory, flags | os.O_TMPFILE, 0o600), ""
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
    return os.open(temporary, flags | os.O_CREAT | os.O_EXCL, 0o600), temporary


def _link(fd: int, directory: str, name: str) -> None:
    """link(2) from the descriptor: the directory descriptor makes Python follow the magic link (AT_SYMLINK_FOLLOW)."""
    directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(f"/proc/self/fd/{fd}", name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd, follow_symlinks=True)
    finally:
        os.close(directory_fd)


def _sync_name(directory: str, name: str) -> None:
    """Put a name on the disk, or take it away again."""
    try:
        files.sync_directory(directory)
    except OSError:
        _unlink(os.path.join(directory, name))
        raise


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def _reserve(fd: int, size_bytes: int) -> None:
    try:
        syscall.reserve(fd, size_bytes)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise
