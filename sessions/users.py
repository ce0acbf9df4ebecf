"""Users of the host, looked up through its name service before any root is changed."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable

from sessions.errors import NeedsRoot, UnknownUser
from sessions.model import Identity


def find(name: str) -> Identity:
    """The user called `name`, with the groups the host's databases give; raises UnknownUser."""
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):
        raise UnknownUser(name) from None
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Identity(
        entry.pw_uid, entry.pw_gid, entry.pw_name, _group(entry.pw_gid), groups, entry.pw_dir, entry.pw_shell
    )


def caller() -> Identity:
    """The user this process runs as, with the gid and the groups the process has; raises UnknownUser."""
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        raise UnknownUser(str(os.getuid())) from None
    gid = os.getgid()
    return Identity(entry.pw_uid, gid, entry.pw_name, _group(gid), tuple(os.getgroups()), entry.pw_dir, entry.pw_shell)


def group_ids(names: Iterable[str]) -> dict[str, int]:
    """The ids of groups by their names; those that the host does not have are left out."""
    found = {}
    for name in names:
        import grp

        try:
            found[name] = grp.getgrnam(name).gr_gid
        except (KeyError, ValueError):
            continue
    return found


def _group(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def need_root() -> None:
    """Raise NeedsRoot unless this process may mount and change its root."""
    if os.geteuid() != 0:
        raise NeedsRoot(
            "sessions are begun, entered and ended by root", hint="run this as root, with sudo for instance"
        )
