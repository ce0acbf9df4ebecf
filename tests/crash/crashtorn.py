"""Journals that are not as they were written: cut short, or with a bit turned over."""

from __future__ import annotations

import json
import os
from pathlib import Path

from crashdriver import ID, OTHER, Driver, in_child, must
from world import forget_reboots, reboot

from sessions import lifecycle, store
from sessions.errors import JournalError
from sessions.journal import Journal, open_existing
from sessions.steps import Context, Stage

FLIPS_PER_LINE = 3
HEADER_FLIPS = 24


def torn(driver: Driver, share: tuple[int, int]) -> None:
    """Cut at each byte of the last line; bits turned over in marks and in the header."""
    number, of = share
    driver.rng.seed(f"{driver.rng.random()} {number}")
    data = up(driver).read_bytes()
    end_and_compare(driver, "not torn")
    last = data.rindex(b"\n", 0, -1) + 1
    for length in range(last + number, len(data), of):
        path = up(driver)
        os.truncate(path, path.stat().st_size - (len(data) - length))
        end_and_compare(driver, f"cut {len(data) - length} bytes from its end")
    lines = data.count(b"\n")
    for line in range(1 + number, lines, of):
        for _flip in range(FLIPS_PER_LINE):
            flip_in_mark(driver, line)
    for _flip in range(HEADER_FLIPS // of):
        flip_in_header(driver)
    every_flip(driver, share)


def up(driver: Driver) -> Path:
    """A session that is up: the path of its journal."""
    driver.up()
    return Path(store.find(driver.places, ID).path)


def end_and_compare(driver: Driver, what: str) -> None:
    driver.settle(f"journal {what}", with_mark=True)


def flip(path: Path, offset: int, bit: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def flip_in_mark(driver: Driver, line: int) -> None:
    path = up(driver)
    lines = path.read_bytes().splitlines(keepends=True)
    offset = len(b"".join(lines[:line])) + driver.rng.randrange(len(lines[line]))
    bit = driver.rng.randrange(8)
    flip(path, offset, bit)
    if driver.kind.changes_original:
        # Nobody knows any more that we have made these, so they are left alone; without its newline a mark spoils
        # the next one too.
        spoilt = lines[line : line + 1 + (offset == len(b"".join(lines[: line + 1])) - 1)]
        made = [target for mark in spoilt for target in json.loads(mark[9:]).get("note", {}).get("made", ())]
        driver.may_stay = {f"{driver.original}{target}" for target in made}
    end_and_compare(driver, f"with bit {bit} of byte {offset}, in mark {lines[line]!r}, turned over")
    driver.may_stay = set()


def flip_in_header(driver: Driver) -> None:
    """End has to refuse, naming the file; others are not touched by it. Mended, it can be ended."""
    path = up(driver)
    offset, bit = driver.rng.randrange(path.read_bytes().index(b"\n") + 1), driver.rng.randrange(8)
    flip(path, offset, bit)
    problems = []
    ended = in_child(driver.end)
    if not ended.error.startswith("JournalError:") or str(path) not in ended.error:
        problems.append(f"end said {ended.error or 'nothing'!r}")
    if [type(item) for item in lifecycle.listed(driver.places)] != [JournalError]:
        problems.append("the list does not show it as damaged")
    for action in (
        lambda: driver.begin(OTHER),
        lambda: driver.run_true(OTHER),
        lambda: driver.end(OTHER),
    ):
        problems += [f"another session: {error}" for error in [in_child(action).error] if error]
    flip(path, offset, bit)
    driver.settle(f"journal with bit {bit} of byte {offset}, in its header, turned over", problems, with_mark=True)


def every_flip(driver: Driver, share: tuple[int, int]) -> None:
    """Every bit of every byte: the header is refused; a mark is noticed to be damaged, or it is the last and torn."""
    path = up(driver)
    data = path.read_bytes()
    marks, last = data.index(b"\n") + 1, data.rindex(b"\n", 0, -1) + 1
    copy = driver.world.base / "copy" / path.name
    copy.parent.mkdir()
    copy.write_bytes(data[:last])
    with open_existing(str(copy), for_marks=False) as journal:
        without_last = known(journal)
    problems = []
    for offset in range(share[0], len(data), share[1]):
        for bit in range(8) if offset >= marks else [driver.rng.randrange(8)]:
            copy.write_bytes(data[:offset] + bytes([data[offset] ^ 1 << bit]) + data[offset + 1 :])
            try:
                with open_existing(str(copy), for_marks=True) as journal:
                    fine = offset >= marks and (journal.is_damaged or known(journal) == without_last)
            except JournalError as error:
                fine = offset < marks and str(copy) in str(error)
            if not fine:
                problems.append(f"bit {bit} of byte {offset} in {data[max(marks, offset - 30) : offset + 20]!r}")
    copy.unlink()
    copy.parent.rmdir()
    must(in_child(driver.end))
    driver.note("bits turned over that are not noticed", problems[:20])


def known(journal: Journal) -> tuple[object, ...]:
    return journal.states, journal.notes, journal.is_up, journal.was_up, journal.is_going_down, journal.is_damaged


def lost_marks(driver: Driver, share: tuple[int, int]) -> None:
    """A power cut takes the marks that were not synced; what was done by then may be there or not: both are ended."""
    number, of = share
    path = up(driver)
    synced = 1
    lines = path.read_bytes().splitlines(keepends=True)
    with open_existing(str(path), for_marks=False) as journal:
        for index, step in enumerate(journal.plan):
            context = Context(
                journal.session, Stage.START, lambda letter, line: None, note=journal.notes.get(index, {})
            )
            if step.wants_sync(context) and not step.always_undone:
                begin = b'"mark":"begin","step":%d' % index
                synced = next(line for line, text in enumerate(lines, 1) if begin in text)
    end_and_compare(driver, "whole")
    for count in range(synced + number, len(lines), of):
        path = up(driver)
        data = b"".join(path.read_bytes().splitlines(keepends=True)[:count])
        os.truncate(path, len(data))
        reboot(driver.world)
        end_and_compare(driver, f"that has lost its marks from the {count}th on, after a reboot")
        forget_reboots()
