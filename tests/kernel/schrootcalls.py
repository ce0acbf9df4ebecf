"""Calling our `schroot` on the directories of a test."""

from __future__ import annotations

import os
import select
import subprocess
import sys

from helpers import REPOSITORY, World

from sessions.linux import syscall

CODE = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from sessions.cli.schroot import main; main()"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "TERM": "dumb"}


class Schroot:
    """The command on this world's directories; `plain` and `ov` are chroots."""

    def __init__(self, world: World) -> None:
        self.world = world
        directory = world.places.schroot_config_dir
        self.options = [
            f"--config-dir={directory}",
            f"--state-dir={world.places.state_dir}",
            f"--runtime-dir={world.places.runtime_dir}",
        ]
        world.profile()
        world.write(
            "schroot/schroot.conf",
            f"[plain]\ndirectory={world.root}\n"
            f"[ov]\ntype=directory\ndirectory={world.root}\nunion-type=overlay\nprofile=own\naliases=other\n"
            f"[dir]\ntype=directory\ndirectory={world.root}\nprofile=own\n",
        )

    def argv(self) -> list[str]:
        """The command without its words."""
        return [sys.executable, "-c", CODE, *self.options]

    def start(self, *words: str, **how: object) -> subprocess.Popen[str]:
        usual = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": "/", "env": ENVIRONMENT}
        return subprocess.Popen([*self.argv(), *words], **{**usual, **how})  # type: ignore[call-overload, no-any-return]

    def __call__(self, *words: str, **how: object) -> tuple[int, str, str]:
        """Status, output and messages."""
        process = self.start(*words, **how)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output or "", errors or ""

    def script(self, text: str, name: str = "50own") -> None:
        """A setup script of the administrator's."""
        self.world.script(name, f"#!/bin/sh\n{text}\n", directory="schroot/setup.d")

    def wait_for(self, path: str) -> None:
        """Until a command has made that file in the directory of the world."""
        changes = syscall.inotify()
        try:
            syscall.inotify_add_watch(changes, str(self.world.base), syscall.IN_CREATE | syscall.IN_MOVED_TO)
            while not (self.world.base / path).exists():
                assert select.select([changes], [], [], 30)[0], f"{path} does not come"
                syscall.heard(changes)
        finally:
            os.close(changes)
