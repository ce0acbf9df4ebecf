"""The nouns: what an administrator defines (Chroot), what its root is made of (Source), who asks (Identity), and one
live copy (Session). Frozen data without behaviour that touches anything.
"""

from __future__ import annotations

from sessions.data import TYPE_CHECKING, Frozen, replace

if TYPE_CHECKING:
    from typing import ClassVar


_JOURNALS, _MAINTENANCE = "sessions", "maintenance"


class Places(Frozen):
    """Where everything lives; the defaults are the installed system's."""

    native_config_dir: str = "/etc/chroot-sessions"
    schroot_config_dir: str = "/etc/schroot"
    state_dir: str = "/var/lib/chroot-sessions"
    runtime_dir: str = "/run/chroot-sessions"
    stock_setup_dir: str = "/usr/share/chroot-sessions/setup.d"
    stock_etc_dir: str = "/usr/share/chroot-sessions/etc"

    @property
    def config_path(self) -> tuple[str, ...]:
        """Where the files of profiles are looked for, in this order."""
        return tuple(dict.fromkeys((self.schroot_config_dir, self.native_config_dir, self.stock_etc_dir)))

    @property
    def journal_dir(self) -> str:
        """The journals: one file a session, and nothing else is the truth about it."""
        return f"{self.state_dir}/{_JOURNALS}"

    @property
    def unpack_dir(self) -> str:
        """Where archives are unpacked, in a directory named after the session."""
        return f"{self.state_dir}/unpack"

    @property
    def archive_dir(self) -> str:
        """The cache of unpacked archives: a directory for each, which any number of sessions share."""
        return f"{self.state_dir}/archives"

    @property
    def overlay_dir(self) -> str:
        """The default of union-overlay-directory."""
        return f"{self.state_dir}/union/overlay"

    @property
    def underlay_dir(self) -> str:
        """The default of union-underlay-directory."""
        return f"{self.state_dir}/union/underlay"

    @property
    def mount_dir(self) -> str:
        """Where roots are mounted, in a directory named after the session; private to its mount namespace."""
        return f"{self.runtime_dir}/mount"

    @property
    def lock_dir(self) -> str:
        """One lock file for each session that is being acted on, and for each source whose waiters change."""
        return f"{self.runtime_dir}/locks"

    @property
    def waiting_dir(self) -> str:
        """A record for each process that waits for a source."""
        return f"{self.runtime_dir}/waiting"

    @property
    def early_dir(self) -> str:
        """What the state directory is while that cannot be written to (see sessions.early)."""
        return f"{self.runtime_dir}/early-state"

    @property
    def early(self) -> Places:
        """The same places with that state directory."""
        return replace(self, state_dir=self.early_dir)

    @property
    def early_journal_dir(self) -> str:
        """The journals there: every command looks for some."""
        return f"{self.early_dir}/{_JOURNALS}"

    @property
    def early_maintenance_dir(self) -> str:
        """The records of maintenance there."""
        return f"{self.early_dir}/{_MAINTENANCE}"

    @property
    def events_dir(self) -> str:
        """The log of events, and the one before it: no truth, and nobody needs it."""
        return f"{self.runtime_dir}/events"

    @property
    def volume_dir(self) -> str:
        """A directory for each volume that sessions have opened or use, which tells whose it is."""
        return f"{self.runtime_dir}/volumes"

    @property
    def maintenance_dir(self) -> str:
        """A record, named after the chroot, for each source that is locked until somebody unlocks it."""
        return f"{self.state_dir}/{_MAINTENANCE}"


class Plain(Frozen):
    """A directory that is entered as it is: no session, no setup scripts."""

    kind: ClassVar[str] = "plain"
    directory: str = ""


class Directory(Frozen):
    """A directory, bind-mounted or below an overlay."""

    kind: ClassVar[str] = "directory"
    directory: str = ""


class File(Frozen):
    """A tar archive, unpacked for each session, or once for all; ``repack`` is set in the source twin only."""

    kind: ClassVar[str] = "file"
    file: str = ""
    location: str = ""
    repack: bool = False
    archive_cache: bool = False
    """Whether sessions share one unpacked tree below their own layers."""


class Loopback(Frozen):
    """A file that holds a file system, mounted by way of a loop device."""

    kind: ClassVar[str] = "loopback"
    file: str = ""
    mount_options: str = ""
    location: str = ""
    fsck: bool = False


