"""Logical volumes on the disk that the power is cut of."""

from __future__ import annotations

import subprocess

import crashvolumes
from lvmgroup import WITHOUT_UDEV, Group

GROUP = "power"
CONFIGURATION = crashvolumes.configuration(Group(GROUP, ""))


class Volumes(crashvolumes.Volumes):
    """The group, which may not be there yet."""

    def __init__(self, device: str) -> None:
        self.group = Group(GROUP, device)


def activate() -> None:
    """As initial systems do, which go on if a volume that was half made when the power was cut cannot be activated."""
    subprocess.run(["vgchange", *WITHOUT_UDEV, "--activate", "y", GROUP], capture_output=True, check=False)
