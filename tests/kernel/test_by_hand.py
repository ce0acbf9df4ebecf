"""Stock scripts run from a shell, one after the other, with the environment that schroot gives them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import REPOSITORY, World, mounts, snapshot

from sessions import environ, lifecycle, users
from sessions.newsession import Wish, new_session

pytestmark = pytest.mark.usefixtures("read_only_host")
SCRIPTS = sorted(path.name for path in (REPOSITORY / "setup.d").iterdir() if path.is_file())
INIT = "#!/bin/sh\necho $2 $3 $AUTH_USER >>/log\n"


class Hand:
    """A session's scripts, called with its environment; a session that nobody has begun."""

    def __init__(self, world: World, chroot: str) -> None:
        root = users.find("root")
        found, name = lifecycle.find_chroot(lifecycle.load(world.places), chroot, with_host=False)
        self.session = new_session(world.places, found, name, Wish(root, root, "one"))
        self.root = Path(self.session.path)

    def __call__(self, script: str, *words: str) -> str:
        environment = {**environ.for_scripts(self.session, words[0]), "PYTHONPATH": str(REPOSITORY)}
        result = subprocess.run(
            [sys.executable, str(REPOSITORY / "setup.d" / script), *words],
            env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert (result.returncode, result.stderr) == (0, ""), script
        return result.stdout

    def all(self, stage: str) -> None:
        for script in reversed(SCRIPTS) if stage == "setup-stop" else SCRIPTS:
            self(script, stage, "ok")


@pytest.mark.parametrize("kind", ["directory", "overlay", "file"])
def test_one_after_the_other_they_make_a_session_and_take_it_away(world: World, kind: str) -> None:
    profile = world.profile(
        fstab="tmpfs /mnt/made tmpfs size=1m\n", copyfiles="/etc/hostname\n", nssdatabases="passwd\n"
    )
    world.write("tiny/usr/sbin/invoke-rc.d", INIT, 0o755)
    settings: dict[str, object] = {"union_type": "none"}
    if kind == "overlay":
        settings = {"union_overlay_storage": "disk", "union_overlay_directory": f"{world.base}/layers"}
    if kind == "file":
        archive = world.base / "root.tar"
        subprocess.run(["tar", "-cf", archive, "-C", world.root, "."], check=True)
        settings = {"type": "file", "file": str(archive), "directory": None, "union_type": "none"}
    world.define("tiny", profile=profile, **{"setup.services": "alpha,beta"}, **settings)
    hand = Hand(world, "tiny")
    before = snapshot(world.root), mounts()
    hand.all("setup-start")
    assert (hand.root / "etc/debian_chroot").read_text() == "tiny\n"
    assert (hand.root / "etc/hostname").read_bytes() == Path("/etc/hostname").read_bytes()
    assert "root:" in (hand.root / "etc/passwd").read_text()
    assert os.path.ismount(hand.root / "mnt/made")
    assert (hand.root / "log").read_text() == "alpha start root\nbeta start root\n"
    log = hand.root / "log" if kind != "directory" else world.root / "log"
    assert "unmount" not in hand("10mount", "plan")
    hand.all("setup-stop")
    assert mounts() == before[1]
    if kind == "directory":
        assert log.read_text().splitlines()[2:] == ["beta stop root", "alpha stop root"]
    else:
        assert snapshot(world.root) == before[0]
    assert not os.path.lexists(f"{world.base}/layers/one")
