"""--isolate-network: a command with nothing but a loopback of its own, in all else as it is without."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import MS_REC, MS_SHARED, World, fork, mount, mounts, output, shell
from schrootcalls import CODE, ENVIRONMENT, Schroot

from sessions.api import OpenSession
from sessions.cli import options
from sessions.errors import CannotEnter, CommandNotFound, UsageError
from sessions.linux import proc, syscall

USERS = ("root", "nobody")
LOOPBACK_AND_UP = "0x9\n"
FSTAB = "proc /proc proc defaults 0 0\n/sys /sys none rw,bind 0 0\n"


@pytest.fixture
def session(world: World) -> Iterator[OpenSession]:
    world.define("tiny", profile=world.profile(fstab=FSTAB))
    with world.begin("tiny", name="one", persistent=True) as session:
        yield session


def start(session: OpenSession, user: str = "root", *, ready: str = "ready") -> subprocess.Popen[bytes]:
    """A process of ours that runs a command inside, which has said that it is there and waits for its end."""
    code = f"""
import sys
from sessions import api
from sessions.model import *
session = api.open_session({session.id!r}, places={session.places!r})
session.run(["sh", "-c", "echo {ready}; exec sleep 1000"], user={user!r}, isolate_network=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == f"{ready}\n".encode()
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill what :func:`start` has started, though not the command."""
    assert process.stdout
    process.stdout.close()
    process.kill()
    process.wait()


def inside(session: OpenSession) -> int:
    """The one process inside."""
    (pid,) = proc.rooted_in(proc.tree(os.path.realpath(session.location), owns_device=True))
    return pid


@pytest.mark.parametrize("user", USERS)
def test_only_a_loopback_which_is_up(session: OpenSession, user: str) -> None:
    def run(command: str) -> str:
        return shell(session, command, user=user, isolate_network=True)

    host = sorted(os.listdir("/sys/class/net"))
    assert run("ls /sys/class/net") == "lo\n"
    assert run("cat /sys/class/net/lo/flags") == LOOPBACK_AND_UP
    assert [line.split(":")[0].strip() for line in run("cat /proc/net/dev").splitlines()[2:]] == ["lo"]
    assert "127.0.0.1" in run("cat /proc/net/fib_trie") and run("cat /proc/net/route").count("\n") == 1
    assert shell(session, "ls /sys/class/net", user=user).split() == host


@pytest.mark.parametrize("user", USERS)
def test_the_loopback_carries_data(session: OpenSession, user: str) -> None:
    # Who listens sends back what it hears: without a program it would end what it sends as soon as it can.
    listen = "busybox nc -l -p 7000 -e busybox cat"
    talk = f"{listen} & until echo hello | busybox nc 127.0.0.1 7000 2>/dev/null; do :; done; wait"
    assert shell(session, talk, user=user, isolate_network=True) == "hello\n"


def test_each_command_has_a_network_of_its_own(session: OpenSession) -> None:
    look = "readlink /proc/self/ns/net; readlink /proc/self/ns/mnt"
    ours = "".join(f"{os.readlink(f'/proc/self/ns/{name}')}\n" for name in ("net", "mnt"))
    assert shell(session, look) == ours
    # The kernel may use the numbers of one that is gone again, though not those of ours.
    isolated = shell(session, look, isolate_network=True)
    assert set(isolated.split()) & set(ours.split()) == set()


@pytest.mark.parametrize("user", USERS)
def test_all_else_is_as_it_is_without(session: OpenSession, user: str) -> None:
    shell(session, "mkdir -p /closed; chmod 700 /closed; echo kept >/var/tmp/file")
    commands = (
        "id; pwd; umask; env | grep -v ^SCHROOT_COMMAND; cat /var/tmp/file; cat",
        "readlink /proc/self/root; grep -E '^(Cap|Sig(Pnd|Blk|Ign|Cgt)|NoNew|Seccomp|Groups)' /proc/self/status",
        "ls /proc/self/fd; ls / /sys; stat -c %a:%u:%d /; df -P / | tail -1 | sed 's/ .* / /'",
        "unshare -U true 2>&1; grep -c . /proc/self/cgroup; ls -d /proc/1/root/bin 2>&1",
        "cut -d ' ' -f 5,9- /proc/self/mountinfo | grep -v sysfs",
        "echo out; echo err >&2; exit 9",
        "kill -9 $$",
        "kill -TERM $$",
    )
    for command in commands:
        plain, isolated = (
            session.run(["sh", "-c", command], user=user, input=b"typed", capture=True, isolate_network=isolate)
            for isolate in (False, True)
        )
        assert (isolated.status, isolated.stdout, isolated.stderr) == (plain.status, plain.stdout, plain.stderr)


@pytest.mark.parametrize("user", USERS)
def test_what_cannot_be_started(session: OpenSession, user: str) -> None:
    with pytest.raises(CommandNotFound, match="Failed to execute “nosuch”: No such file"):
        session.run(["nosuch"], user=user, isolate_network=True)
    with pytest.raises(CannotEnter, match="Failed to change to directory ‘/nosuch’") as error:
        session.run(["true"], user=user, cwd="/nosuch", isolate_network=True)
    assert error.value.what == "directory"


def test_what_is_written_and_what_is_mounted(session: OpenSession) -> None:
    """Files are the session's; mounts that the command makes are its own."""
    shell(session, "echo new >/var/tmp/new; mount -t tmpfs none /var/tmp", isolate_network=True)
    assert shell(session, "cat /var/tmp/new") == "new\n"


def test_the_host_sees_no_mount_and_the_command_only_its_session(world: World, session: OpenSession) -> None:
    """Even where all mounts are shared, and others mount and unmount meanwhile."""
    before = mounts()
    mount("none", "/", flags=MS_REC | MS_SHARED)
    process = start(session)
    try:
        pid = inside(session)
        assert mounts() == before
        targets = [line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
        # What the process sees from its root; the empty file system below that is out of its sight.
        assert sorted(targets) == ["/", "/proc", "/sys", "/sys"]
        assert os.readlink(f"/proc/{pid}/root") == os.path.realpath(session.location)
        world.define("other")
        with world.begin("other") as other:
            assert other.id not in Path(f"/proc/{pid}/mountinfo").read_text()
        assert os.listdir(f"/proc/{pid}/root/sys/class/net") == ["lo"]
    finally:
        kill(process)
    session.end(force=True)
    assert proc.start_ticks(pid) is None
    with world.begin("tiny", name="one", persistent=True):
        pass


@pytest.mark.parametrize("user", USERS)
def test_end_finds_who_is_left_inside(world: World, user: str) -> None:
    world.define("tiny", profile=world.profile(fstab=FSTAB))
    session = world.begin("tiny", persistent=True)
    shell(session, "setsid sleep 1000 >/dev/null 2>&1 &", user=user, isolate_network=True)
    pid = inside(session)
    session.end()
    assert proc.start_ticks(pid) is None


@pytest.mark.parametrize(
    ("make", "shows"),
    [
        ("ln -s /proc/1/root/sys /sys", None),  # leads root to the host's own, with us or without
        ("ln -s /proc/self/root/sys /sys", "no"),
        ("ln -s loop /sys; ln -s sys /loop", "no"),
        ("touch /sys", "no"),
        ("true", "no"),
        ("ln -s ../../../../var/tmp /sys", "lo"),
        ("ln -s /tmp /sys", "lo"),
    ],
)
def test_hostile_roots(world: World, make: str, shows: str | None) -> None:
    world.define("tiny", profile=world.profile(fstab="proc /proc proc defaults 0 0\n"))
    before = mounts()
    with world.begin("tiny") as session:
        shell(session, f"rmdir /sys; {make}")
        found = shell(session, "ls /sys/class/net 2>/dev/null || echo no", isolate_network=True)
        assert shows is None or found == f"{shows}\n"
    assert mounts() == before


def test_a_sysfs_that_was_read_only_stays_so(world: World) -> None:
    world.define("tiny", profile=world.profile(fstab="/sys /sys none ro,bind 0 0\n"))
    with world.begin("tiny") as session:
        assert "Read-only" in shell(session, "echo 1 2>&1 >/sys/kernel/notes || :", isolate_network=True)


SYSTEM_CALLS = ("open_tree", "mount_setattr", "ioctl", "mount", "fsmount", "move_mount", "pivot_root", "umount2")


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("name", SYSTEM_CALLS)
def test_killed_on_the_way_in(session: OpenSession, name: str, user: str) -> None:
    """SIGKILL in the middle of each effect, of all of us or of the child: nothing stays."""
    before = mounts()
    result = traced(session, user, f"{name}:signal=KILL")
    assert result.returncode != 0 and "Traceback" not in result.stderr
    assert mounts() == before
    assert proc.rooted_in(proc.tree(os.path.realpath(session.location), owns_device=True)) == []
    assert shell(session, "ls /sys/class/net", user=user, isolate_network=True) == "lo\n"


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(("name", "error"), [("pivot_root", "EINVAL"), ("fsmount", "EPERM"), ("ioctl", "EPERM")])
def test_refused_by_the_kernel(session: OpenSession, user: str, name: str, error: str) -> None:
    result = traced(session, user, f"{name}:error={error}")
    reason = {"EINVAL": "Invalid argument", "EPERM": "Operation not permitted"}[error]
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"E: cannot give the command a network of its own: {reason}\nI: this needs CAP_SYS_ADMIN and / to be a mount\n"
    )


def traced(session: OpenSession, user: str, injection: str) -> subprocess.CompletedProcess[str]:
    """`schroot -r --isolate-network` with a fault in its first system call of a kind; it prints what it sees."""
    places = session.places
    directories = {"config": places.schroot_config_dir, "state": places.state_dir, "runtime": places.runtime_dir}
    words = [f"--{name}-dir={directory}" for name, directory in directories.items()]
    words += ["-r", "-c", session.id, "-u", user, "--isolate-network", "--", "ls", "/sys/class/net"]
    strace = ["strace", "-f", "-o", os.devnull, "-e", f"inject={injection}:when=1"]
    Path(places.schroot_config_dir, "schroot.conf").write_text("[any]\ndirectory=/nonexistent\n")
    argv = [*strace, sys.executable, "-c", CODE, *words]
    return subprocess.run(argv, capture_output=True, text=True, cwd="/", env=ENVIRONMENT)


@pytest.mark.parametrize("user", USERS)
def test_killed_while_it_runs(session: OpenSession, user: str) -> None:
    before = mounts()
    process = start(session, user)
    pid = inside(session)
    kill(process)
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)
    assert mounts() == before


