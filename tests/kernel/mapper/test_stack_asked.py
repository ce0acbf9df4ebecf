"""Volumes whose password is asked at the terminal, and devices that come while a session waits for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Attach, devices
from helpers import REPOSITORY, Fork, World, output
from lvmgroup import losetup, lvm, run
from mapperstack import PASSWORD, WRONG, Stack
from terminals import Terminal

from sessions import lifecycle, open_session
from sessions.engine import Settings
from sessions.errors import SessionsError

Ask = Callable[..., Fork]


@pytest.fixture
def stack(world: World, attach: Attach) -> Iterator[Stack]:
    made = Stack(world, attach)
    yield made
    made.wipe()


@pytest.fixture
def command(world: World) -> Callable[..., Terminal]:
    """Calls `sessions` at a terminal."""
    places = world.places
    where = ["--config-dir", places.native_config_dir, "--state-dir", places.state_dir]
    where += ["--runtime-dir", places.runtime_dir]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "TERM": "dumb", "HOME": "/root"}

    def call(*words: str) -> Terminal:
        return Terminal([sys.executable, "-m", "sessions.cli.native", *where, *words], environment)

    return call


def test_a_password_is_asked_for_until_it_is_right(stack: Stack, command: Callable[..., Terminal]) -> None:
    """It is found nowhere; and after a rest it is asked for again, but not where nobody can answer."""
    chroot = stack.luks(asked=True).fill().close().define(union_type="overlay", union_overlay_storage="disk")
    device, before = stack.tables[0]["device"], devices()
    terminal = command("begin", chroot, "--name", "s")
    terminal.expect(f"Password of {device} for chroot {chroot}: ")
    terminal.type(f"{WRONG}\n")
    terminal.expect(f"the password of {device} is wrong; try again")
    terminal.expect(f"Password of {device} for chroot {chroot}: ")
    terminal.type(f"{PASSWORD}\n")
    terminal.expect("s")
    assert terminal.status() == 0
    session = open_session("s", places=stack.world.places)
    assert output(session, "cat", "/etc/passwd")
    stack.key_file.unlink()
    kept = subprocess.run(["grep", "-r", "-l", "-F", PASSWORD, stack.world.base / "state", stack.world.base / "run"])
    assert kept.returncode == 1
    lifecycle.rest(stack.world.places, "s", Settings())
    assert devices() == before
    terminal = command("recover", "s")
    terminal.expect(f"Password of {device} for chroot {chroot}: ")
    terminal.type(f"{PASSWORD}\n")
    assert terminal.status() == 0
    assert output(session, "cat", "/etc/passwd")
    session.end()
    assert devices() == before


def test_nobody_is_there_to_be_asked(stack: Stack) -> None:
    chroot = stack.luks(asked=True).fill().close().define()
    words = f"the password of {stack.tables[0]['device']} has to be asked for, and there is no terminal; call it from"
    with pytest.raises(SessionsError, match=words):
        stack.world.begin(chroot)


def test_a_wrong_password_three_times_and_a_key_that_interrupts(stack: Stack, command: Callable[..., Terminal]) -> None:
    chroot = stack.luks(asked=True).fill().close().define()
    before = devices()
    terminal = command("begin", chroot)
    for _attempt in range(3):
        terminal.expect("Password of ")
        terminal.type(f"{WRONG}\n")
    terminal.expect(f"the password of {stack.tables[0]['device']} is wrong: given up after 3 attempts")
    assert terminal.status() == 125
    assert (devices(), stack.world.leftovers()) == (before, [])
    terminal = command("begin", chroot)
    terminal.expect("Password of ")
    terminal.type("half\x03")
    assert terminal.status() == 128 + signal.SIGINT
    assert (devices(), stack.world.leftovers()) == (before, [])


def test_an_encrypted_volume_whose_device_comes_late(stack: Stack, asker: Ask, tmp_path: Path) -> None:
    stack.luks().fill().close()
    late = tmp_path / "late"
    device, stack.tables[0]["device"] = stack.tables[0]["device"], str(late)
    before = devices()
    waiting = asker(stack.define(device_timeout=60))
    assert waiting.ask() == f"waiting for {late}"
    assert devices() == before
    late.symlink_to(device)
    assert waiting.ask() == "in"
    waiting.tell()
    assert waiting.ask() == ""
    assert waiting.wait() == 0
    assert devices() == before


def test_a_logical_volume_whose_group_comes_late(stack: Stack, asker: Ask, tmp_path: Path) -> None:
    image = tmp_path / "group"
    with image.open("xb") as file:
        file.truncate(16 << 20)
    device = losetup(image)
    stack.on(device).lvm().fill().close()
    run("losetup", "--detach", device)
    waiting = asker(stack.define(device_timeout=60))
    group = stack.tables[0]["volume-group"]
    assert waiting.ask() == f"waiting for logical volume {group}/root-1"
    device = losetup(image)
    assert waiting.ask() == "in"
    assert os.path.exists(stack.top)
    waiting.tell()
    assert waiting.ask() == ""
    assert waiting.wait() == 0
    assert not os.path.exists(stack.top)
    run("losetup", "--detach", device)


def test_a_volume_that_does_not_come_is_named(stack: Stack) -> None:
    stack.tables = [{"kind": "lvm", "volume-group": "none", "logical-volume": "root"}]
    with pytest.raises(SessionsError, match=r"logical volume none/root is not there, .*also after 1 seconds"):
        stack.world.begin(stack.on("/dev/none/root").define(device_timeout=1))


def test_what_was_activated_on_a_volume_of_ours_is_closed_with_it(stack: Stack, asker: Ask, tmp_path: Path) -> None:
    """As udev does, as soon as a device is there."""
    stack.luks(size_mb=36).lvm().fill()
    lower, logical = stack.tables
    stack.on(stack.attach(24)).luks().close()
    late = tmp_path / "late"
    device, stack.tables[2]["device"] = stack.tables[2]["device"], str(late)
    before, other = devices(), stack.tables[2]
    stack.tables = [lower, other, logical]
    name = f"{logical['volume-group']}/{logical['logical-volume']}"
    waiting = asker(stack.on(f"/dev/{name}").define(device_timeout=60))
    assert waiting.ask() == f"waiting for {late}"
    lvm("lvchange", "--activate", "y", name)
    late.symlink_to(device)
    assert waiting.ask() == "in"
    waiting.tell()
    assert waiting.ask() == ""
    assert waiting.wait() == 0
    assert devices() == before


def test_two_sessions_that_come_and_go_at_once(stack: Stack, asker: Ask) -> None:
    chroot = stack.luks().fill().close().define(union_type="overlay")
    before = devices()
    both = [asker(chroot), asker(chroot)]
    assert [one.ask() for one in both] == ["in", "in"]
    for one in both:
        one.tell()
    assert [one.ask() for one in both] == ["", ""]
    assert [one.wait() for one in both] == [0, 0]
    assert devices() == before


def test_a_check_of_what_is_in_a_stack(stack: Stack) -> None:
    chroot = stack.luks().fill().close().define(fsck=True)
    said: list[str] = []
    with stack.world.begin(chroot, say=lambda letter, line: said.append(line)) as session:
        assert output(session, "cat", "/etc/passwd")
    assert [line for line in said if line.startswith(f"fsck: {stack.top}: clean")] == said
