"""One side of a comparison: runs every line of a batch with Debian's schroot, or with ours in its place.

A program of its own, for namespaces of its own (world.start). It takes a file with what to do, as JSON, and prints what
became of it, as JSON: for each line its status, its output, its messages and what it logged.
"""

from __future__ import annotations

import fcntl
import json
import os
import queue
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import inplace
import world as worlds

TIMEOUT_S = 30
LOOP_DEVICES = 64
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": f"/run/bin:{PATH}", "HOME": "/root", "LANG": "C.UTF-8", "SHELL": "/bin/bash", "TERM": "dumb"}
APPLETS = """
cat chmod cut date dd echo env false find grep head id kill ln ls mkdir mount printf ps pwd readlink rm sed seq setsid
sh sleep sort stat tail touch tr true umask umount uname usleep wc
"""
# conf TEXT [NAME]: a file in chroot.d, gone after the line. reboot: nothing is mounted any more, and the boot another.
TOOLS = {
    "conf": '#!/bin/sh\nprintf "$1" >/etc/schroot/chroot.d/${2-c}\n',
    "reboot": """#!/bin/sh
cut -d' ' -f2 /proc/mounts | grep -e /schroot/ -e /chroot-sessions | sort -r | xargs -r umount -l
rm -rf --one-file-system /run/schroot /run/chroot-sessions
cat /proc/sys/kernel/random/uuid >/run/boot-id
mount --bind /run/boot-id /proc/sys/kernel/random/boot_id
""",
}
SCHROOTS = ("session", "unpack", "union/overlay", "union/underlay")


def main() -> None:
    side, asked = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    for number in (signal.SIGINT, signal.SIGQUIT):  # in the background of a script they are ignored
        signal.signal(number, signal.SIG_DFL)
    make_world(asked, ours=side == "ours")
    log = Log()
    if "calls" in asked:
        call = call_ours if side == "ours" else call_debians
        results = [one_call(call, words, texts, log) for words, texts in asked["calls"]]
    else:
        results = [one(line, log) for line in asked["lines"]]
    json.dump({"results": results, "left": left_behind(), "made": made()}, sys.stdout)


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def make_world(asked: dict[str, object], *, ours: bool) -> None:
    """Fixed places that are this world's alone; what the two programs keep in them is theirs."""
    for directory in ("/run", "/var/lib", "/srv"):
        mount("-t", "tmpfs", "-o", "mode=755", "none", directory)
    for directory in ("/run/etc/upper", "/run/etc/work"):
        os.makedirs(directory)
    mount("-t", "overlay", "-o", "lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work", "none", "/etc")
    os.umask(0)
    _make_dev()
    os.umask(0o022)
    for directory in ("/run/lock", "/run/schroot/mount", "/var/lib/sbuild/build", "/var/lib/dbus"):
        os.makedirs(directory)
    for directory in SCHROOTS:
        os.makedirs(f"/var/lib/schroot/{directory}")
    make_chroot(Path("/srv/root"))
    make_chroot(Path("/srv/archive/inner"))
    subprocess.run(["tar", "-cf", "/srv/root.tar", "-C", "/srv/archive", "."], check=True)
    _make_configuration(asked, ours=ours)
    os.mkdir("/run/bin")
    for name, text in TOOLS.items():
        _write(f"/run/bin/{name}", text, 0o755)
    if ours:
        inplace.take_the_place(Path("/run/ours"))


def _make_dev() -> None:
    mount("-t", "tmpfs", "-o", "mode=755", "none", "/srv")
    for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx"):
        device = os.stat(f"/dev/{name}")
        os.mknod(f"/srv/{name}", device.st_mode, device.st_rdev)
    # Which of them is free, the kernel says; one that there is not yet comes to be when it is opened.
    os.mknod("/srv/loop-control", stat.S_IFCHR | 0o600, os.makedev(10, 237))
    for number in range(LOOP_DEVICES):
        os.mknod(f"/srv/loop{number}", stat.S_IFBLK | 0o600, os.makedev(7, number))
    os.mkdir("/srv/pts")
    os.mkdir("/srv/shm")
    for name in ("pts",):
        mount("--bind", f"/dev/{name}", f"/srv/{name}")
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(target, f"/srv/{name}")
    mount("--move", "/srv", "/dev")


