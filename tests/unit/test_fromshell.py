"""A stock script that is run by hand: from schroot's variables comes the session that the script would plan for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from configuring import load_schroot, places_in
from test_types import EVERY, schroots

from sessions import environ, fromshell, setupd, users
from sessions.config.configuration import has_twin, source_twin
from sessions.errors import SessionsError
from sessions.model import Chroot, Custom, Places, Plain, Session, ZfsSnapshot
from sessions.newsession import Wish, new_session

REPOSITORY = Path(__file__).parents[2]
SESSIONS = [kind for kind in EVERY if kind != "plain"]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """As for --config-dir, --state-dir and --runtime-dir, which is what the variables can tell of."""
    made = places_in(tmp_path)
    config = made.schroot_config_dir
    for name, text in (("fstab", "/a\\040b /c none bind\n"), ("copyfiles", "/d /e\n"), ("nssdatabases", "passwd\n")):
        path = Path(config, "own", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    stock = {"stock_etc_dir": f"{REPOSITORY}/etc", "stock_setup_dir": f"{REPOSITORY}/setup.d"}
    return replace(made, native_config_dir=config, **stock)


def environment_of(places: Places, chroot: Chroot, stage: str = "setup-start") -> tuple[Session, Mapping[str, str]]:
    session = new_session(places, chroot, chroot.name, Wish(users.caller(), users.find("daemon"), "one"))
    return session, environ.for_scripts(session, stage)


def told(session: Session) -> Session:
    """The session without what variables do not tell of."""
    chroot = Chroot(
        session.chroot.name, session.chroot.source, profile=session.chroot.profile,
        script_config=session.chroot.script_config, is_source=session.chroot.is_source,
        union=replace(session.chroot.union, overlay_directory="", underlay_directory=""),
        custom=tuple(pair for pair in session.chroot.custom if pair[0].startswith("setup.") and pair[1]),
    )  # fmt: skip
    state = replace(session.places, state_dir="")
    return replace(
        session, chroot=chroot, places=state, stamp="", created_ns=0, owner=None, scripts=(), host_mounts=()
    )


def chroots(places: Places, kind: str) -> list[Chroot]:
    lines = "profile=own\nsetup.services=a,b\n"
    if kind in ("directory", "loopback", "block-device"):
        lines += "union-type=overlay\nunion-mount-options=x=y\n"
    made = load_schroot(places, schroots(kind, lines)).chroots["a"]
    return [made, *([source_twin(made)] if has_twin(made) else [])]


@pytest.mark.parametrize("kind", SESSIONS)
def test_every_type_and_its_twin(places: Places, kind: str) -> None:
    for chroot in chroots(places, kind):
        if isinstance(chroot.source, Custom):  # whether there may be sessions and twins is not for scripts
            chroot = replace(chroot, source=Custom(session_purgeable=not chroot.is_source))
        if isinstance(chroot.source, ZfsSnapshot) and chroot.is_source:  # of which no snapshot is made
            chroot = replace(chroot, source=replace(chroot.source, snapshot_options=""))
        session, environment = environment_of(places, chroot)
        found = fromshell.session(environment)
        assert told(found) == told(session)
        assert (found.fstab[0].source, found.services) == ("/a b", ("a", "b"))


@pytest.mark.parametrize("kind", SESSIONS)
def test_the_scripts_of_each_plan_the_same(places: Places, kind: str) -> None:
    """What a type's scripts refuse, they refuse for both."""

    def described(session: Session) -> list[str]:
        found = []
        for script in setupd.scripts(session.places):
            assert script.plan is not None
            try:
                found += [step.describe() for step in script.plan(session)]
            except SessionsError as error:
                found.append(str(error))
        return found

    for chroot in chroots(places, kind):
        session, environment = environment_of(places, chroot)
        assert described(fromshell.session(environment)) == described(session)


@pytest.mark.parametrize("kind", SESSIONS)
def test_what_schroot_tells_of_a_session_that_it_has_read_again_is_enough(places: Places, kind: str) -> None:
    session, environment = environment_of(places, chroots(places, kind)[0], "setup-stop")
    found = fromshell.session(environment)
    assert (found.snapshot, found.mount_device, found.path) == (session.snapshot, session.mount_device, session.path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"SESSION_ID": ""}, "the variable SESSION_ID is not set; give the script the environment of schroot-setup"),
        ({"SESSION_ID": "a/b"}, "session name 'a/b' is not valid"),
        ({"CHROOT_TYPE": ""}, "the variable CHROOT_TYPE is not set"),
        ({"CHROOT_TYPE": "host"}, "CHROOT_TYPE 'host' is not one that this script knows"),
        ({"CHROOT_DIRECTORY": ""}, "the variable CHROOT_DIRECTORY is not set"),
        ({"CHROOT_DIRECTORY": "x"}, "CHROOT_DIRECTORY: .*absolute path"),
        ({"CHROOT_UNION_TYPE": "x"}, "CHROOT_UNION_TYPE: Unknown filesystem union type"),
        ({"CHROOT_MOUNT_LOCATION": ""}, "the variable CHROOT_MOUNT_LOCATION is not set"),
        ({"SETUP_FSTAB": "no/such"}, "setup_fstab file '.*/no/such' does not exist"),
        ({"SETUP_SERVICES": "--x"}, "'--x' is not the name of a service"),
    ],
)
def test_what_is_missing_or_wrong_is_named(places: Places, changes: dict[str, str], reason: str) -> None:
    _session, environment = environment_of(places, chroots(places, "directory")[0])
    given = {name: value for name, value in {**environment, **changes}.items() if value}
    with pytest.raises(SessionsError, match=reason):
        fromshell.session(given)


def test_a_plain_chroot_is_known_so_that_it_can_be_refused(places: Places) -> None:
    _session, environment = environment_of(places, chroots(places, "directory")[0])
    assert fromshell.session({**environment, "CHROOT_TYPE": "plain"}).chroot.source == Plain("/srv")


def test_from_a_shell_a_script_prints_its_plan_or_says_why_not(places: Places) -> None:
    session, environment = environment_of(places, chroots(places, "directory")[0])

    def run(*words: str, **changes: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, str(REPOSITORY / "setup.d/10mount"), *words]
        given = {**environment, "PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"], **changes}
        return subprocess.run(argv, env=given, capture_output=True, text=True)

    result = run("plan")
    assert (result.returncode, result.stderr) == (0, "")
    assert "bind /a b to /c inside" in result.stdout
    assert session.location in result.stdout
    for words in ((), ("setup-begin", "ok")):
        result = run(*words)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == "error: usage: 10mount plan | setup-start|setup-recover|setup-stop ok|fail\n"
    assert run("plan", CHROOT_TYPE="x").stderr == "error: CHROOT_TYPE 'x' is not one that this script knows\n"
