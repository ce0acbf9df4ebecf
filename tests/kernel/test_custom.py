"""Custom chroots: their root is what setup scripts of the administrator mount at the session's location."""

from __future__ import annotations

from contextlib import suppress

import pytest
from helpers import World, exchange, mount, mounts, shell, snapshot, swapping, umount
from schrootcalls import Schroot

from sessions.errors import NotFound, SessionNotUsable, SetupFailed, Stuck

pytestmark = pytest.mark.usefixtures("read_only_host")

# As scripts for Debian's schroot do it: the mount point too is theirs to make.
BIND = """#!/bin/sh -e
echo "$1 $CHROOT_SESSION_SOURCE $CHROOT_SESSION_PURGE" >>{log}
case "$1" in
setup-stop)
    umount "$CHROOT_MOUNT_LOCATION"
    rmdir "$CHROOT_MOUNT_LOCATION"
    ;;
*)
    test -d "$CHROOT_MOUNT_LOCATION" || mkdir "$CHROOT_MOUNT_LOCATION"
    mountpoint -q "$CHROOT_MOUNT_LOCATION" || mount --bind {root} "$CHROOT_MOUNT_LOCATION"
    ;;
esac
"""


def calls(world: World) -> list[str]:
    return (world.base / "log").read_text().splitlines()


def define(world: World, **settings: object) -> str:
    usual: dict[str, object] = {"type": "custom", "directory": None, "union-type": None, "union-overlay-storage": None}
    return world.define("own", **usual | settings)


@pytest.mark.parametrize("purgeable", [True, False])
def test_a_session(world: World, purgeable: bool) -> None:
    define(world, custom_session_purgeable=purgeable)
    world.script("05root", BIND.format(root=world.root, log=world.base / "log"), directory="schroot/setup.d")
    before = mounts()
    with world.begin("own") as session:
        assert shell(session, "cat /etc/passwd") == (world.root / "etc/passwd").read_text()
    assert mounts() == before
    assert calls(world) == [f"setup-start false {str(purgeable).lower()}", f"setup-stop false {str(purgeable).lower()}"]


def test_what_is_written_into_the_original_stays_as_in_any_directory(world: World) -> None:
    define(world, profile=world.profile(fstab="/proc /proc none bind\n"))
    world.script("05root", BIND.format(root=world.root, log=world.base / "log"), directory="schroot/setup.d")
    (world.root / "proc").rmdir()
    with world.begin("own") as session:
        assert shell(session, "test -e /proc/self && cat /etc/debian_chroot") == "own\n"
    assert not (world.root / "proc").exists()  # made for the mount, and gone with it
    assert (world.root / "etc/debian_chroot").exists()


def test_the_twin_is_told_to_the_scripts(world: World) -> None:
    define(world, custom_source_cloneable=True, custom_session_purgeable=True)
    world.script("05root", BIND.format(root=world.root, log=world.base / "log"), directory="schroot/setup.d")
    world.begin("source:own").end()
    assert calls(world) == ["setup-start true false", "setup-stop true false"]


def test_a_script_after_10mount_finds_the_mount_point(world: World) -> None:
    define(world)
    world.script(
        "11root",
        f'#!/bin/sh\ntest "$1" = setup-stop || mount --bind {world.root} "$CHROOT_MOUNT_LOCATION"\n',
        directory="schroot/setup.d",
    )
    said: list[tuple[str, str]] = []
    before = mounts()
    session = world.begin("own", say=lambda letter, line: said.append((letter, line)))
    assert shell(session, "echo hi") == "hi\n"
    session.end()
    assert mounts() == before
    # The script has left it: it is unmounted all the same, and that is said.
    assert said == [("W", f"{session.location} was left mounted by the setup scripts of own")]


@pytest.mark.parametrize("profile", ["", "/proc /proc none bind\n"])
def test_no_root(world: World, profile: str) -> None:
    define(world, profile=world.profile(fstab=profile) if profile else "")
    before = snapshot(world.root)
    with pytest.raises(SetupFailed, match=r"no setup script has mounted a root for custom chroot own at .*/run/mount/"):
        world.begin("own")
    assert snapshot(world.root) == before


def test_what_a_failing_script_has_mounted_goes(world: World) -> None:
    define(world)
    fail = BIND.format(root=world.root, log=world.base / "log").replace("esac", 'esac\ntest "$1" = setup-stop')
    world.script("05root", fail, directory="schroot/setup.d")
    before = mounts()
    with pytest.raises(SetupFailed, match="05root exited with status 1"):
        world.begin("own")
    assert mounts() == before


def test_what_scripts_leave_mounted_is_not_looked_for_behind_links(world: World) -> None:
    """A directory inside becomes a link to the host's own mounts and back while the session is taken down."""
    define(world)
    mounting = f'mount --bind {world.root} "$CHROOT_PATH" && mount -t tmpfs left "$CHROOT_PATH/swap/a/mnt"'
    world.script("11root", f'#!/bin/sh\ntest "$1" = setup-stop || {{ {mounting}; }}\n', directory="schroot/setup.d")
    canary = world.base / "canary"
    for path in (world.root / "swap/a/mnt", canary / "a/mnt"):
        path.mkdir(parents=True)
    (world.root / "link").symlink_to(canary)
    mount("the host's", canary / "a/mnt", "tmpfs")
    before = mounts()
    for _turn in range(20):
        session = world.begin("own", name="held")
        with swapping(world.root / "swap", world.root / "link"), suppress(Stuck):
            session.end()
        if (world.root / "swap").is_symlink():
            exchange(world.root / "swap", world.root / "link")
        with suppress(NotFound):
            session.end()
        assert mounts() == before
    umount(canary / "a/mnt")


def test_without_sessions(world: World) -> None:
    define(world, custom_session_cloneable=False)
    with pytest.raises(SessionNotUsable, match="own is a custom chroot of which no sessions are wanted"):
        world.begin("own")


def test_the_schroot_command(world: World) -> None:
    schroot = Schroot(world)
    world.write("schroot/chroot.d/own", "[own]\ntype=custom\nprofile=own\ncustom-source-cloneable=true\n")
    script = BIND.format(root=world.root, log=world.base / "log")
    world.script("05root", f'#!/bin/sh\ntest "$CHROOT_TYPE" = custom || exit 0\n{script}', directory="schroot/setup.d")
    assert schroot("-c", "own", "--", "sh", "-c", "exit 7") == (7, "", "")
    assert schroot("-b", "-c", "source:own", "-n", "s1") == (0, "s1\n", "")
    assert schroot("-r", "-c", "s1", "--", "cat", "/etc/debian_chroot") == (0, "own\n", "")
    assert schroot("--recover-session", "-c", "s1")[0] == 0
    assert schroot("-e", "-c", "s1") == (0, "", "")
