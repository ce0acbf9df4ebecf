"""The `sessions` command as it is called: exit statuses, one line for each failure, JSON, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from helpers import REPOSITORY, World, snapshot

from sessions.linux import proc

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def argv(world: World) -> list[str]:
    """The command with this world's directories."""
    world.define("tiny")
    places = world.places
    options = ["--config-dir", places.native_config_dir, "--state-dir", places.state_dir]
    return [sys.executable, "-m", "sessions.cli.native", *options, "--runtime-dir", places.runtime_dir]


@pytest.fixture
def call(argv: list[str]) -> Run:
    def run(*words: str, **how: object) -> subprocess.CompletedProcess[str]:
        usual = {"capture_output": True, "text": True, "cwd": "/", "env": _environment(), "timeout": 60}
        return subprocess.run([*argv, *words], **{**usual, **how})  # type: ignore[call-overload, no-any-return]

    return run


def _environment(**more: str) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), **more}


def _start(argv: list[str], *words: str, **how: object) -> subprocess.Popen[str]:
    usual = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": "/", "env": _environment()}
    return subprocess.Popen([*argv, *words], **{**usual, **how})  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("sh", "-c", "exit 0"), 0),
        (("sh", "-c", "exit 42"), 42),
        (("sh", "-c", "exit 255"), 255),
        (("sh", "-c", "kill -9 $$"), 137),
        (("sh", "-c", "kill -15 $$"), 143),
        (("nosuch",), 127),
        (("/bin/nosuch",), 127),
        (("/etc/passwd",), 126),
        (("/etc",), 126),
        (("-d", "/nosuch", "--", "true"), 125),
        (("-u", "nosuchuser", "true"), 125),
    ],
)
def test_exit_status_of_run_and_exec(call: Run, words: tuple[str, ...], status: int) -> None:
    automatic = call("run", "tiny", *words)
    assert automatic.returncode == status, automatic.stderr
    assert call("begin", "tiny", "--name", "one").stdout == "one\n"
    assert call("exec", "one", *words).returncode == status
    assert call("end", "one").returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("nosuch",),
        ("run",),
        ("run", "nosuch", "true"),
        ("run", "../tiny", "true"),
        ("run", "foo:tiny", "true"),
        ("run", "session:tiny", "true"),
        ("run", "--nosuch", "tiny"),
        ("begin", "tiny", "--name", "a/b"),
        ("begin", "tiny", "--name", "x" * 201),
        ("begin", "tiny", "--name", "a\nb"),
        ("begin", "source:nosuch"),
        ("exec",),
        ("exec", "nosuch", "true"),
        ("exec", "source:tiny", "true"),
        ("end",),
        ("end", "nosuch"),
        ("end", "--all", "nosuch"),
        ("recover", "nosuch"),
        ("show", "nosuch"),
        ("show", "../../etc/passwd"),
        ("plan", "nosuch"),
        ("config", "show", "nosuch"),
        ("--config-dir", "relative", "list"),
    ],
)
def test_own_failures_are_125_and_one_line(call: Run, world: World, words: tuple[str, ...]) -> None:
    before = snapshot(world.base)
    outcome = call(*words)
    assert outcome.returncode == 125
    lines = outcome.stderr.splitlines()
    assert len(lines) == 1 or (not words and lines[0].startswith("Usage:")), outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert outcome.stdout == ""
    assert snapshot(world.base) == before


def test_options_before_and_after_the_chroot_and_the_commands_own(call: Run) -> None:
    script = ("sh", "-c", 'echo "$PWD $*"', "x", "-d", "/nowhere", "--", "-u")
    expected = "/etc -d /nowhere -- -u\n"
    assert call("run", "-d", "/etc", "tiny", *script).stdout == expected
    assert call("run", "tiny", "-d", "/etc", "--", *script).stdout == expected
    assert call("run", "tiny", "-d", "/etc", *script).stdout == expected
    assert call("run", "-d", "/etc", "--", "tiny", *script).stdout == expected


def test_json_of_every_list_and_record(call: Run) -> None:
    call("begin", "tiny", "--name", "one")
    listed = json.loads(call("list", "--json").stdout)
    assert [(item["id"], item["chroot"], item["state"]) for item in listed["sessions"]] == [("one", "tiny", "up")]
    assert listed["errors"] == []
    shown = json.loads(call("show", "one", "--json").stdout)
    assert shown["session"]["id"] == "one"
    assert all(step["step"] and step["record"]["kind"] for step in shown["steps"])
    names = [chroot["name"] for chroot in json.loads(call("chroots", "--json").stdout)["chroots"]]
    assert names == ["tiny", "host"]
    planned = json.loads(call("plan", "tiny", "--json").stdout)
    assert [step["record"]["kind"] for step in planned["steps"]][:2] == ["private-directory", "mount-point"]
    assert json.loads(call("config", "check", "--json").stdout) == {"problems": [], "chroots": ["tiny"]}
    values = json.loads(call("config", "show", "tiny", "--json").stdout)
    assert values["union-type"]["value"] == "overlay"
    assert values["union-type"]["from"].endswith("tiny.toml:5")
    assert values["shell"]["from"] == "default"
    assert call("end", "--all").returncode == 0


