"""Archives made to do harm: each is refused for the right reason, and nothing outside the directory changes."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from helpers import snapshot
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tarmaking import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    END,
    FIFO,
    FILE,
    GNU,
    LINK,
    PAX,
    SYMLINK,
    USTAR,
    edited,
    extension,
    member,
    old_sparse_member,
    pax_header,
    sparse_member,
    write,
)

from sessions.errors import BadArchive
from sessions.linux import archive

DEVICES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
AROUND = ("a", "b", "x", "etc", "evil")
EVIL = member("../evil", data=b"evil")


def long_name(name: str) -> bytes:
    return extension(b"L", name.encode() + b"\0")


def long_link(name: str) -> bytes:
    return extension(b"K", name.encode() + b"\0")


def octal(number: int) -> bytes:
    return b"%011o\0" % number


TWO_PATHS = extension(b"x", b"10 path=a\n16 path=../evil\n")

NAMES: dict[str, tuple[list[bytes], str]] = {
    "absolute": ([member("/etc/passwd")], "'/etc/passwd' is not right: its name is absolute"),
    "absolute twice": ([member("//etc/passwd")], "its name is absolute"),
    "absolute, pax": ([member("a", pax={"path": "/etc/passwd"})], "'/etc/passwd' is not right: its name is absolute"),
    "absolute, long": ([long_name("/" + "e" * 200), member("a")], "its name is absolute"),
    "absolute, prefix": ([edited(member("passwd", form=USTAR), (345, b"/etc"))], "'/etc/passwd' is not right"),
    "absolute directory": ([member("/etc", DIRECTORY)], "its name is absolute"),
    "root": ([member("/", DIRECTORY)], "is not right"),
    "up": ([EVIL], "'../evil' is not right: its name holds '..'"),
    "up inside": ([member("a/../b")], "'a/../b' is not right: its name holds '..'"),
    "up at the end": ([member("a/..", DIRECTORY)], "its name holds '..'"),
    "up, pax": ([member("a", pax={"path": "../evil"})], "'../evil' is not right: its name holds '..'"),
    "up, long": ([long_name("a/" * 100 + "../" * 101 + "evil"), member("a")], "its name holds '..'"),
    "up, sparse": ([sparse_member("../evil", [(0, 512)], bytes(512), 512)], "'../evil' is not right"),
    "empty": ([member("")], "its name is empty"),
    "empty, pax": ([member("a", pax={"path": ""})], "its name is empty"),
    "empty, long": ([extension(b"L", b""), member("a")], "its name is empty"),
    "NUL, pax": ([member("a", pax={"path": "a\0/../../b"})], "its name holds"),
    "NUL only, pax": ([member("a", pax={"path": "a\0b"})], "its name holds a NUL"),
    "the root as a file": ([member(".")], "takes the place of the root directory"),
    "the root as a link": ([member("./.", SYMLINK, link="/etc")], "takes the place of the root directory"),
    "a file like a directory": ([member("a/")], "is a file with the name of a directory"),
}
LINKS: dict[str, tuple[list[bytes], str]] = {
    "hard, absolute": ([member("a", LINK, link="/etc/shadow")], "'a' is not right: the name it links to is absolute"),
    "hard, up": ([member("a", LINK, link="b/../../etc/shadow")], "the name it links to holds '..'"),
    "hard, empty": ([member("a", LINK)], "the name it links to is empty"),
    "hard, pax": ([member("a", LINK, link="b", pax={"linkpath": "/etc/shadow"})], "links to is absolute"),
    "hard, long": ([long_link("../" * 50 + "x"), member("a", LINK)], "the name it links to holds '..'"),
    "hard, through": (
        [member("a", SYMLINK, link="/etc"), member("b", LINK, link="a/shadow")],
        "'b' goes through the symbolic link 'a', which leads to '/etc'",
    ),
    "symbolic, up": ([member("a", SYMLINK, link="..")], "'a' leads out of the tree, above its root"),
    "symbolic, up from below": ([member("a/b/c", SYMLINK, link="../../../x")], "leads out of the tree"),
    "symbolic, up after down": ([member("a", SYMLINK, link="b/c/../../../x")], "leads out of the tree"),
    "symbolic, pax": ([member("a", SYMLINK, link="b", pax={"linkpath": "../x"})], "leads out of the tree"),
    "symbolic, long": ([long_link("../" * 50 + "x"), member("a", SYMLINK)], "leads out of the tree"),
    "symbolic, empty": ([member("a", SYMLINK)], "to an empty name"),
    "symbolic, by way of another": (
        [member("a/b/top", SYMLINK, link="../.."), member("c", SYMLINK, link="a/b/top/../x")],
        "'c' leads out of the tree",
    ),
    "symbolic, by way of a later one": (
        [member("c", SYMLINK, link="a/b/top/../x"), member("a/b/top", SYMLINK, link="../..")],
        "'c' leads out of the tree",
    ),
    "symbolic, again as a hard link higher up": (
        [member("a/b", SYMLINK, link="../x"), member("c", LINK, link="a/b")],
        "'c' leads out of the tree",
    ),
    "through an absolute one": (
        [member("a", SYMLINK, link="/etc"), member("a/evil", data=b"evil")],
        "'a/evil' goes through the symbolic link 'a', which leads to '/etc'",
    ),
    "through two": (
        [member("a", SYMLINK, link="/etc"), member("b", SYMLINK, link="a"), member("b/evil")],
        "'b/evil' goes through the symbolic link 'a', which leads to '/etc'",
    ),
    "through a hard link to one": (
        [member("a", SYMLINK, link="/etc"), member("b", LINK, link="a"), member("b/evil")],
        "'b/evil' goes through the symbolic link 'b'",
    ),
    "through one that came in place of a directory": (
        [member("a", DIRECTORY), member("a", SYMLINK, link="/etc"), member("a/evil")],
        "'a/evil' goes through",
    ),
    "through one under another name": (
        [member("x/a", SYMLINK, link="/etc"), member("b", SYMLINK, link="x"), member("b/a/evil")],
        "'b/a/evil' goes through the symbolic link 'x/a'",
    ),
    "through a circle": (
        [member("a", SYMLINK, link="b"), member("b", SYMLINK, link="a"), member("a/evil")],
        "'a/evil' goes through",
    ),
    "in place of one, file": (
        [member("a", SYMLINK, link="/etc/evil"), member("./a", data=b"evil")],
        "'./a' takes the place of a symbolic link to '/etc/evil'",
    ),
    "in place of one, directory": (
        [member("a", SYMLINK, link="/etc"), member("a/", DIRECTORY), member("a/evil")],
        "takes the place of a symbolic link to '/etc'",
    ),
}
OBJECTS: dict[str, tuple[list[bytes], str]] = {
    "disk": ([member("dev/sda", BLOCK, devmajor=8, devminor=0)], "'dev/sda' is the block device 8:0"),
    "null as a block device": ([member("dev/null", BLOCK, devmajor=1, devminor=3)], "is the block device 1:3"),
    "memory": ([member("dev/mem", CHARACTER, devmajor=1, devminor=1)], "is the character device 1:1"),
    "memory called null": ([member("dev/null", CHARACTER, devmajor=1, devminor=1)], "is the character device 1:1"),
    "null elsewhere": ([member("tmp/null", CHARACTER, devmajor=1, devminor=3)], "is the character device 1:3"),
    "null elsewhere, linked": (
        [
            member("x", DIRECTORY),
            member("dev", SYMLINK, link="x"),
            member("dev/null", CHARACTER, devmajor=1, devminor=3),
        ],
        "is the character device 1:3",
    ),
    "another volume": ([member("a", b"M")], "is of the unknown type b'M'"),
    "volume name": ([member("a", b"V"), member("b")], "is of the unknown type b'V'"),
    "incremental dump": ([member("a", b"D")], "is of the unknown type b'D'"),
    "no type": ([edited(member("a"), (156, b"\xff"))], "is of the unknown type"),
}
SIZES: dict[str, tuple[list[bytes], str]] = {
    "more than there is": ([edited(member("a"), (124, octal(100_000)))], "it ends within a member"),
    "swallowing the end": ([edited(member("a"), (124, octal(1024)))], "it ends without the mark of its end"),
    "negative": ([edited(member("a"), (124, b"\xff" * 12))], "has the size"),
    "negative octal": ([edited(member("a"), (124, b"-0000000512\0"))], "has the size"),
    "base 64": ([edited(member("a"), (124, b"+AAAAAAAAAAB"))], "has the size"),
    "blank": ([edited(member("a"), (124, b" " * 12))], "has the size"),
    "huge": ([edited(member("a"), (124, b"\x80" + b"\xff" * 11))], "has the size"),
    "just possible": ([edited(member("a"), (124, b"\x80\0\0\0\x7f" + b"\xff" * 7))], "it ends within a member"),
    "pax, other than the header's": ([member("a", pax={"size": "512"}), EVIL], "no header where one should be"),
    "pax, hiding a member": ([member("a", data=EVIL, pax={"size": "0"})], "'../evil' is not right"),
    "pax, no number": ([member("a", pax={"size": "-1"})], "has the size b'-1'"),
    "for all": ([pax_header(("size", "0"), kind=b"g"), member("a", data=EVIL)], "says more than times and owners"),
    "of a link": ([edited(member("a", SYMLINK, link="b"), (124, octal(1024))), EVIL], "has data, which its type"),
    "of a directory": ([edited(member("a", DIRECTORY), (124, octal(1024))), EVIL], "has data, which its type"),
    "of a hard link": ([member("a"), member("b", LINK, link="a", pax={"size": "1024"}), EVIL], "has data, which its"),
    "of a long name": ([edited(extension(b"L", b"")[:512], (124, octal(2**33))), member("a")], "bytes of headers"),
    "of a pax header": ([edited(extension(b"x", b"")[:512], (124, octal(2**33))), member("a")], "bytes of headers"),
    "sparse, more than stored": ([sparse_member("a", [(0, 2048)], bytes(512), 2048), EVIL], "map does not fit"),
    "sparse, less than stored": ([sparse_member("a", [(0, 512)], EVIL, 512)], "map does not fit"),
    "sparse, backwards": ([sparse_member("a", [(512, 512), (0, 512)], bytes(1024), 1024)], "map does not fit"),
    "sparse, beyond the end": ([sparse_member("a", [(0, 512)], bytes(512), 100)], "map does not fit"),
    "sparse, words": ([sparse_member("a", [(0, 512)], bytes(512), 512, realsize="x")], "no list of numbers"),
    "sparse, other version": ([sparse_member("a", [(0, 512)], bytes(512), 512, minor="1")], "other than 1.0"),
    "sparse, old, more": ([old_sparse_member("a", [(0, 2048)], bytes(512), 2048), EVIL], "map does not fit"),
    "sparse, old, less": ([old_sparse_member("a", [(0, 512)], EVIL, 512)], "map does not fit"),
    "sparse, old, more map": (
        [old_sparse_member("a", [(0, 512)], bytes(512), 512, more=bytes(512)), EVIL],
        "map goes on after its end",
    ),
    "sparse, old, in a new format": ([edited(member("a", form=USTAR), (156, b"S"))], "is a sparse file of two formats"),
    "sparse, old, with pax": (
        [pax_header(("path", "b")), old_sparse_member("a", [(0, 512)], bytes(512), 512)],
        "is a sparse file of two formats",
    ),
    "sparse, half said": ([member("a", data=EVIL, pax={"GNU.sparse.size": "0"})], "other than 1.0"),
}
READINGS: dict[str, tuple[list[bytes], str]] = {
    "two long names": ([long_name("good"), long_name("../evil"), member("a")], "two headers of one kind"),
    "two pax headers": ([pax_header(("path", "x")), pax_header(("path", "../evil")), member("a")], "two headers"),
    "two for all": ([pax_header(("comment", "x"), kind=b"g")] * 2 + [member("a")], "two headers"),
    "for all, too late": ([long_name("a"), pax_header(("comment", "x"), kind=b"g"), member("b")], "the wrong order"),
    "two paths": ([pax_header(("path", "good"), ("path", "../evil")), member("a")], "has 'path' twice"),
    "long name before pax": ([long_name("../evil"), pax_header(("path", "good")), member("a")], "read differently"),
    "long link before pax": (
        [long_link("../evil"), pax_header(("linkpath", "good")), member("a", SYMLINK, link="x")],
        "read differently",
    ),
    "no format": ([edited(member("a"), (262, b" x\0"))], "no header where one should be"),
    "prefix of no format": ([edited(member("a", form=GNU), (345, b"../.."))], "read differently"),
    "type by the short name": (
        [long_name("a"), edited(member("b/"), (156, b"\0"), (124, octal(1024))), EVIL],
        "read differently",
    ),
    "malformed pax": ([extension(b"x", b"9 path=x\n11 path=../evil\n"), member("a")], "a pax header is malformed"),
    "pax without an end": ([extension(b"x", b"20 path=../evil\n"), member("a")], "a pax header is malformed"),
    "pax, more behind": (
        [edited(TWO_PATHS[:512], (124, octal(10))), TWO_PATHS[512:], member("a")],
        "something follows a pax header",
    ),
    "path for all": ([pax_header(("path", "../evil"), kind=b"g"), member("a")], "says more than times and owners"),
    "volumes in pax": ([member("a", pax={"GNU.volume.offset": "1"})], "belongs to another kind of archive"),
    "dump directory in pax": ([member("a", DIRECTORY, pax={"GNU.dumpdir": "Dx\0"})], "belongs to another kind"),
    "headers of nothing": ([member("a"), long_name("b")], "no header where one should be"),
    "checksum": ([member("a")[:148] + b"0000000\0" + member("a")[156:]], "has a header that cannot be read"),
    "checksum in the middle": (
        [member("a"), member("b")[:148] + b"0000000\0" + member("b")[156:], EVIL],
        "'b' has a header that cannot be read",
    ),
    "after the end": ([member("a"), END, EVIL], "something follows its end"),
    "after half an end": ([member("a"), bytes(512), EVIL], "something follows its end"),
    "after much padding": ([member("a"), bytes(1 << 20), b"x"], "something follows its end"),
    "no tar": ([b"x" * 5000], "no header where one should be"),
}
CASES = {
    f"{kind}: {name}": case
    for kind, cases in {
        "names": NAMES,
        "links": LINKS,
        "objects": OBJECTS,
        "sizes": SIZES,
        "readings": READINGS,
    }.items()
    for name, case in cases.items()
}


@pytest.fixture
def unpack(disk: Path) -> Callable[..., dict[str, str]]:
    """Unpack members in a place where all that is around is looked at before and after; what is there then."""
    return lambda *pieces, ending=".tar": _unpack(disk, pieces, ending)


def _unpack(disk: Path, pieces: tuple[bytes, ...], ending: str = ".tar") -> dict[str, str]:
    path = write(disk / f"a{ending}", *pieces)
    place = disk / "place"
    for name in AROUND:
        (place / name).mkdir(parents=True)
        (place / name / "evil").write_text("before")
    tree = place / "tree"
    tree.mkdir()
    before = _around(place)
    try:
        archive.unpack(path, str(tree))
    finally:
        assert _around(place) == before
        found = {
            str(file.relative_to(tree)): os.readlink(file) if file.is_symlink() else ""
            for file in sorted(tree.rglob("*"))
        }
        shutil.rmtree(place)
    return found


def _around(place: Path) -> list[object]:
    return [sorted(os.listdir(place.parent)), sorted(os.listdir(place)), *(snapshot(place / name) for name in AROUND)]


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(unpack: Callable[..., object], name: str) -> None:
    pieces, reason = CASES[name]
    with pytest.raises(BadArchive) as raised:
        unpack(*pieces, END)
    assert reason in str(raised.value)
    assert "a.tar: " in str(raised.value)
    assert raised.value.hint


def test_it_is_refused_before_tar_sees_it(disk: Path) -> None:
    """What comes before, in the same block of the disk, is there; the member itself is not begun."""
    path = write(disk / "a.tar", member("good", data=b"good"), member("a", LINK, link="/etc/shadow"), END)
    (disk / "tree").mkdir()
    with pytest.raises(BadArchive):
        archive.unpack(path, str(disk / "tree"))
    assert set(os.listdir(disk / "tree")) <= {"good"}


def test_the_usual_devices_are_made(unpack: Callable[..., dict[str, str]]) -> None:
    pieces = [member(f"./dev/{name}", CHARACTER, devmajor=1, devminor=minor) for name, minor in DEVICES.items()]
    pieces += [
        member("./dev/tty", CHARACTER, devmajor=5, devminor=0),
        member("./dev/console", CHARACTER, devmajor=5, devminor=1),
        member("./dev/ptmx", CHARACTER, devmajor=5, devminor=2),
        member("./dev/stdin", SYMLINK, link="/proc/self/fd/0"),
        member("./dev/initctl", FIFO),
    ]
    assert len(unpack(member("./", DIRECTORY, mode=0o755), *pieces, END)) == len(pieces) + 1


@pytest.mark.parametrize("form", [GNU, PAX])
def test_what_is_strange_but_harmless_is_unpacked(unpack: Callable[..., dict[str, str]], form: int) -> None:
    pieces = [
        member("./", DIRECTORY, mode=0o755, form=form),
        member("usr/lib", DIRECTORY, mode=0o755, form=form),
        member("lib", SYMLINK, link="usr/lib", form=form),
        member("lib/through", data=b"x", form=form),
        member("usr/lib/hard", LINK, link="lib/through", form=form),
        member("usr/share/up", SYMLINK, link="../../lib", form=form),
        member("usr/share/deeper", SYMLINK, link="up/../..", form=form),
        member("circle", SYMLINK, link="circle", form=form),
        member("absolute", SYMLINK, link="/../../../etc/passwd", form=form),
        member("by/way/of", SYMLINK, link="../../way-out/../x", form=form),
        member("way-out", SYMLINK, link="/etc/passwd", form=form),
        member("dots...", data=b"x", form=form),
        member("..dots", data=b"x", form=form),
        member(".//double/./slash", data=b"x", form=form),
        member("twice", data=b"1", form=form),
        member("twice", data=b"2", form=form),
        member("replaced", SYMLINK, link="one", form=form),
        member("replaced", SYMLINK, link="two", form=form),
        member("symlink", SYMLINK, link="/proc/self/mounts", form=form),
        member("hard to symlink", LINK, link="symlink", form=form),
    ]
    found = unpack(pax_header(("comment", "from a repository"), kind=b"g"), *pieces, END)
    assert found["replaced"] == "two"
    assert found["hard to symlink"] == "/proc/self/mounts"
    assert {"usr/lib/through", "usr/lib/hard", "dots...", "..dots", "double/slash", "circle"} <= found.keys()


def test_a_hole_of_a_terabyte_takes_no_room(unpack: Callable[..., dict[str, str]]) -> None:
    size = 1 << 40
    assert unpack(sparse_member("hole", [(size, 0)], b"", size), END) == {"hole": ""}


PARTS = st.sampled_from(["a", "b", "x", "evil", "..", ".", "", "etc", "é", "n" * 120])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
KINDS = st.sampled_from([FILE, FILE, DIRECTORY, DIRECTORY, SYMLINK, SYMLINK, SYMLINK, LINK, LINK, FIFO])
TARGETS = st.one_of(PATHS, PATHS.map("../{}".format), st.sampled_from(["..", "../evil", "/", "/etc", "a/..", "."]))
MEMBERS = st.lists(st.tuples(PATHS, KINDS, TARGETS, st.sampled_from([GNU, PAX])), min_size=1, max_size=8)


@settings(max_examples=150)
@given(members=MEMBERS)
@example(members=[("a", SYMLINK, "b", GNU), ("a/x", FILE, "", GNU), ("b", SYMLINK, "..", GNU)])
@example(members=[("a", SYMLINK, ".", GNU), ("a/a/a/x", FILE, "", GNU), ("a/b", LINK, "a/a/x", GNU)])
@example(members=[("a/b", SYMLINK, "..", GNU), ("a/b/x", FILE, "", GNU)])
def test_any_members_are_refused_or_stay_inside(disk: Path, members: list[tuple[str, bytes, str, int]]) -> None:
    pieces = [
        member(name, kind, b"data" if kind == FILE else b"", link=target, form=form, mode=0o755)
        for name, kind, target, form in members
    ]
    try:
        found = _unpack(disk, (*pieces, END))
    except BadArchive:
        return
    # All of it is there, none of it through a link that leads out, and no relative link leads out.
    assert found or all(os.path.normpath(name) == "." for name, *_rest in members)
    for name, _kind, _target, _form in members:
        assert not name.startswith("/") and ".." not in name.split("/")
    for name, target in found.items():
        if target and not target.startswith("/"):
            assert not _resolved(found, name).startswith("..")


def _resolved(found: dict[str, str], name: str) -> str:
    """Where a link leads, one link after the other, as text; absolute ones lead nowhere."""
    at: list[str] = []
    left = name.split("/")
    for _step in range(200):
        if not left:
            break
        part = left.pop(0)
        if part == "..":
            if not at:
                return ".."
            at.pop()
        elif part not in ("", "."):
            target = found.get("/".join([*at, part]), "")
            if target.startswith("/"):
                return "/"
            if target:
                left = target.split("/") + left
            else:
                at.append(part)
    return "/".join(at)


@settings(max_examples=150)
@given(data=st.data())
def test_any_damage_to_headers_is_refused_or_stays_inside(disk: Path, data: st.DataObject) -> None:
    """Bytes of honest headers are changed, and the checksum is put right; what hides in data must stay hidden."""
    honest = [
        member("d", DIRECTORY, mode=0o755),
        member("d/" + "n" * 130, data=EVIL),
        member("f", data=member("HIDDEN", data=b"x"), pax={"mtime": "1.5", "SCHILY.xattr.user.x": "y"}),
        member("l", SYMLINK, link="d"),
        member("h", LINK, link="f"),
        sparse_member("s", [(0, 1024), (4096, 512)], EVIL + bytes(512), 8192),
        old_sparse_member("o", [(0, 1024), (4096, 512)], EVIL + bytes(512), 8192),
    ]
    content = bytearray(b"".join(honest))
    headers = [at for at in range(0, len(content), 512) if content[at + 257 : at + 262] == b"ustar"]
    for _change in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(headers))
        start, stop = data.draw(st.sampled_from([(0, 100), (100, 124), (124, 136), (156, 157), (157, 257), (257, 512)]))
        offset = data.draw(st.integers(start, stop - 1))
        value = data.draw(
            st.sampled_from([b"\0", b"/", b"..", b"1", b"7", b"\x80", b"x", b"L", b"S", b"5", b" ", b"g"])
        )
        value = value[: 512 - offset]
        content[at : at + 512] = edited(bytes(content[at : at + 512]), (offset, value))
    try:
        found = _unpack(disk, (bytes(content), END))
    except BadArchive:
        return
    with tarfile.open(disk / "a.tar") as opened:
        names = opened.getnames()
    assert _parts(found) <= _parts(names)


def _parts(paths: Iterable[str]) -> set[str]:
    return {part for path in paths for part in path.split("/")}
