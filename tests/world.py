"""A small world for tests of whole sessions: chroots, configuration, state and runtime directory of its own.

A test starts a program of its own with :func:`start`, in mount and pid namespaces of its own, so that nothing it does
can reach the host and nothing of it outlives the test. In there, the program makes a :class:`World` on a real disk,
and takes a :class:`snapshot.Snapshot` before and after.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import snapshot as snapshots
from disks import DISKS, Disk, make_disk
from snapshot import Snapshot

from sessions import archivecache, events, where
from sessions.linux import binfmt, files, mountinfo, proc, syscall
from sessions.model import Places

BUSYBOX = Path("/bin/busybox")
BASE = Path("/var/tmp")
_TESTS = Path(__file__).parent

CONFIGURATION = """
[chroot.plain]
type = "directory"
directory = "{base}/chroot"
profile = "minimal"

[chroot.minimal]
type = "directory"
directory = "{base}/chroot"
union-type = "overlay"
profile = "minimal"

[chroot.default]
type = "directory"
directory = "{base}/chroot"
union-type = "overlay"
profile = "default"

[chroot.elsewhere]
type = "directory"
directory = "{base}/chroot"
union-type = "overlay"
union-overlay-directory = "{base}/elsewhere"
profile = "minimal"

[chroot.memory]
type = "directory"
directory = "{base}/chroot"
union-type = "overlay"
union-overlay-storage = "tmpfs"
profile = "minimal"

[chroot.programs]
type = "directory"
directory = "{base}/chroot"
union-type = "overlay"
profile = "minimal"
setup.fstab = "programs/fstab"

[chroot.services]
type = "directory"
directory = "{base}/chroot"
union-type = "overlay"
profile = "minimal"
setup.services = "alpha,beta"

[chroot.foreign]
type = "directory"
directory = "{base}/foreign"
profile = "none"

[chroot.archive]
type = "file"
file = "{base}/archive/chroot.tar.gz"
archive-cache = false
profile = "minimal"

[chroot.cached]
type = "file"
file = "{base}/archive/chroot.tar.gz"
profile = "minimal"

[chroot.custom]
type = "custom"
custom-session-purgeable = true
profile = "minimal"

[chroot.loop]
type = "loopback"
file = "{base}/disks/loop"
union-type = "overlay"
profile = "minimal"

[chroot.mounted]
type = "loopback"
file = "{base}/disks/mounted"
profile = "minimal"

[chroot.image]
type = "image"
file = "{base}/disks/image"
union-type = "overlay"
union-overlay-directory = "{base}/elsewhere"
union-underlay-directory = "{base}/underneath"
profile = "minimal"

[chroot.btrfs]
type = "btrfs-snapshot"
btrfs-source-subvolume = "{base}/disk/source"
btrfs-snapshot-directory = "{base}/disk/snapshots"
profile = "minimal"

[chroot.covered]
type = "file"
file = "{base}/archive/chroot.tar.gz"
archive-cache = false
union-type = "overlay"
profile = "minimal"
"""

# What only mount(8) can do: a loop device, and options of its own.
PROGRAMS = """
/proc           /proc       none    rw,bind
{base}/image    /mnt        ext4    loop,ro
scratch         /scratch    tmpfs   size=1m,X-mount.mode=0700
"""


# The init system inside: a service is a process.
INIT = """#!/bin/sh
if [ "$3" = start ]; then
    sleep 100000 &
    echo $! >"/run/$2"
else
    kill "$(cat "/run/$2")"
