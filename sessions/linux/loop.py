"""Loop devices (loop(4)): a file as a block device, for as long as somebody has it open or mounted.

Every device made here clears itself with its last user (LO_FLAGS_AUTOCLEAR), so that there is nothing to undo: whoever
dies closes it. Two devices on one file that is written to would destroy what is in it, since neither knows what the
other has in memory; so the one that there is already is used by all.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator

from sessions.data import Frozen
from sessions.errors import SessionsError
from sessions.linux import trace

_CONTROL = "/dev/loop-control"
_BLOCK = "/sys/block"
_GET_STATUS64 = 0x4C05
_CONFIGURE = 0x4C0A
_CTL_GET_FREE = 0x4C82
_READ_ONLY, _AUTOCLEAR = 1, 4
# struct loop_info64 (linux/loop.h): device, inode, rdevice, offset, sizelimit, number, encrypt type and size, flags,
# file name, crypt name, encrypt key, init.
_INFO = struct.Struct("=QQQQQIIII64s64s32s2Q")
# struct loop_config: fd, block size, the info, and what is reserved.
_CONFIG = struct.Struct("=II" + _INFO.format[1:] + "64x")
_MOST_TRIES = 64


class Region(Frozen):
    """The part of a file that a device shows: from `offset_bytes` on, `size_bytes` of it or (0) all that follows."""

    offset_bytes: int = 0
    size_bytes: int = 0


class _Status(Frozen):
    device: int
    inode: int
    region: Region
    flags: int


def attach(path: str, file_fd: int, region: Region, *, read_only: bool) -> tuple[int, str]:
    """A descriptor and the path of a loop device on the open file; it lasts as long as somebody uses it.

    One that is there already for just that is used. The caller keeps others from doing the same at once. Raises
    SessionsError where the kernel has no loop devices, or where the file is in use by another kind of one.
    """
    found = _existing(path, os.fstat(file_fd), region, read_only=read_only)
    return found or _new(path, file_fd, region, read_only=read_only)


def _existing(path: str, file: os.stat_result, region: Region, *, read_only: bool) -> tuple[int, str] | None:
    """The device on just that part of the file, opened."""
    for device in _bound():
        try:
            fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # cleared meanwhile
            continue
        status = _status(fd)
        if status is None or (status.device, status.inode) != (_encoded(file.st_dev), file.st_ino):
            os.close(fd)
            continue
        is_read_only = bool(status.flags & _READ_ONLY)
        if status.region == region and is_read_only == read_only:
            return fd, device
        os.close(fd)
        if not (is_read_only and read_only):
            raise SessionsError(
                f"{path} is in use as {device}, {'read-only' if is_read_only else 'for writing'}",
                hint=f"end the sessions that use it, or see losetup {device}; two devices on one file destroy it",
            )
    return None


def on_file(file: os.stat_result) -> Iterator[str]:
    """The paths of the devices on a file, whatever part of it they show."""
    for device in _bound():
        try:
            fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # cleared meanwhile
            continue
        try:
            status = _status(fd)
        finally:
            os.close(fd)
        if status is not None and (status.device, status.inode) == (_encoded(file.st_dev), file.st_ino):
            yield device


def _encoded(device: int) -> int:
    """A device number as the kernel writes it in loop_info64 (huge_encode_dev)."""
    major, minor = os.major(device), os.minor(device)
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def _bound() -> Iterator[str]:
    """The loop devices that have a file."""
    for name in sorted(os.listdir(_BLOCK)):
        if name.startswith("loop") and os.path.isdir(f"{_BLOCK}/{name}/loop"):
            yield f"/dev/{name}"


def _status(fd: int) -> _Status | None:
    """What a device is on; None if it has no file any more."""
    try:
        data = fcntl.ioctl(fd, _GET_STATUS64, bytes(_INFO.size))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None
    device, inode, _rdevice, offset, size, _number, _type, _key_size, flags, *_names = _INFO.unpack(data)
    return _Status(device, inode, Region(offset, size), flags)


def _new(path: str, file_fd: int, region: Region, *, read_only: bool) -> tuple[int, str]:
    """A device of its own, which others may take away from under us until it has the file."""
    flags = _AUTOCLEAR | (_READ_ONLY if read_only else 0)
    name = os.fsencode(path)[:63]
    info = (0, 0, 0, region.offset_bytes, region.size_bytes, 0, 0, 0, flags, name, b"", b"", 0, 0)
    config = _CONFIG.pack(file_fd, 0, *info)
    for _try in range(_MOST_TRIES):
        device = f"/dev/loop{_free_number()}"
        try:
            fd = os.open(device, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
        except FileNotFoundError:
            raise SessionsError(
                f"{device} does not exist, so that {path} cannot be mounted", hint="see that /dev is a devtmpfs"
            ) from None
        trace.point("attach loop device", path)
        try:
            fcntl.ioctl(fd, _CONFIGURE, config)
        except OSError as error:
            os.close(fd)
            if error.errno == errno.EBUSY:  # somebody was quicker
                continue
            raise OSError(error.errno, error.strerror, path) from None
        trace.point("attached loop device", path)
        return fd, device
    raise SessionsError(f"there is no loop device to be had for {path}", hint="see losetup(8), and try again")


def _free_number() -> int:
    """The number of a device without a file. Raises SessionsError where there can be none: to open the control device
    would make the kernel load its module.
    """
    with open("/proc/devices", encoding="utf-8") as table:
        if not any(line.split()[1:] == ["loop"] for line in table):
            raise SessionsError("this kernel has no loop devices", hint="load them as root: modprobe loop")
    try:
        control_fd = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise SessionsError(f"{_CONTROL}: {error.strerror}", hint="see that /dev is a devtmpfs") from None
    try:
        return fcntl.ioctl(control_fd, _CTL_GET_FREE)
    finally:
        os.close(control_fd)
