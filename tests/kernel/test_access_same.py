"""Who may do what, as Debian's schroot decides it: every row of the table in sessions/access.py is tried on it."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from debians import configuration, in_a_world
from helpers import make_chroot

from sessions import access, users
from sessions.access import Verdict
from sessions.data import replace
from sessions.model import Chroot, Identity, Places, Session

# Users and groups that every Debian has: the caller, its group and one more, and somebody else.
CALLER, OWN_GROUP, OTHER_GROUP, THIRD, STRANGERS = "games", "games", "dialout", "daemon", "audio"
ROWS = {
    "none": ("", "", "", ""),
    "strangers": (THIRD, STRANGERS, THIRD, STRANGERS),
    "users": (f"x,{CALLER}", "", "", ""),
    "own-group": ("", OWN_GROUP, "", ""),
    "other-group": ("", f"nosuchgroup,{OTHER_GROUP}", "", ""),
    "root-users": ("", "", f"{THIRD},{CALLER}", ""),
    "root-own-group": ("", "", "", OWN_GROUP),
    "root-other-group": ("", "", "", OTHER_GROUP),
    "both": (CALLER, "", CALLER, ""),
    "both-groups": ("", OTHER_GROUP, "", OWN_GROUP),
}
KEYS = ("users", "groups", "root-users", "root-groups")


def lines_of(lists: tuple[str, ...], prefix: str = "") -> str:
    return "".join(f"{prefix}{key}={value}\n" for key, value in zip(KEYS, lists, strict=True))


def configured() -> str:
    plain = [f"[{name}]\ndirectory=/srv/tiny\n{lines_of(lists)}" for name, lists in ROWS.items()]
    unions = [
        f"[union-{name}]\ntype=directory\ndirectory=/srv/tiny\nunion-type=overlay\n{lines_of(lists, 'source-')}"
        for name, lists in ROWS.items()
    ]
    return "".join((*plain, *unions))


def gid(name: str) -> int:
    return grp.getgrnam(name).gr_gid


GROUP_IDS = {name: gid(name) for name in (OWN_GROUP, OTHER_GROUP, STRANGERS)}


def caller() -> Identity:
    """The caller as a process that has one more group than the databases give."""
    return replace(users.find(CALLER), groups=(gid(OTHER_GROUP),))


def schroot(who: str, *words: str) -> str:
    """Debian's verdict, by what it does or says."""
    entry = pwd.getpwnam(who)
    how: dict[str, Any] = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [gid(OTHER_GROUP)]}
    call = ["/usr/bin/schroot", *words]
    result = subprocess.run(
        call, **(how if who == CALLER else {}), capture_output=True, text=True, cwd="/",
        stdin=subprocess.DEVNULL, start_new_session=True, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    if "Access not authorised" in result.stderr:
        return "DENY"
    if "Authentication failed" in result.stderr:
        return "PASSWORD"
    return "ALLOW" if "authori" not in result.stderr.lower() else result.stderr


def session_of(chroot: Chroot) -> Session:
    """A session that the caller has begun."""
    who = caller()
    return Session("s", "", chroot, chroot.name, who, who, None, 0, "", 0, Places(), "/l", "/l")


def decided(chroot: Chroot, who: str, target: str) -> str:
    asking = caller() if who == CALLER else users.find(who)
    group_ids = users.group_ids(access.groups_of(chroot))
    return access.decide(chroot, asking, users.find(target), group_ids).verdict.name


@pytest.mark.usefixtures("read_only_host")
def test_plain_chroots_and_twins(tmp_path: Path) -> None:
    asked = list(product(ROWS, (CALLER, "root"), (CALLER, "root", THIRD)))

    def work() -> list[list[str]]:
        make_chroot(Path("/srv/tiny"))
        known = configuration()
        found = []
        for row, who, target in asked:
            words = ("-u", target, "-d", "/", "--", "true")
            theirs = schroot(who, "-c", row, *words)
            found.append(["chroot", row, who, target, theirs, decided(known.chroots[row], who, target)])
            twin = known.find("source", f"union-{row}")
            theirs = schroot(who, "-c", f"source:union-{row}", *words)
            found.append(["source", row, who, target, theirs, decided(twin, who, target)])
        return found

    found = in_a_world(tmp_path / "found", configured(), work)
    assert len(found) == 2 * len(asked)
    assert [line for line in found if line[-1] != line[-2]] == []
    assert {line[-1] for line in found} == {verdict.name for verdict in Verdict}


def test_several_chroots(tmp_path: Path) -> None:
    """For each pair, in either order: the stricter one counts, before anything is run."""

    def work() -> list[list[str]]:
        make_chroot(Path("/srv/tiny"))
        known = configuration()
        found = []
        for pair in product(("none", "users", "root-users", "both"), repeat=2):
            words = [word for name in pair for word in ("-c", name)]
            theirs = schroot(CALLER, *words, "-u", "root", "-d", "/", "--", "true")
            target = users.find("root")
            decisions = [access.decide(known.chroots[name], caller(), target, {}) for name in pair]
            found.append([*pair, theirs, access.strictest(decisions).verdict.name])
        return found

    found = in_a_world(tmp_path / "found", configured(), work)
    assert [line for line in found if line[-1] != line[-2]] == []


def test_sessions(tmp_path: Path) -> None:
    """A session that the caller has begun, asked for by the caller and by root."""

    def work() -> list[list[str]]:
        make_chroot(Path("/srv/tiny"))
        text = "".join(f"[{name}]\ntype=directory\ndirectory=/srv/tiny\n{lines_of(ROWS[name])}" for name in begun)
        Path("/etc/schroot/schroot.conf").write_text(text)
        known = configuration()
        found = []
        for name in begun:
            assert schroot(CALLER, "-b", "-c", name, "-n", f"s-{name}") == "ALLOW"
            assert os.path.exists(f"/var/lib/schroot/session/s-{name}")
            for who, target in product((CALLER, "root"), (CALLER, "root", THIRD)):
                theirs = schroot(who, "-r", "-c", f"s-{name}", "-u", target, "-d", "/", "--", "true")
                asking = caller() if who == CALLER else users.find(who)
                made = session_of(known.chroots[name])
                ours = access.decide_for_session(made, asking, users.find(target), GROUP_IDS)
                found.append([name, who, target, theirs, ours.verdict.name])
        return found

    begun = ["users", "own-group", "other-group", "root-users", "root-own-group", "root-other-group", "both"]
    found = in_a_world(tmp_path / "found", "", work)
    assert len(found) == 6 * len(begun)
    assert [line for line in found if line[-1] != line[-2]] == []
