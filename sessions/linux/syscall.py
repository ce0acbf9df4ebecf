"""System calls that Python's os module lacks: the only door to libc (ctypes).

Each function has the name and the meaning of its system call (section 2 of the manual) and raises OSError with the
path it was about. The effects that outlive the process (mount, umount, move_mount) are trace points.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable

from sessions.linux import trace

_libc = ctypes.CDLL(None, use_errno=True)

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_NOFOLLOW = 0x100
AT_RECURSIVE = 0x8000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_DIRSYNC = 0x80
MS_NOSYMFOLLOW = 0x100
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_REC = 0x4000
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8

OPEN_TREE_CLONE = 0x1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

STATX_MNT_ID = 0x1000
STATX_ATTR_MOUNT_ROOT = 0x2000

OVERLAYFS_MAGIC = 0x794C7630
TMPFS_MAGIC = 0x01021994
BTRFS_SUPER_MAGIC = 0x9123683E

FALLOC_FL_KEEP_SIZE = 0x01
PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
CLONE_FS = 0x200
CLONE_FILES = 0x400
CLONE_NEWNS = 0x20000
CLONE_NEWNET = 0x40000000
IN_MODIFY = 0x2
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_IGNORED = 0x8000
SFD_CLOEXEC = os.O_CLOEXEC
SFD_NONBLOCK = os.O_NONBLOCK
CLOSE_RANGE_CLOEXEC = 0x4
AF_UNIX = 1
SOCK_DGRAM = 2
SOCK_CLOEXEC = os.O_CLOEXEC
AF_NETLINK = 16
SOCK_RAW = 3
SOCK_NONBLOCK = os.O_NONBLOCK
NETLINK_KOBJECT_UEVENT = 15
MSG_DONTWAIT = 0x40
MSG_NOSIGNAL = 0x4000
PER_QUERY = 0xFFFFFFFF

# These numbers are the same on every architecture (the unified range of the system call table).
_NR_OPEN_TREE = 428
_NR_MOVE_MOUNT = 429
_NR_FSOPEN = 430
_NR_FSCONFIG = 431
_NR_FSMOUNT = 432
_NR_CLOSE_RANGE = 436
_NR_OPENAT2 = 437
_NR_MOUNT_SETATTR = 442

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6

_libc.syscall.restype = ctypes.c_long
_libc.mount.argtypes = (
    ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p,
)  # fmt: skip
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.personality.argtypes = (ctypes.c_ulong,)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)
_libc.signalfd.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_libc.sendto.argtypes = (
    ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint,
)  # fmt: skip
_libc.sendto.restype = ctypes.c_ssize_t


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _checked(result: int, path: str) -> int:
    """Return `result`, or raise the OSError that errno stands for."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2). `target` may be a ``/proc/self/fd/N`` path, so that a verified descriptor is what is mounted on."""
    if len(os.fsencode(data)) >= 4096:
        raise OSError(7, "mount options are longer than the 4095 bytes the kernel takes", target)
    trace.point("mount", target)
    _checked(
        _libc.mount(os.fsencode(source), os.fsencode(target), os.fsencode(fstype), flags, os.fsencode(data) or None),
        target,
    )
    trace.point("mounted", target)


def umount(target: str, flags: int = UMOUNT_NOFOLLOW) -> None:
    """umount2(2); a symbolic link as last component is never followed unless `flags` say so."""
    trace.point("umount", target)
    _checked(_libc.umount2(os.fsencode(target), flags), target)
    trace.point("umounted", target)


def open_tree(path: str, flags: int, dir_fd: int = AT_FDCWD) -> int:
    """open_tree(2): a descriptor for a mount, or with OPEN_TREE_CLONE for a detached copy of it."""
    return _checked(
        _libc.syscall(_NR_OPEN_TREE, dir_fd, os.fsencode(path), ctypes.c_uint(flags | OPEN_TREE_CLOEXEC)), path
    )


def move_mount(tree_fd: int, target_fd: int, target: str) -> None:
    """move_mount(2) of the mount behind `tree_fd` onto the object behind `target_fd`; `target` is for messages."""
    trace.point("mount", target)
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    _checked(_libc.syscall(_NR_MOVE_MOUNT, tree_fd, b"", target_fd, b"", ctypes.c_uint(flags)), target)
    trace.point("mounted", target)


