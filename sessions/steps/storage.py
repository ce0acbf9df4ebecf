"""Steps that bring a source into being where it is more than a directory."""

from __future__ import annotations

import os

from sessions.data import TYPE_CHECKING
from sessions.errors import StepFailed
from sessions.linux import archive, files, trace
from sessions.steps.base import Context, Note, Stage
from sessions.steps.files import OwnedTree

if TYPE_CHECKING:
    from typing import ClassVar


class UnpackedArchive(OwnedTree):
    """A directory with the contents of a tar archive; with ``repack``, the archive is made anew from it at the end."""

    kind: ClassVar[str] = "archive"
    archive: str = ""
    repack: bool = False

    def check(self, context: Context) -> Note:
        """The archive has to be usable, and the directory's name free."""
        archive.compression_of(self.archive)
        if not os.path.exists(self.archive):
            raise StepFailed(f"{self.archive}: Failed to stat file: No such file or directory")
        return super().check(context)

    def _fill(self, context: Context) -> None:
        """Unpack into it."""
        archive.unpack(self.archive, self.path, progress=context.progress)

    def _sync(self) -> None:
        """All that was unpacked, too."""
        files.sync_file_system(self.path)

    def undo(self, context: Context) -> None:
        """Write the archive, if the session was up and it is its source; remove the directory only after that."""
        temporary = f"{self.archive}.{context.session.stamp}"
        if files.is_there(temporary):
            os.unlink(temporary)
        if self.repack and context.succeeded and context.stage is Stage.STOP and self.is_present(context):
            if context.is_stuck:
                # What was made in the tree to mount on, say, is not to be packed with it.
                raise StepFailed(f"{self.archive} is not made anew before all else is undone")
            archive.repack(self.path, self.archive, temporary=temporary)
            # Under its other name it is a leftover: half removed, it must never be packed again.
            trace.point("rename", self.path)
            os.rename(self.path, self._unnamed(context))
            trace.point("renamed", self.path)
        super().undo(context)

    def describe(self) -> str:
        """One line."""
        again = ", and write it again at the end" if self.repack else ""
        return f"unpack {self.archive} to {self.path}{again}"
