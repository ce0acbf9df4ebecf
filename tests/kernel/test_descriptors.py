"""What goes in and comes out of a command, that nothing else does, and that nothing of a session is loaded by us."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import REPOSITORY, Fork, World, fork, output, shell

from sessions.api import CommandTimedOut, OpenSession

pytestmark = pytest.mark.usefixtures("read_only_host")
MIB = 1 << 20
# What glibc would read inside, if it were asked for a name, a locale, a message or a character set.
HOSTILE = (
    "etc/nsswitch.conf", "etc/ld.so.preload", "etc/ld.so.cache", "etc/localtime", "etc/locale.alias",
    "lib/x86_64-linux-gnu/libnss_files.so.2", "lib/x86_64-linux-gnu/libnss_evil.so.2",
    "lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/gconv/gconv-modules",
    "usr/lib/locale/locale-archive", "usr/lib/locale/C.utf8/LC_CTYPE", "usr/share/locale/de/LC_MESSAGES/libc.mo",
    "usr/lib/python3.11/encodings/__init__.py", "usr/lib/python3/dist-packages/sitecustomize.py",
)  # fmt: skip


@pytest.fixture
def session(world: World) -> Iterator[OpenSession]:
    world.define("tiny", profile=world.profile(fstab="proc /proc proc defaults\n"))
    with world.begin("tiny", name="one") as session:
        yield session


def in_a_process_with(descriptors: dict[int, int], session: OpenSession, *argv: str) -> str:
    """Run a command in another process of ours, whose own descriptors are those given."""

    def work(it: Fork) -> None:
        for number, fd in descriptors.items():
            os.dup2(fd, number)
        it.tell(f"status {session.run(argv).status}")

    other = fork(work)
    said = other.ask()
    assert other.wait() == 0
    return said


def test_standard_descriptors_are_passed_through(world: World, session: OpenSession) -> None:
    given = world.write("given", "from outside")
    out, err = world.base / "out", world.base / "err"
    with open(given) as stdin, open(out, "w") as stdout, open(err, "w") as stderr:
        ours = {0: stdin.fileno(), 1: stdout.fileno(), 2: stderr.fileno()}
        assert in_a_process_with(ours, session, "sh", "-c", "cat; echo oops >&2; exit 4") == "status 4"
    assert (out.read_text(), err.read_text()) == ("from outside", "oops\n")


def test_standard_descriptors_may_be_swapped(world: World, session: OpenSession) -> None:
    out, err = world.base / "out", world.base / "err"
    with open(out, "w") as stdout, open(err, "w") as stderr:
        script = "echo o; echo e >&2"
        ours = {100: stdout.fileno(), 101: stderr.fileno(), 1: stderr.fileno(), 2: stdout.fileno()}
        assert in_a_process_with(ours, session, "sh", "-c", script) == "status 0"
    assert (out.read_text(), err.read_text()) == ("e\n", "o\n")


def test_no_other_descriptor_gets_inside(session: OpenSession) -> None:
    """Neither ours nor those that somebody made inheritable, wherever they are; 3 is the one ls reads with."""

    def work(it: Fork) -> None:
        root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        for number in set(range(3, 300)) - {it.reader, it.writer}:
            os.dup2(root, number, inheritable=True)
        it.tell(output(session, "ls", "/proc/self/fd").replace("\n", " "))

    other = fork(work)
    assert other.ask() == "0 1 2 3"
    assert other.wait() == 0


class Circle:
    """Something that only the garbage collector finds, and that closes a file when it is found."""

    def __init__(self) -> None:
        self.me = self
        self.fd = os.open("/dev/null", os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.fd)


def test_what_is_collected_while_a_command_starts_is_closed(session: OpenSession) -> None:
    """Whenever the garbage collector comes, finalizers see our own descriptors and our own root."""
    session.run(["true"])
    gc.collect()
    before, thresholds = len(os.listdir("/proc/self/fd")), gc.get_threshold()
    try:
        for allocations in range(0, 200, 3):
            Circle()
            gc.set_threshold(gc.get_count()[0] + allocations)
            session.run(["true"])
            gc.set_threshold(*thresholds)
            gc.collect()
            assert len(os.listdir("/proc/self/fd")) == before, allocations
    finally:
        gc.set_threshold(*thresholds)
    assert gc.isenabled()


def test_much_output_on_both_is_captured(session: OpenSession) -> None:
    script = f"yes e | head -c {10 * MIB} >&2 & yes o | head -c {10 * MIB}; wait"
    result = session.run(["sh", "-c", script], capture=True)
    assert result.status == 0
    assert result.stdout == b"o\n" * (5 * MIB)
    assert result.stderr == b"e\n" * (5 * MIB)


def test_input_is_given_whole_and_need_not_be_read(session: OpenSession) -> None:
    data = os.urandom(3 * MIB)
    assert session.run(["cat"], input=data, capture=True).stdout == data
    assert session.run(["wc", "-c"], input=b"", capture=True).stdout == b"0\n"
    assert session.run(["true"], input=data, capture=True).status == 0
    assert session.run(["head", "-c", "3"], input=data, capture=True).stdout == data[:3]


def test_a_daemon_that_keeps_the_pipes_open_is_not_waited_for(session: OpenSession) -> None:
    result = session.run(["sh", "-c", "sleep 4321 & echo done"], capture=True, input=b"x")
    assert (result.status, result.stdout) == (0, b"done\n")


def test_a_command_that_takes_too_long_is_killed(session: OpenSession) -> None:
    with pytest.raises(CommandTimedOut, match=r"sleep took longer than 0\.1 seconds and was killed"):
        session.run(["sleep", "4321"], timeout_s=0.1)
    with pytest.raises(CommandTimedOut):
        session.run(["sh", "-c", "trap '' TERM; while :; do :; done"], timeout_s=0.1, capture=True)
    assert session.run(["sleep", "0"], timeout_s=60).status == 0
    assert shell(session, "echo usable") == "usable\n"


ENTER = """
import locale, sys
sys.path.insert(0, {repository!r})
import sessions
from sessions.errors import SessionsError
from sessions.model import *
locale.setlocale(locale.LC_ALL, "")
session = sessions.open_session("one", places={places!r})
commands = [(["true"], "", "/"), (["true"], "nobody", "/"), (["nosuch"], "", "/"), (["true"], "", "/nosuch")]
for argv, user, cwd in (*commands, (["/etc/passwd"], "nobody", "/")):
    try:
        session.run(argv, user=user, cwd=cwd, env={{"LANG": "de_DE.UTF-8"}})
    except SessionsError as error:
        print(error)
