"""Every type of chroot: its keys in both dialects, its source twin, and the names that a session of it will own."""

from __future__ import annotations

from pathlib import Path

import pytest
from configuring import load_schroot, load_toml, places_in, summary

from sessions import environ, sources
from sessions.config.configuration import has_twin, source_twin
from sessions.data import replace
from sessions.keys import CLONEABLE, TYPES, UNIONABLE
from sessions.model import (
    SOURCES,
    BlockDevice,
    BtrfsSnapshot,
    Chroot,
    Custom,
    Directory,
    File,
    Host,
    Identity,
    Image,
    Loopback,
    LvmSnapshot,
    Places,
    Plain,
    Source,
    Union,
    ZfsSnapshot,
)
from sessions.newsession import Wish, new_session
from sessions.sources import Storage

# Type -> its own keys as schroot.conf has them, and what they make.
EVERY: dict[str, tuple[dict[str, str], Source]] = {
    "plain": ({"directory": "/srv"}, Plain("/srv")),
    "directory": ({"directory": "/srv"}, Directory("/srv")),
    "file": ({"file": "/x.tar", "location": "/in", "archive-cache": "false"}, File("/x.tar", "/in")),
    "loopback": (
        {"file": "/x.img", "location": "/in", "mount-options": "-o noatime"},
        Loopback("/x.img", "-o noatime", "/in"),
    ),
    "image": (
        {"file": "/x.img", "location": "/in", "mount-options": "-o noatime", "union-type": "overlay"},
        Image("/x.img", "-o noatime", "/in"),
    ),
    "block-device": (
        {"device": "/dev/x", "location": "/in", "mount-options": "-o noatime"},
        BlockDevice("/dev/x", "-o noatime", "/in"),
    ),
    "lvm-snapshot": (
        {
            "device": "/dev/vg/x",
            "location": "/in",
            "lvm-snapshot-options": "--size 2G",
            "mount-options": "-o noatime",
        },
        LvmSnapshot("/dev/vg/x", "--size 2G", "-o noatime", "/in"),
    ),
    "btrfs-snapshot": (
        {"btrfs-snapshot-directory": "/snap", "btrfs-source-subvolume": "/sub"},
        BtrfsSnapshot("/sub", "/snap"),
    ),
    "zfs-snapshot": (
        {"location": "/in", "mount-options": "-o noatime", "zfs-dataset": "p/a", "zfs-snapshot-options": "-o a=b"},
        ZfsSnapshot("p/a", "-o a=b", "-o noatime", "/in"),
    ),
    "custom": (
        {
            "custom-session-cloneable": "true",
            "custom-session-purgeable": "true",
            "custom-source-cloneable": "true",
        },
        Custom(True, True, True),
    ),
}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return places_in(tmp_path)


def schroots(kind: str, more: str = "", without: str = "") -> str:
    own, _source = EVERY[kind]
    return f"[a]\ntype={kind}\n{more}" + "".join(f"{key}={own[key]}\n" for key in own if key != without)


def native(kind: str) -> str:
    lines = (
        f"{key} = {value}" if value in ("true", "false") else f'{key} = "{value}"'
        for key, value in EVERY[kind][0].items()
    )
    return "\n".join(("[chroot.a]", f'type = "{kind}"', *lines))


@pytest.mark.parametrize("union", ["", "union-type=none\n"])
def test_an_image_needs_a_union(places: Places, union: str) -> None:
    configuration = load_schroot(places, f"[a]\ntype=image\nfile=/x.img\n{union}")
    assert "a" not in configuration.chroots
    (problem,) = configuration.problems
    assert problem.is_error
    assert problem.reason == "an image is never written to, so that it needs a union over it"
    assert "union-type = overlay" in problem.remedy


@pytest.mark.parametrize("kind", ["lvm-snapshot", "btrfs-snapshot", "zfs-snapshot"])
def test_a_union_over_a_snapshot_is_ours_alone(places: Places, kind: str) -> None:
    """schroot knows no such thing, and ignores it."""
    theirs = load_schroot(places, schroots(kind, more="union-type=overlay\n"))
    assert not theirs.chroots["a"].union.is_used
    assert [problem.key for problem in theirs.problems] == ["union-type"]
    ours = load_toml(places, native(kind).replace("chroot.a", "chroot.b") + '\nunion-type = "overlay"\n')
    assert [problem.key for problem in ours.problems] == ["union-type"]
    assert ours.chroots["b"].union.is_used


def test_there_are_no_others() -> None:
    assert list(EVERY) == list(TYPES)
    assert {*TYPES.values(), Host} == {*SOURCES}


