"""How far the unpacking of an archive has come, on a terminal, for a person who waits for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sessions.data import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from tqdm import tqdm

    from sessions.linux.archive import Progress

# Bytes of the archive as it is on the disk, since of what comes out of it nobody knows how much there will be.
_FORM = "{desc} {percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt}, {rate_fmt}, until {eta:%H:%M:%S}"
# What takes no longer is not worth a line; by then there is a rate to tell.
_DELAY_S = 0.5
_INTERVAL_S = 0.2
# Of a terminal that does not know its own, as a serial line.
_USUAL = os.terminal_size((80, 24))


def on_terminal(*, is_quiet: bool = False) -> Progress | None:
    """What shows it on standard error; None if that is no terminal."""
    return None if is_quiet or not os.isatty(2) else _shown


@contextmanager
def _shown(archive: str, size_bytes: int) -> Iterator[Callable[[int], None]]:
    """A line that is written again and again, without colours, and is gone at the end."""
    from tqdm import tqdm

    # It would start a thread, to look after bars that are told of nothing for long.
    tqdm.monitor_interval = 0
    size = os.get_terminal_size(2)
    with tqdm(
        desc=f"unpacking {os.path.basename(archive)}",
        total=size_bytes,
        unit="B",
        unit_scale=True,
        bar_format=_FORM,
        leave=False,
        delay=_DELAY_S,
        mininterval=_INTERVAL_S,
        ncols=size.columns or _USUAL.columns,
        nrows=size.lines or _USUAL.lines,
    ) as bar:
        yield lambda position: _move(bar, position)


def _move(bar: tqdm[Any], position: int) -> None:
    bar.update(position - bar.n)
