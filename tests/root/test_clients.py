"""sbuild, autopkgtest and piuparts do with our schroot in the place of Debian's what they do with that.

Each runs twice, on a machine of its own (clientside.py): the verdicts are the same, and nothing is left.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import sources
from debian import SUITE, Debian

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import world

CHROOTS = """\
[ov]
type=directory
description=Debian, as a directory tree under an overlay
directory={tree}
union-type=overlay
profile=sbuild
groups=root,sbuild
root-groups=root,sbuild
source-groups=root,sbuild

[tar]
type=file
description=Debian, as an archive
file={archive}
profile=sbuild
groups=root,sbuild
root-groups=root,sbuild
"""
# The path is what else would tell two builds of a package apart.
SBUILD = ("sbuild", f"--dist={SUITE}", "--no-run-lintian", "--nolog", "--build-path=/build/package")


@dataclass(frozen=True)
class Outcome:
    """What became of one run: `made` are the files that were asked for, with their checksums."""

    status: int
    output: str
    taken_s: float
    made: dict[str, str]


@dataclass(frozen=True)
class Both:
    """A client under Debian's schroot, and under ours."""

    theirs: Outcome
    ours: Outcome


Compare = Callable[..., Both]


@pytest.fixture
def compare(original: Debian, disk: Path, tell: Callable[[str], None]) -> Compare:
    """Runs a client on both sides, and tells how long it took there; `inputs` are copied to where it runs."""

    def run_both(what: str, *argv: str, archive: bool = False, inputs: tuple[Path, ...] = ()) -> Both:
        theirs, ours = (
            _run(disk / side, original, argv, inputs, archive, side == "ours") for side in ("theirs", "ours")
        )
        tell(f"{what}: schroot {theirs.taken_s:.1f} s, ours {ours.taken_s:.1f} s")
        return Both(theirs, ours)

    return run_both


def _run(
    base: Path, original: Debian, argv: tuple[str, ...], inputs: tuple[Path, ...], archive: bool, ours: bool
) -> Outcome:
    out = base / "out"
    out.mkdir(parents=True)
    for path in inputs:
        shutil.copy(path, out)
    # Debian's takes no link, and not the usual name for such an archive.
    packed = base / "debian.tar.zstd"
    if archive:
        shutil.copyfile(original.archive, packed)
    asked = {
        "base": f"{base}",
        "ours": ours,
        "chroots": CHROOTS.format(tree=original.tree, archive=packed),
        "argv": argv,
        "directory": f"{out}",
    }
    (base / "asked").write_text(json.dumps(asked))
    with world.start(Path(__file__).with_name("clientside.py"), f"{base}/asked") as process:
        told, _nothing = process.communicate()
    assert process.returncode == 0, told
    found = json.loads(told)
    assert found["left"] == [], found["output"]
    made = {
        f"{path.relative_to(out)}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in {given.name for given in inputs}
    }
    return Outcome(found["status"], found["output"], found["taken_s"], made)


def section(output: str, title: str) -> str:
    """What sbuild prints under a title."""
    found = re.search(rf"^\| {title} +\|\n\+-+\+\n(.*?)(?=^\+-+\+$|\Z)", output, re.MULTILINE | re.DOTALL)
    assert found, output[-4000:]
    return found[1]


@pytest.mark.parametrize("chroot", ["ov", "tar"])
def test_sbuild(chroot: str, compare: Compare, disk: Path) -> None:
    """A package is built from source, and it is the same package to the byte."""
    description = sources.description(sources.BUILT, disk)
    both = compare(
        f"sbuild {description.name} in {chroot}", *SBUILD, f"--chroot={chroot}", f"{description}", archive=True
    )
    for side in (both.theirs, both.ours):
        assert side.status == 0, side.output[-6000:]
        assert "\nStatus: successful\n" in section(side.output, "Summary")
    debs = [
        {name: sum_ for name, sum_ in side.made.items() if name.endswith(".deb")} for side in (both.theirs, both.ours)
    ]
    assert debs[0] == debs[1] and len(debs[0]) == 1
    assert both.theirs.made.keys() == both.ours.made.keys()
    titles = [re.findall(r"^\| (.+?) +\|$", side.output, re.MULTILINE) for side in (both.theirs, both.ours)]
    assert titles[0][1:] == titles[1][1:]  # the first is the time
    assert section(both.theirs.output, "Package contents") == section(both.ours.output, "Package contents")


