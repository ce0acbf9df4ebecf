"""What setup scripts of others are given, and what is heard of them, under Debian's schroot 1.6.13 and under ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import REPOSITORY
from sidebyside import Result, Sides, masked

CONFIGURATION = """\
[dir]
type=directory
directory={base}/root
description=A directory
profile=minimal
setup.services=
acme.some-key=a  b 'c'
user-modifiable-keys=acme.some-key
aliases=alias

[ov]
type=directory
directory={base}/root
union-type=overlay
profile=minimal
message-verbosity=quiet

[tar]
type=file
file={base}/root.tar
description=An archive
profile=minimal
setup.nssdatabases=

[old]
type=directory
directory={base}/root
union-type=overlay
script-config=minimal/config
"""
KINDS = ("dir", "alias", "ov", "source:ov", "tar", "source:tar", "old")
AUTOMATIC = [f"schroot -c {kind} -- true" for kind in KINDS]
PERSISTENT = [
    line
    for kind in KINDS
    for line in (
        f"schroot -b -c {kind} -n s -u builder-of-debian; schroot -b -c {kind} -n s -u nobody",
        "schroot --recover-session -c s",
        "schroot -e -c s -u daemon",
    )
]
OTHERS = [
    "schroot -v -o acme.some-key=given -c dir -- true | grep -v .",
    "schroot -q -c dir -- true",
    "schroot -b -c dir -n s -q",
    "schroot -e -c s -v 2>/dev/null",
    "schroot -b -c dir -n s",
    "schroot -e -c s -o acme.some-key=last",
]
LINES = [*AUTOMATIC, *PERSISTENT, *OTHERS]
# A number for each call, the arguments, the directory, the umask, and the whole environment.
DUMP = """\
n=$(ls {base}/out | wc -l)
{{ printf '%s\\0' "ARGUMENTS=$*" "NAME=${{0##*/}}" "DIRECTORY=$(pwd)" "UMASK=$(umask)"; cat /proc/$$/environ
}} >{base}/out/$(printf %03d "$n")"""

Dump = dict[str, str]
# What ours has otherwise, on purpose: the variable, and why.
OWN_VARIABLE = "SESSIONS_CONFIG_PATH"  # profiles of ours may lie elsewhere than in /etc/schroot
PATHS = {"DATA_DIR", "LIBEXEC_DIR", "SETUP_DATA_DIR"}  # each has its own
TWIN = "CHROOT_SESSION_SOURCE"  # schroot forgets that it is one, once it reads the session from a file


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Dump], list[Dump]]:
    base = tmp_path_factory.mktemp("sides")
    sides = Sides.make(base, CONFIGURATION)
    sides.script("12dump", DUMP.format(base=base))
    results = [sides.run(LINES, ours=ours) for ours in (False, True)]
    # Of what is said, only what both have to say alike: nothing is, but for names, errors and deprecated keys.
    assert results[0][0][0] == 0, results[0][0]
    assert [status for status, _output, _errors in results[1]] == [status for status, _output, _errors in results[0]]
    return read(base / "debian"), read(base / "ours")


def read(directory: Path) -> list[Dump]:
    found = []
    for path in sorted(directory.iterdir()):
        pairs = path.read_bytes().decode().removesuffix("\0").split("\0")
        found.append(dict(masked(pair).split("=", 1) for pair in pairs))
    return found


def test_every_variable_of_every_kind_at_every_stage(dumps: tuple[list[Dump], list[Dump]]) -> None:
    debian, ours = dumps
    calls = [(dump["CHROOT_NAME"], dump["ARGUMENTS"], dump["SESSION_ID"]) for dump in debian]
    assert calls == [(dump["CHROOT_NAME"], dump["ARGUMENTS"], dump["SESSION_ID"]) for dump in ours]
    assert len(calls) == 2 * len(AUTOMATIC) + len(PERSISTENT) + 8
    for call, theirs, own in zip(calls, debian, ours, strict=True):
        assert own.pop(OWN_VARIABLE).startswith("/etc/schroot:"), call
        assert own.pop("PID") != theirs.pop("PID")
        if (own[TWIN], theirs[TWIN]) == ("true", "false") and "setup-start" not in call[1]:
            theirs[TWIN] = "true"
        for name in PATHS:
            assert own.pop(name), call
            assert theirs.pop(name), call
        assert own == theirs, call


def test_the_library_makes_of_it_what_schroots_does(tmp_path: Path) -> None:
    """An administrator's script, sourcing what it always has, ends up with the same variables."""
    sides = Sides.make(tmp_path, CONFIGURATION)
    for name in ("data", "functions", "config"):
        assert Path(f"/usr/share/schroot/setup/common-{name}").exists()
    head = "".join(f'. "$SETUP_DATA_DIR/common-{name}"\n' for name in ("data", "functions", "config"))
    shown = "STAGE STATUS DEVTYPE VERBOSE SETUP_CONFIG SETUP_FSTAB SETUP_COPYFILES SETUP_NSSDATABASES FSTAB COPYFILES"
    told = "".join(f'echo "{name}=${name}"\n' for name in shown.split())
    sides.script("12own", f"set -e\n{head}{told}info hidden\nwarn odd\nprintf last")
    (sides.etc / "minimal/config").write_text("echo from the file\nCOPYFILES=/etc/schroot/sbuild/copyfiles\n")
    lines = [f"schroot -c {kind} -- true" for kind in ("dir", "tar", "old")]
    debian, ours = sides.run(lines, ours=False), sides.run(lines, ours=True)
    for theirs, own in zip(debian, ours, strict=True):
        assert said_by("12own", own) == [*said_by("12own", theirs)]


def said_by(script: str, result: Result) -> list[str]:
    """What is said of one script, in two streams; schroot loses the last line if it has no end."""
    lines = [line for line in result[2].splitlines() if re.match(f"[A-Z]: {script}: ", line)]
    return sorted(line for line in lines if not line.endswith(": last"))


def test_every_script_is_announced_to_those_who_ask(tmp_path: Path) -> None:
    sides = Sides.make(tmp_path, CONFIGURATION)
    sides.script("12fails", 'test "$CHROOT_TYPE $1" != "file setup-start"')
    lines = [
        "schroot -v -c dir -- true",
        "schroot -v -c tar -- true",
        "schroot -v -b -c ov -n s",
        "schroot -v --recover-session -c s",
        "schroot -e -c s",
        "schroot -b -c ov -n s",
        "schroot -e -v -c s",
        "schroot -q -c dir -- true",
    ]
    debian, ours = sides.run(lines, ours=False), sides.run(lines, ours=True)
    for theirs, own in zip(debian, ours, strict=True):
        assert announced(own) == announced(theirs)
    assert "I: Executing ‘12fails setup-stop fail’" in announced(ours[1])


def announced(result: Result) -> list[str]:
    """Of scripts that both have."""
    lines = [line for line in result[2].splitlines() if line.startswith("I: Executing")]
    return [line for line in lines if (REPOSITORY / "setup.d" / line.split()[2].strip("‘")).exists() or "12" in line]
