"""A chroot that is against us: links, fifos and devices where its files are wanted, and names that change meanwhile.

Whatever is planted, the host's own files (the canary) and mounts stay as they are, and nothing is left.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import World, exchange, ext4, mounts, output, shell, snapshot, swapping

from sessions.errors import CannotEnter, SessionsError, SetupFailed

FSTAB = """
proc        /proc       proc    defaults
tmpfs       /dev/shm    tmpfs   size=1M
{base}/data /data       none    bind
/etc/hosts  /etc/hosts  none    bind,ro
tmpfs       /a/deep/er  tmpfs   size=1M
"""
COPYFILES = "/etc/passwd /etc/resolv.conf\n/etc/passwd /new/directory/passwd\n"
pytestmark = pytest.mark.usefixtures("read_only_host")
# What the session is about to write to or mount on inside.
FILES = ("etc/resolv.conf", "etc/passwd", "etc/debian_chroot", "etc/hosts", "new/directory/passwd")
DIRECTORIES = ("etc", "proc", "dev", "dev/shm", "data", "a", "a/deep", "new", "tmp")
KINDS = {"directory": {"union_type": "none"}, "overlay": {}}


def links(canary: Path) -> list[str]:
    """Where links may point: to the host's files if they were followed out of the root, and to nowhere good inside."""
    up = "../" * 20
    return [
        str(canary), f"{canary}/file", f"{canary}/directory", f"{canary}/new", f"{canary}/new/newer",
        f"{up}{canary}", f"{up}{canary}/file", f"{up}{canary}/new", "/", ".", "..", f"{up}", "/..",
        "/proc/self/root", "/proc/self/root/etc", f"/proc/1/root/{canary}", f"/proc/1/root/{canary}/new",
        "/proc/self/cwd", "/proc/self/fd/0", "/proc/self/exe", "/dev/shm/../..", "/etc/../../..", "/dev/null/x",
        "self", "loop1", "/etc/hosts", "/bin/busybox",
    ]  # fmt: skip


def others(path: Path) -> list[Callable[[], object]]:
    """What else may stand where a file or a directory is expected."""

    def listening() -> None:
        with socket.socket(socket.AF_UNIX) as server:
            directory = os.open(path.parent, os.O_PATH)
            server.bind(f"/proc/self/fd/{directory}/{path.name}")
            os.close(directory)

    return [
        lambda: os.mkfifo(path),
        lambda: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 8)),
        lambda: os.mknod(path, stat.S_IFBLK | 0o666, os.makedev(7, 0)),
        listening,
        lambda: path.write_text("a file"),
        lambda: (path / "below").mkdir(parents=True),
        lambda: path.mkdir(mode=0),
    ]


def plant(path: Path, make: Callable[[], object]) -> None:
    if os.path.lexists(path) and stat.S_ISDIR(path.lstat().st_mode):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    make()


@pytest.fixture
def canary(world: World) -> Path:
    """The host's files that nothing may touch; the times of directories tell of what came and went."""
    directory = world.base / "canary"
    (directory / "directory/etc").mkdir(parents=True)
    for name in ("file", "passwd", "directory/file", "directory/etc/passwd", "resolv.conf", "debian_chroot"):
        (directory / name).write_text("the host's own")
    (world.base / "data").mkdir()
    return directory


def begin_and_end(world: World, before: tuple[object, ...], canary: Path) -> bool:
    """Whether it could be begun; in any case nothing outside has changed and nothing is left."""
    try:
        with world.begin("hostile") as session:
            inside = [line for line in mounts() if line not in before[1]]  # type: ignore[operator]
            assert all(target.startswith(f"{world.base}/run/mount") for target, _fstype, _root in inside)
            output(session, "/bin/busybox", "true")
        is_begun = True
    except SetupFailed as error:
        assert "\n" not in str(error)
        assert "left behind" not in str(error)
        is_begun = False
    except CannotEnter as error:
        assert error.path == "/bin/busybox"
        is_begun = True
    assert (snapshot(canary), mounts()) == before
    assert world.leftovers() == []
    return is_begun


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [*FILES, *DIRECTORIES])
def test_links_and_others_where_files_and_directories_are_expected(
    world: World, canary: Path, place: str, kind: str
) -> None:
    nssdatabases = "passwd\ngroup\n"
    profile = world.profile(
        fstab=FSTAB.format(base=world.base), copyfiles=COPYFILES, nssdatabases=nssdatabases, name="hostile"
    )
    world.define("hostile", profile=profile, **KINDS[kind])
    path = world.root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "loop1").symlink_to("loop2")
    (path.parent / "loop2").symlink_to("loop1")
    before = snapshot(canary), mounts()
    makers: list[Callable[[], object]] = [
        lambda points_to=points_to: path.symlink_to(points_to)  # type: ignore[misc]
        for points_to in (*links(canary), path.name)
    ]
    begun = 0
    for maker in (*makers, *others(path)):
        plant(path, maker)
        begun += begin_and_end(world, before, canary)
    assert begun > 0


