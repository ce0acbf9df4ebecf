"""The log of a disk's writes that the kernel's dm-log-writes keeps, and what a power cut may leave of them.

The kernel's Documentation/admin-guide/device-mapper/log-writes.rst tells how the log comes about: a write stands in it
before the first flush that was asked for after the write's end; what is written past a disk's cache (FUA), and marks,
stand where they happened. The layout is in drivers/md/dm-log-writes.c.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAGIC, VERSION = 0x6A736677736872, 1
SUPER, ENTRY = struct.Struct("<QQQI"), struct.Struct("<QQQQ")
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
# A disk may have written some blocks of a write and not the others.
BLOCK_BYTES = 4096


@dataclass(frozen=True)
class Entry:
    """One line of the log: `data_at` is where in the log its data lies, `text` what a mark says."""

    flags: int
    offset_bytes: int
    length_bytes: int
    data_at: int
    text: str = ""


def read(log: Path) -> list[Entry]:
    """Every entry, in order."""
    with log.open("rb") as file:
        magic, version, count, sector_bytes = SUPER.unpack(file.read(SUPER.size))
        assert (magic, version) == (MAGIC, VERSION), f"{log} is not a log of dm-log-writes"
        entries, at = [], sector_bytes
        for _number in range(count):
            file.seek(at)
            head = file.read(sector_bytes)
            sector, sectors, flags, text_bytes = ENTRY.unpack_from(head)
            text = head[ENTRY.size : ENTRY.size + text_bytes].decode().replace(",", " ") if flags & MARK else ""
            length_bytes = sectors * sector_bytes
            entries.append(Entry(flags, sector * sector_bytes, length_bytes, at + sector_bytes, text))
            at += sector_bytes + (0 if flags & DISCARD else length_bytes)
        return entries


def choose_flush(entries: list[Entry], start: str, rng: random.Random) -> int:
    """The number of some flush after the first mark that says `start`: rather one that much has to be written for."""
    is_started, cached = False, 1
    weights: dict[int, int] = {}
    for number, entry in enumerate(entries):
        is_started = is_started or entry.text == start
        if entry.flags & FLUSH:
            if is_started:
                weights[number] = cached
            cached = 1
        elif not entry.flags & (FUA | MARK):
            cached += entry.length_bytes // BLOCK_BYTES
    return rng.choices(list(weights), list(weights.values()))[0]


def cut(log: Path, entries: list[Entry], flush: int, disk: Path, rng: random.Random) -> tuple[list[str], int, int]:
    """Write to a disk what it may have if the power is cut just before a flush of it is done.

    All that an earlier flush was about is there, and all that was written past the cache. Of the blocks that are still
    in the cache some are there, in any order. Returns the marks until then, how many blocks were in the cache, and how
    many of them are lost.
    """
    settled = max((number for number in range(flush) if entries[number].flags & FLUSH), default=-1)
    share = rng.choice((0.1, 0.5, 0.9))
    marks, cached, lost = [], 0, 0
    with log.open("rb") as source, disk.open("r+b") as target:
        for number, entry in enumerate(entries[:flush]):
            if entry.flags & MARK:
                marks.append(entry.text)
                continue
            assert not entry.flags & DISCARD, "the file system is mounted without discards"
            for at, length_bytes in _blocks(entry):
                if number > settled and not entry.flags & FUA:
                    cached += 1
                    if rng.random() < share:
                        lost += 1
                        continue
                data = os.pread(source.fileno(), length_bytes, entry.data_at + at)
                os.pwrite(target.fileno(), data, entry.offset_bytes + at)
    return marks, cached, lost


def _blocks(entry: Entry) -> Iterator[tuple[int, int]]:
    """Where each block of an entry starts in its data, and its length."""
    for at in range(0, entry.length_bytes, BLOCK_BYTES):
        yield at, min(BLOCK_BYTES, entry.length_bytes - at)
