"""Run commands on another kernel: a user-mode Linux guest (Linux 6.1) on the host's own files, read-only.

    with Guest(work_directory) as guest:
        outcome = guest.run(["uname", "-r"], timeout_s=60)

This file runs in three places. As a module it is the harness. `guest.py stage` runs on the host in mount and
pid namespaces of its own, makes every mount there read-only and runs the guest's kernel. `guest.py init` is
process 1 of the guest. All that a guest can write is its memory and its disk image.

In the guest /var/tmp, which is $TMPDIR, and /var/lib/chroot-sessions are on the disk (ext4), which alone
outlives a boot; /tmp and /run are empty; /root and /var/lib are the host's, and keep changes in memory.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
import tty
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

CHECKOUT = Path(__file__).resolve().parents[1]
KERNEL = "/usr/bin/linux.uml"
MODULES = Path("/usr/lib/uml/modules")
# Nothing in a guest loads modules on demand, so that it makes no difference whether kmod is installed (dm-crypt needs
# two ciphers before it is loaded).
LOADED = ("overlay", "binfmt_misc", "loop", "squashfs", "fuse")
LOADED += ("dm-mod", "dm-snapshot", "dm-thin-pool", "dm-flakey", "dm-log-writes")
LOADED += ("cbc", "hmac", "dm-crypt", "ecb", "xts", "algif_hash", "algif_skcipher", "raid1", "erofs")
DISK = "/var/tmp"  # in the guest: a directory that is everywhere, meant for everyone and for a disk
PACKAGES = {KERNEL: "user-mode-linux", "mkfs.ext4": "e2fsprogs", "unshare": "util-linux"}
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULTS = {"PATH": SEARCH_PATH, "HOME": "/root", "LANG": "C.UTF-8", "TMPDIR": DISK}
Environment = Mapping[str, str] | None

# The stage's own tmpfs lies on /sys: that is on every host, and in the guest another sysfs is there anyway.
STAGE = "/sys"
EMPTY = {"/run": "mode=755", "/tmp": "mode=1777", DISK: "mode=1777", "/dev/shm": "mode=1777"}
CHANGEABLE = ("/root", "/var/lib")

PIPE_SIZE, BRIEFLY_S = 1 << 16, 30
LIBC = ctypes.CDLL(None, use_errno=True)
SYS_FINIT_MODULE, SYS_MOUNT_SETATTR = 313, 442  # on x86-64, the only place where Debian has this kernel
MS_RDONLY, MS_REMOUNT, MS_BIND, MOUNT_ATTR_RDONLY, AT_FDCWD, AT_RECURSIVE = 1, 0x20, 0x1000, 1, -100, 0x8000
RB_POWER_OFF, SIOCSIFFLAGS, IFF_UP = 0x4321FEDC, 0x8914, 1


def available() -> str | None:
    """None if guests can be started here, else a sentence that names the Debian package that is missing."""
    for tool, package in PACKAGES.items():
        if shutil.which(tool, path=SEARCH_PATH) is None:
            return f"No guest can be started: {tool} is missing (Debian package {package})."
    return None


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit status (128 + n for signal n), and all it wrote to stdout and stderr."""

    status: int
    output: str


class GuestError(Exception):
    """The guest died, hung or was not started; the message holds the end of its console log."""


