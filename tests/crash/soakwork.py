"""One of the soak's workers: does one drawn operation after the other, most of them by the real commands."""

from __future__ import annotations

import mmap
import os
import random
import re
import select
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import psutil
import soakwatch
from soakworld import AUTOMATIC, CHROOTS, LASTING, SHARED, TWINS, Command, Kill, Licence, Log
from world import World, wait_for_end

import sessions
from sessions import lifecycle
from sessions.cli import native, schroot
from sessions.engine import Settings
from sessions.errors import SessionsError
from sessions.linux import proc

# No command takes as long, however busy the machine is.
DEADLINE_S = 150.0
FAILED = 125
TELLING_STATUS = 7
OTHER_FAILURE, UNEXPECTED = 1, 2

# What a command may say when it fails, and what it is called in the count.
REFUSALS = {
    r"no such session|Chroot not found": "not there",
    r"session \S+ exists already|session file: File exists": "name taken",
    r"chroot \S+ is in use": "source in use",
    r"session \S+ is in use": "in use",
    r"is not locked": "not locked",
    r"has been down since": "down",
    r"is broken|is stopping|is starting|left half way": "half way",
}
# What it may say only where somebody has been killed, whom it needed.
DAMAGES = {
    r"could not be set up(?s:.*)SIGKILL": "set up failed",
    r"could not be (ended|laid|recovered)(?s:.*)SIGKILL": "stuck",
    r"SIGKILL(?s:.*)Chroot setup failed": "stuck",
}

# How many of the commands are forked from us: they start at once, so that more of them meet.
WARM = 0.7
PROGRAMS: dict[str, Callable[[], NoReturn]] = {"native": native.main, "schroot": schroot.main}
# What schroot says of a command inside that was killed.
KILLED = "Child terminated by signal ‘Killed’"
CODE = "import sys\nsys.path[:0] = {paths!r}\nfrom {module} import main\nmain()\n"
_PATHS = [str(Path(sessions.__file__).parents[1]), str(Path(psutil.__file__).parents[1])]


class Hung(Exception):
    """A command has not come to its end."""


@dataclass(frozen=True)
class Ended:
    """A command that has come to its end."""

    words: str
    pid: int
    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Started:
    """A command that runs: its words, who it is, and where it writes to."""

    words: str
    pid: int
    output: int
    errors: int


