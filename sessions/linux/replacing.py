"""Files put below a root that others may write to, in place of whatever is there."""

from __future__ import annotations

import errno
import os
import stat

from sessions.linux import syscall, trace
from sessions.linux.files import is_absence, locate, make_in_root, missing_directories, open_in_root

# The kernel may take them away when a file is written or given to somebody else (chown(2), write(2)).
_LOST_BY_WRITING = stat.S_ISUID | stat.S_ISGID


def replace_file(
    root_fd: int,
    path: str,
    data: bytes,
    *,
    temporary: str,
    mode: int | None = None,
    original: os.stat_result | None = None,
    is_copy: bool = False,
    is_watched: bool = True,
) -> bool:
    """Put a regular file with `data` at `path` inside the root, at once, in place of whatever file or link leads there.

    Owner and mode are those of a regular file that was there; else root's and `mode` (0644). With `is_copy` they are
    those of `original`, the host's file, and so is the time. Missing directories above are made. `temporary` is the
    name the file has in its directory before it is renamed. A file that holds `data` already is left as it is, and so
    is one that is `original` itself, for which False is returned. Where nobody lives who could see half a file, it is
    not `is_watched`, and may be written where it is, which is quicker; not below a mount, which may be of the host's.
    """
    fd, name, found = _locate_for_writing(root_fd, path)
    try:
        old = _regular_file(name, found)
        if old is not None and _is_same(old, original):
            return False
        if old is not None and _holds(fd, name, old, data):
            return True
        like = original if is_copy else old
        owner = (like.st_uid, like.st_gid) if like is not None else (0, 0)
        new_mode = mode if mode is not None else stat.S_IMODE(like.st_mode) if like is not None else 0o644
        trace.point("write", path)
        try:
            times_ns = (original.st_atime_ns, original.st_mtime_ns) if is_copy and original is not None else None
            has_one_name = found is None or (old is not None and old.st_nlink == 1)
            if not is_watched and has_one_name and syscall.mount_id(fd) == syscall.mount_id(root_fd):
                _write(fd, name, os.O_TRUNC | os.O_NONBLOCK, data, owner, new_mode, times_ns, old)
            else:
                _create(fd, temporary, data, owner, new_mode, times_ns)
                os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
        except BaseException:
            _unlink_if_there(fd, temporary)
            raise
        trace.point("wrote", path)
        return True
    finally:
        os.close(fd)


def _create(
    dir_fd: int, name: str, data: bytes, owner: tuple[int, int], mode: int, times_ns: tuple[int, int] | None
) -> None:
    """Write a file that is not there."""
    try:
        _write(dir_fd, name, os.O_EXCL, data, owner, mode, times_ns)
    except FileExistsError:  # left by a write that was killed
        os.unlink(name, dir_fd=dir_fd)
        _write(dir_fd, name, os.O_EXCL, data, owner, mode, times_ns)


def _write(
    dir_fd: int,
    name: str,
    flags: int,
    data: bytes,
    owner: tuple[int, int],
    mode: int,
    times_ns: tuple[int, int] | None,
    old: os.stat_result | None = None,
) -> None:
    """Write a file, and give it owner, mode and times unless those of the `old` one are the same."""
    flags |= os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    file_fd = os.open(name, flags, 0o600, dir_fd=dir_fd)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file_fd, view) :]
        if owner != ((old.st_uid, old.st_gid) if old else (os.geteuid(), os.getegid())):
            os.fchown(file_fd, *owner)
        if old is None or mode != stat.S_IMODE(old.st_mode) or mode & _LOST_BY_WRITING:
            os.fchmod(file_fd, mode)
        if times_ns:
            os.utime(file_fd, ns=times_ns)
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
        fd, _name, _found = _locate_or_link(root_fd, path)
    except OSError as error:
        if not is_absence(error):
            raise
        return
    try:
        _unlink_if_there(fd, temporary)
    finally:
        os.close(fd)


def _locate_for_writing(root_fd: int, path: str) -> tuple[int, str, os.stat_result | None]:
    """As :func:`_locate_or_link`; makes the directories above."""
    try:
        return locate(root_fd, path)
    except FileNotFoundError:
        for missing in missing_directories(root_fd, path)[:-1]:
            make_in_root(root_fd, missing, as_file=False)
        return _locate_or_link(root_fd, path)


def _locate_or_link(root_fd: int, path: str) -> tuple[int, str, os.stat_result | None]:
    """As :func:`locate`; but the link itself where its target's directory does not exist."""
    try:
        return locate(root_fd, path)
    except FileNotFoundError:
        above, _slash, name = path.rstrip("/").rpartition("/")
        fd = open_in_root(root_fd, above or "/", os.O_PATH | os.O_DIRECTORY)
        return fd, name, _status(fd, name)


def _status(dir_fd: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _regular_file(name: str, found: os.stat_result | None) -> os.stat_result | None:
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    return found if found is not None and stat.S_ISREG(found.st_mode) else None


def _unlink_if_there(dir_fd: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        pass
    except OSError as error:
        # Which is said of a read-only file system before it is looked whether there is anything.
        if error.errno != errno.EROFS or _status(dir_fd, name) is not None:
            raise
