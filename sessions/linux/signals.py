"""Signals that ask us to stop: held back while the state of a session is changed, looked at between its steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

STOPPING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


@contextmanager
def held_back() -> Iterator[None]:
    """Keep the stopping signals pending until the block is left, when they take their usual course."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def heeded() -> list[int]:
    """Those of the stopping signals that we are not told to ignore."""
    return [signum for signum in STOPPING if not _is_ignored(signum)]


def pending(signals: Sequence[int] = STOPPING) -> int | None:
    """The first of `signals` that has arrived while they were held back; not one that we are told to ignore."""
    arrived = signal.sigpending()
    if not arrived:
        return None
    return next((int(signum) for signum in signals if signum in arrived and not _is_ignored(signum)), None)


def _is_ignored(signum: int) -> bool:
    """A signal that is blocked is kept even if it is ignored (sigaction(2)), as under nohup(1)."""
    return signal.getsignal(signum) is signal.SIG_IGN
