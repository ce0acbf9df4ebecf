"""What tests of sessions of logical volumes share."""

from __future__ import annotations

import pytest
from helpers import World
from lvmgroup import KINDS, Group

both = pytest.mark.parametrize("kind", KINDS)


def define(world: World, group: Group, volume: str, name: str = "volume", **more: object) -> str:
    """A chroot of snapshots of a volume."""
    usual = {"type": "lvm-snapshot", "device": group.path(volume), "lvm_snapshot_options": KINDS.get(volume)}
    usual |= dict.fromkeys(("directory", "union_type", "union_overlay_storage"))
    return world.define(name, **{**usual, **more})
