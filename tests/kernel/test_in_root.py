"""Files below a root that is full of links: against a model of what a process with that root would find."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from helpers import bind, umount
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sessions.linux import files, replacing

pytestmark = pytest.mark.usefixtures("read_only_host")
NAMES = ("a", "b", "c", "d")
Names = tuple[str, ...]
# A few words make many paths: absolute and relative, with dots, repeated slashes, and a slash at the end.
WORDS = st.lists(st.sampled_from((*NAMES, ".", "..", "")), min_size=1, max_size=5)
TARGETS = st.builds(lambda start, words: start + "/".join(words) or ".", st.sampled_from(("", "/", "../../..")), WORDS)
PATHS = st.builds(lambda words: "/" + "/".join(words), st.lists(st.sampled_from(NAMES), min_size=1, max_size=4))
ENTRIES = st.one_of(st.just(("directory", "")), st.just(("file", "")), st.tuples(st.just("link"), TARGETS))
TREES = st.dictionaries(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(tuple), ENTRIES, max_size=10)


@dataclass
class Model:
    """A tree in memory: names from the root on, each a directory, a file, or a link with its target."""

    entries: dict[Names, tuple[str, str]] = field(default_factory=dict)

    def add(self, names: Names, entry: tuple[str, str]) -> None:
        for depth in range(1, len(names)):
            if self.entries.setdefault(names[:depth], ("directory", ""))[0] != "directory":
                return
        self.entries.setdefault(names, entry)

    def kind(self, names: Names) -> str:
        return self.entries.get(names, ("nothing", ""))[0] if names else "directory"

    def resolve(self, path: str, budget: int = 40) -> Names | None:
        """What open(2) of a path from the root on leads to; None if it fails."""
        found = self._walk((), path, [budget])
        return found if found is not None and self.kind(found) != "nothing" else None

    def _walk(self, start: Names, path: str, budget: list[int]) -> Names | None:
        """Follow every link; the last name need not exist."""
        at: Names = () if path.startswith("/") else start
        words = path.split("/")
        for number, word in enumerate(words):
            if self.kind(at) != "directory":
                return None
            if word in ("", "."):
                continue
            if word == "..":
                at = at[:-1]
                continue
            at = (*at, word)
            if self.kind(at) == "link":
                budget[0] -= 1
                if budget[0] < 0:
                    return None
                found = self._walk(at[:-1], self.entries[at][1], budget)
                if found is None:
                    return None
                at = found
            if self.kind(at) == "nothing" and number + 1 < len(words):
                return None
        if path.endswith(("/", "/.")) and self.kind(at) != "directory":
            return None
        return at

    def locate(self, path: str, budget: int = 40) -> Names | None:
        """The place that creating a file at a path would fill, through links that dangle too."""
        above, _slash, name = path.rstrip("/").rpartition("/")
        directory = self.resolve(above or "/")
        if directory is None or self.kind(directory) != "directory" or name in ("", ".", "..") or budget == 0:
            return None
        place = (*directory, name)
        if self.kind(place) != "link":
            return place
        target = self.entries[place][1]
        return self.locate(target if target.startswith("/") else f"/{'/'.join(directory)}/{target}", budget - 1)


def model_of(tree: dict[Names, tuple[str, str]]) -> Model:
    model = Model()
    for names, entry in tree.items():
        model.add(names, entry)
    return model


@contextmanager
def built(model: Model, place: Path) -> Iterator[tuple[Path, int]]:
    """The tree on a disk, in a directory whose other contents must not change; checked at the end."""
    top = Path(tempfile.mkdtemp(dir=place))
    root = top / "canary/canary/root"
    root.mkdir(parents=True)
    for name in NAMES:
        (top / "canary" / name).mkdir()
        (top / "canary/canary" / name).write_text("the host's own")
    for names, (kind, target) in sorted(model.entries.items()):
        path = root.joinpath(*names)
        if kind == "directory":
            path.mkdir()
        elif kind == "file":
            path.write_text(f"file {'/'.join(names)}")
        else:
            path.symlink_to(target)
    before = outside(top, root)
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        yield root, fd
        assert outside(top, root) == before
    finally:
        os.close(fd)
        shutil.rmtree(top)


def outside(top: Path, root: Path) -> list[tuple[str, int, bytes]]:
    found = []
    for directory, names, others in os.walk(top):
        if Path(directory) == root.parent:
            names.remove("root")
        for name in (*names, *others):
            path = Path(directory, name)
            status = path.lstat()
            found.append((str(path), status.st_mtime_ns, path.read_bytes() if stat.S_ISREG(status.st_mode) else b""))
    return sorted(found)


def contents(root: Path) -> dict[Names, str]:
    """Every name below the root, and what it is."""
    found = {}
    for path in root.rglob("*"):
        names = path.relative_to(root).parts
        if path.is_symlink():
            found[names] = f"link {os.readlink(path)}"
        else:
            found[names] = "directory" if path.is_dir() else path.read_text()
    return found


checked = settings(max_examples=150)


@checked
@given(TREES, st.one_of(PATHS, TARGETS))
@example({("a",): ("link", "../../../.."), ("b",): ("link", "/a/canary")}, "/a/b/c")
def test_locate_finds_what_a_process_with_that_root_would(
    tmp_path: Path, tree: dict[Names, tuple[str, str]], path: str
) -> None:
    model = model_of(tree)
    expected = model.locate(path if path.startswith("/") else f"/{path}")
    with built(model, tmp_path) as (root, fd):
        try:
            directory_fd, name, _found = files.locate(fd, path)
        except OSError:
            assert expected is None
            return
        found = Path(os.readlink(f"/proc/self/fd/{directory_fd}"), name)
        os.close(directory_fd)
        assert found.parts[: len(root.parts)] == root.parts
        assert found.relative_to(root).parts == expected
        assert not found.is_symlink()


@checked
@given(TREES, PATHS, st.booleans())
@example({("a",): ("link", "/../../canary/a"), ("b", "c"): ("link", "../../../../../../a/new")}, "/b/c", True)
@example({("a",): ("link", "/../../canary/a"), ("b", "c"): ("link", "../../../../../../a/new")}, "/b/c", False)
def test_replace_file_writes_below_the_root_and_nothing_else(
    tmp_path: Path, tree: dict[Names, tuple[str, str]], path: str, is_watched: bool
) -> None:
    model = model_of(tree)
    with built(model, tmp_path) as (root, fd):
        before = contents(root)
        try:
            replacing.replace_file(fd, path, b"new", temporary=".temporary", is_watched=is_watched)
        except OSError:
            after = contents(root)
            assert {names: what for names, what in after.items() if what != "directory"} == {
                names: what for names, what in before.items() if what != "directory"
            }
            return
        after = contents(root)
        written = [names for names, what in after.items() if what == "new"]
        assert len(written) == 1
        place = files.locate(fd, path)
        os.close(place[0])
        assert Path(os.readlink(f"/proc/self/fd/{fd}"), *written[0]).name == place[1]
        # All else is as it was, but for directories that were missing above.
        changed = {names for names in {*before, *after} if before.get(names) != after.get(names)}
        assert written[0] in changed
        assert all(names == written[0] or (names not in before and after[names] == "directory") for names in changed)
        # A link to "name/" is written through like one to "name", but then leads to no directory.
        if not any(target.endswith("/") for _kind, target in tree.values()):
            replacing.replace_file(fd, path, b"newer", temporary=".temporary", is_watched=is_watched)
            assert root.joinpath(*written[0]).read_bytes() == b"newer"


@checked
@given(TREES, PATHS)
def test_missing_directories_are_made_and_unmade(tmp_path: Path, tree: dict[Names, tuple[str, str]], path: str) -> None:
    """What a mount asks for: each is made, and taking them away again leaves all as it was."""
    model = model_of(tree)
    with built(model, tmp_path) as (root, fd):
        before = contents(root)
        try:
            missing = files.missing_directories(fd, path)
        except OSError:
            assert model.resolve(path) is None
            return
        assert bool(missing) == (model.resolve(path) is None)
        assert all(path == one or path.startswith(f"{one}/") for one in missing)
        assert missing == sorted(missing, key=len)
        made = []
        try:
            for one in missing:
                files.make_in_root(fd, one, as_file=False)
                made.append(one)
            os.close(files.open_in_root(fd, path, os.O_PATH))
        except OSError:
            pass
        for one in reversed(made):
            files.remove_made(fd, one)
        assert contents(root) == before


def test_what_was_made_stays_if_somebody_uses_it(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    for name in ("directory", "file", "full"):
        files.make_in_root(fd, f"/{name}", as_file=name != "directory")
    (tmp_path / "directory/used").touch()
    (tmp_path / "full").write_text("used")
    (tmp_path / "link").symlink_to("nosuch")
    for name in ("directory", "file", "full", "link", "nosuch", "nosuch/nosuch"):
        files.remove_made(fd, f"/{name}")
    assert sorted(os.listdir(tmp_path)) == ["directory", "full", "link"]
    os.close(fd)


@pytest.mark.parametrize("is_watched", [True, False])
def test_owner_and_mode_of_what_is_replaced_are_kept(tmp_path: Path, is_watched: bool) -> None:
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    (tmp_path / "old").write_text("old")
    (tmp_path / "old").chmod(0o640)
    os.chown(tmp_path / "old", 1234, 1235)
    os.link(tmp_path / "old", tmp_path / "other name")
    os.mkfifo(tmp_path / "fifo")
    for name in ("old", "fifo", "new/er/file"):
        replacing.replace_file(fd, f"/{name}", b"data", temporary=".t", is_watched=is_watched)
    found = (tmp_path / "old").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, 1234, 1235)
    assert (tmp_path / "other name").read_text() == "old"
    assert stat.S_IMODE((tmp_path / "fifo").stat().st_mode) == 0o644
    for data in (b"longer than before", b"other"):
        inode = (tmp_path / "old").stat().st_ino
        replacing.replace_file(fd, "/old", data, temporary=".t", is_watched=is_watched, mode=0o4755)
        assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o4755
        assert ((tmp_path / "old").stat().st_ino == inode) == (not is_watched)
    (tmp_path / "directory").mkdir()
    with pytest.raises(IsADirectoryError):
        replacing.replace_file(fd, "/directory", b"data", temporary=".t", is_watched=is_watched)
    inode = (tmp_path / "old").stat().st_ino
    replacing.replace_file(fd, "/old", b"other", temporary=".t", is_watched=is_watched)
    replacing.replace_file(
        fd, "/old", b"never", temporary=".t", is_watched=is_watched, original=os.stat(tmp_path / "old")
    )
    assert ((tmp_path / "old").stat().st_ino, (tmp_path / "old").read_text()) == (inode, "other")
    assert ".t" not in os.listdir(tmp_path)
    os.close(fd)


def test_magic_links_are_refused(tmp_path: Path) -> None:
    """/proc/self/root and the like would lead out of any root."""
    fd = os.open("/", os.O_PATH | os.O_DIRECTORY)
    for path in ("/proc/self/root/etc/passwd", "/proc/self/cwd/x", "/proc/self/fd/0/x", "/proc/self/exe"):
        with pytest.raises(OSError, match="symbolic links"):
            os.close(files.open_in_root(fd, path, os.O_PATH))
    os.close(fd)


def test_a_file_below_a_mount_is_not_written_where_it_is(tmp_path: Path) -> None:
    """What is mounted inside may be the host's, where somebody could see half a file."""
    (tmp_path / "of the host").mkdir()
    (tmp_path / "root/shared").mkdir(parents=True)
    inodes = []
    for place in (tmp_path / "root", tmp_path / "of the host"):
        (place / "file").write_text("old")
        inodes.append((place / "file").stat().st_ino)
    bind(tmp_path / "of the host", tmp_path / "root/shared")
    fd = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    try:
        for path in ("/file", "/shared/file"):
            replacing.replace_file(fd, path, b"new", temporary=".t", is_watched=False)
            assert (tmp_path / f"root{path}").read_text() == "new"
        assert (tmp_path / "root/file").stat().st_ino == inodes[0]
        assert (tmp_path / "of the host/file").stat().st_ino != inodes[1]
    finally:
        os.close(fd)
        umount(tmp_path / "root/shared")
