"""The Python API: open sessions, run commands in them, end them.

with sessions.begin("bookworm") as session:
    result = session.run(["apt-get", "update"], user="root", capture=True)
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence

from sessions import enter as entering
from sessions import lifecycle, running, users, where
from sessions.data import Frozen
from sessions.engine import Settings
from sessions.errors import NotFound, SessionsError
from sessions.model import Places, Session
from sessions.newsession import Wish

Say = Callable[[str, str], None]


def _silent(_letter: str, _line: str) -> None:
    """Takes what setup scripts say, and keeps it to itself."""


class CommandFailed(SessionsError):
    """A command run with ``check=True`` ended with another status than 0; ``result`` has it."""

    def __init__(self, text: str, result: Result) -> None:
        super().__init__(text)
        self.result = result


class CommandTimedOut(SessionsError):
    """A command took longer than its ``timeout_s``, and was killed."""


class Result(Frozen):
    """How a command ended: `status` is its exit status, or 128 + N for signal N, as in the shell.

    `stdout` and `stderr` are what it printed if they were captured, else empty.
    """

    argv: tuple[str, ...]
    status: int
    stdout: bytes = b""
    stderr: bytes = b""


class OpenSession(Frozen):
    """A session that is up. As a context manager it ends the session when the block is left.

    `id` is its name, `location` the directory of the host where its root is.
    """

    session: Session
    places: Places
    say: Say = _silent

    @property
    def id(self) -> str:
        """The session's name."""
        return self.session.id

    @property
    def location(self) -> str:
        """Where its root is mounted."""
        return self.session.path

    def __enter__(self) -> OpenSession:
        return self

    def __exit__(self, *_exception: object) -> None:
        # As a context manager it is ours alone: whatever is left running inside ends with it.
        try:
            lifecycle.end(self.places, self.id, Settings(self.say), kill_commands=True)
        except NotFound:
            pass  # ended within the block

    def end(self, *, force: bool = False) -> None:
        """End the session.

        Raises InUse while a command runs inside, unless `force`; Stuck if something could not be undone.
        """
        lifecycle.end(self.places, self.id, Settings(self.say, force=force))

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "",
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        input: bytes | None = None,
        capture: bool = False,
        check: bool = False,
        timeout_s: float | None = None,
        isolate_network: bool = False,
    ) -> Result:
        """Run a command inside, or a login shell if `argv` is empty, and wait for it.

        `user` is who runs it (default: root); `cwd` a directory inside. `env` is its environment, of which the
        chroot's filter takes its part; None gives it a minimal one. `input` is its standard input, without one it has
        ours. Standard output and error go where ours go, unless `capture`. With `isolate_network` it has no network but
        a loopback of its own. Raises CommandNotFound, CommandNotExecutable or another CannotEnter if it does not start,
        CommandFailed with `check`, CommandTimedOut.
        """
        caller = users.caller()
        request = entering.Request(
            argv=tuple(argv),
            caller=caller,
            user=users.find(user) if user else caller,
            environment=dict(env) if env is not None else os.environ,
            working_directory="/",
            directory=cwd,
            preserve_environment=env is not None,
            isolate_network=isolate_network,
        )
        pipes = _Pipes(input, capture)
        try:
            with running.running(self.places, self.id, request, pipes.for_child) as child:
                pipes.close_childs_ends()
                status = _wait(child.pid, pipes, timeout_s, argv)
        finally:
            pipes.close()
        result = Result(tuple(argv), 128 - status if status < 0 else status, bytes(pipes.stdout), bytes(pipes.stderr))
        if check and result.status != 0:
            raise CommandFailed(f"{_command(argv)} ended with status {result.status} in session {self.id}", result)
        return result


def _command(argv: Sequence[str]) -> str:
    """The command for messages."""
    return argv[0] if argv else "the login shell"


