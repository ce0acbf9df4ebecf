"""Programs of other machines: which interpreter the kernel would use for one (its documentation: binfmt-misc)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache

from sessions.data import Frozen

DIRECTORY = "/proc/sys/fs/binfmt_misc"
# As much of a program as the kernel looks at.
HEAD_BYTES = 256
_CONTROLS = ("register", "status")
# Magic, class and byte order; then, behind what says nothing of the machine, the machine itself (elf(5)).
_ELF_KIND, _ELF_MACHINE = slice(0, 6), slice(18, 20)


class Registration(Frozen):
    """One interpreter that the kernel has been told of, and for which programs."""

    interpreter: str
    flags: str
    offset: int
    magic: bytes
    mask: bytes
    registered_ns: int

    @property
    def is_preloaded(self) -> bool:
        """Whether the kernel has it open already (flag F), so that it need not be there inside a chroot."""
        return "F" in self.flags

    def matches(self, head: bytes) -> bool:
        """Whether it is for a program that begins so."""
        part = head[self.offset : self.offset + len(self.magic)]
        if len(part) < len(self.magic):
            return False
        mask = self.mask or b"\xff" * len(self.magic)
        return all((found ^ wanted) & bits == 0 for found, wanted, bits in zip(part, self.magic, mask, strict=True))


def is_there() -> bool:
    """Whether the kernel's list of registrations can be seen at all."""
    return os.access(f"{DIRECTORY}/status", os.R_OK)


def is_foreign(head: bytes) -> bool:
    """Whether what begins so is a program (ELF) of another machine than the one that runs us."""
    own = _own_head()
    return head[:4] == own[:4] and (head[_ELF_KIND], head[_ELF_MACHINE]) != (own[_ELF_KIND], own[_ELF_MACHINE])


@cache
def _own_head() -> bytes:
    """How the interpreter begins that we are run by."""
    with open("/proc/self/exe", "rb") as file:
        return file.read(HEAD_BYTES)


def registration_for(head: bytes) -> Registration | None:
    """The registration that the kernel would use for a program that begins so: the newest of those that match."""
    matching = [found for found in _registrations() if found.matches(head)]
    return max(matching, key=lambda found: found.registered_ns, default=None)


def _registrations() -> Iterator[Registration]:
    """Every one that is in force; none where the file system is not mounted, or switched off."""
    try:
        if _read("status").strip() != "enabled":
            return
        names = os.listdir(DIRECTORY)
    except OSError:
        return
    for name in names:
        if name in _CONTROLS:
            continue
        try:
            registered_ns = os.stat(f"{DIRECTORY}/{name}").st_mtime_ns
            found = parse(_read(name), registered_ns)
        except (OSError, ValueError):
            continue
        if found is not None:
            yield found


def _read(name: str) -> str:
    with open(f"{DIRECTORY}/{name}", encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def parse(text: str, registered_ns: int) -> Registration | None:
    """What a file of the kernel's says; None for one that is disabled, or is about names rather than contents."""
    first, *lines = text.splitlines() or [""]
    values = {name.rstrip(":"): value for name, _blank, value in (line.partition(" ") for line in lines)}
    if first != "enabled" or "magic" not in values:
        return None
    return Registration(
        interpreter=values["interpreter"],
        flags=values.get("flags", ""),
        offset=int(values.get("offset", "0")),
        magic=bytes.fromhex(values["magic"]),
        mask=bytes.fromhex(values.get("mask", "")),
        registered_ns=registered_ns,
    )
