"""Removing trees: all that is in them goes, and nothing else, whatever is mounted, linked or moved there meanwhile."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import Fork, bind, exchange, ext4, fork, mount, snapshot, swapping, umount

from sessions.errors import SessionsError
from sessions.linux.files import ensure_own_directory
from sessions.linux.removal import MountInTheWay, remove_tree

pytestmark = pytest.mark.usefixtures("read_only_host")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """The host's files beside the tree."""
    directory = tmp_path / "canary"
    (directory / "directory").mkdir(parents=True)
    for name in ("file", "directory/file"):
        (directory / name).write_text("the host's own")
    return directory


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "place/tree"
    (directory / "directory/below").mkdir(parents=True)
    for name in ("file", "directory/file", "directory/below/file"):
        (directory / name).write_text("to be removed")
    yield directory
    # After a failure: nothing in Python removes what is nested this deep.
    subprocess.run(["rm", "-rf", directory], check=True)


def make_deep(top: Path, levels: int, name: str = "directory-with-a-long-name") -> None:
    """A chain of directories far deeper than any path can name."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _level in range(levels):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)


def chattr(flag: str, *paths: Path) -> None:
    subprocess.run(["chattr", flag, *paths], check=True)


@contextmanager
def changing(work: str, *arguments: str) -> Iterator[None]:
    """A process that runs Python statements all the time, whatever they raise."""
    code = compile(work, "<changing>", "exec")

    def change(it: Fork) -> None:
        it.tell("started")
        while True:
            try:
                exec(code, {"os": os, "arguments": arguments})
            except OSError:
                pass

    changer = fork(change)
    changer.ask()
    try:
        yield
    finally:
        os.kill(changer.pid, signal.SIGKILL)
        changer.wait()


def test_everything_goes(tree: Path, canary: Path) -> None:
    before = snapshot(canary)
    (tree / "link").symlink_to(canary)
    (tree / "directory/link").symlink_to("../../../canary/directory")
    (tree / "dangling").symlink_to("nosuch")
    os.mkfifo(tree / "fifo")
    os.mknod(tree / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (tree / "closed").mkdir(mode=0)
    os.mkdir(os.fsencode(tree) + b"/\xff\n name")
    (tree / ("x" * 255)).touch()
    remove_tree(str(tree))
    assert os.listdir(tree.parent) == []
    assert snapshot(canary) == before


def test_what_is_not_there_is_removed_already_and_a_link_goes_alone(tree: Path, canary: Path) -> None:
    before = snapshot(canary), snapshot(tree)
    remove_tree(f"{tree}/nosuch")
    remove_tree(f"{tree}/nosuch/nosuch")
    for points_to in (str(canary), str(tree), "/"):
        (tree.parent / "link").symlink_to(points_to)
        remove_tree(f"{tree.parent}/link")
        assert not os.path.lexists(tree.parent / "link")
    assert (snapshot(canary), snapshot(tree)) == before


def test_hard_links_leave_the_other_name(tree: Path, canary: Path) -> None:
    os.link(canary / "file", tree / "directory/same")
    remove_tree(str(tree))
    assert (canary / "file").read_text() == "the host's own"
    assert (canary / "file").stat().st_nlink == 1


@pytest.mark.parametrize("where", ["", "directory", "directory/below", "directory/below/file", "file"])
def test_a_mount_is_in_the_way_and_named(tree: Path, canary: Path, where: str) -> None:
    """Also one of the same file system, which no device number tells."""
    target = tree / where
    bind(canary / "directory" if target.is_dir() else canary / "file", target)
    before = snapshot(canary)
    for _turn in range(2):
        with pytest.raises(MountInTheWay) as error:
            remove_tree(str(tree))
        path = str(target).rstrip("/")
        assert str(error.value) == f"something is mounted on {path}; unmount it: umount {path}"
        assert snapshot(canary) == before
    umount(target)
    remove_tree(str(tree))
    assert not tree.exists()


def test_mounts_of_other_kinds_are_in_the_way_too(tree: Path) -> None:
    mount("tmpfs", tree / "directory", "tmpfs")
    (tree / "directory/of the other").touch()
    with pytest.raises(MountInTheWay):
        remove_tree(str(tree))
    assert (tree / "directory/of the other").exists()
    umount(tree / "directory")
    remove_tree(str(tree))


def test_five_thousand_levels(tree: Path) -> None:
    make_deep(tree / "directory", 5000)
    make_deep(tree, 100)
    descriptors = len(os.listdir("/proc/self/fd"))
    remove_tree(str(tree))
    assert os.listdir(tree.parent) == []
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_mount_deep_below_is_in_the_way(tree: Path, canary: Path) -> None:
    make_deep(tree, 150)
    fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    for _level in range(149):
        below = os.open("directory-with-a-long-name", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    target = f"/proc/self/fd/{fd}/directory-with-a-long-name"
    bind(canary, target)
    before = snapshot(canary)
    with pytest.raises(MountInTheWay) as error:
        remove_tree(str(tree))
    assert snapshot(canary) == before
    named = str(error.value).removeprefix("something is mounted on ").split(";")[0]
    assert (Path(named) / "file").read_text() == "the host's own"
    umount(target)
    os.close(fd)
    remove_tree(str(tree))
    assert os.listdir(tree.parent) == []


def test_twenty_thousand_files(tree: Path) -> None:
    for number in range(100):
        (tree / f"many/{number}").mkdir(parents=True)
        for file in range(200):
            os.close(os.open(f"{tree}/many/{number}/{file}", os.O_WRONLY | os.O_CREAT))
    remove_tree(str(tree))
    assert os.listdir(tree.parent) == []


def test_immutable_files_and_directories(tmp_path: Path) -> None:
    place = tmp_path / "ext4"
    place.mkdir()
    with ext4(tmp_path, place):
        tree = place / "tree"
        (tree / "immutable/below").mkdir(parents=True)
        (tree / "append").mkdir()
        make_deep(tree / "append", 70, "d")
        deep = tree / "append" / "/".join(["d"] * 63)
        for path in ("file", "immutable/file", "immutable/below/file", "append/file"):
            (tree / path).write_text("x")
        os.mknod(tree / "immutable/device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        (tree / "immutable/link").symlink_to("file")
        chattr("+i", tree / "file", tree / "immutable/below/file", tree / "immutable/below", tree / "immutable")
        chattr("+a", tree / "append/file", tree / "append")
        chattr("+i", deep / "d", deep, tree)
        remove_tree(str(tree))
        assert os.listdir(place) == ["lost+found"]


def test_a_device_in_an_immutable_directory_is_not_opened(tmp_path: Path) -> None:
    """Opening a device does things: a watchdog starts, a tape rewinds."""
    place, log = tmp_path / "ext4", tmp_path / "strace"
    place.mkdir()
    with ext4(tmp_path, place):
        tree = place / "tree"
        tree.mkdir()
        os.mknod(tree / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mkfifo(tree / "fifo")
        chattr("+i", tree)

        def work(it: Fork) -> None:
            it.ask()
            remove_tree(str(tree))

        remover = fork(work)
        tracer = subprocess.Popen(
            ["strace", "-o", log, "-e", "trace=openat2,openat,open,unlinkat", "-p", str(remover.pid)],
            stderr=subprocess.PIPE,
        )
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        remover.tell()
        assert remover.wait() == 0
        tracer.communicate()
        opened = [line for line in log.read_text().splitlines() if line.startswith("open") and "O_PATH" not in line]
        assert not [line for line in opened if '"device"' in line or '"fifo"' in line]
        assert not tree.exists()


def test_somebody_creates_files_meanwhile(tree: Path, canary: Path) -> None:
    """It ends in either way, and takes what is there at the end when it is asked again."""
    before = snapshot(canary)
    work = "for number in range(50): os.makedirs(f'{arguments[0]}/directory/{number}/more', exist_ok=True)"
    with changing(work, str(tree)):
        for _turn in range(8):
            try:
                remove_tree(str(tree))
            except OSError as error:
                assert "not empty" in str(error)
    remove_tree(str(tree))
    assert os.listdir(tree.parent) == []
    assert snapshot(canary) == before


@pytest.mark.parametrize("points_to", ["{canary}", "/", "../../canary"])
def test_somebody_exchanges_a_directory_with_a_link(tree: Path, canary: Path, points_to: str) -> None:
    before = snapshot(canary)
    for turn in range(30):
        for number in range(5):
            (tree / f"directory/{number}/x").mkdir(parents=True)
        (tree / "link").symlink_to(points_to.format(canary=canary))
        places = ("directory", "link") if turn % 2 else ("directory/3", "link")
        with swapping(*(tree / place for place in places)):
            remove_tree(str(tree))
        assert os.listdir(tree.parent) == []
    assert snapshot(canary) == before


def test_somebody_moves_directories_out_and_in(tree: Path, canary: Path, tmp_path: Path) -> None:
    """What has left the tree is not followed there; what never was in it is not touched."""
    (tmp_path / "outside").mkdir()
    work = "os.rename(f'{arguments[0]}/directory', f'{arguments[1]}/moved')\n"
    work += "os.rename(f'{arguments[1]}/moved', f'{arguments[0]}/directory')"
    before = snapshot(canary)
    for _turn in range(40):
        for name in ("directory/below/1", "directory/below/2", "directory/3"):
            (tree / name).mkdir(parents=True, exist_ok=True)
        exchange(canary, tmp_path / "outside")
        exchange(canary, tmp_path / "outside")
        with changing(work, str(tree), str(tmp_path / "outside")):
            try:
                remove_tree(str(tree))
            except OSError as error:
                assert "not empty" in str(error)
        remove_tree(str(tree))
        remove_tree(str(tmp_path / "outside/moved"))
    assert (snapshot(canary), os.listdir(tmp_path / "outside")) == (before, [])


def test_a_directory_of_ours_has_to_be_ours(tmp_path: Path) -> None:
    ensure_own_directory(f"{tmp_path}/a/b/own", 0o700)
    ensure_own_directory(f"{tmp_path}/a/b/own", 0o700)
    assert stat.S_IMODE((tmp_path / "a/b/own").stat().st_mode) == 0o700
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "foreign").mkdir()
    os.chown(tmp_path / "foreign", 1234, 0)
    for name in ("link", "file", "open", "foreign"):
        with pytest.raises(SessionsError, match=f"{name} is not a directory that only its owner.*mend owner and mode"):
            ensure_own_directory(f"{tmp_path}/{name}", 0o700)
    (tmp_path / "dangling").symlink_to("nosuch")
    for name in ("file", "dangling"):
        with pytest.raises(SessionsError, match=r"cannot make the directory .*make it writable, or name another place"):
            ensure_own_directory(f"{tmp_path}/{name}/below/deeper", 0o700)
