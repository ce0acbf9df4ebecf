"""What the dead have left is found and taken away; the living, and what is not ours, are left alone."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import REPOSITORY, Fork, World, bind, exchange, fork, mount, mounts, shell, snapshot, swapping, umount

from sessions import lifecycle, open_session, owners, store, waiters
from sessions.engine import Settings
from sessions.errors import SessionsError
from sessions.linux import proc, syscall, trace
from sessions.locks import session_lock
from sessions.sweep import Finding, Sweep

IN_CLOSE_WRITE = 0x8

pytestmark = pytest.mark.usefixtures("read_only_host")


@pytest.fixture
def gc(world: World) -> Callable[..., list[Finding]]:
    """Looks and takes away; a second look then finds nothing more than what had to be left."""

    def run(*, dry_run: bool = False) -> list[Finding]:
        world.define("tiny")
        found = list(Sweep(world.places, Settings(), dry_run).all())
        if not dry_run:
            again = [finding for finding in Sweep(world.places, Settings(), dry_run).all() if not finding.is_left]
            assert again == []
        return found

    return run


def begin_and_die(world: World, chroot: str = "tiny", **wishes: object) -> None:
    """A session whose process is killed while a command of its runs."""

    def work(it: Fork) -> None:
        session = world.begin(chroot, **wishes)
        shell(session, "sleep 4321 >/dev/null 2>&1 &")
        it.tell("up")
        it.ask()

    child = fork(work)
    assert child.ask() == "up"
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def words(found: list[Finding]) -> list[tuple[str, str, bool]]:
    return [(finding.kind, os.path.basename(finding.name), finding.is_left) for finding in found]


@pytest.mark.parametrize("storage", ["disk", "tmpfs"])
def test_the_session_of_a_dead_process_goes_with_all_that_runs_in_it(
    world: World, gc: Callable[..., list[Finding]], storage: str
) -> None:
    world.define("layered", union_overlay_storage=storage, union_overlay_directory=f"{world.base}/layers")
    begin_and_die(world, "layered", name="dead")
    assert words(gc(dry_run=True)) == [("session", "dead", True)]
    (entry,) = store.entries(world.places)
    (found,) = gc()
    assert (found.kind, found.name, found.outcome) == ("session", "dead", "ended")
    assert found.reason == "the process it was for is gone"
    assert not Path(entry.path).exists()


def test_live_and_lasting_sessions_are_left_alone(world: World, gc: Callable[..., list[Finding]]) -> None:
    world.define("tiny")
    with world.begin("tiny", name="live"), world.begin("tiny", name="lasting", persistent=True) as lasting:
        shell(lasting, "echo kept > /kept")
        assert gc() == []
        assert shell(lasting, "cat /kept") == "kept\n"


def test_a_session_that_is_being_set_up_is_left_alone(world: World, gc: Callable[..., list[Finding]]) -> None:
    """Its journal says that it is not up; but its lock is held, and it comes up between two looks."""
    world.define("tiny")
    wait = f"{{ : > {world.base}/waits; read word < {world.base}/go; }}"
    world.script("60wait", f"#!/bin/sh\n[ $1 = setup-stop ] || {wait}\n")
    os.mkfifo(world.base / "go")
    os.mkfifo(world.base / "waits")

    def work(it: Fork) -> None:
        with world.begin("tiny", name="slow", persistent=True) as session:
            it.tell(shell(session, "echo up"))
            it.ask()

    child = fork(work)
    (world.base / "waits").read_text()
    assert gc() == []
    (world.base / "go").write_text("go\n")
    assert child.ask() == "up"
    assert gc() == []
    child.tell()
    assert child.wait() == 0


def test_a_begin_sweeps_what_it_comes_across(world: World) -> None:
    world.define("tiny")

    def work(it: Fork) -> None:
        for number in range(3):
            world.begin("tiny", name=f"dead{number}")
        it.tell("up")
        it.ask()

    child = fork(work)
    assert child.ask() == "up"
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    for left in (1, 0):
        with world.begin("tiny", name="live"):
            assert len({entry.id for entry in store.entries(world.places)} - {"live"}) == left


def test_a_begin_does_not_wait_for_who_ends_another_session(world: World) -> None:
    world.define("tiny")
    begin_and_die(world, name="dead")

    def work(_it: Fork) -> None:
        signal.alarm(20)  # should it wait after all
        world.begin("tiny", name="other").end()

    with session_lock(world.places.lock_dir, "dead"):
        assert fork(work).wait() == 0
    world.begin("tiny").end()
    assert store.entries(world.places) == []


def test_a_script_that_hangs_does_not_hold_up_the_begin_of_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes across its session tries to end it, and does not wait for it: the session is named as broken."""
    monkeypatch.setattr(lifecycle, "_OTHERS_SCRIPT_TIMEOUT_S", 0.1)
    world.define("tiny")
    flag = world.write("hangs", "")
    world.script("60hang", f"#!/bin/sh\n[ $1 != setup-stop ] || [ ! -e {flag} ] || exec sleep 4321\n")
    begin_and_die(world, name="dead")
    session = world.begin("tiny", name="live", persistent=True)
    with store.open_session(world.places, "dead", for_marks=False) as journal:
        assert [reason for reason in journal.reasons.values() if "took longer than 0.1 seconds" in reason]
    flag.unlink()
    session.end()
    assert words(list(Sweep(world.places, Settings(), False).all())) == [("session", "dead", False)]


