"""Archives of chroots: there and back in every compression, damage, full disks, and being killed at any moment."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Fork, bind, fork, mount, umount
from tarmaking import END, FIFO, GNU, PAX, SYMLINK, member, tree_of, write

import sessions
from sessions.errors import BadArchive, SessionsError
from sessions.linux import archive, run, trace

COMPRESSED = (".tar.gz", ".tar.bz2", ".tar.xz", ".tar.lzo", ".tar.lz4", ".tar.zst")
ONE_OF_EACH = (".tar", *COMPRESSED)
ENDINGS = (*ONE_OF_EACH, ".tgz", ".tbz", ".tbz2", ".txz", ".tzo", ".tlz4", ".tar.zstd", ".tzst")

# cap_net_raw+ep, version 2, as setcap(8) writes it.
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
NOBODY = 0xFFFFFFFF


def acl(*entries: tuple[int, int, int]) -> bytes:
    """A POSIX ACL as the kernel stores it: tag, rights, id."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def make_tree(top: Path) -> Path:
    """One of everything that a chroot may hold."""
    top.mkdir()
    (top / "usr/bin").mkdir(parents=True)
    (top / "bin").symlink_to("usr/bin")
    (top / "etc").mkdir()
    (top / "etc/mtab").symlink_to("../proc/self/mounts")
    (top / "etc/absolute").symlink_to("/etc/hostname")
    (top / "dangling").symlink_to("nowhere/at/all")
    (top / "usr/bin/ping").write_bytes(os.urandom(40_000))
    (top / "usr/bin/ping").chmod(0o755)
    os.setxattr(top / "usr/bin/ping", "security.capability", CAPABILITY)
    (top / "usr/bin/su").write_bytes(b"su")
    (top / "usr/bin/su").chmod(0o4755)
    os.link(top / "usr/bin/su", top / "usr/bin/sg")
    os.link(top / "etc/mtab", top / "etc/mtab.again", follow_symlinks=False)
    (top / "etc/shadow").write_text("root:*:\n")
    os.chown(top / "etc/shadow", 0, 42)
    (top / "etc/shadow").chmod(0o640)
    (top / "home").mkdir()
    os.chown(top / "home", 123456, 3_000_000_000)
    os.setxattr(top / "home", "user.comment", b"two\nlines\0and a NUL")
    (top / "var").mkdir()
    rights = acl((1, 7, NOBODY), (2, 5, 4242), (4, 5, NOBODY), (16, 5, NOBODY), (32, 0, NOBODY))
    os.setxattr(top / "var", "system.posix_acl_default", rights)
    os.setxattr(top / "var", "system.posix_acl_access", rights)
    (top / "var/plain").write_text("")
    os.removexattr(top / "var/plain", "system.posix_acl_access")
    os.mkfifo(top / "var/fifo", 0o600)
    (top / "tmp").mkdir()
    (top / "tmp").chmod(0o1777)
    (top / "tmp/empty").write_text("")
    deep = top / "tmp" / ("d" * 200) / ("e" * 200)
    deep.mkdir(parents=True)
    (deep / ("f" * 200)).write_text("deep")
    (top / "tmp/long").symlink_to("/".join(["g" * 100] * 3))
    for name in (b"\xc3\xa9t\xc3\xa9", b"not\xffutf-8", b"new\nline", b"quo'te \"d\\ ", b"-dash", b" blank "):
        with open(os.fsencode(top) + b"/tmp/" + name, "wb") as file:
            file.write(name)
    with open(top / "var/sparse", "wb") as file:
        file.seek(20 << 20)
        file.write(b"an island")
        file.truncate(40 << 20)
    (top / "dev").mkdir()
    os.mknod(top / "dev/null", 0o20666, os.makedev(1, 3))
    (top / "dev/fd").symlink_to("/proc/self/fd")
    for path in (top / "usr/bin/su", top / "tmp", top / "home", top / "bin"):
        os.utime(path, ns=(0, 1_234_567_890_123_456_789), follow_symlinks=False)
    return top


def _attributes(path: Path) -> list[str]:
    return [] if path.is_symlink() else os.listxattr(path)


