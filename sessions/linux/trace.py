"""Named points before and after every effect, so that a test can end the process at any of them.

Production code only ever calls :func:`point`; with no hook set that is one comparison.
"""

from __future__ import annotations

from collections.abc import Callable

hook: Callable[[str], None] | None = None


def point(where: str, what: object = "") -> None:
    """Tell the hook, if a test has set one, that the process has come to `where`, and on which object."""
    if hook is not None:
        hook(f"{where} {what}")
