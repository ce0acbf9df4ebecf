"""Block devices and the file systems on them: what there is on one, and one that is mounted nowhere yet."""

from __future__ import annotations

import fcntl
import os
import stat

from sessions.data import Frozen
from sessions.errors import SessionsError, StepFailed
from sessions.linux import run, syscall

_BLKROGET = 0x125E
_NOTHING_FOUND, _AMBIGUOUS = 2, 8


class Contents(Frozen):
    """What blkid(8) has found on a device: its `type` ("ext4", "crypto_LUKS") and what that is for ("filesystem")."""

    type: str
    usage: str


def check_is_device(path: str) -> None:
    """Raise StepFailed unless a block device is at the path, in schroot's words."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise StepFailed(
            f"{path}: Failed to stat file: {error.strerror}", hint="see that the device is there, or mend its name"
        ) from None
    if not stat.S_ISBLK(mode):
        raise StepFailed(f"{path}: File is not a block device", hint="mend the chroot's configuration")


def open_image(path: str, *, read_only: bool) -> int:
    """A descriptor of an image file that root alone can have written; raises StepFailed, in schroot's words.

    The kernel trusts what is in a file system, so that whoever can write to the image could do anything.
    """
    try:
        fd = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        failed = "Failed to stat file" if isinstance(error, FileNotFoundError) else "cannot be opened"
        raise StepFailed(
            f"{path}: {failed}: {error.strerror}", hint="see that the image is there, or mend its name"
        ) from None
    status = os.fstat(fd)
    why_not = ""
    if not stat.S_ISREG(status.st_mode):
        why_not = "File is not a regular file"
    elif status.st_uid != 0:
        why_not = "File is not owned by user root"
    elif status.st_mode & stat.S_IWOTH:
        why_not = "File has write permissions for others"
    if why_not:
        os.close(fd)
        raise StepFailed(f"{path}: {why_not}", hint="mend its owner and mode, or the chroot's configuration")
    return fd


def is_read_only(path: str) -> bool:
    """Whether a device refuses to be written to."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return any(fcntl.ioctl(fd, _BLKROGET, bytes(4)))
    finally:
        os.close(fd)


def contents(path: str) -> Contents | None:
    """What is on a device, or None if blkid(8) knows nothing of it.

    Raises SessionsError where it cannot be read, or bears the marks of two things at once.
    """
    outcome = run.call(["blkid", "-p", "-o", "export", "--", path], package="util-linux")
    if outcome.status == _AMBIGUOUS:
        raise SessionsError(
            f"{path} bears the marks of several file systems at once", hint=f"see wipefs {path}; name one: -t TYPE"
        )
    if outcome.status == _NOTHING_FOUND:
        with open(path, "rb") as device:  # which blkid does not tell from one that cannot be read
            device.read(1)
        return None
    if outcome.status != 0:
        raise SessionsError(f"blkid cannot tell what is on {path}: {outcome.reason()}", hint=f"look at {path}")
    found = dict(line.partition("=")[::2] for line in outcome.output.decode(errors="replace").splitlines())
    return Contents(found.get("TYPE", ""), found.get("USAGE", ""))


def file_system_on(path: str) -> str:
    """The type of the file system on a device; raises SessionsError where there is none, saying what there is."""
    found = contents(path)
    if found is None:
        raise SessionsError(
            f"there is no file system on {path} that blkid knows",
            hint="see that it is whole, or name its type: -t TYPE",
        )
    if found.usage != "filesystem":
        raise SessionsError(
            f"there is {found.type or 'something'} on {path}, and no file system", hint="name the device that is in it"
        )
    return found.type


def new_mount(path: str, fstype: str, *, flags: tuple[str, ...], data: str, attributes: int) -> int:
    """The file system on a device, mounted nowhere yet (a descriptor); the OSError has the kernel's own words."""
    options = [("source", path), *((flag, "") for flag in flags)]
    for option in filter(None, data.split(",")):
        key, _equals, value = option.partition("=")
        options.append((key, value))
    return syscall.new_mount(fstype, attributes, options)
