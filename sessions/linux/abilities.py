"""What the running kernel can do for volumes, as it says without being asked to do it.

Asked to do what it cannot, the kernel, or the program that asks, would load a module. That is the administrator's
business: what is missing is named, with the command that loads it.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import sys

from sessions.errors import StepFailed
from sessions.linux import files

MISC, MDSTAT, CRYPTO, MODULES = "/proc/misc", "/proc/mdstat", "/proc/crypto", "/proc/modules"
BUILT_IN = f"/lib/modules/{os.uname().release}/modules.builtin"
CONTROL = "/dev/mapper/control"
# A mode that the kernel makes from another.
_MADE_FROM = {"xts": ("ecb",)}
# linux/dm-ioctl.h: struct dm_ioctl, and DM_LIST_VERSIONS, which gives targets without loading any.
_HEAD = struct.Struct("=3I I I I i I I I Q 128s 129s 7s")
_LIST_VERSIONS = 3 << 30 | _HEAD.size << 16 | 0xFD << 8 | 13
_BUFFER_BYTES = 16384


def _lacks(what: str, module: str) -> StepFailed:
    return StepFailed(f"this kernel has no {what}", hint=f"load it as root: modprobe {module}")


def need_targets(*wanted: str) -> None:
    """Raise StepFailed unless the device mapper is there, with these targets (as ``crypt``)."""
    if not re.search(r" device-mapper$", _text(MISC), re.MULTILINE):
        raise _lacks("device mapper", "dm-mod")
    known = _targets()
    for target in wanted:
        if target not in known:
            raise _lacks(f"target {target} of the device mapper", f"dm-{target}")


def _targets() -> set[str]:
    buffer = bytearray(_BUFFER_BYTES)
    _HEAD.pack_into(buffer, 0, 4, 0, 0, _BUFFER_BYTES, _HEAD.size, 0, 0, 0, 0, 0, 0, b"", b"", b"")
    fd = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _LIST_VERSIONS, buffer)
    finally:
        os.close(fd)
    found, offset = set(), int.from_bytes(buffer[16:20], sys.byteorder)
    while True:
        # struct dm_target_versions: how far the next one is, three numbers, and the name.
        following = int.from_bytes(buffer[offset : offset + 4], sys.byteorder)
        found.add(bytes(buffer[offset + 16 :]).partition(b"\0")[0].decode(errors="replace"))
        if not following:
            return found
        offset += following


def need_raid(level: str = "") -> None:
    """Raise StepFailed unless the md driver is there, with the personality of `level` (``raid1``)."""
    if not os.path.exists(MDSTAT):
        raise _lacks("driver for arrays (md)", "md-mod")
    known = re.findall(r"\[(\w+)\]", _text(MDSTAT).partition("\n")[0])
    if level and level not in known:
        module = "raid456" if level in ("raid4", "raid5", "raid6") else level
        raise _lacks(f"support for arrays of level {level}", module)


def need_cipher(specification: str) -> None:
    """Raise StepFailed if the kernel is known to lack a cipher such as ``aes-xts-plain64``, or its mode.

    Names are listed once they are in use; before that, a mode shows by its module, or by being built in.
    """
    if ":" in specification.partition("-")[0]:
        return  # the kernel's own notation, capi:xts(aes)
    cipher, mode = [*specification.split("-"), ""][:2]
    listed = re.findall(r"^(?:name|driver) +: (.*)$", _text(CRYPTO), re.MULTILINE)
    if f"{mode}({cipher})" in listed:
        return
    modes = [mode, *_MADE_FROM.get(mode, ())] if mode else []
    for word in (cipher, *modes):
        if word not in listed and not any(f"{word}(" in name for name in listed) and not _may_be_there(word):
            raise _lacks(f"{word}, which the cipher {specification} needs", word)


def _may_be_there(module: str) -> bool:
    """Whether a module is loaded, or built in; also where nobody says which ones are."""
    if re.search(rf"^{re.escape(module)}(?:_generic)? ", _text(MODULES), re.MULTILINE):
        return True
    try:
        built_in = files.read_whole(BUILT_IN).decode(errors="replace")
    except OSError:
        return True
    return bool(re.search(rf"/{re.escape(module)}(?:_generic)?\.ko", built_in))


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""
