"""The step that puts a session's own layer over its source."""

from __future__ import annotations

import errno
import os
import stat

from sessions import mountoptions
from sessions.data import TYPE_CHECKING
from sessions.errors import StepFailed
from sessions.linux import files, removal, syscall, trace
from sessions.steps.base import Context, Note
from sessions.steps.mounts import MountStep, check_kernel_knows

if TYPE_CHECKING:
    from typing import ClassVar


# Where overlayfs keeps the file handle of the lower directory that an upper one was first mounted over.
_ORIGIN_ATTRIBUTE = "trusted.overlay.origin"


class Overlay(MountStep):
    """An overlay: `lowers` (topmost first) below a layer of the session's own in the directory `layer`.

    ``read_only_fallback`` binds the lower read-only where the kernel refuses an overlay of it. ``volatile`` leaves out
    the syncs of a layer that is thrown away whatever happens.
    """

    kind: ClassVar[str] = "overlay"
    source: str
    lowers: tuple[str, ...]
    layer: str
    options: str = ""
    volatile: bool = False
    read_only_fallback: bool = False
    lower_may_be_new: bool = False
    """Whether the lower directory may be made again with the same contents, as that of an archive in the cache."""

    def check(self, context: Context) -> Note:
        """The kernel has to have overlays, and every lower directory has to be there."""
        check_kernel_knows("overlay")
        for lower in self.lowers:
            if not os.path.isdir(lower):
                raise StepFailed(
                    f"Directory '{lower}' does not exist", hint="make it, or mend the chroot's configuration"
                )
            if _lies_below(self.layer, lower):
                raise StepFailed(
                    f"{self.layer} lies inside {lower}, over which it is to be",
                    hint="name another union-overlay-directory, or set union-overlay-storage to tmpfs",
                )
        return super().check(context)

    def _mount(self, target_fd: int, context: Context) -> None:
        upper, work = f"{self.layer}/upper", f"{self.layer}/work"
        if not os.path.isdir(upper):
            os.makedirs(self.layer, 0o700, exist_ok=True)
            _make_like(self.lowers[-1], upper)
        try:
            os.mkdir(work, 0o700)
        except FileExistsError:
            if self.volatile:
                _forgive_volatile(work)
        pairs = [
            ("lowerdir", ":".join(map(_escape, self.lowers))),
            ("upperdir", _escape(upper)),
            ("workdir", _escape(work)),
        ]
        # Either way the kernel refuses a second mount of the same layer.
        pairs.append(("volatile", "") if self.volatile else ("index", "on"))
        extra = mountoptions.parse(self.options)
        data = ",".join([f"{key}={value}" if value else key for key, value in pairs] + [extra.data] * bool(extra.data))
        target = f"/proc/self/fd/{target_fd}"
        try:
            try:
                syscall.mount(self.source, target, "overlay", extra.flags, data)
            except OSError as error:
                if error.errno != errno.ESTALE or not self.lower_may_be_new:
                    raise
                _forget_lower(upper, work)
                syscall.mount(self.source, target, "overlay", extra.flags, data)
        except OSError as error:
            if self.read_only_fallback:
                self._bind_read_only(target_fd)
                return
            said = "; ".join(syscall.filesystem_messages("overlay", pairs)) or _likely_reason(error, self.layer)
            raise StepFailed(
                f"cannot mount the overlay: {error.strerror}{': ' if said else ''}{said}",
                hint="mend the chroot's configuration, or name a union-overlay-directory elsewhere",
            ) from None

    def _bind_read_only(self, target_fd: int) -> None:
        tree_fd = syscall.open_tree(self.lowers[0], syscall.OPEN_TREE_CLONE)
        try:
            syscall.mount_setattr(tree_fd, set_=syscall.MOUNT_ATTR_RDONLY, propagation=syscall.MS_PRIVATE)
            syscall.move_mount(tree_fd, target_fd, self.target)
        finally:
            os.close(tree_fd)

    def describe(self) -> str:
        """One line."""
        otherwise = ", or read-only where that is refused" if self.read_only_fallback else ""
        return (
            f"mount an overlay of {':'.join(self.lowers)} with its layer in {self.layer} on {self._where()}{otherwise}"
        )


def _lies_below(layer: str, lower: str) -> bool:
    """Whether a layer would be seen in its own lower directory; not through a mount of another file system."""
    above = layer if os.path.exists(layer) else os.path.dirname(layer)
    with files.directory(above) as above_fd, files.directory(lower) as lower_fd:
        if os.fstat(above_fd).st_dev != os.fstat(lower_fd).st_dev:
            return False
        return files.path_of(above_fd).startswith(files.path_of(lower_fd).rstrip("/") + "/")


def _make_like(lower: str, upper: str) -> None:
    """Make the upper directory with owner and mode of the lower: the overlay's root has the upper's."""
    like = os.stat(lower)
    trace.point("mkdir", upper)
    os.mkdir(upper, 0o700)
    os.chown(upper, like.st_uid, like.st_gid)
    os.chmod(upper, stat.S_IMODE(like.st_mode))
    trace.point("made", upper)


def _forgive_volatile(work: str) -> None:
    """Let a volatile layer be mounted again: the kernel refuses, since a power cut might have torn it.

    A session with such a layer is never recovered after a restart of the machine, so that there was none.
    """
    removal.remove_tree(f"{work}/work/incompat/volatile")


def _forget_lower(upper: str, work: str) -> None:
    """Let a layer be mounted over another directory: with index=on the kernel notes which one it was made over.

    It makes its index of hard links in the lower directory anew, and what it holds of them stays whole files.
    """
    removal.remove_tree(f"{work}/index")
    try:
        os.removexattr(upper, _ORIGIN_ATTRIBUTE)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise


def _escape(path: str) -> str:
    """Overlay splits its directories at colons and its options at commas."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _likely_reason(error: OSError, layer: str) -> str:
    """What a kernel that gives no words (before Linux 6.5) most likely means."""
    if error.errno == errno.EINVAL:
        return (
            f"the file system of {layer} cannot hold a layer (it is an overlay itself, or has no extended attributes)"
        )
    if error.errno == errno.ELOOP:
        return f"{layer} lies inside one of the lower directories"
    if error.errno == errno.ESTALE:
        return "the lower directory is not the one this layer was made over"
    if error.errno == errno.EBUSY:
        return f"the layer in {layer} is in use by another overlay"
    return ""