def test_links_lead_to_places_inside(world: World, canary: Path) -> None:
    fstab = f"tmpfs /there tmpfs size=1M\n{world.base}/data {canary}/directory none bind\n"
    world.define("hostile", profile=world.profile(fstab=fstab, copyfiles="/etc/passwd /etc/resolv.conf\n"))
    (world.root / "there").symlink_to("../../../var/tmp")
    (world.root / "etc/resolv.conf").symlink_to("/../var/resolved")
    (world.base / "data/file").write_text("of the data")
    before = snapshot(canary), mounts()
    with world.begin("hostile") as session:
        shell(session, "echo x >/var/tmp/x; test -L /there; test -L /etc/resolv.conf")
        assert shell(session, "stat -f -c %T /var/tmp") == "tmpfs\n"
        assert output(session, "cat", "/var/resolved") == Path("/etc/passwd").read_text()
        assert output(session, "cat", f"{canary}/directory/file") == "of the data"
    assert (snapshot(canary), mounts()) == before


def test_a_target_that_leads_to_the_root_itself_is_refused(world: World, canary: Path) -> None:
    world.define("hostile", profile=world.profile(fstab="tmpfs /data tmpfs defaults\n"))
    (world.root / "data").symlink_to("var/..")
    with pytest.raises(SetupFailed, match="/data leads to the root of the session itself; mend the link"):
        world.begin("hostile")
    (world.root / "data").unlink()
    world.profile(fstab="tmpfs / tmpfs defaults\n")
    with pytest.raises(SetupFailed, match="/ leads to the root of the session itself"):
        world.begin("hostile")


@pytest.mark.parametrize("points_to", ["/", "{canary}", "../../../../../../../../{canary}", "var"])
def test_a_directory_that_becomes_a_link_and_back_all_the_time(world: World, canary: Path, points_to: str) -> None:
    fstab = (
        f"tmpfs /swap/directory tmpfs size=1M\n{world.base}/data /swap/new none bind\nproc /swap/a/b proc defaults\n"
    )
    fstab += "/etc/hosts /swap/file none bind,ro\n"
    copyfiles = "/etc/passwd /swap/passwd\n/etc/passwd /swap/etc/passwd\n/etc/hosts /swap/resolv.conf\n"
    profile = world.profile(fstab=fstab, copyfiles=copyfiles)
    world.define("hostile", profile=profile, union_type="none")
    for name in ("swap/directory", "swap/etc", "directory"):
        (world.root / name).mkdir(parents=True)
    for name in ("swap/file", "file"):
        (world.root / name).touch()
    (world.root / "link").symlink_to(points_to.format(canary=canary))
    before = snapshot(canary), mounts()
    with swapping(world.root / "swap", world.root / "link"):
        for _turn in range(50):
            begin_and_end(world, before, canary)
    if (world.root / "swap").is_symlink():
        exchange(world.root / "swap", world.root / "link")
    assert begin_and_end(world, before, canary)


def test_a_directory_that_becomes_a_link_while_its_mounts_are_taken_away(world: World, canary: Path) -> None:
    """Mounts of the host below the place that the link points to are not taken for the session's."""
    world.define("hostile", profile=world.profile(fstab="tmpfs /swap/a/mnt tmpfs size=1M\n"), union_type="none")
    (world.root / "swap/a/mnt").mkdir(parents=True)
    (world.root / "link").symlink_to(canary)
    (canary / "a/mnt").mkdir(parents=True)
    with ext4(world.base, canary / "a/mnt"):
        before = snapshot(canary), mounts()
        for _turn in range(30):
            session = world.begin("hostile", name="held")
            with swapping(world.root / "swap", world.root / "link"):
                # A mount on top of the session's own, so that taking it away by its path is not enough.
                session.run(["mount", "-t", "tmpfs", "none", "/swap/a/mnt"], capture=True)
                session.end(force=True)
            if (world.root / "swap").is_symlink():
                exchange(world.root / "swap", world.root / "link")
            assert (snapshot(canary), mounts()) == before


def test_a_tree_that_a_user_can_change_is_removed_without_following_him(world: World, canary: Path) -> None:
    """The session's layer is thrown away while somebody exchanges its directories with links to the host's."""
    world.define("hostile", union_overlay_storage="disk")
    before = snapshot(canary), mounts()
    for turn in range(10):
        session = world.begin("hostile", name=f"s{turn}")
        shell(session, "mkdir /swap && cd /swap && for i in 1 2 3 4 5 6 7 8 9; do mkdir $i; touch $i/file; done")
        upper = Path(f"{world.base}/state/union/overlay/s{turn}/upper")
        os.symlink(canary, upper / "link")
        with swapping(upper / "swap", upper / "link"):
            session.end()
        assert (snapshot(canary), mounts()) == before


def test_fifos_are_not_waited_for(world: World, canary: Path) -> None:
    """Nothing of the host's hangs on a fifo: neither a copied file nor a program that is executed."""
    world.define("hostile", profile=world.profile(copyfiles=f"{canary}/fifo /etc/passwd\n"))
    os.mkfifo(canary / "fifo")
    with pytest.raises(SetupFailed, match="fifo is not a regular file; take it out of the profile's copyfiles"):
        world.begin("hostile")
    world.profile(copyfiles="/etc/passwd\n")
    os.mkfifo(world.root / "bin/fifo", 0o777)
    with world.begin("hostile") as session, pytest.raises(SessionsError, match="“/bin/fifo”: Permission denied"):
        session.run(["/bin/fifo"])
