"""`sessions service`: what becomes of sessions at boot and at shutdown, as /etc/default/schroot says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import MNT_DETACH, REPOSITORY, World, bind, umount

from sessions import events, store
from sessions.data import replace
from sessions.linux import mountinfo, proc
from sessions.locks import session_lock
from sessions.model import Places

UNIT = REPOSITORY / "etc/systemd/sessions-recover.service"


class Service:
    """The command on this world's directories, and the machine it runs on."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.boots = 0
        world.define("disk", union_overlay_storage="disk", union_overlay_directory=f"{world.base}/layers")
        world.define("memory")

    def sessions(self, *words: str, status: int = 0, **environment: str) -> tuple[str, str]:
        """Output and messages."""
        places = self.world.places
        options = ["--config-dir", places.native_config_dir, "--state-dir", places.state_dir]
        options += ["--runtime-dir", places.runtime_dir]
        code = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from sessions.cli.native import main; main()"
        result = subprocess.run(
            [sys.executable, "-c", code, *options, *words],
            env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, cwd="/",
        )  # fmt: skip
        assert result.returncode == status, result
        return result.stdout, result.stderr

    def states(self) -> dict[str, str]:
        lines = [line.split() for line in self.sessions("list")[0].splitlines()]
        return {line[0]: line[2] for line in lines}

    def reboot(self) -> None:
        """What is mounted and what is in the runtime directory is gone, and the boot has another id."""
        for mount in mountinfo.below(mountinfo.read(), self.world.places.runtime_dir):
            umount(mount.target, MNT_DETACH)
        shutil.rmtree(self.world.places.runtime_dir)
        self.boots += 1
        path = self.world.base / f"boot-{self.boots}"
        path.write_text(f"{self.boots:08x}-0000-4000-8000-000000000000\n")
        bind(path, proc.BOOT_ID)


@pytest.fixture
def service(world: World) -> Iterator[Service]:
    made = Service(world)
    yield made
    for name in made.states():
        made.sessions("end", name)
    for _boot in range(made.boots):
        umount(proc.BOOT_ID)
    shutil.rmtree(world.base / "layers", ignore_errors=True)


@pytest.mark.parametrize("word", [None, "", "recover", "other"])
def test_boot_recovers(service: Service, word: str | None) -> None:
    service.sessions("begin", "disk", "--name", "one")
    service.sessions("exec", "one", "-d", "/", "--", "touch", "/kept")
    service.sessions("begin", "memory", "--name", "two")
    service.reboot()
    assert service.states() == {"one": "down", "two": "down"}
    output, errors = service.sessions("service", "start", **({} if word is None else {"START_ACTION": word}))
    assert output.splitlines() == ["one: recovered", "two: recovered"]
    assert errors.startswith("warning: session two cannot be recovered and is ended: its layer was on a tmpfs")
    assert service.states() == {"one": "up"}
    service.sessions("exec", "one", "-d", "/", "--", "cat", "/kept")
    assert service.sessions("service", "start") == ("", "")


def test_boot_ends(service: Service) -> None:
    service.sessions("begin", "disk", "--name", "one")
    service.sessions("begin", "memory", "--name", "two")
    service.reboot()
    output, errors = service.sessions("service", "start", START_ACTION="end")
    assert (output, errors) == ("one: ended\ntwo: ended\n", "")
    assert service.states() == {}
    assert not list((service.world.base / "layers").iterdir())


def test_what_is_up_is_left_alone_at_the_start(service: Service) -> None:
    """The service can be started at any time, and what is up then is in somebody's use."""
    service.sessions("begin", "disk", "--name", "one")
    assert service.sessions("service", "start", START_ACTION="end") == ("", "")
    assert service.states() == {"one": "up"}


@pytest.mark.parametrize("word", ["recover", "end"])
def test_what_was_left_half_way_is_ended_at_boot(service: Service, word: str) -> None:
    service.world.script("50own", "#!/bin/sh\n[ $1 = setup-start ] || exit 0\nkill -9 $PID\n")
    service.sessions("begin", "disk", "--name", "one", status=-9)
    (service.world.base / "native/setup.d/50own").unlink()
    service.reboot()
    assert service.states() == {"one": "broken"}
    assert service.sessions("service", "start", START_ACTION=word)[0] == "one: ended\n"
    assert service.states() == {}


def test_what_a_power_cut_has_left_of_a_journal_is_taken_away_at_boot(service: Service) -> None:
    service.sessions("begin", "disk", "--name", "one")
    torn = Path(service.world.places.journal_dir, "torn,00000000")
    torn.touch()
    service.reboot()
    assert service.sessions("service", "start") == ("one: recovered\ntorn: ended\n", "")
    assert service.states() == {"one": "up"}


def test_one_that_cannot_be_recovered_does_not_keep_the_others(service: Service) -> None:
    service.sessions("begin", "disk", "--name", "one")
    service.sessions("begin", "disk", "--name", "two")
    service.reboot()
    shutil.rmtree(service.world.base / "layers/one")
    output, errors = service.sessions("service", "start", status=125)
    assert output == "two: recovered\n"
    assert errors.count("\n") == 1 and "one" in errors
    assert service.states()["two"] == "up"


