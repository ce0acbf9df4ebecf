"""A configuration directory as years and many tools have left it: under our command nothing in it has to be changed."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import World
from schrootcalls import Schroot

# What sbuild-createchroot writes; the end of the file's name is made up by it.
CREATED = """\
[unstable-amd64-sbuild]
description=Debian unstable/amd64 autobuilder
groups=root,sbuild
root-groups=root,sbuild
profile=sbuild
type=directory
directory={root}
union-type=overlay
aliases=UNRELEASED-amd64-sbuild,experimental-amd64-sbuild
command-prefix=env,EATMYDATA=yes
"""
CREATED_TARBALL = """\
[bookworm-amd64-sbuild]
description=Debian bookworm/amd64 autobuilder
groups=root,sbuild
root-groups=root,sbuild
profile=sbuild
type=file
file={base}/bookworm.tar.gz
"""
# What mk-sbuild writes, for each of its types.
MADE = """\
[{name}-amd64]
description={name}-amd64
groups=sbuild,root
root-groups=sbuild,root
# Uncomment these lines to allow members of these groups to access
# the -source chroots directly (useful for automated updates, etc).
#source-root-users=sbuild,root
#source-root-groups=sbuild,root
type={type}
profile=sbuild
command-prefix=/bin/env,CCACHE=no
{keys}
aliases={name}-security-amd64,{name}-updates-amd64
"""
MADE_TYPES = {
    "directory": "union-type=overlay\ndirectory={root}",
    "file": "union-type=overlay\nfile={base}/bookworm.tar.gz",
    "lvm-snapshot": "device=/dev/vg0/noble_chroot\nmount-options=-o noatime\nlvm-snapshot-options=--size 4G",
    "btrfs-snapshot": "btrfs-source-subvolume=/srv/btrfs/noble\nbtrfs-snapshot-directory=/srv/btrfs/snapshots",
    "zfs-snapshot": "zfs-dataset=tank/chroots/noble",
}
# As openstack-pkg-tools brings one along: it asks for the stage in the old way, and sources the libraries.
SETUP_SCRIPT = """\
#!/bin/sh

set -e

. "$SETUP_DATA_DIR/common-data"
. "$SETUP_DATA_DIR/common-functions"
. "$SETUP_DATA_DIR/common-config"

if [ "$STAGE" = "setup-start" ] || [ "$1" = "setup-recover" ]; then
    info "Adding an apt source"
    mkdir -p "${CHROOT_PATH}/etc/apt/sources.list.d"
    echo "deb http://mirror.example.org/ local main" >"$CHROOT_PATH/etc/apt/sources.list.d/local.list"
elif [ "$1" = "setup-stop" ]; then
    test -e "$CHROOT_PATH/etc/apt/sources.list.d/local.list"
    echo "$STATUS of $CHROOT_NAME" >>@BASE@/stopped
fi
"""
# What Launchpad's builder drops for each build, and takes away after it.
BUILD = """\
[build-{id}]
description=build-{id}
groups=sbuild,root
root-groups=sbuild,root
type=plain
directory={root}
"""


@pytest.fixture
def call(world: World) -> Iterator[Schroot]:
    """The directory as Debian's package leaves it, and what the tools have put into it."""
    call = Schroot(world)
    directory = Path(world.places.schroot_config_dir)
    shutil.copy("/etc/schroot/schroot.conf", directory)
    for name in ("setup.d", "default", "minimal", "sbuild", "buildd", "desktop"):
        shutil.copytree(f"/etc/schroot/{name}", directory / name, dirs_exist_ok=True)
    values = {"root": world.root, "base": world.base}
    subprocess.run(["tar", "-czf", world.base / "bookworm.tar.gz", "-C", world.root, "."], check=True)
    world.write("schroot/chroot.d/unstable-amd64-sbuild-a1B2c3", CREATED.format(**values))
    world.write("schroot/chroot.d/bookworm-amd64-sbuild-Xy_z12", CREATED_TARBALL.format(**values))
    # What package managers and editors leave beside them is not read.
    for name in ("old.dpkg-old", "new.dpkg-dist", "unstable~", ".swp"):
        world.write(f"schroot/chroot.d/{name}", "[no configuration")
    # Its /build is not on this machine unless sbuild is.
    fstab = directory / "sbuild/fstab"
    (world.base / "build").mkdir()
    fstab.write_text(fstab.read_text().replace("/var/lib/sbuild/build", f"{world.base}/build"))
    (directory / "sbuild/copyfiles").write_text("")
    yield call
    assert call("-l", "--all-sessions")[1] in ("", "session:build-1\n")