class Guest:
    """One machine: a disk image in the work directory, and any number of boots on it, one after the other.

    Nothing stays outside the work directory, which holds disk.img, console.log and plan.json. To leave the
    context cuts the power, and so does the death of the thread that started the guest. The images in `disks` are the
    guest's too, as /dev/ubdb and so on, and are left to its command.
    """

    def __init__(self, work: Path, *, memory_mb: int = 512, disk_mb: int = 1024, disks: Sequence[Path] = ()) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.disk, self.console, self._plan = work / "disk.img", work / "console.log", work / "plan.json"
        self.memory_mb, self.disks = memory_mb, disks
        self.pid = 0  # the host's number of the process with which the whole guest ends
        self._process: subprocess.Popen[bytes] | None = None
        self._output, self._report = bytearray(), bytearray()
        self._pipes: dict[int, bytearray] = {}
        if not self.disk.exists():
            with self.disk.open("xb") as image:
                image.truncate(disk_mb << 20)
            subprocess.run(["mkfs.ext4", "-q", self.disk], check=True, env={"PATH": SEARCH_PATH})

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.kill()

    def run(self, argv: list[str], *, env: Environment = None, cwd: str = "/", timeout_s: float) -> Outcome:
        """Boot, run the command, power off; GuestError if that takes longer than timeout_s."""
        self.start(argv, env=env, cwd=cwd)
        return self.wait(timeout_s)

    def start(self, argv: list[str], *, env: Environment = None, cwd: str = "/") -> None:
        """Boot and run the command, and wait for neither; the guest powers off when the command ends."""
        if self._process is not None:
            raise GuestError("this guest is running")
        (output, its_output), (report, its_report) = os.pipe(), os.pipe()
        self._output, self._report, self.pid = bytearray(), bytearray(), 0
        self._pipes = {output: self._output, report: self._report}
        plan = {
            "memory_mb": self.memory_mb,
            "disks": [str(disk.resolve()) for disk in (self.disk, *self.disks)],
            "fds": [its_output, its_report],
            "keep": sorted({str(CHECKOUT), sys.prefix, sys.base_prefix}),
            "argv": ["env", f"--chdir={cwd}", *argv],
            "env": {**DEFAULTS, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
        }
        self._plan.write_text(json.dumps(plan))
        alone = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
        stage = [sys.executable, "-I", "-S", __file__, "stage", str(self._plan)]
        with self.console.open("ab") as console:
            self._process = subprocess.Popen(
                [*alone, *stage],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                pass_fds=(its_output, its_report),
                env={"PATH": SEARCH_PATH},
                start_new_session=True,  # a kernel that panics sends SIGTERM to its process group
            )
        os.close(its_output)
        os.close(its_report)
        self._read(BRIEFLY_S, lambda: b"\n" in self._report)
        if not self._report:
            self._fail("the guest could not be started")
        self.pid = int(self._report)

    def wait_for(self, text: str, timeout_s: float) -> str:
        """All the command has written, once it has written the text and the rest of that line.

        GuestError if it ends before or time is up.
        """
        wanted = text.encode()
        self._read(timeout_s, lambda: b"\n" in self._output.partition(wanted)[2])
        if wanted not in self._output:
            self._fail(f"the guest ended and had not written {text!r}")
        return self._output.decode(errors="replace")

    def wait_for_lines(self, count: int, timeout_s: float) -> None:
        """Return as soon as the command has written so many lines; GuestError if it ends before or time is up."""
        self._read(timeout_s, lambda: self._output.count(b"\n") >= count)
        if self._output.count(b"\n") < count:
            self._fail(f"the guest ended and had not written {count} lines")

    def let_run(self, duration_s: float) -> None:
        """Take in what the command writes for so long; GuestError if it ends before."""
        self._read(duration_s, lambda: False, is_late=False)
        if not self._pipes:
            self._fail("the guest ended")

    def wait(self, timeout_s: float) -> Outcome:
        """Wait until the guest has powered off and nothing of it is alive, and tell how its command ended."""
        self._read(timeout_s, lambda: False)
        report = self._report.split()
        if len(report) < 2:
            self._fail("the guest died")
        return Outcome(int(report[1]), self.kill())

    def kill(self) -> str:
        """Cut the power: nothing of the guest is alive after this. Gives what its command wrote before."""
        if self._process is not None:
            # Process 1 of the namespace ends after all others in it, and its parent, unshare, after that.
            if self._process.poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(self.pid or self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._read(BRIEFLY_S, lambda: False)
            self._process = None
        return self._output.decode(errors="replace")

    def _read(self, timeout_s: float, done: Callable[[], bool], *, is_late: bool = True) -> None:
        """Take in what the guest writes until done() or until it has ended; after timeout_s GuestError if `is_late`."""
        if self._process is None:
            raise GuestError("this guest has not been started")
        deadline = time.monotonic() + timeout_s
        while self._pipes and not done():
            if (left_s := deadline - time.monotonic()) < 0:
                if not is_late:
                    return
                self._fail(f"the guest was not done after {timeout_s} s")
            for pipe in select.select(list(self._pipes), [], [], left_s)[0]:
                data = os.read(pipe, PIPE_SIZE)
                self._pipes[pipe] += data
                if not data:
                    del self._pipes[pipe]
                    os.close(pipe)

    def _fail(self, what: str) -> NoReturn:
        output, console = self.kill()[-2000:], self.console.read_text(errors="replace")[-4000:]
        raise GuestError(f"{what}\n--- end of the output:\n{output}\n--- end of the console:\n{console}")


def _libc(function: str, *arguments: Any) -> None:
    if getattr(LIBC, function)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), f"{function}{arguments}")


def _mount(source: str, target: str, fstype: str, flags: int = 0, options: str = "") -> None:
    words = [word.encode() for word in (source, target, fstype)]
    _libc("mount", *words, ctypes.c_ulong(flags), options.encode())


