"""The cache of archives: unpacked once, shared by all, never half there, never changed, never gone while in use."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import PASSWD, Fork, World, bind, ext4, fork, make_chroot, output, shell, snapshot, umount
from tarmaking import tree_of

import sessions
from sessions import archivecache, events, eviction, lifecycle, store
from sessions.config.read import UNSETTLED_NS
from sessions.engine import Settings
from sessions.errors import BadArchive, SessionsError, SetupFailed
from sessions.linux import proc, trace
from sessions.sweep import Finding, Sweep

pytestmark = pytest.mark.usefixtures("read_only_host")


@pytest.fixture
def packed(world: World) -> Iterator[Path]:
    """An archive of the tiny chroot, that of the chroot ``packed``; it was made long enough ago for any clock."""
    archive = pack(world)
    world.define("packed", type="file", directory=None, file=str(archive), union_overlay_storage="disk")
    yield archive
    shutil.rmtree(world.places.archive_dir, ignore_errors=True)


def pack(world: World, name: str = "tiny.tar.gz", *, tree: Path | None = None, settled: bool = True) -> Path:
    """An archive; a settled one is of a time that has nothing to do with now."""
    archive = world.base / name
    new = world.base / f"new-{name}"
    subprocess.run(["tar", "--auto-compress", "-cf", new, "-C", tree or world.root, "."], check=True)
    new.rename(archive)
    if settled:
        settle(archive)
    return archive


def settle(archive: Path) -> None:
    """Let the clock go on for as long as it takes until a change of the archive would show."""
    while abs(os.stat(archive).st_ctime_ns - time.time_ns()) <= UNSETTLED_NS:
        pass


@pytest.fixture
def unpacked() -> Iterator[list[str]]:
    """The archives that were unpacked, and where, since the test began."""
    found: list[str] = []

    def hook(point: str) -> None:
        if point.startswith("unpacking "):
            found.append(point.removeprefix("unpacking "))

    before, trace.hook = trace.hook, hook
    yield found
    trace.hook = before


def trees(world: World) -> list[Path]:
    return sorted(path for path in Path(world.places.archive_dir).glob("[!.]*") if not path.is_symlink())


def tree(world: World) -> Path:
    (found,) = trees(world)
    return found / "tree"


def hidden(world: World) -> list[Path]:
    return sorted(Path(world.places.archive_dir).glob(".*"))


def collect(world: World, *, dry_run: bool = False) -> list[Finding]:
    return list(Sweep(world.places, Settings(), dry_run).all())


def told(world: World, event: str) -> list[dict[str, object]]:
    lines = Path(world.places.events_dir, events.LOG).read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["event"] == event]


def kept(world: World, age: str = "30d", size: str = "20%") -> None:
    """Say in sessions.toml what is kept."""
    world.write("native/sessions.toml", f'archive-cache-age = "{age}"\narchive-cache-size = "{size}"\n')


def test_it_is_unpacked_once_and_shared(world: World, packed: Path, unpacked: list[str]) -> None:
    with world.begin("packed") as one, world.begin("packed") as other:
        assert unpacked == [str(packed)]
        before = tree_of(tree(world)), snapshot(tree(world))
        script = "echo mine >/mine; rm /etc/passwd; chmod 700 /home; mv /bin/cat /bin/dog; ln /bin/busybox /bin/hard"
        shell(one, f"{script}; echo more >>/etc/group; rmdir /var/tmp; touch /bin/sh /root")
        assert "root:" in output(other, "cat", "/etc/passwd")
        assert not Path(other.location, "mine").exists()
        # Not a bit of it is another one than before, and not a time.
        assert (tree_of(tree(world)), snapshot(tree(world))) == before
    assert (tree_of(tree(world)), snapshot(tree(world))) == before
    assert hidden(world) == []
    (event,) = told(world, "unpacked")
    assert (event["archive"], event["chroot"], event["session"]) == (str(packed), "packed", one.id)
    assert int(str(event["bytes"])) > os.stat(packed).st_size


def test_only_root_comes_there_and_the_root_of_the_chroot_is_as_in_the_archive(world: World, packed: Path) -> None:
    world.root.chmod(0o2751)
    os.chown(world.root, 0, 50)
    pack(world)
    with world.begin("packed") as session:
        assert Path(world.places.archive_dir).stat().st_mode & 0o7777 == 0o700
        assert trees(world)[0].stat().st_mode & 0o7777 == 0o700
        for root in (tree(world), Path(session.location)):
            assert (root.stat().st_mode & 0o7777, root.stat().st_gid) == (0o2751, 50)
    world.root.chmod(0o755)
    os.chown(world.root, 0, 0)


def test_the_plan_says_it_and_touches_nothing(world: World, packed: Path) -> None:
    chroot, selected = lifecycle.find_chroot(lifecycle.load(world.places), "packed", with_host=False)
    wish = lifecycle.Wish(sessions.users.caller(), sessions.users.caller())
    session, steps = lifecycle.plan(world.places, chroot, selected, wish)
    assert session.cached and session.unpack_directory == ""
    assert steps[0].describe() == f"have {packed} unpacked in {session.cached.path}, once for all sessions"
    assert any(f"overlay of {session.cached.path}/tree" in step.describe() for step in steps)
    assert not Path(world.places.archive_dir).exists()


def test_a_root_inside_the_archive(world: World, packed: Path) -> None:
    outer = world.base / "outer"
    make_chroot(outer / "in/side")
    archive = pack(world, "outer.tar", tree=outer)
    world.define("inner", type="file", directory=None, file=str(archive), location="/in/side")
    for _time in range(2):
        with world.begin("inner") as session:
            assert session.location.endswith("/in/side")
            assert output(session, "ls", "/bin/busybox") == "/bin/busybox\n"
            shell(session, "rm /bin/busybox")


def test_a_changed_archive_is_unpacked_anew_and_the_old_tree_stays_for_its_sessions(
    world: World, packed: Path, unpacked: list[str]
) -> None:
    with world.begin("packed") as old:
        (world.root / "new").write_text("new\n")
        pack(world)
        with world.begin("packed") as new:
            assert output(new, "cat", "/new") == "new\n"
            assert len(unpacked) == 2
        assert not Path(old.location, "new").exists()
        assert len(trees(world)) == 2
        assert [finding for finding in collect(world) if finding.kind == "archive"] == []
    old_tree = str(old.session.cached and old.session.cached.path)
    (would,) = collect(world, dry_run=True)
    assert (would.kind, would.name, would.reason) == ("archive", old_tree, "its archive has changed")
    assert (would.outcome, would.is_left) == ("would be evicted", True)
    (finding,) = collect(world)
    assert (finding.name, finding.outcome, finding.is_left) == (old_tree, "evicted", False)
    (event,) = told(world, "evicted")
    assert (event["name"], event["archive"], event["reason"]) == (old_tree, str(packed), "its archive has changed")
    assert [str(path) for path in trees(world)] == [new.session.cached and new.session.cached.path]
    assert told(world, "removal") == []


@pytest.mark.parametrize("who_knows", ["a lasting session", "the collector"])
def test_changed_times_that_leave_the_contents_alone_cost_a_digest_once(
    world: World, packed: Path, unpacked: list[str], who_knows: str
) -> None:
    with world.begin("packed", persistent=who_knows == "a lasting session") as one:
        pass
    if who_knows == "the collector":
        collect(world)
    # Neither size nor time of modification: what chmod does, and who restores it from a copy.
    packed.chmod(0o600)
    settle(packed)
    with world.begin("packed") as other:
        assert other.session.cached and one.session.cached
        assert other.session.cached.path == one.session.cached.path
        assert other.session.cached.digest
    with world.begin("packed") as third:
        assert third.session.cached and third.session.cached.path == one.session.cached.path
        assert not third.session.cached.digest
    assert unpacked == [str(packed)]


def test_changed_times_of_what_has_no_digest_yet_cost_an_unpacking(
    world: World, packed: Path, unpacked: list[str]
) -> None:
    with world.begin("packed"):
        pass
    packed.chmod(0o600)
    settle(packed)
    with world.begin("packed"):
        assert len(unpacked) == 2
    assert len(trees(world)) == 1
    assert told(world, "evicted")[0]["reason"] == "its archive has changed"


def test_other_contents_with_the_same_size_and_time_are_another_tree(world: World) -> None:
    """Plain tar, in which a file can be changed in place: at the same moment, and long after."""
    archive = pack(world, "plain.tar", settled=False)
    world.define("plain", type="file", directory=None, file=str(archive))
    modified_ns = os.stat(archive).st_mtime_ns
    place = archive.read_bytes().index(PASSWD.encode()) + len("root:x:0:0:")
    for number, word in enumerate(("AAAA", "BBBB", "CCCC", "DDDD")):
        with open(archive, "r+b") as file:
            file.seek(place)
            file.write(word.encode())
        os.utime(archive, ns=(modified_ns, modified_ns))
        if number == 2:
            settle(archive)
        with world.begin("plain") as session:
            assert output(session, "head", "-n", "1", "/etc/passwd") == f"root:x:0:0:{word}:/root:/bin/sh\n"
    assert len(trees(world)) == 4
    shutil.rmtree(world.places.archive_dir)


def test_an_archive_that_was_made_just_now_is_known_again_later(world: World, unpacked: list[str]) -> None:
    archive = pack(world, "fresh.tar", settled=False)
    world.define("fresh", type="file", directory=None, file=str(archive))
    with world.begin("fresh"), world.begin("fresh"):
        settle(archive)
        with world.begin("fresh"):
            pass
        with world.begin("fresh") as last:
            assert last.session.cached and not last.session.cached.digest
    assert unpacked == [str(archive)]
    shutil.rmtree(world.places.archive_dir)


def test_the_source_twin_unpacks_for_itself_and_new_sessions_see_what_it_has_changed(
    world: World, packed: Path
) -> None:
    with world.begin("packed"):
        pass
    before = tree_of(tree(world))
    with world.begin("source:packed") as twin:
        assert twin.session.cached is None
        shell(twin, "echo changed >/changed")
        assert tree_of(tree(world)) == before
    with world.begin("packed") as session:
        assert output(session, "cat", "/changed") == "changed\n"


@pytest.mark.parametrize("when", ["create journal", "unpacking", "publish"])
def test_an_archive_that_is_replaced_meanwhile_is_taken_as_it_is_then(
    world: World, packed: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Between the look at it and its opening, while it is read, and just after."""
    (world.root / "new").write_text("new\n")
    new = pack(world, "other.tar.gz")
    replaced = []

    def hook(point: str) -> None:
        if point.startswith(when) and not replaced:
            replaced.append(os.rename(new, packed))

    monkeypatch.setattr(trace, "hook", hook)
    with world.begin("packed") as session:
        assert replaced
        assert Path(session.location, "new").exists() is (when != "publish")
    with world.begin("packed") as session:
        assert Path(session.location, "new").exists()
    assert hidden(world) == []