class Worker:
    """Draws and does operations; what belongs to the test, and is never killed, is in the world's `helpers`."""

    def __init__(self, world: World, log: Log, rng: random.Random, stop: mmap.mmap, share: int) -> None:
        self.world = world
        self.log = log
        self.rng = rng
        self.stop = stop
        self.left = share
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []

    def work(self) -> None:
        """Do all operations, until one has hung, here or elsewhere."""
        while self.left > 0 and not self.stop[0]:
            try:
                self.operate(nested=False)
            except Hung as hung:
                self.stop[0] = 1
                self.problems.append(str(hung))

    def operate(self, *, nested: bool) -> None:
        """Do one operation; `nested`, one that needs nobody else's patience, since somebody is made to wait for us."""
        self.left -= 1
        flat = {
            self.begin: 17,
            self.begin_by_schroot: 4,
            self.run: 8,
            self.run_by_schroot: 3,
            self.leave_daemon: 4,
            self.end: 16,
            self.end_all: 1,
            self.force_end: 3,
            self.end_by_schroot: 2,
            self.recover: 5,
            self.rest: 3,
            self.collect: 5,
            self.unlock: 2,
            self.look: 3,
            self.kill: 10,
        }
        deep = {self.hold: 18, self.own: 8, self.lock: 3}
        operations: dict[Callable[[], None], int] = flat if nested else flat | deep
        self.pick(operations)()

    def pick(self, choices: dict[Callable[[], None], int]) -> Callable[[], None]:
        return self.rng.choices(list(choices), list(choices.values()))[0]

    def chroot(self) -> str:
        choices = CHROOTS | TWINS
        return self.rng.choices(list(choices), list(choices.values()))[0]

    def patience(self) -> list[str]:
        return ["--lock-timeout", self.rng.choice(("0", "0.2", "1", "3"))]

    def user(self) -> list[str]:
        """Commands of root's and of others' are started in two ways."""
        return self.rng.choice(([], [], ["-u", "nobody"]))

    # The operations.

    def begin(self) -> None:
        self.say("begin", self.call("begin", self.chroot(), "-n", self.rng.choice(LASTING), *self.patience()))

    def begin_by_schroot(self) -> None:
        self.say("begin", self.call("-b", "-c", SHARED, "-n", self.rng.choice(LASTING), program="schroot"))

    def run(self) -> None:
        words = ["run", *self.patience(), *self.user(), self.chroot(), "--", "sh", "-c", f"exit {TELLING_STATUS}"]
        self.run_inside("run", "", words)

    def run_by_schroot(self) -> None:
        words = ["-c", SHARED, "-d", "/", "--", "sh", "-c", f"exit {TELLING_STATUS}"]
        self.run_inside("run", "", words, program="schroot")

    def leave_daemon(self) -> None:
        """A command that leaves a process in the session, which ends with it."""
        name = self.rng.choice(LASTING)
        words = ["exec", *self.user(), name, "--", "sh", "-c", f"sleep 100000 & exit {TELLING_STATUS}"]
        self.run_inside("daemon", name, words)

    def hold(self) -> None:
        """A command that waits for its input, while we do something else; it must be there when we come back."""
        name = self.rng.choice((*LASTING, *AUTOMATIC))
        began_s = time.monotonic()
        with self.talking("exec", *self.user(), name, "--", "sh", "-c", "echo $$; exec cat") as (started, runner):
            first = self.read_line(started, runner)
            itself = int(first) if first else None
            is_there = bool(first)
            if is_there:
                for _number in range(self.rng.choice((1, 1, 2))):
                    self.operate(nested=True)
                is_there = self.is_echoed(started, runner)
            assert runner.stdin
            runner.stdin.close()
            self.wait_for(started)
            ended = _ended(started, runner.wait())
        cut = "" if is_there and ended.status == 0 else f"status {ended.status}, {ended.stderr or 'no word'}"
        if first or not self.is_refused(ended):
            self.log.add(Command(name, "hold", began_s, time.monotonic(), started.pid, itself, cut))
        self.count("hold", "cut short" if cut and first else "done" if not cut else self.outcome(ended))

    def is_echoed(self, started: Started, runner: subprocess.Popen[bytes]) -> bool:
        assert runner.stdin
        try:
            runner.stdin.write(b"still there?\n")
            runner.stdin.flush()
        except BrokenPipeError:
            return False
        return self.read_line(started, runner) == "still there?"

    def own(self) -> None:
        """A process that has a session while we do something else; it may be killed before it ends it."""
        chroot, name, timeout_s = self.chroot(), self.rng.choice(AUTOMATIC), self.rng.choice((0.0, 0.2, 1.0))
        reader, writer = os.pipe()

        def have() -> None:
            os.close(writer)
            with sessions.begin(chroot, name=name, lock_timeout_s=timeout_s, places=self.world.places) as session:
                session.run(["true"], capture=True)
                os.read(reader, 1)

        began_s = time.monotonic()
        started = self.fork(f"begin {chroot} as {name}", have)
        os.close(reader)
        self.operate(nested=True)
        os.close(writer)
        ended = self.finish(started)
        self.log.add(Licence(name, "its owner ended", began_s, time.monotonic()))
        self.say("own", ended)

    def end(self) -> None:
        self.say("end", self.call("end", self.rng.choice((*LASTING, *LASTING, *AUTOMATIC))))

    def end_all(self) -> None:
        self.say("end all", self.call("end", "--all"))

    def force_end(self) -> None:
        name = self.rng.choice((*LASTING, *AUTOMATIC))
        with self.licence(name, "end --force"):
            ended = self.call("end", "--force", name)
        self.say("end by force", ended)

    def end_by_schroot(self) -> None:
        """Which ends what runs inside, as schroot does."""
        name = self.rng.choice(LASTING)
        with self.licence(name, "schroot -e"):
            ended = self.call("-e", "-c", name, program="schroot")
        self.say("end by force", ended)

    def recover(self) -> None:
        self.say("recover", self.call("recover", self.rng.choice((*LASTING, *AUTOMATIC))))

    def rest(self) -> None:
        """As before a restart of the machine, but for one session: nobody is asked."""
        name = self.rng.choice(LASTING)
        with self.licence(name, "shutdown"):
            ended = self.finish(self.fork(f"rest {name}", lambda: lifecycle.rest(self.world.places, name, Settings())))
        self.say("rest", ended)

    def collect(self) -> None:
        self.say("gc", self.call("gc", *self.rng.choice(([], [], ["--dry-run"]))))

    def lock(self) -> None:
        chroot = self.rng.choice(list(CHROOTS.keys() - {SHARED}))
        ended = self.call("lock", chroot, *self.patience())
        self.say("lock", ended)
        if ended.status == 0:
            self.operate(nested=True)
            self.say("unlock", self.call("unlock", chroot))

    def unlock(self) -> None:
        self.say("unlock", self.call("unlock", self.rng.choice(list(CHROOTS))))

    def look(self) -> None:
        self.say("list", self.call("list"))

    def kill(self) -> None:
        """Kill any process of ours: a command, a script, what runs inside, a forked user of the API."""
        found = list(self.world.processes())
        if not found:
            self.count("kill", "nobody there")
            return
        pid, ticks = self.rng.choice(found)
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self.count("kill", "too late")
            return
        try:
            status = psutil.Process(pid)
            kill = Kill(pid, status.ppid(), time.monotonic(), " ".join(status.cmdline()))
            if proc.start_ticks(pid) == ticks:
                # Told before: nobody can see the end of one that is not known to be killed.
                self.log.add(kill)
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                self.count("kill", "done")
        except (psutil.Error, ProcessLookupError):
            self.count("kill", "too late")
        finally:
            os.close(pidfd)

    # How they are done, and what came of it.

    def call(self, *words: str, program: str = "native") -> Ended:
        """Run one of our commands to its end; most often in an interpreter that has loaded all of it already."""
        main = PROGRAMS[program]
        if self.rng.random() < WARM:
            return self.finish(self.fork(" ".join(words), partial(_perform, main, [*self.options(), *words])))
        with _output() as output, _output() as errors:
            argv = self.argv(words, main)
            with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, cwd="/") as runner:
                started = Started(" ".join(words), runner.pid, output, errors)
                self.wait_for(started)
            return _ended(started, runner.returncode)

    @contextmanager
    def talking(self, *words: str) -> Iterator[tuple[Started, subprocess.Popen[bytes]]]:
        """One of our commands, to be talked to."""
        with _output() as errors:
            argv, pipe = self.argv(words, native.main), subprocess.PIPE
            with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=errors, cwd="/", bufsize=0) as runner:
                yield Started(" ".join(words), runner.pid, errors, errors), runner

    def argv(self, words: Sequence[str], main: Callable[[], NoReturn]) -> list[str]:
        """A command line as that of an installed command."""
        code = CODE.format(paths=_PATHS, module=main.__module__)
        return [sys.executable, "-IS", "-X", "faulthandler", "-c", code, *self.options(), *words]

    def options(self) -> list[str]:
        """This world's directories."""
        places = self.world.places
        options = [f"--config-dir={places.native_config_dir}", f"--state-dir={places.state_dir}"]
        return [*options, f"--runtime-dir={places.runtime_dir}"]

    def read_line(self, started: Started, runner: subprocess.Popen[bytes]) -> str:
        """A line of a command that talks; empty when it has ended."""
        assert runner.stdout
        poll = select.poll()
        poll.register(runner.stdout, select.POLLIN)
        line = b""
        while not line.endswith(b"\n"):
            if not poll.poll(DEADLINE_S * 1000):
                raise self.hung(started)
            piece = os.read(runner.stdout.fileno(), 1)
            if not piece:
                return ""
            line += piece
        return line.decode().strip()

    def fork(self, words: str, action: Callable[[], object]) -> Started:
        """Do something in a process of its own."""
        output, errors = (os.memfd_create(name, os.MFD_CLOEXEC) for name in ("output", "errors"))
        pid = os.fork()
        if pid:
            return Started(words, pid, output, errors)
        status = UNEXPECTED
        try:
            os.dup2(output, 1)
            os.dup2(errors, 2)
            action()
            status = 0
        except SystemExit as ending:
            status = int(ending.code or 0)
        except SessionsError as error:
            status = FAILED
            os.write(2, str(error).encode())
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)

    def finish(self, started: Started) -> Ended:
        """Wait for a process that :func:`fork` has started."""
        self.wait_for(started)
        ended = _ended(started, os.waitstatus_to_exitcode(os.waitpid(started.pid, 0)[1]))
        os.close(started.output)
        os.close(started.errors)
        return ended

    def wait_for(self, started: Started) -> None:
        """Until the process has ended, but no longer than any may take."""
        pidfd = os.pidfd_open(started.pid)
        try:
            if not wait_for_end(pidfd, DEADLINE_S):
                raise self.hung(started)
        finally:
            os.close(pidfd)

    def hung(self, started: Started) -> Hung:
        """What there is to know; a process of Python's says where it is when it is aborted."""
        seen = soakwatch.look(self.world)
        os.kill(started.pid, signal.SIGABRT)
        pidfd = os.pidfd_open(started.pid)
        wait_for_end(pidfd, 1.0)
        os.kill(started.pid, signal.SIGKILL)
        os.close(pidfd)
        return Hung(f"{started.words} did not end within {DEADLINE_S:g} s: {_read(started.errors)}\n{seen}")

    def run_inside(self, what: str, session: str, words: Sequence[str], program: str = "native") -> None:
        """A command inside that says how it ended by its status."""
        began_s = time.monotonic()
        ended = self.call(*words, program=program)
        is_done = ended.status == TELLING_STATUS
        if not is_done and not self.is_refused(ended):
            cut = f"status {ended.status}, {ended.stderr or 'no word'}"
            self.log.add(Command(session, what, began_s, time.monotonic(), ended.pid, None, cut))
        self.count(what, "done" if is_done else self.outcome(ended))

    @contextmanager
    def licence(self, session: str, why: str) -> Iterator[None]:
        """For as long as the block lasts, and however it ends, commands in that session may be ended."""
        began_s = time.monotonic()
        try:
            yield
        finally:
            self.log.add(Licence(session, why, began_s, time.monotonic()))

    def say(self, operation: str, ended: Ended) -> None:
        """Count an operation; what it should not have said is a problem."""
        self.count(operation, "done" if ended.status == 0 else self.outcome(ended))

    def count(self, operation: str, outcome: str) -> None:
        self.counts[f"{operation}: {outcome}"] += 1

    def is_refused(self, ended: Ended) -> bool:
        return ended.status in (FAILED, OTHER_FAILURE) and bool(ended.stderr) and KILLED not in ended.stderr

    def outcome(self, ended: Ended) -> str:
        """What became of a command that has not done what it was asked for."""
        if ended.status == -signal.SIGKILL:
            return "killed"
        if ended.status == 128 + signal.SIGKILL or KILLED in ended.stderr:
            return "killed inside"
        said = f"{ended.stdout}\n{ended.stderr}"
        if ended.status in (FAILED, OTHER_FAILURE) and "unexpected" not in said and "Traceback" not in said:
            for pattern, words in (REFUSALS | DAMAGES).items():
                if re.search(pattern, said):
                    return words
        self.problems.append(f"{ended.words}: status {ended.status}: {ended.stdout} {ended.stderr}")
        return "failed"


def _ended(started: Started, status: int) -> Ended:
    return Ended(started.words, started.pid, status, _read(started.output), _read(started.errors))


def _perform(main: Callable[[], NoReturn], words: list[str]) -> None:
    sys.argv[1:] = words
    main()


@contextmanager
def _output() -> Iterator[int]:
    fd = os.memfd_create("output", os.MFD_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _read(fd: int) -> str:
    return os.pread(fd, 1 << 16, 0).decode(errors="replace").strip()
