"""What the schroot command does with sessions: automatic ones, begin, run, recover, end; and with plain chroots.

To run a command in an open session is what clients do a hundred times in a build: what sets sessions up and takes them
down is imported where that is done.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from sessions import relay, running, users
from sessions.cli import options as cli
from sessions.cli.progress import on_terminal
from sessions.cli.selection import Selection, Target
from sessions.cli.telling import FAILED, Caught, Failed, log, put, tell, tell_error
from sessions.data import TYPE_CHECKING, replace
from sessions.enter import Child, Request
from sessions.errors import (
    CannotEnter,
    ConfigError,
    Interrupted,
    InUse,
    NotFound,
    SessionExists,
    SessionsError,
    SetupFailed,
    StepFailed,
    Stuck,
)
from sessions.linux import signals
from sessions.model import Chroot, Places, Plain, Session

if TYPE_CHECKING:
    from sessions.config.configuration import Configuration
    from sessions.engine import Settings

# What a command gets from us, and is not to survive.
_TERMINATING = (signal.SIGTERM, signal.SIGHUP)
_RANDOM_UUID = "/proc/sys/kernel/random/uuid"


def perform(options: cli.Options, load: Callable[[], Configuration], places: Places, *, has_output: bool) -> int:
    """Act on everything selected, in turn; the status of the last.

    An error of ours, though not a command that fails, keeps the rest from being acted on.
    """
    selection = Selection(options, load, places)
    targets = selection.targets()
    if options.action == cli.BEGIN and selection.is_plain(options.session_name):
        raise SessionsError(f"{options.session_name}: Invalid session name")
    try:
        return _act_on_all(targets, _Actions(options, places, has_output=has_output), options)
    except SessionsError as error:
        # What keeps a command from being run is told by its child, of which schroot's quiet knows nothing.
        if options.is_quiet and not isinstance(error, CannotEnter):
            raise Failed from None
        raise


def _act_on_all(targets: list[Target], actions: _Actions, options: cli.Options) -> int:
    if options.settings:
        targets = [actions.customised(target) for target in targets]
    for signum in _TERMINATING:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _catch)
    status = 0
    for target in targets:
        status = actions.act(target)
    return status


def _catch(signum: int, _frame: FrameType | None) -> None:
    raise Caught(_name(signum))


def _name(signum: int) -> str:
    return signal.strsignal(signum) or str(signum)


def _new_id(chroot: Chroot) -> str:
    with open(_RANDOM_UUID, encoding="utf-8") as file:
        return f"{chroot.name}-{file.read().strip()}"


def _with(chroot: Chroot, settings: Iterable[tuple[str, str]]) -> Chroot:
    """The chroot with some of its custom keys set otherwise."""
    return replace(chroot, custom=tuple(sorted({**dict(chroot.custom), **dict(settings)}.items())))


class _Actions:
    """The actions of one command line on one target."""

    def __init__(self, options: cli.Options, places: Places, *, has_output: bool) -> None:
        self._options = options
        self._places = places
        self._has_output = has_output
        caller = users.caller()
        self._request = Request(
            argv=tuple(options.command),
            caller=caller,
            # Not the caller as it is: inside, it has the groups that the host's databases give it.
            user=users.find(options.user or caller.name),
            environment=relay.environment(),
            working_directory=relay.working_directory(),
            directory=options.directory,
            shell=options.shell,
            preserve_environment=options.preserve_environment,
            isolate_network=options.isolate_network,
            verbosity=options.verbosity,
            say=tell,
            log=log,
        )

    def customised(self, target: Target) -> Target:
        """The target with the keys that --option sets, each of which its chroot has to permit."""
        from sessions import access, keys, store
        from sessions.config import custom

        if target.chroot:
            chroot = target.chroot
        else:
            with store.open_session(self._places, target.name, for_marks=False) as journal:
                chroot = journal.session.chroot
        modifiable = access.modifiable_keys(chroot, self._request.caller, self._request.user)
        asked: dict[str, str] = {}
        for setting in self._options.settings:
            key, equals, value = setting.partition("=")
            asked.setdefault(key, value if equals else key)
        values: dict[str, str] = {}
        for key, value in sorted(asked.items()):  # schroot looks at them in this order
            if key not in modifiable.keys:
                text = f"Configuration key ‘{key}’ is not permitted to be modified."
                raise SessionsError(text, hint=f"The key is not present in {' or '.join(modifiable.lists)}")
            if not keys.is_custom(key):
                raise SessionsError(f"Configuration key name ‘{key}’ is not a permitted name.")
            try:
                values[key] = custom.check_value(key, value)
            except ValueError as error:
                raise SessionsError(f"{key}: {error}") from None
        if not target.chroot:  # a session has its own already: these are for the scripts of this call
            return replace(target, settings=tuple(values.items()))
        return replace(target, chroot=_with(chroot, values.items()))

    def act(self, target: Target) -> int:
        """Do it; the exit status."""
        action, chroot = self._options.action, target.chroot
        if chroot is None:
            return self._act_on_session(target)
        if isinstance(chroot.source, Plain):
            return self._act_on_plain(chroot)
        if action == cli.AUTOMATIC:
            return self._automatic(chroot, target.name)
        if action != cli.BEGIN:
            raise NotFound("", (target.word,))
        self._begin_and_print(chroot, target.name)
        return 0

    def _act_on_plain(self, chroot: Chroot) -> int:
        """A plain chroot can be run in, always under its own name; to begin, recover or end it is nothing."""
        if self._options.action == cli.BEGIN:
            put(f"{chroot.name}\n")
        if self._options.action not in (cli.AUTOMATIC, cli.RUN):
            return 0
        return self._wait(
            running.running_plain(self._places, chroot, chroot.name, self._request, guard=relay.signals_blocked)
        )

    def _act_on_session(self, target: Target) -> int:
        session_id = target.name
        if self._options.action == cli.RUN:
            return self._wait(running.running(self._places, session_id, self._request, guard=relay.signals_blocked))
        from sessions import lifecycle
        from sessions.engine import Settings

        progress = on_terminal(is_quiet=self._options.is_quiet)
        settings = Settings(tell, seen=lambda session: self._seen(session, target), progress=progress)
        if self._options.action == cli.RECOVER:
            with self._stage(session_id, "setup-recover"):
                lifecycle.recover(self._places, session_id, settings)
        else:
            self._end(session_id, settings)
        return 0

    def _seen(self, session: Session, target: Target) -> Session:
        """The session as its scripts are told of it: not who has begun it, but who ends or recovers it, and how."""
        return replace(
            session,
            caller=self._request.caller,
            user=self._request.user,
            verbosity=self._options.verbosity or session.verbosity,
            chroot=_with(session.chroot, target.settings),
        )

    def _wait(self, starting: AbstractContextManager[Child]) -> int:
        """Start the command and wait for it; its status. Raises Caught if we were asked to stop meanwhile."""
        caught: list[str] = []

        def hear(signum: int) -> bool:
            if signum in _TERMINATING and signal.getsignal(signum) is not signal.SIG_IGN:  # as under nohup(1)
                caught.append(_name(signum))
                tell("E", f"Caught signal ‘{caught[-1]}’: terminating immediately")
            return signum != signal.SIGINT  # which schroot leaves to the terminal, and the terminal sends it to both

        try:
            with starting as child:
                status = relay.wait(child.pid, hear)
        except CannotEnter as error:
            tell_error(error)
            return FAILED
        if caught:  # then the command's own end, which is the answer to it, is not told
            raise Caught(caught[-1])
        if status < 0:
            if not self._options.is_quiet:
                tell("E", f"Child terminated by signal ‘{_name(-status)}’")
            raise Failed
        return status

    def _automatic(self, chroot: Chroot, name: str) -> int:
        """A session for one command, ended whatever happens; the status is the command's, if it is not 0 in vain."""
        session_id = _new_id(chroot)
        with relay.signals_blocked():
            self._begin(chroot, name, session_id, automatic=True)
            try:
                status = self._wait(running.running(self._places, session_id, self._request))
            except BaseException:
                self._end_again(session_id)
                raise
            if not self._end_again(session_id):
                raise Failed(status or FAILED)
        return status

    def _begin_and_print(self, chroot: Chroot, name: str) -> None:
        """Begin a session that lasts, and print its name; a session whose name nobody has got is ended again."""
        if not self._has_output:
            raise SessionsError("standard output is closed, and nobody would learn the name of the session")
        session_id = self._options.session_name or _new_id(chroot)
        with relay.signals_blocked():
            self._begin(chroot, name, session_id, automatic=False)
            if signals.pending() is not None:  # which will be told of as soon as signals are let through
                self._end_again(session_id)
                return
            try:
                put(f"{session_id}\n")
            except OSError as error:
                self._end_again(session_id)
                text = f"the session's name could not be written: {error.strerror}"
                raise SessionsError(f"{session_id}: {text}; the session has been ended again") from None
            # The name is out, so this was a success: a signal that comes now comes too late.
            _drop_pending_signals()

    def _begin(self, chroot: Chroot, name: str, session_id: str, *, automatic: bool) -> None:
        from sessions import lifecycle
        from sessions.engine import Settings
        from sessions.newsession import Wish

        request = self._request
        wish = Wish(request.caller, request.user, session_id, automatic, self._options.verbosity)
        with self._stage(session_id, "setup-start"):
            progress = on_terminal(is_quiet=self._options.is_quiet)
            lifecycle.begin(self._places, chroot, name, wish, Settings(tell, progress=progress))

    def _end(self, session_id: str, settings: Settings) -> None:
        """End a session, and what runs inside; one that somebody else has ended meanwhile is ended."""
        from sessions import lifecycle

        force = self._options.force
        with self._stage(session_id, "setup-stop"):
            try:
                try:
                    lifecycle.end(self._places, session_id, settings)
                    return
                except InUse as error:
                    if not self._options.is_quiet:
                        tell("W", error.text)
                except Stuck:
                    if not force:
                        raise
                lifecycle.end(self._places, session_id, replace(settings, force=force), kill_commands=True)
            except NotFound:
                pass

    def _end_again(self, session_id: str) -> bool:
        """End a session that we have begun; whether all of it is gone, of which has otherwise been told."""
        from sessions import lifecycle
        from sessions.engine import Settings

        try:
            with self._stage(session_id, "setup-stop"):
                lifecycle.end(self._places, session_id, Settings(tell, force=self._options.force), kill_commands=True)
        except NotFound:
            pass
        except Failed:
            return False
        except SessionsError as error:
            tell_error(error)
            return False
        return True

    @contextmanager
    def _stage(self, session_id: str, stage: str) -> Iterator[None]:
        """Tell of a session that cannot be set up, recovered or ended as schroot tells of its setup scripts."""
        try:
            yield
        except SessionExists:
            file = f"{self._places.journal_dir}/{session_id}"
            text = f"Failed to lock chroot: {file}: Failed to write session file: File exists"
            raise SessionsError(f"{session_id}: {text}") from None
        except Interrupted as error:
            tell("E", error.text)
            tell("E", f"Caught signal ‘{_name(error.signum)}’")
            _drop_pending_signals()
            raise Failed from None
        except (SetupFailed, StepFailed, ConfigError, Stuck) as error:
            reasons = error.steps if isinstance(error, Stuck) else (error.text,)
            for reason in reasons:
                tell("E", reason.removeprefix(f"session {session_id} could not be set up: "))
            if error.hint:
                tell("I", error.hint)
            if not self._options.is_quiet:
                tell("E", f"{session_id}: Chroot setup failed: stage={stage}")
            raise Failed from None


def _drop_pending_signals() -> None:
    while signal.sigtimedwait(relay.PASSED_ON, 0):
        pass
