"""Setup scripts of others: what they are given, in which order, and what becomes of a session when one fails."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from helpers import World, mounts, python, shell, snapshot

from sessions import environ, lifecycle, users
from sessions.data import replace
from sessions.engine import Settings
from sessions.errors import SessionsError, SetupFailed, StepFailed, Stuck
from sessions.linux import proc
from sessions.newsession import Wish

pytestmark = pytest.mark.usefixtures("read_only_host")
# Writes down all that it is given, then does what the test asks for.
RECORDER = """#!/bin/sh
cd /proc/$$ || exit 9
cat environ >{log}/{name}.$1.environ
{{ readlink cwd fd/0; grep -c '^Umask:.0022$' status; echo "$*"; ls -l fd; }} >{log}/{name}.$1.given
echo "{name} $*" >>{log}/order
{then}
"""


@pytest.fixture
def log(world: World) -> Path:
    directory = world.base / "log"
    directory.mkdir()
    return directory


def recorder(world: World, log: Path, name: str, then: str = "", **how: object) -> Path:
    return world.script(name, RECORDER.format(log=log, name=name, then=then), **how)  # type: ignore[arg-type]


def order(log: Path) -> list[str]:
    return (log / "order").read_text().splitlines()


def recorded(log: Path, name: str, stage: str) -> dict[str, str]:
    data = (log / f"{name}.{stage}.environ").read_bytes().decode()
    return dict(pair.split("=", 1) for pair in data.removesuffix("\0").split("\0"))


def test_order_and_arguments(world: World, log: Path) -> None:
    world.define("tiny")
    ask = 'test -x "$CHROOT_PATH/bin/busybox" && echo " mounted" >>{0}/order; test -e "$CHROOT_PATH/etc/debian_chroot"'
    ask = (ask + ' && echo " named" >>{0}/order; :').format(log)
    recorder(world, log, "99last", ask)
    recorder(world, log, "01first", ask, directory="schroot/setup.d")
    recorder(world, log, "30middle", ask)
    with world.begin("tiny", name="one"):
        assert order(log) == [
            "01first setup-start ok", "30middle setup-start ok", " mounted",
            "99last setup-start ok", " mounted", " named",
        ]  # fmt: skip
        lifecycle.recover(world.places, "one", Settings())
        assert [line for line in order(log)[6:] if "setup" in line] == [
            "01first setup-recover ok", "30middle setup-recover ok", "99last setup-recover ok",
        ]  # fmt: skip
        (log / "order").unlink()
    assert order(log) == [
        "99last setup-stop ok", " mounted", " named", "30middle setup-stop ok", " mounted", " named",
        "01first setup-stop ok",
    ]  # fmt: skip


def test_what_a_script_is_given(world: World, log: Path) -> None:
    """S4 and schroot-setup(5): the environment is all of environ.for_scripts and nothing else, and so on."""
    world.define("tiny", description="A chroot", custom=None)
    path = recorder(world, log, "30own")
    inherited = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(inherited, True)
    os.environ["LEAKED"] = "x"
    umask = os.umask(0o077)
    os.chdir(world.base)
    try:
        with world.begin("tiny", name="one") as session:
            expected = environ.for_scripts(session.session, "setup-start")
    finally:
        os.umask(umask)
        os.close(inherited)
        del os.environ["LEAKED"]
    found = recorded(log, "30own", "setup-start")
    assert {name: value for name, value in found.items() if name != "PID"} == {
        name: value for name, value in expected.items() if name != "PID"
    }
    assert found["PID"] == str(os.getpid())
    assert (found["CHROOT_DESCRIPTION"], found["CHROOT_TYPE"]) == ("A chroot (session chroot)", "directory")
    for stage in ("setup-start", "setup-stop"):
        cwd, stdin, umask_found, arguments, _total, *descriptors = (
            (log / f"30own.{stage}.given").read_text().splitlines()
        )
        assert (stdin, umask_found, arguments) == ("/dev/null", "1", f"{stage} ok")
        assert cwd == f"/proc/{cwd.split('/')[2]}"
        opened = [line.split(" -> ")[1] for line in descriptors]
        assert sorted(where.split(":")[0] for where in opened if where != str(path)) == [
            "/dev/null", str(log / f"30own.{stage}.given"), "pipe", "pipe",
        ]  # fmt: skip


def test_its_directory_is_the_root(world: World, log: Path) -> None:
    world.define("tiny")
    world.script("30own", f"#!/bin/sh\npwd >{log}/directory\n")
    os.chdir(world.base)
    with world.begin("tiny"):
        assert (log / "directory").read_text() == "/\n"


def test_values_of_every_kind_arrive_as_they_are(world: World, log: Path) -> None:
    """S20: values go through the environment, never through a shell."""
    world.define("tiny")
    recorder(world, log, "30own")
    hostile = f"line\nnext 'a' \"b\" $(touch {log}/ran) `touch {log}/ran` ; touch {log}/ran; \\ \t ü %s \x01 =x"
    chroot, selected = lifecycle.find_chroot(lifecycle.load(world.places), "tiny", with_host=False)
    chroot = replace(chroot, description=hostile, custom=(("acme.other-value", "$HOME"), ("acme.value", hostile)))
    root = users.find("root")
    lifecycle.begin(world.places, chroot, selected, Wish(root, root, "one"), Settings())
    lifecycle.end(world.places, "one", Settings())
    for stage in ("setup-start", "setup-stop"):
        found = recorded(log, "30own", stage)
        assert found["ACME_VALUE"] == hostile
        assert found["ACME_OTHER_VALUE"] == "$HOME"
        assert found["CHROOT_DESCRIPTION"] == f"{hostile} (session chroot)"
    assert not (log / "ran").exists()


@pytest.mark.parametrize("kind", [{"union_type": "none"}, {}, {"union_overlay_storage": "disk"}])
def test_a_script_that_fails_undoes_everything(world: World, log: Path, kind: dict[str, object]) -> None:
    world.define("tiny", profile=world.profile(fstab="tmpfs /made/for/it tmpfs defaults\n"), **kind)
    recorder(world, log, "01first")
    recorder(world, log, "30fails", 'test "$1" = setup-stop || { echo "that is why" >&2; exit 3; }')
    recorder(world, log, "99never")
    before = mounts()
    said: list[tuple[str, str]] = []
    with pytest.raises(SetupFailed, match=r"30fails exited with status 3; see what it said, or run .*/30fails by hand"):
        world.begin("tiny", say=lambda letter, line: said.append((letter, line)))
    assert order(log) == [
        "01first setup-start ok", "30fails setup-start ok",
        "99never setup-stop fail", "30fails setup-stop fail", "01first setup-stop fail",
    ]  # fmt: skip
    assert mounts() == before
    assert not (world.root / "made").exists()
    assert ("E", "30fails: that is why") in said


def test_a_script_that_cannot_be_taken_back_is_named_and_the_rest_goes_on(world: World, log: Path) -> None:
    world.define("tiny")
    recorder(world, log, "01first")
    recorder(world, log, "30stuck", f'test "$1" != setup-stop || test -e {log}/mended')
    before = mounts()
    session = world.begin("tiny", name="one")
    with pytest.raises(Stuck, match=r"run .*/30stuck: 30stuck exited with status 1; .* sessions end one"):
        session.end()
    assert mounts() == before
    assert order(log)[-1] == "01first setup-stop ok"
    (log / "mended").touch()
    session.end()
    assert order(log)[-1] == "30stuck setup-stop ok"


def test_force_gives_a_script_up_and_one_that_is_gone_counts_as_undone(world: World, log: Path) -> None:
    world.define("tiny")
    said: list[str] = []
    for name in ("one", "two"):
        path = recorder(world, log, "30stuck", 'test "$1" != setup-stop')
        session = world.begin("tiny", name=name, say=lambda _letter, line: said.append(line))
        if name == "two":
            path.unlink()
        session.end(force=name == "one")
    assert any("given up, as --force asks" in line for line in said)
    assert said[-1] == f"{path} is gone: what it set up is left as it is"


def test_every_line_is_passed_on(world: World) -> None:
    world.define("tiny")
    world.script("30own", "#!/bin/sh\ntest $1 = setup-stop || printf 'one\\n\\n\\377two\\nlast'; printf 'bad' >&2\n")
    said: list[tuple[str, str]] = []
    with world.begin("tiny", say=lambda letter, line: said.append((letter, line))):
        assert [line for letter, line in said if letter == "I"] == [
            "30own: one", "30own: ", "30own: \ufffdtwo", "30own: last",
        ]  # fmt: skip
        assert [line for letter, line in said if letter == "E"] == ["30own: bad"]


def test_a_script_that_floods(world: World) -> None:
    """Many lines and one endless line arrive whole; a child that keeps the pipe open is not waited for."""
    world.define("tiny")
    body = "yes line | head -n 100000; head -c 3000000 /dev/zero | tr '\\000' x; sleep 4321 & echo $! >$0.pid"
    stop = "test $1 != setup-stop || { kill $(cat $0.pid); exit; }"
    world.script("30own", f"#!/bin/sh\n{stop}\n{body}\n")
    lines = longest = letters = 0

    def say(_letter: str, line: str) -> None:
        nonlocal lines, longest, letters
        lines += line == "30own: line"
        longest, letters = max(longest, len(line)), letters + line.count("x")

    with world.begin("tiny", say=say):
        assert (lines, letters) == (100000, 3000000)
        assert longest < 200_000


def test_a_daemon_that_a_script_has_started_is_there_when_it_is_to_be_stopped(world: World, log: Path) -> None:
    world.define("tiny")
    start = f"test $1 != setup-start || {{ sleep 4321 >/dev/null 2>&1 & echo $! >{log}/pid; }}"
    world.script("30daemon", f"#!/bin/sh\n{start}\ntest $1 != setup-stop || "
                 f"{{ grep -q 4321 /proc/$(cat {log}/pid)/cmdline && kill $(cat {log}/pid); }}\n")  # fmt: skip
    with world.begin("tiny"):
        assert Path(f"/proc/{(log / 'pid').read_text().strip()}").exists()


@pytest.mark.parametrize("mode", [0o757, 0o777])
def test_a_script_that_others_can_write_to_is_refused(world: World, mode: int) -> None:
    world.define("tiny")
    path = world.script("30own", "#!/bin/sh\n", mode=mode)
    before = snapshot(world.root), mounts()
    for owner in (0, 1234):
        os.chown(path, owner, 0)
        path.chmod(0o755 if owner else mode)
        with pytest.raises(SessionsError, match=f"setup script {path} can be written to by others.*chown root {path}"):
            world.begin("tiny")
    assert (snapshot(world.root), mounts()) == before


@pytest.mark.parametrize("directory", ["native/setup.d", "schroot/setup.d"])
def test_what_cannot_be_run_is_refused_before_anything_is_done(world: World, log: Path, directory: str) -> None:
    """schroot comes to it, fails, and leaves what the scripts before it have set up."""
    world.define("tiny")
    recorder(world, log, "01first")
    before = snapshot(world.root), mounts()
    path = recorder(world, log, "30own", mode=0o644, directory=directory)
    with pytest.raises(StepFailed, match=f"setup script {path} is not executable; chmod \\+x {path}, or remove it"):
        world.begin("tiny")
    path.unlink()
    path.mkdir()
    with pytest.raises(StepFailed, match=f"setup script {path} is not a regular file"):
        world.begin("tiny")
    path.rmdir()
    path.symlink_to("nosuch")
    with pytest.raises(StepFailed, match=f"setup script {path}: No such file or directory; mend or remove it"):
        world.begin("tiny")
    path.unlink()
    assert (snapshot(world.root), mounts()) == before
    assert not (log / "order").exists()


def test_an_interpreter_that_is_missing_fails(world: World) -> None:
    world.define("tiny")
    path = world.script("30own", "#!/nosuch/interpreter\n")
    with pytest.raises(SetupFailed, match=f"run {path}: No such file or directory"):
        world.begin("tiny", name="one")
    path.unlink()
    lifecycle.end(world.places, "one", Settings())


def test_own_scripts_override_and_mask_stock_ones_and_schroots_do_not(world: World, log: Path) -> None:
    world.define("tiny")
    recorder(world, log, "50chrootname")
    (Path(world.places.native_config_dir) / "setup.d/20copyfiles").symlink_to("/dev/null")
    recorder(world, log, "05union", directory="schroot/setup.d")
    with world.begin("tiny") as session:
        assert not Path(session.location, "etc/debian_chroot").exists()
    assert order(log) == ["50chrootname setup-start ok", "50chrootname setup-stop ok"]
    (Path(world.places.native_config_dir) / "setup.d/15killprocs").symlink_to("/dev/null")
    with world.begin("tiny") as session:
        shell(session, "sleep 4321 >/dev/null 2>&1 &")


def test_an_own_script_may_plan(world: World) -> None:
    world.define("tiny")
    words = "from sessions.script import WriteFile\n\n\ndef plan(session):\n"
    world.script("60own", f"#!/usr/bin/python3\n# sessions-script: 1\n{words}"
                 "    yield WriteFile(session.path, True, '/etc/planned', session.id)\n")  # fmt: skip
    with world.begin("tiny", name="one") as session:
        assert shell(session, "cat /etc/planned") == "one"
    world.script("60own", "#!/usr/bin/python3\n# sessions-script: 1\n1 / 0\n")
    with pytest.raises(StepFailed, match=r"60own cannot be loaded: ZeroDivisionError.*mend or mask it"):
        world.begin("tiny")


def test_names_that_run_parts_does_not_take_are_ignored(world: World, log: Path) -> None:
    world.define("tiny")
    taken = ("17a", "17-d", "17n.o-p", "_17i-j")
    for name in (*taken, "17_b", "17.c", "17a~", "17E", ".17f", "17g.sh", "17k-l.m", "17x.dpkg-new", "17-a.dpkg-old"):
        recorder(world, log, name)
    with world.begin("tiny"):
        assert order(log) == [f"{name} setup-start ok" for name in sorted(taken)]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("deaf", [False, True])
def test_a_signal_ends_a_begin_that_hangs_in_a_script(world: World, log: Path, signum: int, deaf: bool) -> None:
    world.define("tiny")
    hang = ("trap '' TERM INT; " if deaf else "") + "sleep 4321 & sleep 4321"
    recorder(world, log, "30hangs", f'test "$1" = setup-stop || {{ echo hanging; {hang}; }}')
    recorder(world, log, "31never")
    before = mounts()
    code = "sessions.begin('tiny', places=places, say=lambda letter, line: print(line, flush=True))"
    beginner = python(world, code, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert beginner.stdout is not None
    assert beginner.stdout.readline() == b"30hangs: hanging\n"
    beginner.send_signal(signum)
    beginner.communicate(timeout=60)
    assert beginner.returncode == -signum
    assert order(log) == ["30hangs setup-start ok", "31never setup-stop fail", "30hangs setup-stop fail"]
    assert mounts() == before


def test_a_script_that_takes_too_long_is_ended(world: World, log: Path) -> None:
    world.define("tiny")
    recorder(world, log, "30hangs", 'test "$1" = setup-stop || sleep 4321')
    root = users.find("root")
    chroot, selected = lifecycle.find_chroot(lifecycle.load(world.places), "tiny", with_host=False)
    with pytest.raises(SetupFailed, match=r"30hangs setup-start took longer than 0\.2 seconds and was ended"):
        lifecycle.begin(world.places, chroot, selected, Wish(root, root, "one"), Settings(script_timeout_s=0.2))


@pytest.mark.parametrize("is_ours", [True, False])
def test_who_has_a_dead_script_s_number_is_not_ended_for_it(is_ours: bool) -> None:
    """Numbers are used again: a daemon whose starter is gone stays in a session of that number, as a script's does."""
    variable = "SESSION_ID=one"
    shell_script = "trap '' HUP; sleep 4321 >/dev/null 2>&1 & echo $!"
    environment = {"PATH": os.environ["PATH"], "SESSION_ID": "one" if is_ours else "one-more"}
    leader = subprocess.Popen(
        ["sh", "-c", shell_script], env=environment, stdout=subprocess.PIPE, start_new_session=True
    )
    daemon = int(leader.communicate()[0])
    try:
        proc.kill_script(leader.pid, 12345, variable)
        assert (proc.start_ticks(daemon) is None) is is_ours
    finally:
        if not is_ours:
            os.kill(daemon, signal.SIGKILL)


def test_a_time_limit_may_be_longer_than_the_kernel_waits_at_once(world: World, log: Path) -> None:
    world.define("tiny")
    recorder(world, log, "30quick")
    root = users.find("root")
    configuration = lifecycle.load(world.places)
    chroot, selected = lifecycle.find_chroot(configuration, "tiny", with_host=False)
    lifecycle.begin(world.places, chroot, selected, Wish(root, root, "one"), Settings(script_timeout_s=1e12))
    lifecycle.end(world.places, "one", Settings(script_timeout_s=1e12))