fi
"""


class Backing(Protocol):
    """Block devices that chroots of a world lie on: volumes, mappings, arrays."""

    def names(self) -> Iterable[str]:
        """All of them that there are now, in words: a session must not leave any."""

    def quiet(self) -> None:
        """Wait for programs that nobody may kill."""

    def restart(self) -> None:
        """Do what a restart of the machine does to them, once nothing is mounted any more."""

    def wipe(self) -> None:
        """Take away by force what sessions have left."""

    def close(self) -> None:
        """Take it all away."""


@dataclass
class World:
    """The places, and what is in them; `base` holds all of it."""

    base: Path
    places: Places
    peer: subprocess.Popen[bytes] | None = None
    disk: Disk | None = None
    backing: Backing | None = None
    helpers: set[int] = field(default_factory=set)
    """Processes that belong to the test."""

    @property
    def chroot(self) -> Path:
        """The tiny chroot that all configured ones are made of."""
        return self.base / "chroot"

    @property
    def outside(self) -> Path:
        """A directory for what setup scripts do outside of the session."""
        return self.base / "outside"

    @property
    def archive(self) -> Path:
        """The chroot as an archive."""
        return self.base / "archive/chroot.tar.gz"

    @property
    def foreign(self) -> Path:
        """A chroot whose shell is of a machine that the kernel knows an interpreter for."""
        return self.base / "foreign"

    @property
    def permanent(self) -> frozenset[str]:
        """Directories that all sessions share; they are made when missing, and stay."""
        places = self.places
        paths = (
            places.state_dir, places.journal_dir, places.unpack_dir, places.overlay_dir, places.underlay_dir,
            places.archive_dir, os.path.dirname(places.overlay_dir), places.runtime_dir, places.lock_dir,
            places.mount_dir, places.waiting_dir, places.maintenance_dir, places.events_dir,
            places.volume_dir,
        )  # fmt: skip
        state = [path for path in paths if path.startswith(places.state_dir)]
        early = [path.replace(places.state_dir, places.early_dir) for path in state]
        return frozenset((*paths, *early, f"{self.base}/elsewhere", f"{self.base}/underneath"))

    @property
    def private_directories(self) -> frozenset[str]:
        """Directories that sessions mount on themselves, and share."""
        return frozenset((self.places.mount_dir, self.places.underlay_dir, f"{self.base}/underneath"))

    def snapshot(self) -> Snapshot:
        """What there is now; what lies below a mount in here is not looked at."""
        mounts = snapshots.mounts("self")
        # What is mounted on itself has the same files.
        seen = self.private_directories | {str(self.disk.place) if self.disk else ""}
        covered = {target for target, _fstype, _root in mounts} - seen
        # Lock files may be left by a process that was killed: lock_files() tells of them. Events are to be left.
        unlisted = {self.places.lock_dir, self.places.events_dir}
        # What is whole in the cache of archives is there to stay: broken_trees() tells of what is not.
        covered |= self._whole_trees()
        return Snapshot(
            mounts,
            snapshots.mounts(str(self.peer.pid)) if self.peer else Counter(),
            dict(snapshots.files_below(str(self.base), covered, unlisted)),
            frozenset(self.processes()),
            frozenset((*snapshots.loops(str(self.base)), *(self.backing.names() if self.backing else ()))),
        )

    def _whole_trees(self) -> set[str]:
        """What is whole in the cache of archives, by all of its names."""
        trees = {entry.path for entry in archivecache.entries(self.places)}
        beside = {f"{top}/{name}" for top in map(os.path.dirname, trees) for name in os.listdir(top)}
        return {path for path in beside if archivecache.leading_to(path) in trees}

    def broken_trees(self) -> list[str]:
        """The trees in the cache of archives that are not what the archive holds."""
        wanted = dict(_contents(self.chroot))
        places = [f"{entry.path}/{archivecache.TREE}" for entry in archivecache.entries(self.places)]
        return [f"not what is in the archive: {place}" for place in places if dict(_contents(Path(place))) != wanted]

    def empty_cache(self) -> None:
        """Remove every tree in the cache of archives."""
        for path in self._whole_trees():
            if os.path.islink(path):
                os.unlink(path)
            else:
                shutil.rmtree(path)

    def processes(self) -> Iterator[tuple[int, int]]:
        """Every process of this pid namespace that is not the test's, with its start time."""
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid() and int(name) not in self.helpers:
                started = proc.start_ticks(int(name))
                if started is not None:
                    yield int(name), started

    def held_locks(self) -> list[str]:
        """The files and directories of ours that somebody has locked."""
        directories = [self.places.journal_dir, self.places.lock_dir, self.places.mount_dir]
        paths = [directory for directory in directories if os.path.isdir(directory)]
        paths += [f"{directory}/{name}" for directory in paths[:2] for name in os.listdir(directory)]
        held = []
        for path in paths:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(path)
            finally:
                os.close(fd)
        return held

    def lock_files(self) -> list[str]:
        """The names of the lock files there are."""
        return os.listdir(self.places.lock_dir) if os.path.isdir(self.places.lock_dir) else []

    def end_processes(self) -> None:
        """Kill every process that is not the test's, as a power cut does."""
        if self.backing:
            self.backing.quiet()
        while left := list(self.processes()):
            for pid, _started in left:
                try:
                    pidfd = os.pidfd_open(pid)
                except ProcessLookupError:
                    continue
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                wait_for_end(pidfd, None)
                os.close(pidfd)
            reap()

    def unmount_all(self) -> None:
        """Take away every mount in here, whatever holds it, but for what the administrator mounts at boot."""
        for mount in mountinfo.below(mountinfo.read(), str(self.base)):
            if mount.target != f"{self.base}/{DISKS}":
                syscall.umount(mount.target, syscall.UMOUNT_NOFOLLOW | syscall.MNT_DETACH)
        if self.disk:
            self.disk.mount()

    def restore_files(self, before: Snapshot) -> None:
        """Bring the files back to what they were; what lies below a mount is left alone."""
        now = self.snapshot().files
        for path in sorted(now, reverse=True):
            if path not in self.permanent and now[path] != before.files.get(path):
                snapshots.remove(path)
        for path, entry in sorted(before.files.items()):
            if not os.path.lexists(path):
                snapshots.make(path, entry)

    def wipe(self, before: Snapshot) -> None:
        """Bring back what was, after a test has failed, by force."""
        self.end_processes()
        self.unmount_all()
        if self.backing:
            self.backing.wipe()
        self.restore_files(before)
        for name in self.lock_files():
            os.unlink(f"{self.places.lock_dir}/{name}")

    def close(self) -> None:
        """End the helpers; the files are left to who made the directory."""
        if self.backing:
            self.backing.close()
        if self.peer:
            self.peer.communicate()