def rows(text: str) -> dict[str, str]:
    """The rows of one block of --info."""
    pairs = (re.split(r"  +", line.strip(), maxsplit=1) for line in text.splitlines()[1:])
    return {pair[0]: pair[1] if len(pair) > 1 else "" for pair in pairs}


def test_nothing_is_complained_of(call: Schroot) -> None:
    status, output, errors = call("-l")
    assert (status, errors) == (0, "")
    assert "chroot:unstable-amd64-sbuild\n" in output and "source:bookworm-amd64-sbuild\n" in output
    assert "chroot:experimental-amd64-sbuild\n" in output
    status, output, errors = call("-i")
    assert (status, errors) == (0, "")


@pytest.mark.parametrize("name", ["unstable-amd64-sbuild", "UNRELEASED-amd64-sbuild", "bookworm-amd64-sbuild"])
def test_what_sbuild_createchroot_makes(call: Schroot, name: str) -> None:
    (call.world.base / "build/shared").touch()
    status, session, errors = call("-b", "-c", f"chroot:{name}")
    assert (status, errors) == (0, "")
    session = session.strip()
    look = ("sh", "-c", "ls /build; cat /etc/debian_chroot; echo $EATMYDATA; grep -c ^sbuild: /etc/group || :")
    status, output, errors = call("-r", "-c", session, "-d", "/", "-u", "root", "--", *look)
    prefix = "" if name.startswith("bookworm") else "yes"
    chroot = name.replace("UNRELEASED", "unstable")
    there = int("sbuild:" in Path("/etc/group").read_text())
    assert (status, output, errors) == (0, f"shared\n{chroot}\n{prefix}\n{there}\n", "")
    status, output, errors = call("-i", "-c", f"session:{session}")
    assert (status, errors, rows(output)["Selected Chroot Name"]) == (0, "", name)
    assert call("-e", "-c", session) == (0, "", "")


def test_a_source_is_changed_for_good(call: Schroot) -> None:
    write = ("-c", "source:bookworm-amd64-sbuild", "-u", "root", "-d", "/", "--", "sh", "-c", "echo new >/updated")
    assert call(*write) == (0, "", "")
    read = ("-c", "bookworm-amd64-sbuild", "-d", "/", "--", "cat", "/updated")
    assert call(*read) == (0, "new\n", "")


@pytest.mark.parametrize("kind", MADE_TYPES)
def test_what_mk_sbuild_makes(call: Schroot, kind: str) -> None:
    keys = MADE_TYPES[kind].format(root=call.world.root, base=call.world.base)
    call.world.write("schroot/chroot.d/sbuild-noble-amd64", MADE.format(name="noble", type=kind, keys=keys))
    status, output, errors = call("-l")
    # The one key that schroot too does not know for an archive.
    expected = 1 if kind == "file" else 0
    assert (status, errors.count("\n")) == (0, expected) and errors.count("] union-type: ") == expected
    for name in ("noble-amd64", "noble-security-amd64", "noble-updates-amd64"):
        assert f"chroot:{name}\n" in output
    assert "source:noble-amd64\n" in output
    status, output, errors = call("-i", "-c", "noble-updates-amd64")
    assert (status, errors) == (0, "")
    assert (rows(output)["Type"], rows(output)["Command Prefix"]) == (kind, "/bin/env CCACHE=no")
    status, output, errors = call("--config", "-c", "noble-amd64")
    assert (status, errors) == (0, "") and f"type={kind}\n" in output
    if kind in ("directory", "file"):
        assert call("-c", "noble-amd64", "-d", "/", "--", "sh", "-c", "echo $CCACHE") == (0, "no\n", "")