def mount_setattr(fd: int, *, set_: int = 0, clear: int = 0, propagation: int = 0, recursive: bool = False) -> None:
    """mount_setattr(2) on the mount behind `fd`, and on every mount below it if `recursive`."""
    attr = _MountAttr(set_, clear, propagation, 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    size = ctypes.c_size_t(ctypes.sizeof(attr))
    _checked(_libc.syscall(_NR_MOUNT_SETATTR, fd, b"", ctypes.c_uint(flags), ctypes.byref(attr), size), "")


def new_mount(fstype: str, attributes: int, options: Iterable[tuple[str, str]] = ()) -> int:
    """A file system that is mounted nowhere yet: fsopen(2), fsconfig(2) with each option, and fsmount(2).

    An option with an empty value is a flag. Where the kernel has words for a refusal, the OSError has them.
    """
    fd = _checked(_libc.syscall(_NR_FSOPEN, os.fsencode(fstype), ctypes.c_uint(_FSOPEN_CLOEXEC)), fstype)
    try:
        for key, value in options:
            command = _FSCONFIG_SET_STRING if value else _FSCONFIG_SET_FLAG
            _configure(fd, fstype, command, os.fsencode(key), os.fsencode(value) or None)
        _configure(fd, fstype, _FSCONFIG_CMD_CREATE, None, None)
        flags = (ctypes.c_uint(_FSMOUNT_CLOEXEC), ctypes.c_uint(attributes))
        return _checked(_libc.syscall(_NR_FSMOUNT, fd, *flags), fstype)
    finally:
        os.close(fd)


def _configure(fd: int, fstype: str, command: int, key: bytes | None, value: bytes | None) -> None:
    try:
        _checked(_libc.syscall(_NR_FSCONFIG, fd, ctypes.c_uint(command), key, value, 0), fstype)
    except OSError as error:
        said = "; ".join(_messages(fd))
        raise OSError(error.errno, f"{error.strerror}{': ' if said else ''}{said}", fstype) from None


def _messages(fd: int) -> list[str]:
    """What the kernel has written into a file system context, without the letter that says how bad it is."""
    messages = []
    while True:
        try:
            messages.append(os.read(fd, 4096).decode(errors="replace").strip().removeprefix("e ").removeprefix("w "))
        except OSError:
            return messages


def filesystem_messages(fstype: str, options: Iterable[tuple[str, str]]) -> list[str]:
    """What the kernel says when it is asked to make, but not to attach, a file system with these options.

    It is asked through the file system context of fsopen(2), which unlike mount(2) has room for words. Empty where
    the kernel has nothing to say (before Linux 6.5 for overlay) or where it makes the file system after all.
    """
    try:
        fd = _checked(_libc.syscall(_NR_FSOPEN, os.fsencode(fstype), ctypes.c_uint(_FSOPEN_CLOEXEC)), fstype)
    except OSError:
        return []
    try:
        for key, value in options:
            command = _FSCONFIG_SET_STRING if value else _FSCONFIG_SET_FLAG
            text = os.fsencode(value) if value else None
            if _libc.syscall(_NR_FSCONFIG, fd, ctypes.c_uint(command), os.fsencode(key), text, 0) == -1:
                break
        else:
            _libc.syscall(_NR_FSCONFIG, fd, ctypes.c_uint(_FSCONFIG_CMD_CREATE), None, None, 0)
        return _messages(fd)
    finally:
        os.close(fd)


def openat2(dir_fd: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2); the descriptor is close-on-exec. Retries EAGAIN, which a concurrent rename causes."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    name = os.fsencode(path)
    for _attempt in range(128):
        result: int = _libc.syscall(_NR_OPENAT2, dir_fd, name, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)))
        if result != -1 or ctypes.get_errno() != 11:
            break
    return _checked(result, path)


def is_mount_root(fd: int) -> bool:
    """Whether the object behind `fd` is the root of a mount (statx(2), STATX_ATTR_MOUNT_ROOT)."""
    buffer = ctypes.create_string_buffer(256)
    _checked(_libc.statx(fd, b"", AT_EMPTY_PATH, STATX_MNT_ID, buffer), f"descriptor {fd}")
    return bool(int.from_bytes(buffer.raw[8:16], "little") & STATX_ATTR_MOUNT_ROOT)


def mount_id(fd: int) -> int:
    """The id of the mount that the object behind `fd` was reached through (as in /proc/self/mountinfo)."""
    buffer = ctypes.create_string_buffer(256)
    _checked(_libc.statx(fd, b"", AT_EMPTY_PATH, STATX_MNT_ID, buffer), f"descriptor {fd}")
    return int.from_bytes(buffer.raw[0x90:0x98], "little")


def filesystem_type(fd: int) -> int:
    """The magic number of the file system behind `fd` (statfs(2), f_type)."""
    buffer = ctypes.create_string_buffer(256)
    _checked(_libc.fstatfs(fd, buffer), f"descriptor {fd}")
    return int.from_bytes(buffer.raw[:4], "little")


def reserve(fd: int, size_bytes: int) -> None:
    """Reserve room for a file without changing its length (fallocate(2), FALLOC_FL_KEEP_SIZE)."""
    _checked(_libc.fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, size_bytes), f"descriptor {fd}")


