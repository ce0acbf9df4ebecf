"""Logical volumes of LVM: snapshots that carry a tag from the moment they exist, and are removed by name and tag.

The commands are those of lvm2, called as lvm(8) has it. User-level code loads no kernel modules, but LVM's commands do
that on their own: what the kernel lacks is asked for before they are called.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence

from sessions.data import Frozen
from sessions.errors import SessionsError, StepFailed
from sessions.linux import lasting, run

PACKAGE = "lvm2"
SLOW_S = 120.0
"""After how long a command of LVM, which mostly takes some hundredths of a second, is complained of."""

_ENVIRONMENT = {**run.PLAIN_ENVIRONMENT, "LVM_SUPPRESS_FD_WARNINGS": "1"}
# Where nobody answers for udev, LVM must make the nodes in /dev itself, and wait for nobody.
_UDEV = "/run/udev/control"
_WITHOUT_UDEV = ("--config", "activation{udev_rules=0 udev_sync=0}")
_MODULES = "/sys/module"
# The characters of names, in lvm(8).
_DEVICE = re.compile(r"/dev/(?!mapper/|disk/|block/)([a-zA-Z0-9+_.][a-zA-Z0-9+_.-]*)/([a-zA-Z0-9+_.][a-zA-Z0-9+_.-]*)")
_HINTS = (
    ("insufficient free space", "make room in the volume group, or ask for less in lvm-snapshot-options"),
    ("already exists", "take another session name, or remove the volume if nobody needs it"),
    ("specify either size or extents", "give lvm-snapshot-options a --size: only snapshots of thin volumes need none"),
    ("new volumes are not allowed", "make room in the thin pool (lvextend), or remove what nobody needs in it"),
    ("Cannot create new thin volume", "make room in the thin pool (lvextend), or remove what nobody needs in it"),
    ("are reserved", "take another session name"),
)


class Volume(Frozen):
    """A logical volume by its names."""

    group: str
    name: str


class State(Frozen):
    """What LVM says of a volume: whether it can be used now, and, if so, whether it has run full and lost all."""

    is_active: bool
    is_lost: bool


def volume(path: str) -> Volume:
    """The volume of a device named /dev/GROUP/NAME; raises StepFailed for any other."""
    names = _DEVICE.fullmatch(path)
    if not names:
        raise StepFailed(
            f"{path} is not a logical volume's device", hint="name it /dev/GROUP/VOLUME in the chroot's configuration"
        )
    return Volume(*names.groups())


def is_sized(options: Sequence[str]) -> bool:
    """Whether these options of lvcreate(8) ask for a classic snapshot: one with a size. A thin one has none."""
    for word in options:
        name = word.partition("=")[0]
        if word.startswith("--"):
            # Long options may be abbreviated.
            if len(name) > len("--s") and ("--size".startswith(name) or "--extents".startswith(name)):
                return True
        elif word.startswith(("-L", "-l")):
            return True
    return False


def check(origin: str, options: Sequence[str]) -> None:
    """Raise SessionsError unless a snapshot of `origin` can be tried: LVM, its part of the kernel, and the device."""
    lasting.find("lvcreate", package=PACKAGE)
    volume(origin)
    for module in ("dm-mod", "dm-snapshot" if is_sized(options) else "dm-thin-pool"):
        if not os.path.isdir(f"{_MODULES}/{module.replace('-', '_')}"):
            raise StepFailed(f"this kernel has no {module}, which snapshots need", hint=_load(module))
    try:
        status = os.stat(origin)
    except FileNotFoundError:
        hint = f"see lvs; a volume that is not active becomes so by: lvchange --activate y {origin}"
        raise StepFailed(f"{origin}: Failed to stat file: No such file or directory", hint=hint) from None
    if not stat.S_ISBLK(status.st_mode):
        raise StepFailed(f"{origin}: File is not a block device", hint="mend device in the chroot's configuration")


def _load(module: str) -> str:
    return f"load it as root: modprobe {module} (at each boot: a line in /etc/modules-load.d)"


def create_snapshot(origin: str, path: str, tag: str, options: Sequence[str], record: lasting.Record) -> None:
    """Make the snapshot `path` of `origin`, tagged and ready for use; SessionsError, too, if the name is taken."""
    words = ["lvcreate", "--snapshot", "--name", volume(path).name, "--addtag", tag]
    if not _is_given(options, "-k", "--setactivationskip"):
        # Snapshots of thin volumes are not activated otherwise, lvcreate(8).
        words += ["--setactivationskip", "n"]
    call([*words, origin, *options], record)
    _check_node(path, "lvcreate has made")


def _check_node(path: str, what: str) -> None:
    if not os.path.exists(path):
        raise StepFailed(f"{what} {path}, but its device has not come", hint="see whether udev works, and lvs(8)")


def _is_given(options: Sequence[str], short: str, long: str) -> bool:
    names = [word.partition("=")[0] for word in options]
    return any(word.startswith(short) for word in options) or any(
        len(name) > len("--seta") and long.startswith(name) for name in names
    )


def remove(path: str, tag: str, record: lasting.Record) -> None:
    """Remove the volume if there is one with that name and tag; raises SessionsError if it cannot be removed."""
    target = volume(path)
    call(["lvremove", "--force", "--select", _selection(target, tag), target.group], record)


def state(path: str, tag: str) -> State | None:
    """What LVM says of the volume with that name and tag; None if there is none."""
    target = volume(path)
    columns = ["--options", "lv_active,lv_snapshot_invalid", "--separator", ":", "--binary"]
    argv = ["lvs", "--noheadings", *columns, "--select", _selection(target, tag), target.group]
    words = call(argv, lambda pid: None).strip()
    if not words:
        return None
    active, _colon, lost = words.partition(":")
    return State(active.strip() == "1", lost.strip() == "1")


def activate(path: str, record: lasting.Record) -> None:
    """Make the volume ready for use, also one that is passed over at boot.

    A classic snapshot is so together with its origin and all other snapshots of it, which LVM asks about.
    """
    call(["lvchange", "--yes", "--activate", "y", "--ignoreactivationskip", path], record)
    _check_node(path, "lvchange has activated")


def _selection(target: Volume, tag: str) -> str:
    return f'lv_name="{target.name}" && lv_tags="{tag}"'


def call(argv: Sequence[str], record: lasting.Record) -> str:
    """Run a command of LVM; what it prints. Raises SessionsError with its own words, all but warnings."""
    udev = () if os.path.exists(_UDEV) else _WITHOUT_UDEV
    words = [argv[0], *udev, *argv[1:]]
    outcome = lasting.call(words, record, package=PACKAGE, environment=_ENVIRONMENT, timeout_s=SLOW_S)
    if outcome.status == 0:
        return outcome.output.decode(errors="replace")
    said = [line.strip() for line in outcome.complaint.splitlines()]
    said = [line for line in said if not line.startswith(("WARNING", "Run `"))]
    reason = "; ".join(said) or run.ending(outcome.status)
    hint = next((hint for text, hint in _HINTS if text in reason), "")
    raise SessionsError(f"{argv[0]}: {reason}", hint=hint)
