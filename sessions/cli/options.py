"""The words of a schroot command line, taken apart as schroot 1.6.13 does it, down to the texts of its refusals.

Options and words may be mixed until ``--``; a long option may be shortened as far as it stays the only one; flags may
be bundled (``-qc NAME``). This is hand-written because no parser of Python's does it so, and because it starts at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sessions import names
from sessions.cli.telling import DEBUG_LEVELS
from sessions.errors import UsageError

FLAG, ONE, MANY = "flag", "one", "many"

# Every long option: whether it takes a value, and how often it may be given.
OPTIONS = {
    "help": FLAG,
    "version": FLAG,
    "list": FLAG,
    "info": FLAG,
    "config": FLAG,
    "location": FLAG,
    "quiet": FLAG,
    "verbose": FLAG,
    "debug": ONE,
    "chroot": MANY,
    "all": FLAG,
    "all-chroots": FLAG,
    "all-sessions": FLAG,
    "all-source-chroots": FLAG,
    "exclude-aliases": FLAG,
    "directory": ONE,
    "shell": ONE,
    "user": ONE,
    "preserve-environment": FLAG,
    "option": MANY,
    "automatic-session": FLAG,
    "begin-session": FLAG,
    "recover-session": FLAG,
    "run-session": FLAG,
    "end-session": FLAG,
    "session-name": ONE,
    "force": FLAG,
    # The words of the command; schroot lets them be given as an option too, and so it counts among abbreviations.
    "command": MANY,
    "isolate-network": FLAG,
    "config-dir": ONE,
    "state-dir": ONE,
    "runtime-dir": ONE,
}
SHORT = {
    "h": "help",
    "V": "version",
    "l": "list",
    "i": "info",
    "q": "quiet",
    "v": "verbose",
    "c": "chroot",
    "a": "all",
    "d": "directory",
    "s": "shell",
    "u": "user",
    "p": "preserve-environment",
    "o": "option",
    "b": "begin-session",
    "r": "run-session",
    "e": "end-session",
    "n": "session-name",
    "f": "force",
}
# Ours alone: never matched by an abbreviation, so that those of schroot's options stay what they are.
DIRECTORIES = ("config-dir", "state-dir", "runtime-dir")
EXACT = ("isolate-network", *DIRECTORIES)

AUTOMATIC, BEGIN, RECOVER, RUN, END = (
    f"{action}-session" for action in ("automatic", "begin", "recover", "run", "end")
)  # fmt: skip
HELP, VERSION, LIST, INFO, CONFIG, LOCATION = "help", "version", "list", "info", "config", "location"
ACTIONS = (HELP, VERSION, LIST, INFO, CONFIG, LOCATION, AUTOMATIC, BEGIN, RECOVER, RUN, END)
PRINTING = (LIST, INFO, CONFIG, LOCATION)
ON_SESSIONS = (RECOVER, RUN, END)
RUNNING = (AUTOMATIC, RUN)

Say = Callable[[str, str], None]


class Options:
    """A command line taken apart: one action, the chroots it is for, and how."""

    def __init__(self, given: dict[str, list[str]], program: str) -> None:
        self._given = given
        self._program = program
        actions = [action for action in ACTIONS if action in given]
        if self._last("debug") not in ("", *DEBUG_LEVELS):
            raise self._refusal("Invalid debug level")
        if len(actions) > 1:
            raise self._refusal("Only one action may be specified")
        self.action = actions[0] if actions else AUTOMATIC
        self.chroots = given.get("chroot", [])
        self.all_chroots = self._has("all", "all-chroots")
        self.all_sessions = self._has("all", "all-sessions")
        self.all_sources = self._has("all", "all-source-chroots")
        self.with_aliases = not self._has("exclude-aliases")
        self.is_quiet = self._has("quiet")
        self.is_verbose = self._has("verbose")
        self.directory = self._last("directory")
        self.shell = self._last("shell")
        self.user = self._last("user")
        self.preserve_environment = self._has("preserve-environment")
        self.isolate_network = self._has("isolate-network")
        self.settings = given.get("option", [])
        self.session_name = self._last("session-name")
        self.force = self._has("force")
        self.debug = self._last("debug")
        self.command = given.get("command", [])
        self.config_dir, self.state_dir, self.runtime_dir = (self._last(option) for option in DIRECTORIES)

    def _has(self, *options: str) -> bool:
        return any(option in self._given for option in options)

    def _last(self, option: str) -> str:
        return self._given.get(option, [""])[-1]

    def _refusal(self, text: str) -> UsageError:
        return UsageError(
            text, hint=f"Run “{self._program} --help” to list usage example and all available options"
        )  # fmt: skip

    @property
    def selects_all(self) -> bool:
        """Whether chroots are selected by kind."""
        return self.all_chroots or self.all_sessions or self.all_sources

    @property
    def verbosity(self) -> str:
        """How much setup scripts are to say: as the chroot has it, if empty. Quiet wins, whatever is warned of."""
        return "quiet" if self.is_quiet else "verbose" if self.is_verbose else ""

    def check(self, say: Say) -> None:
        """Say which options are passed over, and raise UsageError for those that do not fit together."""
        if self.is_quiet and self.is_verbose:
            say("W", "--quiet and --verbose may not be used at the same time")
            say("I", "Using verbose output")
        if self.chroots and self.selects_all:
            say("W", "--chroot and --all may not be used at the same time")
            say("I", "Using --chroots only")
            self.all_chroots = self.all_sessions = self.all_sources = False
        if self.session_name and self.action != BEGIN:
            meant = "; did you mean to use --chroot?" if self.action in ON_SESSIONS else ""
            raise self._refusal(f"--session-name is not permitted for the specified action{meant}")
        if self.isolate_network and self.action not in RUNNING:
            raise self._refusal("--isolate-network is not permitted for the specified action")
        if self.action == BEGIN:
            if len(self.chroots) != 1 or self.selects_all:
                raise self._refusal("Exactly one chroot must be specified when beginning a session")
            if self.session_name and not names.is_valid(self.session_name):
                raise self._refusal("Invalid session name")


def parse(arguments: Sequence[str], program: str = "schroot") -> Options:
    """Take a command line apart; raises UsageError with schroot's text for what is wrong with it."""
    given: dict[str, list[str]] = {}
    for option, value in _Reader(arguments).read():
        if option in given and OPTIONS[option] != MANY:
            raise UsageError(f"option '--{option}' cannot be specified more than once")
        given.setdefault(option, []).append(value)
    return Options(given, program)


