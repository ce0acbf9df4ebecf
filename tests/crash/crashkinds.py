"""The kinds of session that are killed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# Where a file kill-at-N lies in the world, the script kills the process that runs it when it comes to its Nth place,
# and comes no further: its end is a signal that it gets for the death of its parent.
HEAD = """#!/bin/sh
set -e
here() {
    if [ -e "@BASE@/kill-at-$1" ]; then
        rm "@BASE@/kill-at-$1"
        kill -KILL "$PID"
        exec sleep 100000
    fi
}
"""
PLACES_UP, PLACES_DOWN = (1, 2, 3), (4, 5, 6)

# Does something outside and something inside, and takes both away again.
SCRIPT = (
    HEAD
    + """
if [ "$1" = setup-stop ]; then
    here 4
    if mountpoint -q "$CHROOT_PATH/mnt"; then
        umount "$CHROOT_PATH/mnt"
    fi
    here 5
    rm -f "@BASE@/outside/$SESSION_ID"
    here 6
else
    here 1
    echo "$SESSION_ID" >"@BASE@/outside/$SESSION_ID"
    here 2
    mountpoint -q "$CHROOT_PATH/mnt" || mount -t tmpfs script "$CHROOT_PATH/mnt"
    here 3
fi
"""
)

# Starts two processes: one outside, in the script's own session (setsid(2)), which its setup-stop has to end if the
# script came to its end, and one that has left that session but lives in the chroot.
DAEMONS = (
    HEAD
    + """
pidfile="@BASE@/outside/daemon"
if [ "$1" = setup-stop ]; then
    here 4
    if [ -e "$pidfile" ]; then
        kill "$(cat "$pidfile")" || true
    fi
    here 5
    rm -f "$pidfile"
    here 6
else
    here 1
    sleep 100000 &
    here 2
    echo $! >"$pidfile"
    setsid chroot "$CHROOT_PATH" /bin/sleep 100000 &
    here 3
fi
"""
)

# Makes the root of a custom chroot: an overlay of its own.
ROOT = (
    HEAD
    + """
layer="@BASE@/outside/$SESSION_ID"
if [ "$1" = setup-stop ]; then
    here 4
    if mountpoint -q "$CHROOT_MOUNT_LOCATION"; then
        umount "$CHROOT_MOUNT_LOCATION"
    fi
    here 5
    rm -rf "$layer"
    here 6
else
    here 1
    mkdir -p "$CHROOT_MOUNT_LOCATION" "$layer/upper" "$layer/work"
    here 2
    mountpoint -q "$CHROOT_MOUNT_LOCATION" || mount -t overlay root "$CHROOT_MOUNT_LOCATION" \\
        -o "lowerdir=@BASE@/chroot,upperdir=$layer/upper,workdir=$layer/work"
    here 3
fi
"""
)

# What schroot leaves in a directory that has no union: the copies of the host's files, and the chroot's name.
COPIES = frozenset(f"etc/{name}" for name in ("resolv.conf", "passwd", "shadow", "group", "gshadow", "debian_chroot"))


@dataclass(frozen=True)
class Kind:
    """One kind: the chroot by its name in the configuration, and what is different about it."""

    name: str
    word: str
    automatic: bool = False
    scripts: Mapping[str, str] = field(default_factory=dict)
    changes_original: bool = False
    """Whether the chroot itself is the session's root, so that copies stay in it and we put nothing there."""
    original: str = "chroot"
    """The directory of the world that is changed then, and the files that stay in it."""
    copies: frozenset[str] = COPIES
    repacks: bool = False
    """Whether the end of the session writes the archive anew."""
    busy: bool = False
    """Whether a command is left running inside."""
    beside: bool = False
    """Whether another session is up all the time."""
    fresh: bool = False
    """Whether nothing of ours has ever been there before."""
    cold: bool = False
    """Whether the cache of archives is empty each time."""
    early: bool = False
    """Whether the state directory is read-only all the time, as early at boot."""
    disk: str = ""
    """The disk that it is made of: see disks.make_disk()."""
    lasts: bool = True
    """Whether it can be recovered after a reboot."""
    backing: str = ""
    """What its chroot lies on, if that is more than files: see crashvolumes.BACKINGS."""


KINDS = {
    kind.name: kind
    for kind in (
        Kind("directory", "plain", changes_original=True),
        Kind("overlay", "minimal"),
        Kind("overlay-automatic", "minimal", automatic=True, busy=True, lasts=False),
        Kind("overlay-first-ever", "minimal", fresh=True),
        Kind("overlay-beside-another", "minimal", beside=True),
        Kind("overlay-early", "minimal", early=True),
        Kind("overlay-elsewhere", "elsewhere"),
        Kind("overlay-default-profile", "default"),
        Kind("tmpfs", "memory", lasts=False),
        Kind("tmpfs-automatic", "memory", automatic=True, lasts=False),
        Kind("archive", "archive"),
        Kind("archive-overlay", "covered"),
        Kind("archive-cached", "cached", cold=True),
        Kind("archive-cached-automatic", "cached", automatic=True, cold=True, lasts=False),
        Kind("archive-cached-warm", "cached"),
        Kind("archive-source", "source:archive", repacks=True),
        Kind("script", "minimal", scripts={"30script": SCRIPT}),
        Kind("script-in-directory", "plain", scripts={"30script": SCRIPT}, changes_original=True),
        Kind("script-with-daemons", "minimal", automatic=True, scripts={"30daemons": DAEMONS}, lasts=False),
        Kind("mount-programs", "programs"),
        Kind("services", "services"),
        Kind("services-automatic", "services", automatic=True, lasts=False),
        Kind(
            "interpreter",
            "foreign",
            changes_original=True,
            original="foreign",
            copies=frozenset(("etc/debian_chroot",)),
        ),
        Kind("loopback", "loop", disk="loop"),
        Kind("loopback-in-place", "mounted", disk="mounted", changes_original=True, original="disk"),
        Kind("image", "image", disk="image"),
        Kind("btrfs-snapshot", "btrfs", disk="btrfs"),
        Kind("zfs-snapshot", "zfs", backing="zfs"),
        Kind("custom", "custom", scripts={"05root": ROOT}),
        Kind("host", "host", automatic=True, lasts=False),
    )
}

# Those that need the kernel's device mapper: tests/kernel/mapper tries them.
MAPPED = {
    kind.name: kind
    for kind in (
        Kind("lvm", "classic", backing="lvm"),
        Kind("lvm-thin", "thin", backing="lvm"),
        Kind("lvm-automatic", "classic", automatic=True, busy=True, lasts=False, backing="lvm"),
        Kind("luks", "stacked", backing="luks"),
        Kind("stack", "stacked", backing="stack"),
    )
}
