"""The step that sees to it that an archive is unpacked in the cache, by this session or by another.

What only unpacking and waiting need is loaded for them: nearly always the tree is there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext

from sessions import archivecache, archiveidentity, owners
from sessions.data import TYPE_CHECKING
from sessions.errors import ArchiveChanged, StepFailed
from sessions.linux import syscall, trace
from sessions.model import CachedTree
from sessions.steps.base import Context, Note, Stage, Step

if TYPE_CHECKING:
    from typing import ClassVar


class CachedArchive(Step):
    """A tree in the cache of archives. It stays for others when the session ends; what is not complete does not.

    Recovery does it again, since the cache may have been emptied, or the machine restarted before all was on the disk.
    """

    kind: ClassVar[str] = "cached-archive"
    is_left_at_rest: ClassVar[bool] = True
    # What it removes has the session's stamp.
    always_undone: ClassVar[bool] = True
    archive: str
    tree: CachedTree

    @property
    def remedy(self) -> str:
        """The cache is below the state directory."""
        return "make room there, or make it writable, or set archive-cache = false"

    def check(self, context: Context) -> Note:
        """If it has to be unpacked, it has to be an archive."""
        if not os.path.lexists(self.tree.path):
            from sessions.linux import archive

            archive.compression_of(self.archive)
        return {}

    def do(self, context: Context) -> None:
        """Use what is there, or unpack it, or wait for who does."""
        told = ""
        while not self._use(context):
            record = self._record(context)
            fd = archivecache.claim(self.tree.path, record)
            if fd is None:
                told = self._wait(context, told)
                continue
            try:
                self._unpack(fd, record, context)
            except BaseException:
                # Not only with the session: one that is recovered stays, and others wait.
                os.close(fd)
                archivecache.withdraw(self.tree.path, record.stamp)
                raise
            os.close(fd)

    def _use(self, context: Context) -> bool:
        """Whether it is there; if so it stays, for our journal names it, and it is on the disk if our session lasts."""
        path = self.tree.path
        with archivecache.held(path) as fd:
            if fd is None:
                return False
            trace.point("use", path)
            archivecache.touch(fd)
            if context.session.owner is None:
                archivecache.sync(fd, path)
                record = archivecache.read_record(path)
                # By which an archive is known again that was touched, should the tree be gone some day.
                if record and record.digest and context.note.get("digest") != record.digest:
                    context.remember({"digest": record.digest})
            if self.tree.alias:
                archivecache.link(self.tree.alias, path)
            return True

    def _record(self, context: Context) -> archivecache.Record:
        session = context.session
        return archivecache.Record(
            archive=self.archive,
            stamp=session.stamp,
            session=session.id,
            user=session.caller.name,
            owner=owners.this_process(),
            since_ns=time.time_ns(),
        )

    def _unpack(self, fd: int, record: archivecache.Record, context: Context) -> None:
        from sessions.linux import archive

        started_ns = time.monotonic_ns()
        path, hidden = self.tree.path, archivecache.hidden(self.tree.path)
        # Without a doubt, what lives as long as its process has no time for a digest: the garbage collector has.
        expected = self.tree.digest or str(context.note.get("digest", ""))
        watched = _Watched(self, expected, context, has_time=bool(expected) or context.session.owner is None)
        os.mkdir(f"{hidden}/{archivecache.TREE}", 0o755)
        size_bytes = archive.unpack(
            self.archive, f"{hidden}/{archivecache.TREE}", progress=context.progress, watching=watched.watching
        )
        archivecache.write_record(hidden, archivecache.completed(record, watched.digest, size_bytes))
        archivecache.publish(fd, path, is_lasting=context.session.owner is None)
        duration_s = round((time.monotonic_ns() - started_ns) / 1e9, 6)
        context.remember({"unpacked": {"archive": self.archive, "bytes": size_bytes, "duration_s": duration_s}})

    def _wait(self, context: Context, told: str) -> str:
        """Wait until whoever unpacks it is done, has failed or has died; returns what has been told of that."""
        from sessions.linux.watch import Watch

        parent, name = os.path.split(self.tree.path)
        ours = (name, f".{name}")
        with ExitStack() as stack:
            watch = stack.enter_context(Watch(f"waiting for {self.archive} to be unpacked"))
            mask = syscall.IN_MOVED_TO | syscall.IN_MOVED_FROM | syscall.IN_DELETE
            watch.add(parent, mask, lambda changed: changed in ours)
            record = archivecache.read_record(archivecache.hidden(self.tree.path))
            if record is None or os.path.lexists(self.tree.path):
                return told
            pidfd = owners.pidfd_of(owners.mark(record.owner), owners.realm())
            if pidfd is not None:
                stack.callback(os.close, pidfd)
            elif owners.is_gone(record.owner):
                archivecache.await_children(self.tree.path)
                return told
            who = f"session {record.session} (process {record.owner.pid} of {record.user}"
            words = f"waiting for {who}, which unpacks {self.archive}{owners.since(record.since_ns)})"
            if words != told:
                context.say("I", words)
            watch.wait([] if pidfd is None else [pidfd])
            return words

    def undo(self, context: Context) -> None:
        """Take away what is not complete. A tree is left to others, and to the garbage collector."""
        archivecache.withdraw(self.tree.path, context.session.stamp)
        archivecache.touch(self.tree.path)

    def describe(self) -> str:
        """One line."""
        return f"have {self.archive} unpacked in {self.tree.path}, once for all sessions"


class _Watched:
    """An archive while it is read: it has to be what the session was named for, and to stay as it is.

    If there is time for it (`has_time`), its digest is worked out meanwhile: either it is expected, or the archive
    is to be known again if some day only its times are others.
    """

    def __init__(self, step: CachedArchive, expected: str, context: Context, *, has_time: bool) -> None:
        self.digest = ""
        self._step = step
        self._expected = expected
        self._has_time = has_time
        self._is_over = False
        self._failure: Exception | None = None
        self._stage = context.stage

    @contextmanager
    def watching(self, fd: int) -> Iterator[None]:
        """To be entered when it has been opened, and left when it has been read."""
        before = archiveidentity.identity(os.fstat(fd))
        if before != self._step.tree.identity and not self._expected:
            raise self._changed()
        with self._working_out(fd) if self._has_time else nullcontext():
            yield
        if archiveidentity.identity(os.fstat(fd)) != before or self._expected not in ("", self.digest):
            raise self._changed()

    @contextmanager
    def _working_out(self, fd: int) -> Iterator[None]:
        from threading import Thread

        thread = Thread(target=self._work_out, args=(fd,))
        thread.start()
        try:
            yield
        except BaseException:
            self._is_over = True
            raise
        finally:
            thread.join()
        if self._failure:
            raise self._failure

    def _work_out(self, fd: int) -> None:
        try:
            self.digest = archiveidentity.digest_of(fd, lambda: not self._is_over)
        except Exception as error:
            self._failure = error

    def _changed(self) -> StepFailed:
        if self._stage is Stage.RECOVER:
            return StepFailed(
                f"the tree of {self._step.archive} in the cache is gone, and the archive is not what it was",
                hint="put the old archive back, or end the session",
            )
        return ArchiveChanged(f"{self._step.archive} was changed while the session was begun", hint="begin it again")