def _stage(plan_file: str) -> None:
    """In namespaces of its own: make every mount read-only but the disk's, and run the guest's kernel."""
    plan: dict[str, Any] = json.loads(Path(plan_file).read_text())
    output, report = plan["fds"]
    os.write(report, os.readlink("/proc/self").encode() + b"\n")  # /proc is the host's: so is this number
    read_only = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY, 0, 0, 0)
    _libc("syscall", SYS_MOUNT_SETATTR, AT_FDCWD, b"/", AT_RECURSIVE, read_only, ctypes.c_size_t(32))
    _mount("stage", STAGE, "tmpfs", 0, f"size={plan['memory_mb'] + 64}m")
    shutil.copy(__file__, f"{STAGE}/guest.py")
    shutil.copy(plan_file, f"{STAGE}/plan.json")
    kernel = f"{KERNEL} mem={plan['memory_mb']}M uml_dir={STAGE}/uml panic=-1 noreboot"
    for number, disk in enumerate(plan["disks"]):
        image = f"{STAGE}/disk{number}"
        Path(image).touch()
        _mount(disk, image, "none", MS_BIND)
        _mount("none", image, "none", MS_BIND | MS_REMOUNT)
        kernel += f" ubd{number}={image}"
    kernel += " root=/dev/root rootfstype=hostfs rootflags=/ ro con=null con0=null,fd:2 ssl=null"
    kernel += f" ssl0=null,fd:{output} ssl1=null,fd:{report}"
    init = [f"init={sys.executable}", "--", "-I", "-S", f"{STAGE}/guest.py", "init"]
    # As a child, for a panic ends in SIGABRT, which process 1 of a namespace does not feel.
    os.spawnve(os.P_WAIT, KERNEL, [*kernel.split(), *init], {"TMPDIR": STAGE, "HOME": STAGE})


def _init() -> None:
    """Process 1 of the guest: make it a machine, run the command, power off. Tracebacks go to the console."""
    plan: dict[str, Any] = json.loads(Path(f"{STAGE}/plan.json").read_text())
    _load_modules()
    _mount_all(plan["keep"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    if (supervisor := os.fork()) == 0:
        _supervise(plan)
        os._exit(0)
    while os.wait()[0] != supervisor:  # the others are orphans, which are process 1's to reap
        pass
    os.sync()
    _libc("reboot", RB_POWER_OFF)


def _load_modules() -> None:
    directory = MODULES / os.uname().release
    lines = [line.split(":") for line in (directory / "modules.dep").read_text().splitlines()]
    needs = {Path(file).stem: [file, *others.split()] for file, others in lines}
    for name in LOADED:
        for file in reversed(needs[name]):  # a module comes before those it needs
            with (directory / file).open("rb") as module, suppress(FileExistsError):
                _libc("syscall", SYS_FINIT_MODULE, module.fileno(), b"", 0)


def _mount_all(keep: list[str]) -> None:
    """Mount what a machine has; the directories to keep stay as they are on the host, and read-only."""
    for fstype, directory in (("proc", "/proc"), ("sysfs", "/sys"), ("cgroup2", "/sys/fs/cgroup")):
        _mount(fstype, directory, fstype)
    os.mkdir("/dev/pts")  # the kernel itself has mounted a devtmpfs on /dev
    os.mkdir("/dev/shm")
    _mount("devpts", "/dev/pts", "devpts", 0, "gid=5,mode=620,ptmxmode=666")
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"/dev/{name}")
    for directory, mode in EMPTY.items():
        _mount("tmpfs", directory, "tmpfs", 0, mode)
    for directory in CHANGEABLE:
        upper, work = f"{DISK}{directory}/upper", f"{DISK}{directory}/work"
        os.makedirs(upper)
        os.makedirs(work)
        _mount("overlay", directory, "overlay", 0, f"lowerdir={directory},upperdir={upper},workdir={work}")
    _mount("/dev/ubda", DISK, "ext4")  # hides the layers, which the overlays hold
    os.chmod(DISK, 0o1777)
    for directory in (f"{DISK}/.state", "/var/lib/chroot-sessions"):
        os.makedirs(directory, exist_ok=True)
    _mount(f"{DISK}/.state", "/var/lib/chroot-sessions", "none", MS_BIND)
    for directory in keep:
        if directory.startswith(tuple(f"{top}/" for top in (*EMPTY, *CHANGEABLE))):
            os.makedirs(directory, exist_ok=True)
            _mount("none", directory, "hostfs", MS_RDONLY, directory)


def _supervise(plan: dict[str, Any]) -> None:
    """Run the command; what it writes goes to the first serial line, and its exit status to the second."""
    output, its_output = os.pipe()  # since the command may behave differently on a terminal
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": its_output, "stderr": its_output}
    command = subprocess.Popen(plan["argv"], env=plan["env"], start_new_session=True, **streams)
    pidfd = os.pidfd_open(command.pid)
    with open("/dev/ttyS0", "wb", 0) as output_line, open("/dev/ttyS1", "wb", 0) as report_line:
        tty.setraw(output_line.fileno())
        while pidfd not in select.select([output, pidfd], [], [])[0]:
            output_line.write(os.read(output, PIPE_SIZE))
        # All that the command wrote is in the pipe by now, to which daemons of its may be writing still.
        if select.select([output], [], [], 0)[0]:
            output_line.write(os.read(output, PIPE_SIZE))
        status = command.wait()
        report_line.write(f"{status if status >= 0 else 128 - status}\n".encode())
        for line in (output_line, report_line):
            termios.tcdrain(line)


if __name__ == "__main__":
    _stage(sys.argv[2]) if sys.argv[1] == "stage" else _init()
