"""What cannot work: one line that names the object, the reason and the next step; nothing is changed by the attempt."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import (
    MS_BIND,
    MS_RDONLY,
    MS_REMOUNT,
    REPOSITORY,
    Fork,
    World,
    bind,
    enter_private_namespace,
    fork,
    mount,
    mounts,
    output,
    snapshot,
    umount,
)

import sessions
from sessions import lifecycle
from sessions.engine import Settings
from sessions.errors import (
    ConfigError,
    InvalidName,
    JournalError,
    NeedsRoot,
    SessionExists,
    SessionNotUsable,
    SessionsError,
    SetupFailed,
    UnknownUser,
)

pytestmark = pytest.mark.usefixtures("read_only_host")


@contextmanager
def refused(world: World, kind: type[SessionsError], match: str) -> Iterator[None]:
    """The error is one line, of that kind, and says what to do; mounts, chroot and our directories are as before."""
    before = mounts(), snapshot(world.root), world.leftovers()
    with pytest.raises(kind, match=match) as error:
        yield
    assert "\n" not in str(error.value)
    assert "; " in str(error.value), f"no next step in: {error.value}"
    assert (mounts(), snapshot(world.root), world.leftovers()) == before


@contextmanager
def doctored(world: World, path: str, text: str) -> Iterator[None]:
    """Another text in a file of the host, in our mount namespace only."""
    world.write("doctored", text)
    bind(world.base / "doctored", path)
    try:
        yield
    finally:
        umount(path)


@contextmanager
def tmpfs_on(path: Path | str, options: str = "size=1M") -> Iterator[Path]:
    Path(path).mkdir(parents=True, exist_ok=True)
    mount("tmpfs", path, "tmpfs", data=f"mode=755,{options}")
    try:
        yield Path(path)
    finally:
        umount(path)


def fill(directory: Path) -> Path:
    """Take all the room there is."""
    with open(directory / "filler", "wb", buffering=0) as filler:
        for size in (65536, 4096, 1):
            try:
                while filler.write(b"x" * size):
                    pass
            except OSError:
                continue
    return directory / "filler"


@pytest.mark.parametrize(
    ("directory", "match"),
    [
        ("srv/chroot", "tiny.toml: line 3 .*directory: srv/chroot: Directory must have an absolute path; begin"),
        ("", "directory.*; "),
        ("/", "the directory / is the host itself, and sessions of it would change the host; name another directory"),
        ("//../.", "is the host itself"),
    ],
)
def test_a_directory_that_the_configuration_refuses(world: World, directory: str, match: str) -> None:
    world.define("tiny", directory=directory, union_type="none")
    world.define("other")
    with refused(world, ConfigError, match):
        world.begin("tiny")
    with world.begin("other") as session:
        assert output(session, "echo", "usable") == "usable\n"


@pytest.mark.parametrize("union", ["none", "overlay"])
def test_a_directory_that_is_not_there(world: World, union: str) -> None:
    world.define("tiny", directory=f"{world.base}/nosuch", union_type=union)
    with refused(world, SetupFailed, f"{world.base}/nosuch.* does not exist.*; make it"):
        world.begin("tiny")
    world.define("tiny", directory=f"{world.root}/etc/passwd", union_type=union)
    with refused(world, SetupFailed, "etc/passwd"):
        world.begin("tiny")


def test_a_link_to_the_host_itself(world: World) -> None:
    (world.base / "link").symlink_to("/")
    # Were it not refused, this would be written on the host.
    (Path(world.places.native_config_dir) / "setup.d/50chrootname").symlink_to("/dev/null")
    world.define("tiny", directory=f"{world.base}/link", union_type="none")
    with refused(world, SetupFailed, "link is the host's own root; name another directory, or put a union over it"):
        world.begin("tiny")


def test_a_lower_directory_that_is_not_there(world: World) -> None:
    world.define("tiny", union_lower_directories=[f"{world.base}/nosuch"])
    with refused(world, SetupFailed, f"Directory '{world.base}/nosuch' does not exist; make it"):
        world.begin("tiny")


@pytest.mark.parametrize("name", ["a/b", ".x", "../x", "a\nb", "x" * 201, "x y", "%s", "a,b"])
def test_names_of_sessions(world: World, name: str) -> None:
    world.define("tiny")
    with refused(world, InvalidName, "is not valid; a name is a letter or digit"):
        world.begin("tiny", name=name)


def test_users(world: World) -> None:
    world.define("tiny")
    with refused(world, UnknownUser, "User 'nosuch' not found; give the name of a user"):
        world.begin("tiny", user="nosuch")

    def as_nobody() -> None:
        os.setuid(65534)
        world.begin("tiny")

    other = fork(lambda _it: as_nobody())
    assert other.ask() == (
        f"{NeedsRoot.__name__}: sessions are begun, entered and ended by root; run this as root, with sudo for instance"
    )
    assert other.wait() == 1


def test_a_full_state_directory(world: World) -> None:
    world.define("tiny", union_overlay_storage="disk")
    with tmpfs_on(world.places.state_dir) as state:
        with world.begin("tiny"):
            pass
        filler = fill(state)
        with refused(
            world, SessionsError, "cannot write the journal of session one in .*/sessions: No space left.*room"
        ):
            world.begin("tiny", name="one")
        filler.unlink()
        session = world.begin("tiny", name="one", persistent=True)
        script = world.script("30own", "#!/bin/sh\ntest $1 != setup-start\n")
        filler = fill(state)
        with refused(world, SessionsError, "No space left on device"):
            world.begin("tiny", name="two")
        result = session.run(["sh", "-c", "echo x >/var/tmp/x"], capture=True)
        assert b"No space left on device" in result.stderr
        session.end()
        script.unlink()
        filler.unlink()
        with world.begin("tiny"):
            pass


def test_a_disk_that_fills_up_while_a_session_is_open(world: World) -> None:
    """Its end needs no room, with scripts of others neither, and however often it fails before."""
    world.define("tiny", union_overlay_storage="disk")
    stop = f"#!/bin/sh\ntest $1 != setup-stop || test -e {world.base}/mended\n"
    for number in range(4):
        world.script(f"3{number}own", stop)
    with tmpfs_on(world.places.state_dir, "size=1M") as state:
        session = world.begin("tiny", name="one")
        filler = fill(state)
        journal, sizes = next(Path(world.places.journal_dir).iterdir()), [0, 1]
        while sizes[-1] > sizes[-2]:
            with pytest.raises(SessionsError, match="exited with status 1"):
                session.end()
            sizes.append(journal.stat().st_size)
        (world.base / "mended").touch()
        session.end()
        filler.unlink()
        for number in range(4):
            (Path(world.places.native_config_dir) / f"setup.d/3{number}own").unlink()


@pytest.mark.parametrize("is_prepared", [False, True])
def test_a_runtime_directory_that_cannot_be_written_to(world: World, is_prepared: bool) -> None:
    world.define("tiny", union_overlay_storage="disk")
    with tmpfs_on(world.base / "run") as directory:
        if is_prepared:
            with world.begin("tiny"):
                pass
        mount("none", directory, flags=MS_REMOUNT | MS_RDONLY)
        with refused(world, SessionsError, f"{directory}.*: Read-only file system.*; make"):
            world.begin("tiny", name="one")
        mount("none", directory, flags=MS_REMOUNT)
        with world.begin("tiny"):
            pass


def test_an_overlay_directory_that_cannot_be_written_to(world: World) -> None:
    with tmpfs_on(world.base / "layers") as directory:
        world.define("tiny", union_overlay_storage="disk", union_overlay_directory=str(directory))
        mount("none", directory, flags=MS_REMOUNT | MS_BIND | MS_RDONLY)
        with refused(world, SetupFailed, f"cannot make the directory {directory}/one: Read-only file system.*; make"):
            world.begin("tiny", name="one")


def test_directories_of_ours_that_are_not_ours(world: World) -> None:
    world.define("tiny")
    for place in ("state", "run", "state/sessions", "run/locks"):
        directory = world.base / place
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o777)
        with refused(world, SessionsError, f"{directory} is not a directory that only its owner.*; look at it"):
            world.begin("tiny")
        directory.chmod(0o755)


def test_journals_that_cannot_be_used_keep_nobody_else_away(world: World) -> None:
    world.define("tiny")
    good = world.begin("tiny", name="good")
    directory = Path(world.places.journal_dir)
    mine = next(directory.iterdir())
    spoiled = {name: directory / mine.name.replace("good", name) for name in ("foreign", "open", "garbage")}
    for path in spoiled.values():
        path.write_bytes(mine.read_bytes())
        path.chmod(0o600)
    os.chown(spoiled["foreign"], 1234, 0)
    spoiled["open"].chmod(0o666)
    spoiled["garbage"].write_bytes(os.urandom(5000))
    for name in ("notes", ".hidden", "x~", "README.txt"):
        (directory / name).write_text("of somebody else")
    (directory / "directory,1").mkdir()
    assert [session.id for session in sessions.list_sessions(places=world.places)] == ["good"]
    for name, path in spoiled.items():
        with pytest.raises(JournalError, match=f"journal {path} .*; .*remove the file"):
            sessions.open_session(name, places=world.places)
        with pytest.raises(JournalError):
            lifecycle.end(world.places, name, Settings(), kill_commands=True)
        with pytest.raises(SessionExists):
            world.begin("tiny", name=name)
    assert output(good, "echo", "usable") == "usable\n"
    with world.begin("tiny", name="another"):
        pass
    good.end()
    for path in (*spoiled.values(), *(directory / name for name in ("notes", ".hidden", "x~", "README.txt"))):
        path.unlink()
    (directory / "directory,1").rmdir()


def test_a_kernel_without_overlays(world: World) -> None:
    world.define("tiny")
    world.define("other", union_type="none")
    known = Path("/proc/filesystems").read_text().replace("nodev\toverlay\n", "")
    with doctored(world, "/proc/filesystems", known):
        with refused(world, SetupFailed, "this kernel has no overlay file system; load it as root: modprobe overlay"):
            world.begin("tiny")
        with world.begin("other") as session:
            assert output(session, "echo", "usable") == "usable\n"


def test_a_layer_on_an_overlay(world: World) -> None:
    """Refused by every kernel, most of which say only "Invalid argument"."""
    world.define("tiny", union_overlay_storage="disk", union_overlay_directory=f"{world.base}/layers")
    for name in ("lower", "upper", "work", "layers"):
        (world.base / name).mkdir()
    data = f"lowerdir={world.base}/lower,upperdir={world.base}/upper,workdir={world.base}/work"
    mount("overlay", world.base / "layers", "overlay", data=data)
    try:
        with refused(
            world, SetupFailed, r"cannot mount the overlay: Invalid argument: .*(is an overlay|upper).*; .*elsewhere"
        ):
            world.begin("tiny")
    finally:
        umount(world.base / "layers")


def test_a_layer_on_a_file_system_without_attributes(world: World) -> None:
    world.define("tiny", union_overlay_storage="disk", union_overlay_directory=f"{world.base}/layers")
    (world.base / "layers").mkdir()
    mount("ramfs", world.base / "layers", "ramfs")
    try:
        with refused(world, SetupFailed, "layers has no extended attributes; name a directory on ext4"):
            world.begin("tiny")
    finally:
        umount(world.base / "layers")


def test_a_layer_inside_its_own_source(world: World) -> None:
    world.define("tiny", union_overlay_storage="disk", union_overlay_directory=f"{world.root}/var/layers")
    (world.root / "var/layers").mkdir()
    for persistent in (False, True):
        with pytest.raises(
            SetupFailed, match=r"var/layers/one lies inside .*/tiny, over which it is to be; name another"
        ):
            world.begin("tiny", name="one", persistent=persistent)
    assert os.listdir(world.root / "var/layers") == []


@pytest.mark.parametrize(
    ("file", "text", "kind", "match"),
    [
        ("fstab", "proc /proc\n", ConfigError, "own/fstab, line 1: 2 of at least 3 fields; write what to mount"),
        ("fstab", "\n\nx /a/../../b tmpfs\n", ConfigError, "own/fstab, line 3: the target .* has a '..' in it; write"),
        ("fstab", "/nosuch /mnt none bind\n", SetupFailed, "/nosuch does not exist on the host; make it, or mend"),
        ("fstab", "x /mnt nosuchfs defaults\n", SetupFailed, "this kernel has no nosuchfs file system; load it"),
        ("fstab", "x /mnt tmpfs nosuch=1\n", SetupFailed, "cannot mount tmpfs on /mnt inside .*Invalid arg.*fstab"),
        ("fstab", "x /etc/passwd/x tmpfs x\n", SetupFailed, "on /etc/passwd/x inside .*: Not a directory.*; look"),
        ("fstab", "/dev/nosuch /mnt auto loop\n", SetupFailed, "mount of /dev/nosuch.*; look at its line"),
        ("copyfiles", "/nosuch /etc/x\n", SetupFailed, "/nosuch does not exist on the host; make it, or take it out"),
        ("copyfiles", "/etc\n", SetupFailed, "/etc is not a regular file; take it out of the profile's copyfiles"),
        ("copyfiles", "/etc/hosts /bin\n", SetupFailed, "cannot copy /etc/hosts to /bin inside: Is a dir.*; look"),
        ("nssdatabases", "../x\n", ConfigError, "own/nssdatabases, line 1: '../x' is not the name of a database"),
        ("nssdatabases", "nosuch\n", SetupFailed, "the host has no nosuch database; take nosuch out of the nss"),
    ],
)  # fmt: skip
def test_profiles(world: World, file: str, text: str, kind: type[SessionsError], match: str) -> None:
    world.profile(**{file: text})
    world.define("tiny", profile="own")
    world.define("other")
    with refused(world, kind, match):
        world.begin("tiny", name="one")
    with world.begin("other"):
        pass


def test_profiles_that_are_not_there_or_not_trusted(world: World) -> None:
    world.define("tiny", profile="nosuch")
    with refused(world, ConfigError, "setup_fstab file '.*/schroot/nosuch/fstab' does not exist; create it"):
        world.begin("tiny")
    world.profile(name="nosuch")
    (world.base / "schroot/nosuch/fstab").chmod(0o666)
    with refused(world, ConfigError, "nosuch/fstab.*; "):
        world.begin("tiny")


def test_a_session_that_is_half_begun_or_broken(world: World) -> None:
    world.define("tiny")
    world.script("30stuck", f"#!/bin/sh\ntest $1 = setup-start || test -e {world.base}/mended\n")
    session = world.begin("tiny", name="one")
    with pytest.raises(SessionsError):
        session.end()
    for ask in (lambda: session.run(["true"]), lambda: lifecycle.recover(world.places, "one", Settings())):
        with refused(world, SessionNotUsable, "session one is broken: it was left half way; sessions end one"):
            ask()
    (world.base / "mended").touch()
    session.end()


def test_a_step_that_fails_as_none_should(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a disk breaks while a module is loaded that only some steps need."""
    subprocess.run(["tar", "-C", world.root, "-cf", world.base / "tiny.tar", "."], check=True)
    world.define("packed", type="file", directory=None, file=f"{world.base}/tiny.tar", union_type="none")
    monkeypatch.setitem(sys.modules, "sessions.linux.tarflow", None)
    unpack = f"cannot unpack {world.base}/tiny.tar to {world.places.unpack_dir}/one"
    with refused(world, SetupFailed, f"session one could not be set up: {unpack}: ModuleNotFoundError: "):
        world.begin("packed", name="one")


