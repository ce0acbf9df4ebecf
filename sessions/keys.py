"""THE table of configuration keys: name, type, default, where it is legal, its script variable and its help.

Parser, printers, script environment, manual pages and shell completion are all made from :data:`KEYS`.
"""

from __future__ import annotations

import re
from enum import Enum

from sessions import keytypes
from sessions.data import Frozen
from sessions.keytypes import KeyType, Value
from sessions.model import (
    SOURCES,
    BlockDevice,
    BtrfsSnapshot,
    Chroot,
    Custom,
    Directory,
    File,
    Host,
    Image,
    Loopback,
    LvmSnapshot,
    Plain,
    Session,
    Source,
    Union,
    ZfsSnapshot,
)

DEFAULT_ENVIRONMENT_FILTER = (
    "^(BASH_ENV|CDPATH|ENV|HOSTALIASES|IFS|KRB5_CONFIG|KRBCONFDIR|KRBTKFILE|KRB_CONF|LD_.*|LOCALDOMAIN|NLSPATH|"
    "PATH_LOCALE|RES_OPTIONS|TERMINFO|TERMINFO_DIRS|TERMPATH)$"
)


class Part(Enum):
    """What holds a key's value: one of the three parts of a chroot, a session of it, or all of the configuration."""

    CHROOT = "chroot"
    SOURCE = "source"
    UNION = "union"
    SESSION = "session"
    WHOLE = "whole"
    """No chroot: sessions.toml itself, above all its tables."""


class Status(Enum):
    """Whether a key is in use, or how schroot treats it otherwise."""

    CURRENT = "current"
    NATIVE = "native"  # ours alone: schroot 1.6.13 does not know it
    DEPRECATED = "deprecated"
    OBSOLETE = "obsolete"  # accepted, no effect


class Key(Frozen):
    """One configuration key.

    ``sources`` are the kinds of source it is legal for (empty: all); ``value_type`` reads it; ``field`` is the
    attribute of the part that holds it; ``variable`` is the name under which setup scripts see it.
    """

    name: str
    value_type: KeyType
    default: Value
    help: str
    part: Part = Part.CHROOT
    sources: tuple[type[Source], ...] = ()
    required: bool = False
    variable: str = ""
    status: Status = Status.CURRENT
    native_default: Value | None = None
    """The default in TOML, where that is another one."""
    internal: bool = False
    """A session has it: --config prints it for sessions, and it is not accepted in a configuration file."""
    configured_only: bool = False
    """A chroot has it and its sessions do not: it says how they are made."""
    attribute: str = ""
    """The attribute that holds it, where that is not called as the key."""

    @property
    def field(self) -> str:
        """The attribute's name."""
        if self.attribute:
            return self.attribute
        name = self.name
        for prefix in _PREFIXES.get(self.part, ()):
            name = name.removeprefix(prefix)
        return name.replace("-", "_")


# The names of keys say which part they are about; the fields of that part need not.
_PREFIXES = {Part.UNION: ("union-",), Part.SOURCE: ("file-", "lvm-", "btrfs-", "zfs-", "custom-")}


VERBOSITY = keytypes.choice("quiet", "normal", "verbose", complaint="{}: Message verbosity is invalid")
UNION_TYPE = keytypes.choice(
    "none", "overlay", "overlayfs", "aufs", "unionfs", complaint="Unknown filesystem union type ‘{}’"
)
LOCK = keytypes.choice("exclusive", "shared")
STORAGE = keytypes.choice("disk", "tmpfs")

# Every type that can be configured, by its name.
TYPES: dict[str, type[Source]] = {source.kind: source for source in SOURCES if source is not Host}
TYPE = keytypes.choice(*TYPES, complaint="Unknown chroot type ‘{}’")
# schroot has no unions over these, and ignores what schroot.conf says of one.
NATIVELY_UNIONABLE: tuple[type[Source], ...] = (File, LvmSnapshot, BtrfsSnapshot, ZfsSnapshot)
UNIONABLE: tuple[type[Source], ...] = (Directory, Loopback, Image, BlockDevice, *NATIVELY_UNIONABLE, Host)
MOUNTABLE: tuple[type[Source], ...] = (Loopback, Image, BlockDevice, LvmSnapshot, ZfsSnapshot)
CLONEABLE: tuple[type[Source], ...] = (*UNIONABLE, Custom)

# Key of the table -> the custom keys that a profile sets, and the file each names below /etc/schroot/PROFILE.
PROFILE_FILES = {
    "setup.config": "config",
    "setup.copyfiles": "copyfiles",
    "setup.fstab": "fstab",
    "setup.nssdatabases": "nssdatabases",
}

