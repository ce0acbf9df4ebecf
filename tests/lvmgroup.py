"""Logical volumes for tests: a volume group of its own on a loop device, and settings of LVM for such tests alone."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

# The volumes that there are, each with the options for snapshots of it.
KINDS = {"classic": "--size 8M", "thin": ""}
SIZE_MB, VOLUME_MB, POOL_MB = 512, 24, 128

WITHOUT_UDEV = ("--config", "activation{udev_rules=0 udev_sync=0}")

SETTINGS = """
devices {
    use_devicesfile = 0
    global_filter = [ "a!^/dev/(loop[0-9]|ubd[b-z]|mapper/|md|dm-)!", "r!.*!" ]
}
backup {
    backup = 0
    archive = 0
}
activation {
    monitoring = 0
}
global {
    use_lvmpolld = 0
}
"""


def use_own_settings() -> None:
    """Settings for this mount namespace: nothing but the tests' own devices, and no word of udev."""
    run("mount", "-t", "tmpfs", "settings", "/etc/lvm")
    Path("/etc/lvm/lvm.conf").write_text(SETTINGS)


def losetup(image: Path) -> str:
    """A loop device of a file, which stays until it is detached."""
    return run("losetup", "--show", "--find", str(image))


def run(*argv: str) -> str:
    """Run a program that has to succeed; what it prints."""
    result = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, close_fds=True)
    assert result.returncode == 0, f"{argv} ended with {result.returncode}: {result.stderr}"
    return result.stdout.strip()


def lvm(*argv: str) -> str:
    """Run a command of LVM that has to succeed, also where there is no udev; what it prints."""
    udev = () if os.path.exists("/run/udev/control") else WITHOUT_UDEV
    return run(argv[0], *udev, *argv[1:])


@dataclass(frozen=True)
class Group:
    """A volume group; `device` is what it lies on."""

    name: str
    device: str

    @classmethod
    def make(cls, name: str, image: Path, tree: Path) -> Group:
        """A group on a loop device of a new image."""
        with image.open("xb") as file:
            file.truncate(SIZE_MB << 20)
        return cls.make_on(name, losetup(image), tree)

    @classmethod
    def make_on(cls, name: str, device: str, tree: Path) -> Group:
        """A group on a device, with the volumes `classic` and, in the pool `pool`, `thin`: each holds the tree."""
        group = cls(name, device)
        lvm("vgcreate", "--quiet", group.name, group.device)
        lvm("lvcreate", "-y", "--size", f"{VOLUME_MB}m", "--name", "classic", group.name)
        lvm("lvcreate", "-y", "--size", f"{POOL_MB}m", "--type", "thin-pool", "--name", "pool", group.name)
        lvm("lvcreate", "-y", "--virtualsize", f"{VOLUME_MB}m", "--thinpool", f"{group.name}/pool", "--name", "thin")
        for volume in KINDS:
            group.fill(volume, tree)
        return group

    def path(self, volume: str) -> str:
        """The device of a volume."""
        return f"/dev/{self.name}/{volume}"

    def fill(self, volume: str, tree: Path) -> None:
        """Make a file system with a tree in it on a volume."""
        run("mkfs.ext4", "-q", "-F", "-d", str(tree), self.path(volume))

    def volumes(self) -> dict[str, str]:
        """The names of the volumes, each with its tags."""
        lines = lvm("lvs", "--noheadings", "--separator=:", "-o", "lv_name,lv_tags", self.name).splitlines()
        return {name: tags for name, _colon, tags in (line.strip().partition(":") for line in lines)}

    def remove(self) -> None:
        """Take it all away."""
        lvm("vgremove", "--force", "--force", "-y", self.name)
        run("losetup", "--detach", self.device)
