"""One run of a client of schroot, on a machine of its own: with Debian's schroot, or with ours in its place.

A program for namespaces of its own (world.start). It takes a file with what to do, as JSON, and prints what became of
it, as JSON: the status, the output with the messages, how long it took, and what was left behind.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import inplace

from sessions.linux import mountinfo

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What each of the two keeps, on a disk: an overlay's layer cannot be on another overlay.
STATE = {
    "/var/lib/schroot": ("session", "unpack", "union/overlay", "union/underlay"),
    "/var/lib/chroot-sessions": ("sessions", "unpack", "union/overlay"),
    "/run/schroot": ("mount",),
    "/run/chroot-sessions": ("mount",),
}
BUILD_DIRECTORY = "/var/lib/sbuild/build"


def main() -> None:
    asked = json.loads(Path(sys.argv[1]).read_text())
    base = Path(asked["base"])
    make_machine(base, asked["chroots"], ours=asked["ours"])
    before = mounts()
    output = base / "output"
    began_s = time.perf_counter()
    with open(output, "wb") as file:
        status = subprocess.run(
            asked["argv"], stdout=file, stderr=subprocess.STDOUT, cwd=asked["directory"], env=environment(base)
        ).returncode
    taken_s = time.perf_counter() - began_s
    left = sorted({*left_behind(), *set(mounts()) ^ set(before)})
    text = output.read_text(errors="replace")
    json.dump({"status": status, "output": text, "taken_s": taken_s, "left": left}, sys.stdout)


def environment(base: Path) -> dict[str, str]:
    return {"PATH": PATH, "HOME": f"{base}/home", "LANG": "C.UTF-8", "USER": "root", "LOGNAME": "root"}


def make_machine(base: Path, chroots: str, *, ours: bool) -> None:
    """This machine, but for /run and /var/lib, changes of which are thrown away, and the configuration."""
    (base / "home").mkdir()
    for directory in ("/run", "/var/lib"):
        layer = base / f"layers{directory}"
        for name in ("upper", "work"):
            (layer / name).mkdir(parents=True)
        options = f"lowerdir={directory},upperdir={layer}/upper,workdir={layer}/work"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "none", directory], check=True)
    for place, directories in STATE.items():
        for name in directories:
            (base / place[1:] / name).mkdir(parents=True)
        bind(base / place[1:], place)
    build = base / "build"
    build.mkdir()
    shutil.copystat(BUILD_DIRECTORY, build)
    status = os.stat(BUILD_DIRECTORY)
    os.chown(build, status.st_uid, status.st_gid)
    bind(build, BUILD_DIRECTORY)
    for name in ("schroot", "sbuild"):
        shutil.copytree(f"/etc/{name}", base / "etc" / name, symlinks=True)
        bind(base / "etc" / name, f"/etc/{name}")
    for file in Path("/etc/schroot/chroot.d").iterdir():
        file.unlink()
    Path("/etc/schroot/chroot.d/clients").write_text(chroots)
    if ours:
        inplace.take_the_place(base / "inplace")


def bind(source: Path, target: str) -> None:
    os.makedirs(target, exist_ok=True)
    subprocess.run(["mount", "--bind", source, target], check=True)


def mounts() -> list[str]:
    return [mount.target for mount in mountinfo.read()]


def left_behind() -> list[str]:
    """What is left of sessions, and of builds."""
    found = [f"{place}/{path}/{name}" for place in STATE for path in STATE[place] for name in listed(place, path)]
    return found + [f"{BUILD_DIRECTORY}/{name}" for name in os.listdir(BUILD_DIRECTORY)]


def listed(place: str, path: str) -> list[str]:
    names = os.listdir(f"{place}/{path}")
    return [name for name in names if not any(known.startswith(f"{path}/{name}") for known in STATE[place])]


if __name__ == "__main__":
    main()
