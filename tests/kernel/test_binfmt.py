"""Roots of another machine: real registrations with the kernel, and real programs that run through them."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import BUSYBOX, World, mount, mounts, output, snapshot, umount

from sessions import lifecycle
from sessions.engine import Settings
from sessions.linux import binfmt, syscall

# A machine that there is not, but for this process: nobody else's programs are taken for it.
MACHINE = 0xF000 | os.getpid() & 0xFFF
Register = Callable[..., None]
IN_OPEN = 0x20


def program(machine: int) -> bytes:
    """The head of a 64-bit, little-endian executable."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 2, machine, 1) + bytes(40)


@pytest.fixture
def register() -> Iterator[Register]:
    """The kernel's file system for registrations; what is registered goes with the end of the test."""
    is_mounted = Path(binfmt.DIRECTORY, "register").exists()
    if not is_mounted:
        mount("binfmt_misc", binfmt.DIRECTORY, "binfmt_misc")
    names = []

    def tell_kernel(interpreter: Path, flags: str = "", name: str = "sessions-test") -> None:
        name = f"{name}-{os.getpid()}"
        head = program(MACHINE)[:20]
        mask = b"\xff" * 7 + bytes(9) + b"\xff" * 4
        text = f":{name}:M::{escaped(head)}:{escaped(mask)}:{interpreter}:{flags}"
        Path(binfmt.DIRECTORY, "register").write_text(text)
        names.append(name)

    try:
        yield tell_kernel
    finally:
        for name in names:
            Path(binfmt.DIRECTORY, name).write_text("-1")
        if not is_mounted:
            umount(binfmt.DIRECTORY)


def escaped(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)


@pytest.fixture
def emulator(world: World) -> Path:
    """An interpreter that prints what it is called with."""
    path = world.base / "emulators/echo"
    path.parent.mkdir()
    shutil.copy(BUSYBOX, path)
    return path


@pytest.fixture
def foreign(world: World) -> Path:
    """The root is one of another machine: its shell, and a program."""
    for name in ("sh", "prog"):
        path = world.root / "bin" / name
        path.unlink(missing_ok=True)
        path.write_bytes(program(MACHINE))
        path.chmod(0o755)
    return world.root


@pytest.mark.parametrize("kind", [{}, {"union_type": "none"}, {"union_overlay_storage": "disk"}])
def test_a_foreign_program_runs(
    world: World, emulator: Path, foreign: Path, register: Register, kind: dict[str, str]
) -> None:
    register(emulator)
    world.define("tiny", **kind)
    before = snapshot(foreign), mounts()
    with world.begin("tiny") as session:
        assert output(session, "/bin/prog", "a", "b c") == "/bin/prog a b c\n"
        inside = Path(session.location + str(emulator))
        assert os.statvfs(inside).f_flag & os.ST_RDONLY
        assert [target for target, _fstype, _root in mounts() if target.endswith("/echo")] == [str(inside)]
    after = snapshot(foreign), mounts()
    if kind.get("union_type") != "none":
        assert after == before
    assert after[0].keys() - before[0].keys() <= {str(foreign / "etc/debian_chroot")}
    assert after[1] == before[1]


def test_it_is_bound_again_by_a_recovery(world: World, emulator: Path, foreign: Path, register: Register) -> None:
    register(emulator)
    world.define("tiny")
    with world.begin("tiny", name="one") as session:
        umount(session.location + str(emulator))
        lifecycle.recover(world.places, "one", Settings())
        assert output(session, "/bin/prog") == "/bin/prog\n"


def test_the_kernel_may_have_it_open_already(world: World, emulator: Path, foreign: Path, register: Register) -> None:
    register(emulator, "F")
    world.define("tiny")
    with world.begin("tiny") as session:
        assert not Path(session.location + str(emulator)).exists()
        assert output(session, "/bin/prog", "a") == "/bin/prog a\n"


def test_of_two_that_match_the_newer_is_the_kernels(
    world: World, emulator: Path, foreign: Path, register: Register
) -> None:
    other = emulator.with_name("cat")
    shutil.copy(emulator, other)
    register(other, name="a-older")
    register(emulator, name="b-newer")
    world.define("tiny")
    with world.begin("tiny") as session:
        assert output(session, "/bin/prog") == "/bin/prog\n"
        assert not Path(session.location + str(other)).exists()


