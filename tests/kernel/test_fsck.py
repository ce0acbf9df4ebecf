"""A file system is checked before it is mounted for the first time, and never while it is in use."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import World, output

from sessions.errors import SessionsError


@pytest.fixture(params=["block-device", "loopback"])
def make(world: World, request: pytest.FixtureRequest) -> Callable[[], Path]:
    """Makes the image of a file system, and a chroot of it that is checked: by way of a device, or as it is."""

    def define() -> Path:
        image = world.base / "image"
        with image.open("xb") as file:
            file.truncate(8 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", "-d", world.root, image], check=True)
        where: dict[str, object] = {"file": str(image)}
        if request.param == "block-device":
            argv = ["losetup", "--show", "--find", str(image)]
            device = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
            where = {"device": device}
            request.addfinalizer(lambda: subprocess.run(["losetup", "--detach", device], check=True))
        more: dict[str, object] = {"directory": None, "union_type": "none", "fsck": True}
        world.define("checked", type=request.param, **where, **more)
        return image

    return define


def mark_dirty(image: Path, command: str = "set_super_value state 0") -> None:
    """As it is after a power cut, or with errors in it."""
    subprocess.run(["debugfs", "-w", "-R", command, image], check=True, capture_output=True)


def begun(world: World) -> list[str]:
    """What is said by a session that is begun, used and ended."""
    said: list[str] = []
    with world.begin("checked", say=lambda letter, line: said.append(f"{letter}: {line}")) as session:
        assert output(session, "cat", "/etc/passwd")
    return said


def test_one_that_is_clean(world: World, make: Callable[[], Path]) -> None:
    make()
    (line,) = begun(world)
    assert line.startswith("I: fsck: /")
    assert ": clean, " in line


def test_one_that_was_not_unmounted_is_repaired_once(world: World, make: Callable[[], Path]) -> None:
    mark_dirty(make(), "set_super_value free_blocks_count 1")
    mark_dirty(world.base / "image")
    (line,) = begun(world)
    assert line.startswith("I: fsck: errors on /")
    assert "were corrected: /" in line
    (line,) = begun(world)
    assert ": clean, " in line


def test_one_that_cannot_be_repaired(world: World, make: Callable[[], Path]) -> None:
    image = make()
    mark_dirty(image, "clri <2>")
    mark_dirty(image)
    before = image.read_bytes()
    with pytest.raises(SessionsError, match=r"fsck of /.*UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY"):
        world.begin("checked")
    # It is not even mounted to look for what is ours.
    assert image.read_bytes()[:1024] == before[:1024]


def test_only_the_first_of_two_sessions_checks(world: World, make: Callable[[], Path]) -> None:
    make()
    with world.begin("checked"):
        assert begun(world) == []
    assert len(begun(world)) == 1


def test_one_that_others_have_mounted_is_left_alone(world: World, make: Callable[[], Path]) -> None:
    image = make()
    place = world.base / "mounted"
    place.mkdir()
    listed = subprocess.run(["losetup", "-n", "-O", "NAME", "-j", image], capture_output=True, text=True, check=True)
    subprocess.run(["mount", *(listed.stdout.split() or ["-o", "loop", image]), place], check=True)
    try:
        assert begun(world) == []
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_part_of_an_image_cannot_be_checked(world: World) -> None:
    image = world.base / "image"
    image.write_bytes(bytes(4096))
    settings: dict[str, object] = {"type": "loopback", "file": str(image), "mount_options": "-o offset=512"}
    world.define("checked", directory=None, union_type="none", fsck=True, **settings)
    with pytest.raises(SessionsError, match=r"fsck cannot check a part of .*/image; take fsck out"):
        world.begin("checked")
