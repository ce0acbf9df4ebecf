"""Loading: which files count, what a bad one costs, when the cache is right, and that nothing raises."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from configuring import PLAIN, REPOSITORY, A, load_schroot, load_toml, places_in, write
from hypothesis import given
from hypothesis import strategies as st

from sessions.config import load as load_module
from sessions.config.load import Configuration, Problem, load, load_cached
from sessions.data import replace
from sessions.model import Places


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return places_in(tmp_path)


def test_no_files_and_no_directories_are_no_problem(places: Places) -> None:
    configuration = load(places)
    assert (configuration.chroots, configuration.problems) == ({}, ())


def test_files_of_both_dialects_are_read_in_order(places: Places) -> None:
    write(places.schroot_config_dir, "schroot.conf", PLAIN.format("a", "a"))
    write(places.schroot_config_dir, "chroot.d/z", PLAIN.format("b", "b"))
    write(places.schroot_config_dir, "chroot.d/c.toml", PLAIN.format("c", "c"))
    write(places.native_config_dir, "sessions.toml", '[chroot.d]\ndirectory = "/srv/d"\n')
    write(places.native_config_dir, "chroot.d/e.toml", '[chroot.e]\ndirectory = "/srv/e"\n')
    write(places.native_config_dir, "chroot.d/f.conf", "this is not read")
    configuration = load(places)
    # In schroot's directory every file is in schroot's dialect, whatever its ending.
    assert list(configuration.chroots) == ["a", "c", "b", "d", "e"]
    assert configuration.problems == ()


@pytest.mark.parametrize("through_a_link", [False, True])
def test_one_directory_for_both_dialects(tmp_path: Path, places: Places, through_a_link: bool) -> None:
    directory = places.schroot_config_dir
    write(directory, "schroot.conf", PLAIN.format("a", "a"))
    write(directory, "chroot.d/b", PLAIN.format("b", "b"))
    write(directory, "sessions.toml", '[chroot.c]\ndirectory = "/srv/c"\n')
    write(directory, "chroot.d/d.toml", '[chroot.d]\ndirectory = "/srv/d"\n')
    if through_a_link:
        (tmp_path / "native").symlink_to(directory)
    else:
        places = replace(places, native_config_dir=directory)
    configuration = load(places)
    assert list(configuration.chroots) == ["a", "b", "c", "d"]
    assert configuration.problems == ()


@pytest.mark.parametrize("name", ["x.bak", "x.conf", "0", "A_b-c.d", "dpkg-old.x"])
def test_file_names_that_count(places: Places, name: str) -> None:
    write(places.schroot_config_dir, f"chroot.d/{name}", PLAIN.format("a", "a"))
    assert list(load(places).chroots) == ["a"]


@pytest.mark.parametrize(
    "name", [".hid", "x~", "_x", "x y", "x.dpkg-old", "x.dpkg-dist", "x.dpkg-new", "x.dpkg-tmp", "é"]
)
def test_file_names_that_are_passed_over_in_silence(places: Places, name: str) -> None:
    write(places.schroot_config_dir, f"chroot.d/{name}", "not even read")
    configuration = load(places)
    assert (configuration.chroots, configuration.problems) == ({}, ())


@pytest.mark.parametrize("main", [True, False], ids=["schroot.conf", "chroot.d"])
@pytest.mark.parametrize(
    ("kind", "severity", "reason", "remedy"),
    [
        ("writable", "error", "File has write permissions for others", "chmod o-w {}"),
        ("foreign", "error", "File is not owned by user root", "chown root {}"),
        ("large", "error", "the file is larger than 1048576 bytes", "split it, or move it away"),
        ("directory", "warning", "File is not a regular file", "move it away, or replace it by a file"),
        ("fifo", "warning", "File is not a regular file", "move it away, or replace it by a file"),
        ("socket", "warning", "File is not a regular file", "move it away, or replace it by a file"),
        ("device", "warning", "File is not a regular file", "move it away, or replace it by a file"),
        ("dangling", "warning", "Failed to stat file: No such file or directory", "correct the link, or remove it"),
        ("loop", "warning", "Failed to stat file: Too many levels of symbolic links", "correct the link, or remove it"),
    ],
)  # fmt: skip
def test_files_that_are_not_believed(
    places: Places, kind: str, severity: str, reason: str, remedy: str, main: bool
) -> None:
    path = write(places.schroot_config_dir, "schroot.conf" if main else "chroot.d/bad", PLAIN.format("bad", "bad"))
    write(places.schroot_config_dir, "chroot.d/good", PLAIN.format("good", "good"))
    if kind == "writable":
        path.chmod(0o646)
    elif kind == "foreign":
        os.chown(path, 65534, 0)
    elif kind == "large":
        path.write_bytes(b"#" * ((1 << 20) + 1))
    else:
        path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, 0o140644)
    elif kind == "device":
        os.mknod(path, 0o020644, os.makedev(1, 3))
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "loop":
        path.symlink_to(path.name)
    configuration = load(places)
    assert list(configuration.chroots) == ["good"]
    assert configuration.problems == (Problem(str(path), 0, "", "", severity, reason, remedy.format(path)),)


def test_files_that_are_believed(places: Places, tmp_path: Path) -> None:
    path = write(places.schroot_config_dir, "schroot.conf", PLAIN.format("a", "a"))
    path.chmod(0o060)
    os.chown(path, 0, 65534)
    (tmp_path / "elsewhere").write_text(PLAIN.format("b", "b"))
    (tmp_path / "schroot" / "chroot.d").mkdir()
    (tmp_path / "schroot" / "chroot.d" / "link").symlink_to("../../elsewhere")
    write(places.schroot_config_dir, "chroot.d/big", b"#" * ((1 << 20) - 1) + b"\n")
    configuration = load(places)
    assert (list(configuration.chroots), configuration.problems) == (["a", "b"], ())


def test_a_file_where_a_directory_belongs(places: Places) -> None:
    path = write(places.schroot_config_dir, "chroot.d", "x")
    (problem,) = load(places).problems
    assert str(problem) == f"{path}: cannot be listed: Not a directory; make it a directory that root can read"


@pytest.mark.parametrize("dialect", ["schroot", "toml"])
def test_bytes_that_are_not_utf8(places: Places, dialect: str) -> None:
    if dialect == "schroot":
        text = PLAIN.format("a", "a").encode() + b"description=caf\xe9\n" + PLAIN.format("b", "b").encode()
        configuration = load_schroot(places, text)
        assert (list(configuration.chroots), list(configuration.broken)) == (["b"], ["a"])
    else:
        configuration = load_toml(places, b'[chroot.a]\ndirectory = "/srv"\ndescription = "caf\xe9"\n')
        assert not configuration.chroots
    (problem,) = configuration.problems
    assert (problem.line, problem.reason, problem.severity) == (3, "the line is not UTF-8", "error")


# ---------------------------------------------------------------------------------------------- the cache


def settle(path: Path) -> None:
    """Return when `path` is older than what the cache calls too fresh; the file system's clock decides."""
    while time.time_ns() - path.stat().st_ctime_ns < 2 * load_module.UNSETTLED_NS:
        os.sched_yield()


