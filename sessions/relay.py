"""Waiting for a command that has our terminal and our descriptors: signals are passed on to it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sessions.errors import Interrupted

PASSED_ON = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
# sigaction(2): the kernel's own signals, such as those of the terminal's keys, which the whole foreground group gets.
_SI_KERNEL = 0x80


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Keep the signals that are passed on, and SIGCHLD, pending for :func:`wait`: none is lost while a child starts.

    The signal that an Interrupted tells of has had its effect, and is taken, so that there is time to say so.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*PASSED_ON, signal.SIGCHLD))
    try:
        yield
    except Interrupted as error:
        signal.sigtimedwait((error.signum,), 0)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wait(pid: int, hear: Callable[[int], bool] = lambda signum: True) -> int:
    """Wait for the child `pid`, passing on every signal we get; return its status as Popen.returncode does.

    `hear` is told of each first, and may keep it from being passed on.

    To be called within :func:`signals_blocked`. What the terminal sends reaches the child by itself, since it is in
    our process group, and is not sent twice. The terminal is given back as it was.
    """
    terminal = _Terminal.of_standard_input()
    pidfd = os.pidfd_open(pid)
    try:
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            info = signal.sigwaitinfo((*PASSED_ON, signal.SIGCHLD))
            if info.si_signo != signal.SIGCHLD and hear(info.si_signo) and info.si_code != _SI_KERNEL:
                try:
                    signal.pidfd_send_signal(pidfd, info.si_signo)
                except ProcessLookupError:
                    continue
    finally:
        os.close(pidfd)
        terminal.give_back()


class _Terminal:
    """The settings and the foreground process group of our terminal, if standard input is one."""

    def __init__(self, fd: int, settings: list[object], group: int) -> None:
        self._fd = fd
        self._settings = settings
        self._group = group

    @classmethod
    def of_standard_input(cls) -> _Terminal:
        if not os.isatty(0):
            return cls(-1, [], 0)
        import termios

        try:
            group = os.tcgetpgrp(0)
        except OSError:
            return cls(-1, [], 0)
        return cls(0, termios.tcgetattr(0), group if group == os.getpgrp() else 0)

    def give_back(self) -> None:
        """A command that was killed may have left the terminal raw, or its own group in the foreground."""
        if self._fd < 0 or not self._group:
            return
        import termios

        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTOU,))
        try:
            os.tcsetpgrp(self._fd, self._group)
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._settings)  # type: ignore[arg-type]
        except (OSError, termios.error):
            pass
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def exit_like(status: int) -> int:
    """The exit status that env(1) and the shell give for a Popen-like status: 128 + N for signal N."""
    return 128 - status if status < 0 else status


def ensure_standard_descriptors() -> None:
    """Open /dev/null where standard input, output or error is closed, so that no other file gets their numbers."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115


def environment() -> dict[str, str]:
    """Our environment as our caller made it: in the C locale, Python adds a variable for those that it starts."""
    given = dict(os.environ)
    if given.get("LC_CTYPE") == "C.UTF-8":
        with open("/proc/self/environ", "rb") as file:
            if not any(item.startswith(b"LC_CTYPE=") for item in file.read().split(b"\0")):
                del given["LC_CTYPE"]
    return given


def working_directory() -> str:
    """Our working directory; one that was deleted counts as /, as with schroot."""
    try:
        return os.getcwd()
    except OSError:
        return "/"