def test_a_setup_script_of_others(call: Schroot) -> None:
    base = call.world.base
    call.script(SETUP_SCRIPT.replace("@BASE@", str(base)).removeprefix("#!/bin/sh\n"), "50pkgos")
    assert call("-b", "-c", "unstable-amd64-sbuild", "-n", "s1") == (0, "s1\n", "")
    assert call("-r", "-c", "s1", "-d", "/", "--", "cat", "/etc/apt/sources.list.d/local.list") == (
        0, "deb http://mirror.example.org/ local main\n", "",
    )  # fmt: skip
    assert call("--recover-session", "-c", "s1") == (0, "", "")
    assert call("-e", "-c", "s1") == (0, "", "")
    assert (base / "stopped").read_text() == "ok of unstable-amd64-sbuild\n"
    verbose = call("-v", "-c", "unstable-amd64-sbuild", "-d", "/", "--", "true")
    assert verbose[0] == 0 and "I: 50pkgos: Adding an apt source\n" in verbose[2]


def test_edits_of_a_profile(call: Schroot) -> None:
    """By sed, as several tools do, and by adding lines at the end."""
    fstab = Path(call.world.places.schroot_config_dir, "default/fstab")
    fstab.write_text(
        "/proc /proc none rw,bind 0 0\n/nonexistent /mnt none rw,bind 0 0\n#tmpfs /dev/shm tmpfs defaults 0 0\n"
    )
    Path(call.world.places.schroot_config_dir, "default/copyfiles").write_text("")
    call.world.write(
        "schroot/chroot.d/dev", f"[dev]\ntype=directory\ndirectory={call.world.root}\nunion-type=overlay\n"
    )
    expressions = ("-e", "s|^/nonexistent|# &|", "-e", "s|^#tmpfs|tmpfs|")
    subprocess.run(["sed", "-i", *expressions, fstab], check=True)
    (call.world.base / "ccache").mkdir()
    with open(fstab, "a") as file:
        file.write(f"{call.world.base}/ccache {call.world.base}/ccache none rw,bind 0 0\n")
    status, output, errors = call("-c", "dev", "-d", "/", "--", "cut", "-d", " ", "-f", "2", "/proc/self/mounts")
    assert (status, errors) == (0, "")
    assert output.splitlines() == ["/", "/proc", "/dev/shm", f"{call.world.base}/ccache"]


def test_a_plain_chroot_for_each_build(call: Schroot) -> None:
    """It is there as soon as its file is, and goes with it; the personality of who calls is kept."""
    name = "schroot/chroot.d/build-1"
    assert call("-c", "chroot:build-1", "--", "true") == (1, "", "E: chroot:build-1: Chroot not found\n")
    file = call.world.write(name, BUILD.format(id=1, root=call.world.root))
    status, session, errors = call("-c", "chroot:build-1", "--begin-session")
    assert (status, session, errors) == (0, "build-1\n", "")
    assert call("--location", "-c", "session:build-1") == (0, f"{call.world.root}\n", "")
    run = ("-d", "/", "-c", "build-1", "--run-session", "-q", "-u", "nobody", "-p", "--", "uname", "-m")
    assert call(*run) == (0, f"{platform.machine()}\n", "")
    expected = subprocess.run(
        ["setarch", "linux32", "uname", "-m"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    for user in ("root", "nobody"):
        words = [*call.argv(), "-d", "/", "-c", "build-1", "--run-session", "-q", "-u", user, "--", "uname", "-m"]
        done = subprocess.run(["setarch", "linux32", *words], capture_output=True, text=True, cwd="/")
        assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")
    assert call("-c", "build-1", "--end-session") == (0, "", "")
    assert not os.path.exists(call.world.places.journal_dir)
    file.unlink()
    assert call("-c", "chroot:build-1", "--", "true")[0] == 1


def test_all_of_it_at_once(call: Schroot) -> None:
    for kind, keys in MADE_TYPES.items():
        text = MADE.format(name=f"by-{kind}", type=kind, keys=keys.format(root=call.world.root, base=call.world.base))
        call.world.write(f"schroot/chroot.d/sbuild-{kind}", text)
    status, output, errors = call("--config", "--all-chroots")
    assert (status, errors) == (0, "")
    assert output.count("\ntype=") == len(MADE_TYPES) + 2
