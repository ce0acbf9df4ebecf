"""The subcommands that change nothing: list, show, chroots, plan, config, events."""

from __future__ import annotations

import json
import sys
import time

import click

from sessions import lifecycle, names, records, setupd, store, users, waiters
from sessions.cli.printing import json_option, print_json, print_table
from sessions.config.load import Configuration, load
from sessions.data import TYPE_CHECKING, asdict
from sessions.errors import NotFound, SessionsError
from sessions.journal import Journal
from sessions.keys import KEYS, is_legal, value_of
from sessions.keytypes import Value
from sessions.keytypes import show as shown
from sessions.linux import proc
from sessions.model import Chroot, Places
from sessions.newsession import HOST, Wish

if TYPE_CHECKING:
    from typing import Any

_places = click.make_pass_decorator(Places)


@click.command(name="list")
@json_option
@_places
def list_(places: Places, as_json: bool) -> int:
    """List the sessions there are, each with its chroot, state, owner and place."""
    found = list(lifecycle.listed(places))
    sessions = [item for item in found if isinstance(item, lifecycle.Listed)]
    errors = [item for item in found if isinstance(item, SessionsError)]
    if as_json:
        records_ = [_record(places, item) for item in sessions]
        print_json({"sessions": records_, "errors": [str(error) for error in errors]})
    else:
        print_table(
            ("SESSION", "CHROOT", "STATE", "OWNER", "LOCATION"),
            (
                (
                    item.journal.session.id,
                    item.journal.session.chroot.full_name,
                    item.state,
                    _owner(item.journal),
                    item.journal.session.path,
                )
                for item in sessions
            ),
        )
        for error in errors:
            click.echo(f"sessions: {error}", err=True)
        if early := ", ".join(item.journal.session.id for item in sessions if _is_early(places, item)):
            click.echo(f"kept in {places.early_dir} until {places.state_dir} can be written to: {early}", err=True)
    return 125 if errors else 0


def _is_early(places: Places, item: lifecycle.Listed) -> bool:
    return store.is_early(places, item.journal.path)


def _owner(journal: Journal) -> str:
    owner = journal.session.owner
    return f"pid {owner.pid}" if owner else "-"


def _record(places: Places, item: lifecycle.Listed) -> dict[str, Any]:
    session = item.journal.session
    return {
        "id": session.id,
        "chroot": session.chroot.name,
        "source": session.chroot.is_source,
        "state": str(item.state),
        "owner": records.encode(session.owner) if session.owner else None,
        "user": session.user.name,
        "caller": session.caller.name,
        "created_ns": session.created_ns,
        "location": session.path,
        "early": _is_early(places, item),
        "stuck": [
            {"step": item.journal.plan[index].describe(), "reason": reason}
            for index, reason in sorted(item.journal.reasons.items())
            if item.journal.states[index] == "stuck"
        ],
    }


@click.command()
@click.argument("session")
@json_option
@_places
def show(places: Places, session: str, as_json: bool) -> None:
    """Show one session, with every step that was taken for it."""
    asked = names.split(session, names.SESSION)
    with store.open_session(places, asked.name, for_marks=False) as journal:
        item = lifecycle.Listed(journal, lifecycle.state_of(places, journal, proc.boot_id()))
    steps = [
        {"step": step.describe(), "state": str(state), "record": records.encode(step)}
        for step, state in zip(journal.plan, journal.states, strict=True)
    ]
    if as_json:
        print_json({**_record(places, item), "session": records.encode(journal.session), "steps": steps})
        return
    created = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(journal.session.created_ns / 1e9))
    rows = [
        ("Session", journal.session.id),
        ("Chroot", journal.session.chroot.full_name),
        ("State", str(item.state)),
        ("Owner", _owner(journal)),
        ("Begun", f"{created} by {journal.session.caller.name}"),
        ("Location", journal.session.path),
        ("Layer", journal.session.overlay_directory or "-"),
        ("Journal", journal.path),
    ]
    for label, value in rows:
        click.echo(f"{label:<10}{value}")
    click.echo("Steps")
    for step, state, index in zip(journal.plan, journal.states, range(len(steps)), strict=True):
        word = str(state) if step.is_marked else "in the layer"
        reason = f": {journal.reasons[index]}" if state == "stuck" else ""
        click.echo(f"  {word:<14}{step.describe()}{reason}")