@pytest.mark.parametrize("kind", EVERY)
def test_both_dialects_say_the_same(places: Places, kind: str) -> None:
    first = load_schroot(places, schroots(kind))
    second = load_toml(places, native(kind).replace("chroot.a", "chroot.b"))
    assert first.problems == second.problems == ()
    assert first.chroots["a"].source == second.chroots["b"].source == EVERY[kind][1]


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("plain", "directory"),
        ("directory", "directory"),
        ("file", "file"),
        ("loopback", "file"),
        ("block-device", "device"),
        ("lvm-snapshot", "device"),
        ("lvm-snapshot", "lvm-snapshot-options"),
        ("btrfs-snapshot", "btrfs-source-subvolume"),
        ("btrfs-snapshot", "btrfs-snapshot-directory"),
        ("zfs-snapshot", "zfs-dataset"),
    ],
)
def test_required(places: Places, kind: str, key: str) -> None:
    configuration = load_schroot(places, schroots(kind, without=key))
    assert summary(configuration) == [("error", 1, "a", "", f"Required key ‘{key}’ is missing")]
    assert configuration.chroots == {}


@pytest.mark.parametrize(
    ("kind", "key", "what"),
    [
        ("loopback", "file", "File"),
        ("loopback", "location", "Location"),
        ("block-device", "device", "Device"),
        ("block-device", "location", "Location"),
        ("lvm-snapshot", "device", "Device"),
        ("btrfs-snapshot", "btrfs-source-subvolume", "Directory"),
        ("btrfs-snapshot", "btrfs-snapshot-directory", "Directory"),
        ("zfs-snapshot", "location", "Location"),
        ("block-device", "union-overlay-directory", "Union overlay"),
        ("loopback", "union-underlay-directory", "Union underlay"),
    ],
)
def test_paths_are_absolute(places: Places, kind: str, key: str, what: str) -> None:
    configuration = load_schroot(places, schroots(kind, more=f"{key}=x\n", without=key))
    assert summary(configuration) == [("error", 3, "a", key, f"x: {what} must have an absolute path")]


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("file", "file-repack"),
        ("loopback", "mount-device"),
        ("block-device", "mount-device"),
        ("lvm-snapshot", "lvm-snapshot-device"),
        ("btrfs-snapshot", "btrfs-snapshot-name"),
        ("zfs-snapshot", "zfs-snapshot-name"),
        ("zfs-snapshot", "zfs-clone-name"),
        ("plain", "name"),
        ("custom", "mount-location"),
    ],
)
def test_keys_of_sessions_are_refused(places: Places, kind: str, key: str) -> None:
    configuration = load_schroot(places, schroots(kind, more=f"{key}=/x\n"))
    assert summary(configuration) == [("error", 3, "a", key, f"Disallowed key ‘{key}’ used")]


WITHOUT_MEANING = [
    (kind, key)
    for kind, (own, _source) in EVERY.items()
    for key, others in (
        ("union-type", ("directory", "loopback", "block-device")),
        ("mount-options", ()),
        ("location", ("plain", "directory")),
        ("device", ()),
        ("zfs-clone-name", ("zfs-snapshot",)),
    )
    if key not in own and kind not in others
]


@pytest.mark.parametrize(("kind", "key"), WITHOUT_MEANING)
def test_a_key_without_meaning_is_a_warning(places: Places, kind: str, key: str) -> None:
    configuration = load_schroot(places, schroots(kind, more=f"{key}=/x\n"))
    ((severity, line, _section, _key, reason),) = summary(configuration)
    assert (severity, line) == ("warning", 3)
    assert reason.startswith(f"Configuration key name ‘{key}’ is not a permitted name.")
    assert configuration.chroots["a"].source == EVERY[kind][1]


@pytest.mark.parametrize("kind", EVERY)
def test_keys_of_a_twin_that_is_none_are_ignored(places: Places, kind: str) -> None:
    text = schroots(kind, more="source-users=u\nsource-clone=false\n").replace("source-cloneable=true", "x.y=1")
    configuration = load_schroot(places, text)
    chroot = configuration.chroots["a"]
    is_cloned = kind in ("file", "image", "lvm-snapshot", "btrfs-snapshot", "zfs-snapshot")
    assert (chroot.source_users, chroot.source_clone) == ((("u",), False) if is_cloned else ((), True))
    ignored = {problem.key for problem in configuration.problems if problem.key.startswith("source-")}
    assert ignored == (set() if is_cloned else {"source-clone", "source-users"})


