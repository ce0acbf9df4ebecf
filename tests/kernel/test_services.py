"""Services inside a session: started in order, stopped in reverse, with real daemons that live and die there."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from helpers import World, environment_of, mounts, python

from sessions import lifecycle
from sessions.engine import Settings
from sessions.errors import ConfigError, SetupFailed
from sessions.linux import proc
from sessions.steps import services

pytestmark = pytest.mark.usefixtures("read_only_host")
# A small init system: its log is /log, a service is a process of its name, and what a service is told to do it may do.
INIT = """#!/bin/sh
echo "$0 $*" >>/log
[ "$1" != --force ] || shift
echo "$2 $1"
[ ! -e "/fail-$1-$2" ] || { echo why >&2; exit 3; }
[ ! -e "/hang-$1-$2" ] || { echo hanging; sleep 4321; }
case $2 in
    start) setsid sleep 4321 >/dev/null 2>&1 & echo $! >"/run/$1.pid" ;;
    stop) kill "$(cat "/run/$1.pid")" ;;
esac
"""


@pytest.fixture
def root(world: World) -> Path:
    world.write("tiny/usr/sbin/invoke-rc.d", INIT, 0o755)
    return world.root


def define(world: World, services: str, **settings: object) -> None:
    world.define("tiny", union_type="none", **{"setup.services": services, **settings})


def log(root: Path) -> list[str]:
    try:
        return (root / "log").read_text().splitlines()
    except FileNotFoundError:
        return []
    finally:
        (root / "log").unlink(missing_ok=True)


def calls(action: str, *services: str) -> list[str]:
    return [f"/usr/sbin/invoke-rc.d --force {service} {action}" for service in services]


def test_in_order_and_in_reverse(world: World, root: Path) -> None:
    define(world, "beta,alpha, cron@1.2")
    said: list[tuple[str, str]] = []
    with world.begin("tiny", say=lambda letter, line: said.append((letter, line))):
        assert log(root) == calls("start", "beta", "alpha", "cron@1.2")
        pid = int((root / "run/alpha.pid").read_text())
        assert os.readlink(f"/proc/{pid}/root").startswith(world.places.mount_dir)
        environment = environment_of(pid)
        assert (environment["SESSION_ID"], environment["SETUP_SERVICES"]) == (
            os.path.basename(environment["CHROOT_PATH"]), "beta,alpha, cron@1.2",
        )  # fmt: skip
        assert "HOME" not in environment
    assert log(root) == calls("stop", "cron@1.2", "alpha", "beta")
    lines = ["start beta", "start alpha", "start cron@1.2", "stop cron@1.2", "stop alpha", "stop beta"]
    assert said == [("I", f"70services: {line}") for line in lines]


def test_one_that_does_not_start_is_fatal_and_the_others_are_stopped(world: World, root: Path) -> None:
    define(world, "alpha,beta,gamma")
    (root / "fail-beta-start").touch()
    said: list[str] = []
    before = mounts()
    with pytest.raises(SetupFailed, match=r"70services exited with status 3; .*or take beta out of setup\.services"):
        world.begin("tiny", say=lambda letter, line: said.append(f"{letter}: {line}"))
    assert log(root) == [*calls("start", "alpha", "beta"), *calls("stop", "beta", "alpha")]
    assert "E: 70services: why" in said
    assert mounts() == before


def test_one_that_does_not_stop_is_ended_with_the_session(world: World, root: Path) -> None:
    define(world, "alpha,beta")
    (root / "fail-beta-stop").touch()
    said: list[str] = []
    with world.begin("tiny", say=lambda letter, line: said.append(f"{letter}: {line}")):
        pid = int((root / "run/beta.pid").read_text())
    assert log(root)[-2:] == calls("stop", "beta", "alpha")
    assert not Path(f"/proc/{pid}/root").exists() or not os.readlink(f"/proc/{pid}/root")
    assert any(line.startswith("W: 70services: beta could not be stopped: 70services exited with") for line in said)


@pytest.mark.parametrize("own_limit", [True, False])
def test_one_that_takes_too_long_to_stop_does_not_hold_up_the_end(
    world: World, root: Path, monkeypatch: pytest.MonkeyPatch, own_limit: bool
) -> None:
    define(world, "alpha,beta")
    (root / "hang-beta-stop").touch()
    said: list[str] = []
    session = world.begin("tiny", name="one")
    pid = int((root / "run/beta.pid").read_text())
    if own_limit:
        monkeypatch.setattr(services, "STOP_TIMEOUT_S", 0.2)
    settings = Settings(lambda letter, line: said.append(line), script_timeout_s=None if own_limit else 0.2)
    lifecycle.end(world.places, session.id, settings)
    assert log(root)[-2:] == calls("stop", "beta", "alpha")
    assert proc.start_ticks(pid) is None
    words = "beta could not be stopped: 70services setup-stop took longer than 0.2 seconds and was ended"
    assert any(words in line for line in said)


def test_without_invoke_rc_d_there_may_be_service(world: World, root: Path) -> None:
    define(world, "alpha")
    (root / "usr/sbin/invoke-rc.d").rename(root / "usr/sbin/service")
    with world.begin("tiny"):
        assert log(root) == ["/usr/sbin/service alpha start"]
    (root / "usr/sbin/service").unlink()
    with pytest.raises(SetupFailed, match=r"nothing inside can start alpha: .* install init-system-helpers inside"):
        world.begin("tiny")


def test_no_link_inside_leads_out(world: World, root: Path) -> None:
    """What is executed is executed inside, whatever a link there says."""
    define(world, "alpha")
    starter = root / "usr/sbin/invoke-rc.d"
    starter.unlink()
    starter.symlink_to(world.write("evil", f"#!/bin/sh\ntouch {world.base}/ran\n", 0o755))
    with pytest.raises(SetupFailed, match="nothing inside can start alpha"):
        world.begin("tiny")
    assert not (world.base / "ran").exists()


def test_recovery_starts_them_again(world: World, root: Path) -> None:
    define(world, "alpha,beta")
    with world.begin("tiny", name="one", persistent=True) as session:
        log(root)
        lifecycle.recover(world.places, "one", Settings())
        assert log(root) == calls("start", "alpha", "beta")
        session.end(force=True)
        assert log(root) == calls("stop", "beta", "alpha")


@pytest.mark.parametrize("name", ["--force", "a;b", "a/b", "$x", "-", "ü"])
def test_what_is_no_name_of_a_service_is_refused(world: World, root: Path, name: str) -> None:
    define(world, f"alpha,{name}")
    with pytest.raises(ConfigError, match=r"setup\.services: .* is not the name of a service"):
        world.begin("tiny")
    assert log(root) == []


def test_a_signal_ends_a_begin_that_hangs_in_a_service(world: World, root: Path) -> None:
    define(world, "alpha,beta")
    (root / "hang-beta-start").touch()
    before = mounts()
    code = "sessions.begin('tiny', places=places, say=lambda letter, line: print(line, flush=True))"
    beginner = python(world, code, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert beginner.stdout is not None
    while beginner.stdout.readline() != b"70services: hanging\n":
        pass
    beginner.send_signal(signal.SIGTERM)
    beginner.communicate(timeout=60)
    assert beginner.returncode == -signal.SIGTERM
    assert log(root)[-2:] == calls("stop", "beta", "alpha")
    assert mounts() == before


def test_a_shell_file_may_name_them(world: World, root: Path) -> None:
    world.profile()
    world.write("schroot/own/config", 'case $CHROOT_NAME in tiny) SETUP_SERVICES="alpha beta" ;; esac\n')
    world.define("tiny", union_type="none", profile="own")
    with world.begin("tiny"):
        assert log(root) == calls("start", "alpha", "beta")
