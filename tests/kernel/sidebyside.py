"""The same command lines through Debian's schroot and through ours, each in a world of its own at the same paths."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers import REPOSITORY, Fork, bind, enter_private_namespace, fork, make_chroot, mount

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OPTIONS = "--config-dir=/etc/schroot --state-dir=/var/lib/schroot/ours --runtime-dir=/run/schroot"
_CODE = f"import sys; sys.path.insert(0, '{REPOSITORY}'); from sessions.cli.schroot import main; main()"
Result = tuple[int, str, str]


@dataclass(frozen=True)
class Sides:
    """The configuration of both, below `base`: /etc/schroot as Debian ships it, and the chroot `root`, new each time.

    What the lines write to `out` is each side's own.
    """

    base: Path

    @classmethod
    def make(cls, base: Path, configuration: str) -> Sides:
        sides = cls(base)
        make_chroot(base / "archive")
        subprocess.run(["tar", "-cf", base / "root.tar", "-C", base / "archive", "."], check=True)
        for directory in ("root", "out", "debian", "ours", "bin"):
            (base / directory).mkdir()
        shutil.copytree("/etc/schroot", sides.etc)
        (sides.etc / "schroot.conf").write_text(configuration.format(base=base))
        command = base / "bin/schroot"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{_CODE}" {_OPTIONS} "$@"\n')
        command.chmod(0o755)
        return sides

    @property
    def etc(self) -> Path:
        """What both see as /etc/schroot."""
        return self.base / "schroot"

    def script(self, name: str, text: str) -> None:
        """A setup script of the administrator's."""
        path = self.etc / "setup.d" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self, lines: Sequence[str], *, ours: bool) -> list[Result]:
        """What became of each line: status, output and messages, without what has to differ."""
        side = self.base / ("ours" if ours else "debian")
        found = side.with_suffix(".json")

        def work(_it: Fork) -> None:
            enter_private_namespace()
            bind(self.etc, "/etc/schroot")
            bind(side, self.base / "out")
            for target in ("/run", "/var/lib/schroot", f"{self.base}/root"):
                mount("none", target, "tmpfs")
            make_chroot(self.base / "root")
            for directory in ("lock", "schroot/mount"):
                os.makedirs(f"/run/{directory}")
            for directory in ("session", "unpack", "union/overlay", "union/underlay"):
                os.makedirs(f"/var/lib/schroot/{directory}")
            found.write_text(json.dumps([self._one(line, ours) for line in lines]))

        process = fork(work)
        complaint = process.ask()
        assert process.wait() == 0, complaint
        return [(status, output, errors) for status, output, errors in json.loads(found.read_text())]

    def _one(self, line: str, ours: bool) -> Result:
        path = f"{self.base}/bin:{SYSTEM_PATH}" if ours else SYSTEM_PATH
        environment = {"PATH": path, "HOME": "/root", "LANG": "C.UTF-8", "SHELL": "/bin/sh", "TERM": "dumb"}
        argv = ["/bin/sh", "-c", line.replace("{base}", str(self.base))]
        result = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, cwd="/", env=environment, timeout=60
        )
        return result.returncode, masked(result.stdout.decode()), masked(result.stderr.decode())


def masked(text: str) -> str:
    """The text without what has to differ: made-up names, and where things are kept."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", text)
    text = re.sub(r"(/var)?/run/schroot/mount", "MOUNT", text)
    return text.replace("/var/lib/schroot/ours/", "/var/lib/schroot/")
