"""The group of volumes that other tests use is what it is meant to be, and so is what a test leaves behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

from conftest import Attach, devices
from lvmgroup import Group


def test_there_are_a_classic_and_a_thin_volume(group: Group) -> None:
    assert group.volumes() == {"classic": "", "pool": "", "thin": ""}
    types = subprocess.run(["dmsetup", "table"], capture_output=True, text=True, check=True).stdout
    assert {"linear", "thin-pool", "thin"} <= set(types.split())


def test_what_a_test_leaves_is_seen(attach: Attach, tmp_path: Path) -> None:
    before = devices()
    device = attach(4)
    subprocess.run(["dmsetup", "create", "left"], input=f"0 8 linear {device} 0\n".encode(), check=True)
    left = {line.partition(": ")[2] for line in devices() - before}
    # udev makes a node in /dev/mapper, too, where it runs.
    assert left - {""} == {str(tmp_path / "disk0"), "left"}
    subprocess.run(["dmsetup", "remove", "left"], check=True)
