"""What the kernel tests share: a tiny chroot, a world of places below tmp_path, namespaces and looks at the machine."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from volumestack import toml

import sessions
from sessions.linux import mountinfo
from sessions.model import Places

REPOSITORY = Path(sessions.__file__).parents[1]
BUSYBOX = "/bin/busybox"
APPLETS = """
awk cat chmod chown cp cut dd df echo env false find grep head id kill ln ls mkdir mkfifo mount mv
od printf pwd readlink rm rmdir sed setsid sh sleep sort stat tail test touch tr true umount uname wc yes
"""
PASSWD = "root:x:0:0:root:/root:/bin/sh\nbuilder:x:1234:1235:Builder:/home/builder:/bin/sh\n"

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS = 0x20000
AT_FDCWD = -100
RENAME_EXCHANGE = 2
MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED, MS_RDONLY, MS_REMOUNT = 0x1000, 0x4000, 1 << 18, 1 << 20, 1, 0x20
MNT_DETACH = 2
# What sessions may leave in the runtime directory: it is no truth, and bounded.
EVENTS = ("events", "events/log", "events/log.1")


def checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def mount(source: str, target: Path | str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
    words = (os.fsencode(source), os.fsencode(target), fstype.encode() or None, flags, data.encode() or None)
    checked(libc.mount(*words), str(target))


def bind(source: Path | str, target: Path | str) -> None:
    mount(str(source), target, flags=MS_BIND)


def umount(target: Path | str, flags: int = 0) -> None:
    checked(libc.umount2(os.fsencode(target), flags), str(target))


def exchange(one: Path | str, other: Path | str) -> None:
    """Swap two names at once, as an attacker does: renameat2(2), RENAME_EXCHANGE."""
    names = (AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other))
    checked(libc.renameat2(*names, ctypes.c_uint(RENAME_EXCHANGE)), str(one))


def enter_private_namespace(propagation: int = MS_PRIVATE) -> None:
    """A mount namespace of its own for this process; with MS_SHARED, one that hears of what others mount."""
    checked(libc.unshare(CLONE_NEWNS), "unshare")
    mount("none", "/", flags=MS_REC | propagation)


def make_chroot(directory: Path) -> Path:
    """A root with a static busybox, two users and the usual directories."""
    for name in ("bin", "etc", "home/builder", "root", "proc", "sys", "dev", "run", "var/tmp", "tmp"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(BUSYBOX, directory / "bin/busybox")
    for applet in APPLETS.split():
        (directory / "bin" / applet).symlink_to("busybox")
    (directory / "tmp").chmod(0o1777)
    (directory / "dev/null").touch()
    (directory / "dev/null").chmod(0o666)
    (directory / "etc/passwd").write_text(PASSWD)
    (directory / "etc/group").write_text("root:x:0:\nbuilder:x:1235:\n")
    os.chown(directory / "home/builder", 1234, 1235)
    return directory


@dataclass(frozen=True)
class World:
    """Configuration, state and runtime directories of a test, with one tiny chroot in `root`."""

    base: Path
    root: Path
    places: Places

    @classmethod
    def make(cls, base: Path) -> World:
        places = Places(
            native_config_dir=f"{base}/native",
            schroot_config_dir=f"{base}/schroot",
            state_dir=f"{base}/state",
            runtime_dir=f"{base}/run",
            stock_setup_dir=f"{REPOSITORY}/setup.d",
            stock_etc_dir=f"{REPOSITORY}/etc",
        )
        for directory in ("native/chroot.d", "native/setup.d", "schroot/setup.d"):
            (base / directory).mkdir(parents=True)
        return cls(base, make_chroot(base / "tiny"), places)

    def define(self, name: str, **settings: object) -> str:
        """Write a chroot's section: the tiny directory under an overlay on a tmpfs without a profile, by default."""
        usual = {
            "type": "directory",
            "directory": str(self.root),
            "profile": "",
            "union-type": "overlay",
            "union-overlay-storage": "tmpfs",
        }
        merged = {**usual, **{key.replace("_", "-"): value for key, value in settings.items()}}
        if merged["union-type"] == "none":
            del merged["union-overlay-storage"]
        lines = [f"{key} = {toml(value)}" for key, value in merged.items() if value is not None]
        self.write(f"native/chroot.d/{name}.toml", f"[chroot.{name}]\n" + "\n".join(lines) + "\n")
        return name

    def profile(self, *, fstab: str = "", copyfiles: str = "", nssdatabases: str = "", name: str = "own") -> str:
        for file, text in (("fstab", fstab), ("copyfiles", copyfiles), ("nssdatabases", nssdatabases)):
            self.write(f"schroot/{name}/{file}", text)
        return name

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        file = self.base / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    def script(self, name: str, text: str, *, mode: int = 0o755, directory: str = "native/setup.d") -> Path:
        return self.write(f"{directory}/{name}", text, mode)

    def begin(self, chroot: str, **wishes: object) -> sessions.OpenSession:
        return sessions.begin(chroot, places=self.places, **wishes)  # type: ignore[arg-type]

    def leftovers(self) -> list[str]:
        """What sessions have left in the state and runtime directories: anything but the directories themselves.

        Nor the unpacked archives in the cache, which are there for others.
        """
        found = []
        for top in ("state", "run"):
            state = ("sessions", "maintenance", "union", "union/overlay", "union/underlay", "unpack", "archives")
            usual = {f"{self.base}/state/{name}" for name in state}
            usual |= {f"{self.base}/run/{name}" for name in ("mount", "locks", "waiting", "volumes", *EVENTS)}
            usual |= {f"{self.base}/run/early-state{name}" for name in ("", *(f"/{inside}" for inside in state))}
            found += [str(path) for path in (self.base / top).rglob("*") if str(path) not in usual]
        complete = [str(path) for path in (self.base / "state/archives").glob("[!.]*")]
        found = [path for path in found if not f"{path}/".startswith(tuple(f"{one}/" for one in complete))]
        return sorted(found)


