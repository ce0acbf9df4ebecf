"""Sessions on volumes, killed wherever they can be: no volume, mapping, array or mount is left after their end.

A sample of the schedules of tests/crash; with SESSIONS_CRASH_PAIRS=all every single kill, and more restarts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# No directory of tests is a package, and pytest puts only this file's own directory on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "crash"))
import crashrun
from crashkinds import MAPPED
from crashrun import Job

ALL = os.environ.get("SESSIONS_CRASH_PAIRS") == "all"
SEED = os.environ.get("SESSIONS_CRASH_SEED") or "1"
KINDS = list(MAPPED) if ALL else ["lvm", "lvm-thin", "luks"]
JOBS: list[Job] = [("one_kill", {"sample": 0 if ALL else 6}), ("reboots", {"sample": 30 if ALL else 2})]
# To open and close a stack takes many programs, each of which takes its time in a guest.
STACK_JOBS: list[Job] = [("one_kill", {"sample": 0 if ALL else 2}), ("reboots", {"sample": 16 if ALL else 1})]


@pytest.mark.parametrize("kind", KINDS)
def test_killed_and_restarted(kind: str, disk: Path, tell: Callable[[str], None]) -> None:
    jobs = STACK_JOBS if MAPPED[kind].word == "stacked" else JOBS
    results = crashrun.do(kind, jobs, disk, "", seed=SEED)
    for job, result in results.items():
        count = len(result["failures"])
        tell(f"{job} of {kind}: {result['runs']} schedules, {count} failures (SESSIONS_CRASH_SEED={SEED})")
        assert result["runs"] > 0
    failures = [failure for result in results.values() for failure in result["failures"]]
    assert not failures, "\n".join(failures)