"""


def test_nothing_of_a_hostile_chroot_is_opened_but_the_command(world: World) -> None:
    """strace(1) of the whole entering process: between chroot and exec nothing is opened, before it nothing inside."""
    for path in HOSTILE:
        world.write(f"tiny/{path}", "not what it seems", 0o755)
    world.define("tiny")
    with world.begin("tiny", name="one") as session:
        words = ["strace", "-ff", "-o", f"{world.base}/strace", "-e", "trace=file,chroot,process", "-s", "300"]
        code = ENTER.format(repository=str(REPOSITORY), places=world.places)
        environment = {**os.environ, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "LANGUAGE": "de", "NLSPATH": "/etc/%N"}
        run = subprocess.run(
            [*words, sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
        )
        assert run.returncode == 0, run.stderr
        assert [line.split(":")[0] for line in run.stdout.splitlines()] == [
            "Failed to execute “nosuch”", "Failed to change to directory ‘/nosuch’", "Failed to execute “/etc/passwd”",
        ]  # fmt: skip
        logs = [log.read_text() for log in world.base.glob("strace.*")]
    assert sorted(_opened_inside(log, (session.location, str(world.root))) for log in logs) == [
        "executed nothing", "executed nothing", "executed nothing", "executed true", "executed true", "never went in",
    ]  # fmt: skip


def _opened_inside(log: str, trees: tuple[str, ...]) -> str:
    """What one process did, by its log; raises AssertionError where it opened what it must not."""
    has_changed_root = False
    for call in log.splitlines():
        if re.match(r'chroot\("\."\) += 0', call):
            has_changed_root = True
        elif has_changed_root and re.match(r"execve\(.*\) += 0$", call):
            return "executed " + call.split('"')[1].rpartition("/")[2]
        elif has_changed_root:
            # Looking for the command is stat and execve; nothing else has a name inside.
            assert re.match(r"(stat|newfstatat|execve|chdir|exit_group|\+\+\+)", call), call
        elif re.match(r"open|readlink|access|execve", call):
            assert not any(tree in call for tree in trees) or "O_PATH" in call, call
    return "executed nothing" if has_changed_root else "never went in"


def test_the_hostile_files_would_have_been_seen(world: World) -> None:
    """The check above is worth something: what goes the usual way after chroot opens them."""
    log = world.base / "strace"
    code = "import os, pwd, sys; os.chroot(sys.argv[1]); pwd.getpwuid(4321)"
    argv = ["strace", "-f", "-o", str(log), sys.executable, "-c", code, str(world.root)]
    subprocess.run(argv, capture_output=True, check=False)
    assert Path(log).read_text().count('"/etc/nsswitch.conf"') > 0
