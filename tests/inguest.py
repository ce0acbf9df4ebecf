"""Tests that run inside a guest, each reported outside as a test of its own.

    items[:] = proxies(session, items, directory)         in pytest_collection_modifyitems of a conftest

Where this machine's kernel has no device mapper, every test below the directory is replaced by an :class:`InGuest` of
the same name. The first of them to run boots one user-mode Linux guest, in which this file, as a program, runs pytest
on all of them; each waits for its own result. A guest that dies is an error of every test that it still owed.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from guest import CHECKOUT, DISK, Guest, GuestError, available

LONGEST_S = 7200 if os.environ.get("SESSIONS_CRASH_PAIRS") == "all" else 900
MEMORY_MB, DISK_MB = 768, 3072
MARK = "@test "


def needs_guest() -> bool:
    """Whether the kernel has no device mapper, and a guest is to be had: in a guest there is none."""
    is_guest = "User Mode Linux" in Path("/proc/cpuinfo").read_text()
    return not is_guest and "device-mapper" not in Path("/proc/misc").read_text()


def proxies(session: pytest.Session, items: Iterable[pytest.Item], directory: Path) -> list[pytest.Item]:
    """The items, with those below the directory replaced, but for those that boot guests of their own."""
    if not needs_guest():
        return list(items)
    inside = Inside(session.config)
    found: list[pytest.Item] = []
    for item in items:
        if directory in item.path.parents and item.get_closest_marker("guest") is None:
            assert item.parent is not None
            proxy = InGuest.from_parent(item.parent, name=item.name, inside=inside)
            proxy.own_markers = item.own_markers
            proxy.keywords.update(item.keywords)
            item = proxy
        found.append(item)
    return found


class Failed(Exception):
    """A test has failed inside; the message is what pytest says of it there."""


class InGuest(pytest.Item):
    """The outside of a test that runs inside."""

    def __init__(self, *, inside: Inside, **how: Any) -> None:
        super().__init__(**how)
        self.inside = inside

    def runtest(self) -> None:
        """Wait for the result, starting the guest if need be."""
        result = self.inside.result_of(self)
        self.user_properties += [(name, value) for name, value in result["properties"]]
        if result["failures"]:
            raise Failed("\n".join(result["failures"]))

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where it is, and its name, for headings."""
        return self.path, None, self.name

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The words of the pytest inside are enough."""
        return str(excinfo.value) if isinstance(excinfo.value, Failed) else super().repr_failure(excinfo, style)


class Inside:
    """The guest of one run of pytest."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._guest: Guest | None = None
        self._owed: set[str] = set()
        self._error: GuestError | None = None

    def result_of(self, item: InGuest) -> dict[str, Any]:
        """What came of a test: properties, and the words of each phase that failed."""
        if self._error is not None:
            raise self._error
        mark = f"{MARK}{json.dumps(item.nodeid)} "
        try:
            if self._guest is None:
                ids = [one.nodeid for one in item.session.items if isinstance(one, InGuest)]
                self._guest, self._owed = self._start(ids), set(ids)
            output = self._guest.wait_for(mark, LONGEST_S)
            self._owed.discard(item.nodeid)
            if not self._owed:
                self._guest.kill()  # tests after this one look for processes that are left
        except GuestError as error:
            self._error = error
            raise
        result: dict[str, Any] = json.loads(output.partition(mark)[2].partition("\n")[0])
        return result

    def _start(self, ids: Sequence[str]) -> Guest:
        assert available() is None, available()
        work = tempfile.TemporaryDirectory(prefix="sessions-test-", dir=DISK)
        self._config.add_cleanup(work.cleanup)
        guest = Guest(Path(work.name), memory_mb=MEMORY_MB, disk_mb=DISK_MB)
        self._config.add_cleanup(guest.kill)
        passed_on = {name: value for name, value in os.environ.items() if name.startswith("SESSIONS_")}
        guest.start([sys.executable, __file__, *ids], env=passed_on, cwd=str(CHECKOUT))
        return guest


@dataclass
class Teller:
    """The plugin of the pytest inside: a line for each test when it is over."""

    say: Callable[[str], None]
    failures: list[str]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:  # skipped, too: then nothing would have been shown
            parts = [f"{report.when} inside: {report.outcome}", report.longreprtext]
            self.failures.append("\n".join([*parts, *(f"--- {name}\n{text}" for name, text in report.sections)]))
        if report.when == "teardown":
            result = {"failures": self.failures, "properties": report.user_properties}
            self.say(f"\n{MARK}{json.dumps(report.nodeid)} {json.dumps(result)}\n")
            self.failures = []


def main() -> None:
    """Run pytest on the tests named; between its own words are the lines with what came of each."""
    fd = os.dup(1)

    def say(text: str) -> None:
        data = text.encode()
        while data:
            data = data[os.write(fd, data) :]

    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]], [Teller(say, [])]))


if __name__ == "__main__":
    main()
