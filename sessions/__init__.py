"""chroot-sessions: sessions of chroots that leave nothing behind.

>>> import sessions
>>> with sessions.begin("bookworm") as session:            # doctest: +SKIP
...     result = session.run(["cat", "/etc/debian_version"], capture=True)

The names below are loaded when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from sessions.data import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from sessions.api import OpenSession, Result, begin, list_sessions, open_session
    from sessions.errors import SessionsError

__version__ = "0.1.0"
__all__ = ["OpenSession", "Result", "SessionsError", "begin", "list_sessions", "open_session"]


def __getattr__(name: str) -> Any:
    if name == "SessionsError":
        from sessions.errors import SessionsError

        return SessionsError
    if name in __all__:
        from sessions import api

        return getattr(api, name)
    raise AttributeError(f"module 'sessions' has no attribute {name!r}")
