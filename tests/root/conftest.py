"""Tests with a whole Debian: each in a mount namespace and places of its own, in which it must leave nothing."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import debian
import pytest
from debian import BUILDER, Debian, Times

from sessions import archivecache, where
from sessions.linux import proc
from sessions.model import Places

CLONE_NEWNS = 0x20000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
LIBC = ctypes.CDLL(None, use_errno=True)

BUILD_DIRECTORY = "/var/lib/sbuild/build"
# The directories of ours that may stay, empty, when no session is left.
KEPT = {
    "lib", "lib/archives", "lib/maintenance", "lib/sessions", "lib/union", "lib/union/overlay", "lib/unpack",
    "run", "run/events", "run/events/log", "run/events/log.1", "run/locks", "run/mount", "run/waiting",
}  # fmt: skip


def _checked(result: int, what: str) -> None:
    if result != 0:
        reason = os.strerror(ctypes.get_errno())
        pytest.fail(f"cannot {what}: {reason}; these tests mount file systems, which needs CAP_SYS_ADMIN")


@pytest.fixture(scope="session")
def original() -> Iterator[Debian]:
    """The Debian that all tests share, and none may change."""
    with debian.cached() as found:
        yield found


@pytest.fixture
def private_mounts(disk: Path) -> Iterator[None]:
    """The test is in a mount namespace of its own; `disk` is removed outside of it, where no mount can be left."""
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _checked(LIBC.unshare(CLONE_NEWNS), "unshare the mount namespace")
        _checked(LIBC.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None), "make mounts private")
        yield
    finally:
        _checked(LIBC.setns(home, CLONE_NEWNS), "go back to the mount namespace of before")
        # To enter a namespace is to stand in its root.
        os.fchdir(directory)
        os.close(directory)
        os.close(home)


@pytest.fixture
def places(disk: Path, private_mounts: None) -> Iterator[Places]:
    """Places of the test's own, with profiles that build in a directory of its own, in which nothing may be left."""
    build = disk / "build"
    build.mkdir(mode=0o755)
    builder = pwd.getpwnam(BUILDER)
    os.chown(build, builder.pw_uid, builder.pw_gid)
    made = where.changed(
        where.usual_places(), config_dir=f"{disk}/etc", state_dir=f"{disk}/lib", runtime_dir=f"{disk}/run"
    )
    for profile in ("sbuild", "buildd"):
        fstab = Path(made.stock_etc_dir, profile, "fstab").read_text()
        assert BUILD_DIRECTORY in fstab
        (disk / "etc" / profile).mkdir(parents=True)
        (disk / "etc" / profile / "fstab").write_text(fstab.replace(BUILD_DIRECTORY, f"{build}"))
    mounts, descriptors = _mounts(), os.listdir("/proc/self/fd")
    yield made
    assert _mounts() == mounts
    assert os.listdir("/proc/self/fd") == descriptors
    # Everything that was started in the sessions is in this namespace, wherever else it has gone.
    assert proc.in_mount_namespace(proc.mount_namespace() or 0) == [os.getpid()]
    # What is whole in the cache of archives is there to stay.
    for entry in archivecache.entries(made):
        shutil.rmtree(entry.path)
    left = {f"{path.relative_to(disk)}" for name in ("lib", "run") for path in (disk / name, *(disk / name).rglob("*"))}
    assert left - KEPT == set()
    assert list(build.iterdir()) == []


def _mounts() -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


@pytest.fixture
def times(request: pytest.FixtureRequest, tell: Callable[[str], None]) -> Iterator[Times]:
    """Takes the times of a test, and tells them at the end of the run."""
    taken = Times()
    yield taken
    tell(f"{request.node.name}: {taken}")
