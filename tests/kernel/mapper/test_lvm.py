"""Sessions of logical volumes, each in a snapshot of its own: classic ones, which have a size, and thin ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import REPOSITORY, World, shell
from lvmgroup import Group, lvm
from mapperlvm import both, define
from storages import rebooted

import sessions
from sessions import environ, lifecycle, users
from sessions.engine import Settings
from sessions.errors import SetupFailed
from sessions.newsession import Wish


@both
def test_begin_write_run_end(world: World, group: Group, kind: str) -> None:
    define(world, group, kind)
    before = group.volumes()
    with world.begin("volume", name="one") as session:
        assert group.volumes() == {**before, "one": f"chroot-sessions-{session.session.stamp}"}
        assert os.stat(session.location).st_dev == os.stat(group.path("one")).st_rdev
        said = shell(session, "echo new >/var/tmp/new; rm /bin/tail; cat /var/tmp/new /etc/debian_chroot")
        assert said == "new\nvolume\n"
    assert group.volumes() == before
    with world.begin("volume") as session:
        assert shell(session, "ls /var/tmp; ls /bin/tail") == "/bin/tail\n"


@both
def test_two_at_once_and_the_original(world: World, group: Group, kind: str) -> None:
    define(world, group, kind)
    with world.begin("volume", name="one") as one, world.begin("volume", name="two") as two:
        shell(one, "echo one >/var/tmp/here")
        shell(two, "echo two >/var/tmp/here")
        assert shell(one, "cat /var/tmp/here") == "one\n"
        assert shell(two, "cat /var/tmp/here") == "two\n"
    with world.begin("source:volume") as source:
        assert shell(source, "ls /var/tmp") == ""
        shell(source, "echo edited >/root/edited")
    try:
        with world.begin("volume") as session:
            assert shell(session, "cat /root/edited") == "edited\n"
    finally:
        with world.begin("source:volume") as source:
            shell(source, "rm /root/edited")


@contextmanager
def restarted(world: World, group: Group) -> Iterator[None]:
    """After a restart of the machine whose initial system activates nothing but what holds the root."""
    with rebooted(world):
        lvm("vgchange", "--activate", "n", group.name)
        try:
            yield
        finally:
            lvm("vgchange", "--activate", "y", group.name)


@both
def test_recovered_after_a_restart(world: World, group: Group, kind: str) -> None:
    """Its snapshot lasts; one that nobody has activated is activated."""
    define(world, group, kind)
    before = group.volumes()
    session = world.begin("volume", name="one", persistent=True)
    shell(session, "echo data >/root/file; sync")
    with restarted(world, group):
        lifecycle.recover(world.places, "one", Settings())
        again = sessions.open_session("one", places=world.places)
        assert shell(again, "cat /root/file") == "data\n"
        lifecycle.rest(world.places, "one", Settings())
        assert "one" in group.volumes()
        lifecycle.recover(world.places, "one", Settings())
        assert shell(again, "cat /root/file") == "data\n"
        again.end()
    assert group.volumes() == before


@both
def test_ended_after_a_restart(world: World, group: Group, kind: str) -> None:
    define(world, group, kind)
    before = group.volumes()
    world.begin("volume", name="one", persistent=True)
    with restarted(world, group):
        lifecycle.end(world.places, "one", Settings())
    assert group.volumes() == before


def test_not_recovered_without_its_data(world: World, group: Group) -> None:
    """A snapshot that is somebody else's, or none, or one that has run full, is not taken for the session's."""
    define(world, group, "classic", lvm_snapshot_options="--size 4M")
    for number, words in enumerate(("is gone", "is gone", "has run full")):
        session = world.begin("volume", name="one", persistent=True)
        if words == "has run full":
            session.run(["dd", "of=/root/x", "bs=1M", "conv=fsync"], input=bytes(12 << 20), capture=True)
        with rebooted(world):
            if words == "is gone":
                lvm("lvremove", "--force", f"{group.name}/one")
            if number == 1:
                lvm("lvcreate", "-y", "--snapshot", "--size", "4m", "--name", "one", group.path("classic"))
            with pytest.raises(SetupFailed, match=words):
                lifecycle.recover(world.places, "one", Settings())
            lifecycle.end(world.places, "one", Settings())
        assert ("one" in group.volumes()) == (number == 1)
        if number == 1:
            lvm("lvremove", "--force", f"{group.name}/one")


def test_below_an_overlay(world: World, group: Group) -> None:
    """What a session writes comes into its layer, and its snapshot is not written to."""
    define(world, group, "thin", union_type="overlay", union_overlay_storage="disk")
    before = group.volumes()
    session = world.begin("volume", name="one", persistent=True)
    shell(session, "echo data >/root/file; rm /bin/tail")
    assert (Path(session.session.overlay_directory) / "upper/root/file").read_text() == "data\n"
    with restarted(world, group):
        lifecycle.recover(world.places, "one", Settings())
        assert shell(session, "cat /root/file; ls /bin/tail 2>/dev/null || echo gone") == "data\ngone\n"
        session.end()
    assert group.volumes() == before


def test_the_plan_is_told_and_touches_nothing(world: World, group: Group) -> None:
    define(world, group, "classic")
    define(world, group, "thin", name="slim")
    before = group.volumes()
    configuration = lifecycle.load(world.places)
    for name, words in {
        "volume": f"make /dev/{group.name}/one, a classic snapshot of {group.path('classic')} (--size 8M)",
        "slim": f"make /dev/{group.name}/one, a thin snapshot of {group.path('thin')}",
    }.items():
        chroot, selected = lifecycle.find_chroot(configuration, name, with_host=False)
        wish = Wish(users.caller(), users.caller(), "one")
        _session, plan = lifecycle.plan(world.places, chroot, selected, wish)
        assert words in [step.describe() for step in plan]
    assert group.volumes() == before


@pytest.mark.parametrize(
    ("volume", "options", "type"),
    [
        *(("classic", text, "linear") for text in ("-L8M", "--siz 8M -c 8k", "--extents=10%ORIGIN")),
        ("thin", "--setactivationskip=n --permission rw", "thin"),
        ("thin", "--size 8M", "linear"),
    ],
)
def test_options_as_they_may_be_written(world: World, group: Group, volume: str, options: str, type: str) -> None:
    define(world, group, volume, lvm_snapshot_options=options)
    with world.begin("volume", name="one") as session:
        assert lvm("lvs", "--noheadings", "-o", "segtype", group.path("one")) == type
        assert shell(session, "ls -d /root") == "/root\n"


def test_the_script_by_hand(world: World, group: Group) -> None:
    """With the environment that schroot gives to scripts, it makes a snapshot and removes it."""
    define(world, group, "classic")
    before = group.volumes()
    chroot, selected = lifecycle.find_chroot(lifecycle.load(world.places), "volume", with_host=False)
    session, _plan = lifecycle.plan(world.places, chroot, selected, Wish(users.caller(), users.caller(), "one"))
    for stage in ("setup-start", "setup-stop", "setup-stop"):
        variables = environ.for_scripts(session, stage)
        run = subprocess.run([sys.executable, REPOSITORY / "setup.d/05lvm", stage, "ok"], env=variables)
        assert run.returncode == 0
        assert ("one" in group.volumes()) == (stage == "setup-start")
    assert group.volumes() == before