def test_sbuild_of_a_package_that_does_not_build(compare: Compare, disk: Path) -> None:
    """The same bad news: status, verdict, and the stage that failed."""
    description = sources.make(disk, **{"trial.c": "#error on purpose\n"})
    both = compare("sbuild of what does not build", *SBUILD, "--chroot=ov", f"{description}")
    verdicts = [
        (side.status, re.findall(r"^(Status|Fail-Stage): (.*)$", side.output, re.MULTILINE), [*side.made])
        for side in (both.theirs, both.ours)
    ]
    assert verdicts[0] == verdicts[1]
    assert verdicts[0][0] != 0 and ("Fail-Stage", "build") in verdicts[0][1]


def test_autopkgtest(compare: Compare, disk: Path) -> None:
    description = sources.description(sources.TESTED, disk)
    # What the mirror has of a package is tested; of one of our own, what is built of it.
    binaries = () if description.parent == disk else ("--no-built-binaries",)
    words = ("autopkgtest", "--setup-commands=apt-get --quiet update", "--output-dir=results", *binaries)
    both = compare(f"autopkgtest {description.name}", *words, f"{description}", "--", "schroot", "ov")
    for side in (both.theirs, both.ours):
        assert side.status == 0, side.output[-6000:]
    summaries = [side.made["results/summary"] for side in (both.theirs, both.ours)]
    assert summaries[0] == summaries[1]
    assert both.theirs.made.keys() == both.ours.made.keys()
    results = [
        re.findall(r"^\S+ +(?:PASS|FAIL|SKIP).*$", side.output, re.MULTILINE) for side in (both.theirs, both.ours)
    ]
    assert results[0] == results[1] and results[0][0].endswith("PASS")


CREATE = """
mkdir upper work target
mount -t overlay -o lowerdir=$1,upperdir=$PWD/upper,workdir=$PWD/work none target
sbuild-createchroot --setup-only --alias=mine --command-prefix=env,PREFIXED=yes bookworm $PWD/target >log 2>&1 ||
    cat log
cat /etc/schroot/chroot.d/bookworm-*
schroot -l
session=$(schroot -b -c mine)
schroot -r -c $session -d / -- sh -c 'cat /etc/debian_chroot; echo $PREFIXED; id -u sbuild'
schroot -e -c $session
schroot -c source:bookworm-$(dpkg --print-architecture)-sbuild -d / -- true 2>&1
umount target
"""


def test_sbuild_createchroot(compare: Compare, original: Debian) -> None:
    """The configuration that the tool itself writes works at once, though not a word of it is changed."""
    both = compare("sbuild-createchroot", "sh", "-uc", CREATE, "sh", f"{original.tree}")
    outputs = [side.output.replace("/theirs/", "/ours/") for side in (both.theirs, both.ours)]
    assert outputs[0] == outputs[1]
    assert re.search(r"^chroot:mine$", outputs[1], re.MULTILINE), outputs[1]
    assert re.search(r"^bookworm-\w+-sbuild\nyes\n\d+$", outputs[1], re.MULTILINE), outputs[1]


def test_piuparts(compare: Compare, disk: Path) -> None:
    """It looks at the session's files from the host, which is where it finds what a package has left behind."""
    package = sources.make_binary(disk)
    words = ("piuparts", "--schroot=ov", f"--distribution={SUITE}", "--no-upgrade-test", "--warn-on-others")
    both = compare("piuparts", *words, f"{package}")
    verdicts = [
        (side.status, re.findall(r"^\S+ (?:ERROR|INFO|WARN): ((?:FAIL|PASS|WARN).*)$", side.output, re.MULTILINE))
        for side in (both.theirs, both.ours)
    ]
    assert verdicts[0] == verdicts[1]
    assert verdicts[0][1]
    # The package leaves one file on purpose.
    for side in (both.theirs, both.ours):
        assert "/var/lib/trial-was-here" in side.output, side.output[-6000:]
