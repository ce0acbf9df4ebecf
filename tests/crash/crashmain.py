"""The program that runs in namespaces of its own.

Called with jobs in JSON it does them, and prints what came of each in JSON. Called with ``end BASE FD`` it ends the
session, in an interpreter that has seen nothing of its beginning, and tells FD.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
from pathlib import Path

import crashdriver
import crashjobs
import world
from crashkinds import KINDS, MAPPED

from sessions import lifecycle
from sessions.engine import Settings


def main() -> None:
    if sys.argv[1] == "end":
        places = world.places_in(Path(sys.argv[2]))
        crashdriver.perform_and_tell(lambda: lifecycle.end(places, crashdriver.ID, Settings()), 0, int(sys.argv[3]))
        return
    job = json.loads(sys.argv[1])
    # What scripts and commands print is not to get between us and the test.
    report_fd = os.dup(1)
    os.dup2(2, 1)
    base = Path(job["base"])
    base.mkdir()
    driver = crashdriver.Driver(base, {**KINDS, **MAPPED}[job["kind"]], shared=job["shared"], etc=job["etc"])
    gc.collect()
    gc.freeze()
    results = {}
    for name, arguments in job["jobs"]:
        # The same for every process that has a share.
        driver.rng = random.Random(f"{job['seed']} {name}")
        driver.runs, driver.failures = 0, []
        try:
            crashjobs.JOBS[name](driver, tuple(job["share"]), **arguments)
        except crashdriver.TooMany:
            driver.failures.append("given up")
        results[name] = {"runs": driver.runs, "failures": driver.failures}
    driver.world.close()
    with open(report_fd, "w") as report:
        json.dump(results, report)


if __name__ == "__main__":
    main()
