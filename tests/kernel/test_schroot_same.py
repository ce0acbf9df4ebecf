"""The same command lines through Debian's schroot 1.6.13 and through ours: status, output and messages are equal.

Both run all lines in turn, each in a mount namespace of its own, on the same configuration at the same place.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import REPOSITORY, Fork, bind, enter_private_namespace, fork, make_chroot, mount

CONFIGURATION = """\
[plain]
description=A plain chroot
directory={root}
users=nobody
root-users=root
aliases=pp

[bad.prefix]
directory={root}
command-prefix=nosuch,x

[gone]
directory={base}/gone

[chatty]
directory={root}
personality=linux32
preserve-environment=true
shell=/bin/sh
message-verbosity=verbose

[dir]
type=directory
directory={root}
profile=minimal
aliases=dd,de

[ov]
type=directory
description=An overlay
directory={root}
union-type=overlay
profile=minimal
aliases=ova
users=nobody,daemon
groups=sudo
root-groups=root
source-root-users=root
foo.bar=1
user-modifiable-keys=foo.bar
root-modifiable-keys=foo.baz,directory
very.long-custom-key-for-a-wide-column=a b

[pre]
type=directory
directory={root}
union-type=overlay
union-overlay-directory={base}/layers
source-clone=false
profile=minimal
setup.fstab=
command-prefix=env,X=1