def test_what_was_left_half_way_is_ended(world: World, gc: Callable[..., list[Finding]]) -> None:
    """A script kept the first end from being whole; when it does no more, nothing is left."""
    world.define("tiny")
    flag = world.write("stubborn", "")
    world.script("60stop", f"#!/bin/sh\n[ $1 != setup-stop ] || [ ! -e {flag} ]\n")
    session = world.begin("tiny", name="half", persistent=True)
    with pytest.raises(SessionsError, match="could not be ended wholly"):
        session.end()
    ((kind, name, is_left),) = words(gc())
    assert (kind, name, is_left) == ("session", "half", True)
    flag.unlink()
    assert words(gc()) == [("session", "half", False)]


def test_what_a_dying_child_still_holds_is_swept_as_soon_as_it_lets_go(world: World) -> None:
    """A process that is killed while it starts a program may have a child that has not heard of it yet."""
    world.define("tiny")
    os.mkfifo(world.base / "let-go")

    def die_half_way(_it: Fork) -> None:
        def hook(where: str) -> None:
            if "mounted" in where:
                if os.fork() == 0:
                    (world.base / "let-go").read_text()
                    os._exit(0)
                os.kill(os.getpid(), signal.SIGKILL)

        trace.hook = hook
        world.begin("tiny", name="half", persistent=True)

    def sweep(_it: Fork) -> None:
        assert words(list(Sweep(world.places, Settings(), False).all())) == [("session", "half", False)]

    assert fork(die_half_way).wait() == -signal.SIGKILL
    looks = syscall.inotify()
    syscall.inotify_add_watch(looks, f"{world.places.lock_dir}/half", IN_CLOSE_WRITE)
    sweeper = fork(sweep)
    # It has seen that the lock is held.
    assert select.select([looks], [], [], 20)[0] == [looks]
    os.close(looks)
    (world.base / "let-go").write_text("go\n")
    assert sweeper.wait() == 0
    assert store.entries(world.places) == []


def test_sessions_of_another_boot(world: World, gc: Callable[..., list[Finding]], tmp_path: Path) -> None:
    """Automatic ones and those whose layer was in memory go; one that can be recovered stays."""
    world.define("lasting", union_overlay_storage="disk", union_overlay_directory=f"{world.base}/layers")
    world.define("tiny")
    world.begin("tiny", name="emptied", persistent=True)
    world.begin("lasting", name="lasting", persistent=True)
    begin_and_die(world, name="dead")
    (boot_id := tmp_path / "boot_id").write_text("00000000-0000-4000-8000-000000000000\n")
    bind(boot_id, proc.BOOT_ID)
    try:
        assert words(gc()) == [("session", "dead", False), ("session", "emptied", False)]
        assert [entry.id for entry in store.entries(world.places)] == ["lasting"]
    finally:
        umount(proc.BOOT_ID)
    open_session("lasting", places=world.places).end()


def test_directories_without_a_session(world: World, gc: Callable[..., list[Finding]]) -> None:
    """In our own places they go, stamped or not; what is mounted in one stops that; elsewhere they are reported."""
    elsewhere = world.base / "layers"
    world.define("elsewhere", union_overlay_storage="disk", union_overlay_directory=str(elsewhere))
    elsewhere.mkdir()
    places = world.places
    for path in (f"{places.overlay_dir}/gone", f"{places.unpack_dir}/gone", f"{places.overlay_dir}/.0123456789ab"):
        Path(path, "deep/er").mkdir(parents=True)
    (elsewhere / "stamped").mkdir()
    os.setxattr(elsewhere / "stamped", "trusted.chroot-sessions.stamp", b"x")
    (elsewhere / "foreign").mkdir()
    canary = world.base / "canary"
    (canary / "below").mkdir(parents=True)
    covered = Path(places.unpack_dir, "covered/inside")
    covered.mkdir(parents=True)
    bind(canary, covered)
    before = snapshot(canary)
    found = gc()
    assert sorted(words(found)) == [
        ("directory", ".0123456789ab", False), ("directory", "covered", True), ("directory", "gone", False),
        ("directory", "gone", False), ("directory", "stamped", True),
    ]  # fmt: skip
    (covered_one,) = [finding for finding in found if finding.name.endswith("covered")]
    assert f"something is mounted on {covered}" in covered_one.outcome
    assert snapshot(canary) == before
    umount(covered)
    gc()
    assert (elsewhere / "stamped").is_dir()
    assert (elsewhere / "foreign").is_dir()


