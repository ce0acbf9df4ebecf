"""The power is cut, again and again: what had begun is there with all that was synced, and of the rest nothing is left.

A user-mode Linux guest works with sessions on a disk of its own, and is killed. In some of the cuts the disk is rebuilt
from the log of its writes, with a part of what was in its cache, in any order.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# No directory of tests is a package, and pytest puts only this file's own directory on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from guest import available
from powerhost import Machine

pytestmark = pytest.mark.guest

ALL = os.environ.get("SESSIONS_CRASH_PAIRS") == "all"
# The moments are the same each time as far as the lines of the guest go, but for the long campaign.
SEED = os.environ.get("SESSIONS_POWER_SEED") or (str(random.SystemRandom().randrange(10**9)) if ALL else "33")
CUTS = int(os.environ.get("SESSIONS_POWER_CUTS") or (100 if ALL else 4))
REORDERED_EACH = 8  # one cut of so many
MOST_LINES = 50 if ALL else 25  # after which the power is cut


def test_power_cuts(disk: Path, tell: Callable[[str], None]) -> None:
    assert available() is None, available()
    machine = Machine(disk / "machine", SEED)
    reordered = 0
    for number in range(CUTS):
        is_reordered = number % min(REORDERED_EACH, CUTS) == 1
        reordered += is_reordered
        machine.cut(random.Random(f"{SEED} {number}"), MOST_LINES, reordered=is_reordered)
    machine.boot("check")
    failures = len(machine.failures)
    tell(
        f"{machine.cuts} power cuts, {reordered} of them with {machine.blocks_lost} of {machine.blocks_cached} blocks"
        f" in the cache lost: {machine.checked} sessions checked, {failures} failures (SESSIONS_POWER_SEED={SEED})"
    )
    assert not machine.failures, "\n".join(machine.failures)
    assert machine.checked > 0, "no session was up when the power was cut"


def test_shutdown_and_boot_as_the_units_have_it(disk: Path) -> None:
    """What is at rest comes back at the next boot, with its data; nothing of ours is mounted in between."""
    assert available() is None, available()
    machine = Machine(disk / "machine", SEED)
    machine.boot("rest")
    assert {name for name, known in machine.expected.sessions.items() if known.must}
    machine.boot("check")
    assert not machine.failures, "\n".join(machine.failures)
