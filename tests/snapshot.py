"""Everything that a session could leave behind, taken down before and after, and what the difference is."""

from __future__ import annotations

import os
import shutil
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sessions.linux import mountinfo, proc


@dataclass(frozen=True)
class Entry:
    """What there is to compare of a file: its type and mode, its owner, and its contents or where it points to."""

    mode: int
    owner: tuple[int, int]
    data: bytes

    def __str__(self) -> str:
        what = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "link"}
        kind = what.get(stat.S_IFMT(self.mode), "special file")
        return f"{kind} {stat.S_IMODE(self.mode):o} of {self.owner[0]}:{self.owner[1]}, {len(self.data)} bytes"


@dataclass(frozen=True)
class Snapshot:
    """Everything a session could leave behind: mounts here and in a peer namespace, files, processes, devices."""

    mounts: Counter[tuple[str, str, str]]
    peer_mounts: Counter[tuple[str, str, str]]
    files: Mapping[str, Entry]
    processes: frozenset[tuple[int, int]]
    devices: frozenset[str]


def differences(
    before: Snapshot,
    after: Snapshot,
    *,
    permanent: frozenset[str] = frozenset(),
    changed: Mapping[str, Entry] | None = None,
) -> list[str]:
    """What is not as it was, a line each.

    Directories in `permanent` may be there or not; a file named in `changed` may be as it says instead.
    """
    found = _extra("mount", before.mounts, after.mounts) + _extra(
        "mount in the peer", before.peer_mounts, after.peer_mounts
    )
    if not any("mount" in line for line in found):
        found += _file_differences(before.files, after.files, permanent, changed or {})
    for pid, _started in sorted(after.processes - before.processes):
        found.append(f"process left: {proc.describe([pid])}")
    found += [f"process gone: {pid}" for pid, _started in before.processes - after.processes]
    found += [f"device left: {name}" for name in after.devices - before.devices]
    return found + [f"device gone: {name}" for name in before.devices - after.devices]


def _extra(what: str, before: Counter[tuple[str, str, str]], after: Counter[tuple[str, str, str]]) -> list[str]:
    return [f"{what} left: {mount}" for mount in (after - before).elements()] + [
        f"{what} gone: {mount}" for mount in (before - after).elements()
    ]


def _file_differences(
    before: Mapping[str, Entry], after: Mapping[str, Entry], permanent: frozenset[str], changed: Mapping[str, Entry]
) -> list[str]:
    found = []
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        is_kept = path in permanent and (old is None or new is None)
        if old != new and not is_kept and (new is None or new != changed.get(path)):
            found.append(f"file {path}: was {old}, is {new}")
    return found


def mounts(pid: str) -> Counter[tuple[str, str, str]]:
    """Target, type and root of each mount; the boot id's is the simulated reboot's."""
    counted: Counter[tuple[str, str, str]] = Counter()
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            first, _dash, last = line.partition(" - ")
            root, target = first.split(" ")[3:5]
            if target != proc.BOOT_ID:
                counted[(mountinfo.unescape(target), last.split(" ")[0], mountinfo.unescape(root))] += 1
    return counted


def files_below(directory: str, covered: set[str], unlisted: set[str]) -> Iterator[tuple[str, Entry]]:
    """Every file below a directory; not what lies below a mount (`covered`), nor what lies in `unlisted`."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.path in covered:
                continue
            if directory not in unlisted:
                yield entry.path, entry_of(entry.path)
            if entry.is_dir(follow_symlinks=False):
                yield from files_below(entry.path, covered, unlisted)


def entry_of(path: str) -> Entry:
    status = os.lstat(path)
    data = b""
    if stat.S_ISREG(status.st_mode):
        data = Path(path).read_bytes()
    elif stat.S_ISLNK(status.st_mode):
        data = os.fsencode(os.readlink(path))
    return Entry(status.st_mode, (status.st_uid, status.st_gid), data)


def loops(base: str) -> Iterator[str]:
    """The files below `base` that have loop devices, with how many; others may come and go meanwhile."""
    found: Counter[str] = Counter()
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing_file = path.read_text().strip()
        except OSError:
            continue
        if backing_file.startswith(f"{base}/"):
            found[backing_file] += 1
    for backing_file, count in found.items():
        yield f"{count} of {backing_file}"


def remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def make(path: str, entry: Entry) -> None:
    if stat.S_ISDIR(entry.mode):
        os.mkdir(path)
    elif stat.S_ISLNK(entry.mode):
        os.symlink(os.fsdecode(entry.data), path)
        return
    else:
        Path(path).write_bytes(entry.data)
    os.chown(path, *entry.owner)
    os.chmod(path, stat.S_IMODE(entry.mode))
