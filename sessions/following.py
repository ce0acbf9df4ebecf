"""Reads the log of events: what there is, and what comes. See sessions.events for who writes it."""

from __future__ import annotations

import errno
import os
import select
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from sessions.data import Mutable
from sessions.errors import SessionsError
from sessions.events import LOG, OLD_LOG
from sessions.linux import signals, syscall
from sessions.model import Places

_READ_BYTES = 65536
# What poll(2) calls writable takes so much without waiting (pipe(7), PIPE_BUF).
_PIPE_BUF_BYTES = 4096


class _File(Mutable):
    """An open file of the log, and the line that has not come to its end yet."""

    fd: int
    status: os.stat_result
    torn: bytes = b""

    def lines(self) -> Iterator[bytes]:
        """The whole lines that have come since this was asked last."""
        while data := os.read(self.fd, _READ_BYTES):
            *whole, self.torn = (self.torn + data).split(b"\n")
            yield from whole


class Log:
    """The log, read on from where it was read last, whatever becomes of its files: each line once.

    A file is kept open while it has one of the two names, and until another one has lost its: somebody may have opened
    it for writing before it was put aside.
    """

    def __init__(self, places: Places) -> None:
        self._paths = [f"{places.events_dir}/{name}" for name in (OLD_LOG, LOG)]
        self._files: list[_File] = []

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_exception: object) -> None:
        for file in self._files:
            os.close(file.fd)
        self._files = []

    def lines(self) -> Iterator[bytes]:
        """What has come since this was asked last."""
        named = self._open_named()
        while self._are_renamed(named):
            named = self._open_named()
        nameless = [file for file in self._files if file not in named]
        self._files = [*nameless, *named]
        for file in self._files:
            yield from file.lines()
        for file in nameless[:-1]:
            self._files.remove(file)
            os.close(file.fd)

    def _open_named(self) -> list[_File]:
        """The files of both names, as far as there are any, the older one first."""
        found = []
        for path in self._paths:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            found.append(self._known(path, fd))
        return found

    def _known(self, path: str, fd: int) -> _File:
        """A file that has just been opened, or the same one from before."""
        status = os.fstat(fd)
        for file in self._files:
            if os.path.samestat(file.status, status):
                os.close(fd)
                return file
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise SessionsError(f"{path} is not a file", hint="look at it, then remove it")
        self._files.append(_File(fd, status))
        return self._files[-1]

    def _are_renamed(self, named: list[_File]) -> bool:
        """Whether the names are those of other files by now."""
        found = []
        for path in self._paths:
            try:
                found.append(os.lstat(path))
            except FileNotFoundError:
                continue
        return len(found) != len(named) or not all(
            os.path.samestat(file.status, status) for file, status in zip(named, found, strict=True)
        )


def follow(places: Places, is_wanted: Callable[[bytes], bool], out_fd: int) -> int:
    """Write the wanted lines that there are, and those that come, until a signal asks us to stop: its number.

    Raises BrokenPipeError as soon as nobody reads them any more.
    """
    with ExitStack() as stack:
        stack.enter_context(signals.held_back())
        log = stack.enter_context(Log(places))
        try:
            watch = _Watch(places, syscall.inotify())
            stack.callback(os.close, watch.fd)
            stops = syscall.signalfd(signals.heeded())
            stack.callback(os.close, stops)
            out = _Out(out_fd, stops)
            while (signum := signals.pending()) is None:
                watch.renew()
                for line in log.lines():
                    if is_wanted(line):
                        out.put(line + b"\n")
                while out.wait_for(watch.fd) and not watch.has_heard():
                    pass
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOSPC):
                raise
            raise SessionsError(
                f"cannot follow the events in {places.events_dir}: {error.strerror}",
                hint="raise the limits of inotify(7): sysctl fs.inotify",
            ) from error
        # It has had its effect: nothing more is to come of it.
        signal.sigtimedwait((signum,), 0)
        return signum


class _Watch:
    """Hears of what becomes of the log's files, and of the directories they are in, which may go and come back.

    Of the end of a directory only the one above it tells for sure: a file in there that is still open keeps it.
    """

    _CHANGES = syscall.IN_CREATE | syscall.IN_DELETE | syscall.IN_MOVED_FROM | syscall.IN_MOVED_TO

    def __init__(self, places: Places, fd: int) -> None:
        self.fd = fd
        self._places = places
        self._names: dict[int, str] = {}

    def renew(self) -> None:
        """Hear of the files, before they are looked at, or of what has to be made before there can be any."""
        self._names = {}
        runtime_dir = self._places.runtime_dir
        chain = [self._places.events_dir, runtime_dir, os.path.dirname(runtime_dir)]
        while not os.path.isdir(chain[-1]):
            chain.append(os.path.dirname(chain[-1]))
        try:
            for directory, below in zip(chain[:0:-1], chain[-2::-1], strict=True):
                number = syscall.inotify_add_watch(self.fd, directory, self._CHANGES)
                self._names[number] = os.path.basename(below)
            number = syscall.inotify_add_watch(self.fd, chain[0], self._CHANGES | syscall.IN_MODIFY)
            self._names[number] = ""
        except (FileNotFoundError, NotADirectoryError):
            if not self._names:
                self.renew()

    def has_heard(self) -> bool:
        """Whether there is anything to look at; not, if only others have done something."""
        return any(
            # An event without a watch says that some were lost.
            number < 0 or self._names.get(number) in ("", name)
            for number, _mask, name in syscall.heard(self.fd)
        )


class _Out:
    """Where lines are written to, without ever waiting there for longer than until a signal asks us to stop."""

    def __init__(self, fd: int, stops: int) -> None:
        self._fd = fd
        self._stops = stops

    def put(self, data: bytes) -> None:
        """Write all of it; less, if a signal asks us to stop."""
        while data:
            poll = self._poll(select.POLLOUT)
            poll.poll()
            if signals.pending() is not None:
                return
            try:
                data = data[os.write(self._fd, data[:_PIPE_BUF_BYTES]) :]
            except BlockingIOError:
                continue

    def wait_for(self, fd: int) -> bool:
        """Wait until there is something to read; False if it is a signal that has come."""
        poll = self._poll(0)
        poll.register(fd, select.POLLIN)
        ready = dict(poll.poll())
        if ready.get(self._fd, 0) & select.POLLERR:
            raise BrokenPipeError
        return fd in ready

    def _poll(self, events: int) -> select.poll:
        poll = select.poll()
        poll.register(self._fd, events)
        poll.register(self._stops, select.POLLIN)
        return poll
