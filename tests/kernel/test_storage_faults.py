"""What is wrong with a device, an image or a subvolume is said in a line, and so is who is in the way."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from disks import call, make_subvolumes, mounted
from helpers import Fork, World, bind, busy_loop_devices, fork, mounts, output, shell, umount
from storages import loop_device, make_btrfs, make_image, rebooted, storage, subvolumes

from sessions import lifecycle, open_session
from sessions.engine import Settings
from sessions.errors import SessionsError, SetupFailed, Stuck
from sessions.linux import holders
from sessions.sweep import Sweep

pytestmark = pytest.mark.usefixtures("read_only_host")

APART = ("unshare", "--mount", "sh", "-c")


@contextmanager
def refused(world: World, match: str) -> Iterator[None]:
    """In one line, with the next step; nothing is mounted, made or attached."""
    before = mounts(), world.leftovers(), busy_loop_devices(world.base)
    with pytest.raises(SetupFailed, match=match) as error:
        yield
    assert "\n" not in str(error.value)
    assert "; " in str(error.value), f"no next step in: {error.value}"
    assert (mounts(), world.leftovers(), busy_loop_devices(world.base)) == before


@contextmanager
def doctored(world: World, path: str, change: Callable[[str], str]) -> Iterator[None]:
    """Another text in a file of the kernel's, in our mount namespace only."""
    bind(world.write("doctored", change(Path(path).read_text())), path)
    try:
        yield
    finally:
        umount(path)


def loopback(world: World, image: Path, **more: object) -> None:
    world.define("x", **{"type": "loopback", "directory": None, "file": str(image), "union-type": "none", **more})


def overwrite(path: Path | str, at: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def test_no_such_device(world: World) -> None:
    world.define("x", type="block-device", directory=None, device="/dev/no-such")
    with refused(world, "/dev/no-such: Failed to stat file: No such file or directory; "):
        world.begin("x")
    for options in ("", "-t ext4"):
        world.define(
            "x", type="block-device", directory=None, device="/dev/null", union_type="none", mount_options=options,
            profile=world.profile(nssdatabases="passwd\n"),
        )  # fmt: skip
        with refused(world, "/dev/null: File is not a block device; "):
            world.begin("x")
    # A device that nothing is behind any more.
    with loop_device(make_image(world, "ext4")) as device:
        pass
    world.define("x", type="block-device", directory=None, device=device, union_type="none", profile="own")
    with refused(world, f"there is no file system on {device} that blkid knows; |{device}: .*; "):
        world.begin("x")


def test_an_image_that_cannot_be_trusted(world: World) -> None:
    image = world.base / "image"
    loopback(world, image)
    with refused(world, f"{image}: Failed to stat file: No such file or directory; "):
        world.begin("x")
    image.mkdir()
    with refused(world, f"{image}: cannot be opened: Is a directory; "):
        world.begin("x")
    image.rmdir()
    os.mkfifo(image)
    with refused(world, f"{image}: File is not a regular file; "):
        world.begin("x")
    image.unlink()
    image.write_bytes(bytes(4096))
    image.chmod(0o602)
    with refused(world, f"{image}: File has write permissions for others; "):
        world.begin("x")
    image.chmod(0o600)
    os.chown(image, 1234, 1234)
    with refused(world, f"{image}: File is not owned by user root; "):
        world.begin("x")


def test_no_file_system(world: World) -> None:
    image = world.base / "image"
    image.write_bytes(bytes(1 << 20))
    loopback(world, image)
    with refused(world, "there is no file system on /dev/loop[0-9]+ that blkid knows; "):
        world.begin("x")
    call("mkswap", image)
    with refused(world, "there is swap on /dev/loop[0-9]+, and no file system; "):
        world.begin("x")
    loopback(world, image, mount_options="-t ext4")
    with refused(world, f"cannot mount the ext4 file system on {image}: Invalid argument.*; see that it is whole"):
        world.begin("x")


def test_a_damaged_image(world: World) -> None:
    """In the kernel's own words, where it has some."""
    image = make_image(world, "ext4")
    overwrite(image, 2048, os.urandom(4096))
    loopback(world, image)
    with refused(world, f"cannot mount the ext4 file system on {image}: Structure needs cleaning.*; see that it"):
        world.begin("x")
    image = make_image(world, "squashfs")
    os.truncate(image, image.stat().st_size // 2)
    world.define("x", type="image", directory=None, file=str(image))
    with refused(world, f"cannot mount the squashfs file system on {image}: "):
        world.begin("x")


@pytest.mark.parametrize("fstype", ["squashfs", "ext4"])
def test_a_file_system_that_the_kernel_lacks(world: World, fstype: str) -> None:
    world.define("x", type="image", directory=None, file=str(make_image(world, fstype)))
    before = Path("/proc/modules").read_text() if os.path.exists("/proc/modules") else ""

    def without(text: str) -> str:
        return "".join(line + "\n" for line in text.splitlines() if line.split()[-1] not in (fstype, "ext4"))

    words = f"this kernel has no {fstype} file system; load it as root: modprobe {fstype}"
    with doctored(world, "/proc/filesystems", without), refused(world, words):
        world.begin("x")
    assert before == (Path("/proc/modules").read_text() if os.path.exists("/proc/modules") else "")


def test_a_kernel_without_loop_devices(world: World) -> None:
    loopback(world, make_image(world, "ext4"))
    words = "this kernel has no loop devices; load them as root: modprobe loop"
    with doctored(world, "/proc/devices", lambda text: text.replace(" loop\n", " pool\n")), refused(world, words):
        world.begin("x")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("--bind", "--bind means nothing here; use -o OPTIONS, -t TYPE and -r"),
        ("-o", "-o wants a value; "),
        ("-o X-mount.mkdir", "X-mount.mkdir asks for what a root cannot be mounted with; "),
        ("-o offset=much", "offset=much is not a size; "),
        ("-o nosuchoption", "cannot mount the ext4 .*: Invalid argument: ext4: Unknown parameter 'nosuchoption'; "),
    ],
)
def test_mount_options_without_meaning(world: World, options: str, why: str) -> None:
    loopback(world, make_image(world, "ext4"), mount_options=options)
    with refused(world, why):
        world.begin("x")


