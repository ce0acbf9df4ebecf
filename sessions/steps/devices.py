"""Steps that mount the file system on a block device, or in an image file, as a session's root or below its union."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from sessions import mountwords
from sessions.data import TYPE_CHECKING
from sessions.errors import SessionsError, StepFailed
from sessions.linux import blockdev, files, loop, syscall
from sessions.locks import device_lock
from sessions.model import BlockDevice, Loopback, Session
from sessions.mountwords import DeviceOptions
from sessions.steps.base import Context, Note, Step
from sessions.steps.mounts import MountStep, check_kernel_knows, known_file_systems

if TYPE_CHECKING:
    from typing import ClassVar

# File systems that the kernel mounts by the driver of another, where it has none of that name.
_DRIVEN_BY = {"ext2": "ext4", "ext3": "ext4"}
# What is said of a device that is not there, although its name is.
_NO_DEVICE = (errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM, errno.ENOENT)


class MountedDevice(MountStep):
    """The file system on a block device, or in the file of an image by way of a loop device, mounted at `target`.

    ``mount_options`` are the chroot's, as words of mount(8). ``read_only`` is for what lies below a union: nobody
    writes through this mount, while the file system itself stays as it is asked for, since others may have it mounted.
    One that ``is_frozen`` is never written to, not even by the kernel, and has to stay the same for as long as the
    session lasts; one that ``is_changed`` is of no use read-only.
    """

    kind: ClassVar[str] = "device"
    device: str
    mount_options: str = ""
    is_file: bool = False
    is_frozen: bool = False
    is_changed: bool = False
    read_only: bool = False

    @property
    def _words(self) -> str:
        return f"{self.mount_options} -r" if self.is_frozen else self.mount_options

    def check(self, context: Context) -> Note:
        """The device or the image has to be there, and such as can be trusted; so have the options."""
        options = mountwords.parse(self._words)
        if not self.is_file:
            blockdev.check_is_device(self.device)
            return super().check(context)
        fd = blockdev.open_image(self.device, read_only=options.is_read_only)
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        note = super().check(context)
        if not self.is_frozen:
            return note
        image = [status.st_ino, status.st_size, status.st_mtime_ns]
        if context.note.get("image", image) != image:
            raise StepFailed(
                f"{self.device} is another image than the session was begun with",
                hint=f"put the old one back, or: sessions end {context.session.id}",
            )
        return {**note, "image": image}

    def _mount(self, target_fd: int, context: Context) -> None:
        with detached(context.session, self.device, self._words, is_file=self.is_file) as mount_fd:
            if self.is_changed and os.fstatvfs(mount_fd).f_flag & os.ST_RDONLY:
                raise StepFailed(
                    f"the file system on {self.device} cannot be written to, so that its source: twin is of no use",
                    hint="make a new one, as with mksquashfs(1), and put it in its place; or see its mount-options",
                )
            if self.read_only:
                syscall.mount_setattr(mount_fd, set_=syscall.MOUNT_ATTR_RDONLY)
            syscall.move_mount(mount_fd, target_fd, self.target)

    def describe(self) -> str:
        """One line."""
        image = "in the image " if self.is_file else "on "
        read_only = " read-only" if self.read_only or self.is_frozen else ""
        options = f" ({self.mount_options})" if self.mount_options else ""
        return f"mount the file system {image}{self.device}{read_only} on {self._where()}{options}"


@contextmanager
def detached(session: Session, device: str, mount_options: str, *, is_file: bool) -> Iterator[int]:
    """The file system on a device, or in an image, mounted nowhere: a descriptor, and gone with it if it stays so."""
    options = mountwords.parse(mount_options)
    with _block_device(session, device, options, is_file=is_file) as path:
        fstype = options.fstype or blockdev.file_system_on(path)
        if fstype not in known_file_systems():
            fstype = _DRIVEN_BY.get(fstype, fstype)
        check_kernel_knows(fstype)
        parameters = options.parameters
        if "ro" not in parameters and blockdev.is_read_only(path):
            parameters = ("ro", *parameters)
        try:
            mount_fd = blockdev.new_mount(
                path, fstype, flags=parameters, data=options.options.data, attributes=options.options.attributes
            )
        except OSError as error:
            raise StepFailed(
                f"cannot mount the {fstype} file system on {device}: {error.strerror}",
                hint="see that it is whole (fsck), and look at the chroot's mount-options",
            ) from None
    try:
        yield mount_fd
    finally:
        os.close(mount_fd)


@contextmanager
def _block_device(session: Session, device: str, options: DeviceOptions, *, is_file: bool) -> Iterator[str]:
    """The path of the block device itself; the loop device of an image is held until somebody has mounted it."""
    if not is_file:
        blockdev.check_is_device(device)
        yield device
        return
    region = loop.Region(options.offset_bytes, options.size_bytes)
    file_fd = blockdev.open_image(device, read_only=options.is_read_only)
    try:
        with device_lock(session.places.lock_dir):
            loop_fd, path = loop.attach(device, file_fd, region, read_only=options.is_read_only)
    finally:
        os.close(file_fd)
    try:
        yield path
    finally:
        os.close(loop_fd)


def open_root(session: Session) -> int:
    """A descriptor (O_PATH) of the root of a session that is mounted from a device, or would be.

    Where it is not mounted, as after a restart of the machine, the device is, nowhere, for as long as the descriptor is
    open. Raises OSError where there is no such root, FileNotFoundError where there is no device.
    """
    inside = session.path.removeprefix(session.location) or "/"
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        with files.directory(session.location) as location_fd:
            if syscall.is_mount_root(location_fd):
                return files.open_in_root(location_fd, inside, flags)
    except FileNotFoundError:
        pass
    absent = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), session.location)
    match session.chroot.source:
        case (Loopback() | BlockDevice()) as source:
            os.stat(session.mount_device)
            is_file = isinstance(source, Loopback)
            try:
                with detached(session, session.mount_device, source.mount_options, is_file=is_file) as mount_fd:
                    return files.open_in_root(mount_fd, inside, flags)
            except SessionsError:  # what cannot be mounted has not been, and holds nothing of ours
                raise absent from None
            except OSError as error:
                raise (absent if error.errno in _NO_DEVICE else error) from None
        case _:  # a copy, of which nothing is kept
            raise absent


class RootInside(Step):
    """The root lies in a directory inside what is mounted, and no link leads out of there."""

    kind: ClassVar[str] = "root-inside"
    location: str
    path: str

    @property
    def is_marked(self) -> bool:
        """It changes nothing."""
        return False

    def do(self, context: Context) -> None:
        """Raise unless it does: what is written to the path would be written to the host."""
        inside = self.path.removeprefix(self.location)
        try:
            with files.directory(self.location) as location_fd:
                root_fd = files.open_in_root(location_fd, inside, os.O_PATH | os.O_DIRECTORY)
                try:
                    leads_to = files.path_of(root_fd)
                finally:
                    os.close(root_fd)
        except OSError as error:
            raise StepFailed(f"location {inside} inside is not a directory: {error.strerror}") from None
        if leads_to != os.path.realpath(self.path):
            raise StepFailed(
                f"location {inside} leads out of the chroot by a link",
                hint="name the directory itself as location, or make the link relative",
            )

    @property
    def remedy(self) -> str:
        """Somebody has named it."""
        return "mend location in the chroot's configuration"

    def is_present(self, context: Context) -> bool:
        """It is looked at each time."""
        return False

    def describe(self) -> str:
        """One line."""
        return f"see that {self.path} lies inside what is mounted at {self.location}"
