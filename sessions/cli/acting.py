"""The subcommands that change something: run, begin, exec, end, recover."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import click

from sessions import lifecycle, names, relay, running, store, users
from sessions.cli.printing import tell
from sessions.cli.progress import on_terminal
from sessions.cli.words import ChrootAndCommand, SessionAndCommand
from sessions.engine import Settings
from sessions.enter import Request
from sessions.errors import SessionsError, UsageError
from sessions.model import Places
from sessions.newsession import Wish

_user = click.option("-u", "--user", metavar="USER", default="", help="Who runs the command (default: you).")
_directory = click.option("-d", "--directory", metavar="DIR", default="", help="The directory inside to run it in.")
_preserve = click.option("-p", "--preserve-environment", is_flag=True, help="Keep your environment.")
_shell = click.option("-s", "--shell", metavar="SHELL", default="", help="The shell to start without a COMMAND.")
_isolate = click.option(
    "--isolate-network", is_flag=True, help="Give the command no network but a loopback of its own."
)
_script_timeout = click.option(
    "--script-timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End setup scripts that take longer.",
)
lock_timeout_option = click.option(
    "--lock-timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Give up if the chroot is in use for longer.",
)
no_wait_option = click.option("--no-wait", is_flag=True, help="Give up at once if the chroot is in use.")
_places = click.make_pass_decorator(Places)


def say(letter: str, line: str) -> None:
    """Lines of setup scripts, and warnings, for a person: on standard error."""
    prefix = {"W": "warning: ", "E": ""}.get(letter, "")
    tell(f"{prefix}{line}")


@click.command(cls=ChrootAndCommand)
@_user
@_directory
@_preserve
@_shell
@_isolate
@_script_timeout
@lock_timeout_option
@no_wait_option
@_places
def run(
    places: Places,
    thing: str,
    words: tuple[str, ...],
    user: str,
    directory: str,
    preserve_environment: bool,
    shell: str,
    isolate_network: bool,
    script_timeout: float | None,
    lock_timeout: float | None,
    no_wait: bool,
) -> int:
    """Run a command, or a login shell, in a session of its own that ends with it."""
    users.need_root()
    request = _request(words, user, directory, preserve_environment, shell, isolate_network)
    chroot, selected = lifecycle.find_chroot(lifecycle.load(places), thing, with_host=True)
    settings = Settings(say, script_timeout_s=script_timeout, progress=on_terminal())
    with relay.signals_blocked():
        timeout_s = patience_s(lock_timeout, no_wait)
        wish = Wish(request.caller, request.user, automatic=True, lock_timeout_s=timeout_s)
        session = lifecycle.begin(places, chroot, selected, wish, settings)
        try:
            status = _run_inside(places, session.id, request)
        finally:
            lifecycle.end(places, session.id, settings, kill_commands=True)
    return relay.exit_like(status)


@click.command(name="exec", cls=SessionAndCommand)
@_user
@_directory
@_preserve
@_shell
@_isolate
@_places
def execute(
    places: Places,
    thing: str,
    words: tuple[str, ...],
    user: str,
    directory: str,
    preserve_environment: bool,
    shell: str,
    isolate_network: bool,
) -> int:
    """Run a command, or a login shell, in a session that was begun before."""
    users.need_root()
    request = _request(words, user, directory, preserve_environment, shell, isolate_network)
    return relay.exit_like(_run_inside(places, _session_id(thing), request))


def _request(
    words: tuple[str, ...], user: str, directory: str, preserve: bool, shell: str, isolate_network: bool
) -> Request:
    caller = users.caller()
    return Request(
        argv=words,
        caller=caller,
        user=users.find(user) if user else caller,
        environment=relay.environment(),
        working_directory=relay.working_directory(),
        directory=directory,
        shell=shell,
        preserve_environment=preserve,
        isolate_network=isolate_network,
    )


def _run_inside(places: Places, session_id: str, request: Request) -> int:
    with running.running(places, session_id, request, guard=relay.signals_blocked) as child:
        for warning in child.warnings:
            say("W", warning)
        return relay.wait(child.pid)


def _session_id(word: str) -> str:
    """The session that ``[session:]NAME`` names."""
    asked = names.split(word, names.SESSION)
    if asked.namespace != names.SESSION:
        raise UsageError(f"{word} is not a session", hint=f"for a session of it: sessions run {word}")
    return asked.name


@click.command()
@click.argument("chroot", metavar="CHROOT")
@click.option("-n", "--name", metavar="ID", default="", help="The session's name; made up if not given.")
@click.option("-u", "--user", metavar="USER", default="", help="Who the session is for (setup scripts are told).")
@_script_timeout
@lock_timeout_option
@no_wait_option
@_places
def begin(
    places: Places,
    chroot: str,
    name: str,
    user: str,
    script_timeout: float | None,
    lock_timeout: float | None,
    no_wait: bool,
) -> None:
    """Begin a session, print its name, and leave it open."""
    users.need_root()
    found, selected = lifecycle.find_chroot(lifecycle.load(places), chroot, with_host=True)
    caller = users.caller()
    target = users.find(user) if user else caller
    timeout_s = patience_s(lock_timeout, no_wait)
    wish = Wish(caller, target, _session_id(name) if name else "", lock_timeout_s=timeout_s)
    settings = Settings(say, script_timeout_s=script_timeout, progress=on_terminal())
    with relay.signals_blocked():
        session = lifecycle.begin(places, found, selected, wish, settings)
    try:
        sys.stdout.write(session.id + "\n")
        sys.stdout.flush()
    except OSError as error:
        # Whoever asked for the session will never know its name.
        lifecycle.end(places, session.id, settings)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SessionsError(
            f"the session's name could not be written ({error.strerror}), so it was ended again"
        ) from None


@click.command()
@click.argument("names", metavar="SESSION...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="End every session.")
@click.option("-f", "--force", is_flag=True, help="End what runs inside or blocks the end, whoever it belongs to.")
@_script_timeout
@_places
def end(places: Places, names: tuple[str, ...], every: bool, force: bool, script_timeout: float | None) -> int:
    """End sessions: processes, mounts and all that belonged to them."""
    settings = Settings(say, force=force, script_timeout_s=script_timeout)
    return _for_each(places, names, every, lambda name: lifecycle.end(places, name, settings))


@click.command()
@click.argument("names", metavar="SESSION...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Recover every session.")
@_script_timeout
@_places
def recover(places: Places, names: tuple[str, ...], every: bool, script_timeout: float | None) -> int:
    """Bring sessions back up after the machine was restarted."""
    settings = Settings(say, script_timeout_s=script_timeout, progress=on_terminal())
    return _for_each(places, names, every, lambda name: lifecycle.recover(places, name, settings))


def _for_each(places: Places, names: tuple[str, ...], every: bool, act: Callable[[str], None]) -> int:
    """Act on each session in turn; a failure is told and does not keep the others from being acted on."""
    from sessions.cli.native import FAILED, complain

    users.need_root()
    if every == bool(names):
        raise UsageError(
            "give the names of sessions, or --all" if not every else "--all stands for every session: give no names"
        )
    failed = False
    for name in [entry.id for entry in store.entries(places)] if every else map(_session_id, names):
        try:
            act(name)
        except SessionsError as error:
            complain(str(error))
            failed = True
    return FAILED if failed else 0


def patience_s(lock_timeout: float | None, no_wait: bool) -> float | None:
    """How long to wait for a chroot that is in use; None is for ever."""
    return 0.0 if no_wait else lock_timeout


COMMANDS = (run, begin, execute, end, recover)