def options_of(world: World, mount_options: str) -> tuple[str, str]:
    """How the root of a session is mounted: its own options, and those of the file system."""
    loopback(world, world.base / "image.ext4", mount_options=mount_options)
    with world.begin("x") as session:
        lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        (found,) = [line for line in lines if line[4] == session.location]
        return found[5], found[-1]


def test_mount_options(world: World) -> None:
    make_image(world, "ext4")
    assert options_of(world, "")[0] == "rw,relatime"
    assert options_of(world, "-o noatime,nosuid -o nodev")[0] == "rw,nosuid,nodev,noatime"
    assert options_of(world, "-t ext4 --options=noexec -v")[0] == "rw,noexec,relatime"
    assert options_of(world, "-o errors=remount-ro,sync,loop")[1] == "rw,sync,errors=remount-ro"
    assert options_of(world, "-t auto -w")[1] == "rw"
    for words in ("-r", "-o ro", "--read-only"):
        assert options_of(world, f"{words} -o noload")[1].startswith("ro")


def test_an_image_inside_a_file(world: World) -> None:
    """With a table of partitions before it, as a whole disk has one."""
    inner = make_image(world, "ext4", name="inner")
    image = world.base / "disk"
    with open(image, "wb") as file:
        file.write(bytes(1 << 20) + inner.read_bytes())
    loopback(world, image, mount_options=f"-o offset=1M,sizelimit={inner.stat().st_size}")
    with world.begin("x") as one, world.begin("x") as two:
        shell(one, "echo one >/file")
        assert output(two, "cat", "/file") == "one\n"
        assert len(busy_loop_devices(world.base)) == 1


def test_one_image_is_not_two_devices(world: World) -> None:
    """Neither of ours nor of others: what one knows of it the other would destroy."""
    image = make_image(world, "ext4")
    world.define("x", type="image", directory=None, file=str(image), source_lock="shared")
    loopback(world, image)
    world.define("i", type="image", directory=None, file=str(image), source_lock="shared")
    with world.begin("i"), refused(world, f"{image} is in use as /dev/loop[0-9]+, read-only; "):
        world.begin("x")
    with world.begin("x"), refused(world, f"{image} is in use as /dev/loop[0-9]+, for writing; "):
        world.begin("i")
    with loop_device(image, "--offset", "4096"), refused(world, f"{image} is in use as /dev/loop[0-9]+, for writing; "):
        world.begin("x")
    with loop_device(image) as device, world.begin("x") as session:
        # As schroot does: the device that there is already.
        assert f"{device} / ext4" in shell(session, "mkdir -p /proc; mount -t proc p /proc; cat /proc/mounts")


