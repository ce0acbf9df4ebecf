"""What goes wrong with logical volumes: it is said, and nothing of a session stays that is not there for a reason."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from helpers import Fork, World, fork, shell
from lvmgroup import Group, lvm
from mapperlvm import both, define

import sessions
from sessions.errors import SetupFailed, Stuck

FILL = ["dd", "of=/root/x", "bs=1M", "conv=fsync"]


def failure(world: World, **wishes: object) -> str:
    """What a begin says that fails, and what to do about it."""
    with pytest.raises(SetupFailed) as caught:
        world.begin("volume", **wishes)
    return str(caught.value)


def test_no_room_in_the_volume_group(world: World, group: Group) -> None:
    lvm("lvcreate", "-y", "--extents", "100%FREE", "--name", "filler", "--wipesignatures", "n", group.name)
    try:
        define(world, group, "classic")
        before = group.volumes()
        error = failure(world, name="one")
        assert "insufficient free space" in error and "one" in error
        assert "make room in the volume group" in error
        assert group.volumes() == before
    finally:
        lvm("lvremove", "--force", f"{group.name}/filler")


@both
def test_a_volume_of_that_name_is_somebody_elses(world: World, group: Group, kind: str) -> None:
    lvm("lvcreate", "-y", "--size", "4m", "--addtag", "theirs", "--name", "one", group.name)
    try:
        define(world, group, kind)
        before = group.volumes()
        error = failure(world, name="one")
        assert 'Logical Volume "one" already exists' in error
        assert "take another session name" in error
        assert group.volumes() == before
        with world.begin("volume", name="two"):
            pass
    finally:
        lvm("lvremove", "--force", f"{group.name}/one")


@pytest.mark.parametrize(
    ("settings", "words", "hint"),
    [
        ({"device": "/dev/{group}/nothing"}, "/dev/{group}/nothing: Failed to stat file: No such file", "lvchange"),
        ({"device": "/dev/nogroup/nothing"}, "/dev/nogroup/nothing: Failed to stat file: No such file", "lvs"),
        ({"device": "/dev/mapper/{group}-classic"}, "is not a logical volume's device", "/dev/GROUP/VOLUME"),
        ({"device": "/dev/../etc/passwd"}, "is not a logical volume's device", "/dev/GROUP/VOLUME"),
        ({"lvm_snapshot_options": ""}, "specify either size or extents", "--size"),
        ({"lvm_snapshot_options": "--size 8M --name x"}, "may not be repeated", ""),
        ({"lvm_snapshot_options": "--size much"}, "Invalid argument for --size", ""),
    ],
)
def test_configured_wrongly(world: World, group: Group, settings: dict[str, str], words: str, hint: str) -> None:
    define(world, group, "classic", **{key: value.format(group=group.name) for key, value in settings.items()})
    before = group.volumes()
    error = failure(world)
    assert words.format(group=group.name) in error
    assert hint in error
    assert group.volumes() == before


def test_names_that_lvm_keeps_for_itself(world: World, group: Group) -> None:
    define(world, group, "classic")
    error = failure(world, name="snapshot1")
    assert 'Names starting "snapshot" are reserved' in error
    assert "take another session name" in error


def test_classic_snapshot_runs_full(world: World, group: Group) -> None:
    define(world, group, "classic", lvm_snapshot_options="--size 4M")
    before = group.volumes()
    session = world.begin("volume", persistent=True)
    filled = session.run(FILL, input=bytes(12 << 20), capture=True)
    assert filled.status != 0
    assert b"Input/output error" in filled.stderr
    session.end()
    assert group.volumes() == before


def test_thin_pool_is_full(world: World, group: Group) -> None:
    """What writes more than there is fails, once the pool has been told not to wait for somebody to extend it."""
    pool = f"{group.name}/small"
    lvm("lvcreate", "-y", "--size", "16m", "--type", "thin-pool", "--name", "small", group.name)
    try:
        lvm("lvchange", "--errorwhenfull", "y", pool)
        lvm("lvcreate", "-y", "--virtualsize", "64m", "--thinpool", pool, "--name", "wide", group.name)
        group.fill("wide", world.root)
        define(world, group, "wide", lvm_snapshot_options="")
        before = group.volumes()
        session = world.begin("volume", persistent=True)
        filled = session.run(FILL, input=bytes(range(256)) * (40 << 12), capture=True)
        assert filled.status != 0
        assert b"No space left on device" in filled.stderr or b"Input/output error" in filled.stderr
        session.end()
        assert group.volumes() == before
        # With the pool still full of nothing but the original, there is room again.
        with world.begin("volume") as session:
            assert shell(session, "ls /root") == ""
    finally:
        lvm("lvremove", "--force", f"{group.name}/wide", f"{group.name}/small")


@both
def test_somebody_holds_the_snapshot_at_the_end(world: World, group: Group, kind: str) -> None:
    define(world, group, kind)
    before = group.volumes()
    session = world.begin("volume", name="one", persistent=True)

    def hold(it: Fork) -> None:
        fd = os.open(group.path("one"), os.O_RDONLY)
        it.tell("held")
        it.ask()
        os.close(fd)

    holder = fork(hold)
    assert holder.ask() == "held"
    with pytest.raises(Stuck) as caught:
        session.end()
    assert f"open in {holder.pid}" in str(caught.value)
    assert "one" in group.volumes()
    holder.tell()
    assert holder.wait() == 0
    sessions.open_session("one", places=world.places).end()
    assert group.volumes() == before


def test_force_ends_who_holds_it(world: World, group: Group) -> None:
    define(world, group, "thin")
    before = group.volumes()
    session = world.begin("volume", name="one", persistent=True)
    with open(group.path("one"), "rb") as device:
        holder = subprocess.Popen(["sleep", "100000"], stdin=device)
    session.end(force=True)
    assert holder.wait() != 0
    assert group.volumes() == before


def test_mounted_elsewhere_at_the_end(world: World, group: Group, tmp_path: Path) -> None:
    define(world, group, "thin")
    session = world.begin("volume", name="one", persistent=True)
    (tmp_path / "theirs").mkdir()
    subprocess.run(["mount", group.path("one"), tmp_path / "theirs"], check=True)
    with pytest.raises(Stuck, match=f"mounted on {tmp_path}/theirs"):
        session.end()
    subprocess.run(["umount", tmp_path / "theirs"], check=True)
    session.end()


def test_removed_by_somebody_else(world: World, group: Group) -> None:
    """What is gone is gone; the rest of the session ends."""
    define(world, group, "classic")
    session = world.begin("volume", name="one", persistent=True)
    subprocess.run(["umount", "--recursive", session.location], check=True)
    lvm("lvremove", "--force", f"{group.name}/one")
    lvm("lvcreate", "-y", "--size", "4m", "--wipesignatures", "n", "--name", "one", group.name)
    try:
        session.end()
        assert group.volumes()["one"] == ""
    finally:
        lvm("lvremove", "--force", f"{group.name}/one")


def test_what_the_kernel_lacks_is_named(world: World, group: Group, tmp_path: Path) -> None:
    """Nothing loads it: LVM would, so that it is not even called."""
    define(world, group, "thin")
    kept = [name for name in os.listdir("/sys/module") if name != "dm_thin_pool"]
    for name in kept:
        (tmp_path / "module" / name).mkdir(parents=True)
    subprocess.run(["mount", "--bind", tmp_path / "module", "/sys/module"], check=True)
    error = failure(world)
    subprocess.run(["umount", "/sys/module"], check=True)
    assert "this kernel has no dm-thin-pool" in error
    assert "modprobe dm-thin-pool" in error


def test_lvm_is_not_installed(world: World, group: Group, tmp_path: Path) -> None:
    define(world, group, "thin")
    real = os.path.realpath("/usr/sbin/lvcreate")
    subprocess.run(["mount", "--bind", "/etc/passwd", real], check=True)  # which nobody can execute
    error = failure(world)
    subprocess.run(["umount", real], check=True)
    assert "lvcreate is not installed" in error
    assert "apt-get install lvm2" in error