KEYS: tuple[Key, ...] = (
    Key("type", TYPE, "plain", "What the root is made of.", variable="CHROOT_TYPE"),
    Key(
        "description", keytypes.TEXT, "", "One line for people, shown by info and list.",
        variable="CHROOT_DESCRIPTION",
    ),
    Key(
        "directory", keytypes.path("Directory"), "", "The directory that holds the chroot.",
        Part.SOURCE, (Plain, Directory), required=True, variable="CHROOT_DIRECTORY",
    ),
    Key(
        "file", keytypes.path("File"), "",
        "The tar archive that holds the chroot: plain, or compressed as its ending says (gz, bz2, xz, lz4, lzo, zst); "
        "or, for chroots of type loopback and image, the image of a file system.",
        Part.SOURCE, (File, Loopback, Image), required=True, variable="CHROOT_FILE",
    ),
    Key(
        "device", keytypes.path("Device"), "",
        "The block device that holds the chroot, or the logical volume to make snapshots of.",
        Part.SOURCE, (BlockDevice, LvmSnapshot), required=True, variable="CHROOT_DEVICE",
    ),
    Key(
        "lvm-snapshot-options", keytypes.TEXT, "",
        "Options of lvcreate(8) for the snapshot: its size, as in --size 2G, or empty for a snapshot of a thin volume.",
        Part.SOURCE, (LvmSnapshot,), required=True, variable="CHROOT_LVM_SNAPSHOT_OPTIONS",
        configured_only=True,
    ),
    Key(
        "btrfs-source-subvolume", keytypes.path("Directory"), "", "The btrfs subvolume that holds the chroot.",
        Part.SOURCE, (BtrfsSnapshot,), required=True, variable="CHROOT_BTRFS_SOURCE_SUBVOLUME",
        configured_only=True,
    ),
    Key(
        "btrfs-snapshot-directory", keytypes.path("Directory"), "",
        "Where the snapshots of sessions are made, each named after its session; on the same btrfs.",
        Part.SOURCE, (BtrfsSnapshot,), required=True, variable="CHROOT_BTRFS_SNAPSHOT_DIRECTORY",
        configured_only=True,
    ),
    Key(
        "zfs-dataset", keytypes.TEXT, "", "The ZFS dataset that holds the chroot, such as tank/chroot/sid.",
        Part.SOURCE, (ZfsSnapshot,), required=True, variable="CHROOT_ZFS_DATASET",
        configured_only=True,
    ),
    Key(
        "zfs-snapshot-options", keytypes.TEXT, "", "Options of zfs-snapshot(8) for a session's snapshot.",
        Part.SOURCE, (ZfsSnapshot,), variable="CHROOT_ZFS_SNAPSHOT_OPTIONS",
        configured_only=True,
    ),
    Key(
        "mount-options", keytypes.TEXT, "", "Options of mount(8) for the root, separated by blanks: -o noatime.",
        Part.SOURCE, MOUNTABLE, variable="CHROOT_MOUNT_OPTIONS",
    ),
    Key(
        "location", keytypes.path("Location", is_optional=True), "",
        "Where the root lies inside the archive or file system, if not at its top.",
        Part.SOURCE, (File, *MOUNTABLE), variable="CHROOT_LOCATION",
    ),
    Key(
        "volumes", keytypes.VOLUMES, (),
        "What has to be opened before the device is there, in this order: encrypted volumes, arrays, logical volumes. "
        "Only in sessions.toml; see STACKED VOLUMES there.",
        Part.SOURCE, (BlockDevice,), status=Status.NATIVE,
    ),
    Key(
        "device-timeout", keytypes.SECONDS, 0,
        "How long to wait for each device that is not there yet. The time in which a password is asked does not count.",
        Part.SOURCE, (BlockDevice, LvmSnapshot), status=Status.NATIVE, attribute="device_timeout_s",
    ),
    Key(
        "fsck", keytypes.BOOLEAN, False,
        "Whether fsck(8) checks the file system before it is mounted, unless it is mounted already. A session whose "
        "file system has errors that could not be repaired does not come up.",
        Part.SOURCE, (Loopback, BlockDevice), status=Status.NATIVE,
    ),
    Key(
        "file-repack", keytypes.BOOLEAN, False, "Whether the archive is written again when the session ends.",
        Part.SOURCE, (File,), variable="CHROOT_FILE_REPACK", internal=True,
    ),
    Key(
        "archive-cache", keytypes.BOOLEAN, False,
        "Whether the archive is unpacked once, and all sessions share that tree below layers of their own; when the "
        "archive changes, the next session unpacks it anew. Without it each session unpacks the archive for itself. "
        "The default is true in sessions.toml, unless union-type is none, and false in schroot.conf.",
        Part.SOURCE, (File,), status=Status.NATIVE, native_default=True,
    ),
    Key(
        "mount-device", keytypes.TEXT, "", "What is mounted as the root of the session.",
        Part.SESSION, MOUNTABLE, variable="CHROOT_MOUNT_DEVICE", internal=True,
    ),
    Key(
        "lvm-snapshot-device", keytypes.TEXT, "", "The device of the session's snapshot.",
        Part.SESSION, (LvmSnapshot,), variable="CHROOT_LVM_SNAPSHOT_DEVICE", internal=True, attribute="snapshot",
    ),
    Key(
        "btrfs-snapshot-name", keytypes.TEXT, "", "The path of the session's snapshot.",
        Part.SESSION, (BtrfsSnapshot,), variable="CHROOT_BTRFS_SNAPSHOT_NAME", internal=True, attribute="snapshot",
    ),
    Key(
        "zfs-snapshot-name", keytypes.TEXT, "", "The name of the session's snapshot.",
        Part.SESSION, (ZfsSnapshot,), variable="CHROOT_ZFS_SNAPSHOT_NAME", internal=True, attribute="snapshot",
    ),
    Key(
        "zfs-clone-name", keytypes.TEXT, "", "The dataset that the session's snapshot is cloned to.",
        Part.SESSION, (ZfsSnapshot,), variable="CHROOT_ZFS_CLONE_NAME", internal=True, attribute="snapshot_clone",
    ),
    Key(
        "union-type", UNION_TYPE, "none",
        "Whether each session gets a layer of its own over the source: overlay, or none. The kernel has none of the "
        "other kinds that schroot knows any more.",
        Part.UNION, UNIONABLE, variable="CHROOT_UNION_TYPE",
    ),
    Key(
        "union-mount-options", keytypes.TEXT, "", "Mount options added to those the union needs.",
        Part.UNION, UNIONABLE, variable="CHROOT_UNION_MOUNT_OPTIONS",
    ),
    Key(
        "union-overlay-directory", keytypes.path("Union overlay"), "",
        "Where the sessions' own layers are kept, in a directory named after the session.",
        Part.UNION, UNIONABLE, variable="CHROOT_UNION_OVERLAY_DIRECTORY",
    ),
    Key(
        "union-underlay-directory", keytypes.path("Union underlay"), "",
        "Where the source of a union is mounted, in a directory named after the session, if it is a device or an "
        "image; an overlay of a directory needs no such mount.",
        Part.UNION, UNIONABLE, variable="CHROOT_UNION_UNDERLAY_DIRECTORY",
    ),
    Key(
        "union-overlay-storage", STORAGE, "disk",
        "Where a session's own layer lies: on disk it lasts over a reboot, on a tmpfs it is faster and does not.",
        Part.UNION, UNIONABLE, status=Status.NATIVE,
    ),
    Key(
        "union-overlay-size", keytypes.SIZE, "",
        "The most a layer on a tmpfs may hold: bytes, or a number followed by K, M, G, T or % (of the memory).",
        Part.UNION, UNIONABLE, status=Status.NATIVE,
    ),
    Key(
        "union-lower-directories", keytypes.PATHS, (),
        "More read-only branches between the session's layer and the source, topmost first.",
        Part.UNION, UNIONABLE, status=Status.NATIVE,
    ),
    Key(
        "custom-session-cloneable", keytypes.BOOLEAN, True, "Whether sessions of it can be begun.",
        Part.SOURCE, (Custom,), configured_only=True,
    ),
    Key(
        "custom-session-purgeable", keytypes.BOOLEAN, False,
        "Whether what the setup scripts mount is a copy made for the session, which goes with it.",
        Part.SOURCE, (Custom,),
    ),
    Key(
        "custom-source-cloneable", keytypes.BOOLEAN, False,
        "Whether there is a source: twin, for which the setup scripts mount the original itself.",
        Part.SOURCE, (Custom,), configured_only=True,
    ),
    Key("aliases", keytypes.NAMES, (), "Other names for the chroot."),
    Key(
        "source-lock", LOCK, "shared",
        "exclusive: while a session of the source: twin changes the original, no other session of the chroot is open; "
        "whoever comes later waits. shared: nobody waits, as with schroot. The default is exclusive in sessions.toml, "
        "and shared in schroot.conf.",
        status=Status.NATIVE, native_default="exclusive",
    ),
    Key("users", keytypes.NAMES, (), "Users who may use the chroot."),
    Key("groups", keytypes.NAMES, (), "Groups whose members may use the chroot."),
    Key("root-users", keytypes.NAMES, (), "Users who may become root in it without a password."),
    Key("root-groups", keytypes.NAMES, (), "Groups whose members may become root in it without a password."),
    Key(
        "source-clone", keytypes.BOOLEAN, True, "Whether there is a source: twin to change the original through.",
        sources=CLONEABLE,
    ),
    Key("source-users", keytypes.NAMES, (), "As users, for the source: twin.", sources=CLONEABLE),
    Key("source-groups", keytypes.NAMES, (), "As groups, for the source: twin.", sources=CLONEABLE),
    Key("source-root-users", keytypes.NAMES, (), "As root-users, for the source: twin.", sources=CLONEABLE),
    Key("source-root-groups", keytypes.NAMES, (), "As root-groups, for the source: twin.", sources=CLONEABLE),
    Key(
        "profile", keytypes.TEXT, "default",
        "The directory of fstab, copyfiles and nssdatabases that says what a session gets from the host.",
        variable="CHROOT_PROFILE",
    ),
    Key(
        "script-config", keytypes.TEXT, "", "A shell file that sets the same as a profile.",
        status=Status.DEPRECATED, variable="CHROOT_SCRIPT_CONFIG",
    ),
    Key(
        "command-prefix", keytypes.NAMES, (),
        "A command and its arguments to put before every command, such as eatmydata.",
    ),
    Key(
        "message-verbosity", VERBOSITY, "normal", "How much setup scripts say: quiet, normal or verbose.",
    ),
    Key(
        "personality", keytypes.PERSONALITY, "undefined",
        "The kernel's execution domain for commands, such as linux32.",
    ),
    Key(
        "preserve-environment", keytypes.BOOLEAN, False,
        "Whether commands get the caller's environment rather than a minimal one.",
    ),
    Key(
        "environment-filter", keytypes.REGEX, DEFAULT_ENVIRONMENT_FILTER,
        "Variables whose names this regular expression finds are never passed on.",
    ),
    Key("shell", keytypes.SHELL, "", "The shell to start where no command is given."),
    Key("user-modifiable-keys", keytypes.NAMES, (), "Custom keys that any permitted user may set for a session."),
    Key("root-modifiable-keys", keytypes.NAMES, (), "Custom keys that root may set for a session."),
    Key("active", keytypes.TEXT, "", "No longer has any effect.", status=Status.OBSOLETE),
    Key("priority", keytypes.TEXT, "", "No longer has any effect.", status=Status.OBSOLETE),
    Key("run-setup-scripts", keytypes.TEXT, "", "No longer has any effect.", status=Status.OBSOLETE),
    Key("run-session-scripts", keytypes.TEXT, "", "No longer has any effect.", status=Status.OBSOLETE),
    Key("run-exec-scripts", keytypes.TEXT, "", "No longer has any effect.", status=Status.OBSOLETE),
)  # fmt: skip

