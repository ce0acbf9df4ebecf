"""An encrypted volume, which sessions open: its image is on a disk that no power cut is tried on."""

from __future__ import annotations

import os
from pathlib import Path

from lvmgroup import run
from volumestack import LUKS_MB, Stack

KIND = "secret"
IMAGE, KEY = Path("/var/tmp/secret"), Path("/var/tmp/key")
DEVICE = "/dev/loop7"
CONFIGURATION = f"""
[chroot.secret]
type = "block-device"
device = "/dev/mapper/{KIND}"
mount-options = "-o ro"
volumes = [{{kind = "luks", device = "{DEVICE}", name = "{KIND}", key-file = "{KEY}"}}]
fsck = true
union-type = "overlay"
profile = "minimal"
"""


def make(tree: Path) -> None:
    """An encrypted volume with the chroot in it, closed."""
    with IMAGE.open("xb") as image:
        image.truncate(LUKS_MB << 20)
    attach()
    Stack(tree, KEY, KIND, lambda size_mb: DEVICE).luks().fill().close()


def attach() -> None:
    """As the disk comes at boot."""
    run("losetup", DEVICE, str(IMAGE))


def is_open() -> bool:
    """Whether somebody has opened it."""
    return os.path.exists(f"/dev/mapper/{KIND}")
