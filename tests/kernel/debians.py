"""Debian's schroot and ours on the same files, in a mount namespace where it has everything new."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers import REPOSITORY, Fork, enter_private_namespace, fork, mount

from sessions.config.load import Configuration, load
from sessions.model import Places

Result = tuple[int, str, str]


def schroot(*words: str) -> Result:
    """Debian's, in the namespace that has been made for it."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"}
    result = subprocess.run(["/usr/bin/schroot", *words], capture_output=True, cwd="/", env=environment, timeout=60)
    return result.returncode, result.stdout.decode(), result.stderr.decode(errors="surrogateescape")


def ours(*words: str) -> Result:
    """The same through our command, on the same files."""
    code = f"import sys; sys.path.insert(0, '{REPOSITORY}'); from sessions.cli.schroot import main; main()"
    options = ["--config-dir=/etc/schroot", "--state-dir=/var/lib/schroot", "--runtime-dir=/var/run/schroot"]
    result = subprocess.run([sys.executable, "-c", code, *options, *words], capture_output=True, cwd="/", timeout=60)
    return result.returncode, result.stdout.decode(), result.stderr.decode(errors="surrogateescape")


def places() -> Places:
    return Places(
        native_config_dir="/etc/schroot/native",
        schroot_config_dir="/etc/schroot",
        state_dir="/var/lib/schroot",
        runtime_dir="/var/run/schroot",
    )


def configuration() -> Configuration:
    return load(places())


def in_a_world(path: Path, text: str, work: Callable[[], Any]) -> Any:
    """What `work` finds out in a mount namespace where schroot has everything new; `path` takes it out.

    `text` is the configuration, with profiles that ask for nothing and no setup scripts.
    """

    def inside(_it: Fork) -> None:
        enter_private_namespace()
        for target in ("/srv", "/run", "/var/lib/schroot", "/etc/schroot"):
            mount("none", target, "tmpfs")
        for directory in (
            *("/etc/schroot/chroot.d", "/etc/schroot/setup.d", "/run/lock", "/run/schroot/mount", "/srv/dump"),
            *(f"/var/lib/schroot/{name}" for name in ("session", "unpack", "union/overlay", "union/underlay")),
        ):
            os.makedirs(directory)
        Path("/etc/schroot/schroot.conf").write_text(text)
        for profile in ("default", "minimal"):
            os.mkdir(f"/etc/schroot/{profile}")
            for name in ("fstab", "copyfiles", "nssdatabases"):
                Path(f"/etc/schroot/{profile}/{name}").touch()
        Path("/srv/image").touch()
        os.mknod("/srv/device", 0o60600, os.makedev(7, 255))
        path.write_text(json.dumps(work()))

    process = fork(inside)
    complaint = process.ask()
    assert process.wait() == 0, complaint
    return json.loads(path.read_text())
