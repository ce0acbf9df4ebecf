"""The step that checks a file system before it is mounted for the first time."""

from __future__ import annotations

import os
import stat

from sessions import mountwords
from sessions.data import TYPE_CHECKING
from sessions.errors import SessionsError, StepFailed
from sessions.linux import devices, fsck
from sessions.steps.base import Context, Note, Step
from sessions.steps.sharing import Shared

if TYPE_CHECKING:
    from typing import ClassVar


class CheckedFileSystem(Step):
    """The file system on a device, or in an image, was checked by fsck(8) before anybody had it mounted."""

    kind: ClassVar[str] = "checked"
    device: str
    mount_options: str = ""

    def check(self, context: Context) -> Note:
        """It has to be there, and fsck able to find the file system; note what others know it by, too."""
        try:
            options = mountwords.parse(self.mount_options)
            status = os.stat(self.device)
        except ValueError as error:
            raise StepFailed(f"mount-options {self.mount_options!r}: {error}") from None
        except OSError as error:
            raise SessionsError(f"{self.device}: {error.strerror}", hint="see that it is there") from None
        if options.offset_bytes or options.size_bytes:
            raise StepFailed(f"fsck cannot check a part of {self.device}", hint="take fsck out of the configuration")
        is_device = stat.S_ISBLK(status.st_mode)
        number = f"{os.major(status.st_rdev)}.{os.minor(status.st_rdev)}"
        return {"key": f"fsck,{number}" if is_device else f"fsck,{status.st_dev}.{status.st_ino}"}

    def do(self, context: Context) -> None:
        """Check it, unless it is in use; while one session does, others that want it wait."""
        known = Shared(context.session.places, context.note["key"])
        with known.locked(may_be_stopped=True):
            is_first = not known.users()
            known.use(context.session.id)
            if not is_first or devices.is_in_use(self.device):
                return
            known.begin_making(None)
            said = fsck.check(self.device, known.record)
            known.disown()
        context.say("I", f"fsck: {said}")

    def undo(self, context: Context) -> None:
        """The next one who mounts it checks it again, when nobody has it any more."""
        key = context.note.get("key", "")
        known = Shared(context.session.places, key)
        if not key or not known.exists():
            return
        with known.locked(may_be_stopped=False):
            known.leave(context.session.id)
            known.forget()

    def is_present(self, context: Context) -> bool:
        """Whether this session has seen to it since the machine was started."""
        key = context.note.get("key", "")
        return bool(key) and Shared(context.session.places, key).is_used_by(context.session.id)

    def describe(self) -> str:
        """One line."""
        return f"check the file system on {self.device}, unless it is in use"