@pytest.mark.parametrize(
    ("chroot", "twin"),
    [
        (Chroot("a", Plain("/d")), None),
        (Chroot("a", Directory("/d")), None),
        (Chroot("a", Directory("/d"), Union("overlay")), Directory("/d")),
        (Chroot("a", File("/f", "/in")), File("/f", "/in", repack=True)),
        (Chroot("a", Loopback("/f", "-r", "/in")), None),
        (Chroot("a", Loopback("/f", "-r", "/in"), Union("overlay")), Loopback("/f", "-r", "/in")),
        (Chroot("a", Image("/f", "-v", "/in"), Union("overlay")), Loopback("/f", "-v", "/in")),
        (Chroot("a", BlockDevice("/f", "-r", "/in")), None),
        (Chroot("a", BlockDevice("/f", "-r", "/in"), Union("overlay")), BlockDevice("/f", "-r", "/in")),
        (Chroot("a", LvmSnapshot("/dev/v/l", "-L1", "-r", "/in")), BlockDevice("/dev/v/l", "-r", "/in")),
        (Chroot("a", BtrfsSnapshot("/sub", "/snap")), Directory("/sub")),
        (Chroot("a", ZfsSnapshot("p/a", "-o", "-r", "/in")), ZfsSnapshot("p/a", "-o", "-r", "/in")),
        (Chroot("a", Custom()), None),
        (Chroot("a", Custom(source_cloneable=True)), Custom(source_cloneable=True)),
        (Chroot("a", Host(), Union("overlay")), None),
    ],
)
def test_the_twin(chroot: Chroot, twin: Source | None) -> None:
    assert has_twin(chroot) == (twin is not None) == sources.is_cloned(chroot)
    if twin is not None:
        made = source_twin(chroot)
        assert (made.source, made.union, made.is_source) == (twin, Union(), True)
        assert not has_twin(made)
        assert not sources.is_purged(made)


@pytest.mark.parametrize(
    ("chroot", "purged"),
    [
        (Chroot("a", Plain("/d")), False),
        (Chroot("a", Directory("/d")), False),
        (Chroot("a", BlockDevice("/d")), False),
        (Chroot("a", BlockDevice("/d"), Union("overlay")), True),
        (Chroot("a", Image("/d"), Union("overlay")), True),
        (Chroot("a", LvmSnapshot("/d")), True),
        (Chroot("a", BtrfsSnapshot("/d", "/e")), True),
        (Chroot("a", ZfsSnapshot("p/d")), True),
        (Chroot("a", Custom(source_cloneable=True)), False),
        (Chroot("a", Custom(session_purgeable=True)), True),
        (Chroot("a", Custom(session_purgeable=True), is_source=True), False),
    ],
)
def test_which_trees_go_with_the_session(chroot: Chroot, purged: bool) -> None:
    assert sources.is_purged(chroot) is purged


@pytest.mark.parametrize(
    ("chroot", "storage"),
    [
        (Chroot("a", Directory("/d")), Storage()),
        (Chroot("a", Loopback("/x.img")), Storage("/x.img")),
        (Chroot("a", Image("/x.img")), Storage("/x.img")),
        (Chroot("a", BlockDevice("/dev/x")), Storage("/dev/x")),
        (Chroot("a", LvmSnapshot("/dev/vg/x")), Storage("/dev/vg/s1", "/dev/vg/s1")),
        (Chroot("a", BtrfsSnapshot("/sub", "/snap")), Storage("", "/snap/s1")),
        (Chroot("a", ZfsSnapshot("p/a")), Storage("p/a/schroot-s1", "p/a@s1", "p/a/schroot-s1")),
        (Chroot("a", ZfsSnapshot("p/a"), is_source=True), Storage("p/a")),
        (Chroot("a", Custom()), Storage()),
    ],
)
def test_the_names_a_session_owns(chroot: Chroot, storage: Storage) -> None:
    assert sources.storage(chroot, "s1") == storage


def test_sessions() -> None:
    without = [source for source in SOURCES if not sources.has_sessions(source())]
    assert without == [Plain]
    assert not sources.has_sessions(Custom(session_cloneable=False))


def test_what_can_have_a_union_has_a_twin_to_change_the_original() -> None:
    assert set(UNIONABLE) < set(CLONEABLE)


