"""What sessions of ZFS datasets lie on: a pool that is pretended, for the world of a driver."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

import pretendzfs
import world as worlds
from disks import call

DATASET = """
[chroot.zfs]
type = "zfs-snapshot"
zfs-dataset = "tank/tiny"
profile = "minimal"
"""


class Pool:
    """A pool of ZFS that is pretended, with the world's chroot as its dataset, and a kernel that seems to have ZFS."""

    def __init__(self, world: worlds.World) -> None:
        self.place = Path(f"{world.base}.pool")
        (programs := self.place / "programs").mkdir(parents=True)
        self.state = self.place / "state"
        pretendzfs.install(str(programs), str(self.state), {"tank/tiny": str(world.chroot)})
        call("mount", "-t", "overlay", "-o", f"lowerdir={programs}:/usr/sbin", "programs", "/usr/sbin")
        (self.place / "known").write_text(Path("/proc/filesystems").read_text() + "nodev\tzfs\n")
        call("mount", "--bind", self.place / "known", "/proc/filesystems")
        with (world.base / "etc/sessions.toml").open("a") as configuration:
            configuration.write(DATASET)

    def names(self) -> Iterator[str]:
        """Datasets and snapshots."""
        for name in json.loads((self.state / "datasets").read_text()):
            yield f"dataset {name}"

    def quiet(self) -> None:
        """ZFS does a thing wholly or not at all; what is pretended has to come to its end."""
        with open(self.state / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)

    def restart(self) -> None:
        """The pool is as it was."""

    def wipe(self) -> None:
        """Whatever there is besides the dataset is a session's."""
        things = json.loads((self.state / "datasets").read_text())
        kept = {name: things[name] for name in ("tank", "tank/tiny")}
        (self.state / "datasets").write_text(json.dumps(kept))

    def close(self) -> None:
        """Nothing but files."""
        call("umount", "/proc/filesystems")
        call("umount", "/usr/sbin")
