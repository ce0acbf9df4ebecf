"""The harness of tests/guest.py keeps its promises, and the other kernel tests pass on the guest's kernel."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

# No directory of tests is a package, and pytest puts only this file's own directory on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from guest import CHECKOUT, Guest, GuestError, Outcome, available

pytestmark = pytest.mark.guest

BOOT_S = 60
SUITE_S = 3600

MACHINE = """
import json, os, platform, socket, subprocess, sys, tempfile
from pathlib import Path

def overlay_on(top):
    for name in ("lower", "upper", "work", "merged"):
        (top / name).mkdir(parents=True)
    (top / "lower/old").write_text("old")
    options = f"lowerdir={top}/lower,upperdir={top}/upper,workdir={top}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", top / "merged", "-o", options], check=True)
    (top / "merged/new").write_text("new")
    (top / "merged/old").unlink()
    fstype = subprocess.run(["stat", "-f", "-c", "%T", top], capture_output=True, text=True).stdout.strip()
    return [fstype, *(sorted(os.listdir(top / name)) for name in ("lower", "upper", "merged"))]

TOPS = (tempfile.gettempdir(), "/var/lib/chroot-sessions", "/tmp")
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
os.openpty()
for file in ("/run/x", "/root/x", "/dev/shm/x", "/var/lib/x"):
    Path(file).touch()
json.dump({
    "release": platform.release(),
    "user-mode": "User Mode Linux" in Path("/proc/cpuinfo").read_text(),
    "loop": subprocess.run(["losetup", "-f"], capture_output=True, text=True).stdout,
    "cgroup2": Path("/sys/fs/cgroup/cgroup.procs").exists(),
    "overlays": [overlay_on(Path(top, "o")) for top in TOPS],
}, sys.stdout)
"""

INTRUDER = """
import errno, os, subprocess, sys

# Root in the guest does what it can: it makes its root writable, and mounts the host's files once more.
subprocess.run(["mount", "-o", "remount,rw", "/"])
os.mkdir("/tmp/host")
subprocess.run(["mount", "-t", "hostfs", "none", "/tmp/host", "-o", "/"], check=True)
for path in sys.argv[1:]:
    try:
        os.open(path, os.O_WRONLY | os.O_CREAT)
        print("written")
    except OSError as error:
        print(errno.errorcode[error.errno])
