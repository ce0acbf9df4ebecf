"""Mount options as fstab(5) and mount(8) write them, taken apart into what the kernel takes."""

from __future__ import annotations

from functools import lru_cache

from sessions.data import Frozen
from sessions.linux import syscall

# Option -> (flag of mount(2), attribute of mount_setattr(2), whether it is set or cleared).
_FLAGS: dict[str, tuple[int, int, bool]] = {
    "ro": (syscall.MS_RDONLY, syscall.MOUNT_ATTR_RDONLY, True),
    "rw": (syscall.MS_RDONLY, syscall.MOUNT_ATTR_RDONLY, False),
    "nosuid": (syscall.MS_NOSUID, syscall.MOUNT_ATTR_NOSUID, True),
    "suid": (syscall.MS_NOSUID, syscall.MOUNT_ATTR_NOSUID, False),
    "nodev": (syscall.MS_NODEV, syscall.MOUNT_ATTR_NODEV, True),
    "dev": (syscall.MS_NODEV, syscall.MOUNT_ATTR_NODEV, False),
    "noexec": (syscall.MS_NOEXEC, syscall.MOUNT_ATTR_NOEXEC, True),
    "exec": (syscall.MS_NOEXEC, syscall.MOUNT_ATTR_NOEXEC, False),
    "noatime": (syscall.MS_NOATIME, syscall.MOUNT_ATTR_NOATIME, True),
    "nodiratime": (syscall.MS_NODIRATIME, syscall.MOUNT_ATTR_NODIRATIME, True),
    "nosymfollow": (syscall.MS_NOSYMFOLLOW, syscall.MOUNT_ATTR_NOSYMFOLLOW, True),
    "relatime": (syscall.MS_RELATIME, 0, True),
    "strictatime": (syscall.MS_STRICTATIME, 0, True),
    "lazytime": (syscall.MS_LAZYTIME, 0, True),
    "sync": (syscall.MS_SYNCHRONOUS, 0, True),
    "async": (syscall.MS_SYNCHRONOUS, 0, False),
    "dirsync": (syscall.MS_DIRSYNC, 0, True),
}
# Words for mount(8) and the init system: they say nothing to the kernel.
_IGNORED = frozenset(
    ("defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev")
)  # fmt: skip
# What a bind mount has to do with its original's later mounts. A shared one hears of them and does not tell its own:
# what is unmounted with a session would be unmounted on the host as well.
_PROPAGATION = {
    "private": syscall.MS_PRIVATE,
    "slave": syscall.MS_SLAVE,
    "shared": syscall.MS_SLAVE,
    "unbindable": syscall.MS_UNBINDABLE,
}
_PROPAGATION |= {f"r{word}": kind for word, kind in _PROPAGATION.items()}


class MountOptions(Frozen):
    """What options ask for: `flags` for a new file system, `attributes` for a bind mount, `data` for the rest.

    ``propagation`` is that of a bind mount and of all below it. ``needs_mount_program`` says that mount(8) has to see
    them, since it does more than call the kernel.
    """

    flags: int = 0
    attributes: int = 0
    data: str = ""
    bind: bool = False
    recursive: bool = False
    needs_mount_program: bool = False
    propagation: int = syscall.MS_PRIVATE


@lru_cache(maxsize=256)
def parse(options: str) -> MountOptions:
    """Take a comma-separated list of options apart; the last of two that contradict each other counts."""
    flags = attributes = 0
    data = []
    bind = recursive = program = False
    propagation = syscall.MS_PRIVATE
    for option in filter(None, options.split(",")):
        if option in _FLAGS:
            flag, attribute, is_set = _FLAGS[option]
            flags = flags | flag if is_set else flags & ~flag
            attributes = attributes | attribute if is_set else attributes & ~attribute
        elif option in ("bind", "rbind"):
            bind, recursive = True, option == "rbind"
        elif option in _PROPAGATION:
            propagation = _PROPAGATION[option]
        elif option == "loop" or option.startswith(("loop=", "offset=", "helper=", "uhelper=", "X-mount.")):
            program = True
        elif option not in _IGNORED and not option.startswith(("x-", "comment=")):
            data.append(option)
    return MountOptions(flags, attributes, ",".join(data), bind, recursive, program, propagation)
