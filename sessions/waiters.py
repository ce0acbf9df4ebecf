"""Who waits for a source, and who keeps one locked: small records that other processes read.

A waiter's record is a file ``CHROOT,TICKET,KIND,MARK`` in the runtime directory: tickets keep the order, the mark tells
the process (see sessions.owners). Tickets are given out under the chroot's manage lock; whoever waits removes its own
record, and a record whose process has proven to be gone is removed by the next one to look. A maintenance record is a
file named after the chroot in the state directory; it has an owner, as a waiter's has, until it is granted, and after
that only ``unlock`` removes it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from sessions import names, owners, records
from sessions.data import TYPE_CHECKING, Frozen
from sessions.errors import SessionsError
from sessions.linux import files, trace
from sessions.linux.publish import publish
from sessions.model import Owner, Places

if TYPE_CHECKING:
    from typing import Any

# The manage lock is held for less than a millisecond.
_POLL_S = 0.002


class Kind(StrEnum):
    """What a source is wanted for."""

    SESSION = "session"
    SOURCE = "source"
    """A session of the source: twin, which changes the original."""
    MAINTENANCE = "maintenance"


_KINDS = frozenset(Kind)


class Waiter(Frozen):
    """A record by its name alone."""

    path: str
    ticket: int
    kind: Kind
    owner_mark: str


class Details(Frozen):
    """What a record says inside; all unknown where it cannot be read."""

    owner: Owner | None = None
    user: str = ""
    since_ns: int = 0
    reason: str = ""


@contextmanager
def manage_lock(places: Places, chroot: str) -> Iterator[None]:
    """Alone change the records of a chroot. The file is removed while it is held: who gets it then tries again."""
    from filelock import FileLock  # only where somebody has to wait: it costs 30 ms to import

    files.ensure_own_directory(places.lock_dir, 0o700)
    path = os.path.join(places.lock_dir, f"{chroot},manage")
    with FileLock(path, mode=0o600, poll_interval=_POLL_S, thread_local=False, fallback_to_soft=False):
        try:
            yield
        finally:
            os.unlink(path)


def register(places: Places, chroot: str, kind: Kind, user: str) -> Waiter:
    """Take a ticket behind everybody who waits; the record stays until :func:`withdraw`."""
    owner = owners.this_process()
    marked = owners.mark(owner)
    with manage_lock(places, chroot):
        ticket = max((waiter.ticket for waiter in listed(places, chroot)), default=0) + 1
        name = f"{chroot},{ticket},{kind},{marked}"
        trace.point("register", name)
        _write(places.waiting_dir, name, {"owner": records.encode(owner), "user": user, "since_ns": time.time_ns()})
        trace.point("registered", name)
    return Waiter(os.path.join(places.waiting_dir, name), ticket, kind, marked)


def withdraw(waiter: Waiter) -> None:
    """Take a waiter's request away; one that is gone is success."""
    trace.point("withdraw", waiter.path)
    _unlink(waiter.path)
    trace.point("withdrawn", waiter.path)


def listed(places: Places, chroot: str = "") -> list[Waiter]:
    """Those who wait for a chroot, or for any, in the order of their tickets."""
    try:
        records_there = os.listdir(places.waiting_dir)
    except FileNotFoundError:
        return []
    found = []
    for name in records_there:
        whom, ticket, kind, marked = (*name.split(","), "", "", "")[:4]
        if names.is_valid(whom) and ticket.isdecimal() and kind in _KINDS and chroot in ("", whom):
            found.append(Waiter(os.path.join(places.waiting_dir, name), int(ticket), Kind(kind), marked))
    return sorted(found, key=lambda waiter: (waiter.ticket, waiter.path))


def is_gone(waiter: Waiter, realm: str) -> bool:
    """Whether the waiting process has proven to have ended; `realm` is :func:`owners.realm`."""
    if owners.pid_of(waiter.owner_mark, realm) is not None:
        return False
    if waiter.owner_mark.endswith(f".{realm}"):
        return True
    owner = details(waiter.path).owner
    return owner is not None and owners.is_gone(owner)


