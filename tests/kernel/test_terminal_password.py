"""Asking for a password: it is not shown, it is found nowhere, and the terminal is as it was whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest
from helpers import REPOSITORY
from terminals import Terminal

CODE = f"""
import os, resource, signal, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from sessions.errors import SessionsError
from sessions.linux import signals, syscall, terminal
with signals.held_back():
    try:
        with terminal.password("Password of x\\x1b", what_for="x") as password:
            kept = password.obj
            told = resource.getrlimit(resource.RLIMIT_CORE)[0], syscall.set_dumpable(False)
            print(f"got {{bytes(password)!r}} {{told}}", flush=True)
        print(f"then {{bytes(kept).strip(bytes(1))!r}} {{syscall.set_dumpable(True)}}", flush=True)
    except SessionsError as error:
        print(f"{{type(error).__name__}}: {{error}}", flush=True)
        os._exit(3)
"""
LOCAL_MODES, CHARACTERS = 3, 6


@pytest.fixture
def asked() -> Iterator[Terminal]:
    terminal = Terminal([sys.executable, "-c", CODE], {"PATH": "/usr/bin:/bin"})
    before = termios.tcgetattr(terminal.fd)
    terminal.expect("Password of x?: ")
    during = termios.tcgetattr(terminal.fd)
    assert not during[LOCAL_MODES] & termios.ECHO
    assert during != before
    yield terminal
    after = termios.tcgetattr(terminal.fd)
    terminal.status()
    assert after == before


def test_what_is_typed_is_given_and_not_shown(asked: Terminal) -> None:
    asked.type("wrong\x15se cret é\n")
    between = asked.expect("got ")
    assert between.strip() == ""
    asked.expect(f"{'se cret é'.encode()!r} (0, False)")
    asked.expect("then b'' True")


@pytest.mark.parametrize("key", ["\x03", "\x1c"])
def test_a_key_that_interrupts_gives_the_terminal_back(asked: Terminal, key: str) -> None:
    asked.type("half" + key)
    name = {"\x03": "SIGINT", "\x1c": "SIGQUIT"}[key]
    between = asked.expect(f"Interrupted: {name} came while the password of x was asked for")
    assert "half" not in between


def test_a_signal_gives_the_terminal_back(asked: Terminal) -> None:
    os.kill(asked.pid, signal.SIGTERM)
    asked.expect("Interrupted: SIGTERM came while the password of x was asked for")


def test_no_key_stops_it_with_the_terminal_silent(asked: Terminal) -> None:
    """^Z is a character like any other."""
    asked.type("a\x1ab\n")
    asked.expect(f"got {b'a' + bytes([26]) + b'b'!r}")


def test_the_end_of_input_is_no_password(asked: Terminal) -> None:
    asked.type("\x04")
    asked.expect("NoTerminal: the password of x was not given: the input has ended")


def test_without_a_terminal_nobody_is_asked() -> None:
    result = subprocess.run(
        [sys.executable, "-c", CODE], stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True
    )
    assert result.returncode == 3
    assert result.stdout == "NoTerminal: the password of x has to be asked for, and there is no terminal\n"
