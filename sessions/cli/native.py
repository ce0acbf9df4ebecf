"""The ``sessions`` command: its options, its subcommands, and how it fails."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from sessions import __version__, relay, where
from sessions.cli import acting, keeping, looking, process, service
from sessions.cli.printing import tell
from sessions.errors import SessionsError
from sessions.model import Places

FAILED = 125


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--config-dir", metavar="DIR", default="", help="Read the configuration there (root only).")
@click.option("--state-dir", metavar="DIR", default="", help="Keep sessions there (root only).")
@click.option("--runtime-dir", metavar="DIR", default="", help="Mount and lock there (root only).")
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
@click.pass_context
def sessions(context: click.Context, config_dir: str, state_dir: str, runtime_dir: str) -> None:
    """Open sessions of chroots, run commands inside, and leave nothing behind."""
    if (config_dir or state_dir or runtime_dir) and os.geteuid() != 0:
        raise SessionsError("--config-dir, --state-dir and --runtime-dir are for root", hint="leave them out")
    context.obj = where.changed(
        where.usual_places(), config_dir=config_dir, state_dir=state_dir, runtime_dir=runtime_dir
    )  # fmt: skip


for _command in (*acting.COMMANDS, *keeping.COMMANDS, *looking.COMMANDS, service.service, service.shutdown):
    sessions.add_command(_command)


def main() -> NoReturn:
    """Run the command and exit: with the status of what was run inside, or 125 for every failure of our own."""
    relay.ensure_standard_descriptors()
    process.run(lambda: _run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    try:
        status = sessions.main(arguments, prog_name="sessions", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return FAILED
    except click.ClickException as error:
        complain(f"{error.format_message()} See: sessions --help")
        return FAILED
    except SessionsError as error:
        complain(str(error))
        return error.status
    except (KeyboardInterrupt, click.Abort):
        return 130
    except (BrokenPipeError, SystemExit):
        # The reader has gone (which click makes an exit): nothing more can be said there.
        return FAILED
    except OSError as error:
        complain(f"{error.strerror or error}: {error.filename}" if error.filename else f"{error.strerror or error}")
        return FAILED
    except Exception as error:
        complain(f"unexpected {type(error).__name__}: {error}; please report this")
        return FAILED
    return status if isinstance(status, int) else 0


def complain(text: str) -> None:
    """One line on standard error, red on a terminal."""
    line = f"sessions: {' '.join(text.split())}"
    wants_colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    tell(click.style(line, fg="red") if wants_colour else line)


def places_of(context: click.Context) -> Places:
    """The places that the options name."""
    found = context.find_object(Places)
    assert found is not None
    return found


if __name__ == "__main__":
    main()
