"""The sessions there are: the directory of journals, where each file's name tells the session, chroot and owner."""

from __future__ import annotations

import os
from collections.abc import Iterator

from sessions.data import Frozen
from sessions.errors import JournalError, NeedsRoot, NotFound
from sessions.journal import Journal, open_existing
from sessions.linux import files
from sessions.model import Places


class Entry(Frozen):
    """A journal by its name alone, not opened."""

    path: str
    id: str
    checksum: str
    """Which chroot it is of: journal.checksum of its full name."""
    owner_mark: str
    """The mark of an automatic session's owner (see sessions.owners); empty for one that was begun to last."""


def prepare(places: Places) -> None:
    """Make the directories that sessions need, closed to everybody but root; raises SessionsError if that fails."""
    for path, mode in (
        (places.state_dir, 0o755),
        (places.journal_dir, 0o700),
        (places.runtime_dir, 0o755),
        (places.lock_dir, 0o700),
        (places.waiting_dir, 0o700),
        (places.maintenance_dir, 0o700),
    ):
        files.ensure_own_directory(path, mode)


def entries(places: Places) -> list[Entry]:
    """Every journal there is, in the order of the sessions' names; raises NeedsRoot for who may not look."""
    return [_entry(places, name) for name in sorted(_names(places)) if "," in name and not name.startswith(".")]


def _names(places: Places) -> list[str]:
    try:
        return os.listdir(places.journal_dir)
    except FileNotFoundError:
        return []
    except PermissionError:
        raise NeedsRoot(f"the sessions in {places.journal_dir} are root's", hint="run this as root") from None


def _entry(places: Places, name: str) -> Entry:
    session_id, _comma, rest = name.partition(",")
    checksum, _comma, owner_mark = rest.partition(",")
    return Entry(os.path.join(places.journal_dir, name), session_id, checksum, owner_mark)


def find(places: Places, session_id: str) -> Entry:
    """The journal of a session; raises NotFound."""
    prefix = f"{session_id},"
    for name in _names(places):
        if name.startswith(prefix):
            return _entry(places, name)
    raise NotFound(f"{session_id}: no such session", (session_id,), hint="see: sessions list")


def exists(places: Places, session_id: str) -> bool:
    """Whether there is a session of that name."""
    prefix = f"{session_id},"
    return any(name.startswith(prefix) for name in _names(places))


def open_session(places: Places, session_id: str, *, for_marks: bool) -> Journal:
    """Open a session's journal; raises NotFound, or JournalError if the journal cannot be used."""
    try:
        return open_existing(find(places, session_id).path, for_marks=for_marks)
    except FileNotFoundError:
        raise NotFound(f"{session_id}: no such session", (session_id,), hint="see: sessions list") from None


def open_found(places: Places, entry: Entry, *, for_marks: bool) -> Journal:
    """Open a journal that was found, or that of a session that has its name by now; raises as :func:`open_session`."""
    try:
        return open_existing(entry.path, for_marks=for_marks)
    except FileNotFoundError:
        return open_session(places, entry.id, for_marks=for_marks)


def read_all(places: Places) -> Iterator[Journal | JournalError]:
    """Every session's journal, closed again, or the error it gave; one that ends meanwhile is left out."""
    for entry in entries(places):
        try:
            with open_existing(entry.path, for_marks=False) as journal:
                yield journal
        except FileNotFoundError:
            continue
        except JournalError as error:
            yield error
