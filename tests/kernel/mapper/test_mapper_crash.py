"""Sessions on logical volumes, killed wherever they can be: no volume, mapping or mount is left after their end.

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
KINDS = [kind for kind in MAPPED if ALL or not MAPPED[kind].automatic]
JOBS: list[Job] = [("one_kill", {"sample": 0 if ALL else 6}), ("reboots", {"sample": 30 if ALL else 2})]


@pytest.mark.parametrize("kind", KINDS)
def test_killed_and_restarted(kind: str, disk: Path, tell: Callable[[str], None]) -> None:
    results = crashrun.do(kind, JOBS, disk, "", seed=SEED)
    for job, result in results.items():
        count = len(result["failures"])
        tell(f"{job} of {kind}: {result['runs']} schedules, {count} failures (SESSIONS_CRASH_SEED={SEED})")
        assert result["runs"] > 0
    failures = [failure for result in results.values() for failure in result["failures"]]
    assert not failures, "\n".join(failures)
