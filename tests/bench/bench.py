"""How fast sessions are, beside Debian's schroot and beside the raw system calls: `python -m tests.bench.bench`.

Needs root, Debian's package schroot for the comparison and busybox-static (or a Debian tree in $SESSIONS_TEST_CACHE)
for the chroot. Everything happens in mount namespaces of its own and in one directory in /var/tmp, which is removed.
All are measured in turn in one run, so that noise hits all alike. Times are medians and minima; what counts is ratios.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import archives, contenders, scale, storage
from tests.bench.contenders import PROFILES, Program
from tests.bench.worker import NotMeasured, Worker, leave_namespace, make_disk

DEFAULT_ROUNDS = 15
# Where the machine is busy, or slow, the default number of rounds is cut short.
BUDGET_S = 50.0
# On a disk: an overlay's layer on a tmpfs costs nothing to sync.
WORK_PARENT = "/var/tmp"
PARTS = ("cycle", "begin", "run", "end")


@dataclass(frozen=True)
class Target:
    """A ratio of two medians that is not to be exceeded."""

    words: str
    case: str
    to: str
    limit: float


# With the most sessions open, against none: what of ours may take longer, and by how much.
FLAT_LIMIT = 1.3
FLAT = tuple(f"{name} {part}" for name in ("api", "drop-in") for part in ("begin", "run", "end"))
# Sessions begun in a second by as many processes, against those of one process for each processor.
CROWD, CROWD_LIMIT, CROWD_ROUNDS = 16, 0.8, 5

TARGETS = (
    Target("warm API cycle against the raw system calls", "api cycle", "floor cycle", 2.0),
    Target("schroot -c X -- true against Debian's", "drop-in cycle", "debian cycle", 0.6),
    Target("sessions run X -- true against Debian's schroot -c", "native cycle", "debian cycle", 0.6),
)


@dataclass
class Results:
    """All times in microseconds by profile and case, and why what is missing is missing."""

    times: dict[str, dict[str, list[float]]] = field(default_factory=lambda: {profile: {} for profile in PROFILES})
    missing: dict[str, str] = field(default_factory=dict)
    disk: str = ""
    scale: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """The times with so many sessions open."""
    storage: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """The times of sessions of chroots of other types."""
    archives: dict[str, list[float]] = field(default_factory=dict)
    """The times of sessions of an archive."""
    crowd: dict[str, list[float]] = field(default_factory=dict)
    """The times of a begin with so many processes at once."""

    def ratio(self, profile: str, case: str, to: str, of: Callable[[list[float]], float]) -> float | None:
        """One case by another; `of` is what is taken of each case's times."""
        times = self.times[profile]
        return of(times[case]) / of(times[to]) if case in times and to in times else None

    @property
    def rounds(self) -> int:
        """How many rounds there were."""
        return max((len(values) for cases in self.times.values() for values in cases.values()), default=0)


def measure(
    work: str, rounds: int, budget_s: float, programs: list[Program], debian: Program | None, debians_most: int
) -> Results:
    """All rounds; the first, in which everything is loaded and compiled, does not count. Then what many do."""
    leave_namespace()
    disk, archives_disk = f"{work}/disk", f"{work}/archives"
    for directory in (disk, archives_disk):
        os.mkdir(directory, 0o755)
    results = Results(disk=make_disk(disk))
    ground = contenders.lay_ground(disk)
    try:
        storage.lay(ground)
        has_storage = True
    except NotMeasured as error:
        results.missing["other types"] = str(error)
        has_storage = False
    makers: dict[str, Callable[[], Any]] = {
        "floor": partial(contenders.Floor, ground),
        "api": partial(contenders.Api, ground),
        "own": partial(contenders.Own, ground, programs),
    }
    if debian:
        makers["debian"] = partial(contenders.Debian, ground, debian)
    workers: dict[str, Worker] = {}
    try:
        for name, make in makers.items():
            workers[name] = Worker(make)
        start = time.monotonic()
        for number in range(rounds + 1):
            if number > 1 and time.monotonic() - start > budget_s:
                break
            for profile in PROFILES:
                for name in [name for name in workers if name not in results.missing]:
                    _ask(workers[name], name, profile, results, counts=number > 0)
        if has_storage:
            measured = {name: worker for name, worker in workers.items() if name not in results.missing}
            results.storage, missing = storage.measure(measured)
            results.missing |= missing
    finally:
        for worker in workers.values():
            worker.close()
    _measure_scale(results, partial(scale.ManyOpen, ground, programs), scale.OPEN)
    if debian:
        _measure_debians(results, partial(scale.ManyOpenDebian, ground, debian), debians_most)
    _measure_crowd(results, partial(scale.Crowd, ground))
    try:
        results.archives = archives.measure(archives_disk, programs, debian)
    except NotMeasured as error:
        results.missing["sessions of an archive"] = str(error)
    return results


