"""Entering a session: a child changes its root, becomes the target user and executes the command.

Everything that needs the host (users, groups, environment, shells, encodings) is worked out before the fork. After the
change of root the child only makes system calls: nothing is looked up, imported or loaded from inside the session.
"""

from __future__ import annotations

import _locale
import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from sessions import environ, keytypes
from sessions.data import TYPE_CHECKING, Frozen, replace
from sessions.errors import CannotEnter, CommandNotExecutable, CommandNotFound, SessionsError, UsageError
from sessions.linux import files, run, syscall
from sessions.linux import spawn as spawning
from sessions.model import Identity, Plain, Session

if TYPE_CHECKING:
    from typing import NoReturn

FALLBACK_SHELLS = ("/bin/bash", "/bin/sh")

# What a child reports on its way to exec: a directory that it could not go to, and that it waits at the gate.
_MISSED = b"missed "
_READY = b"ready\n"


class Request(Frozen):
    """What is to be run inside, and as whom. An empty `argv`, or an empty first word, asks for a login shell.

    `directory` is the one asked for; without it, `working_directory`, the caller's own, is tried. `environment` is the
    caller's. `say` hears, before anything is executed, of what could not be as it was asked for ("W") and, if
    `verbosity`, or without one the chroot's, is verbose, of what is about to be executed ("I"). `log` hears of what is
    executed as root or as somebody else than the caller. With `isolate_network` the command has a network of its own,
    with nothing in it but the loopback.
    """

    argv: tuple[str, ...]
    caller: Identity
    user: Identity
    environment: Mapping[str, str]
    working_directory: str
    directory: str = ""
    shell: str = ""
    preserve_environment: bool = False
    isolate_network: bool = False
    verbosity: str = ""
    say: Callable[[str, str], None] = lambda letter, line: None
    log: Callable[[str], None] = lambda line: None

    @property
    def is_login_shell(self) -> bool:
        """Whether no command is given."""
        return not self.argv or not self.argv[0]


class Prepared(Frozen):
    """A request with everything worked out, in the bytes that the kernel takes."""

    words: tuple[bytes, ...]
    """The argument vector."""
    candidates: tuple[bytes, ...]
    """Paths inside to execute, the first that exists; one with a slash is taken as it is."""
    environment: dict[bytes, bytes]
    directories: tuple[str, ...]
    user: Identity
    persona: int
    isolate_network: bool
    command: str
    """The command for messages."""
    announcement: str
    """What is about to be executed, in words; empty if nobody wants to know."""
    say: Callable[[str, str], None]
    log: Callable[[], None]
    """Writes down that it is executed."""
    warnings: tuple[str, ...] = ()


class Child(Frozen):
    """A command that has been executed inside a session."""

    pid: int
    warnings: tuple[str, ...]


def prepare(session: Session, request: Request) -> Prepared:
    """Work out the shell or command, the environment and the directories to try."""
    preserve = request.preserve_environment or session.chroot.preserve_environment
    warnings: list[str] = []
    words: tuple[str, ...]
    shell = ""
    if request.is_login_shell:
        shell = _shell(session, request, warnings)
        is_plain = not preserve and not session.chroot.command_prefix
        words = ("-" + os.path.basename(shell) if is_plain else shell,)
        user = replace(request.user, shell=shell)
        command, program = words[0], shell
        running = f"{'login ' if is_plain else ''}shell: ‘{shell}’"
        record = f"{'login ' if is_plain else ''}shell: '{shell}'"
    else:
        words, user = request.argv, request.user
        command, program = " ".join(words), words[0]
        running, record = f"command: “{command}”", f'command: "{command}"'
    given = request.environment
    if request.is_login_shell and preserve:
        given = {**given, "SHELL": user.shell}
    environment = environ.for_commands(session, request.caller, user, given, preserve=preserve, command=command)
    prefix = session.chroot.command_prefix
    if prefix:
        words, program = (*prefix, *words), prefix[0]
    directories = _directories(request, environment)
    _check_passable((*words, *environment.values(), *directories), environment)
    return Prepared(
        tuple(map(os.fsencode, words)),
        # A shell is never looked for in PATH: where it is not a path, it has been found missing above.
        () if program == shell and "/" not in shell else _candidates(program, environment.get("PATH", "")),
        {os.fsencode(name): os.fsencode(value) for name, value in environment.items()},
        directories,
        user,
        keytypes.PERSONALITIES[session.chroot.personality],
        request.isolate_network,
        program,
        _announcement(session, request, running),
        request.say,
        _logger(session, request, record),
        tuple(warnings),
    )


