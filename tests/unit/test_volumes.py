"""The tables of volumes that a block device is stacked on: read, refused with a remedy, and printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from configuring import load_schroot, load_toml, places_in, summary

from sessions import keytypes, records, sources
from sessions.data import replace
from sessions.keys import BY_NAME, value_of
from sessions.model import BlockDevice, Chroot, Luks, LvmSnapshot, LvmVolume, Raid

STACK = """
[chroot.secure]
type = "block-device"
device = "/dev/vg0/root"
device-timeout = 30
fsck = true

[[chroot.secure.volumes]]
kind = "raid"
device = "/dev/md/data"
members = ["/dev/sda1", "/dev/sdb1"]
degraded = true

[[chroot.secure.volumes]]
kind = "luks"
device = "/dev/md/data"
name = "data"

[[chroot.secure.volumes]]
kind = "luks"
device = "/dev/sdc"
name = "more"
key-file = "/etc/keys/more"

[[chroot.secure.volumes]]
kind = "lvm"
volume-group = "vg0"
logical-volume = "root"
"""
VOLUMES = (
    Raid("/dev/md/data", ("/dev/sda1", "/dev/sdb1"), degraded=True),
    Luks("/dev/md/data", "data"),
    Luks("/dev/sdc", "more", "/etc/keys/more"),
    LvmVolume("vg0", "root"),
)
BLOCK = '[chroot.a]\ntype = "block-device"\ndevice = "/dev/x"\n'
TABLE = "[[chroot.a.volumes]]\n"


def test_a_stack_is_read_in_its_order(tmp_path: Path) -> None:
    configuration = load_toml(places_in(tmp_path), STACK)
    assert summary(configuration) == []
    source = configuration.chroots["secure"].source
    assert source == BlockDevice("/dev/vg0/root", volumes=VOLUMES, device_timeout_s=30, fsck=True)
    assert configuration.origins["secure"]["volumes"][1] == 8
    assert records.decode(Chroot, records.encode(configuration.chroots["secure"])) == configuration.chroots["secure"]


def test_what_each_volume_is_opened_as_and_made_of() -> None:
    assert [volume.opens for volume in VOLUMES] == [
        "/dev/md/data", "/dev/mapper/data", "/dev/mapper/more", "/dev/vg0/root",
    ]  # fmt: skip
    assert [volume.made_of for volume in VOLUMES] == [
        ("/dev/sda1", "/dev/sdb1"), ("/dev/md/data",), ("/dev/sdc",), (),
    ]  # fmt: skip


def test_a_stack_is_printed(tmp_path: Path) -> None:
    chroot = load_toml(places_in(tmp_path), STACK).chroots["secure"]
    shown = {name: keytypes.show(value_of(chroot, BY_NAME[name])) for name in ("volumes", "device-timeout", "fsck")}
    opened = "raid:/dev/md/data,luks:/dev/mapper/data,luks:/dev/mapper/more,lvm:/dev/vg0/root"
    assert shown == {"volumes": opened, "device-timeout": "30", "fsck": "true"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('volumes = "x"', "wants tables, not "),
        ("volumes = [1]", "number 1 is a number, not a table"),
        (TABLE + 'kind = "zfs"', "number 1 is of no kind that is known"),
        (TABLE + "kind = []", "number 1 is of no kind that is known"),
        (TABLE, "number 1 is of no kind that is known"),
        (TABLE + 'kind = "luks"\nname = "a"', "number 1, luks, lacks ‘device’"),
        (TABLE + 'kind = "luks"\nname = "a"\ndevice = "x"', "x: device must have an absolute path"),
        (TABLE + 'kind = "luks"\nname = "a b"\ndevice = "/x"', "name 'a b' is not a name for the device mapper"),
        (TABLE + 'kind = "luks"\nname = "-a"\ndevice = "/x"', "name '-a' is not a name for the device mapper"),
        (TABLE + 'kind = "luks"\nname = "../x"\ndevice = "/x"', "name '../x' is not a name for the device mapper"),
        (TABLE + 'kind = "luks"\nname = "control"\ndevice = "/x"', "name 'control' is not a name for"),
        (TABLE + 'kind = "luks"\nname = "a"\ndevice = "/x"\nkeyfile = "/k"', "number 1, luks, has no ‘keyfile’"),
        (TABLE + 'kind = "raid"\ndevice = "/dev/sda"\nmembers = ["/x"]', "'/dev/sda' is not the device of an array"),
        (TABLE + 'kind = "raid"\ndevice = "/dev/md/../x"\nmembers = ["/x"]', "is not the device of an array"),
        (TABLE + 'kind = "raid"\ndevice = "/dev/md0"\nmembers = []', "members names no device"),
        (TABLE + 'kind = "raid"\ndevice = "/dev/md0"\nmembers = ["x"]', "must have an absolute path"),
        (TABLE + 'kind = "raid"\ndevice = "/dev/md0"\nmembers = ["/x"]\ndegraded = 1', "wants true or false, not a"),
        (TABLE + 'kind = "lvm"\nvolume-group = "-v"\nlogical-volume = "l"', "'-v' is not a name of LVM"),
        (TABLE + 'kind = "lvm"\nvolume-group = ".."\nlogical-volume = "l"', "'..' is not a name of LVM"),
        (2 * (TABLE + 'kind = "lvm"\nvolume-group = "v"\nlogical-volume = "l"\n'), "two of them open /dev/v/l"),
        (33 * TABLE, "are 33, and at most 32 are opened"),
        ("device-timeout = -1", "'-1' is not a time of at most"),
        ("device-timeout = 100000000", "'100000000' is not a time of at most"),
        ("device-timeout = true", "wants a number, not "),
        ('device-timeout = "30"', "wants a number, not "),
        ("fsck = 1", "wants true or false, not a number"),
    ],
)
def test_what_is_wrong_is_refused_with_a_remedy(tmp_path: Path, text: str, reason: str) -> None:
    configuration = load_toml(places_in(tmp_path), f"{BLOCK}{text}\n")
    assert "a" not in configuration.chroots
    (problem,) = configuration.problems
    assert reason in problem.reason
    assert problem.remedy
    assert problem.line > 3


def test_volumes_of_other_types_are_refused(tmp_path: Path) -> None:
    text = '[chroot.a]\ntype = "directory"\ndirectory = "/srv"\ndevice-timeout = 3\nfsck = true\n' + TABLE
    configuration = load_toml(places_in(tmp_path), text)
    assert [problem.key for problem in configuration.problems] == ["device-timeout", "fsck", "volumes"]


def test_schroot_conf_knows_the_plain_keys_and_says_where_volumes_go(tmp_path: Path) -> None:
    text = "[a]\ntype=block-device\ndevice=/dev/x\ndevice-timeout=30\nfsck=true\n"
    configuration = load_schroot(places_in(tmp_path / "1"), text)
    assert configuration.chroots["a"].source == BlockDevice("/dev/x", device_timeout_s=30, fsck=True)
    configuration = load_schroot(places_in(tmp_path / "2"), f"{text}volumes=luks\n")
    (problem,) = configuration.problems
    assert (problem.line, problem.key) == (6, "volumes")
    assert problem.remedy == "define the chroot in sessions.toml"


def test_the_twin_of_a_snapshot_waits_for_its_device_too() -> None:
    snapshot = LvmSnapshot("/dev/vg0/root", "--size 1G", device_timeout_s=5)
    assert sources.twin_of(snapshot) == BlockDevice("/dev/vg0/root", device_timeout_s=5)
    device = BlockDevice("/dev/x", volumes=VOLUMES)
    assert sources.twin_of(device) == device
    assert replace(device, volumes=()) != device