[tar]
type=file
file={base}/root.tar
location=/inner
profile=minimal
aliases=tt
"""

LINES = """
schroot -l
schroot -l --all
schroot -l --exclude-aliases
schroot -la --exclude-aliases
schroot -l --all-chroots
schroot -l --all-sessions
schroot -l --all-source-chroots --all-sessions
schroot -l -c ov -c chroot:ova -c source:ov -c ova-source -c :plain -c session:plain -c ov
schroot -l -c ov -a
schroot -l -c nosuch
schroot -l -c nosuch -c ov -c session:s9 -c 'a b' -c ''
schroot -l -c nosuch -c foo:ov
schroot -l -c foo:bar:ov
schroot -l -c s:
schroot -l -c chroot:
schroot -i
schroot -i -a
schroot -i -c ova-source -c session:plain -c pp
schroot -i -u nosuch -o a.b=c -c plain
schroot --config
schroot --config -a
schroot --config -c ova -c ov -c source:ov
schroot --config --all-source-chroots
schroot --config --all-sessions
schroot --config -v --all-sessions
schroot --location
schroot --location -a
schroot --location -c plain -c ov -c source:tar
schroot --location -c s1
schroot --al
schroot --al=x -q
schroot --bogus
schroot --chroot= -l
schroot --lis=x
schroot --=
schroot --=pwd -c plain
schroot ---c plain -l
schroot -c --list
schroot --c plain
schroot -d / -d /
schroot -c -l
schroot -lx
schroot -l -i
schroot -qv -l
schroot -qv -n x
schroot -b
schroot -b -c ov -c dir
schroot -b -c ov -n x~
schroot -b -c ov -n plain
schroot -b -c plain -n plain
schroot -n s1 -r -c plain
schroot --debug=foo
schroot
schroot -- pwd
schroot -c nosuch -c nosuch2 -- pwd
schroot -c foo:bar -- pwd
schroot --all-sessions -- pwd
schroot -c plain -- pwd
schroot -c pp -- env
schroot -c session:plain pwd
schroot -b -c plain
schroot -b -c session:plain -n foo
schroot -r -c plain -- pwd
schroot -r -c chroot:pp -- pwd
schroot -r -c pp -- pwd
schroot -e -c plain
schroot --recover-session -c plain
schroot -c plain -- sh -c 'exit 77'
schroot -c plain -- sh -c 'kill -9 $$'
schroot -q -c plain -- sh -c 'kill -9 $$'
schroot -c plain -c dir -- sh -c 'kill -TERM $$'
schroot -c plain -- nosuch
schroot -q -c plain -- /bin/nosuch
schroot -c plain -- /etc/passwd
schroot -c plain -- /etc
schroot -v -c bad.prefix -- true
schroot -c bad.prefix -c plain -- echo hi
schroot -c gone -- true
schroot -c gone
schroot -c plain -c gone -- echo hi
schroot -v -c plain -- echo 'a  b' c
schroot -v -u nobody -c plain -- id
schroot -v -c plain
schroot -v -p -c plain
SHELL=/bin/nosuch schroot -v -p -c plain
SHELL=bin/sh schroot -v -p -c plain
SHELL= schroot -v -p -c plain
SHELL=/bin/nosuch schroot -v -c plain
schroot -v -s /bin/sh -c plain
schroot -v -s /bin/nosuch -c plain
schroot -v -s nosuch -c plain
schroot -s /bin/nosuch -c plain -- true
schroot -c plain -- '' -c 'echo hi'
schroot -c chatty
schroot -c chatty -q -- uname -m
cd {base}; schroot -c plain -- pwd
cd {base}; schroot -c plain
cd {base}; schroot -q -u nobody -c plain
cd {base}; HOME=/nonexistent schroot -p -c plain
cd {base}; schroot -d / -c plain -- pwd
schroot -d tmp -c plain -- pwd
schroot -d /nonexistent -c plain -- pwd
schroot -d /bin/sh -c plain -c dir -- pwd
schroot -d '' -s '' -u '' -c plain -- pwd
schroot -u nosuch -c plain -- pwd
schroot -u 0 -c plain -- pwd
schroot -u nosuch -c nosuch -- pwd
schroot -c plain -- sh -c 'cat; echo err >&2; umask; ulimit -n'
umask 027; ulimit -n 99; echo in | schroot -c plain -- sh -c 'cat; echo err >&2; umask; ulimit -n'
LD_PRELOAD= BASH_ENV=x EMPTY= FOO=1 HOME=/h USER=u schroot -p -c plain -- env | grep -v ^_=
schroot -c ov -- env
schroot -c ova-source -- sh -c 'echo $SCHROOT_ALIAS_NAME $SCHROOT_CHROOT_NAME'
schroot -c ov -c plain -- sh -c 'echo $SCHROOT_CHROOT_NAME; test $SCHROOT_CHROOT_NAME = ov'
schroot -c ov -c nosuch -- touch /tmp/mark
schroot -c dir -u nobody -- id
schroot -c pre -- sh -c 'echo $X $SCHROOT_COMMAND; ls /proc'
schroot -c tar -- ls /
schroot -c ov -d /nonexistent -- true
schroot -c ov -- nosuch
schroot -c ov -- sh -c 'kill -SEGV $$'
schroot --all-chroots -c ov -- pwd
schroot --all-source-chroots -- pwd
schroot -o foo.bar=2 -c ov -- true
schroot -o nope.x=2 -c ov -- true
schroot -o nope -u nobody -c ov -- true
schroot -o directory=/ -c ov -- true
schroot -o =x -c plain
schroot -b -c ov -n s1 -o foo.bar=7 -o foo.bar=8 -o foo.baz
schroot -b -c ov -n s1
schroot -b -c source:ov -n s2
schroot -b -c tt -n tar
schroot -b -c dir
schroot -b -c source:tar -n s6 -u nobody pwd
schroot -l --all-sessions
schroot -i --all-sessions
schroot -i -c session:s1 -c ov
schroot --config -c session:s1
schroot --config --all-sessions
schroot --location -c session:s1 -c session:tar -c ov
schroot -r -c s1 -- pwd
schroot -r -c session:s1 -c s1 -- sh -c 'echo hi; exit 3'
schroot -r -c chroot:s1 -- pwd
schroot -r -c ov -- pwd
schroot -r -c chroot:ova -- pwd
schroot -r -c plain -c source:ov -- echo hi
schroot -r -c s1 -o nope.x=1 -- pwd
schroot -r -c s1 -o foo.bar=1 -- pwd
schroot -c s1 -- pwd
schroot -c session:s1 -- pwd
schroot -b -c session:s1
schroot -v -u nobody -r -c s1 -- id -un
schroot -r --all-chroots -- pwd
schroot -r --all-sessions -- pwd
schroot -r
schroot -e
schroot --recover-session -q
schroot --recover-session -c s1
schroot -e -c chroot:ov
schroot -e -c s1 -c nosuch
schroot -e -c s1 pwd
schroot -e -c s1
schroot -e -c session:s2 -o nope.x=1
schroot -e --all-sessions
schroot -e --all-sessions
schroot -v -r --all-sessions -- pwd
""".strip().splitlines()

Result = tuple[int, str, str]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("same")
    make_chroot(base / "archive/inner")
    subprocess.run(["tar", "-cf", base / "root.tar", "-C", base / "archive", "."], check=True)
    for directory in ("root", "layers"):
        (base / directory).mkdir()
    configuration = base / "schroot"
    shutil.copytree("/etc/schroot", configuration)
    (configuration / "schroot.conf").write_text(CONFIGURATION.format(base=base, root=base / "root"))
    ours = base / "ours"
    ours.mkdir()
    code = f"import sys; sys.path.insert(0, '{REPOSITORY}'); from sessions.cli.schroot import main; main()"
    options = "--config-dir=/etc/schroot --state-dir=/var/lib/schroot/ours --runtime-dir=/run/schroot"
    (ours / "schroot").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" {options} "$@"\n')
    (ours / "schroot").chmod(0o755)
    return base


def run_all(base: Path, *, ours: bool) -> list[Result]:
    """What became of each line. A missing schroot gives status 127 everywhere, which is a failure of all tests."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    found = base / ("ours.json" if ours else "schroot.json")

    def work(_it: Fork) -> None:
        enter_private_namespace()
        bind(base / "schroot", "/etc/schroot")
        for target in ("/run", "/var/lib/schroot", f"{base}/root"):
            mount("none", target, "tmpfs")
        make_chroot(base / "root")
        for directory in ("/run/lock", "/run/schroot/mount"):
            os.makedirs(directory)
        for directory in ("session", "unpack", "union/overlay", "union/underlay"):
            os.makedirs(f"/var/lib/schroot/{directory}")
        if ours:  # as what is installed has it: scripts that are stock are not taken from there
            mount("none", "/etc/schroot/setup.d", "tmpfs")
        environment = {
            "PATH": f"{base}/ours:{path}" if ours else path,
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "SHELL": "/bin/bash",
            "TERM": "dumb",
        }
        results = [one(line.format(base=base) if "{base}" in line else line, environment) for line in LINES]
        found.write_text(json.dumps(results))

    process = fork(work)
    complaint = process.ask()
    assert process.wait() == 0, complaint
    return [(status, output, errors) for status, output, errors in json.loads(found.read_text())]


def one(line: str, environment: dict[str, str]) -> Result:
    result = subprocess.run(
        ["/bin/sh", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, cwd="/", env=environment, timeout=60
    )
    return result.returncode, masked(result.stdout.decode()), masked(result.stderr.decode())


def masked(text: str) -> str:
    """The text without what has to differ: made-up names, the date, and where sessions are kept."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", text)
    text = re.sub(r"(generated by schroot 1\.6\.13 on) .*", r"\1 DATE", text)
    text = re.sub(r"(/var)?/run/schroot/mount", "MOUNT", text)
    text = re.sub("/var/lib/schroot/(session|ours/sessions)(?=[/’])", "SESSIONS", text)
    return text.replace("/var/lib/schroot/ours/", "/var/lib/schroot/")


@pytest.fixture(scope="module")
def theirs(base: Path) -> list[Result]:
    return run_all(base, ours=False)


@pytest.fixture(scope="module")
def mine(base: Path) -> list[Result]:
    return run_all(base, ours=True)


@pytest.mark.parametrize("number", range(len(LINES)), ids=LINES)
def test_same(number: int, theirs: list[Result], mine: list[Result]) -> None:
    assert theirs[0][0] == 0, theirs[0]
    assert mine[number] == theirs[number]
