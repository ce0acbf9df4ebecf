"""Tables of command lines that run through Debian's schroot 1.6.13 and through ours, and have to do the same.

A batch is a configuration and a table of shell lines, run in turn, each side in a world of its own (side.py). Where a
line is to differ, its end says so: ``#~ NAME: FIELDS``, the entry under DIFFERENCES of schroot(1) and what of status,
output, messages and log differs; the rest has to be equal all the same.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest
import world

SIDE = Path(__file__).with_name("side.py")
PAGE = Path(__file__).parents[2] / "man/schroot.1"
FIELDS = ("status", "output", "messages", "log")
USUAL_FILES = {"/etc/schroot/schroot.conf": ""}

_MARK = re.compile(r"\s*#~ (?P<name>[a-z-]+)(?:: (?P<fields>[a-z ]+))?$")

# Debian's schroot polls once a second, kills by name, and loses lines that its scripts and commands write as they end:
# on a busy machine a line may come out otherwise, so it is asked again. Ours has to say the right thing at once.
AGAIN = 2

# What the cases have shown: "equal", or the name of the entry by which they differ.
outcomes: list[str] = []


@dataclass(frozen=True)
class Case:
    """One line of a batch."""

    batch: Batch = field(repr=False, compare=False)
    number: int
    line: str
    differs: str = ""
    fields: frozenset[str] = frozenset()

    @property
    def pair(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What became of it, with Debian's schroot and with ours."""
        theirs, ours = self.batch.results
        return theirs[self.number], ours[self.number]

    def check(self) -> None:
        """Both sides are equal, but for the fields that differ on purpose."""
        theirs, ours = self.pair
        for attempt in range(AGAIN):
            if different(theirs, ours) == self.fields:
                break
            theirs = self.batch.debians_again(attempt)[self.number]
        assert different(theirs, ours) == self.fields, f"{self.line}\n{shown(theirs, ours)}"
        outcomes.append(self.differs or "equal")


def different(theirs: Sequence[str], ours: Sequence[str]) -> set[str]:
    """The fields that are not equal."""
    return {name for name, one, other in zip(FIELDS, theirs, ours, strict=True) if one != other}