def test_an_image_is_replaced_while_it_is_in_use(world: World) -> None:
    """Open sessions keep the old one; one that comes back after a restart needs it."""
    with storage(world, "image.squashfs"):
        image = world.base / "image.squashfs"
        old = world.begin("x", name="old", persistent=True)
        (world.root / "new").write_text("new\n")
        image.rename(world.base / "kept")
        make_image(world, "squashfs")
        with world.begin("x") as session:
            assert output(session, "cat", "/new") == "new\n"
        assert shell(old, "cat /new || echo none; echo mine >/mine") == "none\n"
        with rebooted(world):
            with pytest.raises(SessionsError, match="is another image than the session was begun with; put the"):
                lifecycle.recover(world.places, "old", Settings())
            (world.base / "kept").rename(image)
            lifecycle.recover(world.places, "old", Settings())
            assert shell(open_session("old", places=world.places), "cat /mine; ls /new || true") == "mine\n"
            old.end()


def test_a_location_that_leads_out_of_the_device(world: World) -> None:
    os.symlink("/etc", world.root / "absolute")
    os.symlink("../../../../../../../../../../../../etc", world.root / "upwards")
    os.symlink("home", world.root / "within")
    image = make_image(world, "ext4")
    for name in ("absolute", "upwards"):
        loopback(world, image, location=f"/{name}")
        with refused(world, f"location /{name} leads out of the chroot by a link; "):
            world.begin("x")
    loopback(world, image, location="/nowhere")
    with refused(world, "location /nowhere inside is not a directory: No such file or directory; "):
        world.begin("x")
    loopback(world, image, location="/within")
    world.begin("x").end()


@pytest.fixture
def standing() -> Iterator[Callable[[Path | str], Fork]]:
    """Starts a process that goes to a directory and stays there until it is told to leave."""
    started: list[Fork] = []

    def start(place: Path | str) -> Fork:
        def stay(it: Fork) -> None:
            os.chdir(place)
            it.tell("there")
            it.ask()

        started.append(fork(stay))
        assert started[-1].ask() == "there"
        return started[-1]

    yield start
    for it in started:
        with suppress(OSError):  # who has been told already
            it.tell()
            it.wait()


@pytest.mark.parametrize("kind", ["loopback", "loopback+overlay", "image.squashfs", "btrfs-snapshot"])
def test_who_stands_in_it_is_named(world: World, standing: Callable[[Path | str], Fork], kind: str) -> None:
    with storage(world, kind):
        session = world.begin("x", name="one")
        below = Path(world.places.state_dir, "union/underlay/one")
        place = below if below.is_dir() else Path(session.location)
        it = standing(place)
        with pytest.raises(Stuck, match=rf"{place} cannot be unmounted: held by {it.pid} \("):
            session.end()
        it.tell()
        it.wait()
        session.end()
        assert world.leftovers() == []


def test_who_keeps_a_device_busy(world: World, standing: Callable[[Path | str], Fork]) -> None:
    with loop_device(make_image(world, "ext4")) as device:
        assert holders.of_device(device) == "nobody that can be seen from here"
        with open(device, "rb"):
            assert holders.of_device(device) == "nobody that can be seen from here"  # but us
        with open(device, "rb") as file:
            reader = subprocess.Popen(["sleep", "100"], stdin=file)
        assert holders.of_device(device) == f"open in {reader.pid} (sleep 100)"
        reader.kill()
        reader.wait()
        with mounted(device, world.base / "there") as top:
            assert holders.of_device(device) == f"it is mounted on {top}"
            elsewhere = subprocess.Popen([*APART, "umount $0; echo; read a", top], stdin=-1, stdout=-1)
            assert elsewhere.stdout and elsewhere.stdout.readline() == b"\n"
            assert holders.of_device(device) == f"it is mounted on {top}"
            elsewhere.communicate()
        other = subprocess.Popen([*APART, "mount $0 /mnt; echo; read a", device], stdin=-1, stdout=-1)
        assert other.stdout and other.stdout.readline() == b"\n"
        assert holders.of_device(device).startswith(f"it is mounted on /mnt for {other.pid} (sh -c ")
        other.communicate()


@pytest.fixture
def btrfs(world: World) -> Iterator[Path]:
    """A btrfs with a subvolume of the tiny chroot, of which sessions of "x" have snapshots."""
    with mounted(make_btrfs(world), world.base / "btrfs", "-o", "loop") as top:
        source, snapshots = make_subvolumes(world.root, top)
        define(world, source, snapshots)
        yield top


