"""The flow of an archive from one program through the check to another, in which nobody waits for ever.

What has been checked is passed on, most of it without ever coming into this process (splice(2)); meanwhile the
complaints of both programs are read, so that one with much to say cannot get stuck.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

from sessions.data import TYPE_CHECKING
from sessions.linux import run
from sessions.linux.tarcheck import check
from sessions.linux.tarheader import Ended, Refused

if TYPE_CHECKING:
    from typing import IO

_READ_BYTES = 64 * 1024
_SPLICE_BYTES = 1 << 30
# Headers held back until a member has been checked; the largest honest ones hold extended attributes.
_HELD_BYTES = 4 * 1024 * 1024
_COMPLAINT_BYTES = 64 * 1024
_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
_CLOSING_WORDS = ("Error is not recoverable: exiting now", "Exiting with failure status due to previous errors")


class Failed(Exception):
    """What a program that took part had to say when it failed."""


def flow(
    source_fd: int,
    sink: IO[bytes],
    reader: Tool | None,
    writer: Tool | None,
    tick: Callable[[], None] | None = None,
) -> int:
    """Pass an archive on from a descriptor to a file or a program; all of it has arrived when this returns its size.

    `reader` is the program that writes to `source_fd`, `writer` the one that reads from `sink`, a pipe, which is
    closed then. `tick` is called again and again meanwhile. Raises Failed if one of them fails, Refused for what the
    archive is or holds, and OSError if a descriptor fails; the programs may still run then.
    """
    tools = [tool for tool in (reader, writer) if tool]
    stream = _Stream(source_fd, sink.fileno(), tools, tick)
    try:
        check(stream)
        stream.flush()
    except Ended:
        # What ends too soon does so because its program came upon damage, and has said which.
        if reader:
            reader.finish()
        raise
    except BrokenPipeError:
        if writer:
            writer.finish()
        raise Failed("the program that it was passed on to has stopped reading") from None
    if writer:
        sink.close()
    for tool in tools:
        tool.finish()
    return stream.moved_bytes


class Tool:
    """A running program; leaving the context ends it, if it has not ended by itself, and reaps it."""

    def __init__(self, argv: Sequence[str], package: str, stdin: int | None, stdout: int | None) -> None:
        self._argv = argv
        self._process = run.start(argv, package=package, stdin=stdin, stdout=stdout)
        assert self._process.stderr is not None
        self._complaints = self._process.stderr
        self._said = b""
        self.complaint_fd = self._complaints.fileno()

    def __enter__(self) -> Tool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._complaints.close()

    def listen(self) -> bool:
        """Take what it has to complain of; False if it has closed its standard error."""
        words = os.read(self.complaint_fd, _COMPLAINT_BYTES)
        self._said = (self._said + words)[-_COMPLAINT_BYTES:]
        return bool(words)

    def finish(self) -> None:
        """Wait for its end; raises Failed, with its own words or its status, unless all was well."""
        while self.listen():
            pass
        status = self._process.wait()
        lines = [line.strip() for line in self._said.decode(errors="replace").splitlines() if line.strip()]
        name = self._argv[0]
        if name == "tar":
            # tar warns and succeeds; when it fails, the cause is the last thing it says but for a formula.
            lines = [line for line in lines if not line.endswith(_CLOSING_WORDS)] if status else []
            # But it goes on where a disk is full, and complains of what is missing for that.
            lines = [line for line in lines if line.endswith(_FULL)][:1] or lines[-1:]
        # bzip2 warns of what follows the end of an archive and succeeds; when it fails, it adds advice.
        lines = [line for line in lines if line.startswith(f"{name}: ")] or lines[:1]
        if status or lines:
            raise Failed("; ".join(lines) or f"{name} {run.ending(status)}")


class _Stream:
    """The archive on its way: `_block` from `_passed` on has been read, but may not go on before it is checked."""

    def __init__(
        self, source_fd: int, sink_fd: int, tools: Sequence[Tool], tick: Callable[[], None] | None = None
    ) -> None:
        self.moved_bytes = 0
        self._tick = tick
        self._source_fd = source_fd
        self._sink_fd = sink_fd
        self._block = b""
        self._sent = 0
        self._passed = 0
        self._listeners = {tool.complaint_fd: tool for tool in tools}
        for fd in (source_fd, sink_fd):
            os.set_blocking(fd, False)

    def peek(self, start: int, size: int) -> bytes:
        """The `size` bytes that begin `start` after what was passed on; fewer if the archive ends before."""
        begin = self._passed + start
        if begin + size > len(self._block):
            if start + size > _HELD_BYTES:
                raise Refused(f"a member has more than {_HELD_BYTES} bytes of headers")
            while self._passed + start + size > len(self._block) and self._fill():
                pass
            begin = self._passed + start
        return self._block[begin : begin + size]

    def skip(self, size: int) -> None:
        """Pass `size` bytes on; raises Ended if there are fewer."""
        self._passed += size
        left = self._passed - len(self._block)
        if left <= 0:
            return
        self._passed = len(self._block)
        self.flush()
        while left:
            moved = self._splice(left)
            if not moved:
                raise Ended("it ends within a member")
            left -= moved
            self._count(moved)

    def rest(self) -> Iterator[bytes]:
        """All that follows, piece by piece; it is not passed on."""
        self.flush()
        while self._block or self._fill():
            yield self._block
            self._block = b""

    def flush(self) -> None:
        """Write what may go on."""
        view = memoryview(self._block)[self._sent : self._passed]
        self._count(len(view))
        while view:
            try:
                view = view[os.write(self._sink_fd, view) :]
            except BlockingIOError:
                self._wait(self._sink_fd, select.POLLOUT)
        self._block = self._block[self._passed :]
        self._sent = self._passed = 0

    def _count(self, moved_bytes: int) -> None:
        self.moved_bytes += moved_bytes
        if self._tick:
            self._tick()

    def _fill(self) -> bool:
        """Read some more; False at the end."""
        self.flush()
        while True:
            try:
                data = os.read(self._source_fd, _READ_BYTES)
                break
            except BlockingIOError:
                self._wait(self._source_fd, select.POLLIN)
        self._block += data
        return bool(data)

    def _splice(self, size: int) -> int:
        """Move up to `size` bytes from source to sink; how many it were, 0 at the end."""
        while True:
            try:
                return os.splice(self._source_fd, self._sink_fd, min(size, _SPLICE_BYTES), flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                self._wait(self._source_fd, select.POLLIN)
                self._wait(self._sink_fd, select.POLLOUT)

    def _wait(self, fd: int, event: int) -> None:
        """Wait until a descriptor is ready, hearing complaints meanwhile."""
        poll = select.poll()
        poll.register(fd, event)
        for listener in self._listeners:
            poll.register(listener, select.POLLIN)
        while True:
            ready = [number for number, _event in poll.poll()]
            for number in ready:
                if number != fd and not self._listeners[number].listen():
                    poll.unregister(number)
                    del self._listeners[number]
            if fd in ready:
                return
