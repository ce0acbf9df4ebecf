"""What those who have died have left behind: found, proven to be ours, and taken away.

Never a live session, and nothing that cannot be proven to be ours: of a journal that cannot be read, and of what lies
in places where others write too, there is only a report.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from functools import partial

from sessions import archivecache, early, events, eviction, lifecycle, names, owners, sources, store, waiters
from sessions.data import TYPE_CHECKING, Frozen
from sessions.engine import Settings
from sessions.errors import NotFound, SessionsError, TornJournal
from sessions.events import Event
from sessions.journal import Journal, State
from sessions.linux import files, mountinfo, proc, removal
from sessions.locks import is_locked, session_lock
from sessions.model import Places
from sessions.steps.files import STAMP_ATTRIBUTE
from sessions.steps.unmounting import holders, try_unmount, unmount_below

if TYPE_CHECKING:
    from sessions.steps.sharing import Shared

# Beside a session's mount point: its layer in memory, and where mount(8) mounts for it.
_BESIDE = re.compile(r"\.(.*)\.(?:layer|staging)")
# A directory that has no other name yet, or none any more, is called by its session's stamp.
_STAMP = re.compile(r"\.[0-9a-f]+")
# Who acts on a session has this long to be done. A process that was killed has children that it had just forked, which
# hold its locks until they, too, have heard of it.
_PATIENCE_S = 1.0
_IN_SOMEBODYS_HANDS = (State.STARTING, State.STOPPING)


class _IsSomebodys(Exception):
    """What seemed to be left behind is in use by now."""


class Finding(Frozen):
    """One thing that was left behind: its kind, its name or path, why it is known to be left, and what became of it."""

    kind: str
    name: str
    reason: str
    outcome: str
    is_left: bool = False
    """Whether it is still there, since it could not or must not be taken away."""


class Sweep(Frozen):
    """One look at everything; with `dry_run`, nothing is touched."""

    places: Places
    settings: Settings
    dry_run: bool

    def all(self) -> Iterator[Finding]:
        """Sessions first, since what belongs to them goes with them."""
        if not self.dry_run:
            early.carry_over(self.places)
        yield from self._sessions()
        yield from self._waiters()
        yield from self._maintenance()
        yield from self._directories()
        yield from self._archives()
        yield from self._elsewhere()
        yield from self._mounts()
        yield from self._volumes()
        yield from self._locks()

    def _take_away(self, kind: str, name: str, reason: str, act: Callable[[], str], done: str) -> Iterator[Finding]:
        """Do it; `act` says why not, if it may not be done after all. What is somebody's by then is nothing found."""
        if self.dry_run:
            yield Finding(kind, name, reason, f"would be {done}", is_left=True)
            return
        try:
            why_not = act()
            if not why_not and kind != "archive":  # of which the eviction itself has told
                events.tell(self.places, Event.REMOVAL, kind=kind, name=name, reason=reason)
        except _IsSomebodys:
            return
        except (SessionsError, OSError) as error:
            why_not = str(error)
            if kind != "session":  # of which the end itself has told
                events.tell(self.places, Event.FAILURE, during="gc", kind=kind, name=name, error=why_not)
        yield Finding(kind, name, reason, f"left: {why_not}" if why_not else done, is_left=bool(why_not))

    def _sessions(self) -> Iterator[Finding]:
        """Sessions that were left half way, or whose owner is gone, or that a restart of the machine has emptied."""
        for item in lifecycle.listed(self.places):
            if isinstance(item, TornJournal):
                act = partial(self._end, item.session_id, item.text)
                yield from self._take_away("session", item.session_id, item.text, act, "ended")
                continue
            if isinstance(item, SessionsError):
                yield Finding("journal", self.places.journal_dir, str(item), "left: it cannot be read", is_left=True)
                continue
            session_id, state = item.journal.session.id, item.state
            if state in _IN_SOMEBODYS_HANDS and not self.dry_run:
                state = self._state_when_let_go(item)
            reason = _why_dead(item.journal, state)
            if reason:
                act = partial(self._end, session_id, reason)
                yield from self._take_away("session", session_id, reason, act, "ended")

    def _state_when_let_go(self, item: lifecycle.Listed) -> State:
        """The state of a session as whoever acts on it leaves it, if that is soon."""
        session_id = item.journal.session.id
        try:
            with (
                session_lock(self.places.lock_dir, session_id, signals_wait=True, timeout_s=_PATIENCE_S),
                store.open_session(self.places, session_id, for_marks=False) as journal,
            ):
                return lifecycle.state_under_lock(journal)
        except SessionsError:
            return item.state

    def _end(self, session_id: str, reason: str) -> str:
        """End a session that is still dead when nobody else can change it; why it was not."""

        def is_still_dead(journal: Journal) -> bool:
            return bool(_why_dead(journal, lifecycle.state_under_lock(journal)))

        try:
            lifecycle.end(
                self.places, session_id, self.settings, kill_commands=True, only_if=is_still_dead, reason=reason
            )
        except NotFound:
            return ""
        if store.exists(self.places, session_id):
            raise _IsSomebodys
        return ""

    def _waiters(self) -> Iterator[Finding]:
        """Requests of processes that are gone."""
        realm = owners.realm()
        for waiter in waiters.listed(self.places):
            if waiters.is_gone(waiter, realm):
                name = os.path.basename(waiter.path)
                act = partial(_withdraw, self.places, waiter)
                yield from self._take_away("waiter", name, "its process is gone", act, "removed")

    def _maintenance(self) -> Iterator[Finding]:
        """Locks for maintenance whose process ended before it had them."""
        places = self.places
        for name in files.names_in(places.maintenance_dir) + files.names_in(places.early_maintenance_dir):
            if names.is_valid(name) and waiters.is_forsaken(waiters.maintenance_path(places, name)):
                act = partial(_drop_forsaken, places, name)
                yield from self._take_away("maintenance", name, "who asked died before it was granted", act, "removed")

    def _directories(self) -> Iterator[Finding]:
        """Layers and unpacked archives without a session, in the places that only we write."""
        places = self.places
        found = [
            f"{top}/{name}"
            for there in (places, places.early)
            for top in (there.unpack_dir, there.overlay_dir, there.underlay_dir)
            for name in files.names_in(top)
        ]
        # A journal is there before its directories, and these were listed before it.
        ids, stamps, are_all_read = self._known()
        for path in found:
            name = os.path.basename(path)
            # What has no name that we give, as the lost+found of a file system of its own, is not ours.
            if _STAMP.fullmatch(name) and name[1:] not in stamps:
                if not are_all_read:
                    outcome = "left: it may belong to a session whose journal cannot be read"
                    yield Finding("directory", path, "no session that can be read is made of it", outcome, is_left=True)
                    continue
                act, reason = partial(_remove, path), "no session is made of it"
                yield from self._take_away("directory", path, reason, act, "removed")
            elif names.is_valid(name) and name not in ids:
                act, reason = partial(self._remove_of, path), "it has no session"
                yield from self._take_away("directory", path, reason, act, "removed")

    def _known(self) -> tuple[set[str], set[str], bool]:
        """The names and the stamps of all sessions, and whether every journal could be read for its stamp."""
        ids, stamps, are_all_read = set(), set(), True
        for entry in store.entries(self.places):
            ids.add(entry.id)
            try:
                with store.open_session(self.places, entry.id, for_marks=False) as journal:
                    stamps.add(journal.session.stamp)
            except NotFound:
                continue
            except SessionsError:
                are_all_read = False
        return ids, stamps, are_all_read

    def _remove_of(self, path: str) -> str:
        """Remove a directory named after a session that is not there; why not."""
        name = os.path.basename(path)
        with session_lock(self.places.lock_dir, name, signals_wait=True):
            if store.exists(self.places, name):
                raise _IsSomebodys
            return _remove(path)

    def _archives(self) -> Iterator[Finding]:
        """What was not unpacked wholly into the cache of archives, and what nobody uses and is to go from it."""
        places = self.places
        for path in archivecache.leftovers(places):
            yield from self._take_away("directory", path, "nobody unpacks it", partial(_drop, path), "removed")
        for one in eviction.unneeded(places, lifecycle.load(places)):
            yield from self._take_away("archive", one.entry.path, one.reason, partial(_evict, places, one), "evicted")
        if not self.dry_run:
            eviction.keep(places)

    def _elsewhere(self) -> Iterator[Finding]:
        """Layers and snapshots with a stamp of ours in places that others may write to: only reported."""
        places = self.places
        chroots = lifecycle.load(places).chroots.values()
        snapshots = {sources.snapshot_directory(chroot.source) for chroot in chroots} - {""}
        layers = {chroot.union.overlay_directory for chroot in chroots}
        ids, *_others = self._known()
        for top in sorted((layers | snapshots) - {"", places.overlay_dir, places.early.overlay_dir}):
            for name in files.names_in(top):
                path = f"{top}/{name}"
                if name not in ids and not name.startswith(".") and _is_stamped(path):
                    command = "btrfs subvolume delete" if top in snapshots else "rm -r"
                    what_next = f"left: others write there too; look at it, then: {command} {path}"
                    yield Finding("directory", path, "it has no session", what_next, is_left=True)

    def _mounts(self) -> Iterator[Finding]:
        """Mount points below the runtime directory that belong to no session."""
        found = files.names_in(self.places.mount_dir)
        ids, *_others = self._known()
        for name in found:
            session_id = _BESIDE.sub(r"\1", name)
            if names.is_valid(session_id) and session_id not in ids:
                path = f"{self.places.mount_dir}/{name}"
                act = partial(self._unmount, session_id, path)
                yield from self._take_away("mount", path, "it has no session", act, "removed")
        if not self.dry_run and not ids:
            try_unmount(self.places.mount_dir)
            for path in self._underlay_dirs():
                if mountinfo.is_on_itself(os.path.realpath(path)):
                    try_unmount(path)

    def _underlay_dirs(self) -> set[str]:
        """Wherever what lies below a union may be mounted."""
        configured = {chroot.union.underlay_directory for chroot in lifecycle.load(self.places).chroots.values()}
        return {self.places.underlay_dir, self.places.early.underlay_dir, *configured} - {""}

    def _unmount(self, session_id: str, path: str) -> str:
        """Unmount a place of a session that is not there, and what is mounted below it; why not."""
        with session_lock(self.places.lock_dir, session_id, signals_wait=True):
            if store.exists(self.places, session_id):
                raise _IsSomebodys
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                return "it is not a directory, as we would have made"
            # The links on the way to it, as /var/run is one, but none in its place.
            real = f"{os.path.realpath(self.places.mount_dir)}/{os.path.basename(path)}"
            while below := mountinfo.below(mountinfo.read(), real):
                if not (unmount_below(real, real) and try_unmount(real)):
                    return f"{below[0].target} is busy: {holders(real)}"
            os.rmdir(path)
            return ""

    def _volumes(self) -> Iterator[Finding]:
        """Volumes that were opened for sessions of which none is there."""
        if not files.names_in(self.places.volume_dir):
            return
        from sessions.steps import sharing

        for known in sharing.all_shared(self.places):
            if not any(store.exists(self.places, user) for user in known.users()):
                act = partial(self._close, known)
                yield from self._take_away("volume", known.key, "no session uses it", act, "closed")

    def _close(self, known: Shared) -> str:
        """Close a volume, if one of ours has opened it and no session uses it when nobody else can change that."""
        from sessions.steps import stack

        with known.locked(may_be_stopped=False):
            if any(store.exists(self.places, user) for user in known.users()):
                raise _IsSomebodys
            made = known.made()
            if made and made.volume:
                stack.close_if_ours(known, made.volume)
            for user in known.users():
                known.leave(user)
            known.forget()
        return ""

    def _locks(self) -> Iterator[Finding]:
        """Lock files that nobody holds."""
        for name in files.names_in(self.places.lock_dir):
            if not is_locked(self.places.lock_dir, name):
                yield from self._take_away("lock", name, "nobody holds it", partial(self._take, name), "removed")

    def _take(self, name: str) -> str:
        """Take a lock, which removes its file afterwards."""
        chroot, comma, _manage = name.partition(",")
        with waiters.manage_lock(self.places, chroot) if comma else session_lock(self.places.lock_dir, name):
            return ""


def _why_dead(journal: Journal, state: State) -> str:
    """Why a session is nobody's any more; empty if it may be somebody's."""
    if lifecycle.has_lost_its_owner(journal):
        return lifecycle.OWNER_IS_GONE
    if state is State.BROKEN:
        return "it was left half way"
    if state is State.DOWN:
        return lifecycle.why_not_recoverable(journal, proc.boot_id())
    return ""


def _withdraw(places: Places, waiter: waiters.Waiter) -> str:
    chroot = os.path.basename(waiter.path).partition(",")[0]
    with waiters.manage_lock(places, chroot):
        waiters.withdraw(waiter)
    return ""


def _drop_forsaken(places: Places, chroot: str) -> str:
    waiters.drop_forsaken(places, chroot)
    return ""


def _remove(path: str) -> str:
    removal.remove_tree(path)
    return ""


def _evict(places: Places, one: eviction.Unneeded) -> str:
    if eviction.evict(places, one):
        raise _IsSomebodys
    return ""


def _drop(path: str) -> str:
    if not archivecache.drop(path):
        raise _IsSomebodys
    return ""


def _is_stamped(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode) and bool(os.getxattr(path, STAMP_ATTRIBUTE, follow_symlinks=False))
    except OSError:
        return False