@pytest.mark.parametrize("word", [None, "", "none", "other"])
def test_shutdown_leaves_sessions(service: Service, word: str | None) -> None:
    service.sessions("begin", "disk", "--name", "one")
    assert service.sessions("service", "stop", **({} if word is None else {"STOP_ACTION": word})) == ("", "")
    assert service.states() == {"one": "up"}


def test_shutdown_ends_sessions_with_what_runs_inside(service: Service) -> None:
    service.sessions("begin", "disk", "--name", "one")
    service.sessions("begin", "memory", "--name", "two")
    service.sessions("exec", "one", "-d", "/", "--", "sh", "-c", "sleep 100 >/dev/null 2>&1 </dev/null &")
    assert service.sessions("service", "stop", STOP_ACTION="end") == ("one: ended\ntwo: ended\n", "")
    assert service.states() == {}


def test_the_unit_passes_on_what_etc_default_schroot_says() -> None:
    text = UNIT.read_text()
    for line in (
        "Conflicts=schroot.service",
        "EnvironmentFile=-/etc/default/schroot",
        "ExecStart=-/usr/bin/sessions service start",
        "ExecStop=-/usr/bin/sessions service stop",
        "Type=oneshot",
        "RemainAfterExit=yes",
        "KillMode=process",
    ):
        assert f"\n{line}\n" in text


def test_shutdown_lays_to_rest_what_can_be_recovered(service: Service) -> None:
    """Nothing of ours is mounted or runs after it; and what was in a session comes back."""
    service.sessions("begin", "disk", "--name", "one")
    service.sessions("exec", "one", "-d", "/", "--", "sh", "-c", "echo kept >/kept; sleep 100 >/dev/null 2>&1 &")
    service.sessions("begin", "memory", "--name", "two")
    output, errors = service.sessions("shutdown")
    assert output == "one: at rest\ntwo: ended\n"
    assert errors.startswith("session two is ended: its layer was on a tmpfs")
    assert service.states() == {"one": "down"}
    assert mountinfo.below(mountinfo.read(), service.world.places.runtime_dir) == []
    assert service.sessions("shutdown") == ("one: at rest\n", "")
    service.sessions("exec", "one", "-d", "/", "--", "true", status=125)
    service.reboot()
    service.sessions("recover", "one")
    assert service.sessions("exec", "one", "-d", "/", "--", "cat", "/kept")[0] == "kept\n"


def test_a_session_at_rest_is_recovered_or_ended_in_the_same_boot(service: Service) -> None:
    service.sessions("begin", "disk", "--name", "one")
    service.sessions("begin", "disk", "--name", "two")
    service.sessions("shutdown")
    service.sessions("recover", "one")
    service.sessions("exec", "one", "-d", "/", "--", "true")
    service.sessions("end", "two")
    assert service.states() == {"one": "up"}


def test_shutdown_does_not_wait_for_who_sets_a_session_up(service: Service) -> None:
    service.sessions("begin", "disk", "--name", "one")
    with session_lock(service.world.places.lock_dir, "one"):
        output, errors = service.sessions("shutdown", status=125)
    assert output == ""
    assert "session one is being changed by somebody else" in errors


def test_shutdown_goes_on_past_what_is_stuck(service: Service) -> None:
    service.sessions("begin", "disk", "--name", "one")
    service.sessions("begin", "disk", "--name", "two")
    holder = subprocess.Popen(["sleep", "100"], cwd=f"{service.world.places.mount_dir}/one/tmp")
    try:
        output, errors = service.sessions("shutdown", status=125)
    finally:
        holder.kill()
        holder.wait()
    assert output == "two: at rest\n"
    assert f"held by {holder.pid} (sleep 100)" in errors
    service.sessions("end", "one")


def test_tmpfiles_makes_at_boot_what_sessions_would(world: World) -> None:
    """In the same places, with the same owners and modes, so that either may be first."""
    root, usual = world.base / "root", Places()
    root.mkdir()
    line = ["systemd-tmpfiles", f"--root={root}", "--create", REPOSITORY / "etc/tmpfiles.d/chroot-sessions.conf"]
    said = subprocess.run(line, capture_output=True, text=True)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    made = {path: path.stat() for path in root.rglob("*chroot-sessions*/**")}
    assert len(made) == 7
    for path in reversed(made):
        path.rmdir()
    places = replace(usual, state_dir=f"{root}{usual.state_dir}", runtime_dir=f"{root}{usual.runtime_dir}")
    store.prepare(places)
    events.tell(places, events.Event.REMOVAL, name="something")
    Path(places.events_dir, "log").unlink()
    for path in root.rglob("*chroot-sessions*/**"):
        ours, theirs = path.stat(), made.pop(path)
        assert (ours.st_mode, ours.st_uid, ours.st_gid) == (theirs.st_mode, theirs.st_uid, theirs.st_gid), path
    assert made == {}