def output(session: sessions.OpenSession, *argv: str, **how: object) -> str:
    """What a command prints inside, which has to succeed."""
    result = session.run(argv, capture=True, **how)  # type: ignore[arg-type]
    assert result.status == 0, (argv, result)
    return result.stdout.decode()


def shell(session: sessions.OpenSession, script: str, **how: object) -> str:
    return output(session, "sh", "-c", script, **how)


def snapshot(tree: Path) -> dict[str, tuple[object, ...]]:
    """All of a tree that a change would show in: types, modes, owners, times, links and contents."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [tree, *sorted(tree.rglob("*"))]:
        status = path.lstat()
        what: object = None
        if stat.S_ISLNK(status.st_mode):
            what = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            what = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_ino, what)
    return found


def mounts() -> list[tuple[str, str, str]]:
    """The mounts of this namespace, without their ids."""
    return sorted((mount.target, mount.fstype, mount.root) for mount in mountinfo.read())


def busy_loop_devices(below: Path) -> list[str]:
    """The loop devices whose file lies below a directory."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if backing.read_text().startswith(str(below)):
                found.append(str(backing))
        except OSError:
            continue
    return found


@contextmanager
def ext4(base: Path, target: Path | str, size_mib: int = 16) -> Iterator[None]:
    """A small ext4 file system in an image of its own, mounted at `target`."""
    image = base / "ext4.img"
    with open(image, "wb") as file:
        file.truncate(size_mib << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, target], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", target], check=True)
        image.unlink()


@dataclass
class Fork:
    """A forked process; `ask` and `tell` pass lines through two pipes."""

    pid: int
    reader: int
    writer: int

    def ask(self) -> str:
        """The next line that the process tells; empty when it has ended."""
        line = b""
        while not line.endswith(b"\n"):
            piece = os.read(self.reader, 1)
            if not piece:
                break
            line += piece
        return line.decode().strip()

    def tell(self, word: str = "go") -> None:
        os.write(self.writer, f"{word}\n".encode())

    def wait(self) -> int:
        for fd in (self.reader, self.writer):
            os.close(fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def fork(work: Callable[[Fork], object]) -> Fork:
    """Do something in a process of its own; an exception there gives status 1, and its words are told."""
    our_reader, its_writer = os.pipe()
    its_reader, our_writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(its_writer)
        os.close(its_reader)
        return Fork(pid, our_reader, our_writer)
    status = 1
    try:
        os.close(our_reader)
        os.close(our_writer)
        it = Fork(0, its_reader, its_writer)
        try:
            work(it)
            status = 0
        except BaseException as error:
            it.tell(f"{type(error).__name__}: {error}".replace("\n", " "))
    finally:
        os._exit(status)


@contextmanager
def swapping(one: Path | str, other: Path | str) -> Iterator[None]:
    """A process that exchanges two names as fast as it can, for as long as the block lasts."""

    def swap(_it: Fork) -> None:
        while True:
            try:
                exchange(one, other)
            except OSError:
                pass

    swapper = fork(swap)
    try:
        yield
    finally:
        os.kill(swapper.pid, signal.SIGKILL)
        swapper.wait()


def python(world: World, code: str, *, arguments: Sequence[str] = (), **how: object) -> subprocess.Popen[bytes]:
    """Another Python process that has `sessions` and this world's `places`."""
    prelude = f"import sys\nsys.path.insert(0, {str(REPOSITORY)!r})\nimport sessions\n"
    prelude += f"from sessions.model import *\nplaces = {world.places!r}\n"
    argv = ["/usr/bin/env", "python3", "-c", prelude + code, *arguments]
    import sys

    argv[:2] = [sys.executable]
    return subprocess.Popen(argv, **how)  # type: ignore[call-overload, no-any-return]


def environment_of(pid: int) -> Mapping[str, str]:
    with open(f"/proc/{pid}/environ", "rb") as file:
        pairs = [item.decode().partition("=") for item in file.read().split(b"\0") if item]
    return {name: value for name, _equals, value in pairs}
