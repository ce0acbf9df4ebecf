"""Sessions of ZFS datasets, as far as they can be tried without ZFS: their command lines, against zfs(8)'s grammar.

What answers is tests/pretendzfs.py, in the place of zfs(8) and of its mount helper; all else is real.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pretendzfs
import pytest
from helpers import MNT_DETACH, World, bind, mount, output, shell, umount
from storages import rebooted

from sessions import lifecycle, open_session
from sessions.engine import Settings
from sessions.errors import SessionsError, SetupFailed, Stuck

STAMP = "chroot-sessions:stamp"
CLONE = "tank/tiny/schroot-one"


class Pool:
    """The pool "tank" with the dataset "tank/tiny", and what was asked of ZFS."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.state = world.base / "zfs"
        self.programs = world.base / "programs"
        self.programs.mkdir()
        pretendzfs.install(str(self.programs), str(self.state), {"tank/tiny": str(world.root)})

    def calls(self) -> list[list[str]]:
        """What was asked, in order; each session's stamp is called so."""
        path = self.state / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [[self._masked(word) for word in json.loads(line)] for line in lines]

    def _masked(self, word: str) -> str:
        if word.startswith(f"{STAMP}="):
            return f"{STAMP}=STAMP"
        return "STAGING" if word.endswith(".staging") else word

    def changes(self) -> list[list[str]]:
        """What was asked to be changed."""
        return [call for call in self.calls() if call[:2] not in (["zfs", "get"], ["zfs", "list"])]

    @property
    def datasets(self) -> list[str]:
        return sorted(json.loads((self.state / "datasets").read_text()))

    def zfs(self, *words: str) -> str:
        result = subprocess.run(["/usr/sbin/zfs", *words], capture_output=True, text=True)
        assert result.returncode == 0, result
        return result.stdout


@pytest.fixture
def pool(world: World) -> Iterator[Pool]:
    """Programs and a list of file systems that say there is ZFS, in our mount namespace only."""
    made = Pool(world)
    mount("programs", "/usr/sbin", "overlay", data=f"lowerdir={made.programs}:/usr/sbin")
    known = Path("/proc/filesystems").read_text()
    bind(world.write("filesystems", f"{known}nodev\tzfs\n"), "/proc/filesystems")
    define(world)
    yield made
    for path in ("/proc/filesystems", "/usr/sbin"):
        umount(path, MNT_DETACH)


def define(world: World, **more: object) -> None:
    settings = {"type": "zfs-snapshot", "directory": None, "union_type": "none", "zfs_dataset": "tank/tiny"}
    world.define("x", **{**settings, **more})


def test_the_commands_of_a_session(world: World, pool: Pool) -> None:
    with world.begin("x", name="one") as session:
        assert pool.changes() == [
            ["zfs", "snapshot", "-o", f"{STAMP}=STAMP", "tank/tiny@one"],
            ["zfs", "clone", "-o", "mountpoint=legacy", "-o", f"{STAMP}=STAMP", "tank/tiny@one", CLONE],
            ["mount.zfs", "tank/tiny/schroot-one", "STAGING", "-o", "rw"],
        ]
        assert pool.datasets == ["tank", "tank/tiny", "tank/tiny/schroot-one", "tank/tiny@one"]
        assert shell(session, "echo written >/file; cat /file") == "written\n"
        (source,) = [line.split(" - ")[1].split()[1] for line in mounted_at(session.location)]
        assert source == "tank/tiny/schroot-one"
        pool.calls()
    assert pool.changes() == [["zfs", "destroy", "-r", "tank/tiny/schroot-one"], ["zfs", "destroy", "tank/tiny@one"]]
    assert pool.datasets == ["tank", "tank/tiny"]
    assert not (pool.state / "contents/tank%tiny/upper/file").exists()


def mounted_at(location: str) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if line.split()[4] == location]


def test_options(world: World, pool: Pool) -> None:
    """schroot's own words go to the same commands."""
    pool.zfs("snapshot", "tank/tiny@old")
    pool.zfs("clone", "tank/tiny@old", "tank/tiny/below")
    define(world, zfs_snapshot_options="-r -o acme:why=a", mount_options="-o noatime -r", location="/home")
    pool.calls()
    with world.begin("x", name="one") as session:
        snapshot, clone, mounted = pool.changes()
        assert snapshot == ["zfs", "snapshot", "-o", f"{STAMP}=STAMP", "-r", "-o", "acme:why=a", "tank/tiny@one"]
        assert mounted[-2:] == ["-o", "ro,noatime"]
        assert clone[-2:] == ["tank/tiny@one", "tank/tiny/schroot-one"]
        assert "tank/tiny/below@one" in pool.datasets
        assert session.location.endswith("/home")
    assert pool.changes()[-1] == ["zfs", "destroy", "-r", "tank/tiny@one"]
    assert pool.datasets == ["tank", "tank/tiny", "tank/tiny/below", "tank/tiny@old"]


