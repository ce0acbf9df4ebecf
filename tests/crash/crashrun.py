"""Starts the processes that do the jobs of one kind of session side by side, and adds up what came of them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import world

MAIN = Path(__file__).with_name("crashmain.py")
WORKERS = min(os.cpu_count() or 1, 4)

Job = tuple[str, dict[str, Any]]
Results = dict[str, dict[str, Any]]


def do(kind: str, jobs: Sequence[Job], disk: Path, etc: str, *, seed: str, shared: bool = False) -> Results:
    """Do all jobs of a kind, shared out among processes; for each job how many schedules there were, and failures."""
    world.check_possible(disk)
    workers = []
    for number in range(WORKERS):
        words = {
            "kind": kind,
            "shared": shared,
            "etc": etc,
            "jobs": jobs,
            "share": [number, WORKERS],
            "seed": seed,
            "base": str(disk / str(number)),
        }
        workers.append(world.start(MAIN, json.dumps(words)))
    outputs = [worker.communicate()[0] for worker in workers]
    assert not any(worker.returncode for worker in workers), "a worker failed: see its standard error"
    total: Results = {}
    for output in outputs:
        for job, result in json.loads(output).items():
            sums = total.setdefault(job, {"runs": 0, "failures": []})
            sums["runs"] += result["runs"]
            sums["failures"] += result["failures"]
    return total
