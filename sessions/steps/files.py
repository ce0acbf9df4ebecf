"""Steps that make directories of ours, and files inside a session."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable

from sessions.data import TYPE_CHECKING
from sessions.errors import StepFailed
from sessions.linux import files, nss, proc, removal, replacing, trace
from sessions.steps.base import Context, Note, Stage, Step, opened_original

if TYPE_CHECKING:
    from typing import ClassVar

# Extended attribute that holds the stamp of the session a directory was made for (xattr(7): root's namespace).
STAMP_ATTRIBUTE = "trusted.chroot-sessions.stamp"


class MountPoint(Step):
    """An empty directory in a place that only we write, to mount on; or, with ``shared_parent``, others write there."""

    kind: ClassVar[str] = "mount-point"
    path: str
    shared_parent: bool = False

    @property
    def remedy(self) -> str:
        """It is below the runtime directory, or where the chroot says."""
        return "make it writable, or name another --runtime-dir or union-underlay-directory"

    def wants_sync(self, context: Context) -> bool:
        """In places that only we write, a directory without a journal is known to be a leftover of ours."""
        return self.shared_parent

    def check(self, context: Context) -> Note:
        """Refuse a name that is taken."""
        if os.path.lexists(self.path):
            raise StepFailed(f"{self.path} exists already", hint=f"if nothing uses it: rmdir {self.path}")
        return {}

    def do(self, context: Context) -> None:
        """Make it."""
        files.ensure_own_directory(os.path.dirname(self.path), 0o755)
        files.make_directory(self.path, 0o755)

    def undo(self, context: Context) -> None:
        """Remove it; it has to be empty."""
        trace.point("rmdir", self.path)
        try:
            os.rmdir(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                raise StepFailed(
                    f"{self.path} holds files that are not in any mount", hint="look at them, then remove them"
                ) from None
            raise
        trace.point("removed", self.path)

    def is_present(self, context: Context) -> bool:
        """Whether it is there."""
        return os.path.isdir(self.path)

    def describe(self) -> str:
        """One line."""
        return f"make the mount point {self.path}"


class OwnedTree(Step):
    """A directory for a session's data, marked with the session's stamp, and removed with all that is in it.

    ``shared_parent`` says that others may make directories beside it, so that the stamp has to be relied on.
    """

    kind: ClassVar[str] = "tree"
    survives_reboot: ClassVar[bool] = True
    # Its stamp is asked for in any case, and a power cut may have taken the mark but not the directory.
    always_undone: ClassVar[bool] = True
    path: str
    shared_parent: bool = False

    @property
    def remedy(self) -> str:
        """It is in a place that somebody has named."""
        return "make that place writable, make room in it, or name another"

    def wants_sync(self, context: Context) -> bool:
        """In places that only we write, a directory without a journal is known to be a leftover of ours."""
        return self.shared_parent

    def check(self, context: Context) -> Note:
        """Refuse a name that is taken."""
        if os.path.lexists(self.path):
            raise StepFailed(
                f"{self.path} exists already, and no session of ours has made it",
                hint="look at it, then move or remove it",
            )
        return {}

    def do(self, context: Context) -> None:
        """Make it under a name that nobody else uses, stamp it, give it its name, and fill it."""
        parent = os.path.dirname(self.path)
        try:
            os.stat(parent)
        except FileNotFoundError:
            files.ensure_own_directory(parent, 0o755)
        unnamed = self._unnamed(context)
        self._make(unnamed)
        try:
            os.setxattr(unnamed, STAMP_ATTRIBUTE, context.session.stamp.encode())
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                raise StepFailed(
                    f"the file system of {parent} has no extended attributes",
                    hint="name a directory on ext4, xfs, btrfs or tmpfs as union-overlay-directory or --state-dir",
                ) from None
            raise
        os.rename(unnamed, self.path)
        trace.point("named", self.path)
        self._fill(context)
        if context.session.owner is None:
            self._sync()

    def _make(self, path: str) -> None:
        files.make_directory(path, 0o755)

    def _remove(self, path: str) -> None:
        """Remove what is ours at a path; nothing there is success."""
        removal.remove_tree(path)

    def _fill(self, context: Context) -> None:
        """Put into it what belongs there."""

    def _sync(self) -> None:
        """Put it on the disk, before a mark there can say that the session is up."""
        files.sync_directory(self.path)
        files.sync_directory(os.path.dirname(self.path))

    def _unnamed(self, context: Context) -> str:
        return os.path.join(os.path.dirname(self.path), f".{context.session.stamp}")

    def undo(self, context: Context) -> None:
        """Remove it if it is ours."""
        self._remove(self._unnamed(context))
        if self._is_ours(context):
            self._remove(self.path)
            if self.shared_parent:
                # The journal goes next, maybe from another disk: nobody would know any more whose this was.
                files.sync_directory(os.path.dirname(self.path))
        elif os.path.lexists(self.path) and context.note:
            context.say("W", f"{self.path} does not carry the stamp of this session: left alone")

    def _is_ours(self, context: Context) -> bool:
        try:
            return os.getxattr(self.path, STAMP_ATTRIBUTE, follow_symlinks=False) == context.session.stamp.encode()
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.ENOTSUP) or files.is_absence(error):
                return False
            raise

    def verify(self, context: Context) -> None:
        """It has to be there, with our stamp."""
        if not self._is_ours(context):
            raise StepFailed(
                f"{self.path} is gone, so the session cannot be recovered", hint=f"sessions end {context.session.id}"
            )

    def is_present(self, context: Context) -> bool:
        """Whether it is there, with our stamp."""
        return self._is_ours(context)

    def describe(self) -> str:
        """One line."""
        return f"make the directory {self.path}"


class InsideStep(Step):
    """A step that writes files inside the session.

    ``ephemeral`` says that the whole tree is the session's own and goes with it. Otherwise the files stay, as they do
    with schroot, and only what a killed write left beside one is undone.
    """

    # The name of what is removed has the stamp in it.
    always_undone: ClassVar[bool] = True
    root: str
    ephemeral: bool

    def targets(self) -> tuple[str, ...]:
        """The paths inside that it writes."""
        raise NotImplementedError(self.kind)

    @property
    def remedy(self) -> str:
        """What is in the way lies inside the chroot, if the profile asks for the right thing."""
        return "look at what is there inside, and at the files of the profile"

    @property
    def is_marked(self) -> bool:
        """Nothing has to be remembered of a file in a tree that is thrown away."""
        return not self.ephemeral

    def undo(self, context: Context) -> None:
        """Remove what a write that was killed left behind."""
        if not context.is_begun and context.session.boot_id == proc.boot_id():
            return  # only a power cut takes marks: a device that never came to be mounted is not looked into
        try:
            with opened_original(context.session) as root_fd:
                for target in self.targets():
                    replacing.remove_temporary(root_fd, target, _temporary(target, context))
        except (FileNotFoundError, NotADirectoryError):
            pass

    def _write(
        self,
        contents: Iterable[tuple[str, bytes]],
        context: Context,
        original: Callable[[str], os.stat_result | None] = lambda target: None,
        *,
        is_copy: bool = False,
    ) -> list[str]:
        """Write each of `contents`, with the mode of the host's file that `original` tells of.

        A copy gets owner and time of that, too. Returns those that are the host's own files, and are left alone.
        """
        same = []
        with files.directory(self.root) as root_fd:
            for target, data in contents:
                of_host = original(target)
                is_written = replacing.replace_file(
                    root_fd,
                    target,
                    data,
                    temporary=_temporary(target, context),
                    mode=stat.S_IMODE(of_host.st_mode) if of_host else None,
                    original=of_host,
                    is_copy=is_copy,
                    is_watched=not self.ephemeral or context.stage is not Stage.START,
                )
                if not is_written:
                    same.append(target)
        return same


def _temporary(target: str, context: Context) -> str:
    name = os.fsdecode(os.fsencode(os.path.basename(target))[:100])  # a name is 255 bytes at most
    return f".{name}.{context.session.stamp}"


class WriteFile(InsideStep):
    """A small text file inside the session."""

    kind: ClassVar[str] = "write"
    target: str
    text: str

    def targets(self) -> tuple[str, ...]:
        """The one file."""
        return (self.target,)

    def do(self, context: Context) -> None:
        """Write it."""
        self._write([(self.target, self.text.encode())], context)

    def describe(self) -> str:
        """One line."""
        return f"write {self.text.strip()!r} to {self.target} inside"


class MakeLink(InsideStep):
    """A symbolic link inside a session whose tree is its own."""

    kind: ClassVar[str] = "link"
    target: str
    points_to: str

    def targets(self) -> tuple[str, ...]:
        """The link."""
        return (self.target,)

    def do(self, context: Context) -> None:
        """Make it, unless there is something."""
        with files.directory(self.root) as root_fd:
            files.make_link(root_fd, self.target, self.points_to)

    def describe(self) -> str:
        """One line."""
        return f"link {self.target} inside to {self.points_to}"


class CopyFile(InsideStep):
    """A file of the host, copied into the session."""

    kind: ClassVar[str] = "copy"
    source: str
    target: str

    def targets(self) -> tuple[str, ...]:
        """The one file."""
        return (self.target,)

    def do(self, context: Context) -> None:
        """Copy it, with owner, mode and time."""
        try:
            fd = os.open(self.source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise StepFailed(
                f"{self.source} does not exist on the host", hint="make it, or take it out of the profile's copyfiles"
            ) from None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise StepFailed(f"{self.source} is not a regular file", hint="take it out of the profile's copyfiles")
            data = files.read_descriptor(fd)
        finally:
            os.close(fd)
        self._write([(self.target, data)], context, lambda target: status, is_copy=True)

    def describe(self) -> str:
        """One line."""
        return f"copy {self.source} to {self.target} inside"


class CopyDatabases(InsideStep):
    """Databases of the host's name service, such as passwd, written into the session's /etc."""

    kind: ClassVar[str] = "databases"
    databases: tuple[str, ...]

    def targets(self) -> tuple[str, ...]:
        """A file in /etc for each."""
        return tuple(f"/etc/{database}" for database in self.databases)

    def do(self, context: Context) -> None:
        """Write what the host knows."""
        # As on the host: what is secret there, such as shadow, is so inside.
        same = self._write(zip(self.targets(), nss.dump(self.databases), strict=True), context, _status)
        for target in same:
            name = os.path.basename(target)
            told = f"{name} files '{target}' and '{self.root}{target}' are the same file; skipping"
            context.say("E", f"20nssdatabases: warning: {told}")

    def describe(self) -> str:
        """One line."""
        return f"write the host's {' '.join(self.databases)} databases to /etc inside"


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


class Warn(Step):
    """A warning where a setup script comes to what it cannot use, in that script's name."""

    kind: ClassVar[str] = "warn"
    script: str
    text: str

    @property
    def is_marked(self) -> bool:
        """There is nothing to undo."""
        return False

    def do(self, context: Context) -> None:
        """Say it, as a script that writes to its standard error."""
        context.say("E", f"{self.script}: warning: {self.text}")

    def is_present(self, context: Context) -> bool:
        """It is said again whenever the script would come to it."""
        return context.stage is not Stage.RECOVER

    def describe(self) -> str:
        """One line."""
        return f"warn: {self.text}"
