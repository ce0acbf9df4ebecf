"""The ``schroot`` command: takes, prints and returns what schroot 1.6.13 does, on the lifecycle of this package.

It starts hundreds of times in a single build, so what only some actions need is imported where they need it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import cache

from sessions.cli import options as cli
from sessions.cli import process
from sessions.cli.telling import COMPATIBLE_VERSION, FAILED, Caught, Failed, put, tell, tell_error, tell_everything
from sessions.data import TYPE_CHECKING
from sessions.errors import NeedsRoot, SessionsError

if TYPE_CHECKING:
    from typing import NoReturn

    from sessions.config.configuration import Configuration
    from sessions.model import Places


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command with these arguments (the process's own, if not given), and exit with its status."""
    program = "unschroot" if os.path.basename(sys.argv[0]) == "unschroot" else "schroot"
    process.run(lambda: run(sys.argv[1:] if argv is None else argv, program))


def run(arguments: Sequence[str], program: str = "schroot") -> int:
    """The command without its exit; whatever goes wrong is told on standard error, and never as a traceback."""
    from sessions import relay

    has_output, is_quiet = _is_open(1), False
    relay.ensure_standard_descriptors()
    try:
        options = cli.parse(arguments, program)
        is_quiet = options.is_quiet
        options.check(tell)
        if options.debug not in ("", "none"):
            tell_everything(options.debug)
        return _act(options, program, has_output=has_output)
    except Failed as error:
        return error.status
    except SessionsError as error:
        tell_error(error)
    except Caught as error:
        if not is_quiet:
            tell("E", f"Caught signal ‘{error.name}’")
    except KeyboardInterrupt:
        tell("E", "Caught signal ‘Interrupt’")
    except BrokenPipeError:
        pass  # whoever read our output has seen enough
    except OSError as error:
        reason = error.strerror or str(error)
        tell("E", f"{error.filename}: {reason}" if error.filename else reason)
    except Exception as error:
        tell("E", f"unexpected {type(error).__name__}: {error}; please report this")
    return FAILED


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _act(options: cli.Options, program: str, *, has_output: bool) -> int:
    """Do what is asked for; the exit status."""
    if options.action == cli.HELP:
        put(cli.HELP_TEXT.format(program=program))
    elif options.action == cli.VERSION:
        from sessions import __version__

        put(f"{program} (chroot-sessions {__version__}) {COMPATIBLE_VERSION}\n")
    elif options.action in cli.PRINTING:
        _print(options)
    else:
        from sessions import users

        users.need_root()
        from sessions.cli.actions import perform

        places = _places(options)
        return perform(options, _loader(options, places), places, has_output=has_output)
    return 0


def _print(options: cli.Options) -> None:
    from sessions.cli.selection import Selection

    places = _places(options)
    selection = Selection(options, _loader(options, places), places)
    if options.action == cli.LIST:
        put("".join(f"{word}\n" for word in selection.words()))
        return
    from sessions.cli.output import config, info, location

    if options.action == cli.LOCATION:
        put("".join(f"{location(shown)}\n" for shown in selection.shown()))
    else:
        put((info if options.action == cli.INFO else config)(selection.shown()))


def _places(options: cli.Options) -> Places:
    from sessions import where

    changes = {
        "config_dir": options.config_dir,
        "state_dir": options.state_dir,
        "runtime_dir": options.runtime_dir,
    }
    if any(changes.values()) and os.geteuid() != 0:
        raise NeedsRoot("--config-dir, --state-dir and --runtime-dir are for root", hint="leave them out")
    return where.changed(where.usual_places(), **changes)


def _loader(options: cli.Options, places: Places) -> Callable[[], Configuration]:
    """What reads the configuration, once, when something of it is wanted: an open session needs none."""
    return cache(lambda: _load(options, places))


def _load(options: cli.Options, places: Places) -> Configuration:
    """Read the configuration; what is wrong with it is told only where all of it is looked at.

    Clients read our messages together with our output, and nothing wrong elsewhere keeps a chroot from being used.
    """
    from sessions.config.load import load

    configuration = load(places)
    if not options.is_quiet:
        if not configuration.chroots and not any(problem.is_error for problem in configuration.problems):
            directory = places.schroot_config_dir
            tell("W", f"No chroots are defined in ‘{directory}/schroot.conf’ or ‘{directory}/chroot.d’")
        if options.action in (cli.LIST, cli.INFO) and not options.chroots:
            for problem in configuration.problems:
                tell("W", problem.text)
    return configuration


if __name__ == "__main__":
    main()
