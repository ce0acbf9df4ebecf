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
from powerkinds import ALL as ALL_KINDS
from powerkinds import STACKED, VOLUMES

pytestmark = pytest.mark.guest

ALL = os.environ.get("SESSIONS_CRASH_PAIRS") == "all"
# The moments are the same each time as far as the lines of the guest go, but for the long campaign.
SEED = os.environ.get("SESSIONS_POWER_SEED") or (str(random.SystemRandom().randrange(10**9)) if ALL else "33")
CUTS = int(os.environ.get("SESSIONS_POWER_CUTS") or (100 if ALL else 4))
VOLUME_CUTS = int(os.environ.get("SESSIONS_POWER_CUTS") or (20 if ALL else 2))
REORDERED_EACH = 8  # one cut of so many
MOST_LINES = 50 if ALL else 25  # after which the power is cut


@pytest.fixture(autouse=True)
def guest_is_possible() -> None:
    assert available() is None, available()


def test_power_cuts(disk: Path, tell: Callable[[str], None]) -> None:
    cut_power(Machine(disk / "machine", SEED), CUTS, tell)


@pytest.mark.parametrize("kind", [*VOLUMES, *STACKED])
def test_power_cuts_of_volumes(disk: Path, tell: Callable[[str], None], kind: str) -> None:
    """Sessions of one kind of volume, and some whose layer is a directory.

    LVM writes the metadata of its groups without a flush, so that a disk which loses its cache may lose the group.
    """
    cut_power(Machine(disk / "machine", SEED, (kind, "overlay")), VOLUME_CUTS, tell, may_reorder=kind in STACKED)


def cut_power(machine: Machine, cuts: int, tell: Callable[[str], None], *, may_reorder: bool = True) -> None:
    reordered = 0
    for number in range(cuts):
        is_reordered = may_reorder and number % min(REORDERED_EACH, cuts) == 1
        reordered += is_reordered
        machine.cut(random.Random(f"{SEED} {number}"), MOST_LINES, reordered=is_reordered)
    machine.boot("check")
    failures = len(machine.failures)
    tell(
        f"{machine.cuts} power cuts of {', '.join(machine.kinds)}, {reordered} of them with {machine.blocks_lost} of"
        f" {machine.blocks_cached} blocks in the cache lost: {machine.checked} sessions checked, {failures} failures"
        f" (SESSIONS_POWER_SEED={SEED})"
    )
    assert not machine.failures, "\n".join(machine.failures)
    assert machine.checked > 0, "no session was up when the power was cut"


def test_shutdown_and_boot_as_the_units_have_it(disk: Path) -> None:
    """What is at rest comes back at the next boot, with its data; nothing of ours is mounted in between."""
    machine = Machine(disk / "machine", SEED, tuple(ALL_KINDS))
    machine.boot("rest")
    assert {name for name, known in machine.expected.sessions.items() if known.must}
    machine.boot("check")
    assert not machine.failures, "\n".join(machine.failures)
