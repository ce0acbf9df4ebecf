"""Chroots on real file systems: images, block devices (loop devices, to be exact) and subvolumes of btrfs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import disks
from disks import call, make_subvolumes, mounted
from helpers import MNT_DETACH, World, bind, umount

from sessions.linux import mountinfo, proc


def make_image(world: World, fstype: str, *, inside: str = "", name: str = "") -> Path:
    """An image of the tiny chroot, which lies in a directory inside."""
    path = world.base / (name or f"image.{fstype}")
    tree = world.base / "tree"
    shutil.copytree(world.root, tree / inside.strip("/"), symlinks=True)
    disks.make_image(tree, path, fstype)
    shutil.rmtree(tree)
    return path


@contextmanager
def loop_device(image: Path, *options: str) -> Iterator[str]:
    """A block device, as far as anybody can tell."""
    device = call("losetup", "--find", "--show", *options, image)
    try:
        yield device
    finally:
        call("losetup", "--detach", device)


@dataclass(frozen=True)
class Storage:
    """A chroot that is defined, and where its original can be looked at while no session writes to it."""

    name: str
    looked_at: Callable[[], object]
    """Mounts the original (a context manager of its root), or is where it is all the time."""
    snapshots: Path | None = None
    """Where its sessions' snapshots are made."""

    @contextmanager
    def original(self) -> Iterator[Path]:
        with self.looked_at() as root:  # type: ignore[attr-defined]
            yield root


IMAGES = ("squashfs", "erofs", "ext4", "xfs", "btrfs")
KINDS = (
    "loopback", "loopback+overlay", "loopback+inside", "block-device", "block-device+overlay",
    *(f"image.{fstype}" for fstype in IMAGES), "image.squashfs+inside", "btrfs-snapshot", "btrfs-snapshot+overlay",
)  # fmt: skip
CLONED = tuple(kind for kind in KINDS if not kind.startswith(("loopback", "block-device")) or "overlay" in kind)
# Their originals can be changed.
CHANGEABLE = tuple(kind for kind in CLONED if "squashfs" not in kind and "erofs" not in kind)


@contextmanager
def storage(world: World, kind: str, **more: object) -> Iterator[Storage]:
    """A chroot `kind`, named "x", whose layers are on the disk."""
    kind, _plus, how = kind.partition("+")
    kind, _dot, fstype = kind.partition(".")
    inside = "/the/root" if how == "inside" else ""
    union = "overlay" if how == "overlay" or kind == "image" else "none"
    settings: dict[str, object] = {"type": kind, "directory": None, "union-type": union, **more}
    if union == "overlay":
        settings.setdefault("union-overlay-storage", "disk")
    if inside:
        settings["location"] = inside
    with ExitStack() as stack:
        snapshots = None
        if kind == "btrfs-snapshot":
            top = stack.enter_context(mounted(make_btrfs(world), world.base / "btrfs", "-o", "loop"))
            source, snapshots = make_subvolumes(world.root, top)
            settings |= {"btrfs-source-subvolume": str(source), "btrfs-snapshot-directory": str(snapshots)}
            looked_at: Callable[[], object] = lambda: _there(source)  # noqa: E731
        else:
            image = make_image(world, fstype or "ext4", inside=inside)
            what: Path | str = image
            if kind == "block-device":
                what = stack.enter_context(loop_device(image))
            settings["device" if kind == "block-device" else "file"] = str(what)
            options = ("-o", "loop") if kind != "block-device" else ()
            looked_at = lambda: _inside(what, world.base / "looked-at", inside, options)  # noqa: E731
        world.define("x", **settings)
        yield Storage("x", looked_at, snapshots)


@contextmanager
def _there(path: Path) -> Iterator[Path]:
    yield path


@contextmanager
def _inside(what: Path | str, at: Path, inside: str, options: tuple[str, ...]) -> Iterator[Path]:
    with mounted(what, at, *options) as top:
        yield top / inside.strip("/")


def make_btrfs(world: World) -> Path:
    path = world.base / "pool.btrfs"
    disks.make_empty(path, "btrfs")
    return path


def subvolumes(top: Path) -> list[str]:
    """The names of all subvolumes of a btrfs that is mounted there."""
    return sorted(line.rpartition(" path ")[2] for line in call("btrfs", "subvolume", "list", top).splitlines())


@contextmanager
def rebooted(world: World) -> Iterator[None]:
    """What is mounted for sessions and what is in the runtime directory is gone, and the boot has another id."""
    places = world.places
    for directory in (places.runtime_dir, places.state_dir):
        for found in mountinfo.below(mountinfo.read(), directory):
            umount(found.target, MNT_DETACH)
    shutil.rmtree(places.runtime_dir)
    boot_id = world.write("boot-id", f"{os.urandom(4).hex()}-0000-4000-8000-000000000000\n")
    bind(boot_id, proc.BOOT_ID)
    try:
        yield
    finally:
        umount(proc.BOOT_ID)
