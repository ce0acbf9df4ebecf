"""Signals and faults while a session is begun, used and ended: the status that is documented, and nothing left.

Who is killed cannot take anything back: then `sessions gc`, and nothing but that, does.
"""

from __future__ import annotations

import ast
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from helpers import REPOSITORY, Fork, World, fork, mounts

import sessions
from sessions import store
from sessions.errors import SetupFailed, Stuck

pytestmark = pytest.mark.usefixtures("read_only_host")

# Waits once, at a stage that it is asked to wait at, and says who it is and who has started it.
WAIT = """#!/bin/sh
if [ -e {base}/wait-$1 ]; then
    rm {base}/wait-$1
    echo $$ $PPID >{base}/waits
    read word <{base}/go
fi
"""
# The shell of busybox would ignore QUIT.
INSIDE = ("sh", "-c", "trap 'exit 131' QUIT; echo $$ $PPID; read word")
STAGES = {"setting up": "setup-start", "taking down": "setup-stop"}


@pytest.fixture
def argv(world: World) -> list[str]:
    """The native command, in this world, where a script waits if it is asked to."""
    world.define("tiny")
    world.script("60wait", WAIT.format(base=world.base))
    for name in ("waits", "go"):
        os.mkfifo(world.base / name)
    places = world.places
    options = ["--config-dir", places.native_config_dir, "--state-dir", places.state_dir]
    return [sys.executable, "-m", "sessions.cli.native", *options, "--runtime-dir", places.runtime_dir]


def environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)}


def call(argv: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*argv, *words], env=environment(), cwd="/", capture_output=True, text=True, timeout=60)


