"""Whatever is killed or fails and whenever: ending the session brings everything back to what it was before it.

The jobs of one kind of session are done together, by processes that know it already; each test looks at one of them.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import crashrun
import pytest
from crashkinds import KINDS
from crashrun import Job, Results

ALL = os.environ.get("SESSIONS_CRASH_PAIRS") == "all"
# The samples are the same each time, but for the long campaigns, or SESSIONS_CRASH_SEED.
SEED = os.environ.get("SESSIONS_CRASH_SEED") or (str(random.SystemRandom().randrange(10**9)) if ALL else "1")
# How many schedules there are of what is not tried in full.
SHARED, PAIRS, MORE_PAIRS, REBOOTS, RESTS, ERRNOS, MORE_ERRNOS = 16, 12, 200, 30, 30, 12, 1000

_PAIRED = ["overlay", "directory", "archive-cached", "archive-source", "script", "tmpfs-automatic", "btrfs-snapshot"]
PAIRED = list(KINDS) if ALL else _PAIRED
RESTED = ["overlay", "overlay-default-profile", "directory", "archive", "archive-cached", "archive-source"]
RESTED += ["tmpfs", "script", "services", "loopback"]
EVERY_ERRNO = ["overlay", "directory", "archive", "tmpfs", "script"]
TORN = ["overlay", "directory", "archive", "script"]
LOST = [*TORN, "overlay-elsewhere", "archive-overlay", "archive-cached", "archive-source", "script-in-directory"]
LOST += ["loopback-in-place", "image", "btrfs-snapshot"]
# Kinds that take long, or are little different: what is tried of them in full only in the long campaigns, and how much.
SAMPLED = {"loopback-in-place": 40, "image": 40, "zfs-snapshot": 4}
# And these are killed, and all else only in those campaigns.
FULL = [kind for kind in KINDS if ALL or kind != "zfs-snapshot"]
# Without the kinds that are no different in this.
_AS_OTHERS = ("overlay-first-ever", "overlay-beside-another", "overlay-early", "tmpfs-automatic")
REBOOTED = [kind for kind in FULL if kind not in _AS_OTHERS]

Run = Callable[..., None]


@cache
def jobs_of(kind: str, shared: bool) -> list[Job]:
    """What is done with one kind; a sample of 0 is everything."""
    full = sys.maxsize if ALL else SAMPLED.get(kind, sys.maxsize)
    if shared:
        return [("one_kill", {"sample": 0 if ALL or kind == "overlay" else min(SHARED, full)})]
    jobs: list[Job] = [("one_kill", {"sample": 0 if full == sys.maxsize else full})]
    if kind in FULL:
        jobs.append(("errnos", {"sample": min(ERRNOS, full) if not ALL else 0 if kind in EVERY_ERRNO else MORE_ERRNOS}))
    if kind in PAIRED:
        jobs.append(("two_kills", {"sample": PAIRS if not ALL else 0 if kind == "overlay" else MORE_PAIRS}))
    if kind in REBOOTED:
        jobs.append(("reboots", {"sample": 0 if ALL or kind in ("overlay", "directory") else min(REBOOTS, full)}))
    if kind in RESTED:
        jobs.append(("rests", {"sample": 0 if ALL or kind == "overlay" else RESTS}))
    if kind in TORN:
        jobs.append(("torn", {}))
    if kind in LOST:
        jobs.append(("lost_marks", {}))
    return jobs


@pytest.fixture(scope="module")
def done() -> dict[tuple[str, bool], Results]:
    """What has been done already."""
    return {}


@pytest.fixture
def run(done: dict[tuple[str, bool], Results], disk: Path, etc: str, tell: Callable[[str], None]) -> Run:
    """Sees to it that a job has been done, and fails with what was found."""

    def run_job(job: str, kind: str, *, shared: bool = False) -> None:
        if (kind, shared) not in done:
            jobs = jobs_of(kind, shared)
            done[(kind, shared)] = crashrun.do(kind, jobs, disk, etc, seed=SEED, shared=shared)
        result = done[(kind, shared)][job]
        where = ", every mount shared" if shared else ""
        count = len(result["failures"])
        tell(f"{job} of {kind}{where}: {result['runs']} schedules, {count} failures (SESSIONS_CRASH_SEED={SEED})")
        assert result["runs"] > 0
        assert not result["failures"], "\n".join(result["failures"])

    return run_job


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_every_point(kind: str, run: Run) -> None:
    run("one_kill", kind)


@pytest.mark.parametrize("kind", FULL)
def test_killed_where_every_mount_is_shared(kind: str, run: Run) -> None:
    """Nothing may be left in another mount namespace either, which gets every shared mount."""
    run("one_kill", kind, shared=True)


@pytest.mark.parametrize("kind", PAIRED)
def test_killed_again_while_it_is_ended(kind: str, run: Run) -> None:
    """A sample; with SESSIONS_CRASH_PAIRS=all every pair of the simplest overlay, and more of every kind.

    What else is a sample by default is then done in full.
    """
    run("two_kills", kind)


@pytest.mark.parametrize("kind", REBOOTED)
def test_rebooted(kind: str, run: Run) -> None:
    """The restart is simulated: another boot id, nothing mounted, nothing running, an empty runtime directory."""
    run("reboots", kind)


@pytest.mark.parametrize("kind", RESTED)
def test_killed_while_it_is_laid_to_rest(kind: str, run: Run) -> None:
    run("rests", kind)


@pytest.mark.parametrize("kind", TORN)
def test_journals_that_are_torn_or_damaged(kind: str, run: Run) -> None:
    run("torn", kind)


@pytest.mark.parametrize("kind", LOST)
def test_marks_lost_in_a_power_cut(kind: str, run: Run) -> None:
    run("lost_marks", kind)


@pytest.mark.parametrize("kind", FULL)
def test_system_calls_that_fail(kind: str, run: Run) -> None:
    """A sample; with SESSIONS_CRASH_PAIRS=all every call of the simplest kinds with every errno, and more of all."""
    run("errnos", kind)