def fill(places: Places) -> Path:
    path = write(places.schroot_config_dir, "chroot.d/a", A)
    settle(path)
    return path


def test_an_unchanged_configuration_is_not_read_again(places: Places) -> None:
    fill(places)
    assert load_cached(places) is load_cached(places)


def test_an_absent_configuration_is_kept_too(places: Places) -> None:
    assert load_cached(places) is load_cached(places)
    fill(places)
    assert list(load_cached(places).chroots) == ["a"]


def test_two_places_are_kept_apart(places: Places, tmp_path: Path) -> None:
    fill(places)
    other = places_in(tmp_path / "other")
    first = load_cached(places)
    assert load_cached(other).chroots == {}
    assert load_cached(places) is first


@pytest.mark.parametrize(
    "change",
    ["rewritten", "replaced", "removed", "added", "forbidden", "main added", "native added", "same times and size"],
)
def test_any_change_is_seen(places: Places, change: str) -> None:
    path = fill(places)
    before = load_cached(places)
    status = path.stat()
    if change == "rewritten":
        path.write_text(A.replace("/srv", "/other"))
    elif change == "replaced":
        new = write(places.schroot_config_dir, "new", A.replace("/srv", "/new"))
        new.replace(path)
    elif change == "removed":
        path.unlink()
    elif change == "added":
        write(places.schroot_config_dir, "chroot.d/b", A.replace("[a]", "[b]"))
    elif change == "forbidden":
        path.chmod(0o666)
    elif change == "main added":
        write(places.schroot_config_dir, "schroot.conf", A.replace("[a]", "[b]"))
    elif change == "native added":
        write(places.native_config_dir, "chroot.d/b.toml", '[chroot.b]\ndirectory = "/srv"\n')
    else:
        path.write_text(A.replace("/srv", "/new"))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = load_cached(places)
    assert after != before
    assert after == load(places)


