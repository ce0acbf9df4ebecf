"""Devices that come late: waited for by the kernel's events, until the time is over or a signal comes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import Fork, World, output

from sessions import lifecycle, users
from sessions.errors import SessionsError
from sessions.newsession import Wish

Ask = Callable[..., Fork]


@pytest.fixture
def image(world: World) -> Path:
    """An ext4 file system with the tiny chroot in it."""
    path = world.base / "image"
    with path.open("xb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", "-d", world.root, path], check=True)
    return path


@pytest.fixture
def attached() -> Iterator[Callable[..., str]]:
    """Attaches a file to a loop device."""
    devices = []

    def attach(image: Path, device: str = "--find") -> str:
        argv = ["losetup", "--show", device, str(image)] if device == "--find" else ["losetup", device, str(image)]
        made = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip() or device
        devices.append(made)
        return made

    yield attach
    for device in devices:
        subprocess.run(["losetup", "--detach", device], check=True)


def define(world: World, device: Path | str, **settings: object) -> str:
    usual: dict[str, object] = {"type": "block-device", "device": str(device), "directory": None, "union_type": "none"}
    return world.define("late", **{**usual, "device_timeout": 60, **settings})


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Path]:
    """A directory for links to devices."""
    path = tmp_path / "dev"
    path.mkdir()
    yield path


def test_a_link_that_comes_late(world: World, asker: Ask, image: Path, attached: Callable[..., str], dev: Path) -> None:
    """In a directory that comes late, too, as those of udev do."""
    device = attached(image)
    waiting = asker(define(world, dev / "by-name/x"))
    assert waiting.ask() == f"waiting for {dev}/by-name/x"
    (dev / "by-name").mkdir()
    (dev / "by-name/x").symlink_to(device)
    assert waiting.ask() == "in"
    waiting.tell()
    assert waiting.ask() == ""
    assert waiting.wait() == 0


def test_a_link_whose_device_comes_late(
    world: World, asker: Ask, image: Path, attached: Callable[..., str], dev: Path
) -> None:
    """It leads to a device that is there, but empty: the kernel tells when that changes."""
    free = subprocess.run(["losetup", "--find"], capture_output=True, text=True, check=True).stdout.strip()
    (dev / "x").symlink_to(free)
    waiting = asker(define(world, dev / "x"))
    assert waiting.ask() == f"waiting for {dev}/x"
    attached(image, free)
    assert waiting.ask() == "in"
    waiting.tell()
    assert waiting.ask() == ""
    assert waiting.wait() == 0


def test_a_device_that_is_there_is_not_waited_for(world: World, image: Path, attached: Callable[..., str]) -> None:
    said: list[str] = []
    with world.begin(define(world, attached(image)), say=lambda letter, line: said.append(line)) as session:
        assert output(session, "cat", "/etc/passwd")
    assert said == []


@pytest.mark.parametrize(
    ("timeout_s", "words"),
    [
        (1, "is not there, or no block device, also after 1 seconds; attach it, or mend its name"),
        (0, r"Failed to stat file: No such file or directory"),
    ],
)
def test_a_device_that_does_not_come(world: World, dev: Path, timeout_s: int, words: str) -> None:
    with pytest.raises(SessionsError, match=rf"{dev}/x:? {words}"):
        world.begin(define(world, dev / "x", device_timeout=timeout_s))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait(world: World, asker: Ask, dev: Path, signum: signal.Signals) -> None:
    waiting = asker(define(world, dev / "x"))
    assert waiting.ask() == f"waiting for {dev}/x"
    os.kill(waiting.pid, signum)
    told = waiting.ask()
    assert told.startswith("KeyboardInterrupt") == (signum == signal.SIGINT), told
    assert waiting.wait() == (1 if signum == signal.SIGINT else -signum)
    assert world.leftovers() == []


def planned(world: World, name: str) -> list[str]:
    chroot, selected = lifecycle.find_chroot(lifecycle.load(world.places), name, with_host=False)
    caller = users.caller()
    _session, steps = lifecycle.plan(world.places, chroot, selected, Wish(caller, caller))
    return [step.describe() for step in steps]


def test_the_plan_tells_of_volumes_waits_and_checks(world: World, dev: Path) -> None:
    wait, check = f"wait for {dev}/x, up to 60 seconds", f"check the file system on {dev}/x, unless it is in use"
    assert planned(world, define(world, dev / "x", fsck=True))[:2] == [wait, check]
    volumes = [
        {"kind": "raid", "device": "/dev/md0", "members": ["/dev/a", "/dev/b"], "degraded": True},
        {"kind": "luks", "device": "/dev/md0", "name": "one", "key-file": "/key"},
        {"kind": "luks", "device": "/dev/mapper/one", "name": "two"},
        {"kind": "lvm", "volume-group": "vg", "logical-volume": "lv"},
    ]
    assert planned(world, define(world, dev / "x", volumes=volumes))[:5] == [
        "start the array /dev/md0 of /dev/a, /dev/b, even if it lacks some",
        "open the encrypted volume /dev/md0 as /dev/mapper/one by /key",
        "open the encrypted volume /dev/mapper/one as /dev/mapper/two by a password",
        "activate the logical volume vg/lv",
        wait,
    ]


def test_the_origin_of_a_snapshot_is_waited_for(world: World) -> None:
    more: dict[str, object] = {"lvm_snapshot_options": "--size 1G", "union_type": None, "union_overlay_storage": None}
    define(world, "/dev/vg/lv", type="lvm-snapshot", **more)
    assert planned(world, "late")[0] == "wait for /dev/vg/lv, up to 60 seconds"