def test_nothing_where_nothing_is_needed(world: World, emulator: Path, register: Register) -> None:
    """A root of this machine; one of another of which nobody knows the interpreter; a registration out of force."""
    register(emulator)
    world.define("tiny")
    said: list[str] = []

    def is_bound() -> bool:
        with world.begin("tiny", say=lambda _letter, line: said.append(line)) as session:
            return Path(session.location + str(emulator)).exists()

    shell = world.root / "bin/sh"
    for make in (
        lambda: None,
        lambda: (shell.unlink(), shell.write_bytes(program(MACHINE ^ 0x800))),
        lambda: shell.write_bytes(b""),
        lambda: shell.write_bytes(b"#!/bin/busybox sh\n"),
        lambda: (shell.unlink(), shell.mkdir()),
        lambda: (shell.rmdir(), os.mkfifo(shell)),
        lambda: (shell.unlink(), (world.root / "bin/true").unlink()),
    ):
        make()
        assert not is_bound()
    shell.write_bytes(program(MACHINE))
    assert is_bound()
    entry = Path(binfmt.DIRECTORY, f"sessions-test-{os.getpid()}")
    entry.write_text("0")
    assert not is_bound()
    entry.write_text("1")
    assert said == []
    emulator.unlink()
    assert not is_bound()
    assert said == [f"{emulator}, registered for the programs of this root, is not there: they cannot be run"]


def test_no_link_inside_leads_out(world: World, emulator: Path, foreign: Path, register: Register) -> None:
    """Neither that of the shell that is looked at, nor that at the interpreter's path."""
    register(emulator)
    world.define("tiny", union_type="none")
    shell, victim = foreign / "bin/sh", world.write("victim", "untouched\n")
    shell.rename(world.base / "shell")
    shell.symlink_to(world.base / "shell")
    with world.begin("tiny") as session:  # /bin/true, which is of this machine, was looked at
        assert not Path(session.location + str(emulator)).exists()
    shell.unlink()
    (world.base / "shell").rename(shell)
    inside = Path(f"{foreign}{emulator}")
    inside.parent.mkdir(parents=True)
    inside.symlink_to(victim)
    with world.begin("tiny") as session:
        bound = [target for target, _fstype, _root in mounts() if target.endswith("/victim")]
        assert bound == [f"{session.location}{victim}"]
    assert victim.read_text() == "untouched\n"
    assert inside.is_symlink()
    assert not os.path.lexists(f"{foreign}{victim}")


def test_what_is_no_file_is_not_opened(world: World, emulator: Path, foreign: Path, register: Register) -> None:
    """A link in a program's place may lead to a device that does something when it is opened, such as a watchdog."""
    register(emulator)
    (foreign / "bin/sh").unlink()
    os.mkfifo(foreign / "bin/sh")
    world.define("original", union_type="none")
    events = syscall.inotify()
    try:
        syscall.inotify_add_watch(events, str(foreign / "bin/sh"), IN_OPEN)
        with world.begin("original"):
            pass
        with pytest.raises(BlockingIOError):
            os.read(events, 4096)
    finally:
        os.close(events)


def test_what_the_kernel_says_is_read_as_it_is_meant() -> None:
    text = "enabled\ninterpreter /usr/bin/x y\nflags: POCF\noffset 4\nmagic 7f45\nmask fff0\n"
    found = binfmt.parse(text, 1)
    assert found == binfmt.Registration("/usr/bin/x y", "POCF", 4, b"\x7f\x45", b"\xff\xf0", 1)
    assert found.is_preloaded
    assert found.matches(b"....\x7f\x4f")
    assert not found.matches(b"....\x7f\x5f")
    assert not found.matches(b"....\x7f")
    assert binfmt.parse("disabled\ninterpreter /x\nflags: \noffset 0\nmagic 7f\n", 1) is None
    assert binfmt.parse("enabled\ninterpreter /x\nflags: \nextension .exe\n", 1) is None
    assert binfmt.parse("", 1) is None