def _measure_scale(results: Results, make: Callable[[], Any], numbers: Iterable[int]) -> None:
    """Beside so many open sessions: each number in a namespace of its own, in turn, so that noise hits all alike."""
    workers = {str(number): Worker(make) for number in numbers}
    try:
        for round_ in range(scale.ROUNDS + 1):
            for number, worker in workers.items():
                times = worker.measure(number)
                # The first has to open them.
                for case, value in times.items() if round_ else ():
                    results.scale.setdefault(number, {}).setdefault(case, []).append(value)
    except NotMeasured as error:
        results.missing["ours, with many open"] = str(error)
    finally:
        for worker in workers.values():
            worker.close()


def _measure_debians(results: Results, make: Callable[[], Any], most: int) -> None:
    """Beside more and more open sessions."""
    worker = Worker(make)
    try:
        for number in range(0, most + 1, scale.DEBIANS_STEP):
            for case, value in worker.measure(str(number)).items():
                results.scale.setdefault(str(number), {}).setdefault(case, []).append(value)
            for _round in range(scale.DEBIANS_ROUNDS if number in scale.OPEN else 0):
                for case, value in worker.measure(str(number)).items():
                    results.scale[str(number)][case].append(value)
    except NotMeasured as error:
        results.missing["debian, with many open"] = str(error)
    finally:
        worker.close()


def _measure_crowd(results: Results, make: Callable[[], Any]) -> None:
    """In turn, so that noise hits both alike."""
    worker = Worker(make)
    try:
        for _round in range(CROWD_ROUNDS):
            for processes in (os.cpu_count() or 1, CROWD):
                results.crowd.setdefault(str(processes), []).append(worker.measure(str(processes))["begin"])
    except NotMeasured as error:
        results.missing["many who begin at once"] = str(error)
    finally:
        worker.close()


def _verdicts(results: Results) -> list[dict[str, Any]]:
    """Whether it is as fast with many open, and with many at once; a ratio beyond its limit is missed."""
    found = []
    none, most = (results.scale.get(str(number), {}) for number in (scale.OPEN[0], scale.OPEN[-1]))
    for case in FLAT:
        if case in none and case in most:
            words = f"{case} with {scale.OPEN[-1]} sessions open against none, at most"
            found.append(_verdict(words, most[case], none[case], FLAT_LIMIT, is_most=True))
    few, many = (results.crowd.get(str(number)) for number in (os.cpu_count() or 1, CROWD))
    if few and many:
        words = f"begins a second by {CROWD} processes against one for each processor, at least"
        found.append(_verdict(words, few, many, CROWD_LIMIT, is_most=False))
    times = results.archives
    if times:
        words = "first session of a Debian's archive against tar -x with the same decompressor, at most"
        found.append(_verdict(words, times["first"], times["tar"], archives.FIRST_LIMIT, is_most=True))
    for later in [case for case in times if "debian" in times and case.startswith("later")]:
        words = f"Debian's schroot against {later.removeprefix('later ')} for a later one, at least"
        found.append(_verdict(words, times["debian"], times[later], archives.LATER_LIMIT, is_most=False))
    return found


def _verdict(words: str, of: list[float], to: list[float], limit: float, *, is_most: bool) -> dict[str, Any]:
    ratio = statistics.median(of) / statistics.median(to)
    return {
        "what": words,
        "ratio": round(ratio, 3),
        "ratio_of_minima": round(min(of) / min(to), 3),
        "limit": limit,
        "met": ratio <= limit if is_most else ratio >= limit,
    }


