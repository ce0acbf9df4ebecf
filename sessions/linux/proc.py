"""Processes: who they are, which of them live below a root, and how they are ended (the only user of psutil).

A pid alone is never trusted: a process is a pid together with its start time, and signals go through a pidfd.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from functools import lru_cache

from sessions.data import Frozen

_NS_GET_MNTNS_ID = 0x8008B705
# The pid namespace of the machine itself always has this inode (the kernel's PROC_PID_INIT_INO).
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
BOOT_ID = "/proc/sys/kernel/random/boot_id"
# So many pids are tried one by one; with more, it is looked which of them there are.
_FEW_PIDS = 64
GRACE_S = 2.0
"""How long processes may take to end after SIGTERM."""
DEADLINE_S = 10.0
"""How long ending them may take altogether, SIGKILL included."""


def boot_id() -> str:
    """The id of this boot of the machine."""
    status = os.stat(BOOT_ID)
    return _boot_id(status.st_dev, status.st_ino, status.st_mtime_ns)


@lru_cache(maxsize=1)
def _boot_id(_device: int, _inode: int, _mtime_ns: int) -> str:
    """As read from a file that looks so: it stays the same, but something else may be mounted there."""
    return _read(BOOT_ID).decode().strip()


def _read(path: str) -> bytes:
    """A short file of the kernel's, in one read."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot (proc(5), field 22 of stat); None if there is none.

    A zombie counts as none: it does nothing any more.
    """
    fields = _stat_fields(pid)
    return None if fields is None or fields[0] in (b"Z", b"X") else int(fields[19])


def _stat_fields(pid: int) -> list[bytes] | None:
    """The fields of /proc/PID/stat from the state (field 3) on; the name before it may hold anything."""
    try:
        return _read(f"/proc/{pid}/stat").rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def mount_namespace(pid: int | str = "self") -> int | None:
    """What tells a process's mount namespace from others; None if it is gone or is not ours to look at.

    The kernel's own number for it, never used twice in a boot (ioctl_nsfs(2), since Linux 6.11); before that its inode,
    which a later one may get again.
    """
    try:
        fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    try:
        return int.from_bytes(fcntl.ioctl(fd, _NS_GET_MNTNS_ID, bytes(8)), "little")
    except OSError:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


@lru_cache(maxsize=1)
def pid_and_time_namespaces() -> tuple[int, int]:
    """The inodes of our pid and time namespaces: in others, a pid or a start time means something else.

    0 for one that this kernel does not have. A process stays in those that it was started in.
    """
    return _namespace_inode("pid"), _namespace_inode("time")


os.register_at_fork(after_in_child=pid_and_time_namespaces.cache_clear)


def _namespace_inode(kind: str, pid: int | str = "self") -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0


def pid_namespace() -> int:
    """The inode of our pid namespace; 0 if this kernel has none."""
    return pid_and_time_namespaces()[0]


def sees_all_of(namespace: int) -> bool:
    """Whether every process of a pid namespace can be seen from ours: it is ours, or lies below it."""
    if pid_namespace() in (namespace, _INITIAL_PID_NAMESPACE):
        return True
    return any(_namespace_inode("pid", pid) == namespace for pid in _pids())


def has_open(pid: int, path: str) -> bool:
    """Whether the process has the file open; not by its name, which one that was linked later does not show."""
    try:
        wanted = os.stat(path)
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    return any(_is_open_as(f"/proc/{pid}/fd/{number}", wanted) for number in numbers)


def _is_open_as(link: str, wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(link), wanted)
    except OSError:
        return False


def in_mount_namespace(namespace: int) -> list[int]:
    """The processes in the mount namespace that :func:`mount_namespace` tells so."""
    return [pid for pid in _pids() if mount_namespace(pid) == namespace]


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def session_members(sid: int) -> list[int]:
    """The processes whose session (setsid(2)) is led by `sid`."""
    found = []
    for pid in _pids():
        fields = _stat_fields(pid)
        if fields is not None and int(fields[3]) == sid and fields[0] not in (b"Z", b"X"):
            found.append(pid)
    return found


class Tree(Frozen):
    """What tells that something lies below a mounted root: its path, or the device if no other tree shares that.

    An overlay has a device of its own; a bind mount shares the original's, and other sessions may have it mounted too.
    """

    path: str
    device: int | None

    def holds(self, link: str) -> bool:
        """Whether the object behind a link of /proc/PID (root, cwd, fd/N) lies in this tree."""
        try:
            if self.device is not None and os.stat(link).st_dev == self.device:
                return True
            target = os.readlink(link)
        except OSError:
            return False
        return target == self.path or target.startswith(self.path + "/")


def tree(path: str, *, owns_device: bool) -> Tree:
    """The tree mounted at `path`."""
    return Tree(path, os.stat(path).st_dev if owns_device else None)


def last_pid() -> int:
    """The pid that was given out last in our pid namespace (proc(5), ns_last_pid); 0 if this kernel does not tell."""
    try:
        return int(_read("/proc/sys/kernel/ns_last_pid"))
    except (OSError, ValueError):
        return 0


def _pids_since(pid: int) -> Iterable[int]:
    """Those that may have been given out after `pid`; all, where that is not known or numbers have begun again."""
    last = last_pid() if pid else 0
    if last < pid or not pid:
        return _pids()
    return range(pid + 1, last + 1) if last - pid <= _FEW_PIDS else [found for found in _pids() if found > pid]


def rooted_in(place: Tree, *, since_pid: int = 0) -> list[int]:
    """The processes whose root directory lies in the tree: those that entered it, and deeper chroots.

    With `since_pid`, only those that were started since that pid was given out, as far as numbers tell.
    """
    ours = os.stat("/")
    found = []
    for pid in _pids_since(since_pid):
        link = f"/proc/{pid}/root"
        try:
            root = os.stat(link)
        except OSError:
            continue
        # Nearly every process has our own root: one stat is all it costs.
        if (root.st_dev, root.st_ino) != (ours.st_dev, ours.st_ino) and place.holds(link):
            found.append(pid)
    # Threads have such numbers too, and may have roots of their own, but are not listed.
    return sorted(set(found) & set(_pids())) if found else found


def standing_in(place: Tree) -> list[int]:
    """The processes that hold the tree without being rooted in it: by their directory, program or an open file."""
    found = []
    for pid in _pids():
        if place.holds(f"/proc/{pid}/root"):
            continue
        links = [f"/proc/{pid}/cwd", f"/proc/{pid}/exe"]
        try:
            links += [f"/proc/{pid}/fd/{number}" for number in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            pass
        if any(place.holds(link) for link in links):
            found.append(pid)
    return found


def ancestors() -> set[int]:
    """This process and those it descends from."""
    found = set()
    pid = os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        fields = _stat_fields(pid)
        pid = int(fields[1]) if fields else 0
    return found


def is_single_threaded() -> bool:
    """Whether this process has but one thread."""
    return len(os.listdir("/proc/self/task")) == 1


def describe(pids: Iterable[int]) -> str:
    """Processes for a message: ``123 (sleep 60), 124 (bash)``."""
    import psutil

    words = []
    for pid in sorted(pids):
        try:
            process = psutil.Process(pid)
            command = " ".join(process.cmdline()) or process.name()
        except psutil.Error:
            command = "gone"
        words.append(f"{pid} ({command if len(command) <= 60 else command[:57] + '...'})")
    return ", ".join(words)


def end_all(
    find: Callable[[], Iterable[int]], *, grace_s: float = GRACE_S, deadline_s: float = DEADLINE_S
) -> list[int]:
    """End every process that `find` finds, now or while we work, except this one and its ancestors.

    SIGTERM first; whoever is there after `grace_s` is stopped, so that it cannot fork any more, and killed, until
    two looks in a row find nobody. Returns those that are left when `deadline_s` is over: ancestors, and processes
    that the kernel will not let die yet.
    """
    if not set(find()):
        return []
    spared = ancestors()
    deadline = time.monotonic() + deadline_s
    _signal_and_wait(find, spared, (signal.SIGTERM, signal.SIGCONT), min(grace_s, deadline_s))
    empty_looks = 0
    while empty_looks < 2 and time.monotonic() < deadline:
        signals = (signal.SIGSTOP, signal.SIGKILL)
        seen = _signal_and_wait(find, spared, signals, max(0.0, deadline - time.monotonic()))
        empty_looks = 0 if seen else empty_looks + 1
    return [pid for pid in find() if start_ticks(pid) is not None]


def _signal_and_wait(
    find: Callable[[], Iterable[int]], spared: set[int], signals: tuple[signal.Signals, ...], timeout_s: float
) -> bool:
    """Send each of `signals` in turn to all that `find` finds, wait for them to end; whether there were any."""
    pidfds = []
    for pid in set(find()) - spared:
        try:
            pidfds.append((pid, os.pidfd_open(pid)))
        except ProcessLookupError:
            continue
    try:
        # Looked for again with the pidfds open: a pid that was recycled in between is not signalled.
        still_there = set(find())
        targets = [pidfd for pid, pidfd in pidfds if pid in still_there]
        for signum in signals:
            for pidfd in targets:
                try:
                    signal.pidfd_send_signal(pidfd, signum)
                except ProcessLookupError:
                    pass
        _wait_for(targets, timeout_s)
        return bool(targets)
    finally:
        for _pid, pidfd in pidfds:
            os.close(pidfd)


def _wait_for(pidfds: Iterable[int], timeout_s: float) -> None:
    """Wait until every process has ended, or the time is over."""
    poll = select.poll()
    left = set(pidfds)
    for pidfd in left:
        poll.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    while left:
        ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ready:
            return
        for pidfd, _event in ready:
            poll.unregister(pidfd)
            left.discard(pidfd)


def kill_script(pid: int, started_ticks: int, variable: str) -> None:
    """End a setup script that outlived its engine, and what it started, if it is still the same process.

    The leader may be gone while its children, in its session, are not. Its pid may then have been somebody else's, who
    has left a daemon in a session of that number: only who has `variable` ("NAME=VALUE") in its environment is ended.
    """
    now = start_ticks(pid)
    if now == started_ticks:
        end_all(lambda: session_members(pid), grace_s=0.0)
    elif now is None:
        end_all(lambda: [member for member in session_members(pid) if _was_given(member, variable)], grace_s=0.0)


def _was_given(pid: int, variable: str) -> bool:
    """Whether the process was started with a variable in its environment."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return os.fsencode(variable) in file.read().split(b"\0")
    except OSError:
        return False
