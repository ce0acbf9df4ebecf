"""Sessions of a chroot share its source, and who changes it has it alone: in order, and whoever dies."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import REPOSITORY, Fork, World, bind, fork, mount, python, shell, umount

from sessions import lifecycle, owners, store, sweep, upkeep, waiters
from sessions.engine import Settings
from sessions.errors import Interrupted, NotFound, SessionsError, SourceBusy
from sessions.linux import proc
from sessions.sourcelock import Patience

pytestmark = pytest.mark.usefixtures("read_only_host")


@pytest.fixture
def world(world: World) -> World:
    """With chroots whose source is locked, and one where it never is."""
    world.define("tiny")
    world.define("free", source_lock="shared")
    return world


@pytest.fixture
def holder(asker: Callable[..., Fork]) -> Callable[..., Fork]:
    """Starts a process that has a session: not we ourselves, since nobody waits for who waits for him."""

    def start(chroot: str, **wishes: object) -> Fork:
        held = asker(chroot, **wishes)
        assert held.ask() == "in"
        return held

    return start


def waiting(world: World) -> list[str]:
    return [f"{waiter.ticket} {waiter.kind}" for waiter in waiters.listed(world.places)]


def hear(asked: Fork, start: str) -> None:
    """Until it says for whom it waits in the end: while somebody gets in, he is seen twice."""
    while not (line := asked.ask()).startswith(start):
        assert line.startswith("waiting for chroot "), line


def leave(asked: Fork) -> None:
    asked.tell("leave")
    assert asked.wait() == 0


def refused(world: World, chroot: str) -> str:
    with pytest.raises(SourceBusy) as error:
        world.begin(chroot, lock_timeout_s=0)
    return str(error.value)


def test_sessions_share_and_the_source_is_alone(world: World) -> None:
    with world.begin("tiny", name="one"), world.begin("tiny", name="two"):
        text = refused(world, "source:tiny")
        assert text.startswith("chroot tiny is in use: session one (process ")
        assert "of root since 20" in text
        assert "; session two (process" in text
        assert text.endswith("try again later, or wait longer with --lock-timeout")
    with world.begin("source:tiny", name="changing"):
        assert "session changing (process" in refused(world, "tiny")
        assert "session changing (process" in refused(world, "source:tiny")
    with world.begin("tiny"):
        pass


def test_a_shared_source_never_keeps_anybody_waiting(world: World) -> None:
    with world.begin("free"), world.begin("source:free"), world.begin("source:free"), world.begin("free"):
        assert waiting(world) == []


def test_other_chroots_are_not_concerned(world: World) -> None:
    with world.begin("source:tiny"), world.begin("free"):
        pass


def test_they_get_in_as_they_came(world: World, asker: Callable[..., Fork], holder: Callable[..., Fork]) -> None:
    """A session that could share with the one that is open waits behind who waits for the source."""
    first = holder("tiny", name="first")
    changer = asker("source:tiny", name="changer")
    assert changer.ask().startswith("waiting for chroot tiny: session first (process")
    second = asker("tiny", name="second")
    assert second.ask().startswith(f"waiting for chroot tiny: process {changer.pid} of root since")
    last = asker("source:tiny", name="last")
    assert last.ask().startswith("waiting for chroot tiny: process")
    assert waiting(world) == ["1 source", "2 session", "3 source"]
    leave(first)
    assert changer.ask() == "in"
    hear(second, "waiting for chroot tiny: session changer")
    leave(changer)
    assert second.ask() == "in"
    assert waiting(world) == ["3 source"]
    third = asker("tiny", name="third")
    assert "waiting for chroot tiny" in third.ask()
    leave(second)
    while (line := last.ask()) != "in":
        assert line.startswith("waiting for chroot tiny: ")
    leave(last)
    while (line := third.ask()) != "in":
        assert line.startswith("waiting for chroot tiny: ")
    leave(third)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_wait(world: World, holder: Callable[..., Fork], signum: signal.Signals) -> None:
    def ask(it: Fork) -> None:
        signal.signal(signum, signal.SIG_DFL)
        try:
            world.begin("source:tiny", say=lambda letter, line: it.tell(line))
        except Interrupted as error:
            it.tell(f"{error.status} {error}")
            it.ask()

    held = holder("tiny")
    asked = fork(ask)
    assert asked.ask().startswith("waiting")
    os.kill(asked.pid, signum)
    # All was taken back before the signal took its course.
    assert asked.wait() == -signum
    assert waiting(world) == []
    assert len(store.entries(world.places)) == 1
    with world.begin("tiny"):
        pass
    leave(held)


def test_who_will_not_wait_longer_is_told_for_whom(world: World) -> None:
    with world.begin("source:tiny", name="changing"):
        said: list[str] = []
        with pytest.raises(SourceBusy, match="chroot tiny is in use: session changing"):
            world.begin("tiny", lock_timeout_s=0.05, say=lambda letter, line: said.append(line))
        assert len(said) == 1
        assert waiting(world) == []


def kill(asked: Fork) -> None:
    os.kill(asked.pid, signal.SIGKILL)
    assert asked.wait() == -signal.SIGKILL


def test_a_dead_waiter_is_not_waited_for(world: World, asker: Callable[..., Fork], holder: Callable[..., Fork]) -> None:
    held = holder("tiny")
    dead = asker("source:tiny")
    assert dead.ask().startswith("waiting")
    kill(dead)
    assert waiting(world) == ["1 source"]
    with world.begin("tiny", lock_timeout_s=0):
        assert waiting(world) == []
    leave(held)


def test_who_waits_for_a_waiter_hears_of_its_death(asker: Callable[..., Fork], holder: Callable[..., Fork]) -> None:
    held = holder("tiny")
    first = asker("source:tiny")
    assert first.ask().startswith("waiting")
    second = asker("tiny")
    assert second.ask().startswith(f"waiting for chroot tiny: process {first.pid}")
    kill(first)
    assert second.ask() == "in"
    leave(second)
    leave(held)


@pytest.mark.parametrize(("held", "wanted"), [("source:tiny", "tiny"), ("tiny", "source:tiny")])
def test_the_session_of_a_dead_owner_is_ended_by_who_waits_for_it(
    world: World, asker: Callable[..., Fork], held: str, wanted: str
) -> None:
    dead = asker(held, name="dead")
    assert dead.ask() == "in"
    heir = asker(wanted)
    assert heir.ask().startswith("waiting for chroot tiny: session dead")
    kill(dead)
    assert heir.ask() == "in"
    assert "dead" not in {entry.id for entry in store.entries(world.places)}
    leave(heir)


def test_a_session_of_somebody_in_another_pid_namespace_is_not_touched(world: World) -> None:
    """Its pid means nothing here: nothing is proven."""
    session = world.begin("tiny", name="one")
    (entry,) = store.entries(world.places)
    pid, ticks, _realm = entry.owner_mark.split(".")
    elsewhere = owners.mark(owners.Owner(1, 1, proc.boot_id(), 1, 1)).rpartition(".")[2]
    assert not owners.is_gone(owners.Owner(1, 1, proc.boot_id(), 1, 1))
    assert owners.pid_of(f"{pid}.{ticks}.{elsewhere}", owners.realm()) is None
    session.end()


def test_maintenance_outlives_the_command(world: World) -> None:
    patience = Patience(0)

    def lock(it: Fork) -> None:
        upkeep.lock(world.places, "tiny", "new compiler", patience)
        it.tell("locked")

    with world.begin("tiny"), pytest.raises(SourceBusy):
        upkeep.lock(world.places, "tiny", "", patience)
    locker = fork(lock)
    assert locker.ask() == "locked"
    assert locker.wait() == 0
    assert "maintenance by root since 20" in refused(world, "tiny")
    assert "(new compiler)" in refused(world, "tiny")
    with pytest.raises(SourceBusy, match="maintenance by root"):
        upkeep.lock(world.places, "tiny", "again", patience)
    with world.begin("source:tiny") as session:
        shell(session, "echo changed > /etc/changed")
    upkeep.unlock(world.places, "tiny")
    with world.begin("tiny") as session:
        assert shell(session, "cat /etc/changed") == "changed\n"
    with pytest.raises(NotFound, match="tiny is not locked"):
        upkeep.unlock(world.places, "tiny")


def test_maintenance_keeps_sessions_of_a_shared_source_out_too(world: World, asker: Callable[..., Fork]) -> None:
    upkeep.lock(world.places, "free", "", Patience(0))
    asked = asker("free")
    assert asked.ask().startswith("waiting for chroot free: maintenance by root")
    upkeep.unlock(world.places, "free")
    assert asked.ask() == "in"
    leave(asked)


def test_maintenance_waits_for_sessions_and_lets_no_new_ones_in(
    world: World, asker: Callable[..., Fork], holder: Callable[..., Fork]
) -> None:
    def lock(it: Fork) -> None:
        upkeep.lock(world.places, "tiny", "", Patience(None, lambda letter, line: it.tell(line)))
        it.tell("locked")

    held = holder("tiny", name="one")
    locker = fork(lock)
    assert locker.ask().startswith("waiting for chroot tiny: session one")
    late = asker("tiny")
    assert late.ask().startswith(f"waiting for chroot tiny: process {locker.pid} of root")
    leave(held)
    assert locker.ask() == "locked"
    assert locker.wait() == 0
    hear(late, "waiting for chroot tiny: maintenance by root")
    upkeep.unlock(world.places, "tiny")
    assert late.ask() == "in"
    leave(late)


def test_a_maintenance_record_that_is_cut_short_locks_and_can_be_taken_away(world: World) -> None:
    upkeep.lock(world.places, "tiny", "why", Patience(0))
    Path(waiters.maintenance_path(world.places, "tiny")).write_text('{"user": "ro')
    assert "maintenance by somebody" in refused(world, "tiny")
    upkeep.unlock(world.places, "tiny")
    with world.begin("tiny"):
        pass


@pytest.mark.parametrize("content", ["", '{"owner": {"pid": 1', "[]", "\0\xff"])
def test_a_waiter_s_record_that_cannot_be_read_is_judged_by_its_name(world: World, content: str) -> None:
    store.prepare(world.places)
    realm = owners.realm()
    dead = f"tiny,1,source,{2**22 - 1}.1.{realm}"
    Path(world.places.waiting_dir, dead).write_text(content)
    with world.begin("tiny", lock_timeout_s=0):
        assert waiting(world) == []
        # Of another realm nothing can be proven.
        other = Path(world.places.waiting_dir, "tiny,1,source,1.1.00000000")
        other.write_text(content)
    assert "process 1 of somebody" in refused(world, "tiny")
    other.unlink()


def test_records_of_another_boot_are_dropped(
    world: World, asker: Callable[..., Fork], holder: Callable[..., Fork], tmp_path: Path
) -> None:
    held = holder("tiny")
    asked = asker("source:tiny")
    assert asked.ask().startswith("waiting")
    (waiter,) = waiters.listed(world.places)
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("00000000-0000-4000-8000-000000000000\n")
    bind(boot_id, proc.BOOT_ID)
    try:
        assert not waiter.owner_mark.endswith(owners.realm())
        assert waiters.is_gone(waiter, owners.realm())
    finally:
        umount(proc.BOOT_ID)
    assert not waiters.is_gone(waiter, owners.realm())
    leave(held)
    assert asked.ask() == "in"
    leave(asked)


def test_nobody_waits_for_a_session_that_waits_for_him(world: World) -> None:
    """As whatever is started by a setup script, or by who has opened a session."""

    def within(it: Fork) -> None:
        with pytest.raises(SourceBusy) as error:
            world.begin("source:tiny")
        it.tell(str(error.value))

    with world.begin("tiny", name="outer"):
        child = fork(within)
        assert child.ask() == (
            "chroot tiny is held by session outer, which waits for this very command; run it outside of the session "
            "and of its setup scripts"
        )
        assert child.wait() == 0


def test_nobody_waits_for_ever_for_himself(world: World) -> None:
    """With a time limit one may: it will be over. And another thread may end what keeps this one waiting."""
    with world.begin("tiny", name="outer") as outer:
        with pytest.raises(SourceBusy) as error:
            world.begin("source:tiny")
        assert str(error.value) == (
            "chroot tiny is held by session outer, which is of this very process; end that session first"
        )
        assert "try again later" in refused(world, "source:tiny")
        waits = threading.Event()
        entered: list[str] = []

        def ask() -> None:
            with world.begin("source:tiny", name="inner", say=lambda letter, line: waits.set()) as inner:
                entered.append(inner.id)

        thread = threading.Thread(target=ask)
        thread.start()
        assert waits.wait(60)
        outer.end()
        thread.join(60)
    assert entered == ["inner"]


LOCK = """
from sessions import upkeep, sourcelock
from sessions.linux import trace
import os, signal
def hook(where):
    if where.startswith(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
trace.hook = hook
upkeep.lock(places, "tiny", "why", sourcelock.Patience(None))
"""


@pytest.mark.parametrize("point", ["locked", "grant", "granted"])
@pytest.mark.parametrize("by_gc", [True, False])
def test_a_lock_that_was_asked_for_but_never_granted_keeps_nobody_out(world: World, point: str, by_gc: bool) -> None:
    """Killed before it has it, `sessions lock` has locked nothing; killed after that, it has."""
    store.prepare(world.places)
    locker = python(world, LOCK, arguments=[f"{point} tiny"])
    assert locker.wait() == -signal.SIGKILL
    is_locked = point == "granted"
    if by_gc:
        found = list(sweep.Sweep(world.places, Settings(), dry_run=False).all())
        assert [finding.kind for finding in found if finding.kind == "maintenance"] == ["maintenance"] * (not is_locked)
        assert os.listdir(world.places.maintenance_dir) == ["tiny"] * is_locked
    if is_locked:
        assert "maintenance by root since" in refused(world, "tiny")
        upkeep.unlock(world.places, "tiny")
    with world.begin("tiny", lock_timeout_s=0):
        pass
    assert os.listdir(world.places.maintenance_dir) == []


def test_a_lasting_begin_that_died_before_it_was_let_in_is_taken_away(world: World) -> None:
    code = """
from sessions.linux import trace
import os, signal
def hook(where):
    if where.startswith("created journal"):
        os.kill(os.getpid(), signal.SIGKILL)
trace.hook = hook
sessions.begin("tiny", name="never", persistent=True, places=places)
"""
    assert python(world, code).wait() == -signal.SIGKILL
    assert "session never" in refused(world, "source:tiny")
    (found,) = [finding for finding in sweep.Sweep(world.places, Settings(), False).all() if finding.kind == "session"]
    assert (found.name, found.outcome) == ("never", "ended")
    with world.begin("source:tiny", lock_timeout_s=0):
        pass


def test_a_setup_script_that_asks_for_its_own_source(world: World) -> None:
    code = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from sessions.cli.native import main; main()"
    places = world.places
    world.write("ask.py", code)
    options = f"--config-dir {world.base}/native --state-dir {places.state_dir} --runtime-dir {places.runtime_dir}"
    command = f"{sys.executable} {world.base}/ask.py {options} run source:tiny -- true"
    world.script("60ask", f"#!/bin/sh\ntest $1 = setup-stop || {command}\n")
    said: list[str] = []
    for persistent in (True, False):
        with pytest.raises(SessionsError, match="60ask exited with status 125"):
            world.begin("tiny", name="outer", persistent=persistent, say=lambda letter, line: said.append(line))
    assert len(said) == 2
    assert all("chroot tiny is held by session outer, which waits for this very command" in line for line in said)


def test_the_wait_costs_nothing(world: World, asker: Callable[..., Fork], holder: Callable[..., Fork]) -> None:
    """Not even while sessions of other chroots come and go."""
    held = holder("tiny")
    asked = asker("source:tiny")
    assert asked.ask().startswith("waiting")
    before = ticks(asked)
    for _turn in range(20):
        with world.begin("free"):
            pass
    assert ticks(asked) - before <= 5
    leave(held)
    assert asked.ask() == "in"
    leave(asked)


def ticks(process: Fork) -> int:
    """The processor time it has had, in ticks of 10 ms (proc(5), fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


def test_many_at_once_and_one_who_changes(world: World) -> None:
    """Nobody starves, and never is the source changed while a session is open: what it wrote is there in all after."""
    count = 16

    def use(it: Fork) -> None:
        it.ask()
        with world.begin("tiny") as session:
            before = shell(session, "cat /etc/version 2>/dev/null || echo none")
            assert shell(session, "cat /etc/version 2>/dev/null || echo none") == before
        it.tell(before.strip())

    def change(it: Fork) -> None:
        it.ask()
        with world.begin("source:tiny") as session:
            shell(session, "echo half > /etc/version; echo new > /etc/version")
        it.tell("changed")

    users = [fork(use) for _number in range(count)]
    changer = fork(change)
    for asked in (*users[: count // 2], changer, *users[count // 2 :]):
        asked.tell()
    seen = [asked.ask() for asked in users]
    assert changer.ask() == "changed"
    assert [asked.wait() for asked in (*users, changer)] == [0] * (count + 1)
    assert set(seen) <= {"none", "new"}
    assert waiting(world) == []


def test_nothing_but_records_is_taken_for_one(world: World) -> None:
    store.prepare(world.places)
    for name in (".tiny,1,source,1.1.1", "tiny", "tiny,x,source,1.1.1", "tiny,1,nosuch,1.1.1", ",1,source,1.1.1"):
        Path(world.places.waiting_dir, name).touch()
    assert waiters.listed(world.places) == []
    with world.begin("source:tiny"):
        pass
    for name in os.listdir(world.places.waiting_dir):
        os.unlink(f"{world.places.waiting_dir}/{name}")


def test_a_collector_never_ends_a_live_session(world: World) -> None:
    with world.begin("tiny", name="one"), world.begin("tiny", name="two", persistent=True):
        for entry in store.entries(world.places):
            assert not lifecycle.collect(world.places, entry, Settings())
        assert len(store.entries(world.places)) == 2


def test_a_waiting_directory_that_is_full(world: World, tmp_path: Path) -> None:
    store.prepare(world.places)
    mount("small", world.places.waiting_dir, "tmpfs", data="nr_inodes=1,mode=700")
    try:
        with world.begin("tiny"), pytest.raises(SessionsError, match=r"cannot write the record .* No space left"):
            world.begin("source:tiny", lock_timeout_s=60)
    finally:
        umount(world.places.waiting_dir)


@pytest.mark.parametrize("lock_timeout_s", [0.0, 0.05, 1e12])
def test_a_session_of_a_dead_owner_that_is_stuck_is_waited_for_like_any_other(
    world: World, asker: Callable[..., Fork], lock_timeout_s: float
) -> None:
    """The end of its owner is no news that could end the wait: only the time limit, a signal, or its own end are."""
    script = world.script("60stuck", "#!/bin/sh\n[ $1 != setup-stop ]\n")
    dead = asker("tiny", name="dead")
    assert dead.ask() == "in"
    kill(dead)

    def ask(it: Fork) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.alarm(20)  # which nothing blocks, should it be waited for for ever
        world.begin(
            "source:tiny", lock_timeout_s=lock_timeout_s, say=lambda letter, line: letter == "I" and it.tell(line)
        )

    asked = fork(ask)
    assert asked.ask().startswith("waiting for chroot tiny: session dead")
    if lock_timeout_s > 1:
        os.kill(asked.pid, signal.SIGTERM)
    assert asked.wait() == (-signal.SIGTERM if lock_timeout_s > 1 else 1)
    assert waiting(world) == []
    script.unlink()
    lifecycle.end(world.places, "dead", Settings(), kill_commands=True)


@pytest.mark.parametrize("which", ["waiting_dir", "maintenance_dir"])
def test_nobody_waits_for_what_can_be_heard_of_no_more(
    world: World, asker: Callable[..., Fork], holder: Callable[..., Fork], which: str
) -> None:
    """As when somebody empties /run: no event would ever come out of the directory that takes its place."""
    held = holder("tiny")

    def ask(it: Fork) -> None:
        signal.alarm(20)  # should it wait for ever
        world.begin("source:tiny", say=lambda _letter, line: it.tell(line))

    asked = fork(ask)
    assert asked.ask().startswith("waiting")
    directory = getattr(world.places, which)
    shutil.rmtree(directory)
    while (line := asked.ask()).startswith("waiting"):
        pass
    assert line == f"SessionsError: {directory} was removed while waiting for chroot tiny; try again"
    assert asked.wait() == 1
    leave(held)
    with world.begin("source:tiny"):
        pass
