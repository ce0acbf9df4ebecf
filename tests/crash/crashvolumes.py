"""What kinds of session lie on that is more than files: a volume group, or a stack, in the world of a driver."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import lvmgroup
import world as worlds
from crashpool import Pool
from lvmgroup import Group, lvm
from volumestack import LUKS_MB, Stack, toml

CHROOT = """
[chroot.{volume}]
type = "lvm-snapshot"
device = "{device}"
lvm-snapshot-options = "{options}"
profile = "minimal"
"""
STACKED = """
[chroot.stacked]
type = "block-device"
device = "{device}"
volumes = {volumes}
union-type = "overlay"
profile = "minimal"
"""
PROGRAMS = ("lvcreate", "lvremove", "lvchange", "lvs", "cryptsetup", "mdadm", "dmsetup")


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
        wait_for_programs()

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


def wait_for_programs() -> None:
    """Wait for the end of programs that nobody may kill."""
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            if comm.read_text().strip() not in PROGRAMS:
                continue
            pidfd = os.pidfd_open(int(comm.parts[2]))
        except (OSError, ValueError):
            continue
        assert worlds.wait_for_end(pidfd, 60.0)
        os.close(pidfd)


class Stacked:
    """A stack that holds the world's chroot, closed before each session."""

    def __init__(self, world: worlds.World, build: Callable[[Stack], Stack]) -> None:
        self.devices: list[str] = []
        self.base = world.base
        prefix = f"crash{zlib.crc32(os.fsencode(world.base)):08x}"
        # A key that the snapshots of the world's files do not know of.
        self.key_file = Path(f"{world.base}.key")
        self.stack = build(Stack(world.chroot, self.key_file, prefix, self.attach)).fill().close()
        with (world.base / "etc/sessions.toml").open("a") as configuration:
            configuration.write(STACKED.format(device=self.stack.top, volumes=toml(self.stack.tables)))

    def image(self, number: int) -> Path:
        return Path(f"{self.base}.disk{number}")

    def attach(self, size_mb: int) -> str:
        image = self.image(len(self.devices))
        with image.open("xb") as file:
            file.truncate(size_mb << 20)
        self.devices.append(lvmgroup.losetup(image))
        return self.devices[-1]

    def names(self) -> Iterator[str]:
        """What is open, whole or half: mappings, arrays, and what is made of our devices."""
        for path in Path("/sys/block").glob("dm-*/dm/name"):
            if path.read_text().startswith(self.stack.prefix):
                yield f"mapping {path.read_text().strip()}"
        for device in self.devices:
            for holder in Path("/sys/block", Path(device).name, "holders").iterdir():
                yield f"{holder.name} on {device}"
        for directory in ("/dev/mapper", "/dev/md", "/dev"):
            there = os.listdir(directory) if os.path.isdir(directory) else []
            yield from (f"{directory}/{name}" for name in there if name.startswith(self.stack.prefix))

    def quiet(self) -> None:
        """As for volumes."""
        wait_for_programs()

    def restart(self) -> None:
        """Nothing is open, and nobody opens it."""
        self.stack.wipe()

    def wipe(self) -> None:
        """The same."""
        self.stack.wipe()

    def close(self) -> None:
        """The images go, and the loop devices they lie on."""
        self.stack.wipe()
        for number, device in enumerate(self.devices):
            lvmgroup.run("losetup", "--detach", device)
            self.image(number).unlink()
        self.key_file.unlink()


def on_array(stack: Stack) -> Stack:
    """A logical volume on an encrypted one, on an array."""
    return stack.raid([stack.attach(LUKS_MB + 12), stack.attach(LUKS_MB + 12)]).luks().lvm()


BACKINGS: dict[str, Callable[[worlds.World], worlds.Backing]] = {
    "lvm": Volumes,
    "luks": lambda world: Stacked(world, lambda stack: stack.luks()),
    "stack": lambda world: Stacked(world, on_array),
    "zfs": Pool,
}
