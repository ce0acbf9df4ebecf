"""Arrays of the kernel's md driver: mdadm(8), called so that no array is started that lacks a member unasked."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress

from sessions.errors import StepFailed
from sessions.linux import abilities, devices, lasting, run

_PACKAGE = "mdadm"
# A disk may have to be woken up.
_SLOW_S = 120.0
_UDEV = "/run/udev/control"
# No array is described anywhere but by its members.
_OWN_CONFIG = ("--config", "none")


def need(members: Sequence[str]) -> None:
    """Raise StepFailed unless these are members of an array of a level that the kernel has."""
    for member in members:
        examined = run.call(
            ["mdadm", "--examine", "--export", member], package=_PACKAGE, timeout_s=lasting.LOOK_TIMEOUT_S
        )
        level = re.search(r"^MD_LEVEL=(\S+)$", examined.output.decode(errors="replace"), re.MULTILINE)
        if examined.status != 0 or not level:
            reason = examined.reason() if examined.status else "it says no level"
            raise StepFailed(f"{member} is no member of an array: {reason}", hint="name the devices that are")
        abilities.need_raid(level[1])


def found(device: str, members: Sequence[str]) -> str:
    """The kernel's name of the array, started or not; empty if there is none, or only an empty one without members.

    Such a one is what is left of one that was stopped a moment ago, and what the kernel makes for who opens its node.
    """
    name = devices.kernel_name(device)
    if name.startswith("md") and not _is_empty(name):
        return name
    for member in members:
        for holder in devices.made_from(devices.kernel_name(member)):
            if holder.startswith("md"):
                return holder
    return ""


def start(device: str, members: Sequence[str], *, degraded: bool, record: lasting.Record) -> None:
    """Start the array of these members; with `degraded`, also without those it lacks. Raises StepFailed."""
    _forget_node(device)  # mdadm would open it, and find an empty array there
    # Nothing is written to the members before it is known whether one is missing.
    options = ["--readonly", *(["--run"] if degraded else [])]
    argv = ["mdadm", "--assemble", *_OWN_CONFIG, *options, device, *members]
    started = _call(argv, record)
    name = found(device, members)
    lacks = devices.attribute(name, "md/degraded") if name else ""
    if name and lacks not in ("", "0") and not degraded:
        raise StepFailed(f"array {device} lacks {lacks} of its members", hint=_MAY_BE_DEGRADED)
    if not name or not devices.is_complete(name):
        raise StepFailed(f"mdadm cannot start array {device}: {_words(started.complaint) or started.reason()}")
    let_write(device, name, record)


_MAY_BE_DEGRADED = "add the missing one, or let it be started without: degraded = true"


def _words(complaint: str) -> str:
    """All that mdadm says, in a line."""
    return "; ".join(line.removeprefix("mdadm: ").strip() for line in complaint.splitlines() if line.strip())


def let_write(device: str, name: str, record: lasting.Record) -> None:
    """Let the array be written to, which is started for reading first."""
    if devices.attribute(name, "md/array_state") in ("readonly", "read-auto"):
        written = _call(["mdadm", "--readwrite", f"/dev/{name}"], record)
        if written.status != 0:
            raise StepFailed(f"mdadm cannot let {device} be written to: {written.reason()}")


def _is_empty(name: str) -> bool:
    return devices.attribute(name, "md/array_state") in ("", "clear")


def stop(device: str, members: Sequence[str], record: lasting.Record) -> None:
    """Stop the array, started or half assembled; raises StepFailed if it is in use. Nothing there is success."""
    name = found(device, members)
    if name:
        stopped = _call(["mdadm", "--stop", f"/dev/{name}"], record)
        if stopped.status != 0 and devices.attribute(name, "dev"):
            raise StepFailed(f"mdadm cannot stop {device}: {_words(stopped.complaint) or stopped.reason()}")
    left = name or devices.kernel_name(device)
    _forget_node(device)
    _clear(left)


def _clear(name: str) -> None:
    """Let the kernel forget an array without members."""
    if devices.attribute(name, "md/array_state") == "clear":
        try:
            with open(f"{devices.SYSFS}/{name}/md/array_state", "w", encoding="ascii") as file:
                file.write("clear")
        except OSError:
            pass  # somebody has it open, or it is gone


def _forget_node(device: str) -> None:
    """Where there is no udev, mdadm makes the node of an array, and a link to it, and leaves them."""
    name = devices.kernel_name(device)
    if os.path.exists(_UDEV) or (name and not _is_empty(name)):
        return
    for path in (os.path.realpath(device), device):
        if path.startswith("/dev/md"):
            with suppress(FileNotFoundError):
                os.unlink(path)


def _call(argv: Sequence[str], record: lasting.Record) -> run.Outcome:
    return lasting.call(argv, record, package=_PACKAGE, environment=run.PLAIN_ENVIRONMENT, timeout_s=_SLOW_S)