def test_another_mount_namespace(world: World) -> None:
    """Where the session's mounts are not seen nothing is done, least of all removed."""
    world.define("tiny", union_overlay_storage="disk")

    def elsewhere(it: Fork) -> None:
        enter_private_namespace()
        it.tell(world.begin("tiny", name="one", persistent=True).id)
        it.ask()

    other = fork(elsewhere)
    assert other.ask() == "one"
    session = sessions.open_session("one", places=world.places)
    match = f"session one lives in another mount namespace, that of process {other.pid}; nsenter --mount --target"
    for ask in (
        lambda: session.run(["true"]), session.end, lambda: session.end(force=True),
        lambda: lifecycle.recover(world.places, "one", Settings()),
    ):  # fmt: skip
        with refused(world, SessionNotUsable, match):
            ask()
    other.tell()
    assert other.wait() == 0
    session.end()


def test_a_mount_namespace_that_cannot_be_looked_for_from_here(world: World) -> None:
    """In another pid namespace, those who are in the session's mount namespace are not seen: that proves nothing."""
    world.define("tiny", union_overlay_storage="disk")

    def elsewhere(it: Fork) -> None:
        enter_private_namespace()
        it.tell(world.begin("tiny", name="one", persistent=True).id)
        it.ask()

    def blind(*words: str) -> subprocess.CompletedProcess[str]:
        places = world.places
        options = ["--config-dir", places.native_config_dir, "--state-dir", places.state_dir]
        argv = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-m", "sessions.cli.native", *options]
        argv += ["--runtime-dir", places.runtime_dir, *words]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}
        return subprocess.run(argv, cwd="/", env=environment, capture_output=True, text=True, timeout=60)

    other = fork(elsewhere)
    assert other.ask() == "one"
    match = "who is in that cannot be seen from this pid namespace; act where it was begun"
    for words in (("end", "one"), ("exec", "one", "true"), ("recover", "one")):
        outcome = blind(*words)
        assert (outcome.returncode, outcome.stdout) == (125, "")
        assert match in outcome.stderr
    other.tell()
    assert other.wait() == 0
    # Nor is it known there that it is gone by now; who knows that may say so.
    assert match in blind("end", "one").stderr
    assert blind("end", "--force", "one").returncode == 0
    assert blind("list").stdout == ""