@click.command()
@json_option
@_places
def chroots(places: Places, as_json: bool) -> None:
    """List the chroots that sessions can be begun of."""
    configuration = load(places)
    found = [configuration.chroots[name] for name in sorted(configuration.chroots)]
    if HOST.name not in configuration.chroots:
        found.append(HOST)
    if as_json:
        listed = [{**_chroot_record(chroot), "maintenance": _maintenance(places, chroot)} for chroot in found]
        print_json({"chroots": listed, "problems": _problems(configuration)})
        return
    print_table(
        ("CHROOT", "TYPE", "UNION", "ALIASES", "LOCKED", "DESCRIPTION"),
        (
            (
                chroot.name,
                chroot.source.kind,
                chroot.union.type if chroot.union.is_used else "-",
                ",".join(chroot.aliases) or "-",
                _locked(_maintenance(places, chroot)),
                chroot.description,
            )
            for chroot in found
        ),
    )
    errors = [problem for problem in configuration.problems if problem.severity == "error"]
    if errors:
        click.echo(f"sessions: {len(errors)} errors in the configuration; see: sessions config check", err=True)


def _maintenance(places: Places, chroot: Chroot) -> dict[str, Any] | None:
    """What the maintenance lock of a chroot says; None without one, or for who may not look."""
    try:
        known = waiters.maintenance(places, chroot.name)
    except PermissionError:
        return None
    return {"user": known.user, "since_ns": known.since_ns, "reason": known.reason} if known else None


def _locked(record: dict[str, Any] | None) -> str:
    return (
        "-" if record is None else f"by {record['user'] or 'somebody'}{': ' * bool(record['reason'])}{record['reason']}"
    )


def _chroot_record(chroot: Chroot) -> dict[str, Any]:
    return {name: records.encode(value) for name, value in _values(chroot).items()}


def _values(chroot: Chroot) -> dict[str, Value]:
    values: dict[str, Value] = {"name": chroot.name}
    for key in KEYS:
        if is_legal(key, type(chroot.source)) and key.status.value in ("current", "native") and not key.internal:
            values[key.name] = value_of(chroot, key)
    values.update(dict(chroot.custom))
    return values


def _problems(configuration: Configuration) -> list[dict[str, Any]]:
    return [asdict(problem) for problem in configuration.problems]


@click.command()
@click.argument("chroot")
@json_option
@_places
def plan(places: Places, chroot: str, as_json: bool) -> None:
    """Print every step that beginning a session would take; nothing is touched."""
    found, selected = lifecycle.find_chroot(load(places), chroot, with_host=True)
    caller = users.caller()
    session, steps = lifecycle.plan(places, found, selected, Wish(caller, caller, f"{found.name}-SESSION"))
    if as_json:
        print_json(
            {
                "session": records.encode(session),
                "steps": [{"step": step.describe(), "record": records.encode(step)} for step in steps],
            }
        )
        return
    for number, step in enumerate(steps, 1):
        click.echo(f"{number:>3}  {step.describe()}")


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@json_option
@_places
def check(places: Places, as_json: bool) -> int:
    """Report everything that is wrong, with file, line, reason and remedy."""
    configuration = load(places)
    problems = [*configuration.problems, *setupd.problems(places)]
    if as_json:
        print_json({"problems": [asdict(problem) for problem in problems], "chroots": sorted(configuration.chroots)})
    else:
        for problem in problems:
            click.echo(f"{problem.severity}: {problem}")
        click.echo(f"{len(configuration.chroots)} chroots can be used, {len(problems)} problems")
    return 125 if any(problem.is_error for problem in problems) else 0


@config.command(name="show")
@click.argument("chroot")
@json_option
@_places
def show_config(places: Places, chroot: str, as_json: bool) -> None:
    """Show every value of a chroot, and where it comes from."""
    configuration = load(places)
    found, _selected = lifecycle.find_chroot(configuration, chroot, with_host=True)
    if found is not HOST and found.name not in configuration.chroots:
        raise NotFound(f"{chroot}: no such chroot", (chroot,))
    origins = configuration.origins.get(found.name, {}) if found is not HOST else {}
    values = _values(found)
    places_of = {key: f"{origins[key][0]}:{origins[key][1]}" if key in origins else "default" for key in values}
    if as_json:
        print_json({key: {"value": records.encode(value), "from": places_of[key]} for key, value in values.items()})
        return
    print_table(("KEY", "FROM", "VALUE"), ((key, places_of[key], shown(value)) for key, value in values.items()))


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with those that come, until a signal ends it.")
@click.option("--session", metavar="ID", default="", help="Only those of this session.")
@click.option("--chroot", metavar="CHROOT", default="", help="Only those of this chroot.")
@_places
def events(places: Places, follow: bool, session: str, chroot: str) -> int:
    """Print what has happened to sessions: a line of JSON for each event."""
    from sessions import following

    users.need_root()
    asked = {"session": session, "chroot": chroot}
    wanted = {field: value for field, value in asked.items() if value}

    def is_wanted(line: bytes) -> bool:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            return False  # torn, when there was no more room
        return isinstance(event, dict) and all(event.get(field) == value for field, value in wanted.items())

    if follow:
        return 128 + following.follow(places, is_wanted, sys.stdout.fileno())
    with following.Log(places) as log:
        for line in filter(is_wanted, log.lines()):
            click.echo(line)
    return 0


COMMANDS = (list_, show, chroots, plan, config, events)
