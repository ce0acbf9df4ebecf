"""Every kernel test runs in a private mount namespace of its own, and must leave the machine as it found it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import psutil
import pytest
from helpers import (
    MNT_DETACH,
    Fork,
    World,
    bind,
    busy_loop_devices,
    checked,
    enter_private_namespace,
    fork,
    libc,
    mounts,
    umount,
)
from world import leave_the_log_alone

from sessions.linux import mountinfo, syscall

_PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """Compare mounts, processes (orphans become our children), loop devices and open descriptors."""
    enter_private_namespace()
    leave_the_log_alone()
    checked(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "subreaper")
    directory = os.getcwd()
    before = _state()
    try:
        yield
        os.chdir(directory)
        assert _running_children() == []
        after = _state()
        assert (sorted(after - before), sorted(before - after)) == ([], [])
        assert busy_loop_devices(tmp_path) == []
    finally:
        _clean_up(tmp_path)
        os.chdir(directory)
        checked(libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0), "subreaper")


def _clean_up(directory: Path) -> None:
    """After a failure: the next test, whose namespace is a copy of ours, starts without what this one has left."""
    for child in psutil.Process().children(recursive=True):
        child.send_signal(signal.SIGKILL)
    _running_children()
    for mount in mountinfo.below(mountinfo.read(), str(directory)):
        umount(mount.target, MNT_DETACH)


@pytest.fixture
def read_only_host(tmp_path: Path) -> Iterator[None]:
    """All but tmp_path read-only: should what is tested ever find a way out, it costs a test and not the machine."""
    if os.statvfs("/").f_flag & os.ST_RDONLY:
        yield
        return
    bind(tmp_path, tmp_path)
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY)
    syscall.mount_setattr(root_fd, set_=syscall.MOUNT_ATTR_RDONLY)
    try:
        yield
    finally:
        syscall.mount_setattr(root_fd, clear=syscall.MOUNT_ATTR_RDONLY)
        os.close(root_fd)
    os.chdir("/")
    umount(tmp_path)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Places below tmp_path; what is left there after a test is a failure of the test."""
    made = World.make(tmp_path)
    yield made
    assert made.leftovers() == []


@pytest.fixture
def asker(world: World) -> Iterator[Callable[..., Fork]]:
    """Starts a process that wants a session; it says "waiting ...", then "in", and leaves when it is told to."""
    started: list[Fork] = []

    def start(chroot: str, **wishes: object) -> Fork:
        def ask(it: Fork) -> None:
            def say(_letter: str, line: str) -> None:
                it.tell(line)

            with world.begin(chroot, say=say, **wishes):
                it.tell("in")
                it.ask()

        started.append(fork(ask))
        return started[-1]

    yield start
    for asked in started:
        try:
            os.kill(asked.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def _state() -> set[str]:
    """The mounts we see, and our descriptors, in words."""
    mounted = [f"{number} of {target}: {line}" for target, lines in _mounts_by_target() for number, line in lines]
    return {*mounted, *_descriptors()}


def _mounts_by_target() -> Iterator[tuple[str, list[tuple[int, str]]]]:
    for target, group in groupby(mounts(), key=lambda line: line[0]):
        yield target, list(enumerate(map(str, group)))


def _descriptors() -> list[str]:
    """The one of this very look is gone when it is asked for."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(f"descriptor {number}: {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:
            continue
    return found


def _running_children() -> list[str]:
    """Reap those that have ended; the rest, in words."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # or a zombie, which has no command line
            found.append(f"{child.pid} {' '.join(child.cmdline())}")
    return found