def unpacked(path: Path | str, directory: Path) -> Path:
    directory.mkdir()
    archive.unpack(str(path), str(directory))
    return directory


def packed(tree: Path, path: Path) -> Path:
    """A new archive of a tree."""
    path.touch(0o644)
    archive.repack(str(tree), str(path), temporary=f"{path}.new")
    return path


def refusal(path: Path | str, directory: Path) -> str:
    """Why an archive is not unpacked."""
    directory.mkdir()
    with pytest.raises(BadArchive) as raised:
        archive.unpack(str(path), str(directory))
    assert str(path) in str(raised.value)
    return str(raised.value)


def random_files(top: Path, count: int = 3, size: int = 60_000) -> Path:
    """A tree that cannot be compressed."""
    top.mkdir()
    for number in range(count):
        (top / f"{number}").write_bytes(os.urandom(size))
    return top


@pytest.fixture
def at_point(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], object]], None]:
    """Have something happen when the process comes to the first trace point that begins so."""

    def arrange(where: str, what: Callable[[], object]) -> None:
        def hook(point: str) -> None:
            if point.startswith(where):
                what()

        monkeypatch.setattr(trace, "hook", hook)

    return arrange


@pytest.mark.parametrize("ending", ENDINGS)
def test_everything_comes_back(disk: Path, ending: str) -> None:
    tree = make_tree(disk / "tree")
    path = packed(tree, disk / f"a{ending}")
    back = unpacked(path, disk / "back")
    assert tree_of(back) == tree_of(tree)
    assert (back / "var/sparse").stat().st_blocks < 1000
    assert sorted(os.listdir(disk)) == sorted([f"a{ending}", "back", "tree"])


@pytest.mark.parametrize("form", ["gnu", "oldgnu", "pax", "ustar"])
def test_what_tar_writes_by_itself_comes_back(disk: Path, form: str) -> None:
    tree = make_tree(disk / "tree")
    if form == "ustar":
        # There is no room in it for long names and large ids.
        shutil.rmtree(tree / "tmp")
        os.chown(tree / "home", 1, 2)
    if form != "pax":
        # Nor in any but pax for attributes and fractions of a second.
        for file in (tree, *tree.rglob("*")):
            for attribute in _attributes(file):
                os.removexattr(file, attribute)
            os.utime(file, (1, 1), follow_symlinks=False)
    options = {"pax": ["--sparse", "--xattrs", "--xattrs-include=*"], "ustar": []}.get(form, ["--sparse"])
    path = disk / "a.tar"
    subprocess.run(["tar", "-cf", path, f"--format={form}", *options, "-C", tree, "."], check=True)
    assert tree_of(unpacked(path, disk / "back")) == tree_of(tree)


def test_stamps_and_overlay_marks_stay_behind(disk: Path) -> None:
    tree = random_files(disk / "tree")
    os.setxattr(tree, "trusted.chroot-sessions.stamp", b"stamp")
    os.setxattr(tree / "0", "trusted.overlay.redirect", b"/elsewhere")
    path = packed(tree, disk / "a.tar")
    assert b"trusted" not in path.read_bytes()
    raw = write(
        disk / "b.tar",
        member("./", b"5", pax={"SCHILY.xattr.trusted.chroot-sessions.stamp": "other"}, mode=0o755),
        member("f", pax={"SCHILY.xattr.trusted.x": "1", "SCHILY.xattr.user.overlay.redirect": "/etc"}),
        member("g", pax={"SCHILY.xattr.user.kept": "1"}),
        END,
    )
    (disk / "back").mkdir()
    os.setxattr(disk / "back", "trusted.chroot-sessions.stamp", b"ours")
    archive.unpack(raw, str(disk / "back"))
    assert os.getxattr(disk / "back", "trusted.chroot-sessions.stamp") == b"ours"
    assert os.listxattr(disk / "back/f") == []
    assert os.listxattr(disk / "back/g") == ["user.kept"]


def test_sockets_are_left_out(disk: Path) -> None:
    tree = random_files(disk / "tree", 1)
    os.mknod(tree / "socket", 0o140666)
    back = unpacked(packed(tree, disk / "a.tar.gz"), disk / "back")
    assert os.listdir(back) == ["0"]


