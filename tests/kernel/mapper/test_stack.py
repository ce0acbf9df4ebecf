"""Sessions of a device that lies on volumes: opened in order, shared, and closed by the last session alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Attach, devices
from helpers import World, output, shell
from lvmgroup import run
from mapperstack import LUKS_MB, Stack

from sessions import store
from sessions.engine import Settings
from sessions.errors import SessionsError
from sessions.sweep import Sweep


@pytest.fixture
def stack(world: World, attach: Attach) -> Iterator[Stack]:
    made = Stack(world, attach)
    yield made
    made.wipe()


def test_one_encrypted_volume(stack: Stack) -> None:
    chroot = stack.luks().fill().close().define()
    before = devices()
    with stack.world.begin(chroot) as session:
        assert os.path.exists(stack.top)
        shell(session, "echo kept >/kept")
    assert devices() == before
    with stack.world.begin(chroot) as session:
        assert output(session, "cat", "/kept") == "kept\n"


def test_all_kinds_in_one_stack_below_an_overlay(stack: Stack) -> None:
    """A logical volume on an encrypted one, on an array."""
    stack.raid([stack.attach(LUKS_MB + 12), stack.attach(LUKS_MB + 12)]).luks().lvm().fill().close()
    chroot = stack.define(union_type="overlay")
    before = devices()
    session = stack.world.begin(chroot)
    assert len(devices() - before) >= 3
    shell(session, "echo changed >/etc/passwd")
    session.end()
    assert devices() == before
    with stack.world.begin(chroot) as session:
        assert "builder" in output(session, "cat", "/etc/passwd")


def test_two_sessions_share_what_the_last_one_closes(stack: Stack) -> None:
    chroot = stack.luks().fill().close().define(union_type="overlay")
    before = devices()
    first, second = stack.world.begin(chroot), stack.world.begin(chroot)
    opened = devices()
    first.end()
    assert devices() == opened
    assert output(second, "cat", "/etc/passwd")
    second.end()
    assert devices() == before


@pytest.mark.parametrize("already", [1, 3])
def test_what_an_administrator_has_opened_stays_open(stack: Stack, already: int) -> None:
    """So many volumes of three, from the lowest on, were open before."""
    stack.raid([stack.attach(LUKS_MB + 12), stack.attach(LUKS_MB + 12)]).luks().lvm().fill().close(already)
    chroot = stack.define()
    before = devices()
    with stack.world.begin(chroot) as session:
        assert output(session, "cat", "/etc/passwd")
    assert devices() == before
    stack.tables = stack.tables[:already]
    stack.close()


def test_opened_by_an_administrator_while_a_session_had_it_closed(stack: Stack) -> None:
    """Who closes what we have opened, and opens it again, has it for himself."""
    chroot = stack.luks().fill().close().define()
    with stack.world.begin(chroot) as session:
        run("umount", session.location)
        stack.close().open()
    assert os.path.exists(stack.top)
    stack.close()


def test_an_encrypted_volume_of_the_first_version(stack: Stack) -> None:
    chroot = stack.luks(version=1).fill().close().define()
    with stack.world.begin(chroot) as session:
        assert output(session, "cat", "/etc/passwd")


def test_a_name_that_is_taken_by_something_else(stack: Stack) -> None:
    other = stack.attach(4)
    chroot = stack.luks().fill().close().define()
    name = stack.tables[0]["name"]
    subprocess.run(["dmsetup", "create", name], input=f"0 8 linear {other} 0\n".encode(), check=True)
    with pytest.raises(SessionsError, match=rf"/dev/mapper/{name} is open already, and is not made of /dev/loop"):
        stack.world.begin(chroot)
    run("dmsetup", "remove", name)


def test_a_wrong_key_file(stack: Stack) -> None:
    chroot = stack.luks().fill().close().define()
    stack.key_file.write_text("another")
    with pytest.raises(SessionsError, match=r"the key in .*/key does not open /dev/loop[0-9]+; name the right"):
        stack.world.begin(chroot)


@pytest.mark.parametrize(("mode", "words"), [(0o644, "is not for root alone"), (None, "No such file or directory")])
def test_a_key_file_that_cannot_be_used(stack: Stack, mode: int | None, words: str) -> None:
    chroot = stack.luks().fill().close().define()
    if mode is None:
        stack.key_file.unlink()
    else:
        stack.key_file.chmod(mode)
    with pytest.raises(SessionsError, match=rf"key file .*/key:? {words}"):
        stack.world.begin(chroot)


def test_a_device_that_is_no_encrypted_volume(stack: Stack) -> None:
    chroot = stack.luks().fill().close().define()
    run("wipefs", "--all", "--force", stack.tables[0]["device"])
    with pytest.raises(SessionsError, match=r"/dev/loop[0-9]+ is no LUKS volume"):
        stack.world.begin(chroot)


def test_a_sweep_closes_what_no_session_uses(stack: Stack) -> None:
    chroot, places = stack.luks().fill().close().define(), stack.world.places
    before = devices()
    stack.world.begin(chroot, name="lost", persistent=True)
    os.unlink(store.find(places, "lost").path)
    found = [finding for finding in Sweep(places, Settings(), False).all() if finding.kind == "volume"]
    assert [(finding.outcome, finding.is_left) for finding in found] == [("closed", False)]
    assert devices() == before


def test_a_volume_in_use_keeps_the_session_until_it_is_let_go(stack: Stack) -> None:
    chroot = stack.luks().fill().close().define()
    session = stack.world.begin(chroot)
    with open(stack.top, "rb") as device:
        sleeper = subprocess.Popen(["sleep", "1000"], stdin=device)
    with pytest.raises(SessionsError, match=rf"cannot close {stack.top}: .*: open in {sleeper.pid} \(sleep 1000\)"):
        session.end()
    sleeper.kill()
    sleeper.wait()
    session.end()


@pytest.mark.parametrize("degraded", [False, True])
def test_an_array_that_lacks_a_member(stack: Stack, degraded: bool) -> None:
    members = [stack.attach(20), stack.attach(20)]
    chroot = stack.raid(members, degraded=degraded).fill().close().define()
    run("wipefs", "--all", "--force", members[1])
    before = devices()
    stack.tables[0]["members"] = [members[0], "/dev/loop-that-is-gone"]
    stack.define()
    said: list[str] = []
    if degraded:
        with stack.world.begin(chroot, say=lambda letter, line: said.append(line)) as session:
            assert output(session, "cat", "/etc/passwd")
        assert f"array {stack.top} is started without /dev/loop-that-is-gone" in said
    else:
        with pytest.raises(SessionsError, match=r"/dev/loop-that-is-gone is not there, or no block device"):
            stack.world.begin(chroot)
    assert devices() == before


def test_an_array_known_to_be_degraded_is_not_started_unasked(stack: Stack) -> None:
    """It was started without a member before, so that the others know no better."""
    members = [stack.attach(20), stack.attach(20)]
    stack.raid(members).fill()
    run("mdadm", "--fail", stack.top, members[1])
    run("mdadm", "--remove", stack.top, members[1])
    stack.close()
    stack.tables[0]["members"] = members[:1]
    before = devices()
    with pytest.raises(SessionsError, match=rf"array {stack.top} lacks 1 of its members.*degraded = true") as e:
        stack.world.begin(stack.define())
    print(str(e.value))
    assert devices() == before
    stack.tables[0]["degraded"] = True
    with stack.world.begin(stack.define()) as session:
        assert output(session, "cat", "/etc/passwd")
    assert devices() == before


def test_a_member_of_nothing(stack: Stack) -> None:
    members = [stack.attach(20), stack.attach(20)]
    chroot = stack.raid(members).fill().close().define()
    run("wipefs", "--all", "--force", members[1])
    with pytest.raises(SessionsError, match=rf"{members[1]} is no member of an array"):
        stack.world.begin(chroot)


def test_what_the_kernel_lacks_is_named_and_not_loaded(stack: Stack) -> None:
    run("rmmod", "dm-crypt")
    loaded = Path("/proc/modules").read_text()
    try:
        stack.tables = [{"kind": "luks", "device": "/dev/loop0", "name": "none", "key-file": "/etc/passwd"}]
        stack.top = "/dev/mapper/none"
        words = "this kernel has no target crypt of the device mapper; load it as root: modprobe dm-crypt"
        with pytest.raises(SessionsError, match=words):
            stack.world.begin(stack.define())
        assert Path("/proc/modules").read_text() == loaded
    finally:
        run("insmod", str(next(Path("/usr/lib/uml/modules").glob("*/kernel/drivers/md/dm-crypt.ko"))))