def _check_passable(texts: Iterable[str], variables: Iterable[str]) -> None:
    """Raise UsageError for what the kernel can pass on to no program."""
    for text in texts:
        if "\0" in text:
            raise UsageError(f"{text!r} holds a NUL, which cannot be passed on to a command", hint="take it out")
    for name in variables:
        if not name or "=" in name or "\0" in name:
            raise UsageError(f"{name!r} is not the name of a variable", hint="take it out of the environment")


def _announcement(session: Session, request: Request, running: str) -> str:
    if (request.verbosity or session.chroot.message_verbosity) != "verbose":
        return ""
    who = f"({request.caller.name}→{request.user.name}) " if request.caller.uid != request.user.uid else ""
    return f"[{session.id} chroot] {who}Running {running}"


def _logger(session: Session, request: Request, record: str) -> Callable[[], None]:
    """What writes down who runs what as whom; to run something as oneself, unless as root, is nobody's business."""
    caller, user = request.caller, request.user
    if user.uid != 0 and user.uid == caller.uid:
        return lambda: None
    return lambda: request.log(f"[{session.id} chroot] ({caller.name}->{user.name}) Running {record}")


def _candidates(program: str, path: str) -> tuple[bytes, ...]:
    """Where to look for a program; one that no directory of PATH has is never taken from the working directory."""
    if "/" in program:
        return (os.fsencode(program),)
    directories = [directory for directory in path.split(":") if directory.startswith("/")]
    return tuple(os.fsencode(f"{directory.rstrip('/')}/{program}") for directory in directories)


def _shell(session: Session, request: Request, warnings: list[str]) -> str:
    """The shell to start: the one asked for, the chroot's, or the first of the usual ones that exists inside.

    Each that is missing is warned of; the last one is taken all the same, and its execution then says why not.
    """
    wish = request.shell or session.chroot.shell
    choices = [wish] if wish else _usual_shells(session, request)
    root_fd = _open_root(session)
    try:
        for shell in choices:
            reason = _why_missing(root_fd, shell)
            if not reason:
                break
            warnings.append(f"Shell ‘{shell}’ not available: {shell}: Failed to stat file: {reason}")
    finally:
        os.close(root_fd)
    if warnings and not wish:
        warnings.append(f"Falling back to shell ‘{shell}’")
    return shell


def _usual_shells(session: Session, request: Request) -> list[str]:
    shells = [request.user.shell]
    if request.preserve_environment:
        shells.insert(0, request.environment.get("SHELL", "") or request.user.shell)
    shells = [shell for shell in shells if shell]
    return shells + [shell for shell in FALLBACK_SHELLS if shell not in shells]


def _why_missing(root_fd: int, shell: str) -> str:
    """Why a shell is not there inside, in the kernel's words; empty if it is."""
    try:
        os.close(files.open_in_root(root_fd, shell if "/" in shell else "", os.O_PATH))
    except OSError as error:
        return os.strerror(error.errno or 0)
    return ""


