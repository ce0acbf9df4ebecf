"""schroot's own scripts in /etc/schroot/setup.d: left alone as shipped, spoken of if edited or removed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import REPOSITORY, World, bind, umount
from schrootcalls import Schroot

from sessions import schroots, setupd

pytestmark = pytest.mark.usefixtures("read_only_host")
SHIPPED = Path("/etc/schroot/setup.d")


@pytest.fixture
def theirs(world: World) -> Path:
    """The directory as Debian's package has it."""
    world.define("tiny")
    directory = world.base / "schroot/setup.d"
    shutil.copytree(SHIPPED, directory, symlinks=True, dirs_exist_ok=True)
    return directory


def warnings(world: World, **wishes: object) -> list[str]:
    """What a begin warns of."""
    said: list[tuple[str, str]] = []
    with world.begin("tiny", say=lambda letter, line: said.append((letter, line)), **wishes):
        pass
    assert {letter for letter, _line in said} <= {"W"}
    return [line for _letter, line in said]


def test_the_table_knows_every_script_of_the_package_installed_here() -> None:
    assert set(schroots.SHIPPED) == {path.name for path in SHIPPED.iterdir()}
    for name in schroots.SHIPPED:
        assert schroots.is_shipped(name, str(SHIPPED / name)), name
    assert schroots.SHIPPED["99check"] == schroots.SHIPPED["00check"]


def test_nothing_is_said_of_what_is_as_shipped(world: World, theirs: Path) -> None:
    assert warnings(world) == []
    assert setupd.problems(world.places) == []


def test_nothing_is_said_where_schroot_is_not_installed(world: World) -> None:
    world.define("tiny")
    (world.base / "schroot/setup.d/60own").write_text("#!/bin/sh\n")
    (world.base / "schroot/setup.d/60own").chmod(0o755)
    assert warnings(world) == []


def test_an_edited_script_is_not_run_and_said_so(world: World, theirs: Path) -> None:
    edited = theirs / "50chrootname"
    edited.write_text(edited.read_text() + f"\ntouch {world.base}/ran\n")
    own = f"{world.base}/native/setup.d/50chrootname"
    expected = (
        f"{edited}: has been edited, and is not run: the stock script of that name is; "
        f"to run it in its place: cp {edited} {own}; to do without: rm {edited}"
    )
    assert warnings(world) == [expected]
    assert [str(problem) for problem in setupd.problems(world.places)] == [expected]
    assert not (world.base / "ran").exists()
    shutil.copy(edited, own)
    assert warnings(world) == []
    assert (world.base / "ran").exists()


def test_a_removed_script_is_spoken_of_until_it_is_masked(world: World, theirs: Path) -> None:
    (theirs / "20copyfiles").unlink()
    own = f"{world.base}/native/setup.d/20copyfiles"
    assert warnings(world) == [
        f"{theirs}/20copyfiles: has been removed, and the stock script of that name runs all the same; "
        f"to leave it out here too: ln -s /dev/null {own}"
    ]
    os.symlink("/dev/null", own)
    assert warnings(world) == []


def test_a_release_that_the_table_does_not_know_is_known_to_dpkg(world: World, theirs: Path, tmp_path: Path) -> None:
    """Also of a package that was removed: its scripts, and what dpkg knows of them, stay."""
    newer = (theirs / "10mount").read_bytes() + b"# of tomorrow\n"
    (theirs / "10mount").write_bytes(newer)
    assert len(setupd.problems(world.places)) == 1
    status = world.write(
        "status",
        "Package: schroot-common\nStatus: install ok installed\n\n"
        "Package: schroot\nStatus: deinstall ok config-files\nConffiles:\n"
        f" /etc/schroot/setup.d/10mount {hashlib.md5(newer).hexdigest()}\n"
        " /etc/schroot/setup.d/05file 00000000000000000000000000000000 obsolete\nVersion: 9\n\nPackage: other\n",
    )
    bind(status, schroots.DPKG_STATUS)
    try:
        assert setupd.problems(world.places) == []
        (theirs / "10mount").write_bytes(newer + b"edited\n")
        assert len(setupd.problems(world.places)) == 1
    finally:
        umount(schroots.DPKG_STATUS)


def test_with_one_directory_for_both_schroots_own_override_nothing(world: World, theirs: Path) -> None:
    """As with --config-dir=/etc/schroot: a file that was edited there is the administrator's, and overrides."""
    schroot = Schroot(world)
    assert schroot("-c", "ov", "--", "cat", "/etc/debian_chroot") == (0, "ov\n", "")
    edited = theirs / "50chrootname"
    edited.write_text('#!/bin/sh\ntest "$1" != setup-start || echo mine >"$CHROOT_PATH/etc/debian_chroot"\n')
    assert schroot("-c", "ov", "--", "cat", "/etc/debian_chroot") == (0, "mine\n", "")


def test_config_check_tells(world: World, theirs: Path) -> None:
    def check() -> tuple[int, list[str]]:
        code = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from sessions.cli.native import main; main()"
        argv = [sys.executable, "-c", code, f"--config-dir={world.base}/schroot", "config", "check", "--json"]
        result = subprocess.run(argv, capture_output=True, text=True)
        return result.returncode, [problem["reason"] for problem in json.loads(result.stdout)["problems"]]

    assert check() == (0, [])
    (theirs / "17own").mkdir()
    status, reasons = check()
    assert (status, reasons) == (125, [f"setup script {theirs}/17own is not a regular file"])