@dataclass
class Running:
    """A command that has come to where it waits: for whom, and who it is itself."""

    process: subprocess.Popen[str]
    waiting_pid: int
    command_pid: int
    has_caller: bool

    def status(self) -> int:
        """How the command ended, as a shell tells it."""
        if not self.has_caller:
            status = self.process.wait(60)
        else:
            # Its caller was killed, and we are who gets orphans.
            assert self.process.wait(60) < 0
            status = os.waitstatus_to_exitcode(os.waitpid(self.command_pid, 0)[1])
        return 128 - status if status < 0 else status

    def complaint(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()


@pytest.fixture
def start(world: World, argv: list[str]) -> Iterator[Callable[..., Running]]:
    """Starts a command, leading a process group of its own, and waits until it has come to a moment."""
    started: list[subprocess.Popen[str]] = []

    def run(operation: str, moment: str, *, by_caller: bool = False) -> Running:
        if operation == "end":
            world.begin("tiny", name="one", persistent=True)
        if moment in STAGES:
            (world.base / f"wait-{STAGES[moment]}").touch()
        inside = INSIDE if moment == "inside" else ("true",)
        words = {
            "begin": ["begin", "tiny", "--name", "one"],
            "run": ["run", "tiny", "--", *inside],
            "end": ["end", "one"],
        }[operation]
        caller = ["sh", "-c", '"$@"; exit $?', "sh"] if by_caller else []
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(
            [*caller, *argv, *words], env=environment(), cwd="/", text=True, start_new_session=True, **pipes
        )
        started.append(process)
        assert process.stdout is not None
        said = process.stdout.readline() if moment == "inside" else (world.base / "waits").read_text()
        waiting_pid, command_pid = map(int, said.split())
        return Running(process, waiting_pid, command_pid, by_caller)

    yield run
    for process in started:
        if process.poll() is None:  # after a failure
            process.kill()
        process.communicate()


def go_on(world: World, running: Running, moment: str) -> None:
    """Let what waits come to its end."""
    if moment == "inside":
        assert running.process.stdin is not None
        running.process.stdin.write("go\n")
        running.process.stdin.flush()
    else:
        (world.base / "go").write_text("go\n")


def gc(argv: list[str]) -> None:
    swept = call(argv, "gc")
    assert swept.returncode == 0, swept


MOMENTS = [
    ("begin", "setting up"), ("run", "setting up"), ("run", "inside"), ("run", "taking down"), ("end", "taking down"),
]  # fmt: skip
STOPPING = ["INT", "TERM", "HUP", "QUIT"]


@pytest.mark.parametrize("whom", ["command", "group"])
@pytest.mark.parametrize("name", STOPPING)
@pytest.mark.parametrize(("operation", "moment"), MOMENTS)
def test_a_signal_that_asks_to_stop(
    world: World, start: Callable[..., Running], operation: str, moment: str, name: str, whom: str
) -> None:
    """What was done is taken back, what is being taken back is gone on with, and what runs inside gets the signal."""
    before = mounts()
    running = start(operation, moment)
    signum = getattr(signal, f"SIG{name}")
    if whom == "group":
        os.killpg(running.process.pid, signum)
    else:
        running.process.send_signal(signum)
    if moment == "taking down":
        go_on(world, running, moment)
    assert running.status() == 128 + signum
    # A begin says what has kept it; where a command is over, or a session ended, all is said by the status.
    complaint = running.complaint()
    assert (f"SIG{name}" in complaint) is (moment == "setting up"), complaint
    assert "Traceback" not in complaint
    assert world.leftovers() == []
    assert mounts() == before


@pytest.mark.parametrize("whom", ["command", "group"])
@pytest.mark.parametrize(("operation", "moment"), MOMENTS)
def test_killed(
    world: World, argv: list[str], start: Callable[..., Running], operation: str, moment: str, whom: str
) -> None:
    before = mounts()
    running = start(operation, moment)
    waiting = os.pidfd_open(running.waiting_pid)
    if whom == "group":
        os.killpg(running.process.pid, signal.SIGKILL)
    else:
        running.process.kill()
    assert running.status() == 137
    gc(argv)
    # The script dies with the command, and what runs inside with the session.
    assert select.select([waiting], [], [], 60)[0]
    os.close(waiting)
    assert world.leftovers() == []
    assert mounts() == before


@pytest.mark.parametrize("name", ["INT", "TERM", "KILL"])
@pytest.mark.parametrize(("operation", "moment"), MOMENTS)
def test_the_script_or_the_command_inside_gets_it(
    world: World, argv: list[str], start: Callable[..., Running], operation: str, moment: str, name: str
) -> None:
    """A script that dies fails the begin, which takes all back; in an end it is stuck, and a sweep asks it again."""
    before = mounts()
    running = start(operation, moment)
    signum = getattr(signal, f"SIG{name}")
    os.kill(running.waiting_pid, signum)
    if moment == "inside":
        assert running.status() == 128 + signum
    else:
        assert running.status() == 125
        complaint = running.complaint()
        assert f"60wait was killed by SIG{name}" in complaint
        assert complaint.count("sessions: ") == 1
    if moment == "taking down":
        assert [entry.id == "one" or entry.id.startswith("tiny-") for entry in store.entries(world.places)] == [True]
        gc(argv)
    assert world.leftovers() == []
    assert mounts() == before


@pytest.mark.parametrize("name", ["HUP", "KILL"])
@pytest.mark.parametrize(("operation", "moment"), MOMENTS)
def test_the_caller_dies(world: World, start: Callable[..., Running], operation: str, moment: str, name: str) -> None:
    """The command goes on: it is the command's own process that a session belongs to."""
    before = mounts()
    running = start(operation, moment, by_caller=True)
    running.process.send_signal(getattr(signal, f"SIG{name}"))
    go_on(world, running, moment)
    assert running.status() == 0
    if operation == "begin":
        sessions.open_session("one", places=world.places).end()
    assert world.leftovers() == []
    assert mounts() == before


# What a script may do of all that nobody wants.
UNRULY = {
    "hangs": "sleep 4321 & sleep 4321",
    "is deaf": "trap '' TERM INT HUP QUIT; while :; do sleep 4321; done",
    "closes its pipes and hangs": "exec >&- 2>&-; sleep 4321",
    "floods and hangs": "yes flood & yes flood >&2",
    "stops itself": "kill -STOP $$",
}


@pytest.mark.parametrize("stage", ["setup-start", "setup-recover", "setup-stop"])
@pytest.mark.parametrize("how", UNRULY)
def test_a_script_that_takes_too_long_in_any_stage(world: World, argv: list[str], stage: str, how: str) -> None:
    """It is ended with all that it has started, and named with its stage; the sweep asks it again."""
    script = world.script("60unruly", f'#!/bin/sh\n[ "$1" != {stage} ] || {{ {UNRULY[how]}; }}\n')
    before = mounts()
    if stage != "setup-start":
        world.begin("tiny", name="one", persistent=True)
    words = {
        "setup-start": ["begin", "tiny", "--name", "one"],
        "setup-recover": ["recover", "one"],
        "setup-stop": ["end", "one"],
    }[stage]
    with (world.base / "said").open("w+b") as said:
        process = subprocess.Popen(
            [*argv, words[0], "--script-timeout", "0.5", *words[1:]], env=environment(), stdout=said, stderr=said
        )
        assert process.wait(60) == 125
        said.seek(max(0, said.seek(0, os.SEEK_END) - 4096))
        last = said.read().decode().splitlines()[-1]
    assert f"60unruly {stage} took longer than 0.5 seconds and was ended" in last
    script.write_text("#!/bin/sh\n")
    if stage == "setup-recover":
        sessions.open_session("one", places=world.places).end()
    gc(argv)
    assert world.leftovers() == []
    assert mounts() == before


def test_a_script_that_closes_its_pipes_is_waited_for(world: World) -> None:
    world.define("tiny")
    world.script("60closes", "#!/bin/sh\nexec >&- 2>&-\n[ $1 = setup-stop ] || { sleep 0.2; exit 7; }\n")
    with pytest.raises(SetupFailed, match="60closes exited with status 7"):
        world.begin("tiny")


# What a command may leave running inside; each says when it is there.
LEFT_INSIDE = {
    "ignores TERM": "sh -c 'trap \"\" TERM INT HUP; echo there; while :; do sleep 4321; done' &",
    "forks in a loop": "sh -c 'echo there; while :; do sleep 0.01 & done' 2>/dev/null &",
    "holds a directory": "sh -c 'cd /tmp; echo there; exec sleep 4321' &",
    "holds a file": "sh -c 'exec 9>/tmp/held; echo there; exec sleep 4321' &",
    "has mounted something": "mount -t tmpfs own /tmp && sh -c 'cd /tmp; echo there; exec sleep 4321' &",
    "has mounts of its own": "busybox unshare -m sh -c 'mount -t tmpfs own /tmp; echo there; exec sleep 4321' &",
    "lives in a deeper chroot": (
        "mkdir -p /deeper/bin; cp /bin/busybox /deeper/bin/sh; cp /bin/busybox /deeper/bin/sleep; "
        "busybox chroot /deeper /bin/sh -c 'echo there; exec sleep 4321' &"
    ),
    "has stopped": "sh -c 'echo there; kill -STOP $$' &",
}


@pytest.mark.parametrize("kind", [{"union_type": "none"}, {"union_overlay_storage": "disk"}], ids=["plain", "overlay"])
@pytest.mark.parametrize("what", LEFT_INSIDE)
def test_what_is_left_inside_ends_with_the_session(
    world: World, argv: list[str], what: str, kind: dict[str, object]
) -> None:
    before = mounts()
    world.define("tiny", **kind)
    # A pipe of its own tells that it is there: the command would be waited for as long as its output is open.
    os.mkfifo(world.root / "there")
    command = f"exec 8<>/there; {{ {LEFT_INSIDE[what]} }} >&8; read there <&8"
    outcome = call(argv, "run", "tiny", "--", "sh", "-c", command)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert world.leftovers() == []
    assert mounts() == before


def test_the_sweep_ends_a_session_as_soon_as_who_stands_in_it_from_outside_is_gone(
    world: World, argv: list[str]
) -> None:
    session = world.begin("tiny", name="one", persistent=True)
    outside = subprocess.Popen(["sleep", "4321"], cwd=session.location)
    try:
        with pytest.raises(Stuck, match=rf"held by {outside.pid} \(sleep 4321\)"):
            session.end()
        swept = call(argv, "gc")
        assert swept.returncode == 125
        assert f"held by {outside.pid} (sleep 4321)" in swept.stdout
    finally:
        outside.kill()
        outside.wait()
    gc(argv)


JUMP_S = 10_000_000
ELSEWHEN = ("unshare", "--time", f"--monotonic={JUMP_S}", f"--boottime={JUMP_S}", "--fork")


def test_a_clock_that_differs_proves_nobody_dead(world: World, argv: list[str]) -> None:
    """In another time namespace processes have started at other times: what is alive is not taken for dead there."""

    def hold(it: Fork) -> None:
        with world.begin("tiny", name="held"):
            it.tell("up")
            it.ask()

    holder = fork(hold)
    assert holder.ask() == "up"
    (entry,) = store.entries(world.places)
    code = f"from sessions import owners; print(owners.may_be_gone({entry.owner_mark!r}, owners.realm()))"
    seen = subprocess.run([*ELSEWHEN, sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert seen.stdout == "True\n"  # its mark alone cannot tell
    for words in (["gc"], ["run", "tiny", "--", "true"], ["gc"]):
        outcome = call([*ELSEWHEN, *argv], *words)
        assert (outcome.returncode, outcome.stdout) == (0, ""), outcome
        assert [entry.id for entry in store.entries(world.places)] == ["held"]
    os.kill(holder.pid, signal.SIGKILL)
    assert holder.wait() == -signal.SIGKILL
    # Not even now: the number could be another's.
    assert call([*ELSEWHEN, *argv], "gc").stdout == ""
    gc(argv)
    assert store.entries(world.places) == []


def test_time_limits_hold_where_the_clock_differs(world: World, argv: list[str]) -> None:
    world.script("60hangs", "#!/bin/sh\n[ $1 = setup-stop ] || sleep 4321\n")
    outcome = call([*ELSEWHEN, *argv], "run", "--script-timeout", "0.3", "tiny", "--", "true")
    assert outcome.returncode == 125
    assert "60hangs setup-start took longer than 0.3 seconds" in outcome.stderr


# Where the time of day is asked for: when something was made, or how old it is, for people to read; where a sweep
# begins to look; whether a file is so fresh that one more change of it might not show, when it is read again; and how
# long ago an unpacked archive was used, which decides no more than whether it is to be unpacked again.
TIME_OF_DAY = {
    "newsession.py": "new_session", "waiters.py": "register _maintenance_record", "lifecycle.py": "_sweep _down",
    "config/read.py": "read_trusted_again", "config/load.py": "_load", "events.py": "tell",
    "archiveidentity.py": "find complete_record", "steps/cached.py": "_record", "eviction.py": "keep _why_not_wanted",
}  # fmt: skip


def test_no_decision_is_made_by_the_time_of_day() -> None:
    """A clock that is set, forth or back, changes nothing that is done: limits are measured by the monotonic clock."""
    found: dict[str, set[str]] = {}
    top = REPOSITORY / "sessions"
    for path in sorted(top.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and any(map(_asks_the_time_of_day, ast.walk(function))):
                found.setdefault(str(path.relative_to(top)), set()).add(function.name)
    assert found == {path: set(names.split()) for path, names in TIME_OF_DAY.items()}


def _asks_the_time_of_day(node: ast.AST) -> bool:
    names = ("time.time", "time.time_ns", "datetime.now", "datetime.datetime.now", "datetime.utcnow", "date.today")
    return isinstance(node, ast.Attribute) and ast.unparse(node) in names
