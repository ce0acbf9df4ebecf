"""Sessions of images, block devices and btrfs subvolumes, on real file systems: what begins, lasts and goes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import REPOSITORY, World, busy_loop_devices, output, python, shell
from storages import CHANGEABLE, CLONED, KINDS, Storage, rebooted, storage, subvolumes

from sessions import environ, lifecycle, open_session, users
from sessions.engine import Settings
from sessions.errors import NotFound
from sessions.newsession import Wish

pytestmark = pytest.mark.usefixtures("read_only_host")

PROFILE = {"fstab": "proc /made/for/it proc defaults\n", "nssdatabases": "passwd\n"}


MADE = "/made/for/it/self"
TOLD = {"loopback": "in the image", "image": "in the image", "block-device": "/dev/loop", "btrfs": "snapshot"}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def compared(world: World, kind: str) -> Iterator[Storage]:
    """The chroot; afterwards nobody has a loop device of ours, or a subvolume beside the original's."""
    with storage(world, kind, profile=world.profile(**PROFILE)) as made:
        before = busy_loop_devices(world.base)
        tops = subvolumes(made.snapshots.parent) if made.snapshots else []
        yield made
        assert busy_loop_devices(world.base) == before
        assert tops == (subvolumes(made.snapshots.parent) if made.snapshots else [])
        assert world.leftovers() == []


def names_in(made: Storage) -> list[str]:
    """What there is in the original, but for what schroot, too, leaves in one that is no copy."""
    with made.original() as root:
        found = [str(path.relative_to(root)) for path in root.rglob("*")]
    return sorted(name for name in found if not name.startswith(("etc/passwd", "etc/debian_chroot", "lost+found")))


def test_begun_written_run_and_ended(world: World, kind: str) -> None:
    with compared(world, kind) as made:
        before = names_in(made)
        with world.begin("x") as session:
            assert shell(session, "cd /; echo one >file; cat file; ls -d " + MADE) == f"one\n{MADE}\n"
            assert output(session, "cat", "/etc/debian_chroot") == "x\n"
            assert Path(session.location, "file").read_text() == "one\n"
        written = [] if kind in CLONED else ["file"]
        assert names_in(made) == sorted([*before, *written])


def test_recovered_after_a_restart(world: World, kind: str) -> None:
    with compared(world, kind) as made:
        before = names_in(made)
        session = world.begin("x", name="one", persistent=True)
        shell(session, "echo data >/file")
        with rebooted(world):
            lifecycle.recover(world.places, "one", Settings())
            again = open_session("one", places=world.places)
            assert shell(again, "cat /file; ls -d /made/for/it/self") == "data\n/made/for/it/self\n"
            again.end()
        assert names_in(made) == sorted([*before, *([] if kind in CLONED else ["file"])])


def test_ended_after_a_restart(world: World, kind: str) -> None:
    """What was made in an original to mount on is taken away there, although that is mounted no more."""
    with compared(world, kind) as made:
        before = names_in(made)
        world.begin("x", name="one", persistent=True)
        with rebooted(world):
            lifecycle.end(world.places, "one", Settings())
        assert names_in(made) == before
        with pytest.raises(NotFound):
            open_session("one", places=world.places)


def test_laid_to_rest_and_recovered(world: World, kind: str) -> None:
    with compared(world, kind):
        loops = busy_loop_devices(world.base)
        session = world.begin("x", name="one", persistent=True)
        shell(session, "echo data >/file")
        lifecycle.rest(world.places, "one", Settings())
        assert busy_loop_devices(world.base) == loops
        lifecycle.recover(world.places, "one", Settings())
        assert output(open_session("one", places=world.places), "cat", "/file") == "data\n"
        session.end()


def test_two_at_once(world: World, kind: str) -> None:
    with compared(world, kind) as made:
        with world.begin("x") as one, world.begin("x") as two:
            shell(one, "echo one >/file")
            assert shell(two, "cat /file 2>/dev/null || echo none") == ("none\n" if kind in CLONED else "one\n")
            if kind.startswith(("loopback", "image")):
                assert len(busy_loop_devices(world.base)) == 1
        assert made.snapshots is None or list(made.snapshots.iterdir()) == []


@pytest.mark.parametrize("kind", CHANGEABLE)
def test_what_is_changed_through_the_twin_is_seen_by_new_sessions(world: World, kind: str) -> None:
    with compared(world, kind):
        with world.begin("source:x") as twin:
            shell(twin, "echo new >/edited")
        for _session in range(2):
            with world.begin("x") as session:
                assert shell(session, "cat /edited; rm /edited") == "new\n"


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_is_told_and_touches_nothing(world: World, kind: str) -> None:
    with compared(world, kind) as made:
        before = names_in(made)
        configuration = lifecycle.load(world.places)
        chroot, selected = lifecycle.find_chroot(configuration, "x", with_host=False)
        _session, plan = lifecycle.plan(world.places, chroot, selected, Wish(users.caller(), users.caller()))
        told = [step.describe() for step in plan]
        word = next(word for prefix, word in TOLD.items() if kind.startswith(prefix))
        assert any(word in line for line in told), told
        assert names_in(made) == before


def test_other_sessions_load_nothing_of_it(world: World) -> None:
    """What a session of a directory does not need costs it nothing."""
    world.define("tiny")
    code = """
before = set(sys.modules)
with sessions.begin("tiny", places=places) as session:
    assert session.run(["true"]).status == 0
loaded = {name for name in sys.modules if name.startswith("sessions.")}
rare = {f"sessions.steps.{module}" for module, _name in sessions.steps.RARE.values()}
rare |= {f"sessions.{name}" for name in ("mountwords", "linux.loop", "linux.blockdev", "linux.btrfs", "linux.holders")}
sys.exit(" ".join(sorted(loaded & rare)) or 0)
"""
    process = python(world, "import sessions.steps\n" + code, stderr=-1)
    assert process.communicate()[1] == b""
    assert process.returncode == 0


def by_hand(world: World, session: str, script: str, stage: str, environment: dict[str, str]) -> str:
    argv = [sys.executable, f"{world.places.stock_setup_dir}/{script}", stage, "ok"]
    environment = {**environment, "PYTHONPATH": str(REPOSITORY), "SESSION_ID": session}
    result = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, ""), result
    return result.stdout


def test_scripts_run_by_hand(world: World) -> None:
    """With nothing but schroot's environment, as an administrator's own script might call them."""
    with storage(world, "btrfs-snapshot") as made:
        assert made.snapshots
        configuration = lifecycle.load(world.places)
        chroot, selected = lifecycle.find_chroot(configuration, "x", with_host=False)
        wish = Wish(users.caller(), users.caller(), "one")
        session, _plan = lifecycle.plan(world.places, chroot, selected, wish)
        environment = environ.for_scripts(session, "setup-start")
        assert by_hand(world, "one", "05btrfs", "plan", environment).startswith("make the snapshot ")
        by_hand(world, "one", "05btrfs", "setup-start", environment)
        by_hand(world, "one", "10mount", "setup-start", environment)
        assert Path(session.location, "bin/busybox").exists()
        assert [path.name for path in made.snapshots.iterdir()] == ["one"]
        by_hand(world, "one", "10mount", "setup-stop", environment)
        by_hand(world, "one", "05btrfs", "setup-stop", environment)
        assert list(made.snapshots.iterdir()) == []
