"""What is measured with many sessions open, and with many who begin at once.

A worker is asked for a number: of open sessions, or of processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from statistics import median

from tests.bench import contenders
from tests.bench.contenders import PROFILES, Ground, Program
from tests.bench.worker import NotMeasured, Times

PARTS = ("begin", "run", "end", "list")
OPEN = (0, 100, 1000)
# Debian's takes an eighth of a second to open one, or more: it is asked for so many at once, to answer in time.
DEBIANS_STEP = 25
PROFILE = PROFILES[0]
ROUNDS = 7
DEBIANS_ROUNDS = 2
_WARM_REPEATS = 9
_BEGINS = 240


class ManyOpen:
    """Ours: what is open was begun by this process, and both its calls and commands are measured beside that."""

    def __init__(self, ground: Ground, programs: Sequence[Program]) -> None:
        contenders.install(ground)
        self.api = contenders.Api(ground)
        self.programs = programs
        self.opened = 0

    def measure(self, word: str) -> Times:
        """Open as many as are wanted, then some cycles beside them."""
        while self.opened < int(word):
            self.api.sessions.begin(PROFILE)
            self.opened += 1
        times = middle([self.api.cycle(PROFILE) for _repeat in range(_WARM_REPEATS)], "api")
        times["api list"] = timed(self.api.sessions.list_sessions)
        for program in self.programs:
            times |= commands(program)
        return times


class ManyOpenDebian:
    """Debian's schroot in the same way, by commands alone."""

    def __init__(self, ground: Ground, program: Program) -> None:
        contenders.Debian(ground, program)
        self.program = program
        self.opened = 0

    def measure(self, word: str) -> Times:
        """Open as many as are wanted, which is all that is done where that is less than what is measured."""
        while self.opened < int(word):
            call = self.program.calls(PROFILE, f"open-{self.opened}")["begin"]
            contenders.timed(call, contenders.ENVIRONMENT)
            self.opened += 1
        return commands(self.program) if int(word) in OPEN else {}


def commands(program: Program) -> Times:
    """A command of each kind."""
    calls = program.calls(PROFILE, "measured")
    return {f"{program.name} {part}": contenders.timed(calls[part], contenders.ENVIRONMENT) for part in PARTS}


def middle(cycles: Sequence[Times], prefix: str) -> Times:
    """The medians of the parts, named with a prefix."""
    return {f"{prefix} {part}": median(cycle[part] for cycle in cycles) for part in PARTS if part in cycles[0]}


def timed(action: Callable[[], object]) -> float:
    """How long something takes, in microseconds."""
    start = time.perf_counter_ns()
    action()
    return (time.perf_counter_ns() - start) / 1000


class Crowd:
    """Sessions begun by some processes at once, each of which loaded everything before."""

    def __init__(self, ground: Ground) -> None:
        self.api = contenders.Api(ground)
        self.api.cycle(PROFILE)

    def measure(self, word: str) -> Times:
        """The time of each begin, as if one came after the other, with so many processes."""
        workers = int(word)
        ready, go, done = os.pipe(), os.pipe(), os.pipe()
        pids = [self._start(_BEGINS // workers, ready[1], go, done[1]) for _number in range(workers)]
        for _pid in pids:
            os.read(ready[0], 1)
        start = time.perf_counter_ns()
        os.close(go[1])
        begun = b"".join(os.read(done[0], 1) for _pid in pids)
        taken_us = (time.perf_counter_ns() - start) / 1000
        for pid in pids:
            os.waitpid(pid, 0)
        for fd in (*ready, go[0], *done):
            os.close(fd)
        if begun != b"+" * workers:
            raise NotMeasured("not every session could be begun")
        return {"begin": taken_us / (_BEGINS // workers * workers)}

    def _start(self, count: int, ready_fd: int, go: tuple[int, int], done_fd: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        word, opened = b"-", []
        try:
            os.close(go[1])
            os.write(ready_fd, b"+")
            os.read(go[0], 1)
            for _number in range(count):
                opened.append(self.api.sessions.begin(PROFILE))
            word = b"+"
        finally:
            os.write(done_fd, word)
            for session in opened:
                session.end()
            os._exit(0)
