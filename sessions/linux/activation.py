"""Activation of logical volumes: lvs(8) and lvchange(8)."""

from __future__ import annotations

from sessions.errors import SessionsError
from sessions.linux import abilities, devices, lasting, run, volumes

# What kinds of volumes need of the device mapper, by the beginning of their names; all others it has itself.
_TARGETS = {
    "thin": ("thin-pool", "thin"),
    "cache": ("cache",),
    "writecache": ("writecache",),
    "snapshot": ("snapshot",),
    "mirror": ("mirror",),
    "raid": ("raid",),
    "vdo": ("vdo",),
}


def mapped_name(volume_group: str, logical_volume: str) -> str:
    """What the device mapper calls a logical volume: hyphens in a name are doubled."""
    return f"{volume_group.replace('-', '--')}-{logical_volume.replace('-', '--')}"


def is_whole(volume: str) -> bool:
    """Whether LVM finds the volume ``GROUP/VOLUME`` with all devices that it lies on."""
    try:
        listed = volumes.call(["lvs", "--noheadings", "--options", "lv_attr", volume], lambda pid: None)
    except run.ProgramMissing:
        raise
    except SessionsError:
        return False
    # The ninth attribute is p where a part is missing (lvs(8)).
    return listed.strip()[8:9] != "p"


def need(volume: str) -> None:
    """Raise StepFailed unless the device mapper has what this kind of volume needs."""
    kinds = volumes.call(["lvs", "--noheadings", "--options", "segtype", volume], lambda pid: None)
    for kind in set(kinds.split()):
        abilities.need_targets(*next((targets for start, targets in _TARGETS.items() if kind.startswith(start)), ()))


def activate(volume: str, record: lasting.Record) -> None:
    """Activate it, also one that is passed over at boot; raises SessionsError."""
    volumes.call(["lvchange", "--yes", "--activate", "y", "--ignoreactivationskip", volume], record)


def deactivate(volume: str, mapped: str, record: lasting.Record) -> None:
    """Deactivate it; raises SessionsError if it is in use. Nothing there is success."""
    if not devices.mapped(mapped):
        return
    try:
        volumes.call(["lvchange", "--activate", "n", volume], record)
    except SessionsError:
        if devices.mapped(mapped) and devices.is_complete(devices.mapped(mapped)):
            raise
    if devices.mapped(mapped):
        devices.remove_mapping(mapped, record)
