"""While the state directory is read-only, as early at boot, sessions are kept elsewhere, and carried over once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from helpers import (
    MNT_DETACH,
    MS_RDONLY,
    MS_REMOUNT,
    REPOSITORY,
    Fork,
    World,
    bind,
    ext4,
    fork,
    mount,
    output,
    shell,
    umount,
)

from sessions import early, enter, following, lifecycle, open_session, running, store, upkeep, users, waiters
from sessions.data import replace
from sessions.engine import Settings
from sessions.errors import InUse, JournalError, NotFound, SessionExists, SourceBusy
from sessions.linux import mountinfo, proc, trace
from sessions.locks import session_lock
from sessions.sourcelock import Patience
from sessions.sweep import Sweep


class Disk:
    """The file system of the state directory, which can be made read-only, and the runtime directory on a tmpfs."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.state = Path(world.places.state_dir)
        self.early = Path(world.places.early_dir)

    def read_only(self) -> None:
        mount("none", self.state.parent, flags=MS_REMOUNT | MS_RDONLY)

    def writable(self) -> None:
        mount("none", self.state.parent, flags=MS_REMOUNT)

    def journals(self) -> tuple[list[str], list[str]]:
        """The sessions in the early place, and those in the state directory."""
        names = []
        for top in (self.early, self.state):
            found = os.listdir(top / "sessions") if (top / "sessions").is_dir() else []
            names.append(sorted(name.partition(",")[0] for name in found))
        return names[0], names[1]

    def files(self) -> list[str]:
        """Everything in the early place and in the state directory that is no directory of all sessions'."""
        usual = {"sessions", "maintenance", "union", "union/overlay", "unpack"}
        return [
            str(path)
            for top in (self.early, self.state)
            for path in top.rglob("*")
            if str(path.relative_to(top)) not in usual
        ]


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path, world: World) -> Iterator[Disk]:
    """Not the state directory itself is the mount, but the one above it, as /var may be."""
    world = World(world.base, world.root, replace(world.places, state_dir=f"{tmp_path}/var/state"))
    (tmp_path / "var").mkdir()
    (tmp_path / "run").mkdir()
    with ExitStack() as stack:
        if request.param == "ext4":
            stack.enter_context(ext4(tmp_path, tmp_path / "var"))
        else:
            mount("var", tmp_path / "var", "tmpfs", data="mode=755,size=8m")
            stack.callback(umount, tmp_path / "var")
        mount("run", tmp_path / "run", "tmpfs", data="mode=755")
        stack.callback(umount, tmp_path / "run")
        made = Disk(world)
        world.define("disk", union_overlay_storage="disk")
        world.define("directory", union_type="none")
        world.define("memory")
        store.prepare(world.places)
        made.read_only()
        yield made
        made.writable()
        assert made.files() == []
    (tmp_path / "var").rmdir()


@pytest.fixture
def command(disk: Disk) -> Callable[..., tuple[str, str]]:
    """The command on these places: its output and messages."""
    places = disk.world.places
    options = ["--config-dir", places.native_config_dir, "--state-dir", places.state_dir]
    argv = [sys.executable, "-m", "sessions.cli.native", *options, "--runtime-dir", places.runtime_dir]

    def run(*words: str, status: int = 0) -> tuple[str, str]:
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)}
        result = subprocess.run([*argv, *words], env=environment, cwd="/", capture_output=True, text=True)
        assert result.returncode == status, result
        return result.stdout, result.stderr

    return run


def archive(world: World) -> None:
    """A chroot that is unpacked for each session."""
    subprocess.run(["tar", "-cf", world.base / "tiny.tar", "-C", world.root, "."], check=True)
    text = f'[chroot.archive]\ntype = "file"\nfile = "{world.base}/tiny.tar"\nprofile = ""\n'
    world.write("native/chroot.d/archive.toml", text)


@pytest.mark.parametrize("chroot", ["disk", "directory", "memory", "archive"])
def test_sessions_work_while_nothing_can_be_written(disk: Disk, chroot: str) -> None:
    archive(disk.world)
    session = disk.world.begin(chroot, name="one", persistent=True)
    assert disk.journals() == (["one"], [])
    shell(session, "echo there >/file")
    assert output(open_session("one", places=disk.world.places), "cat", "/file") == "there\n"
    session.end()
    assert disk.files() == []
    (disk.world.root / "file").unlink(missing_ok=True)


def test_the_state_directory_was_never_made(disk: Disk) -> None:
    disk.writable()
    shutil.rmtree(disk.state)
    disk.read_only()
    session = disk.world.begin("disk", name="one", persistent=True)
    assert disk.journals() == (["one"], [])
    disk.writable()
    early.carry_over(disk.world.places)
    assert disk.journals() == ([], ["one"])
    session.end()


