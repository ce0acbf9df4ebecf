"""Which configuration files count, and what is said of those that do not: Debian's schroot 1.6.13 and ours."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from debians import configuration, in_a_world, schroot

TEXT = "[x]\ndirectory=/srv\n"
DIRECTORY = Path("/etc/schroot/chroot.d")


def named(name: str) -> Callable[[], None]:
    return lambda: (DIRECTORY / name).write_text(TEXT) and None  # type: ignore[func-returns-value]


def of_mode(mode: int, uid: int = 0, gid: int = 0) -> Callable[[], None]:
    def make() -> None:
        named("x")()
        os.chown(DIRECTORY / "x", uid, gid)
        (DIRECTORY / "x").chmod(mode)

    return make


def link(target: str) -> Callable[[], None]:
    def make() -> None:
        Path("/srv/file").write_text(TEXT)
        (DIRECTORY / "x").symlink_to(target)

    return make


def file_of_anybody() -> None:
    Path("/srv/file").write_text(TEXT)
    os.chown("/srv/file", 12345, 0)
    (DIRECTORY / "x").symlink_to("/srv/file")


FILES: dict[str, Callable[[], Any]] = {
    **{
        f"named {name[:20]}": named(name)
        for name in (
            *("x", "0x", "X-1", "x.bak", "x.conf", "x.", "x_y", "dpkg-old.x", "dpkg-olds", "x" * 255),
            *(".x", "x~", "_x", "-x", "x y", "x+", "x:y", "x,y", "#x#", "x\n", "ü"),
            *("x.dpkg-old", "x.dpkg-dist", "x.dpkg-new", "x.dpkg-tmp", "xdpkg-old", "x.rpmsave"),
        )
    },
    **{f"mode {mode:o}": of_mode(mode) for mode in (0o644, 0o600, 0o000, 0o664, 0o646, 0o666, 0o622, 0o602, 0o755)},
    "group of somebody": of_mode(0o664, gid=12345),
    "owned by somebody": of_mode(0o644, uid=12345),
    "owned by somebody and writable": of_mode(0o666, uid=12345),
    "a directory": lambda: (DIRECTORY / "x").mkdir(),
    "a fifo": lambda: os.mkfifo(DIRECTORY / "x"),
    "a device": lambda: os.mknod(DIRECTORY / "x", 0o20600, os.makedev(1, 3)),
    "a link": link("/srv/file"),
    "a relative link": link("../../../srv/file"),
    "a dangling link": link("/srv/nothing"),
    "a link to itself": link("x"),
    "a link to a directory": link("/srv"),
    "a link to a file of somebody's": file_of_anybody,
    "an empty file": lambda: (DIRECTORY / "x").touch(),
    "no chroot.d": lambda: DIRECTORY.rmdir(),
    "no schroot.conf": lambda: os.unlink("/etc/schroot/schroot.conf"),
    "schroot.conf of anybody": lambda: os.chown("/etc/schroot/schroot.conf", 12345, 0),
    "schroot.conf writable": lambda: os.chmod("/etc/schroot/schroot.conf", 0o646),
    "schroot.conf is a link": lambda: (
        shutil.move("/etc/schroot/schroot.conf", "/srv/file"),
        os.symlink("/srv/file", "/etc/schroot/schroot.conf"),
    ),
}  # fmt: skip
# schroot wants both to be there; those who have only the native configuration do without.
MAY_BE_MISSING = ("no chroot.d", "no schroot.conf")


def judged() -> dict[str, Any]:
    """For each: what Debian's schroot lists and says, which chroots are usable in ours, and our problems."""
    found = {}
    for name, make in FILES.items():
        for path in (Path("/etc/schroot/schroot.conf"), DIRECTORY):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        DIRECTORY.mkdir()
        Path("/etc/schroot/schroot.conf").write_text("[main]\ndirectory=/srv\n")
        make()
        mine = configuration()
        problems = [(problem.severity, problem.file, problem.reason) for problem in mine.problems]
        found[name] = (schroot("-l", "--all-chroots"), sorted(mine.chroots), problems)
    return found


@pytest.fixture(scope="module")
def judgements(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found: dict[str, Any] = in_a_world(tmp_path_factory.mktemp("files") / "judged", "", judged)
    return found


@pytest.mark.parametrize("name", [name for name in FILES if name not in MAY_BE_MISSING])
def test_the_same_files_count(name: str, judgements: dict[str, Any]) -> None:
    (status, listed, errors), chroots, problems = judgements[name]
    messages = errors.splitlines()
    assert len(problems) == len(messages)
    for (severity, file, reason), message in zip(problems, messages, strict=True):
        assert message[0] == {"error": "E", "warning": "W"}[severity]
        assert message[3:] == f"{file}: {reason}"
    if status == 0:
        assert [f"chroot:{name}" for name in chroots] == listed.splitlines()
    else:  # schroot stops at the first, and what is in the other files stays usable here
        assert len(chroots) == (0 if "schroot.conf" in name else 1)


@pytest.mark.parametrize("name", MAY_BE_MISSING)
def test_what_may_be_missing(name: str, judgements: dict[str, Any]) -> None:
    (status, _listed, errors), chroots, problems = judgements[name]
    assert (status, "Failed to stat file" in errors or "Failed to open directory" in errors) == (1, True)
    assert (chroots, problems) == (["main"] if name == "no chroot.d" else [], [])
