"""What the campaigns share."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator

import pytest
import world


@pytest.fixture(scope="module")
def etc() -> Iterator[str]:
    """A copy of /etc that nobody changes."""
    with tempfile.TemporaryDirectory(prefix="sessions-test-", dir=world.BASE) as path:
        subprocess.run(["cp", "-a", "/etc/.", path], check=True)
        yield path
