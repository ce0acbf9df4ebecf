"""The environments: of setup scripts, whose every variable is a contract, and of commands, which get few."""

from __future__ import annotations

import os
import re
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions import environ, keys, keytypes
from sessions.data import replace
from sessions.model import Chroot, Directory, File, Host, Identity, Places, Session, Source, Union
from sessions.steps import Stage

ROOT = Identity(0, 0, "root", "root", (0,), "/root", "/bin/bash")
JOE = Identity(1000, 1001, "joe", "users", (1001, 27), "/home/joe", "/bin/zsh")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SCHROOT = {
    "SCHROOT_ALIAS_NAME": "alias", "SCHROOT_CHROOT_NAME": "tiny", "SCHROOT_COMMAND": "true", "SCHROOT_GID": "1001",
    "SCHROOT_GROUP": "users", "SCHROOT_SESSION_ID": "one", "SCHROOT_UID": "1000", "SCHROOT_USER": "joe",
}  # fmt: skip
NAMES = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=12)
VALUES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=12)
GIVEN = st.dictionaries(NAMES, VALUES, max_size=8)


def session(source: Source | None = None, **changes: Any) -> Session:
    changes = {"environment_filter": keys.DEFAULT_ENVIRONMENT_FILTER, "profile": "", **changes}
    chroot = Chroot("tiny", source or Directory("/tiny"), **changes)
    return Session(
        id="one", stamp="stamp", chroot=chroot, selected_name="alias", caller=JOE, user=ROOT, owner=None, created_ns=1,
        boot_id="boot", mount_namespace=1, places=Places(), location="/M/one", path="/M/one",
        overlay_directory="/O/one" if chroot.union.is_used else "",
        underlay_directory="/U/one" if chroot.union.is_used else "",
        unpack_directory="/unpack/one" if isinstance(source, File) else "",
    )  # fmt: skip


def for_commands(user: Identity, given: dict[str, str], *, preserve: bool, **changes: Any) -> dict[str, str]:
    return environ.for_commands(session(**changes), JOE, user, given, preserve=preserve, command="true")


@given(GIVEN)
def test_a_minimal_environment_is_minimal(given: dict[str, str]) -> None:
    found = for_commands(JOE, given, preserve=False)
    term = {"TERM": given["TERM"]} if given.get("TERM") else {}
    path = "/usr/local/bin:/usr/bin:/bin"
    own = {"HOME": "/home/joe", "LOGNAME": "joe", "PATH": path, "SHELL": "/bin/zsh", "USER": "joe"}
    assert found == {**own, **term, **SCHROOT}
    assert list(found) == sorted(found)
    assert for_commands(ROOT, given, preserve=False)["PATH"] == SYSTEM_PATH


@given(GIVEN, st.sampled_from([JOE, ROOT]))
def test_a_preserved_environment_has_all_but_what_the_filter_finds(given: dict[str, str], user: Identity) -> None:
    found = for_commands(user, given, preserve=True)
    unwanted = re.compile(keys.DEFAULT_ENVIRONMENT_FILTER)
    for name, value in given.items():
        if name == "PATH" and user is ROOT:
            assert found["PATH"] == SYSTEM_PATH
        elif name in SCHROOT:
            assert found[name] == SCHROOT[name]
        else:
            assert found.get(name) == (value or None if not unwanted.search(name) else None)
    assert SCHROOT.items() <= found.items()
    assert all(found.values())


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_x", "IFS", "BASH_ENV", "ENV", "NLSPATH", "TERMINFO", "CDPATH"])
def test_dangerous_variables_are_filtered(name: str) -> None:
    assert name not in for_commands(ROOT, {name: "x"}, preserve=True)
    assert for_commands(ROOT, {f"X_{name}": "x"}, preserve=True)[f"X_{name}"] == "x"


def test_a_filter_may_drop_what_the_minimum_has_and_what_is_of_ours() -> None:
    found = for_commands(
        JOE, {"SECRET": "x", "TERM": "vt100"}, preserve=True, environment_filter="^(HOME|SCHROOT_U.*|SE.*)$"
    )
    assert {"HOME", "SECRET", "SCHROOT_UID", "SCHROOT_USER"}.isdisjoint(found)
    assert {name: value for name, value in SCHROOT.items() if "_U" not in name}.items() <= found.items()
    assert (
        for_commands(JOE, {"A1": "x", "AB": "y"}, preserve=True, environment_filter="^[[:upper:]]+$").get("AB") is None
    )


def test_no_filter_keeps_everything() -> None:
    assert for_commands(JOE, {"LD_PRELOAD": "x"}, preserve=True, environment_filter="")["LD_PRELOAD"] == "x"


