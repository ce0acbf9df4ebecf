"""What our `schroot` does where Debian's does worse, or where the two cannot be laid side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import MNT_DETACH, World, snapshot, umount
from schrootcalls import CODE, ENVIRONMENT, Schroot


@pytest.fixture
def call(world: World) -> Schroot:
    return Schroot(world)


def test_begin_run_end(call: Schroot) -> None:
    assert call("-b", "-c", "other", "-n", "s1") == (0, "s1\n", "")
    location = call.world.places.mount_dir + "/s1"
    assert call("--location", "-c", "session:s1") == (0, f"{location}\n", "")
    assert Path(location, "bin/busybox").exists()
    assert call("-r", "-c", "s1", "--", "sh", "-c", "echo data > /kept; echo $SCHROOT_ALIAS_NAME; exit 5") == (
        5, "other\n", "",
    )  # fmt: skip
    assert Path(location, "kept").read_text() == "data\n"
    assert call("-e", "-c", "session:s1") == (0, "", "")
    assert call("-l", "--all-sessions") == (0, "session:plain\n", "")


def test_recover_what_was_unmounted(call: Schroot) -> None:
    assert call("-b", "-c", "ov", "-n", "s1")[0] == 0
    assert call("-r", "-c", "s1", "--", "touch", "/kept") == (0, "", "")
    umount(call.world.places.mount_dir + "/s1", MNT_DETACH)
    status, output, errors = call("-r", "-c", "s1", "--", "true")
    assert (status, output) == (1, "")
    assert errors.startswith("E: session s1 has no root at") and "\nI: sessions recover s1\n" in errors
    assert call("--recover-session", "-c", "s1") == (0, "", "")
    assert call("-r", "-c", "s1", "--", "ls", "/kept") == (0, "/kept\n", "")
    assert call("--recover-session", "-c", "s1") == (0, "", "")
    assert call("-e", "-c", "s1") == (0, "", "")


def test_plain_leaves_no_trace(call: Schroot) -> None:
    before = snapshot(call.world.root)
    assert call("-c", "plain", "--", "sh", "-c", "pwd; exit 3") == (3, "/\n", "")
    assert snapshot(call.world.root) == before
    assert not Path(call.world.places.state_dir).exists()
    assert not Path(call.world.places.runtime_dir).exists()


@pytest.mark.parametrize(("redirect", "reason"), [(">/dev/full", "No space left on device"), (">&-", "is closed")])
def test_begin_that_nobody_hears_of(call: Schroot, redirect: str, reason: str) -> None:
    words = " ".join([sys.executable, "-c", f'"{CODE}"', *call.options])
    result = subprocess.run(
        ["sh", "-c", f"{words} -b -c ov -n s1 {redirect}"], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert reason in result.stderr
    assert call("-l", "--all-sessions") == (0, "session:plain\n", "")


@pytest.mark.parametrize("redirect", ["<&-", "2>&-", "<&- 2>&-"])
def test_closed_descriptors(call: Schroot, redirect: str) -> None:
    words = " ".join([sys.executable, "-c", f'"{CODE}"', *call.options])
    line = f"{words} -c ov {redirect} -- sh -c 'echo out; echo err >&2; exit 7'"
    result = subprocess.run(["sh", "-c", line], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd="/")
    assert (result.returncode, result.stdout) == (7, "out\n")


def test_output_that_cannot_be_written(call: Schroot) -> None:
    with open("/dev/full", "w") as full:
        assert call("-l", stdout=full) == (1, "", "E: No space left on device\n")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert call("-i", stdout=writer) == (1, "", "")
    finally:
        os.close(writer)


def test_names_are_checked_before_anything_runs(call: Schroot) -> None:
    mark = call.world.base / "mark"
    call.script(f"touch {mark}")
    assert call("-c", "ov", "-c", "nosuch", "--", "true") == (1, "", "E: nosuch: Chroot not found\n")
    assert not mark.exists()


def test_a_command_that_does_not_start_ends_its_session(call: Schroot) -> None:
    assert call("-c", "ov", "--", "nosuch") == (1, "", "E: Failed to execute “nosuch”: No such file or directory\n")
    status, _output, errors = call("-c", "ov", "-d", "/nosuch", "--", "true")
    assert status == 1 and errors.startswith(
        "E: Failed to change to directory ‘/nosuch’: No such file or directory\nI:"
    )


def test_a_failing_start_leaves_nothing(call: Schroot) -> None:
    call.script('echo "$1 $2"; [ "$1" != setup-start ] || { echo wrong >&2; exit 3; }')
    for words in (["-c", "ov", "--", "true"], ["-b", "-c", "ov", "-n", "s1"]):
        status, output, errors = call(*words)
        lines = errors.splitlines()
        assert (status, output) == (1, "")
        assert "I: 50own: setup-start ok" in lines and "I: 50own: setup-stop fail" in lines
        assert "E: 50own: wrong" in lines
        assert lines[-1].endswith(": Chroot setup failed: stage=setup-start")
        assert "Chroot setup failed" not in call("-q", *words)[2]


@pytest.mark.parametrize(("command", "status"), [("true", 1), ("exit 9", 9)])
def test_a_failing_stop(call: Schroot, command: str, status: int) -> None:
    mark = call.world.base / "mark"
    call.script(f'[ "$1" != setup-stop ] || [ -e {mark} ]')
    found, _output, errors = call("-c", "ov", "--", "sh", "-c", command)
    assert found == status
    assert errors.splitlines()[-1].endswith(": Chroot setup failed: stage=setup-stop")
    [session] = call("-l", "--all-sessions")[1].split()[:1]
    assert session.startswith("session:ov-")
    assert call("-e", "-c", session)[0] == 1
    assert call("-f", "-e", "-c", session)[0] == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("words", [("-b", "-c", "ov", "-n", "s1"), ("-c", "ov", "--", "true")])
def test_a_signal_during_the_start(call: Schroot, words: tuple[str, ...], signum: signal.Signals) -> None:
    call.script(f'[ "$1" != setup-start ] || {{ touch {call.world.base}/mark; sleep 60; }}')
    process = call.start(*words)
    call.wait_for("mark")
    process.send_signal(signum)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (1, "")
    assert errors.splitlines()[-1] == f"E: Caught signal ‘{signal.strsignal(signum)}’"
    assert call("-l", "--all-sessions") == (0, "session:plain\n", "")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_command_runs(call: Schroot, signum: signal.Signals) -> None:
    process = call.start("-c", "ov", "--", "sh", "-c", "echo up; exec sleep 60")
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.send_signal(signum)
    caught = f"E: Caught signal ‘{signal.strsignal(signum)}’"
    assert process.communicate(timeout=30) == ("", f"{caught}: terminating immediately\n{caught}\n")
    assert process.returncode == 1


def test_a_command_that_traps_the_signal_ends_in_its_own_time(call: Schroot) -> None:
    process = call.start("-c", "ov", "--", "sh", "-c", "trap 'echo got; exit 4' TERM; echo up; while :; do :; done")
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.terminate()
    assert process.communicate(timeout=30)[0] == "got\n"
    assert process.returncode == 1


@pytest.mark.parametrize("quiet", [True, False])
def test_end_says_who_is_inside_and_ends_it(call: Schroot, quiet: bool) -> None:
    assert call("-b", "-c", "ov", "-n", "s1")[0] == 0
    process = call.start("-r", "-c", "s1", "--", "sh", "-c", "echo up; exec sleep 1234")
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    status, output, errors = call("-e", "-c", "s1", *["-q"] * quiet)
    assert (status, output) == (0, "")
    assert errors == "" if quiet else errors.startswith("W: session s1 is in use: ") and "(sleep 1234)" in errors
    assert process.communicate(timeout=30)[1] == "E: Child terminated by signal ‘Terminated’\n"
    assert process.returncode == 1


def test_two_ends_of_one_session(call: Schroot) -> None:
    assert call("-b", "-c", "ov", "-n", "s1")[0] == 0
    assert call("-e", "-c", "s1", "-c", "s1") == (0, "", "")
    call.script('[ "$1" != setup-stop ] || sleep 1')
    assert call("-b", "-c", "ov", "-n", "s2")[0] == 0
    ends = [call.start("-e", "-c", "s2") for _ in range(2)]
    assert [(*process.communicate(timeout=30), process.returncode) for process in ends] == [("", "", 0)] * 2


def test_an_automatic_session_takes_its_daemons_along(call: Schroot) -> None:
    assert call("-c", "ov", "--", "sh", "-c", "sleep 1234 >/dev/null 2>&1 & exit 6") == (6, "", "")


def test_host_is_no_chroot_here(call: Schroot) -> None:
    assert call("-c", "host", "--", "true") == (1, "", "E: host: Chroot not found\n")
    assert "host" not in call("-l")[1]


def test_what_is_wrong_elsewhere_keeps_nothing_from_being_used(call: Schroot) -> None:
    call.world.write("schroot/chroot.d/bad", "[bad]\ntype=nonsense\naliases=worse\n")
    call.world.write("schroot/chroot.d/worse", "what is this\n")
    names = "chroot:dir\nchroot:other\nchroot:other-source\nchroot:ov\nchroot:plain\nsource:other\nsource:ov\n"
    status, output, errors = call("-l")
    assert (status, output) == (0, names)
    assert all(line.startswith("W: ") for line in errors.splitlines()) and "chroot.d/bad" in errors
    assert call("-l", "-q") == (0, names, "")
    for words in (["-c", "plain", "--", "true"], ["-l", "-c", "ov"], ["-i", "-c", "ov"], ["--location"], ["--config"]):
        assert (call(*words)[0], call(*words)[2]) == (0, "")
    assert call("-b", "-c", "ov", "-n", "s1") == (0, "s1\n", "")
    assert call("-e", "-c", "s1") == (0, "", "")
    status, output, errors = call("-c", "worse", "--", "true")
    assert (status, output) == (1, "") and "nonsense" in errors and "chroot.d/bad" in errors


def test_a_journal_that_cannot_be_read(call: Schroot) -> None:
    assert call("-b", "-c", "ov", "-n", "s1")[0] == 0
    journal = Path(call.world.places.journal_dir, "zz,00000000")
    journal.write_text("rubbish\n")
    journal.chmod(0o600)
    status, output, errors = call("-i", "--all-sessions")
    assert (status, output.count("─── Session ───")) == (0, 1) and errors.startswith("W: journal")
    assert call("-i", "-c", "session:zz")[0] == 1
    assert call("-r", "-c", "s1", "--", "true") == (0, "", "")
    journal.unlink()
    assert call("-e", "--all-sessions") == (0, "", "")
