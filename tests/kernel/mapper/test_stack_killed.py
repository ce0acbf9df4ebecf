"""Killed at any point while a stack of volumes is opened or closed: ended or swept, nothing of it stays open."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "crash"))
from conftest import Attach, devices
from crashdriver import in_child, must
from helpers import World, mounts
from mapperstack import LUKS_MB, Stack

from sessions import api, lifecycle, store
from sessions.engine import Settings
from sessions.sweep import Sweep

ALL = os.environ.get("SESSIONS_CRASH_PAIRS") == "all"
SEED = os.environ.get("SESSIONS_CRASH_SEED") or "1"
# How many kills are tried on each way, of some hundred: each takes seconds in a guest.
SAMPLE = 3
ID = "s"


class Driver:
    """One stack, and what there was before any session of it."""

    def __init__(self, stack: Stack) -> None:
        self.world, self.places = stack.world, stack.world.places
        self.chroot = stack.define()
        must(in_child(self.begin))
        must(in_child(self.end))
        self.before = self.seen()

    def seen(self) -> tuple[set[str], list[tuple[str, str, str]]]:
        return devices(), mounts()

    def begin(self) -> None:
        api.begin(self.chroot, name=ID, persistent=True, places=self.places)

    def end(self) -> None:
        lifecycle.end(self.places, ID, Settings())

    def sweep(self) -> None:
        found = list(Sweep(self.places, Settings(), False).all())
        assert not [finding for finding in found if finding.is_left], found

    def points(self, way: str) -> int:
        outcomes = [must(in_child(self.begin)), must(in_child(self.end))]
        return len(outcomes[way == "down"].points)

    def kill(self, way: str, at: int) -> list[str]:
        """Kill it there, sweep every other time, and end it: what is wrong after that."""
        if way == "down":
            must(in_child(self.begin))
        killed = in_child(self.begin if way == "up" else self.end, at)
        problems = [] if killed.killed_at else [f"was not killed: {killed.error}"]
        if at % 2:
            problems += [f"sweep: {error}" for error in [in_child(self.sweep).error] if error]
        if store.exists(self.places, ID):
            problems += [f"end: {error}" for error in [in_child(self.end).error] if error]
        left = [path for path in self.world.leftovers() if "/locks/" not in path]
        problems += [f"left: {path}" for path in left]
        if (now := self.seen()) != self.before:
            problems.append(f"was {self.before}, is {now}")
        return [f"killed on the way {way}, point {at}, {killed.killed_at}: {problem}" for problem in problems]


KINDS: dict[str, Callable[[Stack], Stack]] = {
    "all": lambda stack: stack.raid(two(stack, LUKS_MB + 12)).luks().lvm(),
    "luks": lambda stack: stack.luks(),
    "raid": lambda stack: stack.raid(two(stack, 20)),
    "lvm": lambda stack: stack.on(stack.attach(16)).lvm(),
}
TRIED = list(KINDS) if ALL else ["all"]


def two(stack: Stack, size_mb: int) -> list[str]:
    return [stack.attach(size_mb), stack.attach(size_mb)]


@pytest.fixture(params=TRIED)
def driver(world: World, attach: Attach, request: pytest.FixtureRequest) -> Iterator[Driver]:
    stack = KINDS[request.param](Stack(world, attach)).fill().close()
    made = Driver(stack)
    yield made
    must(in_child(made.sweep))  # the locks of those who were killed
    stack.wipe()


def test_killed_at_every_point(driver: Driver, tell: Callable[[str], None]) -> None:
    """A sample; with SESSIONS_CRASH_PAIRS=all every point."""
    for way in ("up", "down"):
        points = list(range(1, driver.points(way) + 1))
        chosen = points if ALL else random.Random(f"{SEED} {way}").sample(points, SAMPLE)
        problems = [problem for at in chosen for problem in driver.kill(way, at)]
        tell(f"{len(chosen)} of {len(points)} kills of a stack on the way {way}: {len(problems)} problems")
        assert not problems, "\n".join(problems)