# Keys of sessions.toml that are about no chroot.
WHOLE_KEYS: tuple[Key, ...] = (
    Key(
        "archive-cache-size", keytypes.SIZE, "20%",
        "The most that unpacked archives may hold together before those are removed that were not used for longest: "
        "bytes, or a number followed by K, M, G, T or % (of the file system that they lie in). "
        "None is removed that a session uses.",
        Part.WHOLE, status=Status.NATIVE,
    ),
    Key(
        "archive-cache-age", keytypes.AGE, "30d",
        "How long an unpacked archive is kept that no session uses: a number followed by h, d or w.",
        Part.WHOLE, status=Status.NATIVE,
    ),
)  # fmt: skip

BY_NAME = {key.name: key for key in KEYS}

_CUSTOM = r"([a-z][a-z0-9]*\.)+[a-z][a-z0-9-]*"  # compiled where it is used first
_RESERVED_PREFIXES = ("auth.", "chroot.", "host.", "libexec.", "mount.", "session.", "status.", "sysconf.")
_RESERVED = ("setup.data.dir",)


def is_custom(name: str) -> bool:
    """Whether `name` may be a custom key, such as ``setup.fstab`` or ``acme.mirror`` (schroot.conf(5))."""
    return bool(
        "." in name
        and re.fullmatch(_CUSTOM, name)
        and not name.startswith(_RESERVED_PREFIXES)
        and name not in _RESERVED
    )


def custom_variable(name: str) -> str:
    """The variable under which scripts see a custom key: upper case, with ``_`` for ``-`` and ``.``."""
    return name.upper().replace("-", "_").replace(".", "_")


def is_legal(key: Key, source: type[Source]) -> bool:
    """Whether `key` may be set for a chroot of this kind of source."""
    return not key.sources or source in key.sources


def value_of(chroot: Chroot, key: Key, session: Session | None = None) -> Value:
    """The value `key` has in `chroot`, or in a session of it; its default where there is no such value."""
    if key.name == "type":
        return chroot.source.kind
    holder: Chroot | Source | Union | Session | None = {
        Part.CHROOT: chroot,
        Part.SOURCE: chroot.source,
        Part.UNION: chroot.union,
        Part.SESSION: session,
    }[key.part]
    value: Value = getattr(holder, key.field, key.default)
    return value