def test_what_may_belong_to_a_session_that_cannot_be_read_is_left(
    world: World, gc: Callable[..., list[Finding]]
) -> None:
    """A directory that is named by a stamp may be any session's, so also that one's."""
    session = world.begin(world.define("layered", union_overlay_storage="disk"), name="broken", persistent=True)
    (entry,) = store.entries(world.places)
    journal = Path(entry.path).read_bytes()
    Path(entry.path).write_bytes(b"x" + journal[1:])
    stamp = Path(world.places.overlay_dir, ".0123456789ab")
    stamp.mkdir()
    found = gc()
    assert sorted(words(found)) == [("directory", ".0123456789ab", True), ("journal", "sessions", True)]
    assert "may belong to a session whose journal cannot be read" in found[1].outcome
    assert stamp.is_dir()
    Path(entry.path).write_bytes(journal)
    assert words(gc()) == [("directory", ".0123456789ab", False)]
    session.end()


def test_mounts_without_a_session_whose_directories_become_links(
    world: World, gc: Callable[..., list[Finding]]
) -> None:
    """What is mounted on the host where such a link leads to stays mounted."""
    place = Path(world.places.mount_dir, "gone")
    canary = world.base / "canary"
    for path in (world.root / "swap/a/mnt", canary / "a/mnt", place):
        path.mkdir(parents=True)
    (world.root / "link").symlink_to(canary)
    mount("the host's", canary / "a/mnt", "tmpfs")
    before = mounts()
    for _turn in range(20):
        place.mkdir(exist_ok=True)
        bind(world.root, place)
        mount("left", place / "swap/a/mnt", "tmpfs")
        with swapping(world.root / "swap", world.root / "link"):
            list(Sweep(world.places, Settings(), False).all())
        if (world.root / "swap").is_symlink():
            exchange(world.root / "swap", world.root / "link")
        list(Sweep(world.places, Settings(), False).all())
        assert mounts() == before
    assert gc() == []
    umount(canary / "a/mnt")


def test_mounts_without_a_session(world: World, gc: Callable[..., list[Finding]]) -> None:
    """As if somebody had removed the journal by hand; who stands in one keeps it."""
    place = Path(world.places.mount_dir, "gone")
    (place).mkdir(parents=True)
    mount("left", place, "tmpfs")
    (place / "below").mkdir()
    mount("left", place / "below", "tmpfs")
    holder = subprocess.Popen(["sleep", "4321"], cwd=place)
    try:
        (found,) = gc()
        assert found.is_left
        assert f"is busy: {holder.pid} (sleep 4321)" in found.outcome
    finally:
        holder.kill()
        holder.wait()
    (found,) = gc()
    assert (found.kind, found.name, found.outcome) == ("mount", str(place), "removed")


def test_what_we_would_not_have_made_is_left_alone(world: World, gc: Callable[..., list[Finding]]) -> None:
    """As the lost+found that a file system of its own brings with it, or a link to mounts that are not ours."""
    world.define("nonsense", union_overlay_storage="disk", union_overlay_directory="/proc/version")
    lost = Path(world.places.overlay_dir, "lost+found")
    lost.mkdir(parents=True)
    elsewhere = world.base / "elsewhere"
    elsewhere.mkdir()
    mount("not ours", elsewhere, "tmpfs")
    link = Path(world.places.mount_dir, "link")
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    assert words(gc()) == [("mount", "link", True)]
    assert os.path.ismount(elsewhere)
    assert lost.is_dir()
    lost.rmdir()
    link.unlink()
    umount(elsewhere)