@pytest.fixture
def call(world: World) -> Schroot:
    call = Schroot(world)
    world.profile(fstab=FSTAB)
    return call


def test_schroot(call: Schroot) -> None:
    assert call("-b", "-c", "ov", "-n", "s1") == (0, "s1\n", "")
    look = ("--", "ls", "/sys/class/net")
    assert call("-r", "-c", "s1", "--isolate-network", *look) == (0, "lo\n", "")
    assert call("-d", "/", "-c", "s1", "--run-session", "-q", "--isolate-network", "-u", "nobody", "-p", *look) == (
        0, "lo\n", "",
    )  # fmt: skip
    assert call("-c", "ov", "--isolate-network", *look) == (0, "lo\n", "")
    assert call("-c", "dir", "--isolate-network", *look) == (0, "lo\n", "")
    assert call("-r", "-c", "s1", "--isolate-network", "--", "sh", "-c", "exit 42") == (42, "", "")
    killed = (1, "", "E: Child terminated by signal ‘Killed’\n")
    assert call("-r", "-c", "s1", "--isolate-network", "--", "sh", "-c", "kill -9 $$") == killed
    assert call("-r", "-c", "s1", "--isolate-network", "-v", "--", "true")[2].startswith("I: [s1 chroot] Running")
    assert call("-e", "-c", "s1") == (0, "", "")


