"""No cache is truth: whatever of ours is no journal, lock or data of a session may be gone, and everything works."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import Fork, World, fork, output, shell

from sessions import lifecycle, open_session, store, upkeep, waiters
from sessions.engine import Settings
from sessions.errors import SourceBusy
from sessions.linux import mountinfo
from sessions.locks import session_lock
from sessions.sourcelock import Patience
from sessions.sweep import Sweep

NAMES = ["archive", "directory", "disk", "held", "memory"]


@pytest.fixture
def world(world: World) -> World:
    world.define("disk", union_overlay_storage="disk")
    world.define("directory", union_type="none")
    world.define("memory")
    world.define("locked")
    os.makedirs(world.base / "archive")
    shutil.make_archive(str(world.base / "archive/tiny"), "tar", world.root)
    text = f'[chroot.archive]\ntype = "file"\nfile = "{world.base}/archive/tiny.tar"\nprofile = ""\n'
    world.write("native/chroot.d/archive.toml", text)
    return world


def truth(world: World) -> set[Path]:
    """Journals, locks, and the sessions' own data, with the directories above."""
    places = world.places
    paths = [Path(entry.path) for entry in store.entries(places)]
    for item in lifecycle.listed(places):
        assert isinstance(item, lifecycle.Listed)
        session = item.journal.session
        own = (session.location, session.overlay_directory, session.unpack_directory)
        paths += [Path(path) for path in own if path]
        if session.cached:  # which may be gone, too, but it is what the session's programs are in
            paths.append(Path(session.cached.path))
    for directory in (places.lock_dir, places.maintenance_dir):
        paths += Path(directory).iterdir()
    return {above for path in paths for above in (path, *path.parents)}


def others(world: World) -> Iterator[Path]:
    """What is left: the uppermost files and directories that are none of those."""
    kept = truth(world)
    mounted = {Path(mount.target) for mount in mountinfo.read()}
    data = {path for path in kept if not any(path in other.parents for other in kept)}

    def below(directory: Path) -> Iterator[Path]:
        for path in sorted(directory.iterdir()):
            if path in data:
                continue
            if path in kept or path in mounted:
                yield from below(path)
            else:
                yield path

    for top in (world.places.state_dir, world.places.runtime_dir):
        yield from below(Path(top))


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def test_everything_else_may_be_gone(world: World) -> None:
    places = world.places
    for name in ("archive", "directory", "disk", "memory"):
        session = world.begin(name, name=name, persistent=True)
        if name != "directory":
            shell(session, f"echo {name} >/file")
    upkeep.lock(places, "locked", "an upgrade", Patience())

    def hold(it: Fork) -> None:
        with world.begin("memory", name="held") as session:
            it.tell("in")
            it.ask()
            it.tell(output(session, "echo", "still there"))

    holder = fork(hold)
    assert holder.ask() == "in"
    # What has been left by others, too: a temporary file of who was killed, and what older versions may have made.
    Path(places.journal_dir, ".temporary").write_text("half")
    Path(places.state_dir, "cache").mkdir()
    Path(places.state_dir, "cache/index").write_text("{}")
    Path(places.runtime_dir, "index").write_text("{}")
    with session_lock(places.lock_dir, "disk"):
        gone = list(others(world))
        for path in gone:
            remove(path)
    found = {str(path).removeprefix(f"{world.base}/") for path in gone}
    assert found >= {"run/events", "run/waiting", "run/index", "state/cache", "state/sessions/.temporary"}

    assert [item.journal.session.id for item in lifecycle.listed(places)] == NAMES  # type: ignore[union-attr]
    assert {item.state for item in lifecycle.listed(places)} == {"up"}  # type: ignore[union-attr]
    for name in ("archive", "disk", "memory"):
        assert output(open_session(name, places=places), "cat", "/file") == f"{name}\n"
    with world.begin("disk", name="new") as session:
        assert output(session, "echo", "new") == "new\n"
    with pytest.raises(SourceBusy, match="an upgrade"):
        world.begin("locked", lock_timeout_s=0.0)
    with pytest.raises(SourceBusy, match="session disk"):
        world.begin("source:disk", lock_timeout_s=0.0)
    assert list(Sweep(places, Settings(), dry_run=False).all()) == []
    lifecycle.recover(places, "disk", Settings())
    lifecycle.rest(places, "archive", Settings())
    lifecycle.recover(places, "archive", Settings())
    holder.tell()
    assert holder.ask() == "still there"
    assert holder.ask() == ""
    assert holder.wait() == 0
    upkeep.unlock(places, "locked")
    for name in ("archive", "directory", "disk", "memory"):
        open_session(name, places=places).end()
    assert list(Sweep(places, Settings(), dry_run=False).all()) == []


@pytest.mark.parametrize("which", ["lock_dir", "waiting_dir", "events_dir", "unpack_dir", "maintenance_dir"])
def test_directories_that_are_empty_may_be_gone(world: World, which: str) -> None:
    places = world.places
    with world.begin("disk", name="one") as session:
        directory = Path(getattr(places, which))
        if directory.exists():
            shutil.rmtree(directory)
        assert output(session, "echo", "works") == "works\n"
        with world.begin("archive", name="two") as other:
            assert output(other, "echo", "works") == "works\n"
        assert waiters.listed(places) == []
    assert list(Sweep(places, Settings(), dry_run=False).all()) == []


def test_a_dead_owners_session_is_found_by_its_journal_alone(world: World) -> None:
    def die(it: Fork) -> None:
        world.begin("disk", name="dead")
        os.kill(os.getpid(), signal.SIGKILL)

    assert fork(die).wait() == -signal.SIGKILL
    for path in others(world):
        remove(path)
    (found,) = Sweep(world.places, Settings(), dry_run=False).all()
    assert (found.kind, found.name, found.outcome) == ("session", "dead", "ended")
