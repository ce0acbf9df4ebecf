"""A stack of volumes in the world of a test."""

from __future__ import annotations

import os

import volumestack
from conftest import Attach
from helpers import World
from volumestack import LUKS_MB, PASSWORD

__all__ = ["LUKS_MB", "PASSWORD", "WRONG", "Stack"]

WRONG = "wrong horse"


class Stack(volumestack.Stack):
    """One that holds the world's tiny chroot."""

    def __init__(self, world: World, attach: Attach) -> None:
        super().__init__(world.root, world.base / "key", f"sessions{os.getpid()}", attach)
        self.world = world

    def define(self, name: str = "stacked", **settings: object) -> str:
        """A chroot of what was made last."""
        usual: dict[str, object] = {"type": "block-device", "device": self.top, "profile": ""}
        usual |= {"directory": None, "union_type": "none", "volumes": self.tables}
        return self.world.define(name, **{**usual, **settings})
