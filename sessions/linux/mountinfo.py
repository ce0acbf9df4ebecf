"""The mount table of this process, /proc/self/mountinfo (proc(5)); read only where nothing else will do."""

from __future__ import annotations

import os

from sessions.data import Frozen


class Mount(Frozen):
    """One line of mountinfo, its octal escapes resolved; `propagation` holds words such as "shared:1"."""

    id: int
    parent: int
    device: str
    root: str
    target: str
    options: str
    propagation: str
    fstype: str
    source: str
    super_options: str


def unescape(field: str) -> str:
    r"""Resolve the ``\040`` escapes that the kernel and fstab(5) write for blanks, tabs, newlines and backslashes."""
    if "\\" not in field:
        return field
    parts = field.split("\\")
    text = parts[0]
    for part in parts[1:]:
        code = part[:3]
        if len(code) == 3 and all(digit in "01234567" for digit in code) and int(code, 8) < 256:
            text += os.fsdecode(bytes([int(code, 8)])) + part[3:]
        else:
            text += "\\" + part
    return text


def read(pid: int | str = "self") -> list[Mount]:
    """Every mount that a process sees, in mount order; we, if no other is named."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return [_parse(line) for line in table]


def below(mounts: list[Mount], directory: str) -> list[Mount]:
    """The mounts at `directory` or below it, the last mounted first: the order in which they can be unmounted."""
    prefix = directory.rstrip("/") + "/"
    return [mount for mount in reversed(mounts) if mount.target == directory or mount.target.startswith(prefix)]


def is_on_itself(path: str) -> bool:
    """Whether the uppermost mount at a path (without links) is the directory that is there without it."""
    mounts = read()
    found = next((mount for mount in reversed(mounts) if mount.target == path), None)
    above = next((mount for mount in mounts if found and mount.id == found.parent), None)
    if not found or not above or found.device != above.device:
        return False
    below = path.removeprefix(above.target.rstrip("/"))
    return found.root == (above.root.rstrip("/") + below or "/")


def _parse(line: str) -> Mount:
    first, _dash, last = line.rstrip("\n").partition(" - ")
    number, parent, device, root, target, options, *propagation = first.split(" ")
    fstype, source, super_options = last.split(" ", 2)
    return Mount(
        int(number),
        int(parent),
        device,
        unescape(root),
        unescape(target),
        options,
        " ".join(propagation),
        fstype,
        unescape(source),
        super_options,
    )
