"""Every error the package raises: what happened to which object and why, what to do next, and the exit status.

The native command ends with :attr:`SessionsError.status`; the drop-in prints the same text behind ``E:`` and ends
with 1, as schroot does. No other exception is meant to reach a user.
"""

from __future__ import annotations

from collections.abc import Sequence


class SessionsError(Exception):
    """A failure in one line: the object and the reason; ``hint`` is the next thing to do, where one is known."""

    status = 125

    def __init__(self, text: str, *, hint: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.text}; {self.hint}" if self.hint else self.text


class UsageError(SessionsError):
    """The words of the call do not fit together."""


class InvalidName(SessionsError):
    """A name of a chroot, an alias or a session that names.check refuses."""


class ConfigError(SessionsError):
    """A configuration value that cannot be used; the text starts with the file and line."""


class NotFound(SessionsError):
    """No chroot, alias or session of the name asked for; ``names`` are the words as they were typed."""

    def __init__(self, text: str, names: Sequence[str], *, hint: str = "") -> None:
        super().__init__(text, hint=hint)
        self.names = tuple(names)


class NoSuchNamespace(SessionsError):
    """A word before the colon of a name that is none of chroot, source and session."""

    def __init__(self, namespace: str) -> None:
        super().__init__(f"{namespace}: No such namespace", hint="use chroot:, source: or session:")
        self.namespace = namespace


class UnknownUser(SessionsError):
    """No such user in the host's databases."""

    def __init__(self, name: str) -> None:
        super().__init__(f"User '{name}' not found", hint="give the name of a user of this host")
        self.name = name


class NeedsRoot(SessionsError):
    """The caller lacks the rights to mount, and no broker is there to ask."""


class SessionExists(SessionsError):
    """The session name is taken by a session that is there already."""

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"session {session_id} exists already", hint=f"choose another --name, or: sessions end {session_id}"
        )
        self.session_id = session_id


class InUse(SessionsError):
    """Somebody else's command runs in the session; the text names pids and commands."""


class SourceBusy(SessionsError):
    """A chroot is in use in a way that keeps the caller out, and the caller would not wait any longer."""


class SessionNotUsable(SessionsError):
    """The session is there but not up: half begun, half ended, or from before the last boot."""


class JournalError(SessionsError):
    """A journal that is corrupt, truncated, unreadable, foreign-owned or of a version we cannot read."""


class TornJournal(JournalError):
    """A journal whose first line a power cut has taken, so that nothing had been synced of session `session_id`."""

    def __init__(self, text: str, session_id: str) -> None:
        super().__init__(text, hint=f"sessions end {session_id}; if it is mounted, look at the file")
        self.session_id = session_id


class BadArchive(SessionsError):
    """An archive that cannot be read, or that holds a member which must not be unpacked."""


class StepFailed(SessionsError):
    """A step could not be done; the text says which, on what and why."""


class ArchiveChanged(StepFailed):
    """An archive is not any more what the session was named for: to be begun again, it is named for what is there."""


class CannotLock(SessionsError):
    """The lock of a session cannot be made or taken, for a reason other than that somebody has it."""


class SetupFailed(SessionsError):
    """A session could not be begun or recovered; everything done so far has been undone, or is named as stuck."""


class Stuck(SessionsError):
    """A session could not be ended wholly: ``steps`` says, a line each, what is stuck and why."""

    def __init__(self, text: str, steps: Sequence[str], *, hint: str = "") -> None:
        super().__init__(text, hint=hint)
        self.steps = tuple(steps)


class Interrupted(SessionsError):
    """A signal asked us to stop while a session was being set up."""

    def __init__(self, signum: int, text: str) -> None:
        super().__init__(text)
        self.signum = signum
        self.status = 128 + signum


class CannotEnter(SessionsError):
    """The command could not be started inside the session for a reason that is not the command's own.

    ``what`` is the kind of obstacle ("directory" for a working directory), ``path`` the object, ``errno`` the reason.
    """

    def __init__(self, text: str, *, what: str, path: str, errno: int, hint: str = "") -> None:
        super().__init__(text, hint=hint)
        self.what = what
        self.path = path
        self.errno = errno


class CommandNotFound(CannotEnter):
    """The command does not exist inside the session (env(1): status 127)."""

    status = 127


class CommandNotExecutable(CannotEnter):
    """The command exists inside the session but cannot be executed (env(1): status 126)."""

    status = 126
