"""Begins sessions, kills the process that does so at a given point, ends them, and compares with what was before."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tarfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import world as worlds
from crashkinds import Kind
from crashvolumes import BACKINGS
from snapshot import Entry, differences

from sessions import enter, lifecycle, running, store, users
from sessions.engine import Settings
from sessions.errors import SessionsError
from sessions.journal import State
from sessions.linux import syscall, tarcheck, trace  # noqa: F401 (tarcheck: loaded before any fork)
from sessions.newsession import Wish
from sessions.sweep import Sweep

MAIN = Path(__file__).with_name("crashmain.py")
ID = "s"
OTHER = "other"
MOST_FAILURES = 20
# What is put into a session before it is ended, and looked for after a reboot.
MARK = "mark/er/file"
FOREVER = ("/bin/sleep", "100000")

Action = Callable[[], None]
Files = dict[str, Entry]


@dataclass
class Outcome:
    """How a child process came out: where it was killed, or else what it raised and which points it passed."""

    killed_at: str = ""
    error: str = ""
    points: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


class Hook:
    """Counts points, and kills this process, not one it has forked, when it comes to number `kill_at`."""

    def __init__(self, kill_at: int, report_fd: int) -> None:
        self.kill_at = kill_at
        self.report_fd = report_fd
        self.pid = os.getpid()
        self.points: list[str] = []

    def __call__(self, where: str) -> None:
        if os.getpid() != self.pid:
            return
        self.points.append(where)
        if len(self.points) == self.kill_at:
            os.write(self.report_fd, json.dumps({"killed_at": where}).encode())
            os.kill(self.pid, signal.SIGKILL)


def in_child(action: Action, kill_at: int = 0) -> Outcome:
    """Do something in a process of its own, which is killed at a point; wait for its end."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            perform_and_tell(action, kill_at, writer)
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as report:
        data = report.read()
    _pid, status = os.waitpid(pid, 0)
    outcome = Outcome(**json.loads(data)) if data else Outcome(error="said nothing")
    expected = -signal.SIGKILL if outcome.killed_at else 0
    if os.waitstatus_to_exitcode(status) != expected:
        outcome.error = f"ended with {os.waitstatus_to_exitcode(status)} {outcome.error}"
    return outcome


def perform_and_tell(action: Action, kill_at: int, report_fd: int) -> None:
    hook = Hook(kill_at, report_fd)
    trace.hook = hook
    error = ""
    SAID.clear()
    try:
        action()
    except SessionsError as failure:
        error = f"{type(failure).__name__}: {failure}"
    except BaseException:
        error = traceback.format_exc()
    os.write(report_fd, json.dumps({"error": error, "points": hook.points, "said": SAID}).encode())


SAID: list[str] = []


def say(letter: str, line: str) -> None:
    SAID.append(f"{letter}: {line}")


