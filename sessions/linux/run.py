"""Starting the host's programs: the only place that does (subprocess, fork).

No shell, an environment that the caller spells out, standard input from /dev/null unless given, no descriptor
above 2 passed on, and every start in a trace point.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence

from sessions.data import TYPE_CHECKING, Frozen
from sessions.errors import SessionsError
from sessions.linux import syscall, trace

if TYPE_CHECKING:
    import subprocess  # imported where it is used: the usual session starts no host program
    from typing import NoReturn

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PLAIN_ENVIRONMENT = {"PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8"}

# A line of a script that is longer than this is passed on in pieces, so that a flood costs no memory.
LONGEST_LINE_BYTES = 64 * 1024
# The most that can be in a pipe when a script ends (pipe(7): 1 MiB), so that a daemon of its cannot keep us reading.
_PIPE_PIECES = 16
# What poll(2) takes: 24 days.
_LONGEST_POLL_MS = 2.0**31 - 1


class ProgramMissing(SessionsError):
    """A program of the host that is needed is not installed."""


class Outcome(Frozen):
    """How a program ended: `status` as Popen.returncode (negative for a signal), and what it printed."""

    status: int
    output: bytes
    complaint: str

    def reason(self) -> str:
        """Why it failed, in its own last words or by its status."""
        if self.complaint:
            return self.complaint.splitlines()[-1]
        return ending(self.status)


def ending(status: int) -> str:
    """A returncode in words: "exited with status 3", "was killed by SIGKILL"."""
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"


class Call(Frozen):
    """A host program on its way, whose output is wanted whole."""

    argv: Sequence[str]
    process: subprocess.Popen[bytes]

    def finish(self, timeout_s: float | None = None) -> Outcome:
        """Wait for its end; a program that takes longer than `timeout_s` is killed."""
        from subprocess import TimeoutExpired

        with self.process:
            try:
                output, complaint = self.process.communicate(timeout=timeout_s)
            except TimeoutExpired:
                self.process.kill()
                output, complaint = b"", f"took longer than {timeout_s:g} seconds".encode()
        trace.point("ran", self.argv[0])
        return Outcome(self.process.returncode, output, complaint.decode(errors="replace").strip())


def start_call(argv: Sequence[str], *, package: str, environment: Mapping[str, str] = PLAIN_ENVIRONMENT) -> Call:
    """Start a host program whose output is wanted; raises ProgramMissing, naming the Debian `package` to install."""
    from subprocess import PIPE

    trace.point("run", argv[0])
    process = start(argv, package=package, stdout=PIPE, environment=environment)
    trace.point("running", argv[0])
    return Call(argv, process)


def call(
    argv: Sequence[str],
    *,
    package: str,
    environment: Mapping[str, str] = PLAIN_ENVIRONMENT,
    timeout_s: float | None = None,
) -> Outcome:
    """Run a host program to its end, or for `timeout_s`; raises ProgramMissing as :func:`start_call` does."""
    return start_call(argv, package=package, environment=environment).finish(timeout_s)


def start(
    argv: Sequence[str],
    *,
    package: str,
    stdin: int | None = None,
    stdout: int | None = None,
    environment: Mapping[str, str] = PLAIN_ENVIRONMENT,
) -> subprocess.Popen[bytes]:
    """Start a host program; its complaints can be read from the result's stderr. It dies with its starter.

    `stdin` and `stdout` are descriptors or subprocess.PIPE; without one it is /dev/null. Raises ProgramMissing as
    :func:`start_call` does.
    """
    from subprocess import DEVNULL, PIPE, Popen

    starter = os.getpid()
    try:
        return Popen(
            argv,
            stdin=DEVNULL if stdin is None else stdin,
            stdout=DEVNULL if stdout is None else stdout,
            stderr=PIPE,
            env=environment,
            cwd="/",
            umask=0o022,
            preexec_fn=lambda: _die_with(starter),
        )
    except FileNotFoundError:
        raise ProgramMissing(f"{argv[0]} is not installed", hint=f"apt-get install {package}") from None


def _die_with(starter: int) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    syscall.set_parent_death_signal(signal.SIGKILL)
    # Who has died before that gives no signal any more.
    if os.getppid() != starter:
        os._exit(125)


def fork(child: Callable[[], NoReturn]) -> int:
    """Fork; run `child` in the new process, which ends by exec or by os._exit and never returns to our caller.

    Everything `child` needs must have been imported and looked up before.
    """
    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(125)
    return pid


class Script(Frozen):
    """A started executable of setup.d: `pid` leads a session of its own, output comes through the two pipes."""

    pid: int
    pidfd: int
    output_fd: int
    complaint_fd: int


def start_script(
    path: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    record: Callable[[int], None],
    *,
    root_fd: int = -1,
) -> Script:
    """Start an executable as schroot starts setup scripts: directory /, umask 022, no input, exactly `environment`.

    With `root_fd` that directory becomes its root first, and `path` is in there. `record` is called with its pid before
    it executes anything, so that whoever finds us dead can end it. Raises OSError if it cannot be executed.
    """
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()

    def prepare() -> None:
        syscall.set_parent_death_signal(signal.SIGKILL)
        if root_fd >= 0:
            os.fchdir(root_fd)
            os.chroot(".")

    try:
        pid, pidfd = start_recorded(path, arguments, environment, record, (out_write, err_write), prepare)
    except BaseException:
        os.close(out_read)
        os.close(err_read)
        raise
    return Script(pid, pidfd, out_read, err_read)


def start_recorded(
    path: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    record: Callable[[int], None],
    outputs: tuple[int, int],
    prepare: Callable[[], None],
    *,
    stdin_fd: int = -1,
) -> tuple[int, int]:
    """Start an executable that writes to `outputs`, which are closed here; its pid, recorded before, and a pidfd.

    It reads `stdin_fd`, or nothing if that is -1, and leads a session (setsid(2)) of its own; `prepare` is called in it
    while it still has our descriptors.
    """
    gate_read, gate_write = os.pipe()
    failed_read, failed_write = os.pipe()
    argv = [os.path.basename(path), *arguments]
    null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def child() -> NoReturn:
        try:
            os.setsid()
            for number, fd in enumerate((null_fd if stdin_fd < 0 else stdin_fd, *outputs)):
                os.dup2(fd, number)
            syscall.close_on_exec_from(3)
            prepare()
            os.chdir("/")
            os.umask(0o022)
            os.close(gate_write)
            if os.read(gate_read, 1) == b"g":
                reset_signals()
                os.execve(path, argv, environment)
        except OSError as error:
            os.write(failed_write, str(error.errno).encode())
        os._exit(127)

    trace.point("run", path)
    pid = fork(child)
    for fd in (*set(outputs), gate_read, failed_write, null_fd):
        os.close(fd)
    try:
        record(pid)
        trace.point("recorded", path)
        try:
            os.write(gate_write, b"g")
        except BrokenPipeError:
            pass  # killed at the gate: its status says so
    except BaseException:
        # The child ends when the gate is closed without a word.
        for fd in (gate_write, failed_read):
            os.close(fd)
        os.waitpid(pid, 0)
        raise
    os.close(gate_write)
    pidfd = os.pidfd_open(pid)
    failed = os.read(failed_read, 16)
    os.close(failed_read)
    if failed:
        os.waitpid(pid, 0)
        os.close(pidfd)
        raise OSError(int(failed), os.strerror(int(failed)), path)
    trace.point("running", path)
    return pid, pidfd


def reset_signals() -> None:
    """Give a child the signal dispositions and the empty mask that a program expects to start with.

    Only what Python itself has changed is put back: a signal that our own caller ignores stays ignored.
    """
    for signum in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(signum, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def finish_script(
    script: Script, say: Callable[[str, str], None], stop_signals: Sequence[int], timeout_s: float | None
) -> int | None:
    """Pass the script's lines to ``say("I" or "E", line)`` until it has ended; return its Popen-like status.

    Returns None when one of `stop_signals`, which the caller has blocked, became pending or when `timeout_s` is over:
    the script still runs then, and the caller ends it. Output that daemons of the script still hold open is not
    waited for.
    """
    poll = select.poll()
    streams = {script.output_fd: _Lines("I"), script.complaint_fd: _Lines("E")}
    signal_fd = syscall.signalfd(stop_signals)
    for fd in (*streams, script.pidfd, signal_fd):
        poll.register(fd, select.POLLIN)
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    try:
        while True:
            left_ms = None if deadline_s is None else max(0.0, deadline_s - time.monotonic()) * 1000
            ready = poll.poll(None if left_ms is None else min(left_ms, _LONGEST_POLL_MS))
            if not ready or left_ms == 0:
                return None
            for fd, _event in ready:
                if fd in streams and not streams[fd].read(fd, say):
                    poll.unregister(fd)
            names = {fd for fd, _event in ready}
            if script.pidfd in names:
                _pid, status = os.waitpid(script.pid, 0)
                for fd, lines in streams.items():
                    os.set_blocking(fd, False)
                    for _piece in range(_PIPE_PIECES):
                        if not lines.read(fd, say):
                            break
                    lines.flush(say)
                return os.waitstatus_to_exitcode(status)
            if signal_fd in names:
                return None
    finally:
        for fd in (*streams, script.pidfd, signal_fd):
            os.close(fd)


class _Lines:
    """Cuts one stream into lines."""

    def __init__(self, letter: str) -> None:
        self.letter = letter
        self.rest = b""

    def read(self, fd: int, say: Callable[[str, str], None]) -> bool:
        """Take what can be read now; False at the end of the stream or when nothing is there."""
        try:
            data = os.read(fd, LONGEST_LINE_BYTES)
        except BlockingIOError:
            return False
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            say(self.letter, line.decode(errors="replace"))
        if len(self.rest) >= LONGEST_LINE_BYTES:
            self.flush(say)
        return bool(data)

    def flush(self, say: Callable[[str, str], None]) -> None:
        """Pass on a last line that has no newline; schroot loses it."""
        if self.rest:
            say(self.letter, self.rest.decode(errors="replace"))
            self.rest = b""