def test_the_variables_of_a_script() -> None:
    found = environ.for_scripts(
        session(description="A chroot", aliases=("alias", "other"), profile="minimal"), Stage.START
    )
    assert found == {
        "AUTH_GID": "0", "AUTH_HOME": "/root", "AUTH_RGID": "1001", "AUTH_RGROUP": "users", "AUTH_RUID": "1000",
        "AUTH_RUSER": "joe", "AUTH_SHELL": "/bin/bash", "AUTH_UID": "0", "AUTH_USER": "root", "CHROOT_ALIAS": "alias",
        "CHROOT_DESCRIPTION": "A chroot (session chroot)", "CHROOT_DIRECTORY": "/tiny",
        "CHROOT_MOUNT_LOCATION": "/M/one",
        "CHROOT_NAME": "tiny", "CHROOT_PATH": "/M/one", "CHROOT_PROFILE": "minimal",
        "CHROOT_PROFILE_DIR": "/etc/schroot/minimal", "CHROOT_SESSION_CLONE": "false", "CHROOT_SESSION_CREATE": "false",
        "CHROOT_SESSION_PURGE": "false", "CHROOT_SESSION_SOURCE": "false", "CHROOT_TYPE": "directory",
        "CHROOT_UNION_TYPE": "none", "DATA_DIR": "/usr/share/chroot-sessions",
        "LIBEXEC_DIR": "/usr/lib/chroot-sessions", "MOUNT_DIR": "/run/chroot-sessions/mount",
        "PATH": SYSTEM_PATH, "PID": str(os.getpid()), "PLATFORM": "linux", "SESSION_ID": "one",
        "SESSIONS_CONFIG_PATH": "/etc/schroot:/etc/chroot-sessions:/usr/share/chroot-sessions/etc",
        "SETUP_DATA_DIR": "/usr/share/chroot-sessions/setup.d/common", "SYSCONF_DIR": "/etc/schroot",
        "VERBOSE": "normal",
    }  # fmt: skip


def test_what_depends_on_the_kind_of_chroot() -> None:
    overlay = environ.for_scripts(session(union=Union("overlay", mount_options="x,y")), Stage.START)
    assert overlay["CHROOT_SESSION_PURGE"] == "true"
    assert {name: value for name, value in overlay.items() if "UNION" in name} == {
        "CHROOT_UNION_TYPE": "overlay", "CHROOT_UNION_OVERLAY_DIRECTORY": "/O/one",
        "CHROOT_UNION_UNDERLAY_DIRECTORY": "/U/one", "CHROOT_UNION_MOUNT_OPTIONS": "x,y",
    }  # fmt: skip
    archive = environ.for_scripts(session(File("/a.tar", location="/inside", repack=True), is_source=True), Stage.STOP)
    assert {name: value for name, value in archive.items() if "_FILE" in name or name == "CHROOT_LOCATION"} == {
        "CHROOT_FILE": "/a.tar", "CHROOT_FILE_REPACK": "true", "CHROOT_LOCATION": "/inside",
        "CHROOT_FILE_UNPACK_DIR": "/var/lib/chroot-sessions/unpack",
    }  # fmt: skip
    assert (archive["CHROOT_SESSION_PURGE"], archive["CHROOT_SESSION_SOURCE"]) == ("true", "true")
    assert environ.for_scripts(session(Host(), union=Union("overlay")), Stage.START)["CHROOT_TYPE"] == "host"


@given(st.dictionaries(st.from_regex(r"[a-z]{1,3}\.[a-z]{1,3}(-[a-z]{1,2})?", fullmatch=True), VALUES, max_size=4))
def test_custom_keys_are_variables_and_never_others(custom: dict[str, str]) -> None:
    plain = environ.for_scripts(session(), Stage.START)
    found = environ.for_scripts(session(custom=tuple(sorted(custom.items()))), Stage.START)
    assert plain.items() <= found.items()
    for name, value in custom.items():
        variable = name.upper().replace(".", "_").replace("-", "_")
        assert not value or variable in plain or found[variable] in custom.values()
    assert all(found.values())


def test_every_variable_of_the_table_is_set_where_it_is_legal() -> None:
    sources: list[Source] = [Directory("/x"), File("/x.tar", "/y", True)]
    for source in sources:
        chroot = Chroot(
            "tiny", source, Union("overlay", "a", "/o", "/u", "tmpfs", "1G", ("/l",)), description="x", profile="p",
            script_config="c",
        )  # fmt: skip
        found = environ.for_scripts(
            replace(session(), chroot=chroot, overlay_directory="/o", underlay_directory="/u"), Stage.START
        )
        for key in keys.KEYS:
            if key.variable and keys.is_legal(key, type(source)):
                assert key.variable in found, key.name
                if key.field not in ("overlay_directory", "underlay_directory", "description", "script_config"):
                    assert found[key.variable] == keytypes.show(keys.value_of(chroot, key))
