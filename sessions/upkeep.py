"""What keeps the machine in order beside the sessions themselves: locking a source for maintenance."""

from __future__ import annotations

from functools import partial

from sessions import early, sourcelock, store, users, waiters
from sessions.engine import Settings
from sessions.errors import NotFound
from sessions.lifecycle import collect
from sessions.linux import signals
from sessions.model import Places
from sessions.sourcelock import Claim, Patience
from sessions.waiters import Kind


def lock(places: Places, name: str, reason: str, patience: Patience) -> None:
    """Lock a chroot for maintenance, until :func:`unlock`, as soon as no session of it is open.

    New sessions wait from now on, but for those of its source: twin. Raises SourceBusy or Interrupted.
    """
    users.need_root()
    now = early.chosen(places)
    store.prepare(now)
    early.carry_over(places)
    user = users.caller().name
    claim = Claim(name, Kind.MAINTENANCE, is_exclusive=True, user=user)

    def take() -> bool | None:
        return waiters.ask_for_maintenance(places, now, name, user, reason) or None

    with signals.held_back():
        collector = partial(collect, places, settings=Settings(patience.say))
        sourcelock.admitted(places, claim, take, lambda _taken: unlock(places, name), collector, patience)
        try:
            waiters.grant_maintenance(places, name, user, reason)
        except BaseException:
            unlock(places, name)
            raise


def unlock(places: Places, name: str) -> None:
    """Take the maintenance lock of a chroot away; raises NotFound if there is none."""
    users.need_root()
    early.carry_over(places)
    if not waiters.unlock(places, name):
        raise NotFound(f"{name} is not locked", (name,), hint="see: sessions chroots")