class Luks(Frozen):
    """An encrypted volume: `device` holds it, and open it is ``/dev/mapper/NAME``. Without a key file, who begins a
    session is asked for the password.
    """

    kind: ClassVar[str] = "luks"
    device: str
    name: str
    key_file: str = ""

    @property
    def opens(self) -> str:
        """The device that it is when it is open."""
        return f"/dev/mapper/{self.name}"

    @property
    def made_of(self) -> tuple[str, ...]:
        """The devices that have to be there first."""
        return (self.device,)


class Raid(Frozen):
    """An array of the kernel's md driver; with one of its members missing it is only started if it may be degraded."""

    kind: ClassVar[str] = "raid"
    device: str
    members: tuple[str, ...]
    degraded: bool = False

    @property
    def opens(self) -> str:
        """The device that it is when it is started."""
        return self.device

    @property
    def made_of(self) -> tuple[str, ...]:
        """The devices that have to be there first."""
        return self.members


class LvmVolume(Frozen):
    """A logical volume that is activated."""

    kind: ClassVar[str] = "lvm"
    volume_group: str
    logical_volume: str

    @property
    def opens(self) -> str:
        """The device that it is when it is active."""
        return f"/dev/{self.volume_group}/{self.logical_volume}"

    @property
    def made_of(self) -> tuple[str, ...]:
        """Only LVM knows on which devices it lies."""
        return ()


Volume = Luks | Raid | LvmVolume


class Image(Frozen):
    """A file that holds a file system, never written to: mounted read-only below each session's own layer."""

    kind: ClassVar[str] = "image"
    file: str = ""
    mount_options: str = ""
    location: str = ""


class BlockDevice(Frozen):
    """A block device that holds a file system; also what the twin of a snapshot of such a device is."""

    kind: ClassVar[str] = "block-device"
    device: str = ""
    mount_options: str = ""
    location: str = ""
    volumes: tuple[Volume, ...] = ()
    """What has to be opened first, in this order."""
    device_timeout_s: int = 0
    fsck: bool = False


class LvmSnapshot(Frozen):
    """A logical volume, of which each session gets a snapshot."""

    kind: ClassVar[str] = "lvm-snapshot"
    device: str = ""
    snapshot_options: str = ""
    mount_options: str = ""
    location: str = ""
    device_timeout_s: int = 0


class BtrfsSnapshot(Frozen):
    """A subvolume of btrfs, of which each session gets a snapshot."""

    kind: ClassVar[str] = "btrfs-snapshot"
    source_subvolume: str = ""
    snapshot_directory: str = ""


class ZfsSnapshot(Frozen):
    """A dataset of ZFS: each session gets a clone of a snapshot of it, its source twin the dataset itself."""

    kind: ClassVar[str] = "zfs-snapshot"
    dataset: str = ""
    snapshot_options: str = ""
    mount_options: str = ""
    location: str = ""


class Custom(Frozen):
    """Whatever the administrator's setup scripts mount as the root; they alone know what it is."""

    kind: ClassVar[str] = "custom"
    session_cloneable: bool = True
    session_purgeable: bool = False
    source_cloneable: bool = False


class Host(Frozen):
    """The running system itself, always below overlays; built in, never configured."""

    kind: ClassVar[str] = "host"


Source = (
    Plain | Directory | File | Loopback | Image | BlockDevice | LvmSnapshot | BtrfsSnapshot | ZfsSnapshot | Custom
    | Host
)  # fmt: skip
SOURCES: tuple[type[Source], ...] = Source.__args__


class Union(Frozen):
    """What lies over the source: ``type`` "none" or "overlay", or one that no kernel has any more (aufs ...)."""

    type: str = "none"
    mount_options: str = ""
    overlay_directory: str = ""
    underlay_directory: str = ""
    overlay_storage: str = "disk"
    overlay_size: str = ""
    lower_directories: tuple[str, ...] = ()

    @property
    def is_used(self) -> bool:
        """Whether sessions get a layer of their own above the source."""
        return self.type != "none"


