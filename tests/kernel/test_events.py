"""Events: a line for each thing that happens to sessions, whoever writes beside, and whatever becomes of the log."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import REPOSITORY, Fork, World, bind, fork, mount, output, umount

from sessions import events, following, lifecycle, store, upkeep
from sessions.engine import Settings
from sessions.errors import SetupFailed, SourceBusy, Stuck
from sessions.events import Event
from sessions.linux import proc
from sessions.sourcelock import Patience
from sessions.sweep import Sweep

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def told(world: World) -> list[dict[str, Any]]:
    """Every event in the log."""
    with following.Log(world.places) as log:
        return [json.loads(line) for line in log.lines()]


def kinds(world: World) -> list[str]:
    return [event["event"] for event in told(world)]


def common(event: dict[str, Any]) -> dict[str, Any]:
    """The fields of an event that are no times; those are looked at."""
    assert TIME.fullmatch(event.pop("time"))
    assert event.pop("boot") == proc.boot_id()
    for name in ("duration_s", "lasted_s"):
        if name in event:
            assert 0 <= event.pop(name) < 3600
            event[name] = ...
    return event


def of(session_id: str, chroot: str = "tiny") -> dict[str, Any]:
    return {"session": session_id, "chroot": chroot, "caller": "root", "user": "root", "pid": os.getpid()}


def test_begin_and_end(world: World) -> None:
    world.define("tiny")
    world.begin("tiny", name="one").end()
    begun, ended = told(world)
    assert begun["time"] <= ended["time"]
    assert ended["lasted_s"] >= ended["duration_s"]
    assert list(begun)[:3] == ["time", "event", "session"]
    assert common(begun) == {"event": "begin", **of("one"), "duration_s": ...}
    assert common(ended) == {"event": "end", **of("one"), "duration_s": ..., "lasted_s": ...}
    log = Path(world.places.events_dir, "log")
    assert (log.stat().st_mode & 0o7777, log.parent.stat().st_mode & 0o7777) == (0o600, 0o700)


def test_who_it_is_for(world: World) -> None:
    world.define("tiny")
    world.begin("tiny", name="one", user="nobody").end()
    assert {(event["caller"], event["user"]) for event in told(world)} == {("root", "nobody")}


def test_a_begin_that_fails(world: World) -> None:
    world.define("tiny")
    world.script("50own", "#!/bin/sh\n[ $1 = setup-stop ] || exit 3\n")
    with pytest.raises(SetupFailed) as caught:
        world.begin("tiny", name="one")
    (event,) = told(world)
    assert common(event) == {"event": "failure", **of("one"), "during": "begin", "error": str(caught.value)}


def test_an_end_that_is_stuck(world: World) -> None:
    world.define("tiny")
    script = world.script("50own", "#!/bin/sh\n[ $1 = setup-start ] || exit 3\n")
    session = world.begin("tiny", name="one")
    with pytest.raises(Stuck) as caught:
        session.end()
    _begun, event = told(world)
    assert common(event) == {"event": "failure", **of("one"), "during": "end", "error": str(caught.value)}
    script.unlink()
    session.end()
    assert kinds(world) == ["begin", "failure", "end"]


def test_rest_and_recovery(world: World) -> None:
    world.define("disk", union_overlay_storage="disk", union_overlay_directory=f"{world.base}/layers")
    session = world.begin("disk", name="one", persistent=True)
    lifecycle.rest(world.places, "one", Settings())
    lifecycle.recover(world.places, "one", Settings())
    rested, recovered = told(world)[1:]
    assert common(rested) == {"event": "rest", **of("one", "disk"), "duration_s": ...}
    assert common(recovered) == {"event": "recovery", **of("one", "disk"), "duration_s": ...}
    lifecycle.rest(world.places, "one", Settings())
    for path in Path(world.base, "layers").iterdir():
        path.rename(world.base / "moved")
    with pytest.raises(SetupFailed) as caught:
        lifecycle.recover(world.places, "one", Settings())
    failed = told(world)[-1]
    assert common(failed) == {"event": "failure", **of("one", "disk"), "during": "recover", "error": str(caught.value)}
    (world.base / "moved").rename(world.base / "layers/one")
    session.end()
    (world.base / "layers").rmdir()


def test_one_that_is_ended_instead_of_recovered(world: World) -> None:
    world.define("tiny")
    world.begin("tiny", name="one", persistent=True)
    boot = world.write("boot", "00000001-0000-4000-8000-000000000000\n")
    umount(f"{world.places.mount_dir}/one")
    bind(boot, proc.BOOT_ID)
    try:
        lifecycle.recover(world.places, "one", Settings())
        ended = told(world)[-1]
        assert (ended["event"], ended["boot"]) == ("end", boot.read_text().strip())
        assert ended["reason"] == "its layer was on a tmpfs, which the restart of the machine has emptied"
    finally:
        umount(proc.BOOT_ID)


@pytest.fixture
def holder(world: World) -> Iterator[Fork]:
    """A process that has a session of tiny until it is told to end it: nobody waits for who waits for him."""
    world.define("tiny")

    def hold(it: Fork) -> None:
        with world.begin("tiny", name="one"):
            it.tell("in")
            it.ask()

    started = fork(hold)
    assert started.ask() == "in"
    yield started
    assert started.wait() == 0


def test_a_wait_that_is_granted(world: World, holder: Fork) -> None:
    def ask(it: Fork) -> None:
        with world.begin("source:tiny", name="two", say=lambda letter, line: it.tell(line)):
            it.tell("in")

    asked = fork(ask)
    words = asked.ask()
    assert words.startswith("waiting for chroot tiny: session one (process ")
    waits = told(world)[-1]
    who = {"session": "two", "chroot": "source:tiny", "caller": "root", "kind": "source", "pid": asked.pid}
    assert common(waits) == {"event": "lock-wait", **who, "reason": words.removeprefix("waiting for chroot tiny: ")}
    holder.tell()
    assert asked.ask() == "in"
    assert asked.wait() == 0
    (over,) = [event for event in told(world) if event["event"] == "lock-wait-over"]
    assert common(over) == {"event": "lock-wait-over", **who, "outcome": "granted", "duration_s": ...}
    assert "failure" not in kinds(world)


def test_a_wait_that_takes_too_long(world: World) -> None:
    world.define("tiny")
    upkeep.lock(world.places, "tiny", "an upgrade", Patience())
    with pytest.raises(SourceBusy):
        world.begin("tiny", name="one", lock_timeout_s=0.0)
    upkeep.unlock(world.places, "tiny")
    waits, over, failed = told(world)
    assert (waits["event"], waits["kind"], waits["session"]) == ("lock-wait", "session", "one")
    assert re.fullmatch(r"maintenance by root since .* \(an upgrade\)", waits["reason"])
    assert (over["event"], over["outcome"]) == ("lock-wait-over", "timed-out")
    assert (failed["event"], failed["during"], failed["session"]) == ("failure", "begin", "one")


def test_a_wait_for_maintenance_that_is_interrupted(world: World, holder: Fork) -> None:
    asked = fork(lambda it: upkeep.lock(world.places, "tiny", "", Patience(say=lambda letter, line: it.tell(line))))
    assert asked.ask().startswith("waiting for chroot tiny")
    os.kill(asked.pid, signal.SIGTERM)
    assert asked.wait() == -signal.SIGTERM
    waits, over = told(world)[1:]
    who = {"chroot": "tiny", "caller": "root", "kind": "maintenance", "pid": asked.pid}
    assert common(waits).items() >= {"event": "lock-wait", **who}.items()
    assert common(over) == {"event": "lock-wait-over", **who, "outcome": "interrupted", "duration_s": ...}
    holder.tell()


def test_removals(world: World) -> None:
    """What gc takes away, one line each; and none for what it only would."""
    world.define("tiny")

    def die(it: Fork) -> None:
        world.begin("tiny", name="dead")
        os.kill(os.getpid(), signal.SIGKILL)

    assert fork(die).wait() == -signal.SIGKILL
    layer = Path(world.places.overlay_dir, "layer")
    layer.mkdir(parents=True)
    Path(world.places.lock_dir, "nobody").touch(mode=0o600)
    before = len(told(world))
    assert len(list(Sweep(world.places, Settings(), dry_run=True).all())) == 3
    assert len(told(world)) == before
    list(Sweep(world.places, Settings(), dry_run=False).all())
    ended, *removed = told(world)[before:]
    gone = {"event": "removal", "pid": os.getpid()}
    assert common(ended) == {
        "event": "end", **of("dead"), "reason": lifecycle.OWNER_IS_GONE, "duration_s": ..., "lasted_s": ...,
    }  # fmt: skip
    assert [common(event) for event in removed] == [
        {**gone, "kind": "session", "name": "dead", "reason": lifecycle.OWNER_IS_GONE},
        {**gone, "kind": "directory", "name": str(layer), "reason": "it has no session"},
        {**gone, "kind": "lock", "name": "nobody", "reason": "nobody holds it"},
    ]


def test_what_cannot_be_removed(world: World) -> None:
    store.prepare(world.places)
    layer = Path(world.places.overlay_dir, "layer")
    (layer / "mounted").mkdir(parents=True)
    mount("in the way", layer / "mounted", "tmpfs")
    (found,) = Sweep(world.places, Settings(), dry_run=False).all()
    umount(layer / "mounted")
    (event,) = told(world)
    error = found.outcome.removeprefix("left: ")
    failure = {"event": "failure", "during": "gc", "kind": "directory", "name": str(layer), "error": error}
    assert common(event) == {**failure, "pid": os.getpid()}
    list(Sweep(world.places, Settings(), dry_run=False).all())


def test_a_begin_ends_the_session_of_a_dead_process(world: World) -> None:
    world.define("tiny")

    def die(it: Fork) -> None:
        world.begin("tiny", name="dead")
        os.kill(os.getpid(), signal.SIGKILL)

    assert fork(die).wait() == -signal.SIGKILL
    world.begin("tiny", name="one").end()
    assert [(event["event"], event["session"], event.get("reason")) for event in told(world)] == [
        ("begin", "dead", None), ("end", "dead", lifecycle.OWNER_IS_GONE), ("begin", "one", None), ("end", "one", None),
    ]  # fmt: skip


WRITERS, LINES = 6, 400


def test_lines_of_many_who_write_at_once_are_whole(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is put aside many times meanwhile, by whoever comes to it; who follows misses no line."""
    monkeypatch.setattr(events, "LARGEST_LOG_BYTES", 64 << 10)

    def write(it: Fork) -> None:
        for number in range(LINES):
            if number % 20 == 0:
                it.tell(str(number))
                it.ask()
            events.tell(world.places, Event.REMOVAL, name=str(number), reason="x" * (number % 300))

    started = [fork(write) for _writer in range(WRITERS)]
    seen: list[tuple[int, int]] = []
    with following.Log(world.places) as log:
        for _round in range(LINES // 20):
            for writer in started:
                writer.ask()
            for writer in started:
                writer.tell()
            seen += [(event["pid"], int(event["name"])) for event in map(json.loads, log.lines())]
        assert [writer.wait() for writer in started] == [0] * WRITERS
        seen += [(event["pid"], int(event["name"])) for event in map(json.loads, log.lines())]
    for writer in started:
        assert sorted(number for pid, number in seen if pid == writer.pid) == list(range(LINES))
    assert sorted(os.listdir(world.places.events_dir)) == ["log", "log.1"]
    assert all(path.stat().st_size < 70 << 10 for path in Path(world.places.events_dir).iterdir())


def test_the_log_is_bounded(world: World) -> None:
    for _number in range(events.LARGEST_LOG_BYTES * 3 // 2000):
        events.tell(world.places, Event.FAILURE, error="x" * 5000)
    sizes = [path.stat().st_size for path in Path(world.places.events_dir).iterdir()]
    assert len(sizes) == 2
    assert all(size < events.LARGEST_LOG_BYTES + 4096 for size in sizes)
    assert sum(sizes) > events.LARGEST_LOG_BYTES


def test_what_is_said_cannot_make_lines_of_its_own(world: World) -> None:
    error = 'one\n{"event": "begin"}\ud800 \u2028 end\n'
    events.tell(world.places, Event.FAILURE, error=error)
    (event,) = told(world)
    assert event["error"] == " ".join(error.split())


# What can be wrong with the log, and what makes it so: none of it is anything to a session.
def _is_a_directory(directory: Path) -> None:
    (directory / "log").mkdir(parents=True)


def _is_a_link(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "log").symlink_to("elsewhere")


def _is_a_fifo(directory: Path) -> None:
    directory.mkdir(parents=True)
    os.mkfifo(directory / "log")


def _has_a_file_for_its_directory(directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.write_text("")


def _has_a_directory_of_others(directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.symlink_to("/nowhere")


@pytest.mark.parametrize(
    "spoil", [_is_a_directory, _is_a_link, _is_a_fifo, _has_a_file_for_its_directory, _has_a_directory_of_others]
)
def test_a_log_that_cannot_be_written_harms_no_session(world: World, spoil: Callable[[Path], None]) -> None:
    world.define("tiny")
    store.prepare(world.places)
    directory = Path(world.places.events_dir)
    spoil(directory)
    with world.begin("tiny", name="one") as session:
        assert output(session, "echo", "works") == "works\n"
    assert not (directory.parent / "elsewhere").exists()
    if directory.is_dir() and not directory.is_symlink():
        for path in directory.iterdir():
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        directory.rmdir()
    else:
        directory.unlink()


def test_a_full_log_loses_lines_and_nothing_else(world: World) -> None:
    world.define("tiny")
    store.prepare(world.places)
    directory = Path(world.places.events_dir)
    directory.mkdir(mode=0o700)
    mount("small", directory, "tmpfs", data="size=8k,mode=700")
    for number in range(100):
        events.tell(world.places, Event.REMOVAL, name=str(number), reason="x" * 200)
    with world.begin("tiny", name="one") as session:
        assert output(session, "echo", "works") == "works\n"
    (directory / "log.1").unlink()
    # There is room again, and what was torn spoils no other line.
    world.begin("tiny", name="two").end()
    with following.Log(world.places) as log:
        lines = list(log.lines())
    assert [json.loads(line)["session"] for line in lines[-2:]] == ["two", "two"]
    umount(directory)


@contextmanager
def listening(directory: str, name: str) -> Iterator[socket.socket]:
    """A socket where the system's log is listened for, in this test's mount namespace alone."""
    mount("log", directory, "tmpfs")
    try:
        path = Path(directory, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(path))
            listener.setblocking(False)
            yield listener
    finally:
        umount(directory)


def received(listener: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(listener.recv(65536).decode())
        except BlockingIOError:
            return found


def test_systemds_journal_gets_every_field(world: World) -> None:
    world.define("tiny")
    with listening("/run", "systemd/journal/socket") as listener:
        world.begin("tiny", name="one").end()
        events.tell(world.places, Event.FAILURE, during="end", error='two\nwords "quoted"', caller="jürgen")
        begun, ended, failed = received(listener)
    logged = told(world)
    for line, event in zip((begun, ended), logged[:2], strict=True):
        entry = dict(field.split("=", 1) for field in line.removesuffix("\n").split("\n"))
        fields = {f"SESSIONS_{name.upper()}": str(event[name]) for name in event if name not in ("time", "pid", "boot")}
        message = " ".join(f"{name}={event[name]}" for name in event if name not in ("time", "event", "pid", "boot"))
        assert entry == {
            **fields, "MESSAGE": f"{event['event']} {message}", "PRIORITY": "6", "SYSLOG_IDENTIFIER": "sessions",
            "SYSLOG_FACILITY": "3",
        }  # fmt: skip
    assert failed.split("\n") == [
        'MESSAGE=failure during=end error="two words \\"quoted\\"" caller="j\\u00fcrgen"', "PRIORITY=3",
        "SYSLOG_IDENTIFIER=sessions", "SYSLOG_FACILITY=3", "SESSIONS_EVENT=failure", "SESSIONS_DURING=end",
        'SESSIONS_ERROR=two words "quoted"', "SESSIONS_CALLER=jürgen", "",
    ]  # fmt: skip


def test_syslog_gets_a_line_where_there_is_no_journal(world: World) -> None:
    with listening("/dev", "log") as listener:
        events.tell(world.places, Event.BEGIN, session="one", chroot="tiny", duration_s=0.25)
        events.tell(world.places, Event.FAILURE, session="one", error="a\nb")
        begun, failed = received(listener)
    stamp = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"<30>{stamp} sessions\[{os.getpid()}\]: begin session=one chroot=tiny duration_s=0.25", begun)
    assert re.fullmatch(rf'<27>{stamp} sessions\[{os.getpid()}\]: failure session=one error="a b"', failed)


def test_a_system_log_that_nobody_reads_keeps_nobody_waiting(world: World) -> None:
    with listening("/run", "systemd/journal/socket") as listener:
        for number in range(2000):
            events.tell(world.places, Event.REMOVAL, name=str(number))
        assert 0 < len(received(listener)) < 2000
        listener.close()
        events.tell(world.places, Event.REMOVAL, name="last")
    assert [event["name"] for event in told(world)] == [*map(str, range(2000)), "last"]


@pytest.fixture
def argv(world: World) -> list[str]:
    """The command with this world's directories."""
    places = world.places
    options = ["--config-dir", places.native_config_dir, "--state-dir", places.state_dir]
    return [sys.executable, "-m", "sessions.cli.native", *options, "--runtime-dir", places.runtime_dir, "events"]


ENVIRONMENT = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)}


def test_the_command_prints_what_there_is(world: World, argv: list[str]) -> None:
    world.define("tiny")
    world.define("other")

    def printed(*words: str) -> list[str]:
        result = subprocess.run([*argv, *words], env=ENVIRONMENT, cwd="/", capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (0, "")
        return [f"{event['event']} {event['session']}" for event in map(json.loads, result.stdout.splitlines())]

    assert printed() == []
    world.begin("tiny", name="one").end()
    with open(f"{world.places.events_dir}/log", "a") as log:
        log.write('torn\n[]\n{"event":"no newline"}')
    Path(world.places.events_dir, "log").rename(f"{world.places.events_dir}/log.1")
    world.begin("other", name="two").end()
    assert printed() == ["begin one", "end one", "begin two", "end two"]
    assert printed("--session", "two") == ["begin two", "end two"]
    assert printed("--chroot", "tiny") == ["begin one", "end one"]
    assert printed("--session", "one", "--chroot", "other") == []


def test_events_are_roots(world: World, argv: list[str]) -> None:
    call = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *argv[:3], "events"]
    result = subprocess.run(call, env=ENVIRONMENT, cwd="/", capture_output=True, text=True)
    assert result.returncode == 125
    assert "root" in result.stderr and "Traceback" not in result.stderr


@pytest.fixture
def follower(argv: list[str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command that goes on."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, **how: Any) -> subprocess.Popen[str]:
        usual = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": "/", "env": ENVIRONMENT}
        started.append(subprocess.Popen([*argv, "--follow", *words], **{**usual, **how}))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_following_over_everything_that_can_become_of_the_log(
    world: World, follower: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(name: str) -> None:
        events.tell(world.places, Event.REMOVAL, name=name)

    def heard() -> str:
        return str(json.loads(following_it.stdout.readline())["name"])

    directory = Path(world.places.events_dir)
    tell("from before")
    following_it = follower()
    assert following_it.stdout is not None
    assert heard() == "from before"
    tell("from now")
    assert heard() == "from now"
    # Somebody has the log open while it is put aside, and is late.
    with open(directory / "log", "a") as late:
        monkeypatch.setattr(events, "LARGEST_LOG_BYTES", 1)
        for name in ("rotated", "again", "and again"):
            tell(name)
            assert heard() == name
            if name == "rotated":
                late.write('{"name":"late"}\n')
                late.flush()
                assert heard() == "late"
    monkeypatch.undo()
    (directory / "log").unlink()
    tell("after its removal")
    assert heard() == "after its removal"
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    tell("after the removal of its directory")
    assert heard() == "after the removal of its directory"
    following_it.terminate()
    assert (following_it.wait(60), following_it.stderr and following_it.stderr.read()) == (143, "")


def test_following_what_is_not_there_yet(world: World, follower: Callable[..., subprocess.Popen[str]]) -> None:
    world.define("tiny")
    following_it = follower("--session", "two")
    assert following_it.stdout is not None
    for name in ("one", "two"):
        world.begin("tiny", name=name).end()
    lines = [json.loads(following_it.stdout.readline()) for _line in range(2)]
    assert [(event["event"], event["session"]) for event in lines] == [("begin", "two"), ("end", "two")]
    following_it.send_signal(signal.SIGINT)
    assert following_it.wait(60) == 130


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM])
def test_a_signal_ends_it_though_nobody_reads(
    world: World, follower: Callable[..., subprocess.Popen[str]], signum: signal.Signals
) -> None:
    for _number in range(200):
        events.tell(world.places, Event.FAILURE, error="x" * 2000)
    following_it = follower()
    # What it has written until the pipe is full.
    assert following_it.stdout is not None
    following_it.stdout.buffer.peek(1)
    following_it.send_signal(signum)
    assert following_it.wait(60) == 128 + signum


def test_it_ends_when_its_reader_has_gone(world: World, follower: Callable[..., subprocess.Popen[str]]) -> None:
    """At once, and not only when there is something to say."""
    events.tell(world.places, Event.REMOVAL, name="one")
    following_it = follower()
    assert following_it.stdout is not None and following_it.stderr is not None
    following_it.stdout.readline()
    following_it.stdout.close()
    assert following_it.wait(60) == 125
    assert following_it.stderr.read() == ""


def test_a_signal_that_is_ignored_does_not_end_it(world: World, follower: Callable[..., subprocess.Popen[str]]) -> None:
    events.tell(world.places, Event.REMOVAL, name="one")
    following_it = follower(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert following_it.stdout is not None
    assert json.loads(following_it.stdout.readline())["name"] == "one"
    following_it.send_signal(signal.SIGHUP)
    events.tell(world.places, Event.REMOVAL, name="two")
    assert json.loads(following_it.stdout.readline())["name"] == "two"
    following_it.send_signal(signal.SIGTERM)
    assert following_it.wait(60) == 143