def test_an_archive_that_never_rests_is_given_up(world: World, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(world, "growing.tar")
    world.define("growing", type="file", directory=None, file=str(archive))

    def hook(point: str) -> None:
        if point.startswith("unpacking "):
            with open(archive, "ab") as file:
                file.write(bytes(512))

    monkeypatch.setattr(trace, "hook", hook)
    with pytest.raises(SetupFailed) as raised:
        world.begin("growing")
    assert str(raised.value) == (
        f"session of growing could not be set up: {archive} was changed while the session was begun; begin it again"
    )
    assert (trees(world), hidden(world)) == ([], [])


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_of_a_truncated_archive_nothing_stays(world: World, packed: Path, share: float) -> None:
    whole = packed.read_bytes()
    packed.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(SetupFailed) as raised:
        world.begin("packed")
    assert isinstance(raised.value.__cause__, SessionsError)
    assert str(packed) in str(raised.value)
    assert (trees(world), hidden(world)) == ([], [])
    packed.write_bytes(whole)
    with world.begin("packed") as session:
        output(session, "true")


def test_an_archive_that_is_not_there(world: World, packed: Path) -> None:
    with world.begin("packed"):
        pass
    packed.unlink()
    with pytest.raises(BadArchive, match=f"{packed}: Failed to stat file: No such file or directory"):
        world.begin("packed")
    (finding,) = collect(world)
    assert (finding.kind, finding.reason, finding.outcome) == ("archive", "its archive is gone", "evicted")


def test_where_there_is_no_room_nothing_stays(world: World, packed: Path) -> None:
    (world.root / "large").write_bytes(os.urandom(24 << 20))
    pack(world)
    (world.root / "large").unlink()
    Path(world.places.archive_dir).mkdir(parents=True, mode=0o700)
    with ext4(world.base, world.places.archive_dir):
        Path(world.places.archive_dir).chmod(0o700)
        with pytest.raises(SetupFailed, match=r"No space left on device.*; make room there, or make it writable"):
            world.begin("packed", name="one")
        assert [path.name for path in trees(world)] == ["lost+found"]
        assert hidden(world) == []
        assert collect(world) == []


class Unpacker:
    """A process that unpacks an archive, and stops in the midst of it until it is told to go on, or killed."""

    def __init__(self, world: World, packed: Path, **wishes: object) -> None:
        def work(it: Fork) -> None:
            def hook(point: str) -> None:
                if point.startswith("unpacking "):
                    it.tell("unpacking")
                    it.ask()

            trace.hook = hook
            with world.begin("packed", **wishes):
                it.tell("in")
                it.ask()

        self.process = fork(work)
        assert self.process.ask() == "unpacking"

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        assert self.process.wait() == -signal.SIGKILL


def test_who_comes_second_is_told_whom_it_waits_for(world: World, packed: Path, asker: Callable[..., Fork]) -> None:
    first = Unpacker(world, packed, name="first")
    second = asker("packed")
    assert second.ask().startswith(
        f"waiting for session first (process {first.process.pid} of root, which unpacks {packed} since 20"
    )
    first.process.tell()
    assert first.process.ask() == second.ask() == "in"
    for process in (first.process, second):
        process.tell()
        assert process.wait() == 0
    assert len(told(world, "unpacked")) == 1


def test_when_who_unpacks_is_killed_another_takes_over(world: World, packed: Path, asker: Callable[..., Fork]) -> None:
    first = Unpacker(world, packed, name="first")
    others = [asker("packed") for _number in range(3)]
    for other in others:
        assert other.ask().startswith("waiting for session first")
    first.kill()
    for other in others:
        while (line := other.ask()).startswith("waiting for session packed-"):
            pass
        assert line == "in"
    assert len(trees(world)) == 1 and len(told(world, "unpacked")) == 1
    for other in others:
        other.tell()
        assert other.wait() == 0
    collect(world)
    assert hidden(world) == []


def test_when_who_unpacks_fails_the_other_tries_it_itself(
    world: World, packed: Path, asker: Callable[..., Fork]
) -> None:
    first = Unpacker(world, packed)
    second = asker("packed")
    assert second.ask().startswith("waiting for session packed-")
    (child,) = [pid for pid in children(first.process.pid) if name_of(pid) == "gzip"]
    os.kill(child, signal.SIGKILL)
    first.process.tell()
    assert "gzip was killed by SIGKILL" in first.process.ask()
    assert first.process.wait() == 1
    assert second.ask() == "in"
    second.tell()
    assert second.wait() == 0


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_a_signal_ends_the_wait_and_leaves_nothing(world: World, packed: Path) -> None:
    first = Unpacker(world, packed)

    def wait(it: Fork) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        world.begin("packed", name="second", say=lambda _letter, line: it.tell(line))

    second = fork(wait)
    assert second.ask().startswith("waiting")
    os.kill(second.pid, signal.SIGTERM)
    assert second.wait() == -signal.SIGTERM
    assert not store.exists(world.places, "second")
    first.process.tell()
    assert first.process.ask() == "in"
    first.process.tell()
    assert first.process.wait() == 0


def test_sixteen_at_once_unpack_it_once(world: World, packed: Path) -> None:
    reader, writer = os.pipe()

    def work(it: Fork) -> None:
        os.close(writer)
        os.read(reader, 1)  # until all are there
        with world.begin("packed") as session:
            it.tell(output(session, "head", "-n", "1", "/etc/passwd"))

    processes = [fork(work) for _number in range(16)]
    os.close(writer)
    assert {process.ask() for process in processes} == {"root:x:0:0:root:/root:/bin/sh"}
    assert {process.wait() for process in processes} == {0}
    os.close(reader)
    assert len(told(world, "unpacked")) == 1
    assert len(trees(world)) == 1 and hidden(world) == []


def test_two_threads_of_one_process(world: World, packed: Path) -> None:
    locations: list[str] = []

    def work() -> None:
        with world.begin("packed") as session:
            locations.append(output(session, "pwd"))

    threads = [threading.Thread(target=work) for _number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert locations == ["/\n"] * 3
    assert len(told(world, "unpacked")) == 1


def begun_to_last(world: World, name: str = "lasting") -> sessions.OpenSession:
    session = world.begin("packed", name=name, persistent=True)
    shell(session, "echo kept >/kept; rm /etc/group; echo more >>/etc/passwd; mv /home/builder /home/other")
    return session


def restart(world: World, tmp_path: Path) -> Callable[[], None]:
    """Let the machine be another one, as it is after a restart: lasting sessions rest. What this gives undoes it."""
    for entry in store.entries(world.places):
        lifecycle.rest(world.places, entry.id, Settings())
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("00000000-0000-4000-8000-000000000000\n")
    bind(boot_id, proc.BOOT_ID)
    return lambda: umount(proc.BOOT_ID)


def check_what_was_kept(session: sessions.OpenSession) -> None:
    assert output(session, "cat", "/kept") == "kept\n"
    assert not Path(session.location, "etc/group").exists()
    assert shell(session, "tail -n 1 /etc/passwd; ls /home") == "more\nother\n"
    assert output(session, "head", "-n", "1", "/etc/passwd").startswith("root:")


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_lasting_session_is_recovered_after_a_restart_even_if_the_cache_was_emptied(
    world: World, packed: Path, unpacked: list[str], tmp_path: Path, is_gone: bool
) -> None:
    sessions_there = [begun_to_last(world), begun_to_last(world, "other")]
    undo = restart(world, tmp_path)
    if is_gone:
        shutil.rmtree(world.places.archive_dir)
    try:
        for session in sessions_there:
            lifecycle.recover(world.places, session.id, Settings())
            check_what_was_kept(session)
        assert len(unpacked) == 1 + is_gone
        assert [finding for finding in collect(world) if finding.kind == "archive"] == []
    finally:
        undo()
    for session in sessions_there:
        lifecycle.end(world.places, session.id, Settings())


def test_a_lasting_session_whose_tree_and_archive_are_gone_says_so(world: World, packed: Path, tmp_path: Path) -> None:
    session = begun_to_last(world)
    undo = restart(world, tmp_path)
    shutil.rmtree(world.places.archive_dir)
    touched = packed.read_bytes()
    (world.root / "new").write_text("new\n")
    pack(world)
    try:
        with pytest.raises(SetupFailed) as raised:
            lifecycle.recover(world.places, session.id, Settings())
        assert str(raised.value) == (
            f"session lasting could not be recovered: the tree of {packed} in the cache is gone, and the archive is "
            "not what it was; put the old archive back, or end the session; or end it: sessions end lasting"
        )
        assert hidden(world) == []
        # The old contents, but of another time: known again by their digest.
        packed.write_bytes(touched)
        lifecycle.recover(world.places, session.id, Settings())
        check_what_was_kept(session)
    finally:
        undo()
    lifecycle.end(world.places, session.id, Settings())


def test_what_may_not_have_come_to_the_disk_is_not_used_after_a_restart(
    world: World, packed: Path, unpacked: list[str], tmp_path: Path
) -> None:
    with world.begin("packed"):
        pass
    Path(tree(world), "etc/passwd").write_text("")  # as a power cut leaves a file
    undo = restart(world, tmp_path)
    try:
        (would,) = collect(world, dry_run=True)
        assert would.reason == "the machine was restarted before all of it was on the disk"
        with world.begin("packed") as session:
            assert output(session, "cat", "/etc/passwd").startswith("root:")
        assert len(unpacked) == 2
    finally:
        undo()


def test_the_collector_sees_to_it_that_it_outlasts_a_restart(
    world: World, packed: Path, unpacked: list[str], tmp_path: Path
) -> None:
    with world.begin("packed"):
        pass
    assert collect(world) == []
    undo = restart(world, tmp_path)
    try:
        with world.begin("packed"):
            assert len(unpacked) == 1
    finally:
        undo()


def test_sessions_go_on_and_end_when_the_cache_is_deleted_under_them(world: World, packed: Path) -> None:
    with world.begin("packed") as session:
        shell(session, "cp /bin/busybox /busybox")
        shutil.rmtree(world.places.archive_dir)
        assert session.run(["/busybox", "true"]).status == 0
        with world.begin("packed") as new:
            assert output(new, "cat", "/etc/passwd").startswith("root:")
    assert len(told(world, "end")) == 2


def test_a_cache_that_is_not_ours_is_not_used(world: World, packed: Path) -> None:
    Path(world.places.archive_dir).mkdir(parents=True, mode=0o777)
    Path(world.places.archive_dir).chmod(0o777)
    with pytest.raises(SetupFailed, match="is not a directory that only its owner, the calling user, can write to"):
        world.begin("packed")


# --- what goes ---


def used(world: World, path: Path, age_s: float) -> None:
    """Let a tree have been used last so long ago."""
    at_ns = time.time_ns() - int(age_s * 1e9)
    os.utime(path, ns=(at_ns, at_ns))


def test_what_was_not_used_for_long_goes_but_never_while_it_is_in_use(world: World, packed: Path) -> None:
    kept(world, age="2d")
    lasting = world.begin("packed", name="lasting", persistent=True)
    (entry,) = trees(world)
    used(world, entry, 3 * 86_400)
    assert collect(world) == []
    lifecycle.rest(world.places, "lasting", Settings())
    used(world, entry, 3 * 86_400)
    assert collect(world) == []
    lifecycle.end(world.places, lasting.id, Settings())
    # Its end was a use, too.
    assert collect(world) == []
    used(world, entry, 86_400)
    assert collect(world) == []
    used(world, entry, 3 * 86_400)
    (finding,) = collect(world)
    assert (finding.kind, finding.reason) == ("archive", "it was not used for long")
    assert trees(world) == []


def test_what_is_used_in_the_future_was_used_now(world: World, packed: Path) -> None:
    """As after the clock was set back."""
    kept(world, age="1h")
    with world.begin("packed"):
        pass
    (entry,) = trees(world)
    used(world, entry, -86_400 * 365)
    assert collect(world) == []
    assert entry.stat().st_mtime_ns <= time.time_ns()


def test_where_there_is_no_room_for_all_the_one_goes_that_was_not_used_for_longest(world: World, packed: Path) -> None:
    for name in ("a", "b", "c"):
        archive = pack(world, f"{name}.tar")
        world.define(name, type="file", directory=None, file=str(archive))
        with world.begin(name):
            pass
    by_name = {}
    for entry in archivecache.entries(world.places):
        assert entry.record
        by_name[Path(entry.record.archive).stem] = Path(entry.path)
    for age_s, name in ((300, "b"), (200, "c"), (100, "a")):
        used(world, by_name[name], age_s)
    size_bytes = archivecache.entries(world.places)[0].size_bytes
    kept(world, size=str(2 * size_bytes))
    with world.begin("b"):
        used(world, by_name["b"], 300)
        (finding,) = collect(world)
        assert (finding.name, finding.reason) == (
            str(by_name["c"]), "there is no room for all, and it was not used for longest"
        )  # fmt: skip
    assert trees(world) == sorted((by_name["a"], by_name["b"]))


def test_who_has_to_unpack_makes_room_first(world: World, packed: Path) -> None:
    with world.begin("packed"):
        pass
    (old,) = trees(world)
    pack(world)
    with world.begin("packed") as session:
        assert session.session.cached and [str(path) for path in trees(world)] == [session.session.cached.path]
    (event,) = told(world, "evicted")
    assert event["name"] == str(old)


def test_nothing_goes_while_a_journal_cannot_be_read(world: World, packed: Path) -> None:
    kept(world, age="0h")
    with world.begin("packed"):
        pass
    spoilt = Path(world.places.journal_dir, "spoilt,00000000")
    spoilt.write_text("no journal\n")
    spoilt.chmod(0o600)
    assert [finding.kind for finding in collect(world)] == ["journal"]
    assert len(trees(world)) == 1
    spoilt.unlink()
    assert [finding.kind for finding in collect(world)] == ["archive"]


def test_leftovers_go_and_what_is_just_being_unpacked_stays(world: World, packed: Path) -> None:
    unpacker = Unpacker(world, packed, name="one")
    assert collect(world) == []
    Path(world.places.archive_dir, ".0123456789ab/tree/etc").mkdir(parents=True)
    Path(world.places.archive_dir, "01234567-0-0-0-0").symlink_to("nowhere")
    Path(world.places.archive_dir, ".01234567-1-2-3").write_text("")
    others = [Path(world.places.archive_dir, name) for name in ("lost+found", ".somebody's", "0-1")]
    for other in others:
        other.mkdir()
    assert [(finding.kind, finding.outcome) for finding in collect(world, dry_run=True)] == [
        ("directory", "would be removed")
    ] * 3
    assert [(finding.kind, finding.outcome) for finding in collect(world)] == [("directory", "removed")] * 3
    unpacker.kill()
    assert "session" in {finding.kind for finding in collect(world)}
    assert sorted(Path(world.places.archive_dir).iterdir()) == sorted(others)


def test_what_sessions_begin_to_use_is_not_taken_away_from_them(world: World, packed: Path) -> None:
    """Two processes that begin and end sessions, and two that take away all that nobody uses, at the same time."""
    kept(world, age="0h")
    rounds = 40

    def use(it: Fork) -> None:
        for _round in range(rounds):
            with world.begin("packed") as session:
                assert output(session, "head", "-n", "1", "/etc/passwd") == "root:x:0:0:root:/root:/bin/sh\n"
                assert Path(session.location, "home/builder").is_dir()
        it.tell("done")

    def evict(it: Fork) -> None:
        configuration, count = lifecycle.load(world.places), 0
        while True:
            for one in eviction.unneeded(world.places, configuration):
                count += not eviction.evict(world.places, one)

    users, evictors = [fork(use) for _number in range(2)], [fork(evict) for _number in range(2)]
    assert [user.ask() for user in users] == ["done", "done"]
    assert [user.wait() for user in users] == [0, 0]
    for evictor in evictors:
        os.kill(evictor.pid, signal.SIGKILL)
        assert evictor.wait() == -signal.SIGKILL
    assert len(told(world, "evicted")) > 1
    collect(world)
    assert hidden(world) == []
