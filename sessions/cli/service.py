"""``sessions service`` and ``shutdown``: what the system's units in etc/systemd do at boot and at shutdown.

The two variables are those of /etc/default/schroot, which the service reads.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import click

from sessions import early, lifecycle, store, users
from sessions.cli.acting import say
from sessions.engine import Settings
from sessions.errors import NotFound, SessionsError, TornJournal
from sessions.journal import Journal, State
from sessions.model import Places

# The machine is not to wait for a script that hangs, nor for somebody who is setting a session up.
_SCRIPT_TIMEOUT_S = 20.0
_LOCK_TIMEOUT_S = 5.0


@click.command()
@click.argument("action", type=click.Choice(("start", "stop")))
@click.make_pass_decorator(Places)
def service(places: Places, action: str) -> int:
    """Recover or end sessions at boot and at shutdown, as START_ACTION and STOP_ACTION say."""
    users.need_root()
    if action == "start":
        return _for_each(places, _at_boot)
    return _for_each(places, lambda state: "end") if os.environ.get("STOP_ACTION") == "end" else 0


@click.command()
@click.make_pass_decorator(Places)
def shutdown(places: Places) -> int:
    """End automatic sessions and lay the others to rest, before the machine is restarted: they can be recovered.

    Nothing of ours is mounted or runs after that. No session is waited for longer than a few seconds.
    """
    from sessions.cli.native import FAILED, complain

    users.need_root()
    settings = Settings(say, script_timeout_s=_SCRIPT_TIMEOUT_S, lock_timeout_s=_LOCK_TIMEOUT_S)
    failed = False
    early.carry_over(places)
    for entry in sorted(store.entries(places), key=lambda entry: not entry.owner_mark):
        try:
            lifecycle.rest(places, entry.id, settings)
        except NotFound:
            continue
        except SessionsError as error:
            complain(str(error))
            failed = True
            continue
        click.echo(f"{entry.id}: {'at rest' if store.exists(places, entry.id) else 'ended'}")
    return FAILED if failed else 0


def _at_boot(state: State) -> str:
    """What to do at boot: sessions that are up, or being changed, are somebody's already."""
    if state is State.BROKEN:  # which nobody can use, nor recover
        return "end"
    if state is State.DOWN:
        return "end" if os.environ.get("START_ACTION") == "end" else "recover"
    return ""


def _for_each(places: Places, wanted: Callable[[State], str]) -> int:
    """Do what is wanted with each session, and say so; a failure does not keep the others from it."""
    from sessions.cli.native import FAILED, complain

    failed = False
    early.carry_over(places)
    for item in lifecycle.listed(places):
        try:
            if isinstance(item, TornJournal):
                _act(places, item.session_id, wanted(State.BROKEN), wanted)
                continue
            if isinstance(item, SessionsError):
                raise item
            _act(places, item.journal.session.id, wanted(item.state), wanted)
        except NotFound:
            continue  # ended by somebody else meanwhile
        except SessionsError as error:
            complain(str(error))
            failed = True
    return FAILED if failed else 0


def _act(places: Places, session_id: str, action: str, wanted: Callable[[State], str]) -> None:
    if action == "recover":
        lifecycle.recover(places, session_id, Settings(say))
        click.echo(f"{session_id}: recovered")
    elif action == "end":
        # Whoever was changing the session when it was looked at may be done by now.
        def still(journal: Journal) -> bool:
            return wanted(lifecycle.state_under_lock(journal)) == "end"

        lifecycle.end(places, session_id, Settings(say), kill_commands=True, only_if=still)
        if not store.exists(places, session_id):
            click.echo(f"{session_id}: ended")
