"""Who keeps a device or a dataset busy: mounts in any mount namespace that can be seen from here, open descriptors, and
devices that are made of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

from sessions.linux import mountinfo, proc

_MOST_NAMED = 5


def of_device(path: str) -> str:
    """Who holds the block device at a path, in words; "nobody that can be seen from here" if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return _joined([])
    if not stat.S_ISBLK(status.st_mode):
        return _joined([])
    numbers = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    above = [f"{name}, which is made of it" for name in _names_in(f"/sys/dev/block/{numbers}/holders")]
    return _joined([*above, *_mounts(lambda mount: mount.device == numbers), *_descriptors(status.st_rdev)])


def of_source(source: str) -> str:
    """Who has mounted what the mount table calls by this name, such as a dataset, in words."""
    return _joined(list(_mounts(lambda mount: mount.source == source)))


def _joined(found: list[str]) -> str:
    if len(found) > _MOST_NAMED:
        found = [*found[:_MOST_NAMED], f"{len(found) - _MOST_NAMED} more"]
    return "; ".join(found) or "nobody that can be seen from here"


def _names_in(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def _pids() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def _mounts(is_meant: Callable[[mountinfo.Mount], bool]) -> Iterator[str]:
    """Where it is mounted: in our mount namespace, and in that of each process that has another."""
    seen: set[int | None] = set()
    for pid in [os.getpid(), *_pids()]:
        namespace = proc.mount_namespace(pid)
        if namespace in seen:
            continue
        seen.add(namespace)
        try:
            mounts = mountinfo.read(pid)
        except OSError:
            continue
        for target in dict.fromkeys(mount.target for mount in mounts if is_meant(mount)):
            yield f"it is mounted on {target}" + ("" if pid == os.getpid() else f" for {proc.describe([pid])}")


def openers(path: str) -> list[int]:
    """The processes, but for ours, that have the block device at a path open."""
    try:
        device = os.stat(path).st_rdev
    except OSError:
        return []
    return _openers(device)


def _openers(device: int) -> list[int]:
    return [
        pid
        for pid in _pids()
        if pid != os.getpid()
        and any(_is_open(f"/proc/{pid}/fd/{name}", device) for name in _names_in(f"/proc/{pid}/fd"))
    ]


def _descriptors(device: int) -> Iterator[str]:
    """Who has the device itself open."""
    for pid in _openers(device):
        yield f"open in {proc.describe([pid])}"


def _is_open(path: str, device: int) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return stat.S_ISBLK(status.st_mode) and status.st_rdev == device
