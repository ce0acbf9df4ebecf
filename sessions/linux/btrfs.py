"""Subvolumes of btrfs, by its ioctls (linux/btrfs.h): snapshots, and their removal with all that is nested in them.

A subvolume is known by its number, which is never used twice, so that nobody can put another in its place by a name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator

from sessions.errors import SessionsError
from sessions.linux import syscall, trace

_TREE_SEARCH = 0xD0009411
_INO_LOOKUP = 0xD0009412
_SNAP_CREATE_V2 = 0x50009417
_SNAP_DESTROY_V2 = 0x5000943F
# struct btrfs_ioctl_vol_args_v2: descriptor, transaction, flags, four more words; then the name, or a number.
_VOLUME = struct.Struct("=qQQ4Q4040s")
_BY_NUMBER = 1 << 4
# struct btrfs_ioctl_search_key, and what is before each item that is found.
_SEARCH = struct.Struct("=7Q4I4Q")
_FOUND = struct.Struct("=QQQII")
_ARGUMENT_BYTES = 4096
_ROOT_TREE = 1
_ROOT_REFERENCE = 156
_FIRST_INODE = 256
_HIGHEST = 0xFFFFFFFFFFFFFFFF
_MOST_ITEMS = 0xFFFFFFFF


def is_subvolume(fd: int) -> bool:
    """Whether the directory behind a descriptor is the top of a subvolume."""
    return syscall.filesystem_type(fd) == syscall.BTRFS_SUPER_MAGIC and os.fstat(fd).st_ino == _FIRST_INODE


def snapshot(source_fd: int, directory_fd: int, name: str) -> None:
    """Make a snapshot that can be written to of the subvolume behind `source_fd`, as `name` in a directory.

    Raises OSError: FileExistsError where the name is taken, EXDEV where the directory is on another file system.
    """
    trace.point("snapshot", name)
    _volume_call(directory_fd, _SNAP_CREATE_V2, source_fd, 0, os.fsencode(name), name)
    trace.point("made snapshot", name)


def destroy(fd: int, path: str) -> None:
    """Remove the subvolume whose top is open (`path` is its name, for messages), with those that are nested in it.

    What has been moved out of it meanwhile is not in it any more, and is left alone. Raises SessionsError, with what
    stands against it.
    """
    for number in _with_nested(fd, _number(fd)):
        trace.point("destroy subvolume", number)
        try:
            _volume_call(fd, _SNAP_DESTROY_V2, 0, _BY_NUMBER, number.to_bytes(8, "little"), path)
        except FileNotFoundError:  # somebody was quicker
            pass
        except OSError as error:
            raise SessionsError(
                f"subvolume {number} in {path} cannot be removed: {error.strerror}", hint=_remedy(error, path)
            ) from None
        trace.point("destroyed subvolume", number)


def _remedy(error: OSError, path: str) -> str:
    if error.errno == errno.EPERM:
        return "see whether a btrfs send of it is running, a swap file is in use in it, or it is the default subvolume"
    if error.errno == errno.EBUSY:
        return f"see what is mounted in it: findmnt -R {path}"
    return f"see btrfs subvolume list -o {path}"


def _volume_call(fd: int, request: int, other_fd: int, flags: int, name: bytes, path: str) -> None:
    try:
        fcntl.ioctl(fd, request, bytearray(_VOLUME.pack(other_fd, 0, flags, 0, 0, 0, 0, name)))
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def _number(fd: int) -> int:
    """The number of the subvolume that a descriptor is in."""
    buffer = bytearray(struct.pack("=QQ", 0, _FIRST_INODE).ljust(_ARGUMENT_BYTES, b"\0"))
    fcntl.ioctl(fd, _INO_LOOKUP, buffer)
    return int.from_bytes(buffer[:8], "little")


def _with_nested(fd: int, number: int) -> Iterator[int]:
    """The subvolumes that are nested in one, the deepest first, and then itself."""
    for below in _children(fd, number):
        yield from _with_nested(fd, below)
    yield number


def _children(fd: int, number: int) -> list[int]:
    """The subvolumes that have their names in the subvolume `number`."""
    found: list[int] = []
    lowest = 0
    while True:
        key = (_ROOT_TREE, number, number, lowest, _HIGHEST, 0, _HIGHEST)
        kinds = (_ROOT_REFERENCE, _ROOT_REFERENCE, _MOST_ITEMS, 0)
        buffer = bytearray(_SEARCH.pack(*key, *kinds, 0, 0, 0, 0).ljust(_ARGUMENT_BYTES, b"\0"))
        fcntl.ioctl(fd, _TREE_SEARCH, buffer)
        count = _SEARCH.unpack_from(buffer)[9]
        if not count:
            return found
        at = _SEARCH.size
        for _item in range(count):
            _transaction, _parent, child, _kind, length = _FOUND.unpack_from(buffer, at)
            found.append(child)
            at += _FOUND.size + length
        lowest = found[-1] + 1
