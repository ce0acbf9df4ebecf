"""Block devices: whether one is there, what the kernel knows of it, and the wait for one that comes late."""

from __future__ import annotations

import errno
import os
import select
import signal
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from sessions.errors import Interrupted, StepFailed
from sessions.linux import files, lasting, loop, run, signals, syscall

SYSFS = "/sys/class/block"
# poll(2) takes no more than 24 days at once.
_LONGEST_POLL_MS = 86_400_000.0
# An event of the kernel's is no longer than this (UEVENT_BUFFER_SIZE is 2048); what they say is looked up elsewhere.
_LONGEST_EVENT_BYTES = 8192
# The kernel's errors for a device that is there and has nothing in it yet.
_NOT_READY = (errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM)


def is_ready(path: str) -> bool:
    """Whether `path` leads to a block device that can be read: one that is there but empty is not ready."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if files.is_absence(error) or error.errno in _NOT_READY:
            return False
        raise
    try:
        return stat.S_ISBLK(os.fstat(fd).st_mode) and os.lseek(fd, 0, os.SEEK_END) > 0
    finally:
        os.close(fd)


def wait_for(paths: Sequence[str], timeout_s: float, tell: Callable[[Sequence[str]], None]) -> list[str]:
    """Wait until all of `paths` are ready; those that are not when the time is over. See :func:`wait_until`."""
    return wait_until(lambda: [path for path in paths if not is_ready(path)], paths, timeout_s, tell)


def wait_until(
    find_missing: Callable[[], list[str]],
    paths: Sequence[str],
    timeout_s: float,
    tell: Callable[[Sequence[str]], None],
) -> list[str]:
    """Wait until `find_missing` finds nothing missing; what is when the time is over.

    `tell` is called with what is missed before a wait begins. The caller has the signals that ask us to stop blocked:
    one of them ends the wait with Interrupted. It is woken by the kernel's events of devices, and by changes of the
    directories that lead to `paths`, since links come there after the event.
    """
    missing = find_missing()
    if not missing or timeout_s <= 0:
        return missing
    deadline_s = time.monotonic() + timeout_s
    is_told = False
    with ExitStack() as stack:
        events, changes, stopping = syscall.device_events(), syscall.inotify(), syscall.signalfd(signals.heeded())
        poll = select.poll()
        for fd in (events, changes, stopping):
            stack.callback(os.close, fd)
            poll.register(fd, select.POLLIN)
        _watch(changes, paths)
        # What came before all was watched is seen by this look.
        while missing := find_missing():
            if not is_told:
                tell(missing)
                is_told = True
            left_ms = (deadline_s - time.monotonic()) * 1000
            if left_ms <= 0:
                break
            poll.poll(min(left_ms, _LONGEST_POLL_MS))
            _stop_if_asked(missing)
            _drain(events)
            syscall.heard(changes)
            _watch(changes, paths)
    return missing


def _watch(changes: int, paths: Sequence[str]) -> None:
    """Hear of what comes into, or goes from, the last directory on the way to each path, and to where a link leads."""
    mask = syscall.IN_CREATE | syscall.IN_MOVED_TO | syscall.IN_DELETE
    for path in paths:
        for way in {path, os.path.realpath(path)}:
            directory = os.path.dirname(way)
            while directory != "/" and not os.path.isdir(directory):
                directory = os.path.dirname(directory)
            try:
                syscall.inotify_add_watch(changes, directory, mask)
            except FileNotFoundError:
                continue  # gone again, of which the directory above tells


def _drain(events: int) -> None:
    """Take in what is there; ENOBUFS says that some were lost, which does no harm, since all is looked up anyway."""
    while True:
        try:
            os.read(events, _LONGEST_EVENT_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise


def _stop_if_asked(missing: Sequence[str]) -> None:
    signum = signals.pending()
    if signum is not None:
        raise Interrupted(signum, f"{signal.Signals(signum).name} came while waiting for {', '.join(missing)}")


def kernel_name(path: str) -> str:
    """What the kernel calls the block device at `path` (``dm-0``, ``sda1``); empty if none is there."""
    try:
        status = os.stat(path)
    except OSError as error:
        if files.is_absence(error):
            return ""
        raise
    if not stat.S_ISBLK(status.st_mode):
        return ""
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    try:
        return os.path.basename(os.readlink(f"/sys/dev/block/{number}"))
    except FileNotFoundError:
        return ""


def attribute(name: str, what: str) -> str:
    """What sysfs says about the device that the kernel calls `name`; empty if it says nothing."""
    try:
        with open(f"{SYSFS}/{name}/{what}", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def all_mapped() -> dict[str, str]:
    """What the device mapper has, with a node or not: the kernel's name of each device, and its own."""
    names = (name for name in files.names_in(SYSFS) if name.startswith("dm-"))
    return {name: attribute(name, "dm/name") for name in names}


def mapped(dm_name: str) -> str:
    """The kernel's name of the device mapper's device `dm_name`; empty if there is none."""
    return next((name for name, known in all_mapped().items() if known == dm_name), "")


def is_complete(name: str) -> bool:
    """Whether a mapping or an array that there is came to be whole: killed half way, its maker leaves it empty."""
    if name.startswith("md"):
        return attribute(name, "md/array_state") not in ("", "clear", "inactive")
    return attribute(name, "size") not in ("", "0") and attribute(name, "dm/suspended") == "0"


def remove_mapping(dm_name: str, record: lasting.Record) -> None:
    """Take a mapping away as it is, by dmsetup(8); raises StepFailed if it is in use. Nothing there is success."""
    argv = ["dmsetup", "remove", "--", dm_name]
    removed = lasting.call(
        argv, record, package="dmsetup", environment=run.PLAIN_ENVIRONMENT, timeout_s=lasting.LOOK_TIMEOUT_S
    )
    if removed.status != 0 and mapped(dm_name):
        raise StepFailed(f"dmsetup cannot remove {dm_name}: {removed.reason()}")


def made_from(name: str) -> list[str]:
    """The kernel's names of the devices that are made of the one of this name, directly."""
    return sorted(files.names_in(f"{SYSFS}/{name}/holders"))


def parts_of(name: str) -> list[str]:
    """The kernel's names of the devices that the one of this name is made of, directly."""
    return sorted(files.names_in(f"{SYSFS}/{name}/slaves"))


def all_parts_of(name: str) -> set[str]:
    """The kernel's names of all devices that the one of this name lies on."""
    found: set[str] = set()
    waiting = parts_of(name)
    while waiting:
        part = waiting.pop()
        if part not in found:
            found.add(part)
            waiting += parts_of(part)
    return found


def sequence(name: str) -> int:
    """A number that no other disk has had or will have since the start of the machine; 0 where that is not known.

    (/sys/block/DISK/diskseq, since Linux 5.15.)
    """
    text = attribute(name, "diskseq")
    return int(text) if text.isdecimal() else 0


def is_in_use(path: str) -> bool:
    """Whether the block device at `path`, or the image in that file, is mounted or part of something, wherever that is.

    The kernel says so of a device that it is asked for alone (open(2), O_EXCL).
    """
    status = os.stat(path)
    return any(map(_is_claimed, [path] if stat.S_ISBLK(status.st_mode) else loop.on_file(status)))


def _is_claimed(disk: str) -> bool:
    try:
        os.close(os.open(disk, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return True
    return False
