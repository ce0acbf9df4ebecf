"""The setup files of a chroot: where they are looked for, what a line means, and which lines are refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.config import profile
from sessions.config.load import load
from sessions.errors import ConfigError
from sessions.model import Chroot, CopyLine, FstabLine, Places, Plain

REPOSITORY = Path(__file__).parents[2]
READERS = {"fstab": profile.fstab, "copyfiles": profile.copyfiles, "nssdatabases": profile.nssdatabases}
STOCK = ("default", "minimal", "buildd", "sbuild", "desktop")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(
        native_config_dir=str(tmp_path / "native"),
        schroot_config_dir=str(tmp_path / "schroot"),
        stock_etc_dir=str(tmp_path / "stock"),
    )


def chroot_with(**custom: str) -> Chroot:
    return Chroot("a", Plain("/srv"), custom=tuple((f"setup.{name}", value) for name, value in custom.items()))


def write(directory: str, name: str, text: str | bytes) -> Path:
    path = Path(directory) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(0o644)
    return path


def read(places: Places, kind: str, text: str | bytes) -> tuple[object, ...]:
    write(places.schroot_config_dir, f"p/{kind}", text)
    return READERS[kind](chroot_with(**{kind: f"p/{kind}"}), places)


# ---------------------------------------------------------------------------------------------- which file


@pytest.mark.parametrize("kind", READERS)
def test_nothing_named_is_nothing_to_do(places: Places, kind: str) -> None:
    assert READERS[kind](chroot_with(), places) == ()
    assert READERS[kind](chroot_with(**{kind: ""}), places) == ()


def test_the_first_directory_that_has_the_file_counts(places: Places) -> None:
    directories = (places.stock_etc_dir, places.native_config_dir, places.schroot_config_dir)
    for number, directory in enumerate(directories):
        write(directory, "p/nssdatabases", f"db{number}\n")
        assert profile.nssdatabases(chroot_with(nssdatabases="p/nssdatabases"), places) == (f"db{number}",)


def test_an_absolute_value_is_below_a_configuration_directory_too(places: Places) -> None:
    write(places.native_config_dir, "p/nssdatabases", "passwd\n")
    assert profile.nssdatabases(chroot_with(nssdatabases="/p/nssdatabases"), places) == ("passwd",)


@pytest.mark.parametrize("kind", READERS)
def test_a_missing_file_is_an_error(places: Places, kind: str) -> None:
    with pytest.raises(ConfigError) as caught:
        READERS[kind](chroot_with(**{kind: f"p/{kind}"}), places)
    schroots, *others = (f"{directory}/p/{kind}" for directory in places.config_path)
    words = {"fstab": "setup_fstab"}.get(kind, kind)
    assert caught.value.text == f"{words} file '{schroots}' does not exist"
    assert caught.value.hint == (
        f"create it (or {others[0]}, or {others[1]}), choose another profile, or set setup.{kind} to nothing"
    )


def test_directories_that_are_one_are_named_once(tmp_path: Path) -> None:
    one = str(tmp_path)
    places = Places(native_config_dir=one, schroot_config_dir=one, stock_etc_dir=one)
    with pytest.raises(ConfigError, match=f"^setup_fstab file '{one}/x' does not exist; create it, choose"):
        profile.fstab(chroot_with(fstab="x"), places)


@pytest.mark.parametrize("value", ["../x", "a/../../x", "..", "a/.."])
def test_no_climbing(places: Places, value: str) -> None:
    with pytest.raises(ConfigError, match="leaves the configuration directory"):
        profile.fstab(chroot_with(fstab=value), places)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("writable", "File has write permissions for others"),
        ("foreign", "File is not owned by user root"),
        ("directory", "File is not a regular file"),
        ("fifo", "File is not a regular file"),
        ("large", "the file is larger than 1048576 bytes"),
    ],
)
def test_a_file_that_is_not_believed_stops_the_search(places: Places, kind: str, reason: str) -> None:
    path = write(places.schroot_config_dir, "p/fstab", "")
    write(places.native_config_dir, "p/fstab", "")
    if kind == "writable":
        path.chmod(0o666)
    elif kind == "foreign":
        os.chown(path, 65534, 0)
    elif kind == "large":
        path.write_bytes(b"\n" * ((1 << 20) + 1))
    else:
        path.unlink()
        os.mkfifo(path) if kind == "fifo" else path.mkdir()
    with pytest.raises(ConfigError) as caught:
        profile.fstab(chroot_with(fstab="p/fstab"), places)
    assert caught.value.text == f"setup.fstab: {path}: {reason}"
    assert caught.value.hint


def test_script_config_names_the_files_beside_it(places: Places) -> None:
    write(places.schroot_config_dir, "foo/fstab", "/proc /proc none rw,bind\n")
    write(places.schroot_config_dir, "schroot.conf", "[a]\ndirectory=/srv\nscript-config=foo/config\n")
    chroot = load(places).chroots["a"]
    assert profile.fstab(chroot, places) == (FstabLine("/proc", "/proc", "none", "rw,bind"),)
    with pytest.raises(ConfigError, match=r"copyfiles file '.*/schroot/foo/copyfiles' does not exist"):
        profile.copyfiles(chroot, places)


# ---------------------------------------------------------------------------------------------- fstab


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("/proc /proc none rw,bind 0 0", ("/proc", "/proc", "none", "rw,bind"), id="all six"),
        pytest.param("/proc\t \t/proc  none\trw,bind", ("/proc", "/proc", "none", "rw,bind"), id="no dump, no pass"),
        pytest.param("tmpfs /dev/shm tmpfs", ("tmpfs", "/dev/shm", "tmpfs", "defaults"), id="no options"),
        pytest.param("  t /t tmpfs ro 0", ("t", "/t", "tmpfs", "ro"), id="blanks in front, no pass"),
        pytest.param("t /t tmpfs ro # why", ("t", "/t", "tmpfs", "ro"), id="more words are not looked at"),
        pytest.param(r"/a\040b /c\011d none bind", ("/a b", "/c\td", "none", "bind"), id="blank and tab"),
        pytest.param(r"/a\012b /c\134d none bind", ("/a\nb", "/c\\d", "none", "bind"), id="newline and backslash"),
        pytest.param(r"/a\\040 /c none bind", ("/a\\040", "/c", "none", "bind"), id="an escaped backslash"),
        pytest.param(r"/a\043 /c none bind", (r"/a\043", "/c", "none", "bind"), id="no other escape"),
        pytest.param("t rel tmpfs", ("t", "/rel", "tmpfs", "defaults"), id="a target without its slash"),
        pytest.param("t /x..y/...z tmpfs", ("t", "/x..y/...z", "tmpfs", "defaults"), id="dots in names"),
        pytest.param("/../x /y none bind", ("/../x", "/y", "none", "bind"), id="a source may climb"),
        pytest.param("t /t tmpfs ro\r", ("t", "/t", "tmpfs", "ro"), id="DOS line end"),
        pytest.param(
            "t\u00a0u /t tmpfs", ("t\u00a0u", "/t", "tmpfs", "defaults"), id="only blanks and tabs part fields"
        ),
    ],
)
def test_fstab_lines(places: Places, line: str, expected: tuple[str, str, str, str]) -> None:
    assert read(places, "fstab", f"# x\n\n \t\n   # y\n{line}\n") == (FstabLine(*expected),)


def test_fstab_keeps_its_order_and_needs_no_last_newline(places: Places) -> None:
    lines = read(places, "fstab", "b /b none bind\na /a none bind\nb /b none bind")
    assert [line.source for line in lines if isinstance(line, FstabLine)] == ["b", "a", "b"]


@pytest.mark.parametrize(
    ("kind", "line", "reason"),
    [
        pytest.param("fstab", "/proc", "1 of at least 3 fields", id="one field"),
        pytest.param("fstab", "/proc /proc", "2 of at least 3 fields", id="two fields"),
        pytest.param("fstab", "t /a/../b tmpfs", "the target '/a/../b' has a '..' in it", id="climbing target"),
        pytest.param("fstab", "t .. tmpfs", "the target '/..' has a '..' in it", id="climbing relative target"),
        pytest.param("fstab", b"t /\xff tmpfs", "the line is not UTF-8 text", id="not UTF-8"),
        pytest.param("fstab", "t /a\0b tmpfs", "the line is not UTF-8 text", id="NUL"),
        pytest.param("copyfiles", "/etc/hosts /../x", "the target '/../x' has a '..' in it", id="climbing copy"),
        pytest.param("copyfiles", "/a/../b", "the target '/a/../b' has a '..' in it", id="climbing path for both"),
        pytest.param("nssdatabases", "Passwd", "'Passwd' is not the name of a database", id="capital"),
        pytest.param("nssdatabases", "../passwd", "'../passwd' is not the name of a database", id="path"),
        pytest.param("nssdatabases", "passwd group", "'passwd group' is not the name of a database", id="two names"),
        pytest.param("nssdatabases", "passwd # x", "'passwd # x' is not the name of a database", id="comment behind"),
        pytest.param("nssdatabases", "0a", "'0a' is not the name of a database", id="digit first"),
    ],
)
def test_lines_that_make_no_sense(places: Places, kind: str, line: str | bytes, reason: str) -> None:
    raw = line.encode() if isinstance(line, str) else line
    with pytest.raises(ConfigError) as caught:
        read(places, kind, b"# x\n" + raw + b"\n")
    assert caught.value.text == f"{places.schroot_config_dir}/p/{kind}, line 2: {reason}"
    assert caught.value.hint


# ---------------------------------------------------------------------------------------------- copyfiles, nssdatabases


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("/etc/hosts", ("/etc/hosts", "/etc/hosts"), id="same place"),
        pytest.param("/a /b", ("/a", "/b"), id="another place"),
        pytest.param("\t/a \t /b ", ("/a", "/b"), id="blanks"),
        pytest.param("/a /b c", ("/a", "/b c"), id="the rest of the line is the target"),
        pytest.param(r"/a\ b /c\\d", ("/a b", r"/c\d"), id="a backslash keeps what follows"),
        pytest.param("/a#b", ("/a#b", "/a#b"), id="a mark inside a name"),
        pytest.param("/x/../a /b", ("/x/../a", "/b"), id="a source may climb"),
    ],
)
def test_copy_lines(places: Places, line: str, expected: tuple[str, str]) -> None:
    assert read(places, "copyfiles", f"# x\n\n  #y\n{line}\n") == (CopyLine(*expected),)


def test_databases_come_once_each_in_order(places: Places) -> None:
    text = "# x\n passwd\n\ngroup \nx-y_0\npasswd\n"
    assert read(places, "nssdatabases", text) == ("passwd", "group", "x-y_0")


@pytest.mark.parametrize("kind", READERS)
@given(text=st.one_of(st.binary(), st.text(alphabet=" \t\n\r#/\\.0134ab\0é").map(str.encode)))
def test_any_file_gives_lines_or_an_error_that_names_the_line(places: Places, kind: str, text: bytes) -> None:
    try:
        found = read(places, kind, text)
    except ConfigError as error:
        assert f"/p/{kind}, line " in error.text
        assert error.hint
    else:
        assert len(found) <= text.count(b"\n") + 1


# ---------------------------------------------------------------------------------------------- the stock profiles

USERS = ("passwd", "shadow", "group", "gshadow")
NETWORK = ("services", "protocols", "networks", "hosts")
SHARED = ["/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/home", "/tmp"]
BUILD = ["/proc", "/sys", "/dev/pts", "/dev/shm", "/build"]


@pytest.fixture
def stock(places: Places) -> Places:
    shutil.copytree(REPOSITORY / "etc", places.stock_etc_dir)
    for path in Path(places.stock_etc_dir).rglob("*"):
        os.chown(path, 0, 0)
    return places


@pytest.mark.parametrize(
    ("name", "targets", "copies", "databases"),
    [
        ("minimal", ["/proc", "/sys"], ["/etc/resolv.conf"], USERS),
        ("default", SHARED, ["/etc/resolv.conf"], USERS + NETWORK),
        ("desktop", [*SHARED, "/var/lib/dbus"], ["/etc/resolv.conf"], USERS + NETWORK),
        ("sbuild", BUILD, ["/etc/resolv.conf"], USERS),
        ("buildd", BUILD, ["/etc/resolv.conf", "/etc/hosts", "/etc/networks"], USERS),
    ],
)
def test_stock_profiles(
    stock: Places, name: str, targets: list[str], copies: list[str], databases: tuple[str, ...]
) -> None:
    write(stock.schroot_config_dir, "schroot.conf", f"[a]\ndirectory=/srv\nprofile={name}\n")
    chroot = load(stock).chroots["a"]
    assert [line.target for line in profile.fstab(chroot, stock)] == targets
    assert profile.copyfiles(chroot, stock) == tuple(CopyLine(path, path) for path in copies)
    assert profile.nssdatabases(chroot, stock) == databases


@pytest.mark.parametrize("name", STOCK)
def test_stock_profiles_bind_what_they_name_to_its_own_place(stock: Places, name: str) -> None:
    lines = profile.fstab(chroot_with(fstab=f"{name}/fstab"), stock)
    for line in lines:
        if line.fstype == "none":
            assert line.options == "rw,bind"
            assert line.target == ("/build" if line.source == "/var/lib/sbuild/build" else line.source)


@pytest.mark.parametrize("name", ["sbuild", "buildd"])
def test_builds_get_terminals_and_shared_memory_of_their_own(stock: Places, name: str) -> None:
    lines = {line.target: line for line in profile.fstab(chroot_with(fstab=f"{name}/fstab"), stock)}
    assert lines["/dev/pts"] == FstabLine("devpts", "/dev/pts", "devpts", "rw,newinstance,ptmxmode=666,mode=620,gid=5")
    assert lines["/dev/shm"] == FstabLine("tmpfs", "/dev/shm", "tmpfs", "defaults")


def test_relative_paths_are_left_to_who_copies(places: Places) -> None:
    assert read(places, "copyfiles", "etc/a\n/etc/a etc/b\n\\\n") == (
        CopyLine("etc/a", "etc/a"), CopyLine("/etc/a", "etc/b"), CopyLine("\\", "\\"),
    )  # fmt: skip
