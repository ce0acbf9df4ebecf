"""The machine that the power is cut of: its disk with two file systems, its world, and the line it tells us by."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
import termios
import tty
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lvmgroup
import powermapper
import powersecret
import powervolumes
import world as worlds
from crashkinds import SCRIPT
from powerkinds import ALL
from snapshot import Snapshot

import sessions
from sessions import where
from sessions.model import Places

BASE = Path("/var/tmp/world")
PRISTINE = Path("/var/tmp/pristine")  # on a disk that no power cut is tried on
UNITS = Path(sessions.__file__).parents[1] / "etc/systemd"

LOCKED = "services"  # a chroot that nobody has sessions of
# A file of the chroot that commands append to.
NOTES, NOTES_TEXT = "opt/notes", "notes of the original\n"


class Line:
    """The serial line that the host reads; with `has_log`, the log of the disk gets all that is said, too."""

    def __init__(self, *, has_log: bool) -> None:
        self.fd = os.open("/dev/ttyS0", os.O_WRONLY | os.O_NOCTTY)
        self.has_log = has_log
        tty.setraw(self.fd)

    def say(self, *words: str) -> None:
        """Say what has happened or is about to; returns when it is out of the guest."""
        if self.has_log:
            powermapper.mark(" ".join(words))
        self._write(f"@{' '.join(words)}\n")

    def complain(self, problems: list[str]) -> None:
        """Tell what is not as it should be."""
        for problem in problems:
            self._write(f"#{json.dumps(problem)}\n")

    def _write(self, text: str) -> None:
        data = text.encode()
        while data:
            data = data[os.write(self.fd, data) :]
        termios.tcdrain(self.fd)


@dataclass
class Machine:
    """The guest, after its disk has been mounted and before anything of ours runs."""

    job: dict[str, Any]
    line: Line
    world: worlds.World
    before: Snapshot

    @classmethod
    def boot(cls, job: dict[str, Any]) -> Machine:
        device = mount_disk(job)
        world = worlds.World(BASE, worlds.places_in(BASE))
        if device:
            world.backing = powervolumes.Volumes(device)
        has_secret = powersecret.KIND in job["kinds"]
        if has_secret and job["action"] != "make":
            powersecret.attach()
        if job["action"] == "make":
            make_world(world, device, has_secret=has_secret)
        elif device:
            powervolumes.activate()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "run", BASE / "run"], check=True)
        nothing = Snapshot(Counter(), Counter(), {}, frozenset(), frozenset())
        machine = cls(job, Line(has_log=job["has_log"]), world, nothing)
        files, devices = pickle.loads(PRISTINE.read_bytes())
        machine.before = replace(machine.snapshot(), files=files, devices=devices)
        return machine

    def places(self, kind: str) -> Places:
        return where.changed(self.world.places, config_dir=str(BASE / ALL[kind][1]))

    def sessions(self, *words: str, kind: str = "overlay") -> str:
        """Run the command, which has to succeed; all it prints."""
        status, said = self.try_sessions(*words, kind=kind)
        assert status == 0, f"{words} ended with {status}: {said}"
        return said

    def try_sessions(self, *words: str, kind: str = "overlay") -> tuple[int, str]:
        places = self.places(kind)
        options = ["--config-dir", places.native_config_dir, "--state-dir", places.state_dir]
        options += ["--runtime-dir", places.runtime_dir]
        result = subprocess.run(
            [sys.executable, "-c", "from sessions.cli.native import main; main()", *options, *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        return result.returncode, result.stdout

    def units(self, *names: str) -> tuple[list[str], str]:
        """Do what the units do, one after the other: what failed, and all that is printed."""
        failed, said = [], ""
        for words in (words for name in names for words in started_by(name)):
            status, printed = self.try_sessions(*words)
            failed += [f"{words} ended with {status}"] if status else []
            said += printed
        return failed, said

    def snapshot(self) -> Snapshot:
        """Mounts, files, volumes and loop devices; the kernel's own processes come and go."""
        return replace(self.world.snapshot(), processes=frozenset())


def started_by(unit: str) -> Iterator[list[str]]:
    """The arguments of ``sessions`` in each ExecStart of a unit."""
    for text in (UNITS / unit).read_text().splitlines():
        if text.startswith("ExecStart="):
            program, *words = text.removeprefix("ExecStart=").removeprefix("-").split()
            assert program == "/usr/bin/sessions", text
            yield words


def data_of(session_id: str, name: str) -> bytes:
    """What a command writes under that name."""
    if name.startswith("note"):
        return f"{session_id} {name}\n".encode()
    rng = random.Random(f"{session_id} {name}")
    return rng.randbytes(rng.choice((100, 4096, 100_000)))


def mount_disk(job: dict[str, Any]) -> str:
    """Mount the file systems of the disk; the second is for the layers that are to be elsewhere.

    The third part, if there is one, is for logical volumes: its device.
    """
    device = powermapper.log_writes("/dev/ubdb", "/dev/ubdc") if job["has_log"] else "/dev/ubdb"
    first, second, *third = job["parts"]
    parts = [
        powermapper.make("first", first, "linear", f"{device} 0"),
        powermapper.make("second", second, "linear", f"{device} {first}"),
    ]
    for part, directory in zip(parts, (BASE, BASE / "elsewhere"), strict=True):
        directory.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "ext4", "-o", "commit=1", part, directory], check=True)
    # What nobody syncs comes to the disk early, so that a power cut finds a part of it there.
    for name in ("dirty_expire_centisecs", "dirty_writeback_centisecs"):
        Path("/proc/sys/vm", name).write_text("30")
    if not third:
        return ""
    lvmgroup.use_own_settings()
    return powermapper.make("third", third[0], "linear", f"{device} {first + second}")


def make_world(world: worlds.World, device: str, *, has_secret: bool) -> None:
    """Chroots, archives and configuration, on a disk that is empty; all that is there is noted down."""
    volumes = powervolumes.CONFIGURATION if device else ""
    volumes += powersecret.CONFIGURATION if has_secret else ""
    for _chroot, config in set(ALL.values()):
        (BASE / config / "setup.d").mkdir(parents=True, exist_ok=True)
        (BASE / config / "sessions.toml").write_text(worlds.CONFIGURATION.format(base=BASE) + volumes)
    script = BASE / "scripted/setup.d/30script"
    script.write_text(SCRIPT.replace("@BASE@", str(BASE)))
    script.chmod(0o755)
    for name in ("outside", "archive", "run"):
        (BASE / name).mkdir()
    worlds.make_chroot(world.chroot)
    (world.chroot / NOTES).parent.mkdir()
    (world.chroot / NOTES).write_text(NOTES_TEXT)
    subprocess.run(["tar", "-czf", world.archive, "-C", world.chroot, "."], check=True)
    if device:
        lvmgroup.Group.make_on(powervolumes.GROUP, device, world.chroot)
    if has_secret:
        powersecret.make(world.chroot)
    made = world.snapshot()
    PRISTINE.write_bytes(pickle.dumps((made.files, made.devices)))
    os.sync()
