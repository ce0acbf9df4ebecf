"""What is measured: the raw system calls, the Python API, and commands from their start to their end."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.worker import LIBC, MS_BIND, MS_PRIVATE, NotMeasured, Times, check, cover, mount

CHECKOUT = Path(__file__).resolve().parents[2]
PROFILES = ("minimal", "default")
# Chroots of types that Debian's schroot does not know, and would refuse to work beside.
OURS_ALONE = ("image",)
TRUE = "/bin/true"
DEBIANS = "/usr/bin/schroot"
PREFIX = "/usr/local"
DEPENDENCIES = ("click", "filelock", "psutil", "tomli", "tqdm")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
}
# Warm cycles are short: more of them cost little and make their medians steadier.
WARM_REPEATS = 5
_TELLING_STATUS = 7


@dataclass(frozen=True)
class Ground:
    """The directory all is done in: a disk file system, with the chroot `tree` and the configuration made for it."""

    work: str
    tree: str

    @property
    def configuration(self) -> str:
        """What lies over /etc/schroot; setup.d is added where Debian's schroot is measured."""
        return f"{self.work}/etc"


def lay_ground(work: str) -> Ground:
    """Make the chroot tree and the configuration. Raises NotMeasured if there is nothing to make a tree of."""
    tree = _debian_tree() or _busybox_tree(f"{work}/tree")
    ground = Ground(work, tree)
    configuration = Path(ground.configuration)
    (configuration / "chroot.d").mkdir(parents=True)
    (configuration / "schroot.conf").write_text("")
    for profile in PROFILES:
        (configuration / profile).mkdir()
        for file in (CHECKOUT / "etc" / profile).iterdir():
            _copy_possible_lines(file, configuration / profile / file.name)
    (configuration / "chroot.d" / "bench.conf").write_text(
        "".join(
            f"[{profile}]\ntype=directory\ndirectory={tree}\nunion-type=overlay\nprofile={profile}\n"
            "users=root\nroot-users=root\n"
            for profile in PROFILES
        )
    )
    return ground


def _copy_possible_lines(source: Path, target: Path) -> None:
    """A profile's file without what this host does not have, which would be an error."""
    lines = []
    for line in source.read_text().splitlines(keepends=True):
        word = (line.split() or ["#"])[0]
        path = f"/etc/{word}" if source.name == "nssdatabases" and not word.startswith("#") else word
        if not path.startswith("/") or os.path.exists(path):
            lines.append(line)
    target.write_text("".join(lines))


def _debian_tree() -> str:
    """A Debian system in SESSIONS_TEST_CACHE, or in a directory in it."""
    cache = os.environ.get("SESSIONS_TEST_CACHE", "")
    for path in [Path(cache), *sorted(Path(cache).iterdir())] if cache and os.path.isdir(cache) else []:
        if (path / "etc/debian_version").is_file() and os.access(path / "bin/true", os.X_OK):
            return str(path.resolve())
    return ""


def _busybox_tree(path: str) -> str:
    busybox = Path("/bin/busybox")
    if not busybox.exists():
        raise NotMeasured(f"there is no {busybox} to make a chroot of (apt-get install busybox-static)")
    tree = Path(path)
    for name in ("bin", "dev", "etc", "home", "proc", "root", "sys", "tmp"):
        (tree / name).mkdir(parents=True)
    (tree / "bin/busybox").write_bytes(busybox.read_bytes())
    (tree / "bin/busybox").chmod(0o755)
    for name in ("sh", "true"):
        (tree / "bin" / name).symlink_to("busybox")
    for name in ("passwd", "group", "shadow", "gshadow", "services", "protocols", "hosts"):
        (tree / "etc" / name).write_text("# what the session gets in place of this is the host's\n")
    return path


def _now_us() -> float:
    return time.perf_counter_ns() / 1000


