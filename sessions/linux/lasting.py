"""Programs that must not be cut short: they go on when we are killed, and whoever comes after us waits for their end.

LVM suspends devices while it works; were it killed in between, whoever uses them would hang. So it is never killed, has
no terminal to hear ^C from, and writes to memory, not to a pipe that nobody may read any more.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Mapping, Sequence

from sessions.errors import Interrupted, SessionsError
from sessions.linux import proc, run, signals, syscall, trace

Record = Callable[[int], None]
# To look at a volume takes no longer, unless its device hangs.
LOOK_TIMEOUT_S = 60.0


def find(program: str, *, package: str) -> str:
    """The path of a host program; raises ProgramMissing, naming the Debian `package` to install."""
    for directory in run.SYSTEM_PATH.split(":"):
        path = f"{directory}/{program}"
        if os.access(path, os.X_OK):
            return path
    raise run.ProgramMissing(f"{program} is not installed", hint=f"apt-get install {package}")


def call(
    argv: Sequence[str],
    record: Record,
    *,
    package: str,
    environment: Mapping[str, str],
    timeout_s: float,
    stdin_fd: int = -1,
    may_be_stopped: bool = False,
) -> run.Outcome:
    """Run a host program to its end; `record` is told its pid before it executes anything. It reads `stdin_fd`, if any.

    With `may_be_stopped`, a signal that asks us to stop, which the caller has blocked, ends it, and Interrupted is
    raised. Raises ProgramMissing, and SessionsError if it has not ended after `timeout_s`: it goes on then.
    """
    path = find(argv[0], package=package)
    memory = [os.memfd_create(f"{argv[0]} {name}", os.MFD_CLOEXEC) for name in ("output", "complaint")]
    try:
        outputs = os.dup(memory[0]), os.dup(memory[1])
        pid, pidfd = run.start_recorded(path, argv[1:], environment, record, outputs, lambda: None, stdin_fd=stdin_fd)
        try:
            if not _has_ended(pidfd, timeout_s, signals.heeded() if may_be_stopped else ()):
                _stop_if_asked(argv[0], pid, may_be_stopped)
                raise _is_slow(argv[0], pid, timeout_s)
        finally:
            os.close(pidfd)
        _pid, status = os.waitpid(pid, 0)
        trace.point("ran", argv[0])
        output, complaint = (os.pread(fd, os.fstat(fd).st_size, 0) for fd in memory)
    finally:
        for fd in memory:
            os.close(fd)
    return run.Outcome(os.waitstatus_to_exitcode(status), output, complaint.decode(errors="replace").strip())


def wait_for_earlier(pid: int, start_ticks: int, timeout_s: float) -> None:
    """Wait for a program that one who is dead has started; SessionsError if it has not ended after `timeout_s`."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Asked for with the pidfd open: a pid that is somebody else's now is not waited for.
        if proc.start_ticks(pid) == start_ticks and not _has_ended(pidfd, timeout_s):
            raise _is_slow("a program", pid, timeout_s)
    finally:
        os.close(pidfd)


def _has_ended(pidfd: int, timeout_s: float, stop_signals: Sequence[int] = ()) -> bool:
    """Whether it has, when the time is over or one of the signals is pending."""
    poll = select.poll()
    stopping = syscall.signalfd(stop_signals)
    try:
        poll.register(pidfd, select.POLLIN)
        poll.register(stopping, select.POLLIN)
        return pidfd in [fd for fd, _event in poll.poll(timeout_s * 1000)]
    finally:
        os.close(stopping)


def _stop_if_asked(program: str, pid: int, may_be_stopped: bool) -> None:
    """End a program, and what it has started, if a signal asks for it; raises Interrupted then."""
    signum = signals.pending() if may_be_stopped else None
    if signum is not None:
        proc.end_all(lambda: proc.session_members(pid))
        os.waitpid(pid, 0)
        raise Interrupted(signum, f"{program} was ended by {signal.Signals(signum).name}")


def _is_slow(program: str, pid: int, timeout_s: float) -> SessionsError:
    return SessionsError(
        f"{program} has not ended after {timeout_s:g} seconds and goes on: {proc.describe([pid])}",
        hint="see what it waits for: a lock of LVM, udev, or a disk that does not answer",
    )
