"""Sessions of a real Debian: packages installed and built in them, and nothing of it left in the original.

Needs root, the network that the host's apt uses, and mmdebstrap. The first run makes the Debian, which takes half a
minute; see debian.py.
"""

from __future__ import annotations

import io
import json
import os
import pwd
import shutil
import stat
import struct
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import sources
from debian import BUILDER, Debian, Entry, Times, changes, manifest

import sessions
from sessions.api import OpenSession
from sessions.model import Places

SHELLS = ("/bin/bash", "/bin/sh")
APT = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
# cap_net_raw in the effective and permitted sets, revision 2 (capabilities(7)).
CAPABILITY = struct.pack("<5I", 0x0200_0001, 1 << 13, 0, 0, 0)


@pytest.fixture(scope="module")
def before(original: Debian) -> dict[str, Entry]:
    """The manifest of the tree before any session."""
    return manifest(original.tree)


def configure(places: Places, name: str, **values: str) -> str:
    """Add a chroot to the test's configuration."""
    file = Path(places.native_config_dir, "chroot.d", f"{name}.toml")
    file.parent.mkdir(exist_ok=True)
    lines = (f"{key.replace('__', '.').replace('_', '-')} = {json.dumps(value)}\n" for key, value in values.items())
    file.write_text(f"[chroot.{name}]\n{''.join(lines)}")
    return name


@contextmanager
def session(places: Places, chroot: str, times: Times, *, persistent: bool = False) -> Iterator[OpenSession]:
    """A session for the length of the block, whose end is not forced."""
    said: list[str] = []
    with times.measure(f"begin {chroot}"):
        opened = sessions.begin(
            chroot, places=places, persistent=persistent, say=lambda letter, line: said.append(f"{letter}: {line}")
        )
    try:
        yield opened
    except BaseException:
        opened.end(force=True)
        raise
    with times.measure(f"end {chroot}"):
        opened.end()
    assert said == []


def run(
    opened: OpenSession, *argv: str, user: str = "root", cwd: str = "/", env: Mapping[str, str] | None = None
) -> str:
    """What a command prints that has to succeed."""
    result = opened.run(argv, user=user, cwd=cwd, env=env, input=b"", capture=True)
    output = result.stdout.decode()
    assert result.status == 0, f"{argv}: status {result.status}\n{output[-4000:]}\n{result.stderr.decode()[-4000:]}"
    return output


def install_hello(opened: OpenSession, times: Times) -> None:
    """Take a package from the mirror."""
    with times.measure("apt-get update"):
        run(opened, "apt-get", "update", "--error-on=any", env=APT)
    with times.measure("apt-get install hello"):
        run(opened, "apt-get", "install", "--yes", "hello", env=APT)
    assert run(opened, "hello") == "Hello, world!\n"


def build_trial(opened: OpenSession, times: Times) -> None:
    """Build a package as an ordinary user, look at it, install it, use it, and take the results away."""
    result = opened.run(["tar", "-x", "-C", "/build"], user=BUILDER, input=_source_archive(), check=True)
    assert result.stdout == result.stderr == b""
    with times.measure("dpkg-buildpackage"):
        run(opened, "dpkg-buildpackage", "-us", "-uc", user=BUILDER, cwd="/build/trial-1.0", env=APT)
    made = run(opened, "sh", "-c", "ls /build", user=BUILDER).split()
    architecture = run(opened, "dpkg", "--print-architecture").strip()
    deb = f"trial_1.0_{architecture}.deb"
    assert {deb, "trial_1.0.dsc", "trial_1.0.tar.xz", f"trial_1.0_{architecture}.changes"} <= set(made)
    information = run(opened, "dpkg-deb", "-I", f"/build/{deb}")
    assert " Package: trial\n Version: 1.0\n" in information
    assert " Depends: libc6 " in information
    run(opened, "dpkg", "--install", f"/build/{deb}", env=APT)
    assert run(opened, "trial", user=BUILDER) == "hello from a package of our own\n"
    run(opened, "rm", "-rf", "/build/trial-1.0", *(f"/build/{name}" for name in made), user=BUILDER)


def _source_archive() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, text in sources.OURS.items():
            member = tarfile.TarInfo(f"trial-1.0/{name}")
            member.size, member.mode = len(text), 0o755 if name == "debian/rules" else 0o644
            archive.addfile(member, io.BytesIO(text.encode()))
    return data.getvalue()


@pytest.mark.parametrize(("storage", "profile", "persistent"), [("disk", "sbuild", True), ("tmpfs", "buildd", False)])
def test_packages_in_an_overlay(
    storage: str,
    profile: str,
    persistent: bool,
    original: Debian,
    before: dict[str, Entry],
    places: Places,
    times: Times,
) -> None:
    chroot = configure(
        places,
        storage,
        type="directory",
        directory=f"{original.tree}",
        union_type="overlay",
        union_overlay_storage=storage,
        profile=profile,
    )
    with session(places, chroot, times, persistent=persistent) as opened:
        install_hello(opened, times)
        build_trial(opened, times)
        # Somebody who stays is no reason not to end, and does not survive it.
        run(opened, "setsid", "--fork", "sleep", "infinity", user=BUILDER)
    assert changes(before, manifest(original.tree)) == {}


def test_session_of_an_archive(original: Debian, places: Places, times: Times) -> None:
    old = original.archive.stat()
    chroot = configure(places, "archive", type="file", file=f"{original.archive}", profile="minimal")
    with session(places, chroot, times) as opened:
        assert "package management program" in run(opened, "dpkg", "--version")
        assert run(opened, "cat", "/etc/debian_chroot") == "archive\n"
        assert run(opened, "dpkg", "--audit") == ""
    new = original.archive.stat()
    assert (new.st_ino, new.st_size, new.st_ctime_ns) == (old.st_ino, old.st_size, old.st_ctime_ns)