class Floor:
    """The raw system calls of a session and nothing else: no journal, lock, configuration or copied file."""

    def __init__(self, ground: Ground) -> None:
        cover("/run", "", ground.work)
        layer = tempfile.mkdtemp(dir=ground.work)
        self.layer = layer
        self.directories = [f"{layer}/s", f"{layer}/s/upper", f"{layer}/s/work"]
        self.target = b"/run/target"
        self.options = f"lowerdir={ground.tree},upperdir={layer}/s/upper,workdir={layer}/s/work,index=on,volatile"
        self.mounts = {profile: self._inner_mounts(f"{ground.configuration}/{profile}/fstab") for profile in PROFILES}
        self.left: list[tuple[str, bool]] = []

    def _inner_mounts(self, fstab: str) -> list[tuple[bytes, bytes, bytes, int]]:
        """Source, target, type and flags of what a profile mounts inside."""
        found = []
        for line in Path(fstab).read_text().splitlines():
            if line.strip() and not line.startswith("#"):
                source, target, fstype, options, *_rest = [*line.split(), ""]
                is_bind = "bind" in options.split(",")
                found.append(
                    (source.encode(), self.target + target.encode(), fstype.encode(), MS_BIND if is_bind else 0)
                )
        return found

    def measure(self, profile: str) -> Times:
        """Some cycles; the median of each part."""
        return middle([self._cycle(self.mounts[profile]) for _repeat in range(WARM_REPEATS)], "floor")

    def _cycle(self, mounts: Sequence[tuple[bytes, bytes, bytes, int]]) -> Times:
        start = _now_us()
        for directory in self.directories:
            os.mkdir(directory, 0o755)
        os.mkdir(self.target, 0o755)
        check(LIBC.mount(b"bench", self.target, b"overlay", 0, self.options.encode()), "overlay")
        for source, target, fstype, flags in mounts:
            check(LIBC.mount(source, target, fstype, flags, None), str(target))
            check(LIBC.mount(None, target, None, MS_PRIVATE, None), str(target))
        begun = _now_us()
        pid = os.fork()
        if pid == 0:
            try:
                os.chroot(self.target)
                os.chdir("/")
                os.execve(TRUE, [TRUE], ENVIRONMENT)
            finally:
                os._exit(125)
        _pid, status = os.waitpid(pid, 0)
        ran = _now_us()
        for _source, target, _fstype, _flags in reversed(mounts):
            check(LIBC.umount2(target, 0), str(target))
        check(LIBC.umount2(self.target, 0), "overlay")
        self.left = self.left or self._look()
        for path, is_directory in self.left:
            (os.rmdir if is_directory else os.unlink)(path)
        os.rmdir(self.target)
        ended = _now_us()
        if status:
            raise NotMeasured(f"{TRUE} in the tree ended with status {status >> 8} (a busybox that is not static?)")
        return {"begin": begun - start, "run": ran - begun, "end": ended - ran, "cycle": ended - start}

    def _look(self) -> list[tuple[str, bool]]:
        """All in the layer, deepest first, and whether it is a directory: the overlay leaves the same each time."""
        found = []
        for path, _directories, files in os.walk(self.directories[0], topdown=False):
            found += [(f"{path}/{name}", False) for name in files] + [(path, True)]
        return found


def use_own_places(ground: Ground) -> None:
    """Lay the made configuration, a state directory on disk and an empty runtime directory over the usual ones."""
    state = tempfile.mkdtemp(dir=ground.work)
    os.chmod(state, 0o755)
    cover("/var/lib/chroot-sessions", state, ground.work)
    cover("/run/chroot-sessions", "", ground.work)
    cover("/etc/schroot", ground.configuration, ground.work)
    if os.path.isdir("/etc/chroot-sessions"):
        cover("/etc/chroot-sessions", tempfile.mkdtemp(dir=ground.work), ground.work)


class Api:
    """The Python API in one warm process."""

    def __init__(self, ground: Ground) -> None:
        use_own_places(ground)
        import sessions

        self.sessions = sessions

    def measure(self, profile: str) -> Times:
        """Some cycles; the median of each part."""
        return middle([self.cycle(profile) for _repeat in range(WARM_REPEATS)], "api")

    def cycle(self, profile: str) -> Times:
        """One session, in parts."""
        start = _now_us()
        session = self.sessions.begin(profile)
        begun = _now_us()
        result = session.run([TRUE])
        ran = _now_us()
        session.end()
        ended = _now_us()
        if result.status:
            raise NotMeasured(f"{TRUE} in the tree ended with status {result.status}")
        return {"begin": begun - start, "run": ran - begun, "end": ended - ran, "cycle": ended - start}


