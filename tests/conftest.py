"""What all tests share: lines for the log of a run, shown even where every test passes."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from world import BASE

# Hypothesis draws the same examples each time, and a busy machine is no failure; SESSIONS_RANDOM=1 draws new ones.
settings.register_profile(
    "tests",
    deadline=None,
    database=None,
    derandomize="SESSIONS_RANDOM" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("tests")

# Whoever starts the tests in the background (nohup, a shell's &) may ignore signals, and what we start would, too.
for _signum in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGINT):
    if signal.getsignal(_signum) is signal.SIG_IGN:
        signal.signal(_signum, signal.default_int_handler if _signum == signal.SIGINT else signal.SIG_DFL)

TOLD = "told"


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Adds a line to the end of the log."""

    def add(line: str) -> None:
        print(line)
        request.node.user_properties.append((TOLD, line))

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for several in terminalreporter.stats.values() for report in several]
    ended = [report for report in reports if getattr(report, "when", "") == "teardown"]
    lines = [line for report in ended for name, line in report.user_properties if name == TOLD]
    if lines:
        terminalreporter.section("what was run")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def disk() -> Iterator[Path]:
    """An empty directory on a real disk, for overlay layers and archives; pytest's own may be on a tmpfs."""
    path = Path(tempfile.mkdtemp(prefix="sessions-test-", dir=BASE))
    yield path
    shutil.rmtree(path)
