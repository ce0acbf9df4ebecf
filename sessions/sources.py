"""What each kind of source means for sessions of it: whether they are copies, what is mounted, which names they own.

Every question that depends on the kind is answered here once, so that a new kind fails type checking until it has all
its answers.
"""

from __future__ import annotations

import os.path

from sessions.data import Frozen, impossible, replace
from sessions.model import (
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
    Source,
    ZfsSnapshot,
)


class Storage(Frozen):
    """The names of what a session's storage is made of: see the fields of Session that are called the same."""

    mount_device: str = ""
    snapshot: str = ""
    snapshot_clone: str = ""


def has_sessions(source: Source) -> bool:
    """Whether sessions of it can be begun."""
    match source:
        case Plain():
            return False
        case Custom(session_cloneable=may_begin):
            return may_begin
        case (
            Directory() | File() | Loopback() | Image() | BlockDevice() | LvmSnapshot() | BtrfsSnapshot()
            | ZfsSnapshot() | Host()
        ):  # fmt: skip
            return True
        case unknown:
            raise impossible(unknown)


def is_cloned(chroot: Chroot) -> bool:
    """Whether a session of it leaves the original alone, so that there can be a twin to change that through."""
    if chroot.is_source:
        return False
    match chroot.source:
        case File() | LvmSnapshot() | BtrfsSnapshot() | ZfsSnapshot():
            return True
        case Directory() | Loopback() | Image() | BlockDevice():
            return chroot.union.is_used
        case Custom(source_cloneable=is_asked_for):
            return is_asked_for
        case Plain() | Host():
            return False
        case unknown:
            raise impossible(unknown)


def is_purged(chroot: Chroot) -> bool:
    """Whether the tree of a session is a copy that goes with it."""
    match chroot.source:
        case Custom(session_purgeable=goes):
            return goes and not chroot.is_source
        case Host():
            return True
        case (
            Plain() | Directory() | File() | Loopback() | Image() | BlockDevice() | LvmSnapshot() | BtrfsSnapshot()
            | ZfsSnapshot()
        ):  # fmt: skip
            return is_cloned(chroot)
        case unknown:
            raise impossible(unknown)


def twin_of(source: Source) -> Source:
    """What the ``source:`` twin of a chroot is made of: the original itself."""
    match source:
        case File():
            return replace(source, repack=True, archive_cache=False)
        case Image(file=file, mount_options=mount_options, location=location):
            return Loopback(file, mount_options, location)
        case LvmSnapshot(device=device, mount_options=mount_options, location=location, device_timeout_s=timeout_s):
            return BlockDevice(device, mount_options, location, device_timeout_s=timeout_s)
        case BtrfsSnapshot(source_subvolume=subvolume):
            return Directory(subvolume)
        case Plain() | Directory() | Loopback() | BlockDevice() | ZfsSnapshot() | Custom() | Host():
            return source
        case unknown:
            raise impossible(unknown)


def inner_location(source: Source) -> str:
    """Where the root lies inside what is unpacked or mounted, as configured: empty for its top."""
    match source:
        case File() | Loopback() | Image() | BlockDevice() | LvmSnapshot() | ZfsSnapshot():
            return source.location
        case Plain() | Directory() | BtrfsSnapshot() | Custom() | Host():
            return ""
        case unknown:
            raise impossible(unknown)


def snapshot_directory(source: Source) -> str:
    """The directory in which sessions of it have snapshots, and others what they like; empty if there is none."""
    return source.snapshot_directory if isinstance(source, BtrfsSnapshot) else ""


def storage(chroot: Chroot, session_id: str) -> Storage:
    """The names that a session of `chroot` will use, by schroot's rules."""
    match chroot.source:
        case Loopback(file=device) | Image(file=device) | BlockDevice(device=device):
            return Storage(device)
        case LvmSnapshot(device=device):
            snapshot = f"{os.path.dirname(device)}/{session_id}"
            return Storage(snapshot, snapshot)
        case BtrfsSnapshot(snapshot_directory=directory):
            return Storage(snapshot=f"{directory}/{session_id}")
        case ZfsSnapshot(dataset=dataset):
            if chroot.is_source:
                return Storage(dataset)
            clone = f"{dataset}/schroot-{session_id}"
            return Storage(clone, f"{dataset}@{session_id}", clone)
        case Plain() | Directory() | File() | Custom() | Host():
            return Storage()
        case unknown:
            raise impossible(unknown)
