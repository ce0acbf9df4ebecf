"""The soak, in namespaces of its own: workers, then what takes everything away, and what is left then.

Called with its settings in JSON; prints what came of it in JSON.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import mmap
import os
import random
import sys
import traceback
from collections import Counter
from pathlib import Path

import soakworld
import world as worlds
from crashdriver import contents
from snapshot import Snapshot, differences
from soakwork import Worker
from soakworld import CHROOTS, TWINS, Kill, Log
from world import World

import sessions

WORKERS = 16


def main() -> None:
    settings = json.loads(sys.argv[1])
    # What scripts and commands print is not to get between us and the test.
    report_fd = os.dup(1)
    os.dup2(2, 1)
    faulthandler.enable()
    # As a daemon: a command inside starts where we are.
    os.chdir("/")
    base = Path(settings["base"])
    base.mkdir()
    world = worlds.make(base, scripts={"30soak": soakworld.SCRIPT}, shared=True, etc=settings["etc"])
    soakworld.lay_out(world)
    warm_up(world)
    before, packed = world.snapshot(), contents(world.archive)
    log = Log()
    gc.collect()
    gc.freeze()
    counts, problems = let_them_work(world, log, settings["seed"], settings["operations"])
    events = list(log.events())
    problems += soakworld.unjustified(events)
    problems += take_away(world, log, counts)
    problems += left(world, before)
    if contents(world.archive) != packed:
        problems.append("the archive is not as it was")
    world.close()
    killed = sum(isinstance(event, Kill) for event in events)
    with open(report_fd, "w") as report:
        json.dump({"counts": counts, "problems": problems, "killed": killed}, report)


def warm_up(world: World) -> None:
    """What a session leaves in an original that it has no layer over: copies of the host's files."""
    for chroot in (*CHROOTS, *TWINS):
        with sessions.begin(chroot, places=world.places) as session:
            session.run(["true"], check=True)


def let_them_work(world: World, log: Log, seed: str, operations: int) -> tuple[Counter[str], list[str]]:
    """All workers, side by side; what they counted, and what was wrong."""
    stop = mmap.mmap(-1, 1)
    gate, opened = os.pipe()
    everybody = os.memfd_create("everybody", os.MFD_CLOEXEC)
    results = [os.memfd_create("result", os.MFD_CLOEXEC) for _number in range(WORKERS)]
    for number, result in enumerate(results):
        share = operations // WORKERS + (number < operations % WORKERS)
        pid = os.fork()
        if pid == 0:
            try:
                os.close(opened)
                os.read(gate, 1)
                world.helpers |= {1, *json.loads(_text(everybody))}
                worker = Worker(world, log, random.Random(f"{seed} {number}"), stop, share)
                worker.work()
                os.write(result, json.dumps([worker.counts, worker.problems]).encode())
            except BaseException:
                stop[0] = 1
                os.write(result, json.dumps([{}, [traceback.format_exc()]]).encode())
            finally:
                os._exit(0)
        world.helpers.add(pid)
    os.write(everybody, json.dumps(sorted(world.helpers)).encode())
    # Nobody begins before everybody is there, and is known not to be killed.
    os.close(opened)
    os.close(gate)
    _reap_until(world)
    counts: Counter[str] = Counter()
    problems: list[str] = []
    for result in results:
        counted, found = json.loads(_text(result))
        counts.update(counted)
        problems += found
    return counts, problems


def _reap_until(world: World) -> None:
    """Until every worker has ended; in this pid namespace all orphans are ours."""
    workers = world.helpers - ({world.peer.pid} if world.peer else set())
    while workers:
        pid, _status = os.waitpid(-1, 0)
        workers.discard(pid)


def _text(fd: int) -> str:
    return Path(f"/proc/self/fd/{fd}").read_text()


def take_away(world: World, log: Log, counts: Counter[str]) -> list[str]:
    """What anybody would do who finds the machine like that: each command has to succeed."""
    keeper = Worker(world, log, random.Random(0), mmap.mmap(-1, 1), 0)
    locked = os.listdir(world.places.maintenance_dir)
    problems = []
    for words in (["gc"], *(["unlock", chroot] for chroot in locked), ["end", "--all"], ["gc", "--json"]):
        counts[f"{words[0]} at the end: {len(os.listdir(world.places.journal_dir))} sessions"] += 1
        ended = keeper.call(*words)
        if ended.status != 0:
            problems.append(f"at the end, {ended.words}: status {ended.status}: {ended.stdout} {ended.stderr}")
    return problems + keeper.problems


def left(world: World, before: Snapshot) -> list[str]:
    """What is not as it was before."""
    worlds.reap()
    now = world.snapshot()
    if now.processes != before.processes:
        worlds.wait_for_dying(now.processes - before.processes)
        now = world.snapshot()
    places = world.places
    # An archive that was packed anew is the same in another order of bytes.
    archive = str(world.archive)
    changed = {archive: now.files[archive]} if archive in now.files else {}
    found = differences(before, now, permanent=world.permanent, changed=changed)
    found += [f"locked: {path}" for path in world.held_locks()]
    found += [f"lock file left: {name}" for name in world.lock_files()]
    for directory in (places.journal_dir, places.waiting_dir, places.maintenance_dir):
        found += [f"record left: {directory}/{name}" for name in os.listdir(directory)]
    return found


if __name__ == "__main__":
    main()