def test_the_directory_has_to_be_empty(disk: Path) -> None:
    path = packed(random_files(disk / "tree"), disk / "a.tar")
    (disk / "back").mkdir()
    (disk / "back/mine").write_text("mine")
    with pytest.raises(SessionsError, match="is not empty"):
        archive.unpack(str(path), str(disk / "back"))
    assert os.listdir(disk / "back") == ["mine"]


@pytest.mark.parametrize("name", ["a.zip", "tar", "a.tar.Z", "a.tar.gz.old", "a"])
def test_an_unknown_ending_is_refused(disk: Path, name: str) -> None:
    with pytest.raises(BadArchive, match=r"Unsupported filetype.*\.tar\.gz.*\.tzst") as raised:
        archive.unpack(str(disk / name), str(disk))
    assert str(disk / name) in str(raised.value)


def test_every_compression_names_its_package() -> None:
    packages = {archive.compression_of(f"x{ending}").package for ending in ENDINGS}
    assert packages == {"", "gzip", "bzip2", "xz-utils", "lzop", "lz4", "zstd"}


def test_a_missing_program_is_named(disk: Path) -> None:
    path = packed(random_files(disk / "tree"), disk / "a.tar")
    (disk / "back").mkdir()
    mount("tmpfs", "/usr/bin", "tmpfs")
    try:
        with pytest.raises(run.ProgramMissing, match="apt-get install tar"):
            archive.unpack(str(path), str(disk / "back"))
    finally:
        umount("/usr/bin")


def test_importing_costs_next_to_nothing() -> None:
    code = "import sys, sessions.linux.archive; print([m for m in ('tarfile', 'subprocess') if m in sys.modules])"
    root = str(Path(sessions.__file__).parents[1])
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_only_a_file_that_only_root_can_write_is_unpacked(disk: Path) -> None:
    path = packed(random_files(disk / "tree"), disk / "a.tar")
    path.chmod(0o646)
    assert "File has write permissions for others" in refusal(path, disk / "1")
    path.chmod(0o600)
    os.chown(path, 1, 0)
    assert "File is not owned by user root" in refusal(path, disk / "2")
    path.unlink()
    assert "No such file or directory" in refusal(path, disk / "3")
    os.mkfifo(path)
    assert "File is not a regular file" in refusal(path, disk / "4")
    path.unlink()
    path.mkdir()
    assert "File is not a regular file" in refusal(path, disk / "5")


