"""What kinds of session lie on that is more than files: a volume group in the world of a driver."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import lvmgroup
import world as worlds
from lvmgroup import Group, lvm

CHROOT = """
[chroot.{volume}]
type = "lvm-snapshot"
device = "{device}"
lvm-snapshot-options = "{options}"
profile = "minimal"
"""
PROGRAMS = ("lvcreate", "lvremove", "lvchange", "lvs")


def configuration(group: Group) -> str:
    """Each volume of the group as a chroot of its own."""
    kinds = lvmgroup.KINDS.items()
    return "".join(CHROOT.format(volume=name, device=group.path(name), options=options) for name, options in kinds)


class Volumes:
    """A group with a classic and a thin volume, each of which holds the world's chroot and is one of its own."""

    def __init__(self, world: worlds.World) -> None:
        self.image = Path(f"{world.base}.volumes")
        name = f"crash{zlib.crc32(os.fsencode(world.base)):08x}"
        self.group = Group.make(name, self.image, world.chroot)
        with (world.base / "etc/sessions.toml").open("a") as file:
            file.write(configuration(self.group))

    def names(self) -> Iterator[str]:
        """Volumes with their tags, active or not, and mappings, whose volume may be gone."""
        for name, tags in self.group.volumes().items():
            yield f"volume {name} with tag {tags!r}"
        for path in Path("/sys/block").glob("dm-*/dm/name"):
            if path.read_text().startswith(f"{self.group.name}-"):
                yield f"mapping {path.read_text().strip()}"

    def quiet(self) -> None:
        """Whoever ends LVM half way leaves devices suspended, which a restart would not: that takes them all away."""
        for comm in Path("/proc").glob("[0-9]*/comm"):
            try:
                if comm.read_text().strip() not in PROGRAMS:
                    continue
                pidfd = os.pidfd_open(int(comm.parts[2]))
            except (OSError, ValueError):
                continue
            assert worlds.wait_for_end(pidfd, 60.0)
            os.close(pidfd)

    def restart(self) -> None:
        """Nothing is active, and then what the initial system activates."""
        lvm("vgchange", "--activate", "n", self.group.name)
        lvm("vgchange", "--activate", "y", self.group.name)

    def wipe(self) -> None:
        """Whatever has a tag is a session's."""
        for name, tags in self.group.volumes().items():
            if tags:
                lvm("lvremove", "--force", f"{self.group.name}/{name}")

    def close(self) -> None:
        """The group goes, and the loop device it lies on."""
        self.group.remove()
        self.image.unlink()


BACKINGS: dict[str, Callable[[worlds.World], worlds.Backing]] = {"lvm": Volumes}