class _Pipes:
    """The pipes of one command: what it is given, and what it prints."""

    def __init__(self, given: bytes | None, capture: bool) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._left = memoryview(given or b"")
        self._ours: dict[int, bytearray | None] = {}
        self._childs: list[int] = []
        stdin, out, err = 0, 1, 2
        if given is not None:
            stdin, writer = os.pipe()
            os.set_blocking(writer, False)
            self._childs.append(stdin)
            self._ours[writer] = None
        if capture:
            for buffer in (self.stdout, self.stderr):
                reader, end = os.pipe()
                self._childs.append(end)
                self._ours[reader] = buffer
            out, err = self._childs[-2:]
        self.for_child = (stdin, out, err)

    def close_childs_ends(self) -> None:
        """The child has them now."""
        while self._childs:
            os.close(self._childs.pop())

    def close(self) -> None:
        """Close all that is open."""
        self.close_childs_ends()
        for fd in list(self._ours):
            self.finish(fd)

    def finish(self, fd: int) -> None:
        """Close one of ours."""
        if fd in self._ours:
            del self._ours[fd]
            os.close(fd)

    def register(self, poll: select.poll) -> None:
        """Ask for what can be read or written."""
        for fd, buffer in self._ours.items():
            poll.register(fd, select.POLLOUT if buffer is None else select.POLLIN)

    def move(self, fd: int) -> bool:
        """Read or write what is possible; False when the descriptor is done with."""
        buffer = self._ours[fd]
        if buffer is not None:
            data = os.read(fd, 65536)
            buffer += data
            return bool(data)
        try:
            self._left = self._left[os.write(fd, self._left[:65536]) :]
        except BrokenPipeError:
            return False
        return bool(self._left)


def _wait(pid: int, pipes: _Pipes, timeout_s: float | None, argv: Sequence[str]) -> int:
    """Feed and read the pipes until the command has ended; its status as Popen.returncode."""
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    pipes.register(poll)
    try:
        while True:
            left_ms = None if deadline_s is None else max(0.0, deadline_s - time.monotonic()) * 1000
            ready = [fd for fd, _event in poll.poll(left_ms)]
            if not ready:
                raise CommandTimedOut(f"{_command(argv)} took longer than {timeout_s:g} seconds and was killed")
            for fd in ready:
                if fd != pidfd and not pipes.move(fd):
                    poll.unregister(fd)
                    pipes.finish(fd)
            # What the command still has in its pipes is read before its end is looked at.
            if ready == [pidfd]:
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except BaseException:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(pidfd)


def begin(
    chroot: str,
    *,
    name: str = "",
    user: str = "",
    persistent: bool = False,
    lock_timeout_s: float | None = None,
    places: Places | None = None,
    say: Say = _silent,
) -> OpenSession:
    """Begin a session of `chroot` (``NAME``, ``source:NAME`` or an alias); needs root.

    `name` is the session's name, made up if empty. The session belongs to this process, and may be cleaned up once the
    process is gone, unless it is `persistent`. While the chroot is in use in a way that keeps sessions out, it waits:
    at most `lock_timeout_s` seconds if given, and then raises SourceBusy. `say` takes what setup scripts print: "I",
    "W" or "E", and the line.
    Raises a SessionsError; nothing is left of the session then, or the error names what is.
    """
    users.need_root()
    places = places or where.usual_places()
    caller = users.caller()
    wish = Wish(caller, users.find(user) if user else caller, name, not persistent, lock_timeout_s=lock_timeout_s)
    found, selected = lifecycle.find_chroot(lifecycle.load(places), chroot, with_host=True)
    session = lifecycle.begin(places, found, selected, wish, Settings(say))
    return OpenSession(session, places, say)


def open_session(name: str, *, places: Places | None = None, say: Say = _silent) -> OpenSession:
    """A session that was begun before; raises NotFound or JournalError."""
    from sessions import store

    places = places or where.usual_places()
    with store.open_session(places, name, for_marks=False) as journal:
        return OpenSession(journal.session, places, say)


def list_sessions(*, places: Places | None = None) -> list[OpenSession]:
    """Every session whose journal can be read, in the order of their names."""
    places = places or where.usual_places()
    found = lifecycle.listed(places)
    return [OpenSession(item.journal.session, places) for item in found if isinstance(item, lifecycle.Listed)]