class _Reader:
    """Reads the words of a command line from left to right."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._left = list(reversed(arguments))

    def read(self) -> list[tuple[str, str]]:
        """Every option with its value, and every other word as a ``command``."""
        found: list[tuple[str, str]] = []
        while self._left:
            token = self._left.pop()
            if token == "--":
                found += (("command", word) for word in reversed(self._left))
                break
            if token.startswith("--"):
                found.append(self._long(token))
            elif token.startswith("-") and token != "-":
                found += self._short(token)
            else:
                found.append(("command", token))
        return found

    def _long(self, token: str) -> tuple[str, str]:
        name, equals, value = token[2:].partition("=")
        if equals and not value:
            option = f" '--{name}'" if name else ""
            raise UsageError(f"the argument for option{option} should follow immediately after the equal sign")
        if not name:  # "--=word" is an option without a name to schroot, which makes it a word
            return "command", value
        return self._with_value(_find(name, token), value)

    def _short(self, token: str) -> Iterator[tuple[str, str]]:
        letters = token[1:]
        while letters:
            option = SHORT.get(letters[0])
            if option is None:
                raise _unknown(token)
            letters = letters[1:]
            if OPTIONS[option] == FLAG:
                yield option, ""
            else:
                yield self._with_value(option, letters)
                return

    def _with_value(self, option: str, value: str) -> tuple[str, str]:
        """The option with the value that follows it; `value` is what was attached to it."""
        if OPTIONS[option] == FLAG:
            if value:
                raise UsageError(f"option '--{option}' does not take any arguments")
            return option, ""
        if value:
            return option, value
        # Only a short option standing alone is recognised as none of its values; "--list" would be taken for one.
        if not self._left or (self._left[-1].startswith("-") and self._left[-1][1:] in SHORT):
            raise UsageError(f"the required argument for option '--{option}' is missing")
        return option, self._left.pop()


def _find(name: str, token: str) -> str:
    """The long option that `name` is, or is the beginning of; or, as schroot has it, the short one (``---c``)."""
    if name in OPTIONS:
        return name
    if name[0] == "-" and name[1:] in SHORT:
        return SHORT[name[1:]]
    found = sorted(option for option in OPTIONS if option.startswith(name) and option not in EXACT)
    if not found:
        raise _unknown(token)
    if len(found) > 1:
        first = ", ".join(f"'--{option}'" for option in found[:-1])
        raise UsageError(f"option '{token}' is ambiguous and matches {first}, and '--{found[-1]}'")
    return found[0]


def _unknown(token: str) -> UsageError:
    return UsageError(f"unrecognised option '{token}'")


HELP_TEXT = """\
Usage:
  {program}  [OPTION…] [COMMAND] — run command or shell in a chroot

Actions:
  -h [ --help ]                   Show this list of options
  -V [ --version ]                Show the version
  -l [ --list ]                   List the names of chroots
  -i [ --info ]                   Show what is known of chroots
  --config                        Print the configuration of chroots
  --location                      Print where the roots of chroots are

General options:
  -q [ --quiet ]                  Say less
  -v [ --verbose ]                Say more

Chroot selection:
  -c [ --chroot ] arg             Use this chroot (or session)
  -a [ --all ]                    Select all chroots, source chroots and sessions
  --all-chroots                   Select all chroots
  --all-sessions                  Select all sessions
  --all-source-chroots            Select all source chroots
  --exclude-aliases               Leave aliases out of the list

Chroot environment:
  -d [ --directory ] arg          Directory inside to run the command in
  -s [ --shell ] arg              Shell to start if there is no command
  -u [ --user ] arg               User to run it as (you, if not given)
  -p [ --preserve-environment ]   Keep your environment
  -o [ --option ] arg             Set a key of the session (KEY=VALUE)
  --isolate-network               No network but a loopback of the command's own

Session actions:
  --automatic-session             Begin, run and end a session (this is usual)
  -b [ --begin-session ]          Begin a session and print its name
  --recover-session               Bring a session back after a reboot
  -r [ --run-session ]            Run a command in a session
  -e [ --end-session ]            End a session

Session options:
  -n [ --session-name ] arg       Name of the session (made up if not given)
  -f [ --force ]                  End it even if something is in the way
"""
