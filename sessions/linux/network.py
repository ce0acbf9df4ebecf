"""A network of a command's own: no interface but the loopback, and a sysfs that shows no other.

It lasts as long as somebody is in it, and so do the mounts: both are namespaces, which the kernel takes away with the
last of their processes. There is nothing to undo.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import struct

from sessions.linux import files, syscall

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
# struct ifreq of netdevice(7): the interface's name, its flags, and the rest of a union.
_IFREQ = struct.Struct("16sH22x")
_LOOPBACK = b"lo"
_HARMLESS = syscall.MOUNT_ATTR_NOSUID | syscall.MOUNT_ATTR_NODEV | syscall.MOUNT_ATTR_NOEXEC


def change_root(root_fd: int, path: str) -> None:
    """Make the directory behind `root_fd`, which is closed, the calling thread's root, in a network of its own.

    The thread needs a root and a directory of its own (CLONE_FS). It gets mounts of its own too: those of the new root
    and nothing else, so that what others unmount meanwhile does not stay mounted here. `path` is where the root is on
    the host: whoever looks from there at the roots of processes (/proc/PID/root) still finds it.
    """
    clone = syscall.OPEN_TREE_CLONE | syscall.AT_RECURSIVE | syscall.AT_EMPTY_PATH
    tree_fd = syscall.open_tree("", clone, root_fd)
    os.close(root_fd)
    try:
        syscall.mount_setattr(tree_fd, propagation=syscall.MS_PRIVATE, recursive=True)
        syscall.unshare(syscall.CLONE_NEWNS | syscall.CLONE_NEWNET)
        _start_loopback()
        _leave_all_mounts()
        _attach(tree_fd, path)
        os.fchdir(tree_fd)
        os.chroot(".")
        os.chdir("/")
        _mount_sysfs(tree_fd)
    finally:
        os.close(tree_fd)


def _start_loopback() -> None:
    """Bring the loopback up; the kernel gives it its addresses by itself."""
    any_socket = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        answer = fcntl.ioctl(any_socket.fileno(), _SIOCGIFFLAGS, _IFREQ.pack(_LOOPBACK, 0))
        _name, flags = _IFREQ.unpack(answer)
        fcntl.ioctl(any_socket.fileno(), _SIOCSIFFLAGS, _IFREQ.pack(_LOOPBACK, flags | _IFF_UP))
    finally:
        any_socket.close()


def _leave_all_mounts() -> None:
    """Make an empty tmpfs the root and the directory of the thread, and detach all else from its mount namespace.

    A session is no root of its mount namespace without this one either: it is a chroot(2), in which nobody can make
    user namespaces, for instance. So the empty one stays below it.
    """
    # First of all: what is mounted on a shared mount would appear in other namespaces.
    syscall.mount("none", "/", "", syscall.MS_REC | syscall.MS_PRIVATE)
    base_fd = syscall.new_mount("tmpfs", _HARMLESS, (("source", "none"), ("mode", "755"), ("size", "1m")))
    try:
        _attach(base_fd, "/")
        os.fchdir(base_fd)
    finally:
        os.close(base_fd)
    # The old root comes to lie upon the new one.
    syscall.pivot_root(".", ".")
    syscall.umount(".", syscall.MNT_DETACH)


def _attach(mount_fd: int, path: str) -> None:
    """Attach a mount at a path that leads through nothing but directories of our own, which are made."""
    os.makedirs(path, exist_ok=True)
    with files.directory(path) as target_fd:
        syscall.move_mount(mount_fd, target_fd, path)


def _mount_sysfs(root_fd: int) -> None:
    """Mount a sysfs of this network on /sys, if there is such a directory inside; as read-only as what is there."""
    try:
        target_fd = files.open_in_root(root_fd, "/sys", os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return
    try:
        is_read_only = os.fstatvfs(target_fd).f_flag & os.ST_RDONLY
        attributes = _HARMLESS | (syscall.MOUNT_ATTR_RDONLY if is_read_only else 0)
        sysfs_fd = syscall.new_mount("sysfs", attributes, (("source", "sysfs"),))
        try:
            syscall.move_mount(sysfs_fd, target_fd, "/sys")
        finally:
            os.close(sysfs_fd)
    finally:
        os.close(target_fd)
