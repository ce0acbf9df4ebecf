"""Whole databases of the host's name service, for the session's /etc: always read before any root is changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache

from sessions.errors import SessionsError
from sessions.linux import files, run

NSSWITCH = "/etc/nsswitch.conf"
# Sockets of those that nss-systemd(8) asks; without one it has nobody to list that the files do not.
USERDB = "/run/systemd/userdb"
# Sources that answer single questions but have nothing to list, so that getent(1) prints no more than the file holds.
_WITHOUT_A_LIST = frozenset(
    ("dns", "myhostname", "resolve", "mdns", "mdns4", "mdns6", "mdns4_minimal", "mdns6_minimal")
)
_LIBRARY_PATTERNS = (
    "/lib/*/libnss_{}.so.2",
    "/usr/lib/*/libnss_{}.so.2",
    "/lib*/libnss_{}.so.2",
    "/usr/lib*/libnss_{}.so.2",
)


def dump(databases: Sequence[str]) -> list[bytes]:
    """Everything in each of the databases, such as passwd, in the format of its file.

    The file itself where nothing else adds to it, else what getent(1) prints; getents run side by side. Raises
    SessionsError if the host has no such database.
    """
    sources = _sources()
    asked = {source for name in databases for source in sources.get(name, ())}
    has_users = "systemd" in asked and bool(_entries(USERDB))
    others = [name for name in databases if not _is_file_only(name, sources.get(name, ()), has_users)]
    started = {name: run.start_call(["getent", name], package="libc-bin") for name in others}
    return [_printed(name, started[name]) if name in started else _file(name) for name in databases]


def _file(database: str) -> bytes:
    try:
        return files.read_whole(f"/etc/{database}")
    except FileNotFoundError:
        raise SessionsError(
            f"the host has no {database} database",
            hint=f"take {database} out of the nssdatabases of the profile, or: apt-get install netbase",
        ) from None


def _printed(database: str, call: run.Call) -> bytes:
    outcome = call.finish()
    if outcome.status in (1, 2):
        # getent(1): 1 for a database it does not know, 2 for one without an entry.
        return _file(database)
    if outcome.status != 0:
        raise SessionsError(f"getent {database} {outcome.reason()}", hint=f"see what 'getent {database}' says")
    return outcome.output


def _is_file_only(database: str, sources: Sequence[str], has_users: bool) -> bool:
    """Whether /etc/DATABASE is all there is to list: every other source is not installed or has nothing to list."""
    return not any(_adds(source, database, has_users) for source in sources)


def _adds(source: str, database: str, has_users: bool) -> bool:
    """Whether a source of nsswitch.conf may list more than the file; in doubt it may."""
    if source == "files" or source in _WITHOUT_A_LIST:
        return False
    if source == "db":
        return os.path.exists(f"/var/lib/misc/{database}.db")
    if source == "systemd" and not has_users:
        return False
    if source == "compat":
        return True
    import glob  # most hosts need it for nothing

    return any(glob.glob(pattern.format(source)) for pattern in _LIBRARY_PATTERNS)


def _entries(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _sources() -> dict[str, list[str]]:
    """The sources that nsswitch.conf(5) names for each database; one that it does not name has its file alone."""
    try:
        return _sources_in(files.read_whole(NSSWITCH))
    except FileNotFoundError:
        return {}


@lru_cache(maxsize=1)
def _sources_in(text: bytes) -> dict[str, list[str]]:
    found = {}
    for line in text.decode(errors="replace").splitlines():
        name, _colon, rest = line.partition("#")[0].partition(":")
        found[name.strip()] = [word for word in rest.split() if not word.startswith("[") and not word.endswith("]")]
    return found
