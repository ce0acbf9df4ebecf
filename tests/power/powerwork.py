"""What is done until the power is cut: sessions are begun, used and ended by two processes side by side."""

from __future__ import annotations

import os
import random
import subprocess
import traceback
from collections.abc import Callable
from typing import NoReturn

from powerguest import BASE, LOCKED, NOTES, Machine, data_of
from powerkinds import ALL, LOST_AT_BOOT

from sessions import api, lifecycle, upkeep, waiters
from sessions.engine import Settings
from sessions.sourcelock import Patience

WORKERS, MOST_OPEN = 2, 3
WRITE = "busybox mkdir -p /data && cat >/data/{name} && busybox sync /data/{name} /data /"
APPEND = f"cat >>/{NOTES} && busybox sync /{NOTES} /opt /"
DIRTY = "cat >/unsynced"
# How often the command is used instead of the Python API.
BY_COMMAND = 0.1
FOREVER = ["/bin/sh", "-c", "sleep 100000 >/dev/null 2>&1 </dev/null &"]


class Worker:
    """One process: its own sessions, and its own order of things."""

    def __init__(self, machine: Machine, number: int, open_sessions: dict[str, str]) -> None:
        self.machine, self.number, self.open = machine, number, open_sessions
        self.line = machine.line
        self.rng = random.Random(f"{machine.job['seed']} {number}")
        self.count = 0
        self.has_locked = waiters.maintenance(machine.world.places, LOCKED) is not None

    def run(self) -> NoReturn:
        """Work until the power is cut."""
        actions: dict[Callable[[], None], int] = {
            self.begin: 5, self.write: 6, self.end: 4, self.automatic: 3, self.abandon: 1, self.sync: 2, self.lock: 1,
        }  # fmt: skip
        while True:
            self.rng.choices(list(actions), list(actions.values()))[0]()

    def new_name(self) -> str:
        self.count += 1
        return f"c{self.machine.job['cut']}w{self.number}n{self.count}"

    def kind(self) -> str:
        return self.rng.choice(self.machine.job["kinds"])

    def begin(self) -> None:
        if len(self.open) >= MOST_OPEN:
            return
        kind, name = self.kind(), self.new_name()
        self.line.say("beginning", name, kind)
        if self.rng.random() < BY_COMMAND:
            self.machine.sessions("begin", ALL[kind][0], "--name", name, kind=kind)
        else:
            api.begin(ALL[kind][0], name=name, persistent=True, places=self.machine.places(kind))
        self.line.say("begun", name)
        self.open[name] = kind

    def write(self) -> None:
        if not self.open:
            return
        name = self.rng.choice(list(self.open))
        self.count += 1
        what = self.rng.choice((f"file{self.count}", f"note{self.count}"))
        command = APPEND if what.startswith("note") else WRITE.format(name=what)
        session = api.open_session(name, places=self.machine.places(self.open[name]))
        session.run(["/bin/sh", "-c", command], input=data_of(name, what), check=True)
        self.line.say("synced", name, what)
        session.run(["/bin/sh", "-c", DIRTY], input=data_of(name, "any"), check=True)

    def end(self) -> None:
        if not self.open:
            return
        name = self.rng.choice(list(self.open))
        kind = self.open.pop(name)
        self.line.say("ending", name)
        if self.rng.random() < BY_COMMAND:
            self.machine.sessions("end", name, kind=kind)
        else:
            lifecycle.end(self.machine.places(kind), name, Settings())
        self.line.say("ended", name)

    def automatic(self) -> None:
        """One that nobody will want back, and that is said nothing of."""
        kind = self.kind()
        if self.rng.random() < BY_COMMAND:
            self.machine.sessions("run", ALL[kind][0], "-d", "/", "--", "/bin/sh", "-c", "id >/unsynced", kind=kind)
        else:
            with api.begin(ALL[kind][0], places=self.machine.places(kind)) as session:
                session.run(["/bin/sh", "-c", DIRTY], input=data_of("any", "any"), check=True)
        self.line.say("automatic", kind)

    def abandon(self) -> None:
        """One whose process dies, and which is left to the sweep."""
        kind = self.kind()
        if (pid := os.fork()) == 0:
            api.begin(ALL[kind][0], places=self.machine.places(kind))
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        self.line.say("abandoned", kind)

    def sync(self) -> None:
        """What happens now and then on any machine: all that is there by now is on the disk."""
        os.sync()
        self.line.say("all")

    def lock(self) -> None:
        if self.number > 0:
            return
        places = self.machine.world.places
        if self.has_locked:
            self.line.say("unlocking")
            upkeep.unlock(places, LOCKED)
            self.line.say("unlocked")
        else:
            self.line.say("locking")
            upkeep.lock(places, LOCKED, "a reason", Patience(None))
            self.line.say("locked")
        self.has_locked = not self.has_locked


def work(machine: Machine, live: list[str]) -> NoReturn:
    """Share the sessions that are up out among the workers, and let them work; they end with the power."""
    machine.line.say("working")
    known = machine.job["sessions"]
    for number in range(WORKERS):
        if os.fork() == 0:
            mine = {name: known[name]["kind"] for name in live[number::WORKERS] if name in known}
            try:
                Worker(machine, number, mine).run()
            except BaseException:
                traceback.print_exc()
            os._exit(1)
    os.wait()
    raise SystemExit("a worker has failed")


def rest(machine: Machine) -> list[str]:
    """Open sessions of every kind, shut the machine down as the unit does, and unmount its disk: what is wrong then.

    Commands run inside, nothing is synced, and somebody has a mount of his own.
    """
    theirs = BASE / "outside/theirs"
    theirs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "theirs", theirs], check=True)
    before = machine.snapshot().mounts
    expected = set()
    for kind in machine.job["kinds"]:
        chroot, _config = ALL[kind]
        machine.line.say("beginning", kind, kind)
        session = api.begin(chroot, name=kind, persistent=True, places=machine.places(kind))
        session.run(["/bin/sh", "-c", f"cat >>/{NOTES}"], input=data_of(kind, "note"), check=True)
        session.run(FOREVER, check=True)
        automatic = api.begin(chroot, name=f"automatic-{kind}", places=machine.places(kind))
        automatic.run(FOREVER, check=True)
        if kind in LOST_AT_BOOT:
            machine.line.say("ending", kind)
        else:
            machine.line.say("begun", kind)
            machine.line.say("synced", kind, "note")
        expected |= {f"{kind}: {'ended' if kind in LOST_AT_BOOT else 'at rest'}", f"{automatic.id}: ended"}
    problems, said = machine.units("sessions-shutdown.service")
    problems += [f"not said at shutdown: {line}" for line in expected - set(said.splitlines())]
    after = machine.snapshot().mounts
    problems += [f"mount left: {mount}" for mount in after - before]
    problems += [f"mount gone: {mount}" for mount in before - after]
    # Nobody is left in there who keeps them busy.
    subprocess.run(["umount", theirs], check=True)
    theirs.rmdir()
    for directory in (BASE / "run", BASE / "elsewhere", BASE):
        subprocess.run(["umount", directory], check=True)
    return problems
