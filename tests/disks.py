"""File systems in files, and what an administrator has mounted from them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pretendzfs

MIB = 1 << 20
# The directory of a world that its disks are in: it stays whatever happens to the machine.
DISKS = "disks"
# XFS is never smaller, and the file is sparse.
SIZES = {"ext4": 16 * MIB, "xfs": 300 * MIB, "btrfs": 120 * MIB}


def call(*words: str | Path) -> str:
    result = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert result.returncode == 0, (words, result)
    return result.stdout.strip()


@contextmanager
def mounted(what: Path | str, at: Path, *options: str) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    call("mount", *options, what, at)
    try:
        yield at
    finally:
        call("umount", at)
        at.rmdir()


def make_empty(path: Path, fstype: str) -> None:
    with open(path, "wb") as file:
        file.truncate(SIZES[fstype])
    call(f"mkfs.{fstype}", "-q", path)


def make_image(tree: Path, path: Path, fstype: str) -> None:
    """An image with the contents of a directory."""
    if fstype == "squashfs":
        call("mksquashfs", tree, path, "-quiet", "-no-progress", "-noappend")
    elif fstype == "erofs":
        call("mkfs.erofs", "--quiet", path, tree)
    else:
        make_empty(path, fstype)
        with mounted(path, path.with_name(f"{path.name}.filling"), "-o", "loop") as top:
            call("cp", "-a", f"{tree}/.", top)


def make_subvolumes(tree: Path, top: Path) -> tuple[Path, Path]:
    """On a btrfs that is mounted at `top`: a subvolume with the contents of a directory, and a place for snapshots."""
    call("btrfs", "subvolume", "create", top / "source")
    call("cp", "-a", f"{tree}/.", top / "source")
    (top / "snapshots").mkdir()
    return top / "source", top / "snapshots"


@dataclass(frozen=True)
class Disk:
    """An image of a world that sessions are made of, and the directory where it is mounted all the time, if it is."""

    image: Path
    place: Path | None = None
    pool: Path | None = None
    """The state of a pool that is pretended: see pretendzfs."""

    def mount(self) -> None:
        """As at boot, from /etc/fstab."""
        if self.place and not os.path.ismount(self.place):
            self.place.mkdir(exist_ok=True)
            call("mount", "-o", "loop", self.image, self.place)

    def datasets(self) -> list[str]:
        """What there is in the pool."""
        return [f"dataset {name}" for name in json.loads((self.pool / "datasets").read_text())] if self.pool else []


def make_pool(directory: Path, tree: Path) -> Disk:
    """A pool with the dataset tank/tiny, and a kernel that seems to have ZFS; for a mount namespace of our own."""
    (programs := directory / "programs").mkdir()
    pretendzfs.install(str(programs), str(directory / "pool"), {"tank/tiny": str(tree)})
    call("mount", "-t", "overlay", "-o", f"lowerdir={programs}:/usr/sbin", "programs", "/usr/sbin")
    (directory / "known").write_text(Path("/proc/filesystems").read_text() + "nodev\tzfs\n")
    call("mount", "--bind", directory / "known", "/proc/filesystems")
    return Disk(directory / "pool", pool=directory / "pool")


def make_disk(base: Path, kind: str, tree: Path) -> Disk:
    """The disk of a world: "btrfs" and "mounted" ones are mounted all the time, others by sessions alone.

    It is in memory, where nothing waits for a sync.
    """
    image = base / DISKS / kind
    image.parent.mkdir()
    call("mount", "-t", "tmpfs", "disks", image.parent)
    if kind == "zfs":
        return make_pool(image.parent, tree)
    fstype = {"btrfs": "btrfs", "image": "squashfs"}.get(kind, "ext4")
    if kind != "btrfs":
        make_image(tree, image, fstype)
        disk = Disk(image, base / "disk" if kind == "mounted" else None)
        disk.mount()
        return disk
    make_empty(image, fstype)
    disk = Disk(image, base / "disk")
    disk.mount()
    make_subvolumes(tree, base / "disk")
    return disk