def shown(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """Both sides: what is equal as it is, the rest as a difference."""
    lines = []
    for name, one, other in zip(FIELDS, theirs, ours, strict=True):
        if one == other:
            lines += [f"--- {name} of both: {one}"]
            continue
        lines += [f"--- {name}, - of Debian's and + of ours:"]
        lines += list(difflib.unified_diff(one.splitlines(), other.splitlines(), n=2, lineterm=""))[2:]
    return "\n".join(lines)


class Batch:
    """A configuration and the lines to run on it."""

    def __init__(self, configuration: str, table: str, files: Mapping[str, str] | None = None) -> None:
        self.files = {**USUAL_FILES, "/etc/schroot/schroot.conf": configuration, **(files or {})}
        self.cases = [self._case(number, line) for number, line in enumerate(_lines(table))]
        self._again: list[list[tuple[str, ...]]] = []

    def _case(self, number: int, line: str) -> Case:
        mark = _MARK.search(line)
        if not mark:
            return Case(self, number, line)
        fields = frozenset((mark["fields"] or "").split())
        assert fields <= set(FIELDS), line
        return Case(self, number, line[: mark.start()], mark["name"], fields)

    @property
    def each(self) -> pytest.MarkDecorator:
        """A test of every case."""
        return pytest.mark.parametrize("case", self.cases, ids=[case.line for case in self.cases])

    @cached_property
    def _both(self) -> list[dict[str, list[list[str]]]]:
        return run_both({"files": self.files, "lines": [case.line for case in self.cases]})

    @cached_property
    def results(self) -> list[list[tuple[str, ...]]]:
        """What became of each line: Debian's results and ours."""
        sides = [zip(self.cases, side["results"], strict=True) for side in self._both]
        return [[_comparable(case, result) for case, result in side] for side in sides]

    def debians_again(self, attempt: int) -> list[tuple[str, ...]]:
        """What becomes of each line on Debian's side when it is run once more, and alone."""
        while len(self._again) <= attempt:
            (side,) = run({"files": self.files, "lines": [case.line for case in self.cases]}, ["debian"])
            self._again.append([_comparable(case, it) for case, it in zip(self.cases, side["results"], strict=True)])
        return self._again[attempt]

    @property
    def left(self) -> list[list[str]]:
        """What ours has left behind when all lines had run."""
        return self._both[1]["left"]


def run_both(what: dict[str, object]) -> list[dict[str, list[list[str]]]]:
    """What came of it on Debian's side and on ours, each in a world of its own, at the same time."""
    return run(what, ["debian", "ours"])


def run(what: dict[str, object], sides: Sequence[str]) -> list[dict[str, list[list[str]]]]:
    """What came of it on each side."""
    with tempfile.TemporaryDirectory() as directory:
        asked = Path(directory) / "asked"
        asked.write_text(json.dumps(what))
        started = [world.start(SIDE, side, str(asked)) for side in sides]
        outputs = [side.communicate(timeout=300)[0] for side in started]
    assert not any(side.returncode for side in started), outputs
    return [json.loads(output) for output in outputs]


@dataclass(frozen=True)
class Call:
    """The words of a command line, files that are there for it, and what became of it on both sides."""

    words: list[str]
    texts: dict[str, str]
    theirs: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()

    def __str__(self) -> str:
        files = [f"{path}: {text!r}" for path, text in self.texts.items()]
        return "\n".join([f"schroot {shlex.join(self.words)}", *files, shown(self.theirs, self.ours)])


def run_calls(configuration: str, calls: Sequence[tuple[list[str], dict[str, str]]]) -> tuple[list[Call], list[str]]:
    """Every call with what became of it, and the directories that ours has made."""
    files = {**USUAL_FILES, "/etc/schroot/schroot.conf": configuration, "/etc/chroot-sessions/sessions.toml": ""}
    theirs, ours = run_both({"files": files, "calls": calls})
    masks = [[tuple(masked(str(text)) for text in result) for result in side["results"]] for side in (theirs, ours)]
    found = [Call(*call, *pair) for call, pair in zip(calls, zip(*masks, strict=True), strict=True)]
    return found, [*ours["left"], *ours["made"]]  # type: ignore[list-item]


def _comparable(case: Case, result: list[str]) -> tuple[str, ...]:
    """The fields, masked; what several have logged at once is in no order."""
    *fields, log = [masked(str(text)) for text in result]
    if " & " in case.line:
        log = "\n".join(sorted(log.splitlines()))
    return *fields, log


def _lines(table: str) -> list[str]:
    """The lines of a table without its comments."""
    return [line for line in table.splitlines() if line.strip() and not line.startswith("# ")]


def masked(text: str) -> str:
    """The text without what has to differ: made-up names, the date, and where sessions are kept."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", text)
    text = re.sub(r"(generated by schroot 1\.6\.13 on) .*", r"\1 DATE", text)
    text = re.sub(r"(/var)?/run/(schroot|chroot-sessions)/mount", "MOUNT", text)
    text = re.sub(r"/var/lib/(schroot/session|chroot-sessions/sessions)\b", "SESSIONS", text)
    text = re.sub(r"/var/lib/(schroot|chroot-sessions)/", "STATE/", text)
    text = re.sub(r"(?m)^<\d+>.* pam_unix\(.*\n", "", text)  # PAM is asked by schroot for root, too
    return re.sub(r"(?m)^(<\d+>).{15} (\S+?)(\[\d+\])?: ", r"\1 \2: ", text)


def batches_of(module: object) -> list[Batch]:
    """The batches that a test module has."""
    return [value for value in vars(module).values() if isinstance(value, Batch)]


def differences() -> list[str]:
    """The names of the entries under DIFFERENCES of schroot(1)."""
    text = PAGE.read_text().partition(".SH DIFFERENCES\n")[2].partition('.\\" DIFFERENCES end here.')[0]
    return re.findall(r"^\.TP\n\.B (\S+)$", text.replace("\\-", "-"), re.MULTILINE)


def differs(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Marks a test, rather than a line of a table, as one of a difference."""

    def mark(test: Callable[..., None]) -> Callable[..., None]:
        test.differs = name  # type: ignore[attr-defined]
        return test

    return mark