def make_chroot(directory: Path) -> None:
    """A root with a static busybox, and the users there are in every Debian."""
    for name in ("bin", "etc", "root", "proc", "sys", "dev/pts", "run", "tmp", "home"):
        (directory / name).mkdir(parents=True)
    shutil.copy(worlds.BUSYBOX, directory / "bin/busybox")
    for applet in APPLETS.split():
        (directory / "bin" / applet).symlink_to("busybox")
    (directory / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    (directory / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")


def _make_configuration(asked: dict[str, object], *, ours: bool) -> None:
    if os.path.isdir("/etc/chroot-sessions"):
        shutil.rmtree("/etc/chroot-sessions")
    if ours:  # as what is installed has it: scripts that are stock are not taken from there
        shutil.rmtree("/etc/schroot/setup.d")
        os.mkdir("/etc/schroot/setup.d")
    shutil.rmtree("/etc/schroot/chroot.d")
    os.mkdir("/etc/schroot/chroot.d")
    files = asked["files"]
    assert isinstance(files, dict)
    for path, text in files.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _write(path, text, 0o755 if text.startswith("#!") else 0o644)


def _write(path: str, text: str, mode: int) -> None:
    Path(path).write_text(text)
    os.chmod(path, mode)


class Log:
    """The system's log: what has come since it was last asked. Few datagrams fit into the socket, so a thread reads.

    What our sessions tell of themselves comes under a name of its own, and is no line of schroot's.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("/dev/log")
        os.chmod("/dev/log", 0o666)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            self._lines.put(self._socket.recv(65536).decode(errors="replace").rstrip("\n\0"))

    def read(self) -> str:
        """All lines that were sent before now: a line of ours comes after them."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
            ours.sendto(b"", "/dev/log")
        return "".join(f"{line}\n" for line in iter(self._lines.get, "") if " sessions[" not in line)


def one_call(
    call: Callable[[list[str], list[int]], int], words: list[str], texts: dict[str, str], log: Log
) -> tuple[int, str, str, str]:
    """The same for the words of a command line, and for files that are there for this call only."""
    for path, text in texts.items():
        Path(path).write_bytes(os.fsencode(text))
    files = _capturing()
    status = call(words, files)
    for path in texts:
        os.unlink(path)
    output, errors = map(_contents, files)
    return status, output, errors, log.read()


def call_debians(words: list[str], files: list[int]) -> int:
    return subprocess.run(
        ["schroot", *words],
        executable="/usr/bin/schroot",
        stdin=subprocess.DEVNULL, stdout=files[0], stderr=files[1], cwd="/", env=ENVIRONMENT, timeout=TIMEOUT_S,
    ).returncode  # fmt: skip


def call_ours(words: list[str], files: list[int]) -> int:
    """In a copy of this process, which spares the start of an interpreter."""
    import sessions.cli.actions
    import sessions.cli.output
    import sessions.config.load
    import sessions.store  # noqa: F401
    from sessions.cli import schroot

    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        for number, fd in enumerate((os.open(os.devnull, os.O_RDONLY), *files)):
            os.dup2(fd, number)
        os.chdir("/")
        os.environ.clear()
        os.environ.update(ENVIRONMENT)
        os._exit(schroot.run(words))
    finally:
        os._exit(99)


def one(line: str, log: Log) -> tuple[int | str, str, str, str]:
    """Status, output, messages and what was logged. Output goes to files: who is left behind keeps nobody waiting."""
    files = _capturing()
    there = set(os.listdir("/etc/schroot/chroot.d"))
    process = subprocess.Popen(
        ["/bin/sh", "-c", line],
        stdin=subprocess.DEVNULL, stdout=files[0], stderr=files[1], cwd="/", env=ENVIRONMENT, start_new_session=True,
    )  # fmt: skip
    status: int | str
    try:
        status = process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        status = f"still running after {TIMEOUT_S} s"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    worlds.reap()
    for name in set(os.listdir("/etc/schroot/chroot.d")) - there:
        _remove(f"/etc/schroot/chroot.d/{name}")
    output, errors = map(_contents, files)
    return status, output, errors, log.read()


def _capturing() -> list[int]:
    files = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("out", "err")]
    for fd in files:  # or those who write at the same time write over each other's words
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    return files


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        os.rmdir(path)
    else:
        os.unlink(path)


def _contents(fd: int) -> str:
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        return file.read().decode(errors="backslashreplace")


def made() -> list[str]:
    """The directories of ours that there are."""
    return [path for path in ("/var/lib/chroot-sessions", "/run/chroot-sessions") if os.path.exists(path)]


def left_behind() -> list[str]:
    """What is left of ours: sessions, layers, unpacked archives, mounts."""
    places = (
        "/var/lib/chroot-sessions/sessions", "/var/lib/chroot-sessions/unpack", "/run/chroot-sessions/mount",
        "/var/lib/chroot-sessions/union/overlay", "/var/lib/chroot-sessions/union/underlay",
    )  # fmt: skip
    found = [f"{place}/{name}" for place in places if os.path.isdir(place) for name in os.listdir(place)]
    with open("/proc/self/mounts") as mounts:
        found += [line for line in mounts if "/chroot-sessions/" in line]
    return found


if __name__ == "__main__":
    main()