class Driver:
    """One world, one kind of session, and everything that can be done to it."""

    def __init__(self, base: Path, kind: Kind, *, shared: bool, etc: str = "") -> None:
        self.kind = kind
        self.rng = random.Random(0)
        self.world = worlds.make(base, scripts=kind.scripts, shared=shared, etc=etc, disk=kind.disk)
        self.places = self.world.places
        if kind.backing:
            self.world.backing = BACKINGS[kind.backing](self.world)
        if kind.early:
            self._make_state_read_only()
        configuration = lifecycle.load(self.places)
        self.chroot, self.selected = lifecycle.find_chroot(configuration, kind.word, with_host=True)
        self.caller = users.caller()
        self.runs = 0
        self.failures: list[str] = []
        self.changed: Files = {}
        """Files of the original that a session may change, as they are afterwards."""
        self.may_stay: set[str] = set()
        """Files that may have come, or not."""
        self.packed: dict[bool, Any] = {}
        """What is in an archive that was written anew, with and without the mark."""
        if kind.beside:
            must(in_child(lambda: self.begin(OTHER)))
            must(in_child(lambda: self.leave_running(OTHER)))
        elif not kind.fresh:
            self._warm_up()
        self.before = self.world.snapshot()
        self._learn()

    def _make_state_read_only(self) -> None:
        os.mkdir(self.places.state_dir)
        syscall.mount("state", self.places.state_dir, "tmpfs", syscall.MS_RDONLY, "mode=755")

    def _warm_up(self) -> None:
        pristine = self.world.snapshot()
        must(in_child(self.begin))
        must(in_child(self.end))
        worlds.wait_for_dying(self.world.processes())
        self.world.restore_files(pristine)

    def _learn(self) -> None:
        """What a whole session, not disturbed, changes in the original."""
        for with_mark in (False, True):
            must(in_child(self.begin))
            if seen := self.world.snapshot().peer_mounts - self.before.peer_mounts:
                own = {target for target, _fstype, _root in seen} - self.world.private_directories
                assert not own, f"mounts of a session can be seen in another namespace: {own}"
            if with_mark:
                self.put_mark()
            must(in_child(self.end))
            if self.kind.repacks:
                self.packed[with_mark] = contents(self.world.archive)
            elif self.kind.changes_original:
                now = self.world.snapshot().files
                stay = [f"{self.original}/{name}" for name in self.kind.copies]
                self.changed = {path: now[path] for path in stay}
            self.start_again()
            problems = self.world.broken_trees()
            if problems := problems + differences(self.before, self.world.snapshot(), permanent=self.world.permanent):
                raise AssertionError(f"a session that nobody disturbs leaves: {problems}")

    def begin(self, session_id: str = ID) -> None:
        wish = Wish(self.caller, self.caller, session_id, automatic=self.kind.automatic)
        lifecycle.begin(self.places, self.chroot, self.selected, wish, Settings(say))

    def end(self, session_id: str = ID) -> None:
        lifecycle.end(self.places, session_id, Settings(say))

    def rest(self) -> None:
        lifecycle.rest(self.places, ID, Settings(say))

    def recover(self) -> None:
        lifecycle.recover(self.places, ID, Settings(say))

    @contextmanager
    def running(self, *argv: str, user: str = "root", session_id: str = ID) -> Iterator[enter.Child]:
        request = enter.Request(argv, self.caller, users.find(user), {}, "/")
        with (
            open(os.devnull, "r+b") as null,
            running.running(self.places, session_id, request, (null.fileno(),) * 3) as child,
        ):
            yield child

    def run_true(self, session_id: str = ID) -> None:
        with self.running("/bin/true", session_id=session_id) as child:
            assert os.waitpid(child.pid, 0)[1] == 0

    def leave_running(self, session_id: str = ID) -> None:
        """A command whose runner is gone."""
        with self.running(*FOREVER, session_id=session_id):
            pass

    def die_running(self, user: str) -> None:
        """A command whose runner is killed while it runs."""
        with self.running(*FOREVER, user=user):
            os.kill(os.getpid(), signal.SIGKILL)

    def up(self) -> None:
        """A session that is used."""
        must(in_child(self.begin))
        if self.kind.busy:
            must(in_child(self.leave_running))
        self.put_mark()

    def put_mark(self) -> None:
        if not self.kind.changes_original:
            path = self.root / MARK
            path.parent.mkdir(parents=True)
            path.write_text("there\n")

    @property
    def original(self) -> Path:
        """What is behind the root of a session that has no layer of its own."""
        return self.world.base / self.kind.original

    @property
    def root(self) -> Path:
        return Path(self.places.mount_dir) / ID

    @property
    def exists(self) -> bool:
        return store.exists(self.places, ID)

    def start_again(self) -> None:
        """The originals as they were, for the next schedule."""
        worlds.reap()
        if self.kind.cold:
            self.world.empty_cache()
        self.world.restore_files(self.before)
        if self.kind.fresh:
            for path in (self.places.state_dir, self.places.runtime_dir):
                if os.path.lexists(path):
                    shutil.rmtree(path)

    def check(self) -> list[str]:
        """What is not as it was before the session."""
        worlds.reap()
        now = self.world.snapshot()
        if now.processes != self.before.processes:
            worlds.wait_for_dying(now.processes - self.before.processes)
            now = self.world.snapshot()
        changed = dict(self.changed)
        archive = str(self.world.archive)
        if self.kind.repacks and archive in now.files:
            changed[archive] = now.files[archive]
        permanent = self.world.permanent | self.may_stay
        found = differences(self.before, now, permanent=permanent, changed=changed)
        found += self.world.broken_trees()
        return found + [f"locked: {path}" for path in self.world.held_locks()]

    def archive_is(self, *, new: bool | None, with_mark: bool) -> list[str]:
        """What is wrong with the archive, which has to be new or old (either if None) and nothing else."""
        if not self.kind.repacks:
            return []
        if self.world.archive.read_bytes() == self.before.files[str(self.world.archive)].data:
            return ["the archive is the old one"] if new else []
        try:
            found = contents(self.world.archive)
        except (OSError, EOFError, tarfile.TarError) as error:
            return [f"the archive is damaged: {error!r}"]
        if found != self.packed[with_mark]:
            missing = sorted(set(self.packed[with_mark]) - set(found))
            return [f"the archive is neither old nor new: {len(found)} members, missing {missing[:5]}"]
        return ["the archive was written anew"] if new is False else []

    def was_up(self) -> bool:
        with store.open_session(self.places, ID, for_marks=False) as journal:
            return journal.was_up

    def settle(
        self,
        what: str,
        problems: Sequence[str] = (),
        *,
        with_mark: bool,
        own_interpreter: bool = False,
        again: bool = False,
        swept: bool = False,
        kill_at: int = 0,
    ) -> None:
        """End what is there of the session, and note everything that is not as it was, besides `problems`.

        `with_mark` says whether the mark has been put into the session. With `kill_at`, the end is killed at first.
        With `swept`, a sweep comes before the end, which then may find nothing but a session that is still up.
        """
        problems = list(problems)
        existed = self.exists
        new = self.was_up() if existed else with_mark
        if existed:
            problems += self.archive_is(new=None, with_mark=with_mark)
        else:
            problems += self.check()
        if kill_at:
            killed = in_child(self.end, kill_at)
            what += f", then in end at {killed.killed_at}"
            existed = self.exists
        if swept:
            problems += self.sweep()
            existed = self.exists
        ended = end_elsewhere(self.world) if own_interpreter else in_child(self.end)
        expected = "" if existed else "NotFound"
        if ended.error.partition(":")[0] != expected:
            problems.append(f"end said {ended.error or 'nothing'!r}, not {expected!r}")
        problems += self.check() + self.archive_is(new=new, with_mark=with_mark)
        if (existed or swept) and self.world.lock_files():
            problems.append(f"lock files left: {self.world.lock_files()}")
        if again:
            problems += self.once_more()
        self.note(what, problems)

    def sweep(self) -> list[str]:
        """Take away what is left behind; what is wrong after that."""
        outcome = in_child(lambda: [SAID.append(str(found)) for found in Sweep(self.places, Settings(), False).all()])
        problems = [f"sweep: {outcome.error}"] if outcome.error else []
        problems += [f"sweep: {line}" for line in outcome.said if "is_left=True" in line]
        if not self.exists:
            return problems + [f"after the sweep: {line}" for line in self.check()]
        with store.open_session(self.places, ID, for_marks=False) as journal:
            state = lifecycle.state_under_lock(journal)
        return problems if state in (State.UP, State.DOWN) else [*problems, f"after the sweep it is {state}"]

    def once_more(self) -> list[str]:
        """The same name has to be free at once, and nothing may be in its way."""
        errors = [in_child(action).error for action in (self.begin, self.end)]
        problems = [f"once more: {error}" for error in errors if error]
        problems += [f"after another session: {line}" for line in self.check()]
        return problems + [f"lock file left: {name}" for name in self.world.lock_files()]

    def note(self, what: str, problems: list[str]) -> None:
        """Count a schedule; where something is wrong, clean up by force for the next one."""
        self.runs += 1
        if problems:
            self.failures.append(f"{self.kind.name}, {what}: " + "; ".join(dict.fromkeys(problems)))
            if self.kind.beside:
                raise TooMany
            self.world.wipe(self.before)
        self.start_again()
        if len(self.failures) >= MOST_FAILURES:
            raise TooMany


class TooMany(Exception):
    """There is no use in going on."""


def must(outcome: Outcome) -> Outcome:
    """Raise AssertionError unless it came out well."""
    assert not outcome.error, outcome.error
    return outcome


def contents(path: Path) -> dict[str, tuple[int, int, int, int, bytes, str]]:
    """What there is to compare of each member of an archive, which is read to its end."""
    with tarfile.open(path) as tar:
        return {
            member.name: (member.size, member.mode, member.uid, member.gid, member.type, member.linkname)
            for member in tar
        }


def end_elsewhere(world: worlds.World) -> Outcome:
    """End the session in a fresh interpreter."""
    reader, writer = os.pipe()
    argv = [sys.executable, str(MAIN), "end", str(world.base), str(writer)]
    os.set_inheritable(writer, True)
    pid = os.posix_spawn(sys.executable, argv, os.environ)
    os.close(writer)
    with open(reader, "rb") as report:
        data = report.read()
    os.waitpid(pid, 0)
    return Outcome(**json.loads(data)) if data else Outcome(error="the interpreter failed")
