"""Asking the person at the terminal for a password: not shown, kept in no string, and wiped after use."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import termios
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from sessions.data import TYPE_CHECKING
from sessions.errors import Interrupted, SessionsError
from sessions.linux import signals, syscall

if TYPE_CHECKING:
    from typing import Any

TERMINAL = "/dev/tty"
# What a terminal takes as one line at most (termios(3), canonical mode).
_LONGEST_LINE_BYTES = 4096
_LOCAL_MODES, _CHARACTERS = 3, 6


class NoTerminal(SessionsError):
    """There is nobody who could be asked."""


@contextmanager
def password(prompt: str, *, what_for: str) -> Iterator[memoryview]:
    """What the person at the terminal answers, for as long as the block lasts; then it is wiped.

    The caller has the signals that ask us to stop blocked: one of them ends the question with Interrupted. The
    terminal is as it was when this returns, however. Raises NoTerminal where the process has none.
    """
    answer = bytearray(_LONGEST_LINE_BYTES)
    try:
        with _without_core():
            length_bytes = _ask(prompt, answer, what_for)
            with memoryview(answer) as whole, whole[:length_bytes] as view:
                yield view
    finally:
        answer[:] = bytes(len(answer))


@contextmanager
def _without_core() -> Iterator[None]:
    """Nothing of this process is to be found in a core file meanwhile (core(5))."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, before[1]))
    was_dumpable = syscall.set_dumpable(False)
    try:
        yield
    finally:
        syscall.set_dumpable(was_dumpable)
        resource.setrlimit(resource.RLIMIT_CORE, before)


def _ask(prompt: str, answer: bytearray, what_for: str) -> int:
    """Read a line into `answer`; its length without the newline."""
    with ExitStack() as stack:
        try:
            fd = os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in (errno.ENXIO, errno.ENOENT, errno.EIO):
                raise
            raise NoTerminal(f"the password of {what_for} has to be asked for, and there is no terminal") from None
        stack.callback(os.close, fd)
        stack.enter_context(_silent(fd))
        os.write(fd, f"{_printable(prompt)}: ".encode())
        try:
            return _read_line(fd, answer, what_for)
        finally:
            # The newline of the answer has not been shown either.
            os.write(fd, b"\n")


@contextmanager
def _silent(fd: int) -> Iterator[None]:
    """The terminal shows nothing that is typed; nobody is stopped by a key with the terminal in that state."""
    before = termios.tcgetattr(fd)
    changed: list[Any] = [*before[:_CHARACTERS], list(before[_CHARACTERS])]
    changed[_LOCAL_MODES] = changed[_LOCAL_MODES] & ~termios.ECHO | termios.ICANON | termios.ISIG
    changed[_CHARACTERS][termios.VSUSP] = os.fpathconf(fd, "PC_VDISABLE").to_bytes(1, "little")
    held = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTSTP,))
    try:
        # What was typed before it was asked for is no answer.
        termios.tcsetattr(fd, termios.TCSAFLUSH, changed)
        try:
            yield
        finally:
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _read_line(fd: int, answer: bytearray, what_for: str) -> int:
    with ExitStack() as stack:
        stopping = syscall.signalfd(signals.heeded())
        stack.callback(os.close, stopping)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(stopping, select.POLLIN)
        poll.poll()
        signum = signals.pending()
        if signum is not None:
            name = signal.Signals(signum).name
            raise Interrupted(signum, f"{name} came while the password of {what_for} was asked for")
        # The terminal gives a whole line at once.
        length_bytes = os.readv(fd, [answer])
    if length_bytes == 0:
        raise NoTerminal(f"the password of {what_for} was not given: the input has ended")
    return length_bytes - 1 if answer[length_bytes - 1] == ord("\n") else length_bytes


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
