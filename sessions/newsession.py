"""A new session: every name it will own, and all that its scripts will need, worked out before anything exists."""

from __future__ import annotations

import os
import time

from sessions import environ, names, owners, sources
from sessions.config import profile, shellfile
from sessions.data import Frozen, replace
from sessions.linux import mountinfo, proc
from sessions.model import (
    CachedTree,
    Chroot,
    CopyLine,
    File,
    Host,
    HostMount,
    Identity,
    Places,
    Session,
    Source,
    Union,
)

HOST = Chroot(
    name="host",
    source=Host(),
    union=Union(type="overlay", overlay_storage="tmpfs"),
    description="the running system; changes are thrown away",
    profile="",
)
# Real file systems that /proc/filesystems nevertheless marks as having no device.
_REAL_WITHOUT_DEVICE = frozenset(
    ("overlay", "nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "virtiofs", "zfs", "btrfs", "bcachefs", "ubifs")
)
_RESOLVER = "/etc/resolv.conf"


class Wish(Frozen):
    """How a session is asked for: its name (made up if empty), who asks, who it is for, and how long it lasts.

    `lock_timeout_s` is how long to wait while the source is in use (None: until it is not; 0: not at all).
    """

    caller: Identity
    user: Identity
    session_id: str = ""
    automatic: bool = False
    verbosity: str = ""
    lock_timeout_s: float | None = None


def new_session(places: Places, chroot: Chroot, selected_name: str, wish: Wish) -> Session:
    """Every name the session will own, and everything its scripts will need from the configuration."""
    session_id = wish.session_id or f"{chroot.name}-{_random_uuid()}"
    names.check(session_id, "session name")
    location = f"{places.mount_dir}/{session_id}"
    union, is_host = chroot.union, isinstance(chroot.source, Host)
    overlay = ""
    if union.is_used and union.overlay_storage == "tmpfs":
        overlay = f"{places.mount_dir}/.{session_id}.layer"
    elif union.is_used:
        overlay = f"{union.overlay_directory}/{session_id}"
    owner = owners.this_process() if wish.automatic else None
    unpack, cached = _unpacked(places, chroot.source, session_id)
    inside = sources.inner_location(chroot.source).strip("/")
    storage = sources.storage(chroot, session_id)
    session = Session(
        id=session_id,
        stamp=os.urandom(12).hex(),
        chroot=chroot,
        selected_name=selected_name,
        caller=wish.caller,
        user=wish.user,
        owner=owner,
        created_ns=time.time_ns(),
        boot_id=owner.boot_id if owner else proc.boot_id(),
        mount_namespace=proc.mount_namespace() or 0,
        pid_namespace=proc.pid_namespace(),
        places=places,
        location=location,
        path=f"{location}/{inside}" if inside else location,
        overlay_directory=overlay,
        underlay_directory=f"{union.underlay_directory}/{session_id}" if union.is_used and not is_host else "",
        unpack_directory=unpack,
        cached=cached,
        mount_device=storage.mount_device,
        snapshot=storage.snapshot,
        snapshot_clone=storage.snapshot_clone,
        verbosity=wish.verbosity or chroot.message_verbosity,
    )
    if is_host:
        return replace(session, copyfiles=_host_copyfiles(), host_mounts=_host_mounts(places))
    return with_setup_files(session)


def _unpacked(places: Places, source: Source, session_id: str) -> tuple[str, CachedTree | None]:
    """Where an archive is unpacked: in a directory of the session's own, or in the cache."""
    if not isinstance(source, File):
        return "", None
    if not source.archive_cache:
        return f"{places.unpack_dir}/{session_id}", None
    from sessions import archiveidentity  # only for those who use it

    return "", archiveidentity.find(places, source.file)


def with_setup_files(session: Session) -> Session:
    """The session with what its setup files say; the environment of its scripts is known by now.

    Raises ConfigError, naming the file and the line, for one that is missing or makes no sense.
    """
    chroot, places = session.chroot, session.places
    told: profile.Told = {}
    if shellfile.is_named(chroot, places):
        told = shellfile.told(chroot, places, environ.for_scripts(session, "setup-start"))
    return replace(
        session,
        fstab=profile.fstab(chroot, places, told),
        copyfiles=profile.copyfiles(chroot, places, told),
        nssdatabases=profile.nssdatabases(chroot, places, told),
        services=profile.services(chroot, told),
    )


def _random_uuid() -> str:
    """A version 4 UUID (RFC 4122)."""
    data = bytearray(os.urandom(16))
    data[6] = data[6] & 0x0F | 0x40
    data[8] = data[8] & 0x3F | 0x80
    text = data.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _host_copyfiles() -> tuple[CopyLine, ...]:
    """The resolver's configuration often is a link into /run, which a session of the host gets empty."""
    return (CopyLine(_RESOLVER, _RESOLVER),) if os.path.isfile(_RESOLVER) else ()


def _host_mounts(places: Places) -> tuple[HostMount, ...]:
    """The real file systems mounted below /, uppermost first; what a session gets new is left out."""
    with open("/proc/filesystems", encoding="utf-8", errors="replace") as file:
        without_device = {line.split()[1] for line in file if line.startswith("nodev")} - _REAL_WITHOUT_DEVICE
    fresh = ("/proc", "/sys", "/dev", "/run", "/tmp", places.state_dir, places.runtime_dir)
    found: dict[str, HostMount] = {}
    for mount in mountinfo.read():
        hidden = any(mount.target == path or mount.target.startswith(path + "/") for path in fresh)
        real = mount.fstype not in without_device or mount.fstype.startswith("fuse.")
        if mount.target != "/" and real and not hidden:
            found[mount.target] = HostMount(mount.target, mount.fstype, os.path.isdir(mount.target))
    return tuple(found[target] for target in sorted(found))
