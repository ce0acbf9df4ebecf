"""The lock of a source: its sessions share it, and who changes the original has it alone.

A session's hold is its journal, maintenance has a record that stays. Either is published first, and only then it is
looked whether somebody was there before or waits for it; in that case it is taken back, and one waits in line. Since
both sides publish before they look, one of two always sees the other, and no lock is needed to get in.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from sessions import events, owners, store, waiters
from sessions.data import TYPE_CHECKING, Frozen
from sessions.errors import Interrupted, JournalError, SourceBusy
from sessions.events import Event
from sessions.journal import checksum, open_existing
from sessions.linux import proc, syscall
from sessions.linux.watch import Watch
from sessions.model import Places
from sessions.waiters import Kind, Waiter

if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")
# All who are in the way have to go, so that it is enough to be told of some.
_MOST_WATCHED = 16
_MOST_NAMED = 3


class Claim(Frozen):
    """What somebody wants a source for. `chroot` is its name, and `is_exclusive` what its source-lock says."""

    chroot: str
    kind: Kind
    is_exclusive: bool
    user: str
    session_id: str = ""
    """The session that is to be begun, which is not in its own way."""

    def is_blocked_by(self, other: Kind) -> bool:
        """Whether what another one holds, or has asked for earlier, is in the way."""
        if self.kind is Kind.MAINTENANCE:
            return True
        if other is Kind.MAINTENANCE:
            # Under the protection of a maintenance lock the original is changed.
            return self.kind is Kind.SESSION
        return self.is_exclusive and Kind.SOURCE in (self.kind, other)


class Patience(Frozen):
    """How long somebody is ready to wait (None: until it is their turn; 0: not at all), and whom to tell meanwhile."""

    timeout_s: float | None = None
    say: Callable[[str, str], None] = lambda letter, line: None


class Blocker(Frozen):
    """Somebody in the way: a session by its journal, a waiter or maintenance by their records."""

    kind: Kind
    path: str
    session: store.Entry | None = None
    waiter: Waiter | None = None

    @property
    def owner_mark(self) -> str:
        """The mark of the process it ends with, if it does."""
        return self.session.owner_mark if self.session else self.waiter.owner_mark if self.waiter else ""

    def describe(self) -> str:
        """Who it is, since when, and for what, as far as that can be read."""
        if self.session:
            return f"session {self.session.id}{_session_details(self.session)}"
        known = waiters.details(self.path)
        whose = f"{known.user or 'somebody'}{owners.since(known.since_ns)}"
        if self.waiter:
            return f"process {self.waiter.owner_mark.partition('.')[0]} of {whose}, which waits for it"
        return f"maintenance by {whose}{f' ({known.reason})' if known.reason else ''}"


def _session_details(entry: store.Entry) -> str:
    try:
        with open_existing(entry.path, for_marks=False) as journal:
            session = journal.session
    except (FileNotFoundError, JournalError):
        return ""
    process = f"process {session.owner.pid} of " if session.owner else ""
    return f" ({process}{session.caller.name}{owners.since(session.created_ns)})"


def admitted(
    places: Places,
    claim: Claim,
    take: Callable[[], T | None],
    give_back: Callable[[T], None],
    collect: Callable[[store.Entry], bool],
    patience: Patience,
) -> T:
    """What `take` publishes, once nobody is in its way; `give_back` takes it back when somebody was quicker.

    `take` gives None where somebody else holds what it would publish. `collect` ends a session whose owner is gone, and
    says whether it could. The caller has the stopping signals blocked. Raises SourceBusy when the patience is over, or
    when one would wait for oneself, and Interrupted when a signal asks us to stop; nothing of ours is left then.
    """
    taken = _try(places, claim, take, give_back, ticket=None)
    return taken if taken is not None else _wait(places, claim, take, give_back, collect, patience)


def _try(
    places: Places,
    claim: Claim,
    take: Callable[[], T | None],
    give_back: Callable[[T], None],
    ticket: int | None,
) -> T | None:
    """Take it, unless somebody turns out to be in the way; who has no ticket comes after all who have one."""
    taken = take()
    if taken is None:
        return None
    try:
        found = blockers(places, claim, ticket)
    except BaseException:
        give_back(taken)
        raise
    if found:
        give_back(taken)
        return None
    return taken


def blockers(places: Places, claim: Claim, ticket: int | None = None) -> list[Blocker]:
    """Who is in the way of a claim, the ones with a ticket first."""
    found = [
        Blocker(waiter.kind, waiter.path, waiter=waiter)
        for waiter in waiters.listed(places, claim.chroot)
        if (ticket is None or waiter.ticket < ticket) and claim.is_blocked_by(waiter.kind)
    ]
    if claim.kind is Kind.SESSION and (path := waiters.maintenance_path(places, claim.chroot)):
        found.append(Blocker(Kind.MAINTENANCE, path))
    kinds = {
        checksum(name): kind
        for name, kind in ((claim.chroot, Kind.SESSION), (f"source:{claim.chroot}", Kind.SOURCE))
        if claim.is_blocked_by(kind)
    }
    if kinds:
        found += [
            Blocker(kinds[entry.checksum], entry.path, entry)
            for entry in store.entries_of(places, kinds)
            if entry.id != claim.session_id
        ]
    return found


def _wait(
    places: Places,
    claim: Claim,
    take: Callable[[], T | None],
    give_back: Callable[[T], None],
    collect: Callable[[store.Entry], bool],
    patience: Patience,
) -> T:
    deadline_s = None if patience.timeout_s is None else time.monotonic() + patience.timeout_s
    realm, told = owners.realm(), ""
    known: dict[str, str] = {}
    hopeless: set[str] = set()
    _refuse_to_wait_for_oneself(claim, blockers(places, claim), realm, patience)
    with ExitStack() as stack:
        watch = stack.enter_context(_watch(places, claim))
        waiter = waiters.register(places, claim.chroot, claim.kind, claim.user)
        stack.callback(waiters.withdraw, waiter)
        tell_once = stack.enter_context(_told(places, claim))
        while True:
            found = blockers(places, claim, waiter.ticket)
            if not found and (taken := _try(places, claim, take, give_back, waiter.ticket)) is not None:
                return taken
            found = found or blockers(places, claim, waiter.ticket) or _holder_of_the_same(places, claim)
            if _clear_away(places, claim, found, realm, collect, hopeless):
                continue
            if (words := _names(found, known)) != told:
                told = words
                tell_once(words)
                patience.say("I", f"waiting for chroot {claim.chroot}: {words}")
            # The end of who is known to be dead is no news: what it has left, others have to take away.
            marks = [blocker.owner_mark for blocker in found if blocker.owner_mark and blocker.path not in hopeless]
            if not _wait_for_one(watch, marks, realm, deadline_s):
                raise SourceBusy(
                    f"chroot {claim.chroot} is in use: {words}",
                    hint="try again later, or wait longer with --lock-timeout",
                )


@contextmanager
def _told(places: Places, claim: Claim) -> Iterator[Callable[[str], None]]:
    """Write down that somebody waits, and for whom, when what this gives is called; and how it came out."""
    who = {
        "session": claim.session_id,
        "chroot": f"source:{claim.chroot}" if claim.kind is Kind.SOURCE else claim.chroot,
        "caller": claim.user,
        "kind": claim.kind,
    }
    clock, outcome, is_told = events.Clock(), "failed", False

    def tell_once(words: str) -> None:
        nonlocal is_told
        if not is_told:
            events.tell(places, Event.LOCK_WAIT, **who, reason=words)
        is_told = True

    try:
        yield tell_once
        outcome = "granted"
    except SourceBusy:
        outcome = "timed-out"
        raise
    except Interrupted:
        outcome = "interrupted"
        raise
    finally:
        if is_told:
            events.tell(places, Event.LOCK_WAIT_OVER, **who, outcome=outcome, duration_s=clock.duration_s)


def _holder_of_the_same(places: Places, claim: Claim) -> list[Blocker]:
    """Who has locked a chroot for maintenance already, where that is what is wanted."""
    path = waiters.maintenance_path(places, claim.chroot)
    return [Blocker(Kind.MAINTENANCE, path)] if path else []


def _names(found: Sequence[Blocker], known: dict[str, str]) -> str:
    """Who is in the way, for a person; what was read of them once is `known`."""
    words = []
    for blocker in found[:_MOST_NAMED]:
        if blocker.path not in known:
            known[blocker.path] = blocker.describe()
        words.append(known[blocker.path])
    more = len(found) - len(words)
    return "; ".join([*words, f"and {more} more"] if more else words)


def _refuse_to_wait_for_oneself(claim: Claim, found: Sequence[Blocker], realm: str, patience: Patience) -> None:
    """Raise SourceBusy if a process that waits for us, as a setup script's does, is in our way.

    So are we ourselves, if we would wait for ever and have no other thread that could end what we hold.
    """
    waiting = proc.ancestors() - {os.getpid()}
    would_stand_still = patience.timeout_s is None and proc.is_single_threaded()
    for blocker in found:
        if would_stand_still and blocker.session and owners.pid_of(blocker.owner_mark, realm) == os.getpid():
            raise SourceBusy(
                f"chroot {claim.chroot} is held by session {blocker.session.id}, which is of this very process",
                hint="end that session first",
            )
        is_ours = owners.pid_of(blocker.owner_mark, realm) in waiting
        if is_ours or (blocker.session and any(proc.has_open(pid, blocker.path) for pid in waiting)):
            who = f"held by session {blocker.session.id}" if blocker.session else f"wanted by {blocker.describe()}"
            raise SourceBusy(
                f"chroot {claim.chroot} is {who}, which waits for this very command",
                hint="run it outside of the session and of its setup scripts",
            )


def _clear_away(
    places: Places,
    claim: Claim,
    found: Sequence[Blocker],
    realm: str,
    collect: Callable[[store.Entry], bool],
    hopeless: set[str],
) -> bool:
    """Remove the records of dead waiters, and end the sessions of dead owners; whether there was any that could be."""
    is_changed = False
    for blocker in found:
        if blocker.waiter and waiters.is_gone(blocker.waiter, realm):
            with waiters.manage_lock(places, claim.chroot):
                waiters.withdraw(blocker.waiter)
            is_changed = True
        elif blocker.kind is Kind.MAINTENANCE and not blocker.waiter and waiters.is_forsaken(blocker.path):
            waiters.drop_forsaken(places, claim.chroot)
            is_changed = True
        elif blocker.session and blocker.path not in hopeless and _has_lost_its_owner(blocker.session, realm):
            if collect(blocker.session):
                is_changed = True
            else:
                hopeless.add(blocker.path)
    return is_changed


def _has_lost_its_owner(entry: store.Entry, realm: str) -> bool:
    return bool(entry.owner_mark) and owners.may_be_gone(entry.owner_mark, realm)


@contextmanager
def _watch(places: Places, claim: Claim) -> Iterator[Watch]:
    """Hears of everything that may end the wait for a claim."""
    chroot, gone = claim.chroot, syscall.IN_DELETE | syscall.IN_MOVED_FROM
    sums = [checksum(chroot), checksum(f"source:{chroot}")]
    with Watch(f"waiting for chroot {chroot}") as watch:
        watch.add(places.waiting_dir, gone, lambda name: name.startswith(f"{chroot},"))
        for there in (places, places.early):
            if os.path.isdir(there.journal_dir):
                watch.add(there.journal_dir, gone, lambda name: name.partition(",")[2].partition(",")[0] in sums)
                watch.add(there.maintenance_dir, gone, lambda name: name == chroot)
        yield watch


def _wait_for_one(watch: Watch, marks: Sequence[str], realm: str, deadline_s: float | None) -> bool:
    """Return when somebody who may have been in the way is gone; False if the time is over. Raises Interrupted.

    `marks` are the processes in the way; those of other realms cannot be watched from ours.
    """
    with ExitStack() as stack:
        pidfds = []
        for marked in [marked for marked in marks if marked.endswith(f".{realm}")][:_MOST_WATCHED]:
            pidfd = owners.pidfd_of(marked, realm)
            if pidfd is None:
                return True
            stack.callback(os.close, pidfd)
            pidfds.append(pidfd)
        return watch.wait(pidfds, deadline_s)