# What scripts are told of the type itself: (what, source, whether it is a twin, whether the call is a later one, all).
VARIABLES: list[tuple[str, Source, bool, bool, str]] = [
    ("directory", Directory("/d"), False, False, "DIRECTORY=/d UNION_TYPE=none"),
    ("a twin of a directory", Directory("/d"), True, False, "DIRECTORY=/d"),
    ("a twin, later", Directory("/d"), True, True, "DIRECTORY=/d UNION_TYPE=none"),
    ("file", File("/x.tar"), False, False, "FILE=/x.tar FILE_REPACK=false FILE_UNPACK_DIR=/state/unpack"),
    (
        "loopback",
        Loopback("/x", "-r", "/in"),
        False,
        False,
        "FILE=/x LOCATION=/in MOUNT_DEVICE=/x MOUNT_OPTIONS=-r UNION_TYPE=none",
    ),
    ("block-device", BlockDevice("/dev/x"), False, False, "DEVICE=/dev/x MOUNT_DEVICE=/dev/x UNION_TYPE=none"),
    ("a twin of a device", BlockDevice("/dev/x"), True, False, "DEVICE=/dev/x MOUNT_DEVICE=/dev/x"),
    (
        "lvm-snapshot",
        LvmSnapshot("/dev/vg/x", "-L1"),
        False,
        False,
        "DEVICE=/dev/vg/x LVM_SNAPSHOT_DEVICE=/dev/vg/s1 LVM_SNAPSHOT_NAME=s1 LVM_SNAPSHOT_OPTIONS=-L1 "
        "MOUNT_DEVICE=/dev/vg/s1",
    ),
    (
        "lvm-snapshot, later",
        LvmSnapshot("/dev/vg/x", "-L1"),
        False,
        True,
        "DEVICE=/dev/vg/x LVM_SNAPSHOT_DEVICE=/dev/vg/s1 LVM_SNAPSHOT_NAME=s1 MOUNT_DEVICE=/dev/vg/s1",
    ),
    (
        "btrfs-snapshot",
        BtrfsSnapshot("/sub", "/snap"),
        False,
        False,
        "BTRFS_SNAPSHOT_DIRECTORY=/snap BTRFS_SNAPSHOT_NAME=/snap/s1 BTRFS_SOURCE_SUBVOLUME=/sub",
    ),
    ("btrfs-snapshot, later", BtrfsSnapshot("/sub", "/snap"), False, True, "BTRFS_SNAPSHOT_NAME=/snap/s1"),
    (
        "zfs-snapshot",
        ZfsSnapshot("p/a", "-o"),
        False,
        False,
        "MOUNT_DEVICE=p/a/schroot-s1 ZFS_CLONE_NAME=p/a/schroot-s1 ZFS_DATASET=p/a ZFS_SNAPSHOT_NAME=p/a@s1 "
        "ZFS_SNAPSHOT_OPTIONS=-o",
    ),
    ("a twin of a dataset", ZfsSnapshot("p/a", "-o"), True, False, "MOUNT_DEVICE=p/a ZFS_DATASET=p/a"),
    ("a twin of a dataset, later", ZfsSnapshot("p/a", "-o"), True, True, "MOUNT_DEVICE=p/a"),
    ("custom", Custom(), False, False, ""),
]
OF_EVERY_TYPE = ("NAME", "ALIAS", "TYPE", "DESCRIPTION", "MOUNT_LOCATION", "PATH")


@pytest.mark.parametrize(
    ("source", "is_twin", "is_later", "expected"), [row[1:] for row in VARIABLES], ids=[row[0] for row in VARIABLES]
)
def test_what_scripts_are_told(places: Places, source: Source, is_twin: bool, is_later: bool, expected: str) -> None:
    who = Identity(0, 0, "root", "root", (0,), "/root", "/bin/sh")
    chroot = Chroot("a", source, profile="", is_source=is_twin)
    session = new_session(places, chroot, "a", Wish(who, who, "s1"))
    found = environ.for_scripts(session, "setup-stop" if is_later else "setup-start")
    own = {key.removeprefix("CHROOT_"): value for key, value in found.items() if key.startswith("CHROOT_")}
    shown = [f"{key}={own[key]}" for key in own if key not in OF_EVERY_TYPE and not key.startswith("SESSION_")]
    assert " ".join(sorted(shown)) == expected
    assert own["TYPE"] == source.kind


def test_an_automatic_session_is_told_all_to_its_end(places: Places) -> None:
    who = Identity(0, 0, "root", "root", (0,), "/root", "/bin/sh")
    wish = Wish(who, who, "s1", automatic=True)
    session = new_session(places, Chroot("a", BtrfsSnapshot("/sub", "/snap"), profile=""), "a", wish)
    assert environ.for_scripts(session, "setup-stop")["CHROOT_BTRFS_SOURCE_SUBVOLUME"] == "/sub"


def test_frozen_data_is_equal_by_type_and_values() -> None:
    first, second = Chroot("a", Loopback("/x")), Chroot("a", Loopback("/x"))
    assert first == second
    assert len({first, second}) == 1
    assert Plain("/x") != Directory("/x")
    assert first != replace(first, name="b")
    assert eval(repr(first)) == first
    with pytest.raises(AttributeError):
        first.name = "b"  # type: ignore[misc]