def test_a_file_written_just_now_is_not_kept(places: Places) -> None:
    path = write(places.schroot_config_dir, "schroot.conf", A)
    load_cached(places)
    assert places not in load_module._KEPT or time.time_ns() - path.stat().st_ctime_ns > load_module.UNSETTLED_NS


def test_the_target_of_a_link_is_watched(places: Places, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text(A)
    link = Path(places.schroot_config_dir) / "schroot.conf"
    link.parent.mkdir()
    link.symlink_to(target)
    settle(target)
    assert list(load_cached(places).chroots) == ["a"]
    target.write_text(A.replace("[a]", "[b]"))
    assert list(load_cached(places).chroots) == ["b"]


# ---------------------------------------------------------------------------------------------- as a whole


def test_importing_costs_no_parser() -> None:
    program = (
        "import sys; before = set(sys.modules); import sessions.config.load; "
        "sys.exit(bool({'tomli', 'difflib', 'pathlib', 'subprocess'} & (set(sys.modules) - before)))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=False).returncode == 0


def test_the_example_is_right_as_it_is_and_with_its_marks_removed(places: Places) -> None:
    text = (REPOSITORY / "etc" / "sessions.toml").read_text()
    assert load_toml(places, text) == Configuration()
    lines = [line[1:] if line[:1] == "#" and line[:2] not in ("##", "# ", "#") else line for line in text.splitlines()]
    configuration = load_toml(places, "\n".join(lines))
    assert configuration.problems == ()
    assert sorted(configuration.chroots) == ["appliance", "bare", "bookworm", "old32", "rescue", "sid"]


def loaded_from(name: str, text: bytes) -> Configuration:
    with tempfile.TemporaryDirectory() as directory:
        places = places_in(Path(directory))
        write(str(Path(directory)), name, text)
        return load(places)


_KEYS = st.sampled_from(
    ["type", "directory", "file", "location", "union-type", "users", "aliases", "profile", "script-config",
     "setup.fstab", "source-clone", "environment-filter", "personality", "shell", "union-overlay-size", "a.b"]
)  # fmt: skip
_VALUES = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["", "directory", "file", "plain", "overlay", "/", "/srv", "a", "a,b", "true", "..", "[[", "(", "\0"]
    ),
)
_INI = st.lists(
    st.one_of(st.sampled_from(["[a]", "[b]", "[a"]), st.tuples(_KEYS, _VALUES).map("=".join)), max_size=12
).map(lambda lines: "\n".join(lines).encode())
_TOML = st.lists(
    st.one_of(
        st.sampled_from(["[chroot.a]", "[chroot.b]", "[chroot.a.setup]", "[x]"]),
        st.tuples(_KEYS, st.sampled_from(['""', '"/"', '"directory"', '"overlay"', '["a"]', "[1]", "{}", "'['"]))
        .map(" = ".join),
    ),
    max_size=8,
).map(lambda lines: "\n".join(lines).encode())  # fmt: skip


@given(
    st.sampled_from(["schroot/schroot.conf", "native/sessions.toml"]),
    st.one_of(st.binary(), st.text().map(str.encode), _INI, _TOML),
)
def test_any_file_gives_a_configuration_and_never_an_exception(name: str, text: bytes) -> None:
    configuration = loaded_from(name, text)
    assert set(configuration.chroots).isdisjoint(configuration.broken)
    assert set(configuration.origins) == set(configuration.chroots)
    for problem in configuration.problems:
        assert problem.reason
        assert problem.remedy
        assert problem.severity in ("error", "warning")
        assert str(problem).isprintable()
        assert 0 <= problem.line <= text.count(b"\n") + 1
    for namespace in ("chroot", "source"):
        for found in configuration.names(namespace, True):
            configuration.find(namespace, found)
    if not any(problem.is_error for problem in configuration.problems):
        assert configuration.broken == {}