"""

SYNCED = """
import os
fd = os.open("/var/tmp/synced", os.O_WRONLY | os.O_CREAT)
os.write(fd, b"kept" * 100000)
os.fsync(fd)
os.fsync(os.open("/var/tmp", os.O_RDONLY))
print("synced", flush=True)
os.read(os.pipe()[0], 1)
"""

ORPHANED = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(CHECKOUT / "tests")!r})
from guest import Guest
guest = Guest(Path(sys.argv[1]))
guest.start(["sleep", "infinity"])
print(guest.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    assert available() is None, available()
    with Guest(tmp_path / "guest") as guest:
        yield guest


@pytest.mark.parametrize("python", sorted({sys.executable, "/usr/bin/python3"}))
def test_guest_is_linux_6_1_with_overlays_on_its_disk_and_on_tmpfs(guest: Guest, python: str) -> None:
    outcome = guest.run([python, "-c", MACHINE], timeout_s=BOOT_S)
    assert outcome.status == 0, outcome.output
    machine = json.loads(outcome.output)
    assert machine["release"].startswith("6.1.")
    assert machine["user-mode"]
    assert machine["loop"].startswith("/dev/loop")
    assert machine["cgroup2"]
    trees = [["old"], ["new", "old"], ["new"]]
    assert machine["overlays"] == [["ext2/ext3", *trees], ["ext2/ext3", *trees], ["tmpfs", *trees]]


def test_root_in_the_guest_cannot_write_the_hosts_files(guest: Guest, tmp_path: Path) -> None:
    name = f"guest-was-here-{os.getpid()}"
    places = (Path("/etc"), CHECKOUT, Path("/dev/shm"), tmp_path, tmp_path / "guest")
    files = [place / name for place in places]
    # The host's /proc/sys would be the worst hole of all; to open a file there changes nothing.
    attempts = [*files[:2], *(f"/tmp/host{file}" for file in [*files, "/proc/sys/vm/swappiness"])]
    outcome = guest.run([sys.executable, "-c", INTRUDER, *map(str, attempts)], timeout_s=BOOT_S)
    assert outcome.status == 0, outcome.output
    assert outcome.output.splitlines()[-len(attempts) :] == ["EROFS"] * len(attempts), outcome.output
    assert [file for file in files if file.exists()] == []


def test_status_and_output_of_a_failing_command_arrive(guest: Guest) -> None:
    command = 'echo "$WORDS in $PWD"; echo err >&2; sleep infinity & exit 7'
    outcome = guest.run(["sh", "-c", command], env={"WORDS": "two words"}, cwd="/usr/bin", timeout_s=BOOT_S)
    assert outcome == Outcome(7, "two words in /usr/bin\nerr\n")
    killed = guest.run(["sh", "-c", "seq 200000; kill -9 $$"], timeout_s=BOOT_S)
    assert killed == Outcome(137, "".join(f"{number}\n" for number in range(1, 200001)))
    absent = guest.run(["/no/such/command"], timeout_s=BOOT_S)
    assert absent.status == 127
    assert "No such file or directory" in absent.output


def test_what_was_synced_survives_a_power_cut(guest: Guest) -> None:
    guest.start([sys.executable, "-c", SYNCED])
    guest.wait_for("synced", BOOT_S)
    assert guest.kill() == "synced\n"
    outcome = guest.run(["cat", "/var/tmp/synced"], timeout_s=BOOT_S)
    assert outcome == Outcome(0, "kept" * 100000)


def test_a_guest_that_dies_or_hangs_is_an_error_with_the_end_of_its_console(guest: Guest) -> None:
    with pytest.raises(GuestError, match=r"(?s)the guest died.*Kernel panic"):
        guest.run(["sh", "-c", "echo c > /proc/sysrq-trigger"], timeout_s=BOOT_S)
    guest.start(["sh", "-c", "echo up; sleep infinity"])
    guest.wait_for("up", BOOT_S)
    with pytest.raises(GuestError, match=r"(?s)not done after 0.1 s.*EXT4-fs"):
        guest.wait(0.1)
    with pytest.raises(GuestError, match="has not been started"):
        guest.wait(0.1)
    with pytest.raises(GuestError, match="had not written 'up'"):
        guest.start(["true"])
        guest.wait_for("up", BOOT_S)


def test_nothing_stays_behind_but_the_work_directory(guest: Guest, tmp_path: Path) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    uml_directory = (Path.home() / ".uml").exists()
    guest.start(["sh", "-c", "echo up; sleep infinity"])
    guest.wait_for("up", BOOT_S)
    # Held open, or else the kernel may give its number to the next namespace as soon as it is gone.
    with open(f"/proc/{guest.pid}/ns/pid") as namespace:
        assert len(_processes_in(namespace)) > 2
        assert Path("/proc/self/mountinfo").read_text() == mounts
        guest.kill()
        assert _processes_in(namespace) == []
    assert not Path(f"/proc/{guest.pid}").exists()
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert (Path.home() / ".uml").exists() == uml_directory
    assert os.listdir(tmp_path) == ["guest"]
    assert sorted(os.listdir(tmp_path / "guest")) == ["console.log", "disk.img", "plan.json"]


def test_a_guest_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", ORPHANED, str(tmp_path / "guest")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        pidfd = os.pidfd_open(int(starter.stdout.readline()))
        try:
            assert select.select([pidfd], [], [], 0)[0] == []
            starter.kill()
            assert select.select([pidfd], [], [], 10)[0] == [pidfd]
        finally:
            os.close(pidfd)


# What depends on the kernel; the rest tests our words and other programs, and a guest takes ten times as long for it.
KERNEL_FACING = (
    "test_session.py",
    "test_host.py",
    "test_enter.py",
    "test_descriptors.py",
    "test_fstab.py",
    "test_in_root.py",
    "test_hostile.py",
    "test_removal.py",
    "test_scripts.py",
    "test_network.py",
    "test_binfmt.py",
    "test_services.py",
)


def test_kernel_suite_passes_on_6_1(tmp_path: Path) -> None:
    assert available() is None, available()
    files = [f"tests/kernel/{name}" for name in KERNEL_FACING]
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    with Guest(tmp_path / "guest", memory_mb=1024, disk_mb=4096) as guest:
        # Hypothesis keeps examples in the checkout; finding that read-only it warns, which is an error here.
        env = {"HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/hypothesis"}
        outcome = guest.run(argv, env=env, cwd=str(CHECKOUT), timeout_s=SUITE_S)
    print(outcome.output.splitlines()[-1])
    assert outcome.status != 5, "there is no test in tests/kernel besides those of the guest itself"
    assert outcome.status == 0, outcome.output
    # pytest is content when all tests are skipped, and then nothing would have been shown.
    assert " passed" in outcome.output.splitlines()[-1], outcome.output


def _processes_in(namespace: TextIO) -> list[int]:
    """The processes that are alive in a pid namespace."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.path.samestat(os.stat(f"/proc/{pid}/ns/pid"), os.fstat(namespace.fileno())):
                found.append(int(pid))
        except (FileNotFoundError, PermissionError):
            continue  # it has just ended, or is none that root may look into, as a guest's processes are
    return found
