"""Unmounting what may be busy: what lies below first, then whoever lives there, by force whoever stands there."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence

from sessions.errors import StepFailed
from sessions.linux import files, mountinfo, proc, syscall
from sessions.steps.base import Context

_PATIENCE_S = (0.001, 0.01, 0.1, 0.4)
_MOST_LOOKS = 50
_NO_NAMES = ("", ".", "..")


def is_mounted(fd: int) -> bool:
    """Whether the descriptor, which is closed, is the root of a mount."""
    try:
        return syscall.is_mount_root(fd)
    finally:
        os.close(fd)


def open_without_links(root_fd: int, path: str) -> int:
    """The directory (O_PATH) at a path inside a root that no link leads to."""
    resolve = syscall.RESOLVE_IN_ROOT | syscall.RESOLVE_NO_SYMLINKS
    return syscall.openat2(root_fd, path or "/", os.O_PATH | os.O_DIRECTORY, resolve)


def unmount_at_top(root: str, place: str) -> bool:
    """Unmount what is not busy and lies in the root directory itself, to which no link inside can lead.

    False means to look closer; so it does of the next.
    """
    above, _slash, name = place.rpartition("/")
    if above or name in _NO_NAMES:
        return False
    return _try_to_unmount(f"{root}/{name}")


def unmount_plainly(root_fd: int, place: str) -> bool:
    """Unmount what is not busy and has no link on the way to it."""
    above, _slash, name = place.rpartition("/")
    if name in _NO_NAMES:
        return False
    try:
        parent_fd = open_without_links(root_fd, above)
    except OSError:
        return False
    try:
        return _try_to_unmount(f"/proc/self/fd/{parent_fd}/{name}")
    finally:
        os.close(parent_fd)


def _try_to_unmount(path: str) -> bool:
    try:
        syscall.umount(path)
    except OSError:
        return False
    return True


def unmount(path: str, context: Context, *, by: str = "", inside: str = "") -> None:
    """Unmount what is mounted at `path` (`by` is the same place, spelled so that no link can get in between).

    If it is busy: unmount what lies below it, then end the processes rooted in it, or in the root `inside` which it is,
    then, only under force, those that merely stand in it, and at last detach it lazily. Raises StepFailed, naming who
    holds it, without force.
    """
    name = by or path
    if try_unmount(name):
        return
    unmount_below(name, path)
    if try_unmount(name):
        return
    place = proc.Tree(path, _device_of_overlay(name))
    around = proc.Tree(inside, _device_of_overlay(inside)) if inside else place
    proc.end_all(lambda: proc.rooted_in(around))
    if _try_unmount_patiently(name):
        return
    if not context.force:
        raise StepFailed(
            f"{path} cannot be unmounted: held by {_who(proc.standing_in(place))}",
            hint="let it leave (cd elsewhere, close the file), or use --force",
        )
    proc.end_all(lambda: proc.standing_in(place))
    if not try_unmount(name):
        syscall.umount(name, syscall.UMOUNT_NOFOLLOW | syscall.MNT_DETACH)


def unmount_all(path: str, context: Context, found: Callable[[str], None]) -> None:
    """Unmount all that is mounted at `path` and below it, the last first, each as :func:`unmount` does.

    `found` is told of each before. No link below `path` is followed.
    """
    # Each look takes one mount away, unless somebody renames directories meanwhile.
    for _look in range(_MOST_LOOKS + len(mountinfo.read())):
        targets = [mount.target for mount in mountinfo.below(mountinfo.read(), path)]
        if not targets:
            return
        found(targets[0])
        if targets[0] == path:
            unmount(path, context)
            continue
        above, _slash, last = targets[0].removeprefix(path + "/").rpartition("/")
        with files.directory(path) as top_fd:
            fd = _open_beneath(top_fd, above or ".")
        if fd is not None:
            try:
                unmount(targets[0], context, by=f"/proc/self/fd/{fd}/{last}")
            finally:
                os.close(fd)
    raise StepFailed(
        f"what is mounted below {path} is moved about while it is unmounted",
        hint="end who does that, then end the session again",
    )


def holders(path: str) -> str:
    """Who holds what is mounted at `path`, in words."""
    place = proc.Tree(path, _device_of_overlay(path))
    return _who([*proc.rooted_in(place), *proc.standing_in(place)])


def _who(pids: Sequence[int]) -> str:
    return proc.describe(pids) if pids else "a process that cannot be seen from here"


def try_unmount(path: str) -> bool:
    """Unmount; False if it is busy, True also if nothing is mounted there."""
    try:
        syscall.umount(path)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    return True


def _try_unmount_patiently(name: str) -> bool:
    """Give those who hold it for a moment only the time to go.

    They are processes that look at the mount, as another session's end does, and children between fork and exec.
    """
    for pause_s in _PATIENCE_S:
        if try_unmount(name):
            return True
        time.sleep(pause_s)
    return try_unmount(name)


def unmount_below(name: str, path: str) -> bool:
    """Unmount what is mounted below `path`, the last first; no link is followed on the way there from `name`.

    False if some of it is busy. Where somebody renames directories meanwhile, mounts are not where they were a moment
    ago: look again.
    """
    top_fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for _look in range(_MOST_LOOKS):
            targets = [mount.target for mount in mountinfo.below(mountinfo.read(), path) if mount.target != path]
            below = [target.removeprefix(path + "/").rpartition("/") for target in targets]
            if not below:
                return True
            if not all(_unmount_beneath(top_fd, above or ".", last) for above, _slash, last in below):
                return False
        return False
    finally:
        os.close(top_fd)


def _unmount_beneath(top_fd: int, above: str, last: str) -> bool:
    """Unmount `last` in the directory `above` beneath `top_fd`; False if it is busy."""
    fd = _open_beneath(top_fd, above)
    if fd is None:
        return True
    try:
        return try_unmount(f"/proc/self/fd/{fd}/{last}")
    finally:
        os.close(fd)


def _open_beneath(top_fd: int, above: str) -> int | None:
    """The directory `above` beneath `top_fd`, without links on the way; None if it is not there, or no more."""
    try:
        resolve = syscall.RESOLVE_BENEATH | syscall.RESOLVE_NO_SYMLINKS
        return syscall.openat2(top_fd, above, os.O_PATH | os.O_DIRECTORY, resolve)
    except OSError as error:
        if not files.is_absence(error):
            raise
        return None


def _device_of_overlay(name: str) -> int | None:
    """The device that an overlay has for itself; None for what is no overlay."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.fstat(fd).st_dev if syscall.filesystem_type(fd) == syscall.OVERLAYFS_MAGIC else None
    finally:
        os.close(fd)