def syncfs(fd: int) -> None:
    """syncfs(2): put all of the file system behind `fd` on its disk."""
    _checked(_libc.syncfs(fd), f"descriptor {fd}")


def set_parent_death_signal(signum: int) -> None:
    """Ask for `signum` when the thread that forked us ends (prctl(2)); a change of credentials clears it."""
    _checked(_libc.prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0), "PR_SET_PDEATHSIG")


def set_dumpable(is_dumpable: bool) -> bool:
    """Say whether the kernel may write a core file of this process (prctl(2), PR_SET_DUMPABLE); what it was before."""
    before = _checked(_libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), "PR_GET_DUMPABLE")
    _checked(_libc.prctl(PR_SET_DUMPABLE, int(is_dumpable), 0, 0, 0), "PR_SET_DUMPABLE")
    return before == 1


def unshare(flags: int) -> None:
    """unshare(2): give the calling thread its own copy of what `flags` name."""
    _checked(_libc.unshare(flags), "unshare")


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    _checked(_libc.pivot_root(os.fsencode(new_root), os.fsencode(put_old)), new_root)


def personality(persona: int) -> None:
    """personality(2)."""
    _checked(_libc.personality(persona), f"personality {persona:#x}")


def signalfd(signals: Iterable[int]) -> int:
    """A descriptor that is readable while one of `signals` is pending (signalfd(2))."""
    mask = 0
    for signum in signals:
        mask |= 1 << (signum - 1)
    buffer = ctypes.create_string_buffer(mask.to_bytes(128, "little"), 128)
    return _checked(_libc.signalfd(-1, buffer, SFD_CLOEXEC | SFD_NONBLOCK), "signalfd")


def inotify() -> int:
    """A descriptor that tells of changes in the directories added to it (inotify_init1(2))."""
    return _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify")


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    """inotify_add_watch(2): the number under which the directory's events come."""
    return _checked(_libc.inotify_add_watch(fd, os.fsencode(path), ctypes.c_uint32(mask)), path)


def heard(fd: int) -> list[tuple[int, int, str]]:
    """All that a descriptor of :func:`inotify` has to tell, without waiting: number of the watch, mask, and name."""
    found: list[tuple[int, int, str]] = []
    while True:
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return found
        while data:
            number = int.from_bytes(data[:4], sys.byteorder, signed=True)
            mask = int.from_bytes(data[4:8], sys.byteorder)
            end = 16 + int.from_bytes(data[12:16], sys.byteorder)
            found.append((number, mask, os.fsdecode(data[16:end].rstrip(b"\0"))))
            data = data[end:]


def send_datagram(path: str, data: bytes) -> None:
    """Send `data` to the socket at `path` (sendto(2), unix(7)), or fail at once: it never waits for the reader.

    Python's own module for sockets takes half a millisecond to import.
    """
    fd = _checked(_libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), path)
    try:
        address = AF_UNIX.to_bytes(2, sys.byteorder) + os.fsencode(path) + b"\0"
        _checked(_libc.sendto(fd, data, len(data), MSG_DONTWAIT | MSG_NOSIGNAL, address, len(address)), path)
    finally:
        os.close(fd)


def device_events() -> int:
    """A descriptor that can be read when the kernel tells of devices that come, change or go (netlink(7)).

    They are the kernel's own events (group 1), which need no udev.
    """
    flags = SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK
    fd = _checked(_libc.socket(AF_NETLINK, flags, NETLINK_KOBJECT_UEVENT), "netlink")
    try:
        # struct sockaddr_nl: family, padding, port (0: the kernel chooses one), groups.
        address = AF_NETLINK.to_bytes(2, sys.byteorder) + bytes(6) + (1).to_bytes(4, sys.byteorder)
        _checked(_libc.bind(fd, address, len(address)), "netlink")
    except OSError:
        os.close(fd)
        raise
    return fd


def close_on_exec_from(first_fd: int) -> None:
    """Let exec close every descriptor from `first_fd` on (close_range(2), CLOSE_RANGE_CLOEXEC)."""
    flags = ctypes.c_uint(CLOSE_RANGE_CLOEXEC)
    _checked(_libc.syscall(_NR_CLOSE_RANGE, ctypes.c_uint(first_fd), ctypes.c_uint(0xFFFFFFFF), flags), "close_range")


def close_from(first_fd: int) -> None:
    """Close every descriptor from `first_fd` on (close_range(2))."""
    _checked(_libc.syscall(_NR_CLOSE_RANGE, ctypes.c_uint(first_fd), ctypes.c_uint(0xFFFFFFFF), 0), "close_range")
