"""The step that lets programs of another machine run in a session: their interpreter, seen inside it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from sessions.data import TYPE_CHECKING
from sessions.linux import binfmt, files
from sessions.steps.base import Context, Note
from sessions.steps.mounts import AnyMount, attach_clone

if TYPE_CHECKING:
    from typing import ClassVar

# Programs that every root has, by which its machine is known.
_PROGRAMS = ("/bin/sh", "/bin/true")


class BindInterpreter(AnyMount):
    """The host's interpreter for the programs of the root, bound read-only at its own path inside.

    Nothing where the root is of this machine, where nobody has registered an interpreter, and where the kernel has it
    open already. What check finds is in the begin mark, and undo goes by that.
    """

    kind: ClassVar[str] = "interpreter"

    @property
    def remedy(self) -> str:
        """What is in the way lies inside, or in the host's registration."""
        return f"look at the path inside, and at the registrations in {binfmt.DIRECTORY}"

    def check(self, context: Context) -> Note:
        """Find the interpreter, and note which directories will have to be made to mount it on."""
        path = self._needed()
        if path and not os.path.isfile(path):
            context.say("W", f"{path}, registered for the programs of this root, is not there: they cannot be run")
            path = ""
        return {"interpreter": path, **(self._missing(path, context) if path else {})}

    def _needed(self) -> str:
        """The interpreter that has to be seen inside; empty if none has to."""
        if not binfmt.is_there():
            return ""
        head = self._head()
        if not binfmt.is_foreign(head):
            return ""
        found = binfmt.registration_for(head)
        if found is None or found.is_preloaded or not found.interpreter.startswith("/"):
            return ""
        return found.interpreter

    def _head(self) -> bytes:
        """How the programs inside begin."""
        with files.directory(self.root) as root_fd:
            for program in _PROGRAMS:
                with suppress(OSError):
                    fd = files.open_in_root(root_fd, program, os.O_PATH)
                    try:
                        # To open a device may have effects, and nobody knows what a link inside leads to.
                        if stat.S_ISREG(os.fstat(fd).st_mode):
                            return _start(fd)
                    finally:
                        os.close(fd)
        return b""

    def _place(self, context: Context) -> str:
        # Where it is not needed any more, what was made for it still has its name.
        made: list[str] = context.note.get("made", [""])
        path: str = context.note.get("interpreter") or made[-1]
        return path

    def _is_file(self) -> bool:
        return True

    def _mount(self, target_fd: int, context: Context) -> None:
        path = context.note["interpreter"]
        attach_clone(path, "bind,ro", target_fd, path)

    def do(self, context: Context) -> None:
        """Bind it, if it is needed."""
        if context.note["interpreter"]:
            super().do(context)

    def undo(self, context: Context) -> None:
        """Unmount it, and remove what was made to mount it on."""
        if self._place(context):
            super().undo(context)

    def is_present(self, context: Context) -> bool:
        """Whether it is mounted; one that was not needed is looked for again."""
        return bool(context.note.get("interpreter")) and super().is_present(context)

    def describe(self) -> str:
        """One line."""
        return "bind the interpreter of its programs read-only inside, if they are of another machine"


def _start(path_fd: int) -> bytes:
    """How the file begins whose place is open (O_PATH)."""
    fd = os.open(f"/proc/self/fd/{path_fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, binfmt.HEAD_BYTES)
    finally:
        os.close(fd)
