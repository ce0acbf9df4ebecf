"""The built-in chroot of the running system: everything is there, and no change gets out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import World, bind, ext4, mount, mounts, output, shell, umount

from sessions.errors import CommandNotFound

# Directories that every host has, and that a session of the host does not get new and empty.
BELOW, OVER_A_FILE = Path("/mnt"), Path("/etc/passwd")


@pytest.fixture
def disk(world: World) -> Iterator[Path]:
    """Another real file system of the host, with a file in it."""
    with ext4(world.base, BELOW):
        (BELOW / "file").write_text("original\n")
        (BELOW / "deep/er").mkdir(parents=True)
        (BELOW / "deep/er/file").write_text("deep\n")
        yield BELOW


def test_changes_are_seen_inside_only(world: World) -> None:
    words = "echo changed >/etc/hostname.new; rm -rf /usr/bin/env; mkdir /srv/new; cat /etc/hostname.new"
    with world.begin("host") as session:
        assert session.id.startswith("host-")
        assert shell(session, words) == "changed\n"
        with pytest.raises(CommandNotFound):
            session.run(["env"])
        with world.begin("host") as other:
            assert output(other, "env", "echo", "there") == "there\n"
    assert Path("/usr/bin/env").exists()
    assert not Path("/etc/hostname.new").exists()
    assert not Path("/srv/new").exists()


def test_other_real_file_systems_are_there_and_changes_to_them_thrown_away(world: World, disk: Path) -> None:
    before = mounts()
    with world.begin("host") as session:
        assert shell(session, f"cat {disk}/file {disk}/deep/er/file") == "original\ndeep\n"
        shell(session, f"echo changed >{disk}/file; rm -r {disk}/deep; mkdir {disk}/new; echo x >{disk}/new/x")
        assert shell(session, f"cat {disk}/file {disk}/new/x; ls {disk}") == "changed\nx\nfile\nlost+found\nnew\n"
        assert (disk / "file").read_text() == "original\n"
    assert mounts() == before
    assert sorted(os.listdir(disk)) == ["deep", "file", "lost+found"]
    assert (disk / "deep/er/file").read_text() == "deep\n"


def test_a_mount_below_a_mount_is_there_too(world: World, disk: Path) -> None:
    (world.base / "one").mkdir()
    with ext4(world.base / "one", disk / "deep"):
        (disk / "deep/inner").write_text("inner\n")
        with world.begin("host") as session:
            assert shell(session, f"cat {disk}/deep/inner {disk}/file; rm {disk}/deep/inner") == "inner\noriginal\n"
        assert (disk / "deep/inner").read_text() == "inner\n"


def test_what_overlay_refuses_is_there_read_only(world: World, disk: Path) -> None:
    """An overlay of an overlay is as deep as the kernel goes, and no other may lie over that."""
    top = disk / "deep"
    mount("tmpfs", "/media", "tmpfs")
    for number, lower in enumerate((disk / "deep/er", top)):
        for name in ("upper", "work"):
            Path(f"/media/{name}{number}").mkdir()
        layer = f"upperdir=/media/upper{number},workdir=/media/work{number}"
        mount("overlay", top, "overlay", data=f"lowerdir={lower},{layer}")
    with world.begin("host") as session:
        assert shell(session, f"cat {top}/file") == "deep\n"
        result = session.run(["sh", "-c", f"echo changed >{top}/file"], capture=True)
        assert b"Read-only file system" in result.stderr
    umount(top)
    umount(top)
    umount("/media")


def test_a_file_that_is_a_mount_of_its_own_is_there_read_only(world: World, disk: Path) -> None:
    (disk / "passwd").write_text("root:x:0:0:mounted:/root:/bin/sh\n")
    bind(disk / "passwd", OVER_A_FILE)
    with world.begin("host") as session:
        assert "mounted" in shell(session, f"cat {OVER_A_FILE}")
        assert session.run(["sh", "-c", f"echo >{OVER_A_FILE}"], capture=True).status != 0
    umount(OVER_A_FILE)


def test_what_is_of_this_machine_is_new_and_empty(world: World) -> None:
    with world.begin("host") as session:
        assert shell(session, "ls -A /tmp /run /dev/shm") == "/dev/shm:\n\n/run:\n\n/tmp:\n"
        assert (
            shell(session, "cat /proc/self/comm /proc/sys/kernel/ostype; ls -d /sys/kernel")
            == "cat\nLinux\n/sys/kernel\n"
        )
        assert output(session, "stat", "-c", "%a %U", "/tmp", "/run", "/dev") == "1777 root\n755 root\n755 root\n"
        shell(session, "echo x >/tmp/x; echo x >/run/x; echo x >/dev/x")
        assert b"Read-only file system" in session.run(["mkdir", "/sys/fs/x"], capture=True).stderr
    assert not os.path.lexists("/dev/x")
    assert not os.path.lexists("/run/x")


def test_its_devices_work(world: World) -> None:
    script = (
        "import os, sys\n"
        "ours, theirs = os.openpty()\n"
        "os.write(theirs, b'through a terminal')\n"
        "print(os.read(ours, 100).decode(), os.ttyname(theirs))\n"
    )
    with world.begin("host") as session:
        assert shell(session, "echo x >/dev/null && cat /dev/null && head -c 3 /dev/zero | wc -c") == "3\n"
        assert shell(session, "head -c 99 /dev/urandom | wc -c; echo out >/dev/stdout; ls /dev/fd/0") == (
            "99\nout\n/dev/fd/0\n"
        )
        assert session.run(["sh", "-c", "echo x >/dev/full"], capture=True).status != 0
        assert output(session, "/usr/bin/python3", "-c", script) == "through a terminal /dev/pts/0\n"
        assert "sda" not in shell(session, "ls /dev")
        assert not shell(session, "find /dev -type b")


def test_a_configured_chroot_of_the_name_replaces_it(world: World) -> None:
    world.define("host")
    with world.begin("host") as session:
        assert shell(session, "cat /etc/passwd | wc -l") == "2\n"
