"""Whoever waits at a terminal for an archive to be unpacked sees how far that has come; nobody else does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers import REPOSITORY, World

pytestmark = pytest.mark.usefixtures("read_only_host")
LINE = re.compile(r"unpacking tiny\.tar\.zst +(\d+)% \|[^\r]*\| (\S+) of (\S+), \S+B/s, until \d\d:\d\d:\d\d")


@pytest.fixture(params=[True, False], ids=["cached", "each for itself"])
def archive(world: World, request: pytest.FixtureRequest) -> Path:
    world.profile()
    path = world.base / "tiny.tar.zst"
    subprocess.run(["tar", "--zstd", "-cf", path, "-C", world.root, "."], check=True)
    settings = f"file={path}\narchive-cache={str(request.param).lower()}\nroot-users=root\nprofile=own\n"
    world.write("schroot/schroot.conf", f"[packed]\ntype=file\n{settings}")
    return path


def seen_on(world: World, command: str, words: Sequence[str], *, is_terminal: bool) -> str:
    """What a command writes to its standard error, every change of the line shown at once; it has to succeed."""
    places = world.places
    program = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from sessions.cli import progress, {command}; "
    # However quick it is.
    program += f"progress._DELAY_S = progress._INTERVAL_S = 0; {command}.main()"
    options = [
        f"--config-dir={places.schroot_config_dir}",
        f"--state-dir={places.state_dir}",
        f"--runtime-dir={places.runtime_dir}",
    ]
    ours, theirs = os.openpty() if is_terminal else os.pipe()
    environment = {"PATH": "/usr/bin:/bin", "TERM": "xterm", "NO_COLOR": "1"}
    argv = [sys.executable, "-c", program, *options, *words]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=theirs, env=environment, cwd="/") as process:
        os.close(theirs)
        pieces = []
        while piece := read(ours):
            pieces.append(piece)
        os.close(ours)
    assert process.returncode == 0, pieces
    return b"".join(pieces).decode()


def read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:  # as the end of a terminal is told
        return b""


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("native", ["run", "packed", "--", "/bin/true"]),
        ("schroot", ["-d", "/", "-c", "packed", "--", "/bin/true"]),
    ],
    ids=["sessions", "schroot"],
)
def test_on_a_terminal(world: World, archive: Path, command: str, words: Sequence[str]) -> None:
    seen = seen_on(world, command, words, is_terminal=True)
    lines = LINE.findall(seen)
    assert lines, seen
    # It ends with all of the archive, and then the line is gone.
    assert lines[-1][0] == "100" and lines[-1][1] == lines[-1][2]
    assert [int(line[0]) for line in lines] == sorted(int(line[0]) for line in lines)
    assert seen.rpartition("\r")[0].rpartition("\r")[2].strip() == ""
    assert "\x1b[3" not in seen


@pytest.mark.parametrize(
    ("command", "words", "is_terminal"),
    [
        ("native", ["run", "packed", "--", "/bin/true"], False),
        ("schroot", ["-d", "/", "-c", "packed", "--", "/bin/true"], False),
        ("schroot", ["-q", "-d", "/", "-c", "packed", "--", "/bin/true"], True),
    ],
    ids=["sessions", "schroot", "schroot -q"],
)
def test_nowhere_else(world: World, archive: Path, command: str, words: Sequence[str], is_terminal: bool) -> None:
    assert seen_on(world, command, words, is_terminal=is_terminal) == ""


def test_nothing_is_loaded_for_it_where_nothing_is_unpacked() -> None:
    program = "import sys, sessions.cli.native, sessions.cli.schroot, sessions.lifecycle, sessions.steps.cached; "
    program += "sys.exit(bool({'tqdm', 'sessions.linux.archive'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], check=True)
