"""The subcommands that keep order: lock, unlock, gc."""

from __future__ import annotations

import click

from sessions import lifecycle, names, relay, sweep, upkeep, users
from sessions.cli.acting import lock_timeout_option, no_wait_option, patience_s, say
from sessions.cli.printing import json_option, print_json
from sessions.data import asdict
from sessions.engine import Settings
from sessions.errors import NotFound
from sessions.model import Places
from sessions.sourcelock import Patience

_places = click.make_pass_decorator(Places)


@click.command()
@click.argument("chroot", metavar="CHROOT")
@click.option("--reason", metavar="TEXT", default="", help="Why, for those who have to wait.")
@lock_timeout_option
@no_wait_option
@_places
def lock(places: Places, chroot: str, reason: str, lock_timeout: float | None, no_wait: bool) -> None:
    """Lock a chroot for maintenance: as soon as no session of it is open, and until it is unlocked.

    New sessions wait from now on, but not those of source:CHROOT. The lock outlives this command, and restarts.
    """
    users.need_root()
    found, _selected = lifecycle.find_chroot(lifecycle.load(places), chroot, with_host=False)
    with relay.signals_blocked():
        upkeep.lock(places, found.name, reason, Patience(patience_s(lock_timeout, no_wait), say))


@click.command()
@click.argument("chroot", metavar="CHROOT")
@_places
def unlock(places: Places, chroot: str) -> None:
    """Let new sessions of a chroot be begun again."""
    users.need_root()
    asked = names.split(chroot, names.CHROOT)
    try:
        name = lifecycle.find_chroot(lifecycle.load(places), chroot, with_host=False)[0].name
    except NotFound:
        name = asked.name  # one that is configured no more may still be locked
    upkeep.unlock(places, name)


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be taken away.")
@json_option
@_places
def gc(places: Places, dry_run: bool, as_json: bool) -> int:
    """Take away what the dead have left behind: sessions, requests, directories, mounts, locks."""
    from sessions.cli.native import FAILED

    users.need_root()
    with relay.signals_blocked():
        found = list(sweep.Sweep(places, Settings(say), dry_run).all())
    if as_json:
        print_json({"dry_run": dry_run, "found": [asdict(finding) for finding in found]})
    else:
        for finding in found:
            click.echo(f"{finding.kind} {finding.name}: {finding.outcome} ({finding.reason})")
    return FAILED if not dry_run and any(finding.is_left for finding in found) else 0


COMMANDS = (lock, unlock, gc)