def _contents(top: Path) -> Iterator[tuple[str, snapshots.Entry]]:
    for path, entry in snapshots.files_below(str(top), set(), set()):
        yield os.path.relpath(path, top), entry


def make(
    base: Path, *, scripts: Mapping[str, str] | None = None, shared: bool = False, etc: str = "", disk: str = ""
) -> World:
    """Make a world in the directory `base`, which has to be on a real disk.

    Only for a process that has a mount namespace of its own. `scripts` go into setup.d, with @BASE@ in them replaced.
    With `shared`, every mount is made shared and a second mount namespace, a peer, is kept open. `etc` is a copy of the
    host's /etc, to be used in its place: sessions get files from there, which somebody may be changing. `disk` is what
    disks.make_disk() is to make.
    """
    check_possible(base)
    config = base / "etc"
    (config / "setup.d").mkdir(parents=True)
    (config / "sessions.toml").write_text(CONFIGURATION.format(base=base))
    (config / "programs").mkdir()
    (config / "programs/fstab").write_text(PROGRAMS.format(base=base))
    for name, text in (scripts or {}).items():
        (config / "setup.d" / name).write_text(text.replace("@BASE@", str(base)))
        (config / "setup.d" / name).chmod(0o755)
    for name in ("outside", "archive"):
        (base / name).mkdir()
    make_chroot(base / "chroot")
    make_foreign(base)
    world = World(base, places_in(base))
    subprocess.run(["tar", "-czf", world.archive, "-C", world.chroot, "."], check=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", base / "image", "1M"], check=True)
    forget_others()
    leave_the_log_alone()
    if disk:
        world.disk = make_disk(base, disk, world.chroot)
    if etc:
        subprocess.run(["mount", "--bind", etc, "/etc"], check=True)
    if shared:
        subprocess.run(["mount", "--make-rshared", "/"], check=True)
        world.peer = _peer()
        world.helpers.add(world.peer.pid)
    return world


def leave_the_log_alone() -> None:
    """Let nothing that sessions of tests tell come to this machine's own log; for a mount namespace of our own."""
    if os.path.exists(events.JOURNAL_SOCKET):
        syscall.mount("no journal", os.path.dirname(events.JOURNAL_SOCKET), "tmpfs")
    if os.path.exists(events.SYSLOG_SOCKET):
        syscall.mount(os.devnull, events.SYSLOG_SOCKET, "", syscall.MS_BIND)


def forget_others() -> None:
    """Take away what others have mounted in the usual places for that; they may remove it meanwhile.

    In a guest the checkout itself may be mounted there.
    """
    for directory in ("/tmp", "/var/tmp"):
        for mount in mountinfo.below(mountinfo.read(), directory):
            if mount.target != directory and not _TESTS.is_relative_to(mount.target):
                syscall.umount(mount.target, syscall.UMOUNT_NOFOLLOW | syscall.MNT_DETACH)


def places_in(base: Path) -> Places:
    """The places of the world in `base`; stock scripts and profiles are those of the package under test."""
    return where.changed(
        where.usual_places(), config_dir=f"{base}/etc", state_dir=f"{base}/state", runtime_dir=f"{base}/run"
    )


def check_possible(base: Path) -> None:
    """Fail, with a sentence, where a world cannot be made."""
    assert os.geteuid() == 0, "these tests mount file systems: run them as root"
    assert BUSYBOX.is_file(), f"{BUSYBOX} is missing: apt-get install busybox-static"
    with files.directory(str(base)) as fd:
        magic = syscall.filesystem_type(fd)
    assert magic not in (syscall.OVERLAYFS_MAGIC, syscall.TMPFS_MAGIC), f"{base} has to be on a disk"


def make_chroot(directory: Path) -> None:
    """A chroot of one static program, some of its names, and an /etc as it comes with a fresh system."""
    for name in ("bin", "etc", "root", "mnt", "tmp", "home", "run", "usr/sbin"):
        (directory / name).mkdir(parents=True)
    (directory / "usr/sbin/invoke-rc.d").write_text(INIT)
    (directory / "usr/sbin/invoke-rc.d").chmod(0o755)
    shutil.copyfile(BUSYBOX, directory / "bin/busybox")
    (directory / "bin/busybox").chmod(0o755)
    for name in ("sh", "true", "false", "sleep", "cat", "id"):
        (directory / "bin" / name).symlink_to("busybox")
    (directory / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (directory / "etc/group").write_text("root:x:0:\n")
    # As systemd-resolved has it: a link into /run, which leads nowhere in here.
    (directory / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")


def make_foreign(base: Path) -> None:
    """A chroot of a machine that there is not, but for this world, and its interpreter, registered with the kernel.

    The registration goes with this mount namespace, unless the host has that file system mounted: then it stays, and
    the next of its name takes its place.
    """
    machine = 0xE000 | zlib.crc32(str(base).encode()) & 0xFFF
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 2, machine, 1)
    make_chroot(base / "foreign")
    shell = base / "foreign/bin/sh"
    shell.unlink()
    shell.write_bytes(head + bytes(40))
    emulator = base / "emulators/emulator"
    emulator.parent.mkdir()
    emulator.write_text("not run in here\n")
    for profile in ("fstab", "copyfiles", "nssdatabases"):
        (base / "etc/none").mkdir(exist_ok=True)
        (base / "etc/none" / profile).touch()
    if not Path(binfmt.DIRECTORY, "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", binfmt.DIRECTORY], check=True)
    mask = b"\xff" * 7 + bytes(9) + b"\xff" * 4
    fields = ["M", "", *("".join(f"\\x{byte:02x}" for byte in data) for data in (head[:20], mask)), str(emulator), ""]
    name = f"sessions-{machine:04x}"
    if Path(binfmt.DIRECTORY, name).exists():
        Path(binfmt.DIRECTORY, name).write_text("-1")
    Path(binfmt.DIRECTORY, "register").write_text(":".join(["", name, *fields]))


def reap() -> None:
    """Take note of every child that has ended: the first process of a pid namespace gets all the orphans."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def wait_for_end(pidfd: int, timeout_s: float | None) -> bool:
    """Wait for the end of a process; whether it has come in time."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))


def wait_for_dying(processes: Iterable[tuple[int, int]]) -> None:
    """Who has been sent a signal (by PR_SET_PDEATHSIG, say) still needs to get it."""
    for pid, _started in processes:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        wait_for_end(pidfd, 1.0)
        os.close(pidfd)
    reap()


def _peer() -> subprocess.Popen[bytes]:
    """A process that keeps a mount namespace open to which every shared mount of ours propagates."""
    peer = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "unchanged", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert peer.stdin and peer.stdout
    peer.stdin.write(b"there?\n")
    peer.stdin.flush()
    assert peer.stdout.readline() == b"there?\n"
    return peer


def start(program: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a Python program in namespaces of its own (mounts, pids, a /proc to match); it can import this module.

    Killing it ends every process it has started; it is killed when the thread that has started it ends.
    """
    path = os.pathsep.join((str(_TESTS.parent), str(_TESTS)))
    return subprocess.Popen(
        [
            *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *(sys.executable, str(program), *arguments),
        ],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: syscall.set_parent_death_signal(signal.SIGKILL),
    )


_BOOTS = itertools.count(1)


def reboot(world: World) -> None:
    """A power cut and a restart: nothing runs, nothing is mounted, the runtime directory is empty, the boot id new."""
    world.end_processes()
    world.unmount_all()
    if world.backing:
        world.backing.restart()
    if os.path.lexists(world.places.runtime_dir):
        shutil.rmtree(world.places.runtime_dir)
    forget_reboots()
    path = world.base.parent / f"{world.base.name}.boot-id"
    path.write_text(f"{next(_BOOTS):08x}-0000-4000-8000-000000000000\n")
    tree_fd = syscall.open_tree(str(path), syscall.OPEN_TREE_CLONE)
    target_fd = os.open(proc.BOOT_ID, os.O_PATH | os.O_CLOEXEC)
    syscall.move_mount(tree_fd, target_fd, proc.BOOT_ID)
    os.close(tree_fd)
    os.close(target_fd)


def forget_reboots() -> None:
    """Give this boot its own id back."""
    while any(mount.target == proc.BOOT_ID for mount in mountinfo.read()):
        syscall.umount(proc.BOOT_ID)
