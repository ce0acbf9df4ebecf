"""Encrypted volumes: cryptsetup(8), called so that it asks nobody, and loads nothing into the kernel."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from sessions.errors import StepFailed
from sessions.linux import abilities, devices, lasting, run

_PACKAGE = "cryptsetup-bin"
# RETURN CODES of cryptsetup(8): no permission, which is a bad passphrase.
_WRONG_KEY = 2
# While it opens one, cryptsetup may have a device of this name and its pid (lib/luks2, "temporary-cryptsetup-%d").
_TEMPORARY = "temporary-cryptsetup-"


# A key is made hard to guess by making it slow to try; and a disk may have to be woken up.
_SLOW_S = 300.0


class WrongKey(StepFailed):
    """The password, or what is in the key file, opens none of the volume's key slots."""


def need(device: str) -> None:
    """Raise StepFailed unless `device` holds a volume whose cipher the kernel has."""
    dumped = run.call(["cryptsetup", "luksDump", "--", device], package=_PACKAGE, timeout_s=lasting.LOOK_TIMEOUT_S)
    if dumped.status != 0:
        raise StepFailed(f"{device} is no LUKS volume: {dumped.reason()}", hint="name the device that holds it")
    text = dumped.output.decode(errors="replace")
    second = re.findall(r"^\s+cipher: (\S+)$", text, re.MULTILINE)
    name, mode = (re.search(rf"^Cipher {what}:\s+(\S+)$", text, re.MULTILINE) for what in ("name", "mode"))
    for specification in second or ([f"{name[1]}-{mode[1]}"] if name and mode else []):
        abilities.need_cipher(specification)


def open_volume(device: str, name: str, key_file: str, password: memoryview | None, record: lasting.Record) -> None:
    """Open it as ``/dev/mapper/NAME``, with the password if there is one; raises WrongKey, and StepFailed."""
    argv = ["cryptsetup", "open", "--type", "luks", "--tries", "1", "--disable-external-tokens"]
    stdin_fd = -1
    try:
        if password is not None:
            stdin_fd = _pipe_with(password)
        argv += ["--key-file", "-" if password is not None else key_file, "--", device, name]
        opened = _call(argv, record, stdin_fd=stdin_fd)
    finally:
        if stdin_fd >= 0:
            os.close(stdin_fd)
    if opened.status == _WRONG_KEY:
        if password is not None:
            raise WrongKey(f"the password of {device} is wrong")
        raise WrongKey(f"the key in {key_file} does not open {device}", hint="name the right key file")
    if opened.status != 0:
        raise StepFailed(f"cryptsetup cannot open {device}: {opened.reason()}")


def _pipe_with(data: memoryview) -> int:
    """The end to read from of a pipe that holds `data`, which is less than a pipe takes."""
    reader, writer = os.pipe()
    try:
        os.write(writer, data)
    finally:
        os.close(writer)
    return reader


def close_volume(device: str, name: str, record: lasting.Record) -> None:
    """Close it, whole or half open; raises StepFailed if it is in use. Nothing there is success."""
    for temporary in _temporary(device):
        devices.remove_mapping(temporary, record)
    kernel_name = devices.mapped(name)
    if not kernel_name:
        return
    if devices.is_complete(kernel_name):
        closed = _call(["cryptsetup", "close", "--", name], record)
        if closed.status != 0 and devices.mapped(name):
            raise StepFailed(f"cryptsetup cannot close /dev/mapper/{name}: {closed.reason()}")
    if devices.mapped(name):
        devices.remove_mapping(name, record)


def _temporary(device: str) -> list[str]:
    """What a killed cryptsetup has left on a device; half made, it may be on none yet."""
    source, found = devices.kernel_name(device), []
    for kernel_name, name in devices.all_mapped().items():
        pid = name.removeprefix(_TEMPORARY)
        is_dead = name.startswith(_TEMPORARY) and pid.isdecimal() and not os.path.exists(f"/proc/{pid}")
        if is_dead and devices.parts_of(kernel_name) in ([], [source]):
            found.append(name)
    return found


def _call(argv: Sequence[str], record: lasting.Record, *, stdin_fd: int = -1) -> run.Outcome:
    return lasting.call(
        argv, record, package=_PACKAGE, environment=run.PLAIN_ENVIRONMENT, timeout_s=_SLOW_S, stdin_fd=stdin_fd
    )
