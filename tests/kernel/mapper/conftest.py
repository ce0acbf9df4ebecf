"""Tests on real devices of the kernel's device mapper: in one user-mode Linux guest, where this kernel has none.

To add tests, write test_*.py here as anywhere below tests/kernel, whose fixtures (`world` ...) they have; `attach`
gives block devices to build on, and mappings, volumes, loop devices and arrays that a test leaves are its failure. They
are run in the guest without more ado (see tests/inguest.py), but for those marked `guest`, which boot their own. A kind
of session for the crash campaigns is a Kind in crashkinds.MAPPED, with what it lies on in crashvolumes.BACKINGS.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import inguest
import lvmgroup
import pytest
from helpers import enter_private_namespace, make_chroot

HERE = Path(__file__).resolve().parent
Attach = Callable[..., str]


@pytest.hookimpl(trylast=True)  # those that are not wanted have been taken out by now
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    items[:] = inguest.proxies(session, items, HERE)


@pytest.fixture(scope="session", autouse=True)
def settings_of_lvm() -> None:
    """LVM looks at no device but loop devices, and keeps nothing in /etc, for as long as the tests run."""
    enter_private_namespace()
    lvmgroup.use_own_settings()


@pytest.fixture(scope="session")
def kept_group(settings_of_lvm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[lvmgroup.Group]:
    """A volume group with a classic and a thin volume, which hold the tiny chroot."""
    base = tmp_path_factory.mktemp("group")
    made = lvmgroup.Group.make(f"sessions{os.getpid()}", base / "image", make_chroot(base / "chroot"))
    yield made
    made.remove()


@pytest.fixture
def group(kept_group: lvmgroup.Group) -> Iterator[lvmgroup.Group]:
    """The group; volumes that a test leaves are its failure, and gone before the next."""
    before = kept_group.volumes()
    yield kept_group
    after = kept_group.volumes()
    for name in after.keys() - before.keys():
        lvmgroup.lvm("lvremove", "--force", f"{kept_group.name}/{name}")
    assert after == before


@pytest.fixture(autouse=True)
def no_device_left(nothing_left: None) -> Iterator[None]:
    """Compare mappings, arrays and loop devices; volumes are mappings."""
    before = devices()
    yield
    assert (sorted(devices() - before), sorted(before - devices())) == ([], [])


@pytest.fixture
def attach(tmp_path: Path) -> Iterator[Attach]:
    """Makes an empty image of some MB and gives a block device of it, which is gone after the test."""
    attached: list[str] = []

    def make(size_mb: int) -> str:
        image = tmp_path / f"disk{len(attached)}"
        with image.open("xb") as file:
            file.truncate(size_mb << 20)
        attached.append(lvmgroup.losetup(image))
        return attached[-1]

    yield make
    for device in attached:
        subprocess.run(["losetup", "--detach", device], check=True)


def devices() -> set[str]:
    """Every mapping and array with its name, and every loop device that is in use with its file."""
    # A mapping's number is another each time it is activated.
    found = {f"dm: {path.read_text().strip()}" for path in Path("/sys/block").glob("dm-*/dm/name")}
    found |= {f"{path.parts[3]}" for path in Path("/sys/block").glob("md*/md")}
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.add(f"{path.parts[3]}: {path.read_text().strip()}")
        except OSError:
            continue
    return found | {f"/dev/mapper/{name}" for name in os.listdir("/dev/mapper")}
