"""A device of the kernel's device mapper, made and spoken to as ioctl(2) has it (linux/dm-ioctl.h)."""

from __future__ import annotations

import fcntl
import struct
from pathlib import Path

CONTROL = "/dev/mapper/control"
HEAD = struct.Struct("=3I I I I i I I I Q 128s 129s 7s")
SPEC = struct.Struct("=Q Q i I 16s")
CREATE, RESUME, LOAD, MESSAGE = 3, 6, 9, 14
IOWR, TYPE = 3, 0xFD


def make(name: str, size_sectors: int, target: str, arguments: str) -> str:
    """Make a device of one target, and give its path."""
    reply = _ioctl(CREATE, name)
    spec = SPEC.pack(0, size_sectors, 0, 0, target.encode())
    _ioctl(LOAD, name, spec + arguments.encode() + b"\0", targets=1)
    _ioctl(RESUME, name)
    return f"/dev/dm-{_minor(HEAD.unpack_from(reply)[10])}"


def log_writes(disk: str, log: str) -> str:
    """A device that is `disk`, and keeps a log of each write to it in `log`."""
    size_sectors = int(Path("/sys/class/block", Path(disk).name, "size").read_text())
    return make("logged", size_sectors, "log-writes", f"{disk} {log}")


def mark(text: str) -> None:
    """Put a mark into that log; a message is split at its blanks, so that commas stand for them in the log."""
    _ioctl(MESSAGE, "logged", struct.pack("=Q", 0) + f"mark {text.replace(' ', ',')}".encode() + b"\0")


def _ioctl(command: int, name: str, data: bytes = b"", *, targets: int = 0) -> bytes:
    size_bytes = HEAD.size + len(data)
    head = HEAD.pack(4, 0, 0, size_bytes, HEAD.size, targets, 0, 0, 0, 0, 0, name.encode(), b"", b"")
    buffer = bytearray(head + data)
    with open(CONTROL, "rb") as control:
        fcntl.ioctl(control, IOWR << 30 | HEAD.size << 16 | TYPE << 8 | command, buffer)
    return bytes(buffer)


def _minor(device: int) -> int:
    """As the kernel packs a device's number (huge_encode_dev)."""
    return device & 0xFF | device >> 12 & 0xFFF00
