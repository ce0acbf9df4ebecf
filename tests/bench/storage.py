"""Sessions of chroots that are no directory: images by way of loop devices, and snapshots of btrfs.

The same commands as elsewhere, with chroots of these types; what is made of the tree lies in a file on the disk.
"""

from __future__ import annotations

import statistics
import subprocess
from pathlib import Path
from typing import Any

from tests.bench.contenders import OURS_ALONE, Ground
from tests.bench.worker import NotMeasured, Worker

PROFILE = "minimal"
ROUNDS = 7
PARTS = ("cycle", "begin", "run", "end")
KINDS = ("loopback", "loopback-overlay", "image", "btrfs-snapshot")
PROGRAMS = ("debian", "drop-in", "native")

_MIB = 1 << 20
_BTRFS_MIB = 160
_ROOM_MIB = 64

Times = dict[str, dict[str, list[float]]]


def lay(ground: Ground) -> None:
    """Make the images and the file system, and define the chroots; raises NotMeasured where a program is missing."""
    disks = Path(ground.work, "disks")
    (disks / "btrfs").mkdir(parents=True)
    size_mib = int(_output("du", "-sm", ground.tree).split()[0])
    for name in ("loopback", "loopback-overlay"):
        _make_file(disks / name, 2 * size_mib + _ROOM_MIB)
        _output("mke2fs", "-q", "-t", "ext4", "-d", ground.tree, str(disks / name))
    _output("mksquashfs", ground.tree, str(disks / "image"), "-quiet", "-no-progress")
    _make_file(disks / "pool", 2 * size_mib + _BTRFS_MIB)
    _output("mkfs.btrfs", "-q", str(disks / "pool"))
    _output("mount", "-o", "loop", str(disks / "pool"), str(disks / "btrfs"))
    _output("btrfs", "subvolume", "create", str(disks / "btrfs/source"))
    _output("cp", "-a", f"{ground.tree}/.", str(disks / "btrfs/source"))
    (disks / "btrfs/snapshots").mkdir()
    for name, lines in _definitions(disks).items():
        text = f"[{name}]\n{lines}profile={PROFILE}\nusers=root\nroot-users=root\n"
        Path(ground.configuration, "chroot.d", f"{name}.conf").write_text(text)


def _definitions(disks: Path) -> dict[str, str]:
    return {
        "loopback": f"type=loopback\nfile={disks}/loopback\n",
        "loopback-overlay": f"type=loopback\nfile={disks}/loopback-overlay\nunion-type=overlay\n",
        "image": f"type=image\nfile={disks}/image\nunion-type=overlay\n",
        "btrfs-snapshot": (
            f"type=btrfs-snapshot\nbtrfs-source-subvolume={disks}/btrfs/source\n"
            f"btrfs-snapshot-directory={disks}/btrfs/snapshots\n"
        ),
    }


def _make_file(path: Path, size_mib: int) -> None:
    with open(path, "wb") as file:
        file.truncate(size_mib * _MIB)


def _output(*words: str) -> str:
    try:
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        raise NotMeasured(f"{words[0]} is not installed (btrfs-progs, e2fsprogs, squashfs-tools)") from None
    except subprocess.CalledProcessError as error:
        raise NotMeasured(f"{' '.join(words)}: {error.stderr.strip()}") from None


def measure(workers: dict[str, Worker]) -> tuple[Times, dict[str, str]]:
    """All kinds, each command in turn; the first round does not count. What is missing, and why."""
    found: Times = {kind: {} for kind in KINDS}
    missing: dict[str, str] = {}
    for number in range(ROUNDS + 1):
        for kind in KINDS:
            for name in ("debian", "own"):
                case = f"{name}, {kind}"
                if name not in workers or case in missing or (name == "debian" and kind in OURS_ALONE):
                    continue
                try:
                    times = workers[name].measure(kind)
                except NotMeasured as error:
                    missing[case] = str(error)
                    continue
                for part, value in times.items() if number else ():
                    found[kind].setdefault(part, []).append(value)
    return found, missing


def ratios(found: Times) -> list[dict[str, Any]]:
    """Ours by Debian's schroot, of whole sessions."""
    return [
        {
            "what": f"{program} cycle of {kind} against Debian's",
            "ratio": round(statistics.median(times[f"{program} cycle"]) / statistics.median(times["debian cycle"]), 3),
            "ratio_of_minima": round(min(times[f"{program} cycle"]) / min(times["debian cycle"]), 3),
        }
        for kind, times in found.items()
        for program in ("drop-in", "native")
        if f"{program} cycle" in times and "debian cycle" in times
    ]


def rows(found: Times) -> list[tuple[str, list[list[float]]]]:
    """What is to be printed: a name, and the times of each part."""
    return [
        (f"{kind}, {program}", [times[f"{program} {part}"] for part in PARTS])
        for kind, times in found.items()
        for program in PROGRAMS
        if f"{program} cycle" in times
    ]