def test_requests_and_locks_of_the_dead(world: World, gc: Callable[..., list[Finding]]) -> None:
    world.define("tiny")

    def ask(it: Fork) -> None:
        world.begin("source:tiny", say=lambda letter, line: it.tell(line))

    def hold(it: Fork) -> None:
        with world.begin("tiny"):
            it.tell("in")
            it.ask()

    holder = fork(hold)
    assert holder.ask() == "in"
    dead = fork(ask)
    assert dead.ask().startswith("waiting")
    assert gc() == []
    os.kill(dead.pid, signal.SIGKILL)
    dead.wait()
    for name in ("nobody", "other,manage"):
        Path(world.places.lock_dir, name).touch(mode=0o600)
    with session_lock(world.places.lock_dir, "somebody"):
        found = sorted(words(gc()))
    assert [kind for kind, _name, _is_left in found] == ["lock", "lock", "waiter"]
    assert waiters.listed(world.places) == []
    holder.tell()
    assert holder.wait() == 0


def test_a_process_of_another_namespace_is_not_known_to_be_dead(world: World) -> None:
    """A container that shares our directories, say: its pids mean nothing here."""
    world.define("tiny")
    session = world.begin("tiny", name="theirs")
    (entry,) = store.entries(world.places)
    assert owners.may_be_gone(entry.owner_mark, "00000000")
    code = "import ctypes, os, sys; sys.path.insert(0, sys.argv[1]); from sessions import store, owners\n"
    code += "from sessions.model import *; from sessions.lifecycle import has_lost_its_owner\n"
    code += f"places = {world.places!r}\n"
    code += "print(has_lost_its_owner(store.open_session(places, 'theirs', for_marks=False)))\n"
    argv = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code, str(REPOSITORY)]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "False\n"
    session.end()


def test_a_journal_that_cannot_be_read_is_reported(world: World, gc: Callable[..., list[Finding]]) -> None:
    store.prepare(world.places)
    bad = Path(world.places.journal_dir, "bad,00000000")
    bad.write_text("nonsense\n")
    (found,) = gc()
    assert found.is_left
    assert "bad,00000000" in found.reason
    bad.unlink()


@pytest.mark.parametrize("length", [0, 100])
def test_what_a_power_cut_has_left_of_a_journal_that_was_not_synced_is_taken_away(
    world: World, gc: Callable[..., list[Finding]], length: int
) -> None:
    """With what it has left of the session, which then can be begun again."""
    world.define("layered", union_overlay_storage="disk")
    world.begin("layered", name="torn", persistent=True).end()
    places = world.places
    Path(places.overlay_dir, "torn/upper").mkdir(parents=True)
    Path(places.journal_dir, "torn,00000000").write_text("1234abcd {" + "x" * 100)
    os.truncate(Path(places.journal_dir, "torn,00000000"), length)
    assert words(gc(dry_run=True)) == [("session", "torn", True)]
    (found,) = gc()
    assert (found.kind, found.name, found.outcome) == ("session", "torn", "ended")
    assert "never came to the disk before a power cut" in found.reason
    with world.begin("layered", name="torn") as session:
        assert shell(session, "echo again") == "again\n"


def test_a_journal_that_was_spoilt_in_this_boot_is_left_with_its_session(
    world: World, gc: Callable[..., list[Finding]]
) -> None:
    world.define("layered", union_overlay_storage="disk")
    session = world.begin("layered", name="spoilt", persistent=True)
    shell(session, "echo kept > /kept")
    path = Path(store.find(world.places, "spoilt").path)
    content = path.read_bytes()
    path.write_bytes(b"")
    (found,) = gc()
    assert (found.name, found.is_left) == ("spoilt", True)
    path.write_bytes(content)
    assert shell(session, "cat /kept") == "kept\n"
    session.end()


def test_the_command(world: World) -> None:
    world.define("tiny")
    begin_and_die(world, name="dead")
    places = world.places
    argv = [sys.executable, "-m", "sessions.cli.native", "--config-dir", places.native_config_dir]
    argv += ["--state-dir", places.state_dir, "--runtime-dir", places.runtime_dir, "gc"]
    how = {"capture_output": True, "text": True, "env": {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)}}
    dry = subprocess.run([*argv, "--dry-run"], **how)  # type: ignore[call-overload]
    assert (dry.returncode, dry.stdout) == (0, "session dead: would be ended (the process it was for is gone)\n")
    done = subprocess.run([*argv, "--json"], **how)  # type: ignore[call-overload]
    (found,) = json.loads(done.stdout)["found"]
    assert (done.returncode, found["name"], found["outcome"], found["is_left"]) == (0, "dead", "ended", False)
    Path(places.journal_dir, "bad,00000000").write_text("nonsense\n")
    assert subprocess.run(argv, **how).returncode == 125  # type: ignore[call-overload]
    Path(places.journal_dir, "bad,00000000").unlink()
