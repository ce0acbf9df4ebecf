"""Entering a session: as whom, where, with what environment and descriptors, and how the end of a command is told."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import World, bind, output, shell, umount

from sessions import running, users
from sessions.api import CommandFailed, OpenSession
from sessions.enter import Request
from sessions.errors import CannotEnter, CommandNotExecutable, CommandNotFound, UnknownUser, UsageError

pytestmark = pytest.mark.usefixtures("read_only_host")
SCHROOT = {"SCHROOT_ALIAS_NAME", "SCHROOT_CHROOT_NAME", "SCHROOT_COMMAND", "SCHROOT_GID", "SCHROOT_GROUP",
           "SCHROOT_SESSION_ID", "SCHROOT_UID", "SCHROOT_USER"}  # fmt: skip


@pytest.fixture
def host_users(world: World) -> Iterator[None]:
    """Users of the host, for as long as the test takes: builder with two more groups, and one without a shell."""
    passwd, group = Path("/etc/passwd").read_text(), Path("/etc/group").read_text()
    passwd += "builder:x:1234:1235:Builder:/home/builder:/bin/nosuch\nother:x:1300:1235::/nosuch:/bin/sh\n"
    world.write("passwd", passwd)
    world.write("group", group + "builder:x:1235:\nextra:x:2001:root,builder\nmore:x:2002:builder\n")
    for name in ("passwd", "group"):
        bind(world.base / name, f"/etc/{name}")
    yield
    for name in ("passwd", "group"):
        umount(f"/etc/{name}")


@pytest.fixture
def session(world: World) -> Iterator[OpenSession]:
    world.define("tiny", profile=world.profile(fstab="proc /proc proc defaults\n"), aliases=["small"])
    with world.begin("small", name="one") as session:
        yield session


def environment(session: OpenSession, **how: object) -> dict[str, str]:
    lines = output(session, "env", **how).splitlines()
    return {name: value for name, _equals, value in (line.partition("=") for line in lines)}


def enter(session: OpenSession, typed: str = "", **wishes: object) -> tuple[str, tuple[str, ...], int]:
    """What the command prints that a request asks for, what we are warned of, and the status; `typed` is its input."""
    root = users.find("root")
    wishes = {"argv": (), "caller": root, "user": root, "environment": {}, "working_directory": "/", **wishes}
    given, feed = os.pipe()
    said, say = os.pipe()
    os.write(feed, typed.encode())
    os.close(feed)
    try:
        with running.running(session.places, session.id, Request(**wishes), (given, say, 2)) as child:  # type: ignore[arg-type]
            os.close(say)
            with open(said, closefd=False) as answer:
                text = answer.read()
            return text, child.warnings, os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
    finally:
        for fd in (given, said, say):
            with suppress(OSError):
                os.close(fd)


def test_user_groups_home_and_shell_are_those_of_the_host(host_users: None, session: OpenSession) -> None:
    assert output(session, "id", "-u", user="builder") == "1234\n"
    assert output(session, "id", "-g", user="builder") == "1235\n"
    assert set(output(session, "id", "-G", user="builder").split()) == {"1235", "2001", "2002"}
    assert shell(session, "grep -E 'Uid|Gid' /proc/self/status", user="builder") == (
        "Uid:\t1234\t1234\t1234\t1234\nGid:\t1235\t1235\t1235\t1235\n"
    )
    found = environment(session, user="builder")
    assert [found[name] for name in ("HOME", "LOGNAME", "USER", "SHELL")] == [
        "/home/builder", "builder", "builder", "/bin/nosuch",
    ]  # fmt: skip
    assert found["PATH"] == "/usr/local/bin:/usr/bin:/bin"
    refused = session.run(["sh", "-c", "echo x >/etc/passwd"], user="builder", capture=True)
    assert b"Permission denied" in refused.stderr
    with pytest.raises(UnknownUser):
        session.run(["true"], user="nosuch")


def test_root_has_the_groups_of_the_process(session: OpenSession) -> None:
    before = os.getgroups()
    os.setgroups([0, 7, 8])
    try:
        assert set(output(session, "id", "-G").split()) == {"0", "7", "8"}
    finally:
        os.setgroups(before)


def test_the_environment_is_minimal(session: OpenSession) -> None:
    os.environ["UNWANTED"], os.environ["TERM"] = "x", "vt100"
    try:
        found = environment(session)
        del os.environ["TERM"]
        without = environment(session)
    finally:
        del os.environ["UNWANTED"]
    assert set(found) == {"HOME", "LOGNAME", "USER", "SHELL", "PATH", "TERM"} | SCHROOT
    assert set(without) == {"HOME", "LOGNAME", "USER", "SHELL", "PATH"} | SCHROOT
    assert found["PATH"] == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert found["TERM"] == "vt100"
    assert {name: found[name] for name in SCHROOT} == {
        "SCHROOT_ALIAS_NAME": "small", "SCHROOT_CHROOT_NAME": "tiny", "SCHROOT_COMMAND": "env", "SCHROOT_GID": "0",
        "SCHROOT_GROUP": "root", "SCHROOT_SESSION_ID": "one", "SCHROOT_UID": "0", "SCHROOT_USER": "root",
    }  # fmt: skip


def test_an_environment_that_is_given_is_preserved_and_filtered(session: OpenSession) -> None:
    hostile = {"LD_PRELOAD": "/x.so", "IFS": "x", "BASH_ENV": "/x", "LD_LIBRARY_PATH": "/x"}
    given = {"KEPT": "a\nb 'c' \"$(d)\"", "HOME": "/elsewhere", "PATH": "/evil", "EMPTY": "", **hostile}
    assert shell(session, "printf %s \"$KEPT\"; env | grep -cE '^(LD_|IFS|BASH_ENV|EMPTY)'; true", env=given) == (
        given["KEPT"] + "0\n"
    )
    found = environment(session, env={"HOME": "/elsewhere", "PATH": "/evil", "SCHROOT_USER": "forged"})
    assert (found["HOME"], found["SCHROOT_USER"]) == ("/elsewhere", "root")
    assert found["PATH"] == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def test_a_chroot_may_preserve_the_environment_and_has_a_filter_of_posix(world: World) -> None:
    world.define("tiny", preserve_environment=True, environment_filter="^[[:upper:]]+_SECRET$")
    with world.begin("tiny") as session:
        os.environ.update(MY_SECRET="x", MY_secret="y", SECRET="z")
        try:
            found = environment(session)
        finally:
            for name in ("MY_SECRET", "MY_secret", "SECRET"):
                del os.environ[name]
    assert ("MY_SECRET" in found, "MY_secret" in found, "SECRET" in found) == (False, True, True)


def test_a_command_prefix_goes_before_every_command(world: World) -> None:
    world.define("tiny", command_prefix=["env", "PREFIXED=yes"])
    with world.begin("tiny") as session:
        assert shell(session, "echo $PREFIXED $SCHROOT_COMMAND") == "yes sh -c echo $PREFIXED $SCHROOT_COMMAND\n"


def test_the_working_directory(session: OpenSession) -> None:
    assert shell(session, "pwd; readlink /proc/self/cwd; readlink /proc/self/root") == f"/\n{'/'}\n/\n"
    assert shell(session, "pwd", cwd="/var/tmp/../tmp") == "/var/tmp\n"
    shell(session, "mkdir -m 700 /closed; ln -s ../../../.. /var/out")
    assert shell(session, "ls -d bin", cwd="/var/out") == "bin\n"
    for directory, reason in {"/nosuch": "No such file or directory", "/etc/passwd": "Not a directory"}.items():
        with pytest.raises(CannotEnter, match=f"Failed to change to directory ‘{directory}’: {reason}") as error:
            session.run(["true"], cwd=directory)
        assert (error.value.what, error.value.status) == ("directory", 125)


def test_a_user_may_not_go_where_he_has_no_access(host_users: None, session: OpenSession) -> None:
    shell(session, "mkdir -m 700 /closed")
    with pytest.raises(CannotEnter, match="‘/closed’: Permission denied"):
        session.run(["true"], user="builder", cwd="/closed")


def test_a_login_shell_and_what_it_falls_back_to(host_users: None, session: OpenSession) -> None:
    show = 'echo "$0 $PWD $SHELL $HOME $SCHROOT_COMMAND"\n'
    assert enter(session, show, user=users.find("other"), working_directory="/var") == (
        "-sh /var /bin/sh /nosuch -sh\n", (), 0,
    )  # fmt: skip
    text, warnings, status = enter(session, show, user=users.find("builder"), working_directory="/nosuch")
    assert (text, status) == ("-sh /home/builder /bin/sh /home/builder -sh\n", 0)
    assert warnings == (
        "Failed to change to directory ‘/nosuch’: No such file or directory",
        "Falling back to directory ‘/home/builder’",
        "Shell ‘/bin/nosuch’ not available: /bin/nosuch: Failed to stat file: No such file or directory",
        "Shell ‘/bin/bash’ not available: /bin/bash: Failed to stat file: No such file or directory",
        "Falling back to shell ‘/bin/sh’",
    )
    text, warnings, _status = enter(session, show, user=users.find("other"), working_directory="/nosuch")
    assert text.startswith("-sh / /bin/sh /nosuch")
    assert warnings[-1] == "Falling back to directory ‘/’"


def test_a_shell_that_is_asked_for_is_taken_and_nothing_else(session: OpenSession) -> None:
    assert enter(session, "exit 3\n", shell="/bin/sh")[1:] == ((), 3)
    with pytest.raises(CommandNotFound, match="Failed to execute “/bin/nosuch”: No such file"):
        enter(session, shell="/bin/nosuch")
    text, warnings, _status = enter(
        session, "echo $0 $SHELL\n", preserve_environment=True, environment={"SHELL": "/bin/zsh"}
    )
    assert (text, warnings[-1]) == ("/bin/sh /bin/sh\n", "Falling back to shell ‘/bin/sh’")


def test_personality(world: World) -> None:
    profile = world.profile(fstab="proc /proc proc defaults\n")
    world.define("tiny", personality="linux32", profile=profile)
    expected = subprocess.run(["setarch", "linux32", "uname", "-m"], capture_output=True, text=True, check=True).stdout
    with world.begin("tiny") as session:
        assert output(session, "uname", "-m") == expected
        assert output(session, "cat", "/proc/self/personality") == "00000008\n"
    with open("/proc/self/personality") as ours:
        assert ours.read() == "00000000\n"


def test_umask_and_signals(session: OpenSession) -> None:
    before = os.umask(0o027)
    try:
        assert shell(session, "umask; touch /var/tmp/new; stat -c %a /var/tmp/new") == "0027\n640\n"
    finally:
        os.umask(before)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
    try:
        found = signal_masks(output(session, "cat", "/proc/self/status"))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    ignored = signal_masks(Path("/proc/self/status").read_text())[1]
    reset = sum(1 << (signum - 1) for signum in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT))
    assert found == (0, ignored & ~reset)


def signal_masks(status: str) -> tuple[int, int]:
    """The signals that a process blocks and ignores; those that the C library has for itself do not count."""
    lines = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Sig"))
    return int(lines["SigBlk"], 16) & 0x7FFFFFFF, int(lines["SigIgn"], 16) & 0x7FFFFFFF


def test_how_commands_end(session: OpenSession) -> None:
    assert [session.run(["sh", "-c", f"exit {status}"]).status for status in (0, 1, 125, 126, 127, 255)] == [
        0, 1, 125, 126, 127, 255,
    ]  # fmt: skip
    for signum in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        assert session.run(["sh", "-c", f"kill -{int(signum)} $$"]).status == 128 + signum
    with pytest.raises(CommandFailed) as error:
        session.run(["sh", "-c", "echo out; echo err >&2; exit 9"], check=True, capture=True)
    assert (error.value.result.status, error.value.result.stdout, error.value.result.stderr) == (9, b"out\n", b"err\n")


def test_what_cannot_be_executed(host_users: None, session: OpenSession) -> None:
    shell(
        session,
        "echo text >/bin/text; echo x >/bin/exec; chmod 755 /bin/exec; mkdir /bin/directory; cd /var/tmp;"
        "printf '#!/nosuch\\n' >/bin/lost; printf '#!/bin/sh\\necho here' >local; chmod 755 /bin/lost local;"
        "cp local /bin/closed; chmod 700 /bin/closed",
    )
    for command, error, status, reason in (
        ("nosuch", CommandNotFound, 127, "No such file or directory"),
        ("/bin/nosuch", CommandNotFound, 127, "No such file or directory"),
        ("/etc/passwd/x", CommandNotFound, 127, "Not a directory"),
        ("local", CommandNotFound, 127, "No such file or directory"),
        ("directory", CommandNotFound, 127, "No such file or directory"),
        ("/bin/lost", CommandNotFound, 127, "No such file or directory"),
        ("lost", CommandNotFound, 127, "No such file or directory"),
        ("text", CommandNotExecutable, 126, "Permission denied"),
        ("/bin", CommandNotExecutable, 126, "Permission denied"),
        ("exec", CommandNotExecutable, 126, "Exec format error"),
    ):
        with pytest.raises(error, match=f"Failed to execute “{command}”: {reason}") as raised:
            session.run([command], cwd="/var/tmp")
        assert raised.value.status == status
    with pytest.raises(CommandNotExecutable, match="“closed”: Permission denied"):
        session.run(["closed"], user="builder")
    assert output(session, "./local", cwd="/var/tmp") == "here\n"


@pytest.mark.parametrize(
    "how", [{"argv": ["a\0b"]}, {"cwd": "/a\0b"}, {"env": {"A=B": "x"}}, {"env": {"A": "\0"}}, {"env": {"": "x"}}]
)
def test_words_that_the_kernel_cannot_take(session: OpenSession, how: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"holds a NUL|is not the name of a variable"):
        session.run(**{"argv": ["true"], **how})  # type: ignore[arg-type]


def test_words_in_any_encoding_arrive_as_they_are(session: OpenSession) -> None:
    word = os.fsdecode(b"\xff\xfe \n\xc3\xa4")
    assert session.run(["printf", "%s", word], capture=True).stdout == os.fsencode(word)
    assert session.run(["sh", "-c", 'printf %s "$V"'], env={"V": word}, capture=True).stdout == os.fsencode(word)
