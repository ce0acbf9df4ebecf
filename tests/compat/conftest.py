"""At the end, how many cases were equal, and how many differed on purpose."""

from __future__ import annotations

from collections import Counter

import comparing
import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts = Counter(comparing.outcomes)
    equal, total = counts.pop("equal", 0), len(comparing.outcomes)
    if total:
        terminalreporter.section("beside Debian's schroot 1.6.13")
        terminalreporter.write_line(f"{equal} of {total} cases equal, {total - equal} differ on purpose:")
        for name, count in sorted(counts.items()):
            terminalreporter.write_line(f"  {name}: {count}")