def test_source_of_a_directory(original: Debian, places: Places, disk: Path, times: Times) -> None:
    tree = disk / "tree"
    subprocess.run(["cp", "-a", "--reflink=auto", original.tree, tree], check=True)
    chroot = configure(
        places, "changing", type="directory", directory=f"{tree}", union_type="overlay", profile="sbuild"
    )
    with session(places, f"source:{chroot}", times) as opened:
        install_hello(opened, times)
    kept = manifest(tree)
    assert "usr/bin/hello" in kept
    assert "build" not in kept
    assert [path for path in kept if opened.session.stamp in path] == []
    with session(places, chroot, times) as opened:
        assert run(opened, "hello", user=BUILDER) == "Hello, world!\n"
        run(opened, "dpkg", "--purge", "hello", env=APT)
        assert not os.path.exists(f"{opened.location}/usr/bin/hello")
    assert changes(kept, manifest(tree)) == {}


def test_source_of_an_archive(
    original: Debian, before: dict[str, Entry], places: Places, disk: Path, times: Times
) -> None:
    archive = disk / "debian.tar.zst"
    shutil.copyfile(original.archive, archive)
    archive.chmod(0o640)
    os.chown(archive, 0, pwd.getpwnam(BUILDER).pw_gid)
    old = archive.stat()
    chroot = configure(places, "packed", type="file", file=f"{archive}", profile="minimal", setup__nssdatabases="")
    changed = "usr/local/bin/changed"
    with session(places, f"source:{chroot}", times) as opened:
        run(opened, "cp", "/bin/true", f"/{changed}")
        os.setxattr(f"{opened.location}/{changed}", "security.capability", CAPABILITY)
    new = archive.stat()
    assert new.st_ino != old.st_ino
    assert (new.st_mode, new.st_uid, new.st_gid) == (old.st_mode, old.st_uid, old.st_gid)
    assert sorted(os.listdir(disk)) == ["build", "debian.tar.zst", "etc", "lib", "run"]
    with session(places, chroot, times) as opened:
        run(opened, f"/{changed}", user=BUILDER)
        found = manifest(opened.location)
    assert found[changed].attributes == (("security.capability", CAPABILITY),)
    mounted = {"proc", "sys"}
    written = {"etc", "etc/debian_chroot", "usr/local/bin", changed}
    # Nothing is lost on the way through the archive, and nothing is new but what was written, and the session's stamp.
    assert changes(before, found).keys() - {"etc/resolv.conf"} == {".", *mounted, *written}


def _people() -> list[str]:
    """The user that every host has, and the first of its ordinary ones, if there are any."""
    ordinary = [entry.pw_name for entry in pwd.getpwall() if 1000 <= entry.pw_uid < 60000]
    return [BUILDER, *ordinary[:1]]


@pytest.mark.parametrize("name", _people())
def test_login(name: str, original: Debian, places: Places, times: Times) -> None:
    user = pwd.getpwnam(name)
    chroot = configure(
        places, "desk", type="directory", directory=f"{original.tree}", union_type="overlay", profile="default"
    )
    with session(places, chroot, times) as opened:
        with times.measure("id"):
            who = run(opened, "sh", "-c", "whoami; id -u; id -g; id -G; pwd", user=name).splitlines()
        assert who[:3] == [name, str(user.pw_uid), str(user.pw_gid)]
        assert sorted(map(int, who[3].split())) == sorted(os.getgrouplist(name, user.pw_gid))
        assert who[4] == "/"
        environment = dict(line.split("=", 1) for line in run(opened, "env", user=name, env={}).splitlines())
        assert environment == {
            "HOME": user.pw_dir,
            "LOGNAME": name,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "SCHROOT_ALIAS_NAME": "desk",
            "SCHROOT_CHROOT_NAME": "desk",
            "SCHROOT_COMMAND": "env",
            "SCHROOT_GID": "0",
            "SCHROOT_GROUP": "root",
            "SCHROOT_SESSION_ID": opened.id,
            "SCHROOT_UID": "0",
            "SCHROOT_USER": "root",
            "SHELL": user.pw_shell,
            "USER": name,
        }
        if user.pw_shell in SHELLS:
            shell = opened.run([], user=name, input=b"echo $0\n", capture=True)
            assert (shell.status, shell.stdout) == (0, f"-{os.path.basename(user.pw_shell)}\n".encode())
        if user.pw_dir.startswith("/home/") and os.path.isdir(user.pw_dir):
            assert run(opened, "pwd", user=name, cwd=user.pw_dir) == f"{user.pw_dir}\n"
            assert run(opened, "stat", "-c", "%U %a", user.pw_dir) == _owner_and_mode(user.pw_dir)
        may_write = "for path in /etc /root /usr /tmp /dev/shm; do test -w $path && echo $path; done; :"
        assert run(opened, "sh", "-c", may_write, user=name) == "/tmp\n/dev/shm\n"
        # What it makes in the host's /tmp is its own on the host.
        path = run(opened, "mktemp", user=name).strip()
        try:
            assert os.stat(path).st_uid == user.pw_uid
        finally:
            os.unlink(path)
        # A terminal of the session's, as a shell would want one.
        assert "pts" in run(opened, "script", "-qec", "tty", "/dev/null", user=name, env={"SHELL": "/bin/sh"})


def _owner_and_mode(path: str) -> str:
    status = os.stat(path)
    return f"{pwd.getpwuid(status.st_uid).pw_name} {stat.S_IMODE(status.st_mode):o}\n"