def test_recovered_and_ended_after_a_restart(world: World, pool: Pool) -> None:
    for name in ("one", "two"):
        shell(world.begin("x", name=name, persistent=True), "echo data >/file")
    with rebooted(world):
        pool.calls()
        lifecycle.recover(world.places, "one", Settings())
        assert [call[0] for call in pool.changes()] == ["mount.zfs"]
        again = open_session("one", places=world.places)
        assert output(again, "cat", "/file") == "data\n"
        again.end()
        lifecycle.end(world.places, "two", Settings())
    assert pool.datasets == ["tank", "tank/tiny"]


def test_two_at_once_and_below_a_union(world: World, pool: Pool) -> None:
    define(world, union_type="overlay")
    with world.begin("x") as one, world.begin("x") as two:
        shell(one, "echo one >/file")
        assert shell(two, "cat /file 2>/dev/null || echo none") == "none\n"
        assert len(pool.datasets) == 6
    assert pool.datasets == ["tank", "tank/tiny"]


def test_the_twin_is_the_dataset_itself(world: World, pool: Pool) -> None:
    with world.begin("source:x") as twin:
        shell(twin, "echo new >/edited")
    assert [call[:2] for call in pool.changes()] == [["mount.zfs", "tank/tiny"]]
    with world.begin("x") as session:
        assert output(session, "cat", "/edited") == "new\n"


def test_what_is_somebody_elses_is_left_alone(world: World, pool: Pool) -> None:
    """Though it has the name, and inherits the stamp of what is above."""
    pool.zfs("snapshot", "tank/tiny@one")
    with pytest.raises(SetupFailed, match="tank/tiny@one exists already; look at it"):
        world.begin("x", name="one")
    session = world.begin("x", name="two", persistent=True)
    with rebooted(world):
        pool.zfs("destroy", "tank/tiny/schroot-two")
        pool.zfs("clone", "tank/tiny@two", "tank/tiny/schroot-two")
        with pytest.raises(SessionsError, match="tank/tiny/schroot-two is gone, so the session cannot be recovered"):
            lifecycle.recover(world.places, "two", Settings())
        with pytest.raises(Stuck, match=r"cannot destroy tank/tiny@two: .*tank/tiny/schroot-two"):
            session.end()
        assert "tank/tiny/schroot-two" in pool.datasets
        pool.zfs("destroy", "tank/tiny/schroot-two")
        session.end()
    assert pool.datasets == ["tank", "tank/tiny", "tank/tiny@one"]


def test_who_keeps_a_clone_busy_is_named(world: World, pool: Pool) -> None:
    session = world.begin("x", name="one")
    (elsewhere := world.base / "elsewhere").mkdir()
    subprocess.run(["mount", "-t", "zfs", "tank/tiny/schroot-one", elsewhere], check=True)
    with pytest.raises(Stuck, match=f"tank/tiny/schroot-one: .*dataset is busy: it is mounted on {elsewhere}"):
        session.end()
    umount(elsewhere)
    session.end()
    assert pool.datasets == ["tank", "tank/tiny"]


def test_what_is_made_of_a_clone_goes_with_it(world: World, pool: Pool) -> None:
    """Services that make snapshots of all datasets make them of this one, too."""
    with world.begin("x", name="one"):
        pool.zfs("snapshot", "-r", "tank@hourly")
    assert pool.datasets == ["tank", "tank/tiny", "tank/tiny@hourly", "tank@hourly"]


def test_faults(world: World, pool: Pool) -> None:
    define(world, zfs_dataset="tank/nosuch")
    with pytest.raises(SetupFailed, match=r"Dataset 'tank/nosuch' does not exist; "):
        world.begin("x")
    define(world, zfs_dataset="other/tiny")
    with pytest.raises(SetupFailed, match=r"zfs cannot tell whether there is other/tiny: .*; see zpool status"):
        world.begin("x")
    define(world, zfs_dataset="-r")
    with pytest.raises(SetupFailed, match=r"-r@.* is not the name of a dataset; "):
        world.begin("x")
    define(world, zfs_snapshot_options="-q")
    with pytest.raises(SetupFailed, match=r"cannot snapshot tank/tiny@.*; "):
        world.begin("x")
    assert pool.datasets == ["tank", "tank/tiny"]


def test_a_pool_that_is_not_there_at_the_end(world: World, pool: Pool) -> None:
    """It may come back, with the session's datasets on it: they are not taken for gone."""
    session = world.begin("x", name="one", persistent=True)
    kept = (pool.state / "datasets").read_text()
    with rebooted(world):
        (pool.state / "datasets").write_text("{}")
        with pytest.raises(Stuck, match="zfs cannot tell whether there is tank/tiny"):
            session.end()
        (pool.state / "datasets").write_text(kept)
        session.end()
    assert pool.datasets == ["tank", "tank/tiny"]


def test_without_zfs(world: World, pool: Pool) -> None:
    umount("/proc/filesystems")
    with pytest.raises(SetupFailed, match="this kernel has no zfs file system; load it as root: modprobe zfs"):
        world.begin("x")
    assert pool.calls() == []
    bind(world.base / "filesystems", "/proc/filesystems")
    os.unlink(pool.programs / "zfs")
    with pytest.raises(SetupFailed, match="zfs is not installed; apt-get install zfsutils-linux"):
        world.begin("x")
