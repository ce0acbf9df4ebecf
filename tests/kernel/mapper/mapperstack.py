"""Volumes for tests of stacks: encrypted ones, arrays and logical volumes, closed again once they are made."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conftest import Attach
from helpers import World
from lvmgroup import lvm, run

PASSWORD = "correct horse, battery staple"
WRONG = "wrong horse"
# The least that makes an encrypted volume: 16 MB are its head.
LUKS_MB, MB = 24, 8


@dataclass
class Stack:
    """The volumes of a chroot, from the lowest to the topmost, and the file that holds the key."""

    world: World
    attach: Attach
    tables: list[dict[str, Any]] = field(default_factory=list)
    top: str = ""
    """The device that was made last."""

    @property
    def key_file(self) -> Path:
        return self.world.base / "key"

    def name(self, what: str) -> str:
        """A name that no other test of this machine uses."""
        return f"sessions{os.getpid()}{what}{len(self.tables)}"

    def on(self, device: str) -> Stack:
        """What is made next is made on that."""
        self.top = device
        return self

    def luks(self, device: str = "", *, size_mb: int = LUKS_MB, version: int = 2, asked: bool = False) -> Stack:
        """An encrypted volume on what was made last; `asked`, its password is asked for."""
        self.key_file.write_text(PASSWORD)
        self.key_file.chmod(0o600)
        device, name = device or self.top or self.attach(size_mb), self.name("luks")
        form = ["--type", f"luks{version}", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--batch-mode"]
        run("cryptsetup", "luksFormat", *form, "--key-file", str(self.key_file), device)
        run("cryptsetup", "open", "--key-file", str(self.key_file), device, name)
        self.tables.append({"kind": "luks", "device": device, "name": name})
        if not asked:
            self.tables[-1]["key-file"] = str(self.key_file)
        self.top = f"/dev/mapper/{name}"
        return self

    def raid(self, members: Sequence[str], *, degraded: bool = False) -> Stack:
        """An array of two that are alike."""
        device = f"/dev/md/{self.name('raid')}"
        form = ["--run", "--level=1", f"--raid-devices={len(members)}", "--metadata=1.2", "--bitmap=none"]
        run("mdadm", "--create", device, *form, "--assume-clean", *members)
        self.tables.append({"kind": "raid", "device": device, "members": list(members), "degraded": degraded})
        self.top = device
        return self

    def lvm(self) -> Stack:
        """A logical volume that is all of a group on what was made last."""
        group = self.name("group")
        lvm("vgcreate", "--quiet", group, self.top)
        lvm("lvcreate", "-y", "--extents", "100%FREE", "--name", "root-1", group)
        self.tables.append({"kind": "lvm", "volume-group": group, "logical-volume": "root-1"})
        self.top = f"/dev/{group}/root-1"
        return self

    def fill(self) -> Stack:
        """The tiny chroot in a file system on what was made last."""
        run("mkfs.ext4", "-q", "-O", "^has_journal", "-d", str(self.world.root), self.top)
        return self

    def define(self, name: str = "stacked", **settings: object) -> str:
        """A chroot of what was made last."""
        usual: dict[str, object] = {"type": "block-device", "device": self.top, "profile": ""}
        usual |= {"directory": None, "union_type": "none", "volumes": self.tables}
        return self.world.define(name, **{**usual, **settings})

    def close(self, first: int = 0) -> Stack:
        """Close all volumes, or those from `first` on, the topmost first."""
        for table in reversed(self.tables[first:]):
            if table["kind"] == "luks":
                run("cryptsetup", "close", table["name"])
            elif table["kind"] == "raid":
                node = os.path.realpath(table["device"])
                run("mdadm", "--stop", node)
                for path in (node, table["device"]):  # which stay where there is no udev
                    Path(path).unlink(missing_ok=True)
            else:
                lvm("lvchange", "--activate", "n", f"{table['volume-group']}/{table['logical-volume']}")
        return self

    def wipe(self) -> None:
        """Take away what a test that has failed has left, which is its failure all the same."""
        for table in reversed(self.tables):
            if table["kind"] == "raid":
                argv = ["mdadm", "--stop", table["device"]]
            else:
                argv = ["dmsetup", "remove", "--force", table.get("name") or f"{table['volume-group']}-root--1"]
            subprocess.run(argv, capture_output=True, check=False)

    def open(self) -> Stack:
        """Open all volumes, as an administrator does."""
        for table in self.tables:
            if table["kind"] == "luks":
                run("cryptsetup", "open", "--key-file", str(self.key_file), table["device"], table["name"])
            elif table["kind"] == "raid":
                run("mdadm", "--assemble", "--run", table["device"], *table["members"])
            else:
                lvm("lvchange", "--activate", "y", f"{table['volume-group']}/{table['logical-volume']}")
        return self

