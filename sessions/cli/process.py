"""The process of a command: short, so that it begins without what only pays in long ones, and ends at once."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable

from sessions.data import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn

# So many objects more than there were, and cycles among them are looked for: by no command that ends soon.
_MANY_OBJECTS = 100_000


def run(command: Callable[[], int]) -> NoReturn:
    """Run the command and exit with the status it gives; what it has printed is written first."""
    gc.set_threshold(_MANY_OBJECTS)
    status = command()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    # Taking the interpreter down in good order costs milliseconds, and nothing is left in it to be saved.
    os._exit(status)
