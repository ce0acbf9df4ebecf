"""Volumes that lie on one another: encrypted ones, arrays and logical volumes, made for tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from lvmgroup import lvm, run

PASSWORD = "correct horse, battery staple"
# The least that makes an encrypted volume: 16 MB are its head.
LUKS_MB = 24


def toml(value: object) -> str:
    """A value as TOML has it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value)


@dataclass
class Stack:
    """Volumes, from the lowest to the topmost; `tree` is what is put on it, `attach` gives a device of so many MB."""

    tree: Path
    key_file: Path
    prefix: str
    """Of all names: nobody else on this machine uses it."""
    attach: Callable[[int], str]
    tables: list[dict[str, Any]] = field(default_factory=list)
    """What sessions.toml says of the volumes."""
    top: str = ""
    """The device that was made last."""

    def name(self, what: str) -> str:
        """A name for the next volume."""
        return f"{self.prefix}{what}{len(self.tables)}"

    def on(self, device: str) -> Self:
        """What is made next is made on that."""
        self.top = device
        return self

    def luks(self, device: str = "", *, size_mb: int = LUKS_MB, version: int = 2, asked: bool = False) -> Self:
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

    def raid(self, members: Sequence[str], *, degraded: bool = False) -> Self:
        """An array of two that are alike."""
        device = f"/dev/md/{self.name('raid')}"
        form = ["--run", "--level=1", f"--raid-devices={len(members)}", "--metadata=1.2", "--bitmap=none"]
        run("mdadm", "--create", device, *form, "--assume-clean", *members)
        self.tables.append({"kind": "raid", "device": device, "members": list(members), "degraded": degraded})
        self.top = device
        return self

    def lvm(self) -> Self:
        """A logical volume that is all of a group on what was made last."""
        group = self.name("group")
        lvm("vgcreate", "--quiet", group, self.top)
        lvm("lvcreate", "-y", "--extents", "100%FREE", "--name", "root-1", group)
        self.tables.append({"kind": "lvm", "volume-group": group, "logical-volume": "root-1"})
        self.top = f"/dev/{group}/root-1"
        return self

    def fill(self) -> Self:
        """The tiny chroot in a file system on what was made last."""
        run("mkfs.ext4", "-q", "-O", "^has_journal", "-d", str(self.tree), self.top)
        return self

    def close(self, first: int = 0) -> Self:
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
        """Close by force whatever is open, whole or half, and remove what has led to it."""
        for table in reversed(self.tables):
            if table["kind"] == "raid":
                for holder in Path("/sys/block", Path(table["members"][0]).name, "holders").iterdir():
                    subprocess.run(["mdadm", "--stop", f"/dev/{holder.name}"], capture_output=True, check=False)
                    Path("/dev", holder.name).unlink(missing_ok=True)
                Path(table["device"]).unlink(missing_ok=True)
                continue
            group = table.get("volume-group", "")
            name = f"{group}-root--1" if group else table["name"]
            subprocess.run(["dmsetup", "remove", "--force", "--retry", name], capture_output=True, check=False)
            Path("/dev/mapper", name).unlink(missing_ok=True)
            if group:
                shutil.rmtree(f"/dev/{group}", ignore_errors=True)

    def open(self) -> Self:
        """Open all volumes, as an administrator does."""
        for table in self.tables:
            if table["kind"] == "luks":
                run("cryptsetup", "open", "--key-file", str(self.key_file), table["device"], table["name"])
            elif table["kind"] == "raid":
                run("mdadm", "--assemble", "--run", table["device"], *table["members"])
            else:
                lvm("lvchange", "--activate", "y", f"{table['volume-group']}/{table['logical-volume']}")
        return self