@pytest.mark.parametrize("ending", ONE_OF_EACH)
def test_truncation_is_found(disk: Path, ending: str) -> None:
    whole = packed(random_files(disk / "tree"), disk / f"a{ending}").read_bytes()
    for number, length in enumerate((0, 1, 100, 512, 1000, len(whole) // 3, len(whole) // 2, len(whole) - 20_000)):
        reason = refusal(write(disk / f"b{ending}", whole[:length]), disk / f"{number}")
        assert "Traceback" not in reason


def test_truncation_between_members_is_found(disk: Path) -> None:
    path = write(disk / "a.tar", member("a", data=b"x"), member("b"))
    assert "without the mark of its end" in refusal(path, disk / "1")
    assert "within the mark of its end" in refusal(write(disk / "b.tar", member("a"), bytes(512)), disk / "2")
    assert "within a member" in refusal(write(disk / "c.tar", member("a", data=b"x" * 2000)[:-600]), disk / "3")
    assert "within a header" in refusal(write(disk / "d.tar", member("a")[:-1]), disk / "4")


def of_program(path: str | Path) -> tuple[int, bytes]:
    """What the program makes of an archive, damaged or not."""
    with open(path, "rb") as file:
        done = subprocess.run(
            archive.compression_of(str(path)).decompress, stdin=file, capture_output=True, check=False
        )
    return done.returncode, done.stdout


@pytest.mark.parametrize("ending", COMPRESSED)
def test_flipped_bits_are_found(disk: Path, ending: str) -> None:
    whole = packed(random_files(disk / "tree"), disk / f"a{ending}").read_bytes()
    for number in range(1, 12):
        flipped = bytearray(whole)
        flipped[len(whole) * number // 12] ^= 1 << (number % 8)
        path = write(disk / f"b{ending}", bytes(flipped))
        # Where a bit says how far back the same zeros are found, another distance does as well, and nothing is wrong.
        if of_program(path) != of_program(disk / f"a{ending}"):
            refusal(path, disk / f"{number}")


@pytest.mark.parametrize("ending", COMPRESSED)
def test_the_wrong_format_is_found_and_said_by_the_program(disk: Path, ending: str) -> None:
    program = archive.compression_of(ending).decompress[0]
    reason = refusal(write(disk / f"a{ending}", os.urandom(5000)), disk / "1")
    words = {"lz4": "Unrecognized header", "xz": "File format not recognized", "zstd": "unsupported format"}
    assert words.get(program, "not") in reason
    assert "\n" not in reason


@pytest.mark.parametrize("ending", COMPRESSED)
def test_what_follows_the_end_is_refused(disk: Path, ending: str) -> None:
    whole = packed(random_files(disk / "tree", 1, 100), disk / f"a{ending}").read_bytes()
    refusal(write(disk / f"b{ending}", whole, b"something else that is not compressed"), disk / "1")


@pytest.mark.parametrize("ending", COMPRESSED)
def test_a_second_archive_behind_the_first_is_refused(disk: Path, ending: str) -> None:
    """The decompressors join the two; tar would stop at the end of the first and never mention the second."""
    whole = packed(random_files(disk / "tree", 1, 100), disk / f"a{ending}").read_bytes()
    reason = refusal(write(disk / f"b{ending}", whole, whole), disk / "1")
    assert "something follows its end" in reason or ending == ".tar.lzo"


@pytest.mark.parametrize("ending", ONE_OF_EACH)
@pytest.mark.parametrize("content", [b"", END, bytes(10240)], ids=["nothing", "end", "padded"])
def test_an_archive_of_nothing_is_refused(disk: Path, ending: str, content: bytes) -> None:
    compress = archive.compression_of(ending).compress
    if compress:
        content = subprocess.run(compress, input=content, capture_output=True, check=True).stdout
    refusal(write(disk / f"a{ending}", content), disk / "1")
    refusal(write(disk / f"b{ending}", b""), disk / "2")


def test_much_padding_is_passed_without_being_held(disk: Path) -> None:
    path = disk / "a.tar.gz"
    with open(path, "wb") as file:
        gzip = subprocess.Popen(["gzip", "-1c"], stdin=subprocess.PIPE, stdout=file)
        assert gzip.stdin is not None
        gzip.stdin.write(member("a", data=b"hello"))
        for _mebibyte in range(200):
            gzip.stdin.write(bytes(1 << 20))
        gzip.communicate()
    assert (unpacked(path, disk / "back") / "a").read_text() == "hello"


def test_a_talkative_tar_does_not_get_stuck(disk: Path) -> None:
    """Its warnings are many times what a pipe holds."""
    members = [member(f"{number}" * 20, mtime=2**33) for number in range(8000)]
    back = unpacked(write(disk / "a.tar", *members, END), disk / "back")
    assert len(os.listdir(back)) == len(members)


def test_tar_runs_out_of_room(disk: Path) -> None:
    path = packed(random_files(disk / "tree", 4, 1 << 20), disk / "a.tar.zst")
    (disk / "small").mkdir()
    mount("tmpfs", disk / "small", "tmpfs", data="size=1m")
    try:
        with pytest.raises(BadArchive, match=r"tar: .*No space left on device"):
            archive.unpack(str(path), str(disk / "small"))
    finally:
        umount(disk / "small")


@pytest.mark.parametrize("ending", [".tar", ".tar.zst"])
def test_a_signal_while_unpacking_ends_the_programs(
    disk: Path, ending: str, at_point: Callable[[str, Callable[[], object]], None]
) -> None:
    path = packed(random_files(disk / "tree"), disk / f"a{ending}")
    at_point("unpacking ", lambda: signal.raise_signal(signal.SIGINT))
    (disk / "back").mkdir()
    with pytest.raises(KeyboardInterrupt):
        archive.unpack(str(path), str(disk / "back"))
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_signal_while_packing_ends_the_programs(
    disk: Path, at_point: Callable[[str, Callable[[], object]], None]
) -> None:
    tree = random_files(disk / "tree")
    old = write(disk / "a.tar.gz", b"old")
    at_point("packing ", lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        archive.repack(str(tree), old, temporary=f"{old}.new")
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert sorted(os.listdir(disk)) == ["a.tar.gz", "tree"]
    assert Path(old).read_bytes() == b"old"


def _kill_at(work: Callable[[], object], number: int) -> bool:
    """Do something in a process that is killed at its trace point of a number; whether it came so far."""

    def doomed(_it: object) -> None:
        left = number

        def hook(_point: str) -> None:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

        trace.hook = hook
        work()

    status = fork(doomed).wait()
    assert status in (0, -signal.SIGKILL)
    # What it had started becomes our children, and ends by itself.
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return status != 0


@pytest.mark.parametrize("ending", [".tar", ".tar.zst"])
def test_killed_at_any_point_unpacking_leaves_no_process(disk: Path, ending: str) -> None:
    path = packed(random_files(disk / "tree"), disk / f"a{ending}")
    points = 0
    while True:
        (disk / f"{points}").mkdir()
        if not _kill_at(lambda: archive.unpack(str(path), str(disk / f"{points}")), points):  # noqa: B023
            break
        points += 1
    assert points == 3


@pytest.mark.parametrize("ending", [".tar", ".tar.zst"])
def test_killed_at_any_point_repack_leaves_the_old_archive_or_the_new(disk: Path, ending: str) -> None:
    old_tree, new_tree = random_files(disk / "old"), random_files(disk / "new", 5)
    path = disk / f"a{ending}"
    seen = []
    points = 0
    while True:
        packed(old_tree, path)
        killed = _kill_at(lambda: archive.repack(str(new_tree), str(path), temporary=f"{path}.new"), points)
        back = tree_of(unpacked(path, disk / f"back{points}"))
        assert back in (tree_of(old_tree), tree_of(new_tree))
        seen.append(back == tree_of(new_tree))
        if not killed:
            break
        points += 1
    # write, packing, wrote, rename | renamed, none
    assert seen == [False, False, False, False, True, True]
    # What a killed one leaves at the place that the caller chose, the next one replaces.
    assert sorted(path.name for path in disk.iterdir() if path.suffix == ".new") == []


def test_repack_keeps_owner_and_mode(disk: Path) -> None:
    tree = random_files(disk / "tree")
    path = packed(tree, disk / "a.tar.xz")
    os.chown(path, 0, 1234)
    path.chmod(0o640)
    before = path.stat().st_ino
    archive.repack(str(tree), str(path), temporary=f"{path}.new")
    after = path.stat()
    assert (after.st_uid, after.st_gid, after.st_mode & 0o7777) == (0, 1234, 0o640)
    assert after.st_ino != before


def test_repack_follows_a_link_to_the_archive(disk: Path) -> None:
    tree = random_files(disk / "tree")
    path = packed(random_files(disk / "other"), disk / "real.tar")
    link = disk / "link.tar"
    link.symlink_to("real.tar")
    archive.repack(str(tree), str(link), temporary=str(disk / "new"))
    assert os.readlink(link) == "real.tar"
    assert tree_of(unpacked(path, disk / "back")) == tree_of(tree)


def test_repack_replaces_what_a_killed_one_left(disk: Path) -> None:
    tree = random_files(disk / "tree")
    path = disk / "a.tar"
    write(disk / "a.tar.new", os.urandom(10))
    assert tree_of(unpacked(packed(tree, path), disk / "back")) == tree_of(tree)


def _cannot_repack(disk: Path, tree: Path, ending: str = ".tar.gz") -> str:
    """Why a tree is not packed; the archive that is there stays as it is, and nothing beside it."""
    (disk / "archives").mkdir(exist_ok=True)
    old = disk / f"archives/a{ending}"
    old.write_bytes(b"the old archive" * 100)
    before = (old.stat(), old.read_bytes())
    with pytest.raises(SessionsError) as raised:
        archive.repack(str(tree), str(old), temporary=f"{old}.new")
    assert (old.stat()[:6], old.read_bytes()) == (before[0][:6], before[1])
    assert os.listdir(disk / "archives") == [f"a{ending}"]
    old.unlink()
    return str(raised.value)


@pytest.mark.parametrize("ending", ONE_OF_EACH)
def test_a_full_disk_leaves_the_old_archive(disk: Path, ending: str) -> None:
    tree = random_files(disk / "tree", 4, 1 << 20)
    (disk / "archives").mkdir()
    mount("tmpfs", disk / "archives", "tmpfs", data="size=1m")
    try:
        # lz4 does not say why it cannot write.
        words = "cannot write" if ending == ".tar.lz4" else "No space left on device"
        assert words in _cannot_repack(disk, tree, ending)
    finally:
        umount(disk / "archives")


def test_a_mount_below_the_tree_is_not_packed(disk: Path) -> None:
    tree, other = random_files(disk / "tree"), random_files(disk / "other")
    (tree / "in the way").mkdir()
    bind(other, tree / "in the way")
    try:
        reason = _cannot_repack(disk, tree)
        assert f"something is mounted on {tree}/in the way" in reason
    finally:
        umount(tree / "in the way")
    packed(tree, disk / "archives/a.tar")


def test_a_tree_that_is_a_mount_itself_is_packed(disk: Path) -> None:
    tree = random_files(disk / "tree")
    bind(tree, tree)
    try:
        path = packed(tree, disk / "a.tar")
    finally:
        umount(tree)
    assert tree_of(unpacked(path, disk / "back")) == tree_of(tree)


def test_a_tree_that_could_not_be_unpacked_again_is_not_packed(disk: Path) -> None:
    tree = random_files(disk / "tree")
    os.mknod(tree / "sda", 0o60660, os.makedev(8, 0))
    assert "'./sda' is the block device 8:0" in _cannot_repack(disk, tree)
    (tree / "sda").unlink()
    (tree / "out").symlink_to("../../etc")
    assert "'./out' leads out of the tree" in _cannot_repack(disk, tree)


def test_a_file_that_changes_while_it_is_packed_is_a_failure(disk: Path) -> None:
    tree = random_files(disk / "tree", 1, 16 << 20)

    def write_on(it: Fork) -> None:
        with open(tree / "0", "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"x", 0)
            it.tell("writing")
            while True:
                os.pwrite(file.fileno(), b"x", 0)

    writer = fork(write_on)
    try:
        assert writer.ask() == "writing"
        assert "file changed as we read it" in _cannot_repack(disk, tree, ".tar")
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()


def test_a_missing_directory_or_archive_is_named(disk: Path) -> None:
    assert "nowhere" in _cannot_repack(disk, disk / "nowhere")
    with pytest.raises(BadArchive, match="No such file"):
        archive.repack(str(disk), str(disk / "none.tar"), temporary=str(disk / "new"))
    assert not (disk / "new").exists()


def test_members_with_much_to_say_are_unpacked(disk: Path) -> None:
    """Headers larger than what is read at once, and members in every format mixed."""
    pieces = [
        member("first", data=b"1" * 700_000, pax={"comment": "c" * 900_000}),
        member("n" * 150 + "/" + "m" * 150, data=b"2"),
        member("o" * 250, form=PAX, data=b"3" * 511),
        member("attributes", pax={"SCHILY.xattr.user.a": "v" * 3000}),
        member("link", SYMLINK, link="l" * 1000, form=GNU),
        member("fifo", FIFO),
    ]
    back = unpacked(write(disk / "a.tar", *pieces, END), disk / "back")
    assert (back / "first").stat().st_size == 700_000
    assert (back / ("n" * 150) / ("m" * 150)).read_bytes() == b"2"
    assert (back / ("o" * 250)).read_bytes() == b"3" * 511
    assert os.getxattr(back / "attributes", "user.a") == b"v" * 3000
    assert os.readlink(back / "link") == "l" * 1000
