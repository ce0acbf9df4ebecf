"""The state of the world for a person: what every process waits for, and who holds which lock."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from world import World


def look(world: World) -> str:
    """Every process of this pid namespace, with the stack of each of its threads, and the locks."""
    pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    return "\n".join([*(line for pid in pids for line in _process(pid)), *_locks(world), *_records(world)])


def _process(pid: int) -> Iterator[str]:
    command = _text(f"/proc/{pid}/cmdline").replace("\0", " ")[-300:]
    status = dict(line.split(":\t", 1) for line in _text(f"/proc/{pid}/status").splitlines() if ":\t" in line)
    yield f"{pid} (of {status.get('PPid')}, {status.get('State')}): {command}"
    for task in _names(f"/proc/{pid}/task"):
        stack = " < ".join(line.split("] ")[-1] for line in _text(f"/proc/{pid}/task/{task}/stack").splitlines())
        yield f"    {_text(f'/proc/{pid}/task/{task}/wchan')}: {stack}"
    for number in _names(f"/proc/{pid}/fd"):
        try:
            yield f"    {number} -> {os.readlink(f'/proc/{pid}/fd/{number}')}"
        except OSError:
            continue


def _locks(world: World) -> Iterator[str]:
    """/proc/locks, with the names of the files that are ours."""
    names = {}
    for directory in (world.places.lock_dir, world.places.journal_dir, world.places.mount_dir):
        for path in [directory, *(f"{directory}/{name}" for name in _names(directory))]:
            try:
                names[os.stat(path).st_ino] = path
            except OSError:
                continue
    for line in _text("/proc/locks").splitlines():
        inode = line.split()[-3].rpartition(":")[2]
        if int(inode) in names:
            yield f"lock {line}: {names[int(inode)]}"


def _records(world: World) -> Iterator[str]:
    for directory in (world.places.journal_dir, world.places.waiting_dir, world.places.maintenance_dir):
        for name in _names(directory):
            yield f"{directory}/{name}"


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError as error:
        return f"({error.strerror})"
