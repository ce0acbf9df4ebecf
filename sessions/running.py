"""Running commands in sessions. What sets sessions up is not imported: clients run a hundred commands in one."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

from sessions import enter as entering
from sessions import store, users
from sessions.errors import SessionNotUsable
from sessions.journal import Journal, State
from sessions.linux import proc
from sessions.locks import session_lock
from sessions.model import Chroot, Places, Plain, Session


@contextmanager
def running(
    places: Places,
    session_id: str,
    request: entering.Request,
    descriptors: tuple[int, int, int] = (0, 1, 2),
    guard: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[entering.Child]:
    """Start a command inside a session; for as long as the block lasts, `end` knows that somebody's command runs.

    The session's lock is held until the command has changed its root, so that `end` cannot pull the tree away in
    between. `guard` is entered once the lock is there, and left at the end: for a caller that must not lose a signal
    from the moment there is a child, and must be able to be interrupted before. Raises NotFound, SessionNotUsable or
    CannotEnter.
    """
    users.need_root()
    # Asked for first, so that a name without a session does not make a lock.
    entry = store.find(places, session_id)
    if entry.is_early:
        from sessions import early  # which is seldom needed

        entry = early.found(places, session_id)
    with ExitStack() as stack:
        with session_lock(places.lock_dir, session_id):
            journal = stack.enter_context(store.open_found(places, entry, for_marks=False))
            _check_usable(journal)
            fcntl.flock(journal.fd, fcntl.LOCK_SH)
            stack.enter_context(guard())
            prepared = entering.prepare(journal.session, request)
            child = entering.spawn(journal.session, prepared, descriptors)
        yield child


@contextmanager
def running_plain(
    places: Places,
    chroot: Chroot,
    selected_name: str,
    request: entering.Request,
    descriptors: tuple[int, int, int] = (0, 1, 2),
    guard: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[entering.Child]:
    """Start a command in a plain chroot: its directory itself, with no session, no lock and nothing to undo.

    `guard` is as for :func:`running`. Raises CannotEnter.
    """
    users.need_root()
    session = _plain_session(places, chroot, selected_name, request)
    with guard():
        yield entering.spawn(session, entering.prepare(session, request), descriptors)


def _plain_session(places: Places, chroot: Chroot, selected_name: str, request: entering.Request) -> Session:
    """What stands for a plain chroot where a session is wanted; it has no journal, and ends with the command."""
    assert isinstance(chroot.source, Plain)
    return Session(
        id=chroot.name,
        stamp="",
        chroot=chroot,
        selected_name=selected_name,
        caller=request.caller,
        user=request.user,
        owner=None,
        created_ns=0,
        boot_id="",
        mount_namespace=0,
        places=places,
        location=chroot.source.directory,
        path=chroot.source.directory,
    )


def _check_usable(journal: Journal) -> None:
    """Raise SessionNotUsable unless commands can be run in the session, from this mount namespace."""
    session_id = journal.session.id
    state = journal.state(boot_id=proc.boot_id(), is_locked=False)
    if state is State.DOWN:
        raise SessionNotUsable(
            f"session {session_id} has been down since the machine was restarted", hint=f"sessions recover {session_id}"
        )
    if state is not State.UP:
        raise SessionNotUsable(
            f"session {session_id} is {state}: it was left half way", hint=f"sessions end {session_id}"
        )
    check_namespace(journal)


def check_namespace(journal: Journal, *, force: bool = False) -> None:
    """Raise SessionNotUsable if the session's mounts live in another mount namespace than ours.

    A namespace that nobody is in any more is gone with all its mounts, and so is another boot's. Where those who may
    be in it cannot be seen from our pid namespace, nothing is proven, and only `force` takes it for gone.
    """
    if journal.mount_namespace == proc.mount_namespace() or journal.boot_id != proc.boot_id():
        return
    inside = proc.in_mount_namespace(journal.mount_namespace)
    if inside:
        raise SessionNotUsable(
            f"session {journal.session.id} lives in another mount namespace, that of process {inside[0]}",
            hint=f"nsenter --mount --target {inside[0]} sessions ...",
        )
    if journal.pid_namespace and not force and not proc.sees_all_of(journal.pid_namespace):
        raise SessionNotUsable(
            f"session {journal.session.id} lives in another mount namespace, and who is in that cannot be seen from "
            "this pid namespace",
            hint=f"act where it was begun; or, if that is gone: sessions end --force {journal.session.id}",
        )