class Chroot(Frozen):
    """A chroot as configured. The fields are the keys of schroot.conf(5) and sessions.toml(5): see sessions.keys."""

    name: str
    source: Source
    union: Union = Union()
    description: str = ""
    aliases: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    root_users: tuple[str, ...] = ()
    root_groups: tuple[str, ...] = ()
    source_clone: bool = True
    source_users: tuple[str, ...] = ()
    source_groups: tuple[str, ...] = ()
    source_root_users: tuple[str, ...] = ()
    source_root_groups: tuple[str, ...] = ()
    profile: str = "default"
    script_config: str = ""
    command_prefix: tuple[str, ...] = ()
    message_verbosity: str = "normal"
    personality: str = "undefined"
    preserve_environment: bool = False
    environment_filter: str = ""
    shell: str = ""
    user_modifiable_keys: tuple[str, ...] = ()
    root_modifiable_keys: tuple[str, ...] = ()
    custom: tuple[tuple[str, str], ...] = ()
    """Custom keys, the ``setup.*`` values of the profile among them, in name order."""
    source_lock: str = "shared"
    is_source: bool = False
    """Whether this is the ``source:`` twin, whose sessions change the original."""

    @property
    def full_name(self) -> str:
        """The name with its namespace where that is not the usual one: ``source:NAME``."""
        return f"source:{self.name}" if self.is_source else self.name

    def custom_value(self, key: str) -> str:
        """The value of a custom key such as "setup.fstab"; empty if it is not set."""
        return dict(self.custom).get(key, "")


class Identity(Frozen):
    """A user as the host knows it."""

    uid: int
    gid: int
    name: str
    group: str
    groups: tuple[int, ...]
    home: str
    shell: str


class Owner(Frozen):
    """A process whose death can be proven: pid, start time in clock ticks since boot, the boot's id, and the inodes of
    the pid and the time namespace in which the first two mean something.
    """

    pid: int
    start_ticks: int
    boot_id: str
    pid_namespace: int
    time_namespace: int


class FstabLine(Frozen):
    """One line of an fstab(5) file; `options` is the fourth field, not yet taken apart."""

    source: str
    target: str
    fstype: str
    options: str


class CopyLine(Frozen):
    """One line of a copyfiles file: a host file and where it goes inside."""

    source: str
    target: str


class HostMount(Frozen):
    """A real file system of the host below ``/``, for a session of the host chroot."""

    target: str
    fstype: str
    is_directory: bool


class CachedTree(Frozen):
    """An archive's place in the cache, and what it was known by when the session was named."""

    path: str
    identity: str
    """What stat(2) said of the archive: a change of it changes this."""
    digest: str = ""
    """Of its contents, where stat(2) left a doubt."""
    alias: str = ""
    """Another place that is to lead to this one, so that the next session need not doubt."""


class Script(Frozen):
    """A setup script that a session was planned with, and how many of its steps are the script's."""

    name: str
    steps: int


class Session(Frozen):
    """One live copy of a chroot: every name it will own and everything its scripts need, fixed before anything exists.

    It is the first line of the session's journal, so undo and recovery never read the configuration again.
    """

    id: str
    stamp: str
    """Random; what the session creates where others create things too carries it, and undo asks for it."""
    chroot: Chroot
    selected_name: str
    """The name the chroot was asked for by (an alias, perhaps), without a namespace."""
    caller: Identity
    user: Identity
    owner: Owner | None
    """The process whose end is the end of an automatic session; None for one that was begun to last."""
    created_ns: int
    boot_id: str
    mount_namespace: int
    places: Places
    location: str
    """Where the root is mounted."""
    path: str
    """The root itself: the location, or a directory inside it."""
    pid_namespace: int = 0
    """In which who is in the mount namespace can be seen; 0 where that is not known."""
    overlay_directory: str = ""
    underlay_directory: str = ""
    unpack_directory: str = ""
    cached: CachedTree | None = None
    """The tree in the cache that is below the session's layer: it stays there as long as a session names it."""
    mount_device: str = ""
    """What is mounted at the location, where that is no directory: a device, the file of a loop device, a dataset."""
    snapshot: str = ""
    """What is made for this session alone: a logical volume's device, a subvolume's path, a dataset's snapshot."""
    snapshot_clone: str = ""
    """The dataset that a ZFS snapshot is cloned to."""
    fstab: tuple[FstabLine, ...] = ()
    copyfiles: tuple[CopyLine, ...] = ()
    nssdatabases: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    host_mounts: tuple[HostMount, ...] = ()
    verbosity: str = "normal"
    scripts: tuple[Script, ...] = ()
    """The scripts that made the plan, in order: together they have all of its steps."""
