"""Which unpacked archives go: those that nobody uses and nobody will, or not soon, or that there is no room for."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from sessions import archivecache, archiveidentity, events, keytypes, store
from sessions.archivecache import Entry
from sessions.config.configuration import Configuration
from sessions.data import Frozen
from sessions.errors import JournalError, SessionsError
from sessions.events import Event
from sessions.model import Places

# A begin that has to unpack takes so many away at most: it is not to wait for all that others have left.
_MOST_AT_A_BEGIN = 2
IN_USE = "a session uses it"


class Unneeded(Frozen):
    """A tree that is to go, and why."""

    entry: Entry
    reason: str


def unneeded(places: Places, configuration: Configuration) -> list[Unneeded]:
    """Every tree that nobody uses and that is to go by now, the one first that was used least lately."""
    found = archivecache.entries(places)
    used = in_use(places) if found else None
    if used is None:
        return []
    age_s = keytypes.age_s(str(configuration.whole["archive-cache-age"]))
    unused = [entry for entry in found if entry.path not in used]
    reasons = {entry: _why_not_wanted(entry, age_s) for entry in unused}
    too_many_bytes = sum(entry.size_bytes for entry in found) - _most_bytes(places, configuration)
    too_many_bytes -= sum(entry.size_bytes for entry in unused if reasons[entry])
    for entry in unused:
        if not reasons[entry] and too_many_bytes > 0:
            reasons[entry] = "there is no room for all, and it was not used for longest"
            too_many_bytes -= entry.size_bytes
    return [Unneeded(entry, reason) for entry, reason in reasons.items() if reason]


def _most_bytes(places: Places, configuration: Configuration) -> int:
    known = os.statvfs(places.archive_dir)
    return keytypes.size_bytes(str(configuration.whole["archive-cache-size"]), known.f_blocks * known.f_frsize)


def _why_not_wanted(entry: Entry, age_s: int) -> str:
    """Why nobody will ask for a tree any more, or not soon; empty if somebody may."""
    if not archivecache.is_usable(entry.path):
        return "the machine was restarted before all of it was on the disk"
    if entry.record is None:
        return "nothing is known of it"
    if time.time_ns() - entry.used_ns > age_s * 1_000_000_000:
        return "it was not used for long"
    try:
        return "" if archiveidentity.may_be_of(entry.path, entry.record) else "its archive has changed"
    except FileNotFoundError:
        return "its archive is gone"
    except OSError:
        return ""


def in_use(places: Places) -> set[str] | None:
    """The trees that sessions name in their journals; None if one cannot be read, which may name any."""
    used = set()
    for journal in store.read_all(places):
        if isinstance(journal, JournalError):
            return None
        if journal.session.cached:
            used.add(journal.session.cached.path)
    return used


def evict(places: Places, one: Unneeded) -> str:
    """Take a tree away if nobody uses it now that nobody can begin to; why not."""

    def why_not() -> str:
        used = in_use(places)
        return IN_USE if used is None or one.entry.path in used else ""

    reason = archivecache.take_away(one.entry.path, why_not)
    if not reason:
        record = one.entry.record
        archive = record.archive if record else ""
        about: dict[str, events.Value] = {"name": one.entry.path, "archive": archive, "bytes": one.entry.size_bytes}
        events.tell(places, Event.EVICTED, reason=one.reason, **about)
    return reason


def make_room(places: Places, configuration: Configuration) -> None:
    """Before an archive is unpacked: take away a few trees that are to go in any case. What cannot be, stays."""
    try:
        for one in unneeded(places, configuration)[:_MOST_AT_A_BEGIN]:
            evict(places, one)
    except (SessionsError, OSError) as error:
        events.tell(places, Event.FAILURE, during="make-room", error=str(error))


def keep(places: Places) -> None:
    """What whoever unpacked the trees had no time for: let them outlive a restart, and be known by their digests.

    One that was used in the future, as it seems since the clock was set back, was used now.
    """
    for entry in archivecache.entries(places):
        with archivecache.held(entry.path) as fd:
            if fd is not None:
                if entry.record and not entry.record.digest:
                    with suppress(SessionsError, OSError):  # the archive is gone, or not what it was
                        archiveidentity.complete_record(entry.path, entry.record)
                archivecache.sync(fd, entry.path)
                if entry.used_ns > time.time_ns():
                    archivecache.touch(fd)
