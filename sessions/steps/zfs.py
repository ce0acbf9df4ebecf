"""Steps that make a session's own snapshot and clone of a ZFS dataset, by zfs(8), and mount it."""

from __future__ import annotations

from sessions import mountwords
from sessions.data import TYPE_CHECKING
from sessions.errors import StepFailed
from sessions.linux import holders, run, trace
from sessions.steps.base import Context, Note, Step
from sessions.steps.mounts import MountStep, check_kernel_knows, clear_staging, mount_by_program

if TYPE_CHECKING:
    from typing import ClassVar

# User property (zfsprops(7)) that holds the stamp of the session that something was made for.
STAMP_PROPERTY = "chroot-sessions:stamp"
_ABSENT = ("dataset does not exist", "could not find any snapshots to destroy")


def _zfs(*words: str) -> run.Outcome:
    return run.call(["zfs", *words], package="zfsutils-linux")


def _do(what: str, *words: str) -> None:
    outcome = _zfs(*words)
    if outcome.status != 0:
        raise StepFailed(f"cannot {what}: {outcome.reason()}")


def _destroy(name: str, *options: str) -> None:
    """Destroy a dataset or a snapshot; raises StepFailed, naming who keeps it busy."""
    trace.point("destroy", name)
    outcome = _zfs("destroy", *options, name)
    if outcome.status != 0:
        is_busy = outcome.reason().endswith("is busy")
        held = f": {holders.of_source(name)}" if is_busy else ""
        raise StepFailed(
            f"cannot destroy {name}: {outcome.reason()}{held}", hint="let it go, then end the session again"
        )
    trace.point("destroyed", name)


def _stamp(name: str) -> str | None:
    """The stamp of ours that a dataset or a snapshot itself has, not one above it; None if there is no such thing."""
    outcome = _zfs("get", "-H", "-s", "local", "-o", "value", STAMP_PROPERTY, name)
    if outcome.status == 0:
        return outcome.output.decode(errors="replace").strip()
    if outcome.complaint.endswith(_ABSENT):
        return None
    raise StepFailed(f"zfs cannot tell whether there is {name}: {outcome.reason()}", hint="see zfs list, zpool status")


class _OwnDataset(Step):
    """Something of ZFS that is the session's own: it carries the stamp from the moment that there is such a name."""

    survives_reboot: ClassVar[bool] = True
    # Its stamp is asked for in any case, and a power cut may have taken the mark but not what it is about.
    always_undone: ClassVar[bool] = True
    name: str

    @property
    def remedy(self) -> str:
        """It is named after the chroot's dataset."""
        return "look at zfs-dataset of the chroot, and at zpool status"

    def wants_sync(self, context: Context) -> bool:
        """A dataset without a journal would be nobody's."""
        return True

    def check(self, context: Context) -> Note:
        """Refuse a name that is taken, or that could be an option."""
        if self.name.startswith("-"):
            raise StepFailed(f"{self.name} is not the name of a dataset")
        if _stamp(self.name) is not None:
            raise StepFailed(f"{self.name} exists already", hint=f"look at it, then: zfs destroy {self.name}")
        return {}

    def _destroy(self) -> None:
        raise NotImplementedError(self.kind)

    def undo(self, context: Context) -> None:
        """Destroy it if it is ours; nothing there is success."""
        found = _stamp(self.name)
        if found == context.session.stamp:
            self._destroy()
        elif found is not None and context.note:
            context.say("W", f"{self.name} does not carry the stamp of this session: left alone")

    def verify(self, context: Context) -> None:
        """It has to be there, with our stamp."""
        if _stamp(self.name) != context.session.stamp:
            raise StepFailed(
                f"{self.name} is gone, so the session cannot be recovered", hint=f"sessions end {context.session.id}"
            )

    def is_present(self, context: Context) -> bool:
        """Whether it is there, with our stamp."""
        return _stamp(self.name) == context.session.stamp


class DatasetSnapshot(_OwnDataset):
    """A snapshot of a dataset, made with the chroot's own options (words of zfs-snapshot(8))."""

    kind: ClassVar[str] = "zfs-snapshot"
    options: str = ""

    def check(self, context: Context) -> Note:
        """The dataset has to be there."""
        dataset = self.name.partition("@")[0]
        if not dataset.startswith("-") and _stamp(dataset) is None:
            raise StepFailed(f"Dataset '{dataset}' does not exist", hint="make it, or mend zfs-dataset of the chroot")
        return super().check(context)

    def do(self, context: Context) -> None:
        """Make it, stamped."""
        stamp = f"{STAMP_PROPERTY}={context.session.stamp}"
        _do(self.describe(), "snapshot", "-o", stamp, *self.options.split(), self.name)

    def _destroy(self) -> None:
        # With -r, there is one of that name in each dataset below.
        recursive = ["-r"] if "-r" in self.options.split() else []
        _destroy(self.name, *recursive)

    def describe(self) -> str:
        """One line."""
        options = f" ({self.options})" if self.options else ""
        return f"make the ZFS snapshot {self.name}{options}"


class DatasetClone(_OwnDataset):
    """A dataset that is a clone of the session's snapshot; it goes with all that was made below it."""

    kind: ClassVar[str] = "zfs-clone"
    snapshot: str = ""

    def do(self, context: Context) -> None:
        """Make it, stamped, and not to be mounted by ZFS itself."""
        stamp = f"{STAMP_PROPERTY}={context.session.stamp}"
        _do(self.describe(), "clone", "-o", "mountpoint=legacy", "-o", stamp, self.snapshot, self.name)

    def _destroy(self) -> None:
        _destroy(self.name, "-r")

    def describe(self) -> str:
        """One line."""
        return f"clone {self.snapshot} to {self.name}"


class MountedDataset(MountStep):
    """A dataset whose mountpoint is legacy, mounted by mount(8), which has a helper of ZFS for that."""

    kind: ClassVar[str] = "zfs"
    dataset: str
    mount_options: str = ""

    def check(self, context: Context) -> Note:
        """The kernel has to have ZFS: to ask it for that would make it load the module."""
        check_kernel_knows("zfs")
        mountwords.parse(self.mount_options)
        return super().check(context)

    def _mount(self, target_fd: int, context: Context) -> None:
        mount_by_program("zfs", mountwords.parse(self.mount_options).text, self.dataset, target_fd, context)

    def undo(self, context: Context) -> None:
        """Unmount it, also where it was left half way."""
        clear_staging(context)
        super().undo(context)

    def describe(self) -> str:
        """One line."""
        options = f" ({self.mount_options})" if self.mount_options else ""
        return f"mount the ZFS dataset {self.dataset} on {self._where()}{options}"
