"""System calls that fail: the real command, traced, with an errno in the place of one call, or of all from one on."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from crashdriver import ID, Driver, in_child, must
from world import forget_reboots, reboot, wait_for_end

from sessions.cli import native

# What a disk that is full, over its quota, broken or read-only says.
_DISK = ("ENOSPC", "EDQUOT", "EIO", "EROFS")
_FULL = ("ENOSPC", "EDQUOT", "EIO")
_MOUNT = ("ENOMEM", "EPERM", "ENOSPC")
_REMOVE = ("EIO", "EROFS", "ENOMEM")
_LOOK = ("EIO",)
# The calls that fail, and how. Not close(2), which has let go of the descriptor also when it fails.
ERRORS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("write", "pwrite64", "writev", "splice", "sendfile", "copy_file_range"), _FULL),
    **dict.fromkeys(("fallocate", "ftruncate", "fsync", "fdatasync"), _FULL),
    **dict.fromkeys(("mkdir", "mkdirat", "symlink", "symlinkat", "mknodat"), (*_DISK, "ENOMEM")),
    **dict.fromkeys(("link", "linkat", "rename", "renameat", "renameat2"), _DISK),
    # A directory made to mount on that is busy would be another session's, too, and is left to that.
    **dict.fromkeys(("rmdir", "unlink", "unlinkat"), _REMOVE),
    **dict.fromkeys(("chmod", "fchmod", "fchmodat", "chown", "fchown", "lchown"), ("EIO", "EROFS", "EPERM")),
    **dict.fromkeys(("utimensat", "setxattr", "fsetxattr", "lsetxattr"), ("ENOSPC", "EDQUOT", "EPERM")),
    **dict.fromkeys(("open", "openat"), ("EMFILE", "ENOMEM", "ENOSPC", "EROFS", "EIO")),
    "openat2": ("EMFILE", "ENOMEM", "EIO"),
    **dict.fromkeys(("mount", "fsopen", "fsconfig", "fsmount", "move_mount", "open_tree", "mount_setattr"), _MOUNT),
    **dict.fromkeys(("umount", "umount2"), ("EBUSY", "ENOMEM", "EPERM")),
    **dict.fromkeys(("clone", "clone3", "fork", "vfork"), ("EAGAIN", "ENOMEM")),
    **dict.fromkeys(("execve",), ("ENOMEM", "EIO")),
    **dict.fromkeys(("unshare", "chroot", "chdir", "fchdir"), ("ENOMEM", "EPERM")),
    # Loop devices, subvolumes of btrfs, the flags of files.
    "ioctl": ("EIO", "ENOSPC", "EPERM"),
    **dict.fromkeys(("pipe", "pipe2", "pidfd_open", "signalfd4", "dup", "dup2", "dup3"), ("EMFILE",)),
    **dict.fromkeys(("inotify_init1", "inotify_add_watch"), ("EMFILE", "ENOSPC")),
    "pidfd_send_signal": ("EPERM",),
    "fcntl": ("EMFILE",),
    "flock": ("ENOLCK",),
    **dict.fromkeys(("read", "pread64", "getdents64", "readlink", "readlinkat", "getxattr", "lgetxattr"), _LOOK),
    **dict.fromkeys(("stat", "lstat", "fstat", "newfstatat", "statx", "fstatfs", "statfs"), _LOOK),
}
# What is called all the time to look at things that are there, mostly by the interpreter itself.
LOOKING = frozenset(("read", "openat", "newfstatat", "fstat", "stat", "lstat", "getdents64", "readlink", "fcntl"))
# Nothing takes so long, not even what gives those who hold a mount some time.
DEADLINE_S = 120.0
# For scripts, which such a failure may well make wait for ever.
PATIENCE = ("--script-timeout", "5")
# How much of what it says is looked at; a shell that cannot go on may say a lot.
SAID_BYTES = 1 << 16
# The words of a begin and of an end that could not take everything back.
LEFT = ("left behind, since it could not be undone", "could not be ended", "cannot be read")


@dataclass(frozen=True)
class Fault:
    """In each process, call number `number` of a kind fails, and with `lasts` every one after it."""

    way: str
    call: str
    error: str
    number: int
    lasts: bool

    def __str__(self) -> str:
        return f"{self.way} with {self.expression}"

    @property
    def expression(self) -> str:
        """In the words of strace."""
        return f"inject={self.call}:error={self.error}:when={self.number}{'+' if self.lasts else ''}"


@dataclass(frozen=True)
class Ended:
    """How a command ended (None: not in time), what it said, and what strace saw."""

    status: int | None
    said: str
    trace: str

    @property
    def could_not_speak(self) -> bool:
        """Whether what failed was to say something."""
        return bool(re.search(r"write\([12], .*\(INJECTED\)", self.trace))


def words(driver: Driver, way: str) -> list[str]:
    """The command that goes a way."""
    return {
        "begin": ["begin", *PATIENCE, driver.kind.word, "--name", ID],
        "end": ["end", *PATIENCE, ID],
        "recover": ["recover", *PATIENCE, ID],
        "run": ["run", *PATIENCE, "--directory", "/", driver.kind.word, "--", "/bin/true"],
    }[way]


def ways(driver: Driver) -> Sequence[str]:
    if driver.kind.automatic:
        return ("run",)
    # A restart takes the journal of an early session, and the one beside, of which the driver is sure.
    is_recovered = driver.kind.lasts and not (driver.kind.early or driver.kind.beside)
    return ("begin", "end", "recover") if is_recovered else ("begin", "end")


def prepare(driver: Driver, way: str) -> None:
    if way in ("end", "recover"):
        driver.up()
    if way == "recover":
        reboot(driver.world)


def traced(driver: Driver, way: str, options: Sequence[str]) -> Ended:
    """Run the command of a way in a process of its own, with strace looking on from after the imports to its end."""
    places = driver.places
    argv = ["sessions", "--config-dir", places.native_config_dir, "--state-dir", places.state_dir]
    argv += ["--runtime-dir", places.runtime_dir, *words(driver, way)]
    log = driver.world.base.parent / f"{driver.world.base.name}.trace"
    said_fd = os.memfd_create("said")
    reader, writer = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1,))
    pid = os.fork()
    if pid == 0:
        _command(argv, said_fd, writer)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGUSR1,))
    os.close(writer)
    # Until it has made itself ready, and closed its end.
    os.read(reader, 1)
    os.close(reader)
    pidfd = os.pidfd_open(pid)
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(pid), "-o", log, *options], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert tracer.stderr is not None
    try:
        line = tracer.stderr.readline()
        assert b"attached" in line, line
        signal.pidfd_send_signal(pidfd, signal.SIGUSR1)
        in_time = wait_for_end(pidfd, DEADLINE_S)
    finally:
        if not wait_for_end(pidfd, 0):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        # What the command has left running is let go of.
        tracer.terminate()
        tracer.communicate()
        _pid, status = os.waitpid(pid, 0)
        os.close(pidfd)
    said = os.pread(said_fd, SAID_BYTES, max(0, os.fstat(said_fd).st_size - SAID_BYTES)).decode(errors="replace")
    os.close(said_fd)
    return Ended(os.waitstatus_to_exitcode(status) if in_time else None, said, log.read_text(errors="replace"))


def _command(argv: list[str], said_fd: int, ready_fd: int) -> None:
    """The child: say that it is ready, wait to be traced, then be the command."""
    status = 1
    try:
        for fd in (1, 2):
            os.dup2(said_fd, fd)
        sys.stdout, sys.stderr = (open(fd, "w", buffering=1, closefd=False) for fd in (1, 2))  # noqa: SIM115
        sys.argv = argv
        os.close(ready_fd)
        signal.sigwait((signal.SIGUSR1,))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGUSR1,))
        native.main()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def counted(driver: Driver, way: str) -> Counter[str]:
    """How often each call is made on a way, by the process that makes it most often."""
    prepare(driver, way)
    ended = traced(driver, way, ["-e", "trace=" + ",".join(f"?{call}" for call in ERRORS)])
    assert ended.status == 0, ended.said
    if driver.exists:
        must(in_child(driver.end))
    forget_reboots()
    driver.start_again()
    most: Counter[str] = Counter()
    for line, count in Counter(re.findall(r"^\d+ +\w+(?=\()", ended.trace, re.MULTILINE)).items():
        most |= Counter({line.split()[1]: count})
    return most


def every_fault(driver: Driver) -> Iterator[list[Fault]]:
    """Every fault there is to try, in a list for each way and call, the most telling errors first."""
    for way in ways(driver):
        for call, count in sorted(counted(driver, way).items()):
            yield [
                Fault(way, call, error, number, lasts)
                for error in (ERRORS[call][:2] if call in LOOKING else ERRORS[call])
                for number in range(1, count + 1)
                for lasts in ((False, True) if call not in LOOKING or number % 8 == 1 else (False,))
            ]


def chosen(groups: list[list[Fault]], rng: random.Random, sample: int) -> list[Fault]:
    """A sample in which every call has its part, the rare ones too; if it is 0, everything in the same order."""
    for group in groups if sample else ():
        rng.shuffle(group)
    faults = [fault for fault in chain.from_iterable(zip_longest(*groups)) if fault is not None]
    return faults[:sample] if sample else faults


def errnos(driver: Driver, share: tuple[int, int], sample: int = 0) -> None:
    """Each fault on the way up, down, or up again after a restart; then a sweep without it brings everything back."""
    number, of = share
    for fault in chosen(list(every_fault(driver)), driver.rng, sample)[number::of]:
        prepare(driver, fault.way)
        ended = traced(driver, fault.way, ["-e", f"trace={fault.call}", "-e", fault.expression])
        try:
            settle(driver, fault, ended)
        finally:
            forget_reboots()


def settle(driver: Driver, fault: Fault, ended: Ended) -> None:
    """Look at what came of a fault, sweep, end what is up nevertheless, and look again."""
    problems = wrong_ending(fault, ended)
    failed_begin = fault.way in ("begin", "run") and ended.status != 0
    says_so = any(words in ended.said for words in LEFT) or ended.could_not_speak
    if failed_begin and driver.exists and not says_so:
        problems.append("a session is left, and not a word of it")
    if fault.way == "end" and ended.status == 0 and driver.exists:
        problems.append("the end has succeeded, and the session is there")
    if not driver.exists and not says_so:
        # Another session would keep the directory of all mounts busy.
        directories = driver.world.private_directories if fault.error == "EBUSY" else ()
        shared = tuple(f"mount left: ({path!r}," for path in directories)
        problems += [f"before the sweep: {line}" for line in driver.check() if not line.startswith(shared)]
    problems += driver.sweep()
    # Where nothing could be written, not even to a pipe, no script could be run, and no mark be made: it still is up.
    if failed_begin and driver.exists and not ended.could_not_speak:
        problems.append("the sweep has left the session of a begin that had failed")
    problems += [f"after the sweep: lock file {name}" for name in driver.world.lock_files()]
    if problems:
        problems.append(f"status {ended.status}, said {ended.said[-600:]!r}")
    what = str(fault) if "(INJECTED)" in ended.trace else f"{fault}, which was not reached"
    driver.settle(what, problems, with_mark=fault.way in ("end", "recover"))


def wrong_ending(fault: Fault, ended: Ended) -> list[str]:
    """What is wrong with how a command ended: it has to succeed, or to fail with 125 and a line that says why."""
    if ended.status is None:
        return ["it hung"]
    # That a command could not be executed, whatever the reason, has a status of its own.
    if ended.status not in ((0, 125, 126) if fault.call == "execve" else (0, 125)):
        return [f"it ended with {ended.status}"]
    lines = [line for line in ended.said.splitlines() if line.startswith("sessions: ")]
    if ended.status == 125 and len(lines) != 1 and not ended.could_not_speak:
        return [f"it said {len(lines)} lines"]
    if "Traceback" in ended.said or "please report" in ended.said:
        return ["it did not know what it said"]
    return []
