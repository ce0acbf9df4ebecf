"""What can be done with sessions: plan, begin, enter, end, recover. Both commands and the Python API stand on this."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain, islice

from sessions import early, engine, events, names, owners, schroots, setupd, sourcelock, store, users
from sessions.config.configuration import Configuration
from sessions.config.load import load_cached
from sessions.data import Frozen, replace
from sessions.engine import Settings
from sessions.errors import (
    ArchiveChanged,
    CannotLock,
    Interrupted,
    InUse,
    NotFound,
    SessionExists,
    SessionNotUsable,
    SessionsError,
    SetupFailed,
    StepFailed,
    Stuck,
    TornJournal,
)
from sessions.events import Event
from sessions.journal import Journal, State, create
from sessions.linux import proc, removal, signals
from sessions.locks import is_locked, session_lock
from sessions.model import Chroot, Places, Plain, Session
from sessions.newsession import HOST, Wish, new_session
from sessions.running import check_namespace
from sessions.sourcelock import Claim, Patience
from sessions.sources import has_sessions
from sessions.steps import Step
from sessions.waiters import Kind

# A begin looks at this many owners of other sessions, each begin at others, and ends so many sessions at most.
_MOST_LOOKED_AT = 16
_MOST_SWEPT = 2
# How often it is begun if its archive is changed each time before that is unpacked.
_MOST_CHANGES = 3
# What a script may take of somebody's time who ends a session that is none of his.
_OTHERS_SCRIPT_TIMEOUT_S = 10.0
OWNER_IS_GONE = "the process it was for is gone"


def find_chroot(configuration: Configuration, word: str, *, with_host: bool) -> tuple[Chroot, str]:
    """The chroot that ``[chroot:|source:]NAME`` asks for, and the name alone.

    `with_host` adds the built-in chroot of the running system, which a configured chroot of that name replaces.
    """
    asked = names.split(word, names.CHROOT)
    if asked.namespace == names.SESSION:
        raise NotFound(f"{word} is a session, not a chroot", (word,), hint=f"sessions exec {asked.name}")
    try:
        return configuration.find(asked.namespace, asked.name), asked.name
    except NotFound:
        if with_host and asked == names.Qualified(names.CHROOT, HOST.name):
            return HOST, asked.name
        raise


def plan(places: Places, chroot: Chroot, selected_name: str, wish: Wish) -> tuple[Session, list[Step]]:
    """The session that a begin would make, and every step it would take; nothing is touched."""
    if isinstance(chroot.source, Plain):
        raise SessionNotUsable(
            f"{chroot.name} is a plain chroot, which has no sessions",
            hint="set its type to directory in the configuration",
        )
    if not has_sessions(chroot.source):
        raise SessionNotUsable(
            f"{chroot.name} is a {chroot.source.kind} chroot of which no sessions are wanted",
            hint="take custom-session-cloneable = false out of the configuration",
        )
    return setupd.plan(new_session(places, chroot, selected_name, wish))


def begin(places: Places, chroot: Chroot, selected_name: str, wish: Wish, settings: Settings) -> Session:
    """Begin a session. When this raises, nothing is left of it, or the error names what is stuck."""
    users.need_root()
    for _time in range(_MOST_CHANGES):
        try:
            return _begin(places, chroot, selected_name, wish, settings)
        except ArchiveChanged as changed:
            # While we waited for whoever changed it, most likely.
            last = changed
    raise _setup_failed(f"of {chroot.name}", last, [])


def _begin(places: Places, chroot: Chroot, selected_name: str, wish: Wish, settings: Settings) -> Session:
    """Begin a session once; raises ArchiveChanged if that may come out otherwise the next time."""
    clock, now = events.Clock(), early.chosen(places)
    session, steps = plan(now, early.adapted(chroot, places, now), selected_name, wish)
    if session.verbosity != "quiet":
        for problem in schroots.problems(places):
            settings.say("W", str(problem))
    with events.told_if_it_fails(places, session, "begin"):
        store.prepare(now)
        early.carry_over(places)
        there = store.paths(places)
        _sweep(places, there)
        if session.cached and not os.path.lexists(session.cached.path):
            from sessions import eviction  # only for those who use it

            eviction.make_room(places, load(places))
        mark = f"/{session.id},"
        if any(mark in path for path in there):
            _refuse_if_taken(places, session)
        with signals.held_back(), _admitted(places, session, steps, settings, wish) as journal:
            try:
                engine.up(journal, settings)
                if session.owner is None:
                    # A session that is there for its caller is there after a power cut.
                    journal.sync()
            except BaseException as error:
                stuck = engine.down(journal, settings, has_begun=False)
                if isinstance(error, ArchiveChanged) and not stuck:
                    raise
                raise _setup_failed(session.id, error, stuck) from error
            for note in journal.notes.values():
                if "unpacked" in note:
                    events.tell(places, Event.UNPACKED, **events.of(session), **note["unpacked"])
            events.tell(places, Event.BEGIN, **events.of(session), duration_s=clock.duration_s)
    return session


def _refuse_if_taken(places: Places, session: Session) -> None:
    if store.exists(places, session.id):
        raise SessionExists(session.id)


def _sweep(places: Places, there: Sequence[str]) -> None:
    """End a few sessions whose owners are gone, if a look at a few names shows any: `sessions gc` looks at all.

    Not one that somebody is ending already: it is no business of ours to wait for its scripts.
    """
    first = time.time_ns() % max(len(there), 1)
    automatic = (path for path in chain(there[first:], there[:first]) if path.rpartition("/")[2].count(",") == 2)
    realm, ended, alive = "", 0, set()
    for path in islice(automatic, _MOST_LOOKED_AT):
        if ended == _MOST_SWEPT:
            return
        realm = realm or owners.realm()
        entry = store.entry_of(places, path)
        # Many sessions may be one process's.
        if entry.owner_mark in alive:
            continue
        if not owners.may_be_gone(entry.owner_mark, realm):
            alive.add(entry.owner_mark)
        elif not is_locked(places.lock_dir, entry.id):
            ended += collect(places, entry, Settings())


@contextmanager
def _admitted(places: Places, session: Session, steps: list[Step], settings: Settings, wish: Wish) -> Iterator[Journal]:
    """The session's new journal, under the session's lock, once nobody keeps it from its source."""
    chroot = session.chroot
    claim = Claim(
        chroot.name,
        Kind.SOURCE if chroot.is_source else Kind.SESSION,
        chroot.source_lock == "exclusive",
        session.caller.name,
        session.id,
    )
    with ExitStack() as stack:

        def take() -> Journal:
            stack.enter_context(session_lock(places.lock_dir, session.id, signals_wait=True))
            if wish.session_id:  # a name that was made up is nobody else's
                _refuse_if_taken(places, session)
            journal = stack.enter_context(_create(session, steps))
            store.remember(journal)
            return journal

        def give_back(journal: Journal) -> None:
            journal.remove()
            stack.close()

        collector = partial(collect, places, settings=settings)
        patience = Patience(wish.lock_timeout_s, settings.say)
        yield sourcelock.admitted(places, claim, take, give_back, collector, patience)


def collect(places: Places, entry: store.Entry, settings: Settings) -> bool:
    """End an automatic session if its owner has proven to be gone; whether it is gone now.

    Scripts of that session that take long are ended: whoever has come across it is not to wait for them.
    """
    timeout_s = min(settings.script_timeout_s or _OTHERS_SCRIPT_TIMEOUT_S, _OTHERS_SCRIPT_TIMEOUT_S)
    settings = replace(settings, script_timeout_s=timeout_s)
    try:
        end(places, entry.id, settings, kill_commands=True, only_if=has_lost_its_owner, reason=OWNER_IS_GONE)
    except NotFound:
        pass
    except SessionsError as error:
        settings.say("W", str(error))
    return not os.path.lexists(entry.path)


def has_lost_its_owner(journal: Journal) -> bool:
    """Whether a session was for a process that has proven to be gone."""
    owner = journal.session.owner
    return owner is not None and owners.is_gone(owner)


def _create(session: Session, steps: list[Step]) -> Journal:
    try:
        return create(session.places.journal_dir, session, steps)
    except OSError as error:
        raise SessionsError(
            f"cannot write the journal of session {session.id} in {session.places.journal_dir}: {error.strerror}",
            hint="make room there, or make it writable; nothing has been changed",
        ) from error


def _setup_failed(session_id: str, error: BaseException, stuck: list[str]) -> BaseException:
    """The error to raise for a begin or recover that failed, with what could not be undone."""
    if not isinstance(error, SessionsError | OSError):
        return error
    text = str(error)
    if stuck:
        text += f"; and left behind, since it could not be undone: {'; '.join(stuck)}"
    if isinstance(error, Interrupted):
        return Interrupted(error.signum, text)
    hint = f"mend that, then: sessions end {session_id}" if stuck else ""
    return SetupFailed(f"session {session_id} could not be set up: {text}", hint=hint)


def end(
    places: Places,
    session_id: str,
    settings: Settings,
    *,
    kill_commands: bool = False,
    only_if: Callable[[Journal], bool] = lambda journal: True,
    reason: str = "",
) -> None:
    """End a session; one that is gone meanwhile is success. `reason` is why, where nobody has asked for it.

    `only_if` is asked under the session's lock, when nobody can change the session any more; without its yes nothing is
    done. Raises InUse while a command of somebody runs inside, unless `kill_commands` or force says so, and Stuck
    if something could not be undone: the rest is, and ending it again is possible.
    """
    users.need_root()
    try:
        _end(places, session_id, settings, kill_commands or settings.force, only_if, reason)
    except (OSError, CannotLock) as error:
        words = error.text if isinstance(error, CannotLock) else engine.reason(error)
        raise SessionsError(
            f"session {session_id} could not be ended: {words}", hint=f"mend that, then: sessions end {session_id}"
        ) from error


def _end(
    places: Places,
    session_id: str,
    settings: Settings,
    kill_commands: bool,
    only_if: Callable[[Journal], bool],
    reason: str,
) -> None:
    entry = early.found(places, session_id)
    with session_lock(places.lock_dir, session_id, signals_wait=True, timeout_s=settings.lock_timeout_s):
        try:
            journal = store.open_found(places, entry, for_marks=True)
        except NotFound:
            return
        except TornJournal as torn:
            _forget(places, torn)
            return
        with journal:
            if not only_if(journal):
                return
            check_namespace(journal, force=settings.force)
            if not kill_commands:
                _check_nobody_inside(journal)
            with events.told_if_it_fails(places, journal.session, "end"):
                _down(places, journal, settings, reason)


def _forget(places: Places, torn: TornJournal) -> None:
    """Take away a session that a power cut has left nothing of but its name: what was synced had a journal.

    Raises `torn` again if it has a mount point: it is of this boot, and somebody has spoilt its journal.
    """
    if os.path.lexists(f"{places.mount_dir}/{torn.session_id}"):
        raise torn
    for top in (places.overlay_dir, places.underlay_dir, places.unpack_dir):
        removal.remove_tree(f"{top}/{torn.session_id}")
    os.unlink(store.find(places, torn.session_id).path)
    events.tell(places, Event.END, session=torn.session_id, reason=torn.text)


def _check_nobody_inside(journal: Journal) -> None:
    """Raise InUse while somebody's command runs: whoever runs one holds a shared lock on the journal."""
    try:
        fcntl.flock(journal.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        session = journal.session
        place = proc.tree(os.path.realpath(session.location), owns_device=session.chroot.union.is_used)
        inside = proc.rooted_in(place)
        who = proc.describe(inside) if inside else "a command that is just starting or ending"
        raise InUse(
            f"session {session.id} is in use: {who}", hint=f"wait for it, or: sessions end --force {session.id}"
        ) from None


def recover(places: Places, session_id: str, settings: Settings) -> None:
    """Bring a session back up after a reboot, or mend one whose mounts are gone; harmless on one that is up.

    A session whose layer was on a tmpfs, and an automatic one whose owner is gone, is ended instead, and `settings.say`
    told why.
    """
    users.need_root()
    entry = early.found(places, session_id)
    with (
        session_lock(places.lock_dir, session_id, signals_wait=True, timeout_s=settings.lock_timeout_s),
        store.open_found(places, entry, for_marks=True) as journal,
        events.told_if_it_fails(places, journal.session, "recover"),
    ):
        _recover(places, journal, settings)


def _recover(places: Places, journal: Journal, settings: Settings) -> None:
    clock = events.Clock()
    session_id, boot_id = journal.session.id, proc.boot_id()
    check_namespace(journal)
    reason = why_not_recoverable(journal, boot_id)
    if reason:
        settings.say("W", f"session {session_id} cannot be recovered and is ended: {reason}")
        _down(places, journal, settings, reason)
        return
    if journal.state(boot_id=boot_id, is_locked=False) is State.BROKEN:
        raise SessionNotUsable(
            f"session {session_id} is broken: it was left half way", hint=f"sessions end {session_id}"
        )
    try:
        mount_namespace, pid_namespace = proc.mount_namespace() or 0, proc.pid_namespace()
        engine.recover(journal, settings, boot_id=boot_id, mount_namespace=mount_namespace, pid_namespace=pid_namespace)
    except (StepFailed, OSError) as error:
        raise SetupFailed(
            f"session {session_id} could not be recovered: {error}", hint=f"or end it: sessions end {session_id}"
        ) from error
    events.tell(places, Event.RECOVERY, **events.of(journal.session), duration_s=clock.duration_s)


def rest(places: Places, session_id: str, settings: Settings) -> None:
    """Lay a session to rest before the machine is restarted: nothing of it is mounted or runs, and it can be recovered.

    One that could not be recovered, or is broken, is ended, and `settings.say` told why. Raises Stuck if something
    could not be undone; the rest is.
    """
    users.need_root()
    entry = early.found(places, session_id)
    with (
        session_lock(places.lock_dir, session_id, signals_wait=True, timeout_s=settings.lock_timeout_s),
        store.open_found(places, entry, for_marks=True) as journal,
        events.told_if_it_fails(places, journal.session, "rest"),
    ):
        clock = events.Clock()
        check_namespace(journal)
        state = state_under_lock(journal)
        reason = why_not_recoverable(journal, "") or ("it was left half way" if state is State.BROKEN else "")
        if not reason and store.is_early(places, journal.path):
            reason = f"its journal is in {places.early_dir}, which the restart of the machine empties"
        if reason:
            settings.say("I", f"session {session_id} is ended: {reason}")
            _down(places, journal, settings, reason)
        else:
            # Also one that is down already: whoever laid it to rest may have died before it was done.
            _raise_stuck(session_id, "laid to rest", engine.rest(journal, settings))
            events.tell(places, Event.REST, **events.of(journal.session), duration_s=clock.duration_s)


def _raise_stuck(session_id: str, what: str, stuck: list[str]) -> None:
    if stuck:
        text = f"session {session_id} could not be {what} wholly: {'; '.join(stuck)}"
        raise Stuck(text, stuck, hint=f"mend that, then again: sessions end {session_id}")


def _down(places: Places, journal: Journal, settings: Settings, reason: str) -> None:
    """Take a session down; raises Stuck if something could not be undone."""
    session, clock = journal.session, events.Clock()
    _raise_stuck(session.id, "ended", engine.down(journal, settings))
    # A clock that was set back has seen it begin in the future.
    lasted_s = max(0.0, round((time.time_ns() - session.created_ns) / 1e9, 6))
    event = {**events.of(session), "reason": reason, "duration_s": clock.duration_s, "lasted_s": lasted_s}
    events.tell(places, Event.END, **event)


def why_not_recoverable(journal: Journal, boot_id: str) -> str:
    """Why a session from before a reboot can only be ended; empty if it can be recovered."""
    if journal.boot_id == boot_id:
        return ""
    if journal.session.chroot.union.is_used and journal.session.chroot.union.overlay_storage == "tmpfs":
        return "its layer was on a tmpfs, which the restart of the machine has emptied"
    if early.has_data_there(journal.session):
        return f"its layer was in {journal.session.places.early_dir}, which the restart of the machine has emptied"
    if journal.session.owner is not None:
        return "it was automatic, and the command it was for is gone"
    return ""


class Listed(Frozen):
    """A session as `list` and `show` know it."""

    journal: Journal
    state: State


def listed(places: Places) -> Iterator[Listed | SessionsError]:
    """Every session with its state, or the error its journal gave, in the order of their names."""
    boot_id = proc.boot_id()
    for journal in store.read_all(places):
        if isinstance(journal, SessionsError):
            yield journal
        else:
            yield Listed(journal, state_of(places, journal, boot_id))


def state_of(places: Places, journal: Journal, boot_id: str) -> State:
    """The state of a session at this moment."""
    return journal.state(boot_id=boot_id, is_locked=is_locked(places.lock_dir, journal.session.id))


def state_under_lock(journal: Journal) -> State:
    """The state of a session whose lock we hold."""
    return journal.state(boot_id=proc.boot_id(), is_locked=False)


def load(places: Places) -> Configuration:
    """The configuration, from memory while no file of it has changed."""
    return load_cached(places)
