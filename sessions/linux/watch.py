"""Waiting for what others do, without looking again and again: changes of directories, ends of processes, signals."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack

from sessions.errors import Interrupted, SessionsError
from sessions.linux import signals, syscall

# poll(2) takes no more than 24 days at once.
_LONGEST_POLL_MS = 86_400_000.0


class Watch:
    """Hears of everything that may end a wait, and of the signals that ask us to stop, which the caller holds back.

    `waiting` is what somebody is doing who waits, for messages: "waiting for chroot sid".
    """

    def __init__(self, waiting: str) -> None:
        self._waiting = waiting
        self._watched: dict[int, tuple[str, Callable[[str], bool]]] = {}

    def __enter__(self) -> Watch:
        with ExitStack() as stack:
            try:
                self._inotify = syscall.inotify()
                stack.callback(os.close, self._inotify)
                self._signals = syscall.signalfd(signals.heeded())
                stack.callback(os.close, self._signals)
            except OSError as error:
                raise self._cannot(error) from error
            self._held = stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._held.close()

    def add(self, directory: str, mask: int, is_relevant: Callable[[str], bool]) -> None:
        """Hear of the changes of `mask` (inotify(7)) to those names in a directory that are relevant."""
        try:
            self._watched[syscall.inotify_add_watch(self._inotify, directory, mask)] = directory, is_relevant
        except OSError as error:
            raise self._cannot(error) from error

    def _cannot(self, error: OSError) -> SessionsError:
        hint = "if many wait, raise the limits of inotify(7): sysctl fs.inotify"
        return SessionsError(f"{self._waiting} is not possible: {error.strerror}", hint=hint)

    def wait(self, pidfds: Iterable[int], deadline_s: float | None = None) -> bool:
        """Return when a relevant name has changed or one of the processes has ended; False if the time is over.

        Raises Interrupted when a signal asks us to stop, SessionsError when a directory is removed.
        """
        poll = select.poll()
        for fd in (self._inotify, self._signals, *pidfds):
            poll.register(fd, select.POLLIN)
        while True:
            left_ms = None if deadline_s is None else max(0.0, deadline_s - time.monotonic()) * 1000
            ready = {fd for fd, _event in poll.poll(None if left_ms is None else min(left_ms, _LONGEST_POLL_MS))}
            self._stop_if_asked()
            if not ready:
                return left_ms is not None and left_ms > _LONGEST_POLL_MS
            if ready - {self._inotify, self._signals} or (self._inotify in ready and self._is_relevant()):
                return True

    def _stop_if_asked(self) -> None:
        signum = signals.pending()
        if signum is not None:
            raise Interrupted(signum, f"{signal.Signals(signum).name} came while {self._waiting}")

    def _is_relevant(self) -> bool:
        """Whether any of the events that have come is about something that is waited for."""
        is_relevant = False
        for number, mask, name in syscall.heard(self._inotify):
            # An event without a watch says that some were lost.
            directory, is_wanted = self._watched.get(number, ("", lambda _name: True))
            if mask & syscall.IN_IGNORED:
                raise SessionsError(f"{directory} was removed while {self._waiting}", hint="try again")
            is_relevant = is_relevant or is_wanted(name)
        return is_relevant