def test_plain_chroots(call: Schroot) -> None:
    """Which have nothing mounted in them, and have nothing mounted in them afterwards."""
    before = mounts()
    assert call("-c", "plain", "--isolate-network", "--", "ls", "/sys/class/net") == (0, "lo\n", "")
    assert mounts() == before


@pytest.mark.parametrize("action", ["-l", "-i", "--config", "--location", "-b", "-e", "--recover-session"])
def test_only_where_something_is_run(call: Schroot, action: str) -> None:
    status, output, errors = call(action, "-c", "ov", "--isolate-network")
    assert (status, output) == (1, "")
    assert errors.startswith("E: --isolate-network is not permitted for the specified action\nI: Run “schroot --help”")


def test_it_is_no_abbreviation_of_schroots_options() -> None:
    assert options.parse(["--i"]).action == options.INFO
    for word in ("--iso", "--isolate-net", "--isolate"):
        with pytest.raises(UsageError, match=f"unrecognised option '{word}'"):
            options.parse([word])


def test_a_command_called_unschroot(call: Schroot, tmp_path: Path) -> None:
    """As newer sbuild wants it: whether it may isolate is read off the path of the command."""
    command = tmp_path / "unschroot"
    command.write_text(f"#!{sys.executable}\n{CODE}\n")
    command.chmod(0o755)

    def run(*words: str) -> tuple[int, str, str]:
        result = subprocess.run([command, *call.options, *words], capture_output=True, text=True, cwd="/", env={})
        return result.returncode, result.stdout, result.stderr

    assert run("--begin-session", "-q", "-c", "chroot:ov", "-n", "s2") == (0, "s2\n", "")
    words = ("-d", "/", "-c", "s2", "--run-session", "-q", "--isolate-network", "-u", "root", "-p", "--")
    assert run(*words, "ls", "/sys/class/net") == (0, "lo\n", "")
    assert run("-c", "s2", "--end-session") == (0, "", "")
    assert run("--help")[1].startswith("Usage:\n  unschroot ")
    assert run("-V")[1].startswith("unschroot (chroot-sessions ")


