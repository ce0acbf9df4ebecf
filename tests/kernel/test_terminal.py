"""A login shell under a terminal: job control, the terminal's keys and size, and the terminal given back."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import sys
import termios

import pytest
from helpers import REPOSITORY, World
from terminals import Terminal


@pytest.fixture(params=[[], ["--isolate-network"]], ids=["plain", "isolated"])
def terminal(world: World, request: pytest.FixtureRequest) -> Terminal:
    world.define("tiny", profile=world.profile(fstab="/proc /proc none bind 0 0\n/dev /dev none bind 0 0\n"))
    places = world.places
    options = [
        "--config-dir",
        f"{world.base}/both",
        "--state-dir",
        places.state_dir,
        "--runtime-dir",
        places.runtime_dir,
    ]
    both = world.base / "both"
    both.mkdir()
    for name, target in (("chroot.d", "native/chroot.d"), ("own", "schroot/own")):
        (both / name).symlink_to(world.base / target)
    argv = [sys.executable, "-m", "sessions.cli.native", *options, "run", "tiny", *request.param]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "TERM": "dumb", "HOME": "/root", "PS1": "$ "}
    return Terminal(argv, env)


def test_login_shell_with_keys_and_status(terminal: Terminal) -> None:
    terminal.expect("# ")
    terminal.type("echo shell is $0.\n")
    terminal.expect("shell is -sh.")
    # Quoted, so that the echo of what is typed is not taken for the program's own word.
    terminal.type("sh -c 'echo be\"\"gun; exec sleep 1000'\n")
    terminal.expect("begun")
    terminal.type("\x03")
    terminal.expect("# ")
    terminal.type("echo still $((40 + 2))\n")
    terminal.expect("still 42")
    terminal.type("exit 11\n")
    assert terminal.status() == 11


def test_jobs_are_stopped(terminal: Terminal) -> None:
    terminal.expect("# ")
    # Quoted, so that the echo of what is typed is not taken for the program's own word.
    terminal.type("sh -c 'echo be\"\"gun; exec sleep 1000'\n")
    terminal.expect("begun")
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.expect("# ")
    # A shell with a stopped job does not exit at once; the job ends with the session.
    terminal.type("exec true\n")
    assert terminal.status() == 0


def test_size_of_the_window_arrives(terminal: Terminal) -> None:
    terminal.expect("# ")
    fcntl.ioctl(terminal.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    terminal.type("stty size\n")
    terminal.expect("33 77")
    terminal.type("exit 0\n")
    assert terminal.status() == 0


def test_hang_up_ends_the_shell_and_the_session(terminal: Terminal) -> None:
    terminal.expect("# ")
    os.kill(terminal.pid, signal.SIGHUP)
    assert terminal.status() in (129, -signal.SIGHUP)
