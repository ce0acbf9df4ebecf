"""The host's side of power cuts: the images, the boots, and what is known of each session by the lines of the guest."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import powerlog
from guest import CHECKOUT, Guest, GuestError
from powerkinds import KINDS, LOST_AT_BOOT, VOLUMES

MAIN = Path(__file__).with_name("powermain.py")
PARTS_MB = (160, 32)
VOLUMES_MB = 384
LOG_MB = 4096
LONGEST_S = 300
# A power cut comes so long after some line of the guest, at the longest.
LONGEST_DELAY_S = 0.5
# How often sessions that are there after a boot are used on, and how often one is ended instead of being recovered.
KEPT, ENDED_FIRST = 0.3, 0.2


@dataclass
class Known:
    """What the guest has said of a session: `must` is whether it has to be there after a power cut."""

    kind: str
    must: bool = False
    data: list[str] = field(default_factory=list)


@dataclass
class Expected:
    """What has to be there after a power cut, by all that has been said before it."""

    sessions: dict[str, Known] = field(default_factory=dict)
    lock: str = ""
    """Whether the chroot that is locked now and then is: "locked", "maybe", or empty."""

    def take(self, line: str) -> None:
        """Take a line of the guest into account."""
        match line.split():
            case ["beginning", name, kind]:
                self.sessions[name] = Known(kind)
            case ["begun", name]:
                self.sessions[name].must = True
            case ["synced", name, data]:
                self.sessions[name].data.append(data)
            case ["ending", name]:
                self.sessions[name].must = False
            case ["ended", name]:
                del self.sessions[name]
            case ["sweeping"]:
                # Those that the boot ends are ended from now on.
                for known in self.sessions.values():
                    known.must = known.must and known.kind not in LOST_AT_BOOT
            case ["settled", *names]:
                self.sessions = {name: known for name, known in self.sessions.items() if name in names}
                for known in self.sessions.values():
                    known.must = True
            case ["locking"] | ["unlocking"]:
                self.lock = "maybe"
            case ["locked"]:
                self.lock = "locked"
            case ["unlocked"]:
                self.lock = ""


class Machine:
    """A guest with a disk of its own, on which the power is cut again and again."""

    def __init__(self, work: Path, seed: str, kinds: Sequence[str] = tuple(KINDS)) -> None:
        work.mkdir()
        self.work, self.seed, self.kinds = work, seed, kinds
        self.parts_mb = (*PARTS_MB, VOLUMES_MB) if set(kinds) & set(VOLUMES) else PARTS_MB
        self.disk, self.log, self.pristine = work / "disk", work / "log", work / "pristine"
        self.expected = Expected()
        self.cuts = 0
        self.failures: list[str] = []
        self.blocks_cached = self.blocks_lost = self.checked = 0
        with self.disk.open("xb") as image:
            image.truncate(sum(self.parts_mb) << 20)
        for offset, size_mb in ((0, PARTS_MB[0]), (PARTS_MB[0], PARTS_MB[1])):
            mkfs = ["mkfs.ext4", "-q", "-E", f"offset={offset << 20},nodiscard", self.disk, f"{size_mb}M"]
            subprocess.run(mkfs, check=True)
        self.boot("make")
        copy(self.disk, self.pristine)

    def start(self, action: str, *, has_log: bool = False, rng: random.Random | None = None) -> Guest:
        """Boot, and do what is to be done."""
        must = [name for name, known in self.expected.sessions.items() if known.must]
        job: dict[str, Any] = {
            "action": action,
            "has_log": has_log,
            "parts": [size_mb << 11 for size_mb in self.parts_mb],
            "kinds": list(self.kinds),
            "cut": self.cuts,
            "seed": f"{self.seed} {self.cuts}",
            "sessions": {name: vars(known) for name, known in self.expected.sessions.items()},
            "lock": self.expected.lock,
            "ends_all": rng is None or rng.random() > KEPT,
            "ends_first": rng.sample(must, 1) if rng and must and rng.random() < ENDED_FIRST else [],
        }
        disks = [self.disk]
        if has_log:
            self.log.unlink(missing_ok=True)
            with self.log.open("xb") as image:
                image.truncate(LOG_MB << 20)
            disks.append(self.log)
        guest = Guest(self.work / "guest", disks=disks)
        path = os.pathsep.join(str(CHECKOUT / name) for name in ("", "tests", "tests/crash"))
        guest.start([sys.executable, str(MAIN), json.dumps(job)], env={"PYTHONPATH": path})
        return guest

    def boot(self, action: str) -> None:
        """A boot that ends by itself, after which the disk holds what it is meant to."""
        with self.start(action) as guest:
            outcome = guest.wait(LONGEST_S)
        assert outcome.status == 0, outcome.output
        self._learn(outcome.output, said(outcome.output))

    def cut(self, rng: random.Random, most_lines: int, *, reordered: bool) -> None:
        """Boot, check, work, and cut the power after so many lines at most.

        `reordered`, what was in the disk's cache gets there only in part.
        """
        self.cuts += 1
        before = self.work / "before"
        if reordered:
            copy(self.disk, before)
        try:
            with self.start("work", has_log=reordered, rng=rng) as guest:
                guest.wait_for_lines(rng.randint(1, most_lines), LONGEST_S)
                guest.let_run(rng.random() * LONGEST_DELAY_S)
                output = guest.kill()
        except GuestError as error:
            self._fail([str(error)])
            return
        lines = said(output)
        if reordered:
            entries = powerlog.read(self.log)
            flush = powerlog.choose_flush(entries, "sweeping", rng)
            os.replace(before, self.disk)
            lines, cached, lost = powerlog.cut(self.log, entries, flush, self.disk, rng)
            self.blocks_cached += cached
            self.blocks_lost += lost
        self._learn(output, lines)
        self._check_disk()

    def _learn(self, output: str, lines: list[str]) -> None:
        """Take note of what the guest has said, and of what it complains of."""
        if problems := [json.loads(text) for text in re.findall(r"^#(.*)\n", output, re.MULTILINE)]:
            self._fail(problems)
            return
        for line in lines:
            self.expected.take(line)
            self.checked += len(line.split()[1:]) if line.startswith("settled") else 0

    def _check_disk(self) -> None:
        """The file systems have to be whole once their journals are replayed: else it is the test that is wrong."""
        part, offset_mb = self.work / "part", 0
        for size_mb in PARTS_MB:
            part.unlink(missing_ok=True)
            dd = ["dd", "status=none", "bs=1M", "conv=sparse", f"skip={offset_mb}", f"count={size_mb}"]
            subprocess.run([*dd, f"if={self.disk}", f"of={part}"], check=True)
            os.truncate(part, size_mb << 20)
            offset_mb += size_mb
            for option, worst in (("-p", 1), ("-fn", 0)):
                result = subprocess.run(["e2fsck", option, part], capture_output=True, text=True)
                if result.returncode > worst:
                    self._fail([f"the file system is damaged: {result.stdout}"])
                    return

    def _fail(self, problems: list[str]) -> None:
        """Note what is wrong, and begin anew with a new disk."""
        self.failures.append(f"boot {self.cuts}: " + "\n    ".join(problems))
        copy(self.pristine, self.disk)
        self.expected = Expected()


def said(output: str) -> list[str]:
    """The lines of the guest that have come out whole."""
    return re.findall(r"^@(.*)\n", output, re.MULTILINE)


def copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--sparse=always", source, target], check=True)