def test_a_layer_of_a_place_of_its_own_is_left_there(disk: Disk) -> None:
    layers = disk.world.base / "layers"
    disk.world.define("elsewhere", union_overlay_storage="disk", union_overlay_directory=str(layers))
    with disk.world.begin("elsewhere", name="one"):
        assert os.listdir(layers) == ["one"]
    assert os.listdir(layers) == []
    layers.rmdir()


def test_the_list_says_so(disk: Disk, command: Callable[..., tuple[str, str]]) -> None:
    command("begin", "disk", "--name", "one")
    command("begin", "disk", "--name", "two")
    output, errors = command("list")
    assert [line.split()[:3] for line in output.splitlines()] == [["one", "disk", "up"], ["two", "disk", "up"]]
    assert errors == f"kept in {disk.early} until {disk.state} can be written to: one, two\n"
    listed = json.loads(command("list", "--json")[0])["sessions"]
    assert [(item["id"], item["early"]) for item in listed] == [("one", True), ("two", True)]
    disk.writable()
    # Who only looks changes nothing.
    assert command("list")[1] == errors
    command("end", "one")
    output, errors = command("list")
    assert (output.split()[:3], errors) == (["two", "disk", "up"], "")
    command("end", "two")


def carried_over(disk: Disk) -> list[str]:
    """What the events tell of."""
    with following.Log(disk.world.places) as log:
        told = [json.loads(line) for line in log.lines()]
    return sorted(event.get("session") or event["chroot"] for event in told if event["event"] == "carry-over")


