"""The step that makes a session's own snapshot of a btrfs subvolume."""

from __future__ import annotations

import errno
import os

from sessions.data import TYPE_CHECKING
from sessions.errors import StepFailed
from sessions.linux import btrfs, files
from sessions.steps.base import Context, Note
from sessions.steps.files import OwnedTree

if TYPE_CHECKING:
    from typing import ClassVar


class SubvolumeSnapshot(OwnedTree):
    """A snapshot of the subvolume `source`, at `path`.

    It is made under a name that has the session's stamp in it and gets its own when it carries the stamp itself, so
    that one that was left half way is known as ours. It goes with all subvolumes that were made in it.
    """

    kind: ClassVar[str] = "btrfs-snapshot"
    source: str = ""

    @property
    def remedy(self) -> str:
        """Both places are named in the configuration."""
        return "look at btrfs-source-subvolume and btrfs-snapshot-directory of the chroot"

    def check(self, context: Context) -> Note:
        """The source has to be a subvolume, the directory there, and the name free."""
        for what, path in (("source subvolume", self.source), ("snapshot", os.path.dirname(self.path))):
            if not os.path.isdir(path):
                raise StepFailed(f"Btrfs {what} directory '{path}' does not exist")
        with files.directory(self.source) as fd:
            if not btrfs.is_subvolume(fd):
                raise StepFailed(f"{self.source} is not a subvolume of btrfs", hint="see btrfs subvolume list")
        return super().check(context)

    def _make(self, path: str) -> None:
        source_fd = os.open(self.source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            directory_fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                btrfs.snapshot(source_fd, directory_fd, os.path.basename(path))
            finally:
                os.close(directory_fd)
        except OSError as error:
            if error.errno in (errno.EXDEV, errno.ENOTTY):
                raise StepFailed(
                    f"{os.path.dirname(path)} is not on the same btrfs as {self.source}",
                    hint="name a btrfs-snapshot-directory there",
                ) from None
            raise
        finally:
            os.close(source_fd)

    def _remove(self, path: str) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            btrfs.destroy(fd, path)
        finally:
            os.close(fd)

    def _sync(self) -> None:
        """The stamp and the name; the snapshot itself is on the disk as soon as it is made."""
        files.sync_file_system(self.path)

    def describe(self) -> str:
        """One line."""
        return f"make the snapshot {self.path} of the subvolume {self.source}"