def ask_for_maintenance(places: Places, now: Places, chroot: str, user: str, reason: str) -> bool:
    """Write the maintenance record of a chroot, in the places where state goes `now`; False if there is one.

    It is this process's until it is granted.
    """
    if maintenance_path(places, chroot):
        return False
    trace.point("lock", chroot)
    value = {"owner": records.encode(owners.this_process()), **_maintenance_record(user, reason)}
    try:
        # Half written, after a power cut, it would be nobody's.
        _write(now.maintenance_dir, chroot, value, is_synced=True)
    except FileExistsError:
        return False
    trace.point("locked", chroot)
    return True


def grant_maintenance(places: Places, chroot: str, user: str, reason: str) -> None:
    """Write the record that :func:`ask_for_maintenance` has made again, so that it outlives the process."""
    path = maintenance_path(places, chroot)
    if not path:  # somebody has unlocked it meanwhile
        return
    temporary = _granted_path(path)
    _unlink(temporary)  # of one who was killed: nobody else can be granted what we have asked for
    record = _maintenance_record(user, reason)
    _write(os.path.dirname(path), os.path.basename(temporary), record, is_synced=True)
    trace.point("grant", chroot)
    os.rename(temporary, path)
    files.sync_directory(os.path.dirname(path))
    trace.point("granted", chroot)


def _granted_path(path: str) -> str:
    """Where a record is written before it takes the place of the one that asked."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}")


def _maintenance_record(user: str, reason: str) -> dict[str, Any]:
    return {"user": user, "since_ns": time.time_ns(), "reason": reason}


def is_forsaken(path: str) -> bool:
    """Whether a maintenance record is of a process that has proven to have ended before it was granted."""
    owner = details(path).owner
    return owner is not None and owners.is_gone(owner)


def drop_forsaken(places: Places, chroot: str) -> None:
    """Take away a maintenance record that is forsaken when nobody else can do that."""
    with manage_lock(places, chroot):
        path = maintenance_path(places, chroot)
        if is_forsaken(path):
            _unlink(_granted_path(path))
            _unlink(path)


def unlock(places: Places, chroot: str) -> bool:
    """Remove the maintenance record of a chroot; False if there is none."""
    # In this order: who is carrying it over has published it in the state directory before, or finds it gone after.
    was_early = _unlink(f"{places.early_maintenance_dir}/{chroot}")
    path = f"{places.maintenance_dir}/{chroot}"
    # Where nothing can be written, it is also an error to remove what is not there.
    if not (os.path.lexists(path) and _unlink(path)):
        return was_early
    files.sync_directory(places.maintenance_dir)
    return True


def maintenance_path(places: Places, chroot: str) -> str:
    """Where the maintenance record of a chroot is; empty if there is none.

    The state directory is looked at last: it is there before it is gone from the early place (see sessions.early).
    """
    paths = (f"{directory}/{chroot}" for directory in (places.early_maintenance_dir, places.maintenance_dir))
    return next(filter(files.is_there, paths), "")


def maintenance(places: Places, chroot: str) -> Details | None:
    """What the maintenance record of a chroot says, nothing if it cannot be read; None if there is none."""
    while path := maintenance_path(places, chroot):
        known = details(path)
        if known.user or os.path.lexists(path):
            return known
    return None


def details(path: str) -> Details:
    """What a record says; what is cut short, or not ours, says nothing."""
    try:
        value = json.loads(files.read_whole(path))
        owner = records.decode(Owner, value["owner"]) if "owner" in value else None
        return Details(owner, str(value["user"]), int(value["since_ns"]), str(value.get("reason", "")))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Details()


def _write(directory: str, name: str, value: dict[str, Any], *, is_synced: bool = False) -> None:
    try:
        temporary = f".{os.getpid()}.{name}"[:255]
        data = json.dumps(value).encode()
        os.close(publish(directory, name, data, temporary=temporary, is_synced=is_synced))
    except FileExistsError:
        raise
    except OSError as error:
        raise SessionsError(
            f"cannot write the record {directory}/{name}: {error.strerror}", hint="make room there, or make it writable"
        ) from error


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True
