"""The sessions there are: the directory of journals, where each file's name tells the session, chroot and owner."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from sessions.data import Frozen
from sessions.errors import JournalError, NeedsRoot, NotFound
from sessions.journal import Journal, open_existing
from sessions.linux import files, trace
from sessions.model import Places


class Entry(Frozen):
    """A journal by its name alone, not opened."""

    path: str
    id: str
    checksum: str
    """Which chroot it is of: journal.checksum of its full name."""
    owner_mark: str
    """The mark of an automatic session's owner (see sessions.owners); empty for one that was begun to last."""
    is_early: bool = False
    """Whether it is in the early place (see sessions.early)."""


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
    return _in_order(entry_of(places, path) for path in paths(places))


def paths(places: Places) -> list[str]:
    """The paths of all journals, in no order: who needs few of them saves the making of entries.

    What is carried over from the early place is published in the state directory before it is gone from there, and the
    state directory is looked at last: so it is found in any case, and once.
    """
    early_dir, usual_dir = places.early_journal_dir, places.journal_dir
    early, usual = _names(early_dir), _names(usual_dir)
    found = [f"{usual_dir}/{name}" for name in usual]
    if early:
        found += [f"{early_dir}/{name}" for name in set(early).difference(usual)]
    return found


def entries_of(places: Places, checksums: Iterable[str]) -> list[Entry]:
    """Every journal of these chroots, in the order of the sessions' names."""
    there, wanted = paths(places), set(checksums)
    # Nearly all names have none of them in any place, which is quick to see.
    candidates = {path for mark in [f",{checksum}" for checksum in wanted] for path in there if mark in path}
    return _in_order(entry for entry in (entry_of(places, path) for path in candidates) if entry.checksum in wanted)


def _in_order(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry.path.rpartition("/")[2])


def entry_of(places: Places, path: str) -> Entry:
    """What a journal's name says."""
    directory, _slash, name = path.rpartition("/")
    return _entry(directory, name, directory == places.early_journal_dir)


def is_early(places: Places, path: str) -> bool:
    """Whether a journal is in the early place."""
    return path.startswith(f"{places.early_dir}/")


def early_entries(places: Places) -> list[Entry]:
    """The journals in the early place (see sessions.early), in any order."""
    return [_entry(places.early_journal_dir, name, True) for name in _names(places.early_journal_dir)]


def _names(directory: str) -> list[str]:
    try:
        return [name for name in os.listdir(directory) if "," in name and not name.startswith(".")]
    except FileNotFoundError:
        return []
    except PermissionError:
        raise NeedsRoot(f"the sessions in {directory} are root's", hint="run this as root") from None


def _entry(directory: str, name: str, is_early: bool = False) -> Entry:
    session_id, _comma, rest = name.partition(",")
    checksum, _comma, owner_mark = rest.partition(",")
    return Entry(os.path.join(directory, name), session_id, checksum, owner_mark, is_early)


# Journals that this process has made, by their directory and session.
_MADE: dict[tuple[str, str], str] = {}
_MOST_MADE = 4096


def remember(journal: Journal) -> None:
    """Find a journal that was just made without a look at all the others."""
    if len(_MADE) >= _MOST_MADE:
        _MADE.clear()
    _MADE[os.path.dirname(journal.path), journal.session.id] = journal.path


def find(places: Places, session_id: str) -> Entry:
    """The journal of a session; raises NotFound."""
    made = _MADE.get((places.journal_dir, session_id))
    if made:
        # A name is never that of another session.
        if os.path.lexists(made):
            return entry_of(places, made)
        _MADE.pop((places.journal_dir, session_id), None)
    prefix = f"{session_id},"
    # The state directory once more, since it may have been carried over there meanwhile.
    usual, early = places.journal_dir, places.early_journal_dir
    for directory in (usual, early, usual):
        for name in _names(directory):
            if name.startswith(prefix):
                return _entry(directory, name, directory == early)
    raise NotFound(f"{session_id}: no such session", (session_id,), hint="see: sessions list")


def exists(places: Places, session_id: str) -> bool:
    """Whether there is a session of that name."""
    prefix = f"{session_id},"
    directories = (places.early_journal_dir, places.journal_dir)
    return any(name.startswith(prefix) for directory in directories for name in _names(directory))


def open_session(places: Places, session_id: str, *, for_marks: bool) -> Journal:
    """Open a session's journal; raises NotFound, or JournalError if the journal cannot be used.

    Who acts on the session, and so has its lock, also removes what somebody has left in the early place who was killed
    while he carried it over.
    """
    while True:
        entry = find(places, session_id)
        try:
            return _opened(places, entry, for_marks)
        except FileNotFoundError:
            continue  # ended or carried over: it is looked for again


def open_found(places: Places, entry: Entry, *, for_marks: bool) -> Journal:
    """Open a journal that was found, or that of a session that has its name by now; raises as :func:`open_session`."""
    if not entry.is_early:  # else it may be in the state directory too by now, where it counts
        try:
            return _opened(places, entry, for_marks)
        except FileNotFoundError:
            pass
    return open_session(places, entry.id, for_marks=for_marks)


def _opened(places: Places, entry: Entry, for_marks: bool) -> Journal:
    journal = open_existing(entry.path, for_marks=for_marks)
    if for_marks and not entry.is_early:
        path = f"{places.early_journal_dir}/{os.path.basename(entry.path)}"
        try:
            os.unlink(path)
            trace.point("removed carried", path)
        except FileNotFoundError:
            pass
    return journal


def read_all(places: Places) -> Iterator[Journal | JournalError]:
    """Every session's journal, closed again, or the error it gave; one that ends meanwhile is left out."""
    for entry in entries(places):
        try:
            with open_found(places, entry, for_marks=False) as journal:
                yield journal
        except NotFound:
            continue
        except JournalError as error:
            yield error
