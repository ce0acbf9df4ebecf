"""A real Debian to begin sessions of: made by mmdebstrap, as a directory tree and as an archive, and kept for a week.

It comes from the mirror that the host's apt uses, with what that needs (proxies, certificates), so that it can be made
and used wherever apt-get works.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sessions.linux import removal

SUITE = "bookworm"
# The ordinary user that every Debian has.
BUILDER = "nobody"
LONGEST_AGE_S = 7 * 24 * 3600
OFFICIAL_MIRROR = "http://deb.debian.org/debian"
HOST_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# What of the host's apt configuration says how to reach a mirror: proxies, and the checks that old mirrors fail.
WAY_TO_MIRROR = re.compile(
    r'(Acquire::(?:https?::(?:Proxy(?:::\S+)?|Timeout)|Retries|Check-Valid-Until|Check-Date)) "(.+)";'
)
PROXY_VARIABLES = {"http_proxy": "Acquire::http::Proxy", "https_proxy": "Acquire::https::Proxy"}
# Programs, and files that the stock profiles take from the host, with the Debian packages that have them.
NEEDED = {
    "mmdebstrap": "mmdebstrap",
    "apt-get": "apt",
    "unshare": "util-linux",
    "tar": "tar",
    "zstd": "zstd",
    "/etc/networks": "netbase",
    "/etc/services": "netbase",
}


@dataclass(frozen=True)
class Debian:
    """The same Debian twice: a directory tree and an archive. Both are shared with other runs: not to be changed."""

    tree: Path
    archive: Path


@dataclass(frozen=True)
class Recipe:
    """All that the making depends on: where the packages come from, and the apt options to get there."""

    mirror: str
    apt_options: tuple[str, ...]

    @property
    def arguments(self) -> list[str]:
        """For mmdebstrap, all but the target."""
        words = ["mmdebstrap", "--quiet", "--variant=buildd"]
        words += [f"--aptopt={option}" for option in self.apt_options]
        if self.mirror.startswith("https:"):
            # The host may trust more than Debian's list, a proxy that looks into the traffic for instance.
            copy = f'cp {HOST_CERTIFICATES} "$1{HOST_CERTIFICATES}"'
            words += ["--include=ca-certificates", f"--customize-hook={copy}"]
        return [*words, SUITE]

    @property
    def sources(self) -> str:
        """The line for sources.list."""
        return f"deb {self.mirror} {SUITE} main"

    def __str__(self) -> str:
        return "\n".join((*self.arguments, self.sources, ""))


def host_recipe() -> Recipe:
    """The way the host's apt goes."""
    for name, package in NEEDED.items():
        if not (os.path.exists(name) if name.startswith("/") else shutil.which(name)):
            pytest.fail(f"{name} is not here, which these tests need: apt-get install {package}")
    found = dict(WAY_TO_MIRROR.findall(_output("apt-config", "dump")))
    for variable, option in PROXY_VARIABLES.items():
        proxy = os.environ.get(variable)
        if proxy:
            found.setdefault(option, proxy)
    options = ['APT::Install-Recommends "false"', 'Acquire::Languages "none"']
    return Recipe(_mirror(), (*options, *(f'{name} "{value}"' for name, value in sorted(found.items()))))