COMMANDS = [
    ("begin", "disk", "--name", "new"),
    ("run", "disk", "-d", "/", "--", "true"),
    ("exec", "one", "-d", "/", "--", "true"),
    ("end", "other"),
    ("recover", "one"),
    ("gc",),
    ("lock", "memory"),
    ("unlock", "memory"),
    ("service", "start"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_the_first_command_that_can_carries_over(
    disk: Disk, command: Callable[..., tuple[str, str]], words: tuple[str, ...]
) -> None:
    """And what was in the sessions is there, before and after."""
    for name in ("one", "other"):
        command("begin", "disk", "--name", name)
    upkeep.lock(disk.world.places, "directory", "because", Patience())
    command("exec", "one", "-d", "/", "--", "sh", "-c", "echo kept >/file")
    if words[0] == "unlock":
        upkeep.lock(disk.world.places, "memory", "", Patience())
    disk.writable()
    command(*words)
    found, carried = disk.journals()
    assert (found, {"one"} & set(carried)) == ([], {"one"})
    assert not list((disk.early / "maintenance").iterdir())
    known = waiters.maintenance(disk.world.places, "directory")
    assert known is not None and known.reason == "because"
    assert command("exec", "one", "-d", "/", "--", "cat", "/file") == ("kept\n", "")
    assert carried_over(disk) == sorted({"one", "other", "directory", *(["memory"] if words[0] == "unlock" else [])})
    command("end", "--all")
    for name in ("directory", "memory"):
        waiters.unlock(disk.world.places, name)


def test_what_is_in_use_stays_until_it_is_not(disk: Disk) -> None:
    """Whoever runs a command inside is known by a lock on the journal itself."""
    places = disk.world.places
    session = disk.world.begin("disk", name="one", persistent=True)

    def run(it: Fork) -> None:
        request = enter.Request(("sleep", "1000"), users.caller(), users.caller(), {}, "/")
        with running.running(places, "one", request) as child:
            it.tell("in")
            it.ask()
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)

    inside = fork(run)
    assert inside.ask() == "in"
    disk.writable()
    early.carry_over(places)
    assert disk.journals() == (["one"], [])
    with pytest.raises(InUse):
        session.end()
    inside.tell()
    assert inside.wait() == 0
    with session_lock(places.lock_dir, "one"):
        early.carry_over(places)
    assert disk.journals() == (["one"], [])
    early.carry_over(places)
    assert disk.journals() == ([], ["one"])
    session.end()


def test_what_does_not_fit_stays_and_harms_nobody(disk: Disk) -> None:
    places = disk.world.places
    session = disk.world.begin("memory", name="one", persistent=True)
    disk.writable()
    filler = disk.state.parent / "filler"
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    early.carry_over(places)
    assert disk.journals() == (["one"], [])
    assert output(session, "echo", "usable") == "usable\n"
    with following.Log(places) as log:
        failed = [json.loads(line) for line in log.lines()][-1]
    assert (failed["event"], failed["during"]) == ("failure", "carry-over")
    assert "No space left on device" in failed["error"]
    filler.unlink()
    early.carry_over(places)
    assert disk.journals() == ([], ["one"])
    session.end()


def test_sessions_from_before_are_used_but_not_ended(disk: Disk) -> None:
    """Those of the state directory, when that becomes read-only; beside them, new ones are begun."""
    disk.writable()
    session = disk.world.begin("disk", name="one", persistent=True)
    disk.read_only()
    assert output(session, "echo", "usable") == "usable\n"
    with pytest.raises(JournalError, match=r"Read-only file system; make its directory writable"):
        session.end()
    with pytest.raises(SessionExists):
        disk.world.begin("disk", name="one")
    with pytest.raises(SourceBusy, match="session one"):
        disk.world.begin("source:disk", lock_timeout_s=0.0)
    with disk.world.begin("disk", name="two"):
        assert disk.journals() == (["two"], ["one"])
    disk.writable()
    session.end()


@pytest.mark.parametrize("is_carried", [False, True])
def test_who_changes_the_original_is_kept_out(disk: Disk, is_carried: bool) -> None:
    places = disk.world.places
    session = disk.world.begin("disk", name="one", persistent=True)
    if is_carried:
        disk.writable()
        early.carry_over(places)
    with pytest.raises(SourceBusy, match="session one"):
        disk.world.begin("source:disk", lock_timeout_s=0.0)
    session.end()
    with disk.world.begin("source:disk", name="two"):
        pass


def test_who_waits_is_woken(disk: Disk) -> None:
    """By the end of a session that has been carried over while he waited, too."""
    places = disk.world.places

    def hold(it: Fork) -> None:
        with disk.world.begin("disk", name="one"):
            it.tell("in")
            it.ask()

    def ask(it: Fork) -> None:
        with disk.world.begin("source:disk", name="two", say=lambda letter, line: it.tell(line)):
            it.tell("in")

    holder, asked = fork(hold), None
    assert holder.ask() == "in"
    asked = fork(ask)
    assert asked.ask().startswith("waiting for chroot disk: session one")
    disk.writable()
    early.carry_over(places)
    assert disk.journals() == ([], ["one"])
    holder.tell()
    while (line := asked.ask()).startswith("waiting"):
        pass
    assert line == "in"
    assert (holder.wait(), asked.wait()) == (0, 0)


@pytest.mark.parametrize("unlocked", ["early", "carried"])
def test_a_lock_for_maintenance(disk: Disk, unlocked: str) -> None:
    places = disk.world.places
    upkeep.lock(places, "disk", "an upgrade", Patience())
    for _where in ("early", "carried"):
        with pytest.raises(SourceBusy, match="an upgrade"):
            disk.world.begin("disk", lock_timeout_s=0.0)
        with pytest.raises(SourceBusy, match="an upgrade"):
            upkeep.lock(places, "disk", "", Patience(0.0))
        if unlocked == "early":
            break
        disk.writable()
        early.carry_over(places)
    upkeep.unlock(places, "disk")
    with pytest.raises(NotFound):
        upkeep.unlock(places, "disk")
    with disk.world.begin("disk"):
        pass


def reboot(disk: Disk) -> None:
    """What is mounted and what is in the runtime directory is gone, and the boot has another id."""
    for found in mountinfo.below(mountinfo.read(), disk.world.places.runtime_dir):
        if found.target != disk.world.places.runtime_dir:
            umount(found.target, MNT_DETACH)
    for path in Path(disk.world.places.runtime_dir).iterdir():
        shutil.rmtree(path)
    path = disk.world.write("boot", "00000001-0000-4000-8000-000000000000\n")
    bind(path, proc.BOOT_ID)


def test_after_a_restart(disk: Disk) -> None:
    """What was in the runtime directory is gone: a session with its layer there is ended, and the reason is said."""
    places = disk.world.places
    archive(disk.world)
    disk.world.begin("disk", name="layer", persistent=True)
    disk.world.begin("archive", name="unpacked", persistent=True)
    session = disk.world.begin("directory", name="plain", persistent=True)
    disk.writable()
    early.carry_over(places)
    reboot(disk)
    said: list[str] = []
    try:
        for name in ("layer", "unpacked", "plain"):
            lifecycle.recover(places, name, Settings(lambda letter, line: said.append(line)))
        why = f"its layer was in {disk.early}, which the restart of the machine has emptied"
        assert said == [f"session {name} cannot be recovered and is ended: {why}" for name in ("layer", "unpacked")]
        assert disk.journals() == ([], ["plain"])
        assert output(session, "echo", "up") == "up\n"
        session.end()
    finally:
        umount(proc.BOOT_ID)


def test_at_shutdown_nothing_is_left_of_whose_journal_would_be_lost(
    disk: Disk, command: Callable[..., tuple[str, str]]
) -> None:
    command("begin", "directory", "--name", "one")
    output, errors = command("shutdown")
    assert output == "one: ended\n"
    assert errors == f"session one is ended: its journal is in {disk.early}, which the restart of the machine empties\n"


def test_gc_finds_what_is_left_in_the_early_place(disk: Disk) -> None:
    store.prepare(disk.world.places.early)
    layer = disk.early / "union/overlay/gone"
    layer.mkdir(parents=True)
    (found,) = Sweep(disk.world.places, Settings(), dry_run=False).all()
    assert (found.name, found.outcome) == (str(layer), "removed")


MANY = 12


def test_many_who_carry_over_at_once_do_it_once(disk: Disk) -> None:
    """While others look: who is there is seen, and seen once, all the time."""
    places = disk.world.places
    names = sorted(f"s{number}" for number in range(MANY))
    for name in names:
        disk.world.begin("memory", name=name, persistent=True)
    upkeep.lock(places, "disk", "", Patience())

    def look(it: Fork) -> None:
        it.tell("ready")
        wrong, looks = [], 0
        with open(f"{places.runtime_dir}/stop", "rb") as stop:
            while not stop.read():
                looks += 1
                seen = [journal.session.id for journal in store.read_all(places)]
                if seen != names or not all(store.exists(places, name) for name in names):
                    wrong.append(seen)
                if waiters.maintenance(places, "disk") is None:
                    wrong.append(["unlocked"])
        it.tell(f"{wrong} {looks > 0}")

    def carry(it: Fork) -> None:
        it.tell("ready")
        it.ask()
        early.carry_over(places)

    Path(f"{places.runtime_dir}/stop").touch()
    looking, carrying = [fork(look) for _one in range(2)], [fork(carry) for _one in range(4)]
    for process in (*looking, *carrying):
        assert process.ask() == "ready"
    disk.writable()
    for process in carrying:
        process.tell()
    assert [process.wait() for process in carrying] == [0] * 4
    Path(f"{places.runtime_dir}/stop").write_text("stop")
    assert [process.ask() for process in looking] == ["[] True"] * 2
    assert [process.wait() for process in looking] == [0] * 2
    Path(f"{places.runtime_dir}/stop").unlink()
    # Whoever had it to himself may have been at it while the others came, and so have left it to him.
    assert disk.journals() == ([], names)
    assert carried_over(disk) == sorted([*names, "disk"])
    upkeep.unlock(places, "disk")
    for name in names:
        open_session(name, places=places).end()


def die_carrying(disk: Disk, at: int) -> bool:
    """Whether there is a point of that number at which who carries over is killed."""

    def work(it: Fork) -> None:
        points: list[str] = []

        def hook(where: str) -> None:
            points.append(where)
            if len(points) == at:
                os.kill(os.getpid(), signal.SIGKILL)

        trace.hook = hook
        early.carry_over(disk.world.places)

    return fork(work).wait() == -signal.SIGKILL


@pytest.mark.parametrize("then", ["carry over", "end", "gc", "read-only again"])
def test_killed_at_every_point(disk: Disk, then: str) -> None:
    """The next one completes it; who ends a session that is half carried over ends all of it."""
    places = disk.world.places
    at, was_killed = 0, True
    while was_killed:
        at += 1
        for name in ("one", "two"):
            disk.world.begin("memory", name=name, persistent=True)
        upkeep.lock(places, "disk", "", Patience())
        disk.writable()
        was_killed = die_carrying(disk, at)
        assert [item.journal.session.id for item in lifecycle.listed(places)] == ["one", "two"], at  # type: ignore[union-attr]
        if then == "carry over":
            early.carry_over(places)
        elif then == "gc":
            assert [found for found in Sweep(places, Settings(), dry_run=False).all() if found.kind != "lock"] == []
        elif then == "read-only again" and was_killed:
            disk.read_only()
            open_session("one", places=places).run(["true"], check=True)
            disk.writable()
        if then in ("carry over", "gc"):
            assert disk.journals() == ([], ["one", "two"]), at
            assert not list((disk.early / "maintenance").iterdir()), at
        for name in ("one", "two"):
            lifecycle.end(places, name, Settings())
            assert not store.exists(places, name), at
        assert waiters.maintenance(places, "disk") is not None
        assert waiters.unlock(places, "disk")
        assert waiters.maintenance(places, "disk") is None
        early.carry_over(places)
        list(Sweep(places, Settings(), dry_run=False).all())
        assert disk.files() == [], at
        disk.read_only()
    assert at > 10