def test_lock_and_unlock(call: Run) -> None:
    assert call("lock", "tiny", "--reason", "new compiler").returncode == 0
    refused = call("run", "tiny", "--no-wait", "--", "true")
    assert refused.returncode == 125
    assert "chroot tiny is in use: maintenance by root since 20" in refused.stderr
    assert refused.stderr.endswith("(new compiler); try again later, or wait longer with --lock-timeout\n")
    assert call("begin", "tiny", "--lock-timeout", "0.01").returncode == 125
    assert call("lock", "tiny", "--no-wait").returncode == 125
    assert "by root: new compiler" in call("chroots").stdout
    (locked,) = [item for item in json.loads(call("chroots", "--json").stdout)["chroots"] if item["maintenance"]]
    assert (locked["name"], locked["maintenance"]["reason"]) == ("tiny", "new compiler")
    assert call("run", "source:tiny", "--no-wait", "--", "true").returncode == 0
    assert call("unlock", "tiny").returncode == 0
    again = call("unlock", "tiny")
    assert (again.returncode, again.stderr) == (125, "sessions: tiny is not locked; see: sessions chroots\n")
    assert call("lock", "nosuch").returncode == 125


def test_plan_touches_nothing(call: Run, world: World) -> None:
    before = snapshot(world.base)
    assert call("plan", "tiny").returncode == 0
    assert call("plan", "host").returncode == 0
    assert snapshot(world.base) == before


def test_config_check_reports_and_the_rest_stays_usable(call: Run, world: World) -> None:
    world.write("native/chroot.d/bad.toml", '[chroot.bad]\ntype = "directory"\ndirectory = "relative"\n')
    outcome = call("config", "check")
    assert outcome.returncode == 125
    assert "bad.toml: line 3 [bad] directory:" in outcome.stdout
    assert call("run", "tiny", "true").returncode == 0
    broken = call("run", "bad", "true")
    assert broken.returncode == 125
    assert "bad.toml" in broken.stderr


def test_end_all_goes_on_past_a_journal_that_cannot_be_used(call: Run, world: World) -> None:
    call("begin", "tiny", "--name", "good")
    foreign = world.write("state/sessions/bad,00000000", "nonsense\n", 0o600)
    listed = call("list")
    assert listed.returncode == 125
    assert listed.stdout.startswith("good")
    assert str(foreign) in listed.stderr
    ended = call("end", "--all")
    assert ended.returncode == 125
    assert str(foreign) in ended.stderr
    assert [path.name for path in foreign.parent.iterdir()] == [foreign.name]
    foreign.unlink()


def test_begin_whose_name_cannot_be_written_ends_its_session(call: Run) -> None:
    with open("/dev/full", "w") as full:
        outcome = call("begin", "tiny", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert outcome.returncode == 125
    assert "ended again" in outcome.stderr
    assert call("list").stdout == ""


def test_closed_standard_descriptors(argv: list[str]) -> None:
    words = " ".join(map(_quoted, [*argv, "run", "tiny", "sh", "-c", "exit 5"]))
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        outcome = subprocess.run(["sh", "-c", f"{words} {closed}"], env=_environment(), cwd="/", timeout=60)
        assert outcome.returncode == 5, closed


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "WINCH"])
def test_signals_are_passed_on(argv: list[str], name: str) -> None:
    # The shell does not exit on USR1 and the like by itself: it has to get the signal to end.
    script = f"trap 'echo got {name}; exit 9' {name}; echo ready; while :; do sleep 0.05; done"
    process = _start(argv, "run", "tiny", "--", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, f"SIG{name}"))
    rest, complaint = process.communicate(timeout=30)
    assert (process.returncode, rest, complaint) == (9, f"got {name}\n", "")


def test_term_while_setting_up_takes_everything_back(argv: list[str], world: World) -> None:
    world.script("12wait", "#!/bin/sh\n[ $1 = setup-start ] || exit 0\necho in; exec sleep 1000\n")
    process = _start(argv, "run", "tiny", "true")
    assert process.stderr is not None
    assert process.stderr.readline().strip().endswith("in")
    process.terminate()
    _output, complaint = process.communicate(timeout=30)
    assert process.returncode in (143, -signal.SIGTERM)
    assert "SIGTERM" in complaint
    assert world.leftovers() == []


def test_processes_left_behind_end_with_an_automatic_session(call: Run) -> None:
    outcome = call("run", "tiny", "sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!; exit 3")
    assert outcome.returncode == 3
    assert proc.start_ticks(int(outcome.stdout)) is None


def test_end_is_refused_while_a_command_runs(argv: list[str], call: Run) -> None:
    call("begin", "tiny", "--name", "one")
    process = _start(argv, "exec", "one", "--", "sh", "-c", "echo ready; exec sleep 1000")
    assert process.stdout is not None
    process.stdout.readline()
    refused = call("end", "one")
    assert refused.returncode == 125
    assert "sleep 1000" in refused.stderr
    assert "--force" in refused.stderr
    assert process.poll() is None
    assert call("end", "--force", "one").returncode == 0
    process.communicate(timeout=30)
    assert process.returncode == 143


def test_who_is_not_root_is_told(argv: list[str], world: World) -> None:
    words = [sys.executable, "-m", "sessions.cli.native"]
    nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    for command in (["run", "host", "true"], ["begin", "host"], ["end", "--all"], ["recover", "--all"]):
        outcome = subprocess.run(
            [*words, *command], env=_environment(), cwd="/", capture_output=True, text=True, **nobody
        )
        assert outcome.returncode == 125
        assert outcome.stderr.count("\n") == 1
        assert "root" in outcome.stderr
    places = subprocess.run([*argv, "list"], env=_environment(), cwd="/", capture_output=True, text=True, **nobody)
    assert places.returncode == 125
    assert "--state-dir" in places.stderr


def test_no_colour_and_no_heads_where_no_terminal_is(call: Run) -> None:
    outcome = call("run", "nosuch", "true", env=_environment(FORCE_COLOR="1"))
    assert "\x1b" not in outcome.stderr
    assert "CHROOT" not in call("chroots").stdout


def test_reader_that_goes_away(argv: list[str], call: Run) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    outcome = call("chroots", capture_output=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert outcome.returncode == 125
    assert outcome.stderr == ""