def _mirror() -> str:
    """The mirror that the host gets this suite from, else any Debian mirror of its, else the official one."""
    wanted = ("--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
    listing = _output("apt-get", "indextargets", *wanted)
    lines = [line.split() for line in listing.splitlines()]
    uris = [fields[2].rstrip("/") for fields in lines if len(fields) == 3 and fields[:2] == [SUITE, "main"]]
    uris += [fields[-1].rstrip("/") for fields in lines if fields[-1].rstrip("/").endswith("/debian")]
    return next((uri for uri in uris if uri.startswith(("http:", "https:"))), OFFICIAL_MIRROR)


def _output(*argv: str) -> str:
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextmanager
def cached() -> Iterator[Debian]:
    """The Debian of the cache, made if there is none or an old one; nobody makes it anew while the block lasts."""
    recipe = host_recipe()
    cache = cache_directory()
    entry = cache / SUITE
    with open(cache / "lock", "w") as lock:
        # Whoever uses the entry shares the lock; whoever makes it anew waits until nobody does. flock(2) lets go of
        # one kind before it waits for the other, so that each time has to be looked again.
        fcntl.flock(lock, fcntl.LOCK_SH)
        while not _is_fresh(entry, recipe):
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_fresh(entry, recipe):
                _make(cache, entry, recipe, lock.fileno())
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield Debian(entry / "tree", entry / "archive.tar.zst")


def cache_directory() -> Path:
    """Where a Debian, and the sources of some packages, are kept from one run to the next."""
    if os.geteuid() != 0:
        pytest.fail("these tests make a Debian and mount file systems: run them as root")
    cache = Path(os.environ.get("SESSIONS_TEST_CACHE") or "/var/tmp/chroot-sessions-test-cache")
    cache.mkdir(mode=0o755, parents=True, exist_ok=True)
    status = cache.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        pytest.fail(f"{cache}, where the tests keep a Debian, can be written to by others than root: remove it")
    return cache


def _is_fresh(entry: Path, recipe: Recipe) -> bool:
    made = entry / "recipe"
    try:
        return made.read_text() == str(recipe) and time.time() - made.stat().st_mtime < LONGEST_AGE_S
    except FileNotFoundError:
        return False


def _make(cache: Path, entry: Path, recipe: Recipe, lock_fd: int) -> None:
    """Make the entry beside its place, and put it there at once; what a killed run left goes."""
    for old in cache.glob(".new-*"):
        removal.remove_tree(os.fspath(old))
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=cache))
    new.chmod(0o755)
    tree, archive = new / "tree", new / "archive.tar.zst"
    _run([*recipe.arguments, os.fspath(archive), recipe.sources], new, lock_fd)
    tree.mkdir()
    unpack = ("tar", "--extract", "--zstd", "--numeric-owner", "--xattrs", "--xattrs-include=*")
    _run([*unpack, f"--file={archive}", f"--directory={tree}"], new, lock_fd)
    os.sync()
    (new / "recipe").write_text(str(recipe))
    replaced = Path(tempfile.mkdtemp(prefix=".new-", dir=cache))
    if entry.exists():
        entry.rename(replaced / SUITE)
    new.rename(entry)
    removal.remove_tree(os.fspath(replaced))


def _run(argv: Sequence[str], tmp: Path, lock_fd: int) -> None:
    """Run a program whose mounts and processes end with it; one that is half done has all its files in `tmp`.

    It has the lock too: should we be killed, nobody removes the directory under it.
    """
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", *argv],
        env={**os.environ, "TMPDIR": os.fspath(tmp), "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        pass_fds=[lock_fd],
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(argv)} ended with status {done.returncode}:\n{done.stdout[-4000:]}")


@dataclass(frozen=True)
class Entry:
    """Everything about one file of a tree that a session must not change."""

    mode: int
    """The type and the permissions."""
    uid: int
    gid: int
    mtime_ns: int
    size_bytes: int
    """That of a directory says how it came to be rather than what is in it: 0."""
    links: int
    device: int
    content: str
    """The SHA-256 of a regular file, the target of a symbolic link, empty for all else."""
    attributes: tuple[tuple[str, bytes], ...]


def manifest(root: str | Path) -> dict[str, Entry]:
    """Every file of a tree by its path from there; what other file systems have mounted in it is left out."""
    device = os.stat(root).st_dev
    found = {".": _entry(os.fspath(root))}
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        with os.scandir(os.path.join(root, directory)) as entries:
            for item in entries:
                path = os.path.join(directory, item.name)
                status = item.stat(follow_symlinks=False)
                # In an overlay the files may have the device of the layer they are in; its directories never do.
                is_directory = stat.S_ISDIR(status.st_mode)
                if is_directory and status.st_dev != device:
                    continue
                found[path] = _entry(item.path)
                if is_directory:
                    waiting.append(path)
    return found


def _entry(path: str) -> Entry:
    status = os.lstat(path)
    content = ""
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return Entry(
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        0 if stat.S_ISDIR(status.st_mode) else status.st_size,
        status.st_nlink,
        status.st_rdev,
        content,
        tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names),
    )


def changes(before: dict[str, Entry], after: dict[str, Entry]) -> dict[str, str]:
    """The paths that differ, each with how: "new", "gone" or "changed"."""
    return {
        path: "new" if path not in before else "gone" if path not in after else "changed"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    }


@dataclass
class Times:
    """How long the parts of a test took."""

    taken: list[str] = field(default_factory=list)

    @contextmanager
    def measure(self, what: str) -> Iterator[None]:
        """Take the time of the block."""
        begin_s = time.perf_counter()
        yield
        self.taken.append(f"{what} {time.perf_counter() - begin_s:.3f} s")

    def __str__(self) -> str:
        return ", ".join(self.taken)
