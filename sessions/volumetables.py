"""The tables of the key ``volumes``: what has to be opened before a block device is there, each table a volume."""

from __future__ import annotations

import re
from collections.abc import Callable

from sessions import keytypes
from sessions.data import TYPE_CHECKING, Frozen
from sessions.model import Luks, LvmVolume, Raid, Volume

if TYPE_CHECKING:
    from typing import TypeAlias

    Check: TypeAlias = Callable[[str, object], object]

_MOST_VOLUMES = 32
# Names that the device mapper shows as they are, and that no program takes for an option.
_MAPPED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9#+.:=@_-]{0,126}")
_RESERVED = "control"
# lvm(8): letters, digits and +_.-, the first no hyphen.
_LVM = re.compile(r"[A-Za-z0-9+_.][A-Za-z0-9+_.-]{0,126}")
_ARRAY = re.compile(r"/dev/md(?:[0-9]+|/[A-Za-z0-9_][A-Za-z0-9_.:-]*|_[A-Za-z0-9][A-Za-z0-9_.:-]*)")


class _Field(Frozen):
    """One key of a table: its name, what reads it, and whether it may be left out."""

    name: str
    check: Check
    is_optional: bool = False


def accept(value: object) -> tuple[Volume, ...]:
    """The volumes that a TOML value defines; raises ValueError with "REASON; REMEDY"."""
    if not isinstance(value, list):
        raise ValueError(f"wants tables, not {keytypes.kind(value)}; write [[chroot.NAME.volumes]] for each volume")
    if len(value) > _MOST_VOLUMES:
        raise ValueError(f"are {len(value)}, and at most {_MOST_VOLUMES} are opened; name fewer")
    volumes = tuple(_volume(number, table) for number, table in enumerate(value, 1))
    opened = [volume.opens for volume in volumes]
    for device in opened:
        if opened.count(device) > 1:
            raise ValueError(f"two of them open {device}; name each once")
    return volumes


def _volume(number: int, table: object) -> Volume:
    if not isinstance(table, dict):
        raise ValueError(f"number {number} is {keytypes.kind(table)}, not a table; write [[chroot.NAME.volumes]]")
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        known = ", ".join(_KINDS)
        raise ValueError(f"number {number} is of no kind that is known; write kind = one of {known}")
    make, fields = _KINDS[kind]
    if unknown := [name for name in table if name != "kind" and name not in {field.name for field in fields}]:
        known = ", ".join(field.name for field in fields)
        raise ValueError(f"number {number}, {kind}, has no ‘{str(unknown[0])[:80]}’; its keys are {known}")
    values = {}
    for field in fields:
        if field.name in table:
            try:
                values[field.name.replace("-", "_")] = field.check(field.name, table[field.name])
            except ValueError as error:
                raise ValueError(f"number {number}, {kind}: {error}") from None
        elif not field.is_optional:
            raise ValueError(f"number {number}, {kind}, lacks ‘{field.name}’; add it")
    return make(**values)


def _path(name: str, value: object) -> object:
    return keytypes.path(name).accept(value)


def _paths(name: str, value: object) -> object:
    paths = keytypes.PATHS.accept(value)
    if not paths:
        raise ValueError(f"{name} names no device; name all members of the array")
    return paths


def _boolean(_name: str, value: object) -> object:
    return keytypes.BOOLEAN.accept(value)


def _matching(pattern: re.Pattern[str], what: str, example: str) -> Check:
    """What takes text of one form only, which `what` says in words."""

    def check(name: str, value: object) -> object:
        text = keytypes.TEXT.accept(value)
        if not isinstance(text, str) or not pattern.fullmatch(text) or text in (_RESERVED, ".", ".."):
            raise ValueError(f"{name} {text!r} is not {what}; write one such as {example}")
        return text

    return check


_LVM_NAME = _matching(_LVM, "a name of LVM", "vg0")
_KINDS: dict[str, tuple[Callable[..., Volume], tuple[_Field, ...]]] = {
    Luks.kind: (
        Luks,
        (
            _Field("device", _path),
            _Field("name", _matching(_MAPPED, "a name for the device mapper", "secure")),
            _Field("key-file", _path, is_optional=True),
        ),
    ),
    Raid.kind: (
        Raid,
        (
            _Field("device", _matching(_ARRAY, "the device of an array", "/dev/md/data")),
            _Field("members", _paths),
            _Field("degraded", _boolean, is_optional=True),
        ),
    ),
    LvmVolume.kind: (LvmVolume, (_Field("volume-group", _LVM_NAME), _Field("logical-volume", _LVM_NAME))),
}
