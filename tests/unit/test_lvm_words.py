"""What the words of an administrator about logical volumes are taken to mean."""

from __future__ import annotations

import pytest

from sessions.errors import StepFailed
from sessions.linux import volumes


@pytest.mark.parametrize(
    "options",
    ["-L 2G", "-L2G", "--size 2G", "--size=2G", "--siz 2G", "-l5%VG", "--extents 10", "--ext=10", "-c 8k -L 1g"],
)
def test_a_size_makes_a_classic_snapshot(options: str) -> None:
    assert volumes.is_sized(options.split())


@pytest.mark.parametrize(
    "options", ["", "-kn", "--setactivationskip n", "--type thin", "--thinpool pool", "--addtag size", "--s", "-p r"]
)
def test_anything_else_a_thin_one(options: str) -> None:
    assert not volumes.is_sized(options.split())


@pytest.mark.parametrize(
    ("path", "group", "name"),
    [("/dev/vg/lv", "vg", "lv"), ("/dev/a.b+c_d-e/f-g", "a.b+c_d-e", "f-g"), ("/dev/_x/.y", "_x", ".y")],
)
def test_a_device_names_its_group_and_volume(path: str, group: str, name: str) -> None:
    assert volumes.volume(path) == volumes.Volume(group, name)


@pytest.mark.parametrize(
    "path",
    [
        *("/dev/lv", "/dev/mapper/vg-lv", "/dev/disk/by-id", "/dev/block/1:2", "/dev/vg/lv/x", "/dev/vg/", "/dev//lv"),
        *("/srv/vg/lv", "dev/vg/lv", "/dev/-x/lv", "/dev/vg/-x", "/dev/vg/l v", "/dev/vg/lv\n", '/dev/vg/l"v', ""),
    ],
)
def test_other_devices_are_refused(path: str) -> None:
    with pytest.raises(StepFailed, match="name it /dev/GROUP/VOLUME"):
        volumes.volume(path)