def middle(cycles: Sequence[Times], prefix: str) -> Times:
    """The medians (of an odd number) of the parts, named with a prefix."""
    return {
        f"{prefix} {part}": sorted(cycle[part] for cycle in cycles)[len(cycles) // 2] for part in cycles[0]
    }  # fmt: skip


@dataclass(frozen=True)
class Program:
    """A command line: `words` come before the arguments; `dialect` is schroot's or that of sessions."""

    name: str
    words: tuple[str, ...]
    is_schroot: bool

    def calls(self, chroot: str, session: str, command: Sequence[str] = (TRUE,)) -> dict[str, list[str]]:
        """The arguments of each case, in the order in which they have to be run."""
        if self.is_schroot:
            arguments = {
                "cycle": ["-d", "/", "-c", chroot, "--", *command],
                "begin": ["-b", "-c", chroot, "-n", session],
                "run": ["-d", "/", "-r", "-c", session, "--", *command],
                "end": ["-e", "-c", session],
                "list": ["-l", "--all-sessions"],
            }
        else:
            arguments = {
                "cycle": ["run", chroot, "--", *command],
                "begin": ["begin", chroot, "-n", session],
                "run": ["exec", session, "--", *command],
                "end": ["end", session],
                "list": ["list"],
            }
        return {case: [*self.words, *rest] for case, rest in arguments.items()}


def debians_program() -> Program | None:
    """Debian's schroot, which is a binary; ours is a script, and may have taken its place."""
    try:
        with open(DEBIANS, "rb") as file:
            return Program("debian", (DEBIANS,), True) if file.read(4) == b"\x7fELF" else None
    except OSError:
        return None


def own_programs() -> list[Program]:
    """Ours, as :func:`install` makes them."""
    return [
        Program("drop-in", (f"{PREFIX}/bin/schroot",), True),
        Program("native", (f"{PREFIX}/bin/sessions",), False),
    ]


def install(ground: Ground) -> None:
    """Lay what `make install` makes over the prefix of this namespace, with the dependencies beside the package."""
    root = f"{ground.work}/installed"
    if not os.path.isdir(root):
        _install_at(root)
    mount("bench", PREFIX, "overlay", 0, f"lowerdir={root}{PREFIX}:{PREFIX}")


def _install_at(root: str) -> None:
    installer = CHECKOUT / "etc/packaging/install.py"
    words = ["install", "--destdir", root, "--prefix", PREFIX]
    subprocess.run([os.path.realpath(sys.executable), "-IB", installer, *words], check=True)
    (package,) = Path(root).rglob("sessions/__init__.py")
    for name in DEPENDENCIES:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None, f"{name} is not installed"
        shutil.copytree(Path(spec.origin).parent, package.parents[1] / name)


class Debian:
    """Debian's schroot, command by command."""

    def __init__(self, ground: Ground, program: Program) -> None:
        self.program = program
        state = Path(tempfile.mkdtemp(dir=ground.work))
        for name in ("session", "unpack", "union/overlay", "union/underlay"):
            (state / name).mkdir(parents=True)
        # Copied before the made configuration hides them.
        scripts = Path(ground.configuration).with_name("etc-debian")
        _copy_tree(Path(ground.configuration), scripts)
        for name in OURS_ALONE:
            (scripts / "chroot.d" / f"{name}.conf").unlink(missing_ok=True)
        _copy_tree(Path("/etc/schroot/setup.d"), scripts / "setup.d")
        cover("/var/lib/schroot", str(state), ground.work)
        cover("/run/schroot", "", ground.work)
        cover("/etc/schroot", str(scripts), ground.work)
        check_that_it_runs(program, ENVIRONMENT)

    def measure(self, profile: str) -> Times:
        """Every case once."""
        return run_all(self.program, profile, ENVIRONMENT)


def _copy_tree(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for entry in source.iterdir():
        if entry.is_dir():
            _copy_tree(entry, target / entry.name)
        else:
            (target / entry.name).write_bytes(entry.read_bytes())
            (target / entry.name).chmod(entry.stat().st_mode & 0o755)


class Own:
    """Our commands, and the bare interpreter that they stand on."""

    def __init__(self, ground: Ground, programs: Sequence[Program]) -> None:
        install(ground)
        use_own_places(ground)
        self.programs = programs
        for program in programs:
            check_that_it_runs(program, ENVIRONMENT)

    def measure(self, profile: str) -> Times:
        """Every case of every command once."""
        times = {"python start": timed([os.path.realpath(sys.executable), "-IS", "-c", "pass"], ENVIRONMENT)}
        for program in self.programs:
            times |= run_all(program, profile, ENVIRONMENT)
        return times


def check_that_it_runs(program: Program, environment: Mapping[str, str]) -> None:
    """Raise NotMeasured unless a command really is run inside: doing nothing at all would be fastest."""
    call = program.calls(PROFILES[0], "", ("/bin/sh", "-c", f"exit {_TELLING_STATUS}"))["cycle"]
    status = _wait(call, environment)
    if status != _TELLING_STATUS:
        raise NotMeasured(f"{' '.join(call)} ended with status {status}")


def run_all(program: Program, profile: str, environment: Mapping[str, str]) -> Times:
    """Run each case of a command and take its time."""
    calls = program.calls(profile, f"bench-{profile}")
    return {f"{program.name} {case}": timed(argv, environment) for case, argv in calls.items()}


def timed(argv: list[str], environment: Mapping[str, str]) -> float:
    """How long a command takes, in microseconds; raises NotMeasured if it fails."""
    start = _now_us()
    status = _wait(argv, environment)
    taken = _now_us() - start
    if status:
        raise NotMeasured(f"{' '.join(argv)} ended with status {status}")
    return taken


def _wait(argv: list[str], environment: Mapping[str, str]) -> int:
    _pid, status = os.waitpid(os.posix_spawn(argv[0], argv, environment), 0)
    return os.waitstatus_to_exitcode(status)
