"""The shell file that chooses a session's setup files, and what the stock scripts make of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers import World, shell

from sessions import lifecycle
from sessions.engine import Settings
from sessions.errors import ConfigError

pytestmark = pytest.mark.usefixtures("read_only_host")


@pytest.fixture
def config(world: World) -> Path:
    """The shell file of the profile of the chroot tiny, and what it may choose."""
    world.define("tiny", profile=world.profile(copyfiles="/etc/hostname\n"), **{"acme.key": "a 'b' $(exit 1)"})
    world.write("schroot/other/copyfiles", f"{world.base}/data /etc/chosen\n")
    world.write("data", "chosen\n")
    return world.write("schroot/own/config", "")


def test_what_it_chooses_holds_for_the_stock_scripts(world: World, config: Path) -> None:
    config.write_text("SETUP_COPYFILES=other/copyfiles\n")
    with world.begin("tiny") as session:
        assert shell(session, "cat /etc/chosen") == "chosen\n"
        assert not Path(session.location, "etc/hostname").exists()
    config.write_text('COPYFILES="$SYSCONF_DIR/other/copyfiles"; SETUP_FSTAB=; SETUP_NSSDATABASES=\n')
    with world.begin("tiny") as session:
        assert shell(session, "cat /etc/chosen") == "chosen\n"


def test_it_is_given_what_scripts_are_given_and_read_once(world: World, config: Path) -> None:
    config.write_text(
        f'env | sort >{world.base}/given; echo "$0 $STAGE $STATUS" >>{world.base}/read; pwd >>{world.base}/read\n'
        "echo 'what it says itself is nobody'\"'\"'s path'\nfoo=bar\n"
    )
    os.environ["LEAKED"] = "x"
    try:
        with world.begin("tiny") as session:
            lifecycle.recover(world.places, session.id, Settings())
            given = dict(line.split("=", 1) for line in (world.base / "given").read_text().splitlines())
    finally:
        del os.environ["LEAKED"]
    assert (world.base / "read").read_text().splitlines() == ["setup.config setup-start ok", "/"]
    assert (given["CHROOT_NAME"], given["ACME_KEY"]) == ("tiny", "a 'b' $(exit 1)")
    assert given["SETUP_CONFIG"].endswith("own/config")
    assert not {"LEAKED", "HOME", "PYTHONPATH"} & given.keys()


def test_one_of_a_chroot_without_a_profile(world: World, config: Path) -> None:
    """The deprecated script-config, and its files beside it."""
    world.write("schroot/schroot.conf", f"[old]\ntype=directory\ndirectory={world.root}\nscript-config=old/config\n")
    for name in ("fstab", "nssdatabases"):
        world.write(f"schroot/old/{name}", "")
    world.write("schroot/old/copyfiles", "/etc/hostname /etc/beside\n")
    with world.begin("old") as session:
        assert shell(session, "cat /etc/beside") == Path("/etc/hostname").read_text()
    world.write("schroot/old/config", "COPYFILES=$SYSCONF_DIR/other/copyfiles\n")
    with world.begin("old") as session:
        assert shell(session, "cat /etc/chosen") == "chosen\n"
    (world.root / "etc/chosen").unlink()
    (world.root / "etc/beside").unlink()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exit 3\n", "sh cannot read it: exited with status 3"),
        ("false\n", "sh cannot read it: exited with status 1"),
        ("if\n", "sh cannot read it: .*own/config: .*Syntax error"),
        ("kill -KILL $$\n", "sh cannot read it: was killed by SIGKILL"),
        ("exec 3>&-\n", "sh cannot read it: "),
        ("SETUP_FSTAB=nosuch\n", "setup_fstab file '.*/schroot/nosuch' does not exist; create it"),
        ("COPYFILES=/nosuch\n", "copyfiles file '/nosuch' does not exist; create it, choose"),
        ("SETUP_SERVICES='a;b'\n", "'a;b' is not the name of a service"),
    ],
)
def test_one_that_fails_is_named_and_nothing_is_begun(world: World, config: Path, text: str, reason: str) -> None:
    config.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        world.begin("tiny")


def test_one_that_others_can_write_is_not_read(world: World, config: Path) -> None:
    config.write_text(f"touch {world.base}/ran\n")
    config.chmod(0o646)
    with pytest.raises(ConfigError, match=f"{config}: File has write permissions for others; chmod o-w {config}"):
        world.begin("tiny")
    config.chmod(0o644)
    os.chown(config, 1234, 0)
    with pytest.raises(ConfigError, match=f"{config}: File is not owned by user root; chown root {config}"):
        world.begin("tiny")
    assert not (world.base / "ran").exists()


def test_where_there_is_none_no_process_is_started(world: World, config: Path, tmp_path: Path) -> None:
    """The usual session: the profile names a shell file, and nobody has made one."""
    from sessions.linux import trace

    config.unlink()
    points: list[str] = []
    trace.hook = points.append
    try:
        with world.begin("tiny"):
            pass
    finally:
        trace.hook = None
    assert points
    assert [point for point in points if point.startswith("run")] == []


def test_a_database_that_is_the_hosts_own_file_is_left_alone(world: World) -> None:
    world.define("tiny", profile=world.profile(fstab="/etc/hosts /etc/hosts none bind\n", nssdatabases="hosts\n"))
    said: list[tuple[str, str]] = []
    before = Path("/etc/hosts").read_bytes()
    with world.begin("tiny", say=lambda letter, line: said.append((letter, line))) as session:
        inside = f"{session.location}/etc/hosts"
        told = f"20nssdatabases: warning: hosts files '/etc/hosts' and '{inside}' are the same file; skipping"
        assert said == [("E", told)]
    assert Path("/etc/hosts").read_bytes() == before
