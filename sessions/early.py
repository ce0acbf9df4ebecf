"""State while the state directory cannot be written to, as early at boot or late at shutdown: in the runtime directory.

Sessions, maintenance locks, layers and unpacked archives then go to a place there that is laid out in the same way, and
everybody looks in both. As soon as a command finds the state directory writable it carries journals and locks over;
layers and archives stay where they are, which the journals say, until their sessions end or the machine restarts.

A journal is carried over under its session's lock, and not while a command runs inside, which holds a lock on the file
itself. It is published in its new place, and then removed from the old one. Where it is in both, somebody was killed in
between: the new one counts, and whoever next opens it to act on the session removes the old one.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from sessions import events, store
from sessions.data import replace
from sessions.errors import SessionsError
from sessions.events import Event
from sessions.linux import files, trace
from sessions.linux.publish import publish
from sessions.locks import session_lock
from sessions.model import Chroot, File, Places, Session

_BLOCK_BYTES = 512


def chosen(places: Places) -> Places:
    """The places where new state goes: these, or the early ones while the state directory cannot be written to."""
    path = places.journal_dir
    if os.access(path, os.W_OK):
        return places
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return places if os.access(path, os.W_OK) else places.early


def adapted(chroot: Chroot, places: Places, to: Places) -> Chroot:
    """The chroot with the layers of its sessions in other places, unless it names a directory of its own for them.

    There an archive is unpacked for each session: that place is in memory, and no place for a cache.
    """
    union = chroot.union
    if to is places or not union.is_used:
        return chroot
    usual = {places.overlay_dir: to.overlay_dir, places.underlay_dir: to.underlay_dir}
    overlay, underlay = union.overlay_directory, union.underlay_directory
    union = replace(
        union,
        overlay_directory=usual.get(overlay, overlay),
        underlay_directory=usual.get(underlay, underlay),
    )
    source = replace(chroot.source, archive_cache=False) if isinstance(chroot.source, File) else chroot.source
    return replace(chroot, union=union, source=source)


def has_data_there(session: Session) -> bool:
    """Whether a restart of the machine takes a layer or an unpacked archive of the session away."""
    top = f"{session.places.early_dir}/"
    return session.overlay_directory.startswith(top) or session.unpack_directory.startswith(top)


def carry_over(places: Places) -> None:
    """Carry over what there is, if the state directory can be written to by now; what cannot be stays for the next one.

    Never fails, and never waits: what somebody is acting on, or runs a command in, stays as well.
    """
    if not os.path.isdir(places.early_dir) or chosen(places) is not places:
        return
    try:
        with _alone(places.early_dir) as is_alone:
            journals = store.early_entries(places) if is_alone else []
            locks = files.names_in(places.early_maintenance_dir) if is_alone else []
            if journals or locks:
                store.prepare(places)
            for entry in journals:
                _carry_journal(places, entry)
            for name in locks:
                _carry_lock(places, name)
    except (SessionsError, OSError) as error:
        events.tell(places, Event.FAILURE, during="carry-over", error=str(error))


def found(places: Places, session_id: str) -> store.Entry:
    """The journal of a session that is to be acted on: what is in the early place is carried over first, if it can be.

    Raises NotFound.
    """
    entry = store.find(places, session_id)
    if not entry.is_early:
        return entry
    carry_over(places)
    return store.find(places, session_id)


@contextmanager
def _alone(directory: str) -> Iterator[bool]:
    """Whether nobody else carries anything over while the block lasts."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_alone = True
        except BlockingIOError:
            is_alone = False
        yield is_alone
    finally:
        os.close(fd)


def _carry_journal(places: Places, entry: store.Entry) -> None:
    try:
        with (
            session_lock(places.lock_dir, entry.id, signals_wait=True, timeout_s=0.0),
            _opened(entry.path) as (fd, status),
        ):
            # Whoever runs a command inside keeps `end` from it by a lock on this very file.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _publish_copy(fd, status, places.journal_dir, os.path.basename(entry.path))
            _unlink(entry.path)
    except (FileNotFoundError, BlockingIOError, SessionsError):
        return  # ended meanwhile; in use; somebody acts on it, or it is no file, of which every list tells
    events.tell(places, Event.CARRY_OVER, session=entry.id)


def _carry_lock(places: Places, name: str) -> None:
    path, new_path = f"{places.early_maintenance_dir}/{name}", f"{places.maintenance_dir}/{name}"
    try:
        with _opened(path) as (fd, status):
            published = _publish_copy(fd, status, places.maintenance_dir, name)
    except (FileNotFoundError, SessionsError):
        return
    try:
        _unlink(path)
    except FileNotFoundError:
        # Unlocked meanwhile, and so is what we have just made of it.
        if published and os.path.lexists(new_path) and os.path.samestat(os.lstat(new_path), published):
            _unlink(new_path)
        return
    events.tell(places, Event.CARRY_OVER, chroot=name)


@contextmanager
def _opened(path: str) -> Iterator[tuple[int, os.stat_result]]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise SessionsError(f"{path} is not a file", hint="look at it, then remove it")
        yield fd, status
    finally:
        os.close(fd)


def _publish_copy(fd: int, status: os.stat_result, directory: str, name: str) -> os.stat_result | None:
    """Make a copy of an open file that is on the disk when this returns; None if it was there already."""
    data = files.read_descriptor(fd)
    path = f"{directory}/{name}"
    trace.point("carry over", path)
    try:
        copy_fd = publish(
            directory,
            name,
            data,
            temporary=f".{os.getpid()}.{name}"[:255],
            reserved_bytes=max(len(data), status.st_blocks * _BLOCK_BYTES),
            is_synced=True,
        )
    except FileExistsError:
        if os.path.lexists(path):
            return None
        raise
    try:
        trace.point("carried over", path)
        return os.fstat(copy_fd)
    finally:
        os.close(copy_fd)


def _unlink(path: str) -> None:
    trace.point("remove carried", path)
    os.unlink(path)
    trace.point("removed carried", path)