def apart(measuring: Callable[[], Results]) -> Results:
    """:func:`measure` in a process of its own, so that all it has mounted is gone with it; raises NotMeasured."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            os.close(read_fd)
            answer = _answer(measuring)
            with os.fdopen(write_fd, "w") as pipe:
                json.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(write_fd)
    # ^C reaches both of us; we wait for the other's end, whatever comes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _signum, _frame: os.kill(pid, signal.SIGTERM))
    with os.fdopen(read_fd) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    answer = json.loads(text or '{"reason": "its process was killed"}')
    if "reason" in answer:
        raise NotMeasured(answer["reason"])
    return Results(**answer)


def _answer(measuring: Callable[[], Results]) -> dict[str, Any]:
    try:
        return asdict(measuring())
    except KeyboardInterrupt:
        return {"reason": "interrupted"}
    except (NotMeasured, OSError) as error:
        return {"reason": str(error)}


def _ask(worker: Worker, name: str, profile: str, results: Results, *, counts: bool) -> None:
    try:
        times = worker.measure(profile)
    except NotMeasured as error:
        results.missing[name] = str(error)
        return
    for case, value in times.items() if counts else ():
        results.times[profile].setdefault(case, []).append(value)


def record(results: Results, seconds: float, commands: Iterable[Program]) -> dict[str, Any]:
    """All that is known, for a machine."""
    return {
        "rounds": results.rounds,
        "seconds": round(seconds, 1),
        "system": {
            "kernel": platform.release(),
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
            "load": os.getloadavg()[0],
        },
        "disk": results.disk,
        "commands": {program.name: list(program.words) for program in commands},
        "not_measured": results.missing,
        "times_us": {
            profile: {case: _summary(values) for case, values in cases.items()}
            for profile, cases in results.times.items()
        },
        "with_open_us": {
            number: {case: _summary(values) for case, values in cases.items()}
            for number, cases in results.scale.items()
        },
        "storage_us": {
            kind: {case: _summary(values) for case, values in cases.items()} for kind, cases in results.storage.items()
        },
        "storage_ratios": storage.ratios(results.storage),
        "archives_us": {case: _summary(values) for case, values in results.archives.items()},
        "begins_us": {number: _summary(values) for number, values in results.crowd.items()},
        "verdicts": _verdicts(results),
        "targets": [
            {
                "profile": profile,
                "what": target.words,
                "ratio": round(ratio, 3),
                "ratio_of_minima": round(results.ratio(profile, target.case, target.to, min) or 0, 3),
                "limit": target.limit,
                "met": ratio <= target.limit,
            }
            for profile in PROFILES
            for target in TARGETS
            if (ratio := results.ratio(profile, target.case, target.to, statistics.median))
        ],
    }


def _summary(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 1), "min": round(min(values), 1), "count": len(values)}


def print_all(found: dict[str, Any], results: Results) -> None:
    """The same for a person."""
    system = found["system"]
    print(
        f"Linux {system['kernel']}, Python {system['python']}, {system['cpus']} CPUs, load {system['load']:.1f}; "
        f"{found['rounds']} rounds in {found['seconds']} s"
    )
    print(f"{'disk':8} {found['disk']}")
    for name, words in found["commands"].items():
        print(f"{name:8} {' '.join(words)}")
    for name, reason in results.missing.items():
        print(f"{name}: not measured: {reason}")
    for profile in PROFILES:
        _print_profile(profile, results)
    _print_storage(found, results)
    _print_scale(results)
    print("\nsessions of a Debian's archive, begun, used and ended: ms, median (minimum)")
    for case, values in results.archives.items():
        print(f"  {case:14}{_cell(values):>18}")
    print("\ntargets: ratio of medians (of minima)")
    for target in found["targets"]:
        verdict = "met" if target["met"] else "MISSED"
        ratios = f"{target['ratio']:5.2f}x ({target['ratio_of_minima']:.2f}x) of at most {target['limit']}x"
        print(f"  {verdict:6} {ratios}  {target['what']}, {target['profile']}")
    for verdict in found["verdicts"]:
        met = "met" if verdict["met"] else "MISSED"
        ratios = f"{verdict['ratio']:5.2f}x ({verdict['ratio_of_minima']:.2f}x)"
        print(f"  {met:6} {ratios} {verdict['what']} {verdict['limit']}x")


def _print_profile(profile: str, results: Results) -> None:
    times = results.times[profile]
    print(f"\ndirectory + overlay, profile {profile}: ms, median (minimum)")
    print(f"  {'':14}" + "".join(f"{part:>18}" for part in PARTS) + f"{'cycle to':>12}")
    for name, to in (
        ("floor", ""),
        ("api", "floor"),
        ("debian", ""),
        ("drop-in", "debian"),
        ("native", "debian"),
    ):
        if f"{name} cycle" in times:
            cells = "".join(f"{_cell(times[f'{name} {part}']):>18}" for part in PARTS)
            ratio = results.ratio(profile, f"{name} cycle", f"{to} cycle", statistics.median) if to else None
            print(f"  {name:14}{cells}" + (f"{ratio:6.2f}x {to}" if ratio else ""))
    if "python start" in times:
        print(f"  {'python -I':14}{_cell(times['python start']):>18}  (of each drop-in or native command)")


def _print_storage(found: dict[str, Any], results: Results) -> None:
    if not results.storage:
        return
    print(f"\nchroots of other types, profile {storage.PROFILE}: ms, median (minimum)")
    print(f"  {'':28}" + "".join(f"{part:>18}" for part in storage.PARTS))
    for name, parts in storage.rows(results.storage):
        print(f"  {name:28}" + "".join(f"{_cell(values):>18}" for values in parts))
    for ratio in found["storage_ratios"]:
        print(f"  {ratio['ratio']:6.2f}x ({ratio['ratio_of_minima']:.2f}x)  {ratio['what']}")


def _print_scale(results: Results) -> None:
    print(f"\nwith so many sessions open, profile {scale.PROFILE}: ms, median (minimum)")
    numbers = sorted(results.scale, key=int)
    print(f"  {'':14}" + "".join(f"{number:>18}" for number in numbers))
    for case in dict.fromkeys(case for cases in results.scale.values() for case in cases):
        found = [results.scale[number].get(case) for number in numbers]
        print(f"  {case:14}" + "".join(f"{_cell(values) if values else '':>18}" for values in found))
    for number, values in results.crowd.items():
        print(f"  {number:>3} processes at once: {1e6 / statistics.median(values):.0f} begins a second")


def _cell(values: list[float]) -> str:
    return f"{statistics.median(values) / 1000:.2f} ({min(values) / 1000:.2f})"


def main() -> None:
    """Measure, print, and end with status 0: a slow machine is no failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help=f"default {DEFAULT_ROUNDS}, within {BUDGET_S:g} seconds")
    parser.add_argument("--json", action="store_true", help="print a JSON record")
    parser.add_argument(
        "--scale-debian", action="store_true", help=f"open {scale.OPEN[-1]} sessions of Debian's too: some minutes"
    )
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("not measured: mounting needs root")
        return
    programs, debian = contenders.own_programs(), contenders.debians_program()
    work = tempfile.mkdtemp(prefix="sessions-bench-", dir=WORK_PARENT)
    os.chmod(work, 0o755)
    start = time.monotonic()
    rounds, budget_s = (max(1, options.rounds), math.inf) if options.rounds else (DEFAULT_ROUNDS, BUDGET_S)
    debians_most = scale.OPEN[-1] if options.scale_debian else scale.OPEN[1]
    try:
        results = apart(partial(measure, work, rounds, budget_s, programs, debian, debians_most))
    except NotMeasured as error:
        print(f"not measured: {error}")
        return
    finally:
        # All mounts went with the other process: in our own namespace there never were any.
        shutil.rmtree(work)
    if debian is None:
        results.missing["debian"] = "Debian's schroot is not installed (apt-get install schroot)"
    commands = [*programs, debian] if debian else programs
    found = record(results, time.monotonic() - start, commands)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print_all(found, results)


if __name__ == "__main__":
    main()
