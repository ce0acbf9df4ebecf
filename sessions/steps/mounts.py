"""Steps that mount: onto places of ours, or onto paths inside a session, which are resolved in-root each time."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sessions import mountoptions
from sessions.data import TYPE_CHECKING
from sessions.environ import is_purged
from sessions.errors import StepFailed
from sessions.linux import files, mountinfo, run, syscall, trace
from sessions.steps.base import Context, Note, Stage, Step, opened_original
from sessions.steps.unmounting import (
    is_mounted,
    open_without_links,
    try_unmount,
    unmount,
    unmount_at_top,
    unmount_plainly,
)

if TYPE_CHECKING:
    from typing import ClassVar

KNOWN_FILE_SYSTEMS = "/proc/filesystems"
_MOST_LOOKS = 50


class PrivateDirectory(Step):
    """A directory of ours mounted on itself and made private, so that mounts below it stay in this mount namespace.

    All sessions share it: the first one makes it, and the last one's undo takes it away. ``is_named`` says that the
    configuration names it, so that somebody may have mounted something of his own there.
    """

    kind: ClassVar[str] = "private-directory"
    is_shared: ClassVar[bool] = True
    path: str
    is_named: bool = False

    def do(self, context: Context) -> None:
        """Mount it unless it is; keep it open, so that nobody can unmount it until we have mounted below."""
        files.ensure_own_directory(self.path, 0o755)
        # The lock is on the directory's inode, which is the same with and without the mount.
        lock_fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX)
            if not self._is_on_itself():
                self._mount_on_itself()
            fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            context.held.callback(os.close, fd)
            # What is attached below a shared mount becomes shared by that, and whoever did it may have been killed.
            syscall.mount_setattr(fd, propagation=syscall.MS_PRIVATE)
            trace.point("made private", self.path)
        finally:
            os.close(lock_fd)

    def _is_on_itself(self) -> bool:
        if not is_mounted(os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)):
            return False
        return not self.is_named or mountinfo.is_on_itself(os.path.realpath(self.path))

    def _mount_on_itself(self) -> None:
        tree_fd = syscall.open_tree(self.path, syscall.OPEN_TREE_CLONE)
        try:
            syscall.mount_setattr(tree_fd, propagation=syscall.MS_PRIVATE)
            with files.directory(self.path) as target_fd:
                syscall.move_mount(tree_fd, target_fd, self.path)
        finally:
            os.close(tree_fd)

    def undo(self, context: Context) -> None:
        """Unmount it if nobody has anything mounted below it or is about to."""
        try:
            if not self.is_named or self._is_on_itself():
                syscall.umount(self.path)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EINVAL, errno.ENOENT):
                raise

    def describe(self) -> str:
        """One line."""
        return f"keep mounts below {self.path} private to this mount namespace"


class AnyMount(Step):
    """A mount at a path of ours if `root` is empty, else at a path inside the session that is mounted at `root`."""

    root: str

    @property
    def remedy(self) -> str:
        """Where somebody has asked for it."""
        return "look at its line in the profile's fstab" if self.root else "look at the chroot's configuration"

    def _place(self, context: Context) -> str:
        """The path to mount at, which may be something that check has found."""
        raise NotImplementedError(self.kind)

    def _missing(self, place: str, context: Context) -> Note:
        """Which directories will have to be made to mount on; nobody asks where they go with the session's tree."""
        if not self.root or is_purged(context.session):
            return {}
        with files.directory(self.root) as root_fd:
            missing = files.missing_directories(root_fd, place)
        return {"made": missing} if missing else {}

    def wants_sync(self, context: Context) -> bool:
        """A directory made in the original outlasts a power cut, and only the journal knows whose it is."""
        return bool(context.note.get("made")) and not is_purged(context.session)

    def do(self, context: Context) -> None:
        """Open the target, making it if it is missing, and mount on what was opened.

        Other sessions of the same tree make such directories too, and remove theirs at their end: then look again.
        """
        missing: list[str] = context.note.get("made", [])
        for _look in range(_MOST_LOOKS):
            try:
                with self._opened_target(context, missing) as target_fd:
                    self._mount(target_fd, context)
                return
            except FileNotFoundError:
                missing = self._missing(self._place(context), context).get("made", [])
                if not missing:
                    raise
                made = {*context.note.get("made", ()), *missing}
                context.remember({"made": sorted(made, key=len)})
        raise StepFailed(f"{self._place(context)} is removed each time that it was made", hint="see who does that")

    def _mount(self, target_fd: int, context: Context) -> None:
        raise NotImplementedError(self.kind)

    def _is_file(self) -> bool:
        """Whether a file is mounted, so that a missing target has to be made as one."""
        return False

    @contextmanager
    def _opened_target(self, context: Context, missing: list[str]) -> Iterator[int]:
        if not self.root:
            target_fd = os.open(self._place(context), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        else:
            with files.directory(self.root) as root_fd:
                self._make_all(root_fd, missing, context)
                target_fd = self._open_or_make(root_fd, context)
                is_root = os.path.sameopenfile(root_fd, target_fd)
        try:
            if self.root and is_root:
                raise StepFailed(
                    f"{self._place(context)} leads to the root of the session itself",
                    hint="mend the link inside, or take the line out of the fstab",
                )
            yield target_fd
        finally:
            os.close(target_fd)

    def _open_or_make(self, root_fd: int, context: Context) -> int:
        place = self._place(context)
        try:
            return files.open_in_root(root_fd, place, os.O_PATH)
        except FileNotFoundError:
            if not is_purged(context.session):
                raise
        self._make_all(root_fd, files.missing_directories(root_fd, place), context)
        return files.open_in_root(root_fd, place, os.O_PATH)

    def _make_all(self, root_fd: int, missing: Sequence[str], context: Context) -> None:
        for path in missing:
            self._make(root_fd, path, context, as_file=self._is_file() and path == missing[-1])

    def _make(self, root_fd: int, path: str, context: Context, *, as_file: bool) -> None:
        try:
            files.make_in_root(root_fd, path, as_file=as_file)
        except FileExistsError:
            # On a disk, what was made for the mount is still there after a restart of the machine; else somebody was
            # quicker, whose it is then.
            if is_purged(context.session):
                raise
            if context.stage is not Stage.RECOVER:
                context.remember({"made": [one for one in context.note["made"] if one != path]})

    def is_present(self, context: Context) -> bool:
        """Whether something is mounted at the target."""
        try:
            if not self.root:
                return is_mounted(os.open(self._place(context), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC))
            with files.directory(self.root) as root_fd:
                return is_mounted(files.open_in_root(root_fd, self._place(context), os.O_PATH))
        except OSError as error:
            if not files.is_absence(error):
                raise
            return False

    def undo(self, context: Context) -> None:
        """Unmount it, then remove the directories that were made for it."""
        if not self.root:
            # What root mounted over it from inside, as `mount --bind / /` does, comes off first.
            while self.is_present(context):
                if not try_unmount(self._place(context)):
                    unmount(os.path.realpath(self._place(context)), context)
            return
        # In a tree that goes with the session, so do they; and what else is mounted there is unmounted with the root.
        stays = not is_purged(context.session)
        if not stays and self.root == context.session.location and unmount_at_top(self.root, self._place(context)):
            return
        try:
            with files.directory(self.root) as root_fd:
                while self._unmount_inside(root_fd, context) and stays:
                    pass
        except FileNotFoundError:
            pass
        if stays:
            self._remove_made(context)

    def _remove_made(self, context: Context) -> None:
        """Remove the directories that were made for it, and those that another session has left since we used them."""
        made: list[str] = context.note.get("made", [])
        try:
            with opened_original(context.session) as root_fd:
                for path in sorted({*made, *files.prefixes(self._place(context))}, key=len, reverse=True):
                    if path in made or files.is_made(root_fd, path):
                        files.remove_made(root_fd, path)
        except FileNotFoundError:
            pass

    def _unmount_inside(self, root_fd: int, context: Context) -> bool:
        """Unmount by the parent's descriptor and the last name, so that no link can lead elsewhere.

        Returns whether there was anything to unmount.
        """
        if unmount_plainly(root_fd, self._place(context)):
            return True
        try:
            fd = files.open_in_root(root_fd, self._place(context), os.O_PATH)
        except OSError as error:
            if not files.is_absence(error):
                raise
            return False
        root, real = files.path_of(root_fd), files.path_of(fd)
        if not is_mounted(fd) or not real.startswith(root + "/"):
            return False
        above, _slash, name = real[len(root) :].rpartition("/")
        try:
            parent_fd = open_without_links(root_fd, above)
        except OSError as error:
            if not files.is_absence(error):
                raise
            # Somebody has renamed it: it is unmounted with the root, wherever it is then.
            return False
        try:
            unmount(real, context, by=f"/proc/self/fd/{parent_fd}/{name}", inside=root)
        finally:
            os.close(parent_fd)
        return True


class MountStep(AnyMount):
    """A mount at `target`."""

    target: str

    def _place(self, context: Context) -> str:
        return self.target

    def check(self, context: Context) -> Note:
        """Note which directories will have to be made to mount on."""
        return self._missing(self.target, context)

    def _where(self) -> str:
        return f"{self.target} inside" if self.root else self.target


def known_file_systems() -> set[str]:
    """The file systems that the kernel has by now (proc(5))."""
    with open(KNOWN_FILE_SYSTEMS, encoding="utf-8", errors="replace") as file:
        return {line.split()[-1] for line in file if line.strip()}


def check_kernel_knows(fstype: str) -> None:
    """Raise StepFailed unless the kernel has the file system; asking it to mount would make it load a module."""
    status = os.stat(KNOWN_FILE_SYSTEMS)
    if (status.st_dev, status.st_ino, fstype) in _KNOWN:
        return
    if fstype not in known_file_systems():
        raise StepFailed(f"this kernel has no {fstype} file system", hint=f"load it as root: modprobe {fstype}")
    _KNOWN.add((status.st_dev, status.st_ino, fstype))


# File systems that the list was seen to name; one that the kernel loses again is not mounted, and mount(2) says so.
_KNOWN: set[tuple[int, int, str]] = set()


class FileSystem(MountStep):
    """A new instance of a file system, such as proc or a tmpfs; options as in fstab(5)."""

    kind: ClassVar[str] = "file-system"
    fstype: str
    source: str
    options: str = ""

    def check(self, context: Context) -> Note:
        """The kernel has to have the file system."""
        if not self._needs_program():
            check_kernel_knows(self.fstype)
        return super().check(context)

    def _options(self) -> mountoptions.MountOptions:
        return mountoptions.parse(self.options)

    def _needs_program(self) -> bool:
        """Whether mount(8) does more for it than to call the kernel."""
        return (
            self._options().needs_mount_program
            or self.fstype == "auto"
            or self.fstype.partition(".")[0] in _WITH_HELPERS
            or self.source.startswith(_LOOKED_UP)
            or (self.source.startswith("/") and os.path.isfile(self.source))
        )

    def _mount(self, target_fd: int, context: Context) -> None:
        if self._needs_program():
            mount_by_program(self.fstype, self.options, self.source, target_fd, context)
            return
        options = self._options()
        syscall.mount(self.source, f"/proc/self/fd/{target_fd}", self.fstype, options.flags, options.data)

    def undo(self, context: Context) -> None:
        """Unmount it, also where it was left half way."""
        clear_staging(context)
        super().undo(context)

    def describe(self) -> str:
        """One line."""
        options = f" ({self.options})" if self.options else ""
        return f"mount {self.fstype} on {self._where()}{options}"


def mount_by_program(fstype: str, options: str, source: str, target_fd: int, context: Context) -> None:
    """Let mount(8) mount it at a place of ours, and move it onto the target, which it could not resolve safely."""
    staging = _staging(context)
    # A recovery that was killed has left it.
    clear_staging(context)
    os.mkdir(staging, 0o700)
    try:
        outcome = run.call(["mount", "-t", fstype, "-o", options or "defaults", "--", source, staging], package="mount")
        if outcome.status != 0:
            raise StepFailed(f"mount of {source}: {outcome.reason()}")
        tree_fd = syscall.open_tree(staging, 0)
        try:
            syscall.move_mount(tree_fd, target_fd, files.path_of(target_fd))
        finally:
            os.close(tree_fd)
    finally:
        os.rmdir(staging)


def _staging(context: Context) -> str:
    """Where mount(8) mounts for a session."""
    return os.path.join(context.session.places.mount_dir, f".{context.session.id}.staging")


def clear_staging(context: Context) -> None:
    """Take away what mount(8) has mounted there for somebody who was killed."""
    staging = _staging(context)
    if files.is_there(staging):
        try_unmount(staging)
        os.rmdir(staging)


# Sources that mount(8) looks for among the devices; for the image in a file it takes a loop device.
_LOOKED_UP = ("LABEL=", "UUID=", "PARTLABEL=", "PARTUUID=", "ID=")
# File systems whose mount(8) needs a helper program of its own, also as fuse.sshfs and the like.
_WITH_HELPERS = frozenset(("nfs", "nfs4", "cifs", "fuse", "ntfs", "ntfs-3g", "davfs", "sshfs"))


class Bind(MountStep):
    """A directory or a file of the host, seen inside the session; changes of its mounts stay on either side."""

    kind: ClassVar[str] = "bind"
    source: str
    options: str = ""

    def check(self, context: Context) -> Note:
        """The source has to be there."""
        if not os.path.exists(self.source):
            raise StepFailed(
                f"{self.source} does not exist on the host", hint="make it, or mend the line that names it"
            )
        if not self.root:
            self._check_as_root()
        return super().check(context)

    def _check_as_root(self) -> None:
        if not os.path.isdir(self.source):
            raise StepFailed(f"{self.source} is not a directory", hint="mend the chroot's configuration")
        if os.path.samefile(self.source, "/"):
            raise StepFailed(
                f"{self.source} is the host's own root", hint="name another directory, or put a union over it"
            )

    def _is_file(self) -> bool:
        return not os.path.isdir(self.source)

    def _mount(self, target_fd: int, context: Context) -> None:
        attach_clone(self.source, self.options, target_fd, self.target)

    def describe(self) -> str:
        """One line."""
        read_only = " read-only" if "ro" in self.options.split(",") else ""
        return f"bind {self.source}{read_only} to {self._where()}"


def attach_clone(source: str, options: str, target_fd: int, target: str) -> None:
    """Bind `source` to what `target_fd` is open at; `target` is only its name."""
    asked = mountoptions.parse(options)
    tree_fd = syscall.open_tree(source, syscall.OPEN_TREE_CLONE | (syscall.AT_RECURSIVE if asked.recursive else 0))
    try:
        syscall.mount_setattr(
            tree_fd,
            set_=asked.attributes,
            # The kernel wants the old choice about access times cleared before it takes another.
            clear=syscall.MOUNT_ATTR__ATIME if asked.attributes & syscall.MOUNT_ATTR__ATIME else 0,
            propagation=asked.propagation,
            recursive=asked.recursive,
        )
        syscall.move_mount(tree_fd, target_fd, target)
    finally:
        os.close(tree_fd)
