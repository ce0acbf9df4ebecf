"""How the schroot command speaks: its output, its messages and its exit status, in schroot's words."""

from __future__ import annotations

import os

from sessions.errors import CannotEnter, NeedsRoot, NoSuchNamespace, NotFound, SessionsError, UnknownUser

COMPATIBLE_VERSION = "1.6.13"
# The status of everything that fails of itself, rather than in a command.
FAILED = 1
DEBUG_LEVELS = ("none", "notice", "info", "warning", "critical")
_NO_SUCH_DIRECTORY = (
    "The directory does not exist inside the chroot.  Use the --directory option to run the command in a different "
    "directory."
)


class Failed(Exception):
    """What went wrong has been told; the command ends with `status`."""

    def __init__(self, status: int = FAILED) -> None:
        super().__init__()
        self.status = status


class Caught(BaseException):
    """A signal that asks us to stop has come; `name` is what strsignal(3) calls it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


def put(text: str) -> None:
    """Write all of it to standard output, in UTF-8 whatever the locale, as schroot does; raises OSError."""
    data = text.encode("utf-8", "surrogateescape")
    while data:
        data = data[os.write(1, data) :]


def tell(letter: str, text: str) -> None:
    """A message on standard error; one that cannot be written is lost.

    Of a directory that is missing inside, schroot says what to do about it, although it falls back to another one.
    """
    try:
        os.write(2, f"{letter}: {text}\n".encode("utf-8", "surrogateescape"))
    except OSError:
        pass
    if letter == "W" and text.startswith("Failed to change to directory"):
        tell("I", _NO_SUCH_DIRECTORY)


def log(text: str) -> None:
    """Write a line to the system's log, as schroot does: facility user, level notice. Without a log, it is lost."""
    import syslog

    syslog.openlog("schroot")
    syslog.syslog(syslog.LOG_USER | syslog.LOG_NOTICE, text.encode("utf-8", "backslashreplace").decode())


def tell_everything(level: str) -> None:
    """Tell of every effect, for --debug: D(1) of our own, D(2) of programs; nothing of those below `level`."""
    from sessions.linux import trace

    lowest = DEBUG_LEVELS.index(level)

    def hook(text: str) -> None:
        number = 2 if text.startswith(("run ", "running ", "ran ")) else 1
        if number >= lowest:
            tell(f"D({number})", text)

    trace.hook = hook


def tell_error(error: SessionsError) -> None:
    """Tell of an error, in schroot's words where it has any for it."""
    match error:
        case NotFound(names=names):
            tell("E", f"{', '.join(names)}: Chroot{'s' if len(names) > 1 else ''} not found")
        case UnknownUser(name=name):
            tell("E", f"User ‘{name}’ not found")
        case NeedsRoot():
            tell("E", str(error))
        case NoSuchNamespace():
            tell("E", error.text)
        case CannotEnter(what=what):
            tell("E", error.text)
            hints = {"directory": _NO_SUCH_DIRECTORY, "root": error.hint, "network": error.hint}
            if hints.get(what):
                tell("I", hints[what])
        case _:
            tell("E", error.text)
            if error.hint:
                tell("I", error.hint)
