"""What sessions share: who uses it, whether one of ours has made it, and a lock for whoever changes that.

Each such thing, a volume that was opened, has a directory below the runtime directory, which a restart of the machine
empties as it closes the volumes. In there is a file for each session that uses it, written before the session looks
whether it is there, and ``made``, written before one of ours makes it: without that it is somebody else's, and stays.
So whoever dies, and whenever, the last session to be ended knows that it is the last, and whether there is something to
take away.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from sessions import records
from sessions.data import TYPE_CHECKING, Frozen, replace
from sessions.errors import Interrupted
from sessions.linux import files, lasting, proc, signals, syscall, trace
from sessions.model import Places, Volume

if TYPE_CHECKING:
    from typing import Any

_MADE, _TEMPORARY, _USER = "made", "making", "user,"
# How often it is looked whether a lock is free: its holder runs programs, which takes longer.
_PAUSE_MS = 20
# Nothing that changes a volume takes longer.
_SLOW_S = 300.0


class Made(Frozen):
    """That one of ours has made it, or was about to: when the machine was in that boot, by which program at last."""

    boot_id: str
    volume: Volume | None
    sequence: int = 0
    """What the kernel calls this very disk (see devices.sequence); 0 until it is known to be there."""
    pid: int = 0
    start_ticks: int = 0


class Shared(Frozen):
    """One thing that sessions share, by its key: a file name without a slash, not one of ours."""

    places: Places
    key: str

    @property
    def directory(self) -> str:
        """Where it is written down."""
        return f"{self.places.volume_dir}/{self.key}"

    @contextmanager
    def locked(self, *, may_be_stopped: bool) -> Iterator[None]:
        """Alone with it; raises Interrupted if a signal that asks us to stop comes first, where it may be stopped.

        The end of a program is waited for whose caller has died.
        """
        fd = self._lock(may_be_stopped)
        try:
            made = self.made()
            if made and made.pid:
                lasting.wait_for_earlier(made.pid, made.start_ticks, _SLOW_S)
            yield
        finally:
            os.close(fd)

    def _lock(self, may_be_stopped: bool) -> int:
        while True:
            files.ensure_own_directory(self.places.volume_dir, 0o700)
            try:
                files.make_directory(self.directory, 0o700)
            except FileExistsError:
                pass
            try:
                fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # the last one has removed it
            try:
                self._wait(fd, may_be_stopped)
                if os.path.samestat(os.fstat(fd), os.stat(self.directory)):
                    return fd
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _wait(self, fd: int, may_be_stopped: bool) -> None:
        stopping = syscall.signalfd(signals.heeded() if may_be_stopped else ())
        poll = select.poll()
        poll.register(stopping, select.POLLIN)
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    poll.poll(_PAUSE_MS)
                signum = signals.pending() if may_be_stopped else None
                if signum is not None:
                    raise Interrupted(
                        signum, f"{signal.Signals(signum).name} came while somebody else opened or closed {self.key}"
                    )
        finally:
            os.close(stopping)

    def exists(self) -> bool:
        """Whether any session has used it, and not been ended."""
        return os.path.isdir(self.directory)

    def use(self, session_id: str) -> None:
        """Write down that a session uses it, from before it looks whether it is there."""
        path = self._user(session_id)
        trace.point("use", path)
        with open(path, "w", encoding="utf-8") as file:
            file.write(proc.boot_id())
        trace.point("used", path)

    def leave(self, session_id: str) -> None:
        """A session uses it no more."""
        _unlink(self._user(session_id))

    def is_used_by(self, session_id: str) -> bool:
        """Whether that session uses it, since this start of the machine."""
        return session_id in self.users()

    def users(self) -> list[str]:
        """The sessions that use it, since this start of the machine."""
        names = [name for name in files.names_in(self.directory) if name.startswith(_USER)]
        return [name.removeprefix(_USER) for name in names if self._read(name) == proc.boot_id()]

    def made(self) -> Made | None:
        """What is written down of its making, in this start of the machine; None if it is none of ours."""
        try:
            value: Any = json.loads(self._read(_MADE) or "null")
            made = records.decode(Made, value) if value else None
        except (ValueError, RecursionError):
            made = None  # nothing of ours: it gets its name when it is whole
        return made if made and made.boot_id == proc.boot_id() else None

    def begin_making(self, volume: Volume | None) -> None:
        """Write down that it is about to be made by us."""
        self._write(Made(proc.boot_id(), volume))

    def end_making(self, sequence: int) -> None:
        """Write down that it is there."""
        made = self.made()
        if made:
            self._write(replace(made, sequence=sequence, pid=0, start_ticks=0))

    def disown(self) -> None:
        """It is none of ours, or not there any more."""
        _unlink(f"{self.directory}/{_MADE}")

    def forget(self) -> None:
        """Remove all that is written down, unless somebody uses it."""
        if self.users():
            return
        self.disown()
        _unlink(f"{self.directory}/{_TEMPORARY}")
        for name in files.names_in(self.directory):
            # Of an earlier start of the machine, where the runtime directory is not emptied.
            if name.startswith(_USER) and self._read(name) != proc.boot_id():
                _unlink(f"{self.directory}/{name}")
        try:
            os.rmdir(self.directory)
        except OSError:
            pass
        trace.point("forgot", self.key)

    def record(self, pid: int) -> None:
        """Write down a program that makes it or takes it away, before it executes anything."""
        made = self.made()
        if made:
            self._write(replace(made, pid=pid, start_ticks=proc.start_ticks(pid) or 0))

    def _user(self, session_id: str) -> str:
        return f"{self.directory}/{_USER}{session_id}"

    def _read(self, name: str) -> str:
        try:
            return files.read_whole(f"{self.directory}/{name}").decode(errors="replace")
        except FileNotFoundError:
            return ""

    def _write(self, made: Made) -> None:
        """Whole or not at all, whoever dies."""
        temporary = f"{self.directory}/{_TEMPORARY}"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(records.encode(made), file)
        trace.point("write made", self.key)
        os.rename(temporary, f"{self.directory}/{_MADE}")
        trace.point("wrote made", self.key)


def all_shared(places: Places) -> list[Shared]:
    """Everything that sessions share now."""
    return [Shared(places, key) for key in files.names_in(places.volume_dir)]


def _unlink(path: str) -> None:
    trace.point("unlink", path)
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    trace.point("unlinked", path)