def test_native(call: Schroot) -> None:
    argv = [sys.executable, "-m", "sessions.cli.native", *call.options]

    def run(*words: str) -> tuple[int, str]:
        environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([*argv, *words], stdout=subprocess.PIPE, text=True, cwd="/", env=environment)
        return done.returncode, done.stdout

    look = ("--", "ls", "/sys/class/net")
    assert run("run", "ov", "--isolate-network", *look) == (0, "lo\n")
    assert run("run", "ov", "--isolate-network", "-u", "nobody", *look) == (0, "lo\n")
    assert run("begin", "ov", "--name", "s3") == (0, "s3\n")
    assert run("exec", "s3", "--isolate-network", *look) == (0, "lo\n")
    assert run("exec", "s3", "--isolate-network", "--", "sh", "-c", "kill -9 $$") == (137, "")
    assert run("end", "s3") == (0, "")


def test_where_the_root_is_no_mount(session: OpenSession, tmp_path: Path) -> None:
    """A process that was put into another root by chroot(2) cannot leave the mounts behind: refused, with a hint."""
    fresh = tmp_path / "not-a-mount"
    fresh.mkdir()

    def work(_it: object) -> None:
        from sessions.linux import network

        root_fd = os.open(session.location, os.O_PATH | os.O_DIRECTORY)
        os.chroot(fresh)
        syscall.unshare(syscall.CLONE_FS)
        network.change_root(root_fd, "/x")

    process = fork(work)
    assert "Invalid argument" in process.ask()
    assert process.wait() == 1


def test_output_reaches_the_caller(session: OpenSession) -> None:
    """An ordinary user's pipe, and a file of root's, opened again through /proc."""
    assert output(session, "sh", "-c", "echo there >/proc/self/fd/1", isolate_network=True) == "there\n"