def _directories(request: Request, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The directories to try in turn: only a login shell without a wish of its own has any to fall back to."""
    if request.directory:
        return (request.directory,)
    if not request.is_login_shell:
        return (request.working_directory,)
    choices = [request.working_directory, environment.get("HOME", ""), request.user.home, "/"]
    return tuple(dict.fromkeys(choice for choice in choices if choice))


def spawn(session: Session, prepared: Prepared, descriptors: Sequence[int] = (0, 1, 2)) -> Child:
    """Start the command with `descriptors` as its standard input, output and error; return once it is executed.

    Raises CannotEnter, or CommandNotFound or CommandNotExecutable, if it could not be started.
    """
    root_fd = _open_root(session)
    change = _change_of_root(session, prepared)
    try:
        if _is_simple(prepared):
            words, environment = prepared.words, prepared.environment
            directory, candidates = prepared.directories[0], prepared.candidates
            outcome = spawning.spawn(root_fd, directory, descriptors, candidates, words, environment, change)
            if not isinstance(outcome, spawning.Failure):
                prepared.log()
                return Child(outcome, ())
            if outcome.stage == "execute":
                prepared.log()
            if outcome.stage != "thread":
                raise _failure(prepared, outcome.stage, outcome.errno)
        return _fork(root_fd, prepared, descriptors, change)
    finally:
        os.close(root_fd)


def _change_of_root(session: Session, prepared: Prepared) -> Callable[[int], None]:
    """What the child does to change its root."""
    if not prepared.isolate_network:
        return spawning.change_root
    from sessions.linux import network

    path = os.path.realpath(session.path)
    return lambda root_fd: network.change_root(root_fd, path)


def _is_simple(prepared: Prepared) -> bool:
    """Whether there is nothing to be said or tried on the way, so that the command can be spawned without a fork."""
    user = prepared.user
    return (
        len(prepared.directories) == 1
        and not prepared.warnings
        and not prepared.announcement
        and prepared.persona == keytypes.PERSONALITIES["undefined"]
        and spawning.is_possible(user.uid, user.gid, user.groups)
    )


def _fork(root_fd: int, prepared: Prepared, descriptors: Sequence[int], change: Callable[[int], None]) -> Child:
    """The general way to start a command: a copy of us that reports, waits at a gate, and executes."""
    report_read, report_write = os.pipe()
    gate_read, gate_write = os.pipe()
    try:
        pid = run.fork(lambda: _child(root_fd, prepared, tuple(descriptors), report_write, gate_read, change))
    finally:
        for fd in (report_write, gate_read):
            os.close(fd)
    warnings: list[str] = []
    try:
        *missed, last = _read(report_read).splitlines() or [b""]
        if is_ready := last == _READY.strip():
            warnings = [*_missed_warnings(missed, prepared), *prepared.warnings]
            for warning in warnings:
                prepared.say("W", warning)
            if prepared.announcement:
                prepared.say("I", prepared.announcement)
            prepared.log()
            with suppress(BrokenPipeError):  # it was killed at the gate, which its status will tell
                os.write(gate_write, b"g")
            last = _read(report_read)
    finally:
        os.close(gate_write)
        os.close(report_read)
    if last or not is_ready:
        os.waitpid(pid, 0)
        what, _blank, number = last.decode().strip().partition(" ")
        raise _failure(prepared, what or "start", int(number or errno.EINTR))
    return Child(pid, tuple(warnings))


def _read(report_fd: int) -> bytes:
    """What the child reports until it waits at the gate, or has executed the command or given up."""
    report = b""
    while not report.endswith(_READY) and (piece := os.read(report_fd, 4096)):
        report += piece
    return report


def _missed_warnings(missed: Sequence[bytes], prepared: Prepared) -> list[str]:
    directories = prepared.directories
    warnings = [
        f"Failed to change to directory ‘{directory}’: {os.strerror(int(line.removeprefix(_MISSED)))}"
        for directory, line in zip(directories, missed, strict=False)
    ]
    return [*warnings, f"Falling back to directory ‘{directories[len(missed)]}’"] if missed else []


def _open_root(session: Session) -> int:
    """The session's root, which has to be a mount: without one, the path is only an empty directory of the host.

    The root of a plain chroot, whose session exists in memory alone, is its directory itself.
    """
    is_plain = isinstance(session.chroot.source, Plain)
    try:
        with files.directory(session.location) as location_fd:
            if not is_plain and not syscall.is_mount_root(location_fd):
                raise FileNotFoundError(errno.ENOENT, "nothing is mounted there", session.location)
            inside = session.path.removeprefix(session.location) or "/"
            return files.open_in_root(location_fd, inside, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        path, number = session.path, error.errno or 0
        what, text, hint = "root", f"session {session.id} has no root at {path}", f"sessions recover {session.id}"
        if is_plain:
            what, text, hint = "chroot", f"Failed to change to directory ‘{path}’", "make it, or mend the configuration"
        raise CannotEnter(f"{text}: {error.strerror}", what=what, path=path, errno=number, hint=hint) from None


def _failure(prepared: Prepared, what: str, number: int) -> SessionsError:
    reason = os.strerror(number)
    if what == "directory":
        path = prepared.directories[-1]
        return CannotEnter(
            f"Failed to change to directory ‘{path}’: {reason}",
            what=what,
            path=path,
            errno=number,
            hint="name one that exists inside with --directory",
        )
    if what == "execute":
        kind = CommandNotFound if number in (errno.ENOENT, errno.ENOTDIR) else CommandNotExecutable
        return kind(f"Failed to execute “{prepared.command}”: {reason}", what=what, path=prepared.command, errno=number)
    if what == "chroot" and prepared.isolate_network:
        text, hint = "cannot give the command a network of its own", "this needs CAP_SYS_ADMIN and / to be a mount"
        return CannotEnter(f"{text}: {reason}", what="network", path="", errno=number, hint=hint)
    return CannotEnter(f"cannot enter the session: {what}: {reason}", what=what, path="", errno=number)


def _child(
    root_fd: int,
    prepared: Prepared,
    descriptors: tuple[int, ...],
    report_fd: int,
    gate_fd: int,
    change: Callable[[int], None],
) -> NoReturn:
    """In the new process: everything up to exec. Failures are told through `report_fd`, which exec closes.

    Before exec it waits at the gate, so that what there is to say is said before the command says anything.
    """
    stage = "descriptors"
    try:
        # Or the words of an error would be looked for in message catalogues, inside the session.
        _locale.setlocale(_locale.LC_ALL, "C")
        root_fd, report_fd, gate_fd = spawning.arrange_descriptors(descriptors, (root_fd, report_fd, gate_fd))
        stage = "personality"
        if prepared.persona != keytypes.PERSONALITIES["undefined"]:
            syscall.personality(prepared.persona)
        stage = "chroot"
        change(root_fd)
        stage = "groups"
        os.setgroups(prepared.user.groups)
        gid, uid = prepared.user.gid, prepared.user.uid
        os.setresgid(gid, gid, gid)
        stage = "user"
        os.setresuid(uid, uid, uid)
        stage = "directory"
        _change_directory(prepared.directories, report_fd)
        os.write(report_fd, _READY)
        if os.read(gate_fd, 1):
            stage = "execute"
            run.reset_signals()
            spawning.first_executable(
                prepared.candidates, lambda path: os.execve(path, prepared.words, prepared.environment)
            )
    except OSError as error:
        os.write(report_fd, b"%s %d\n" % (stage.encode(), error.errno or 0))
    os._exit(125)


def _change_directory(directories: tuple[str, ...], report_fd: int) -> None:
    """Go to the first of the directories that can be gone to, telling of each that cannot."""
    for index, directory in enumerate(directories):
        try:
            os.chdir(directory)
            return
        except OSError as error:
            if index + 1 == len(directories):
                raise
            os.write(report_fd, _MISSED + b"%d\n" % (error.errno or 0))