def define(world: World, source: Path, snapshots: Path) -> None:
    settings = {"btrfs-source-subvolume": str(source), "btrfs-snapshot-directory": str(snapshots)}
    world.define("x", **{"type": "btrfs-snapshot", "directory": None, "union-type": "none", **settings})


def test_subvolumes_made_inside_go_with_the_session(world: World, btrfs: Path) -> None:
    """As docker and machinectl make them: nested, read-only, and snapshots of others; not what was moved out."""
    call("btrfs", "subvolume", "create", btrfs / "other")
    session = world.begin("x", name="one")
    place = Path(session.location)
    for name in ("a", "a/b", "a/b/c", "moved"):
        call("btrfs", "subvolume", "create", place / name)
        (place / name / "file").write_text("there\n")
    (place / "deep/er").mkdir(parents=True)
    call("btrfs", "subvolume", "snapshot", "-r", place / "a", place / "deep/er/read-only")
    call("btrfs", "subvolume", "snapshot", btrfs / "other", place / "deep/of-another")
    os.rename(btrfs / "snapshots/one/moved", btrfs / "moved")
    assert len(subvolumes(btrfs)) == 9
    session.end()
    assert subvolumes(btrfs) == ["moved", "other", "source"]
    assert (btrfs / "moved/file").read_text() == "there\n"


def test_a_snapshot_of_somebody_else_is_left_alone(world: World, btrfs: Path) -> None:
    call("btrfs", "subvolume", "create", btrfs / "snapshots/one")
    with refused(world, "snapshots/one exists already, and no session of ours has made it; "):
        world.begin("x", name="one")
    assert subvolumes(btrfs) == ["snapshots/one", "source"]
    said: list[str] = []
    session = world.begin("x", name="two", persistent=True, say=lambda letter, line: said.append(f"{letter}: {line}"))
    with rebooted(world):
        call("btrfs", "subvolume", "delete", btrfs / "snapshots/two")
        with pytest.raises(SessionsError, match="two is gone, so the session cannot be recovered; sessions end two"):
            lifecycle.recover(world.places, "two", Settings())
        call("btrfs", "subvolume", "create", btrfs / "snapshots/two")
        session.end()
    assert subvolumes(btrfs) == ["snapshots/one", "snapshots/two", "source"]


def test_a_mount_of_somebody_else_in_a_snapshot(world: World, btrfs: Path) -> None:
    """It is not crossed: by the time the snapshot goes, the kernel has taken it off, and what was mounted is whole."""
    session = world.begin("x", name="one")
    data = world.base / "data"
    data.mkdir()
    (data / "file").write_text("there\n")
    bind(data, btrfs / "snapshots/one/tmp")
    session.end()
    assert (data / "file").read_text() == "there\n"
    assert subvolumes(btrfs) == ["source"]


def test_what_is_no_subvolume_has_no_snapshots(world: World, btrfs: Path) -> None:
    define(world, btrfs / "nowhere", btrfs / "snapshots")
    with refused(world, "Btrfs source subvolume directory '.*/nowhere' does not exist; "):
        world.begin("x")
    define(world, btrfs / "source", btrfs / "nowhere")
    with refused(world, "Btrfs snapshot directory '.*/nowhere' does not exist; "):
        world.begin("x")
    define(world, btrfs / "source/home", btrfs / "snapshots")
    with refused(world, "source/home is not a subvolume of btrfs; "):
        world.begin("x")
    define(world, world.root, btrfs / "snapshots")
    with refused(world, "tiny is not a subvolume of btrfs; "):
        world.begin("x")
    (elsewhere := world.base / "elsewhere").mkdir()
    define(world, btrfs / "source", elsewhere)
    with refused(world, "elsewhere is not on the same btrfs as .*/source; "):
        world.begin("x")
    assert subvolumes(btrfs) == ["source"]


def test_what_seems_to_be_left_of_a_session_is_told_of(world: World, btrfs: Path) -> None:
    """In a place where others write too, nothing is removed without a journal."""
    session = world.begin("x", name="one")
    call("btrfs", "subvolume", "snapshot", btrfs / "snapshots/one", btrfs / "snapshots/copy")
    session.end()
    found = [f"{finding.name}: {finding.outcome}" for finding in Sweep(world.places, Settings(), False).all()]
    assert len(found) == 1
    assert found[0].startswith(f"{btrfs}/snapshots/copy: left: others write there too; look at it, then: btrfs ")
    assert subvolumes(btrfs) == ["snapshots/copy", "source"]
