"""The keys of the cache of archives: what they mean in both dialects, and with and without a union."""

from __future__ import annotations

from pathlib import Path

import pytest
from configuring import load_schroot, load_toml, places_in

from sessions import keytypes
from sessions.config.configuration import source_twin
from sessions.model import Chroot, File, Places

FILE = 'type = "file"\nfile = "/x.tar"\n'


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return places_in(tmp_path)


def native(places: Places, lines: str) -> Chroot:
    configuration = load_toml(places, f"[chroot.a]\n{FILE}{lines}")
    assert configuration.problems == ()
    return configuration.chroots["a"]


def schroots(places: Places, lines: str) -> Chroot:
    return load_schroot(places, f"[a]\ntype=file\nfile=/x.tar\n{lines}").chroots["a"]


@pytest.mark.parametrize(
    ("lines", "is_cached", "union"),
    [
        ("", True, "overlay"),
        ('union-type = "overlay"', True, "overlay"),
        ('union-overlay-storage = "tmpfs"', True, "overlay"),
        ('union-type = "none"', False, "none"),
        ("archive-cache = true", True, "overlay"),
        ("archive-cache = false", False, "none"),
        ('archive-cache = false\nunion-type = "overlay"', False, "overlay"),
    ],
)
def test_in_toml_an_archive_is_cached_unless_that_or_a_union_is_unwanted(
    places: Places, lines: str, is_cached: bool, union: str
) -> None:
    chroot = native(places, lines)
    assert chroot.source == File("/x.tar", archive_cache=is_cached)
    assert chroot.union.type == union
    if union == "overlay":
        assert chroot.union.overlay_directory == places.overlay_dir


@pytest.mark.parametrize(
    ("lines", "is_cached", "union", "storage"),
    [
        ("", False, "none", "disk"),
        # schroot ignores a union over a file.
        ("union-type=overlay\nunion-overlay-storage=tmpfs\n", False, "none", "disk"),
        ("archive-cache=false\nunion-type=overlay\n", False, "none", "disk"),
        ("archive-cache=true\n", True, "overlay", "disk"),
        ("union-overlay-storage=tmpfs\narchive-cache=true\n", True, "overlay", "tmpfs"),
    ],
)
def test_in_schroot_conf_it_is_only_where_asked_for(
    places: Places, lines: str, is_cached: bool, union: str, storage: str
) -> None:
    chroot = schroots(places, lines)
    assert chroot.source == File("/x.tar", archive_cache=is_cached)
    assert (chroot.union.type, chroot.union.overlay_storage) == (union, storage)


def test_a_cache_without_a_union_is_a_mistake(places: Places) -> None:
    configuration = load_toml(places, f'[chroot.a]\n{FILE}archive-cache = true\nunion-type = "none"\n')
    (problem,) = configuration.problems
    assert (problem.line, problem.key, problem.is_error) == (4, "archive-cache", True)
    assert problem.remedy == "remove union-type = none, or set archive-cache = false"
    assert configuration.chroots == {}


def test_the_twin_unpacks_for_itself(places: Places) -> None:
    twin = source_twin(native(places, ""))
    assert twin.source == File("/x.tar", repack=True)
    assert not twin.union.is_used


def test_how_much_is_kept_and_how_long(places: Places) -> None:
    assert load_toml(places, "").whole == {"archive-cache-size": "20%", "archive-cache-age": "30d"}
    written = 'archive-cache-size = "5G"\narchive-cache-age = "36h"\n'
    configuration = load_toml(places, f"{written}[chroot.a]\n{FILE}")
    assert configuration.problems == ()
    assert configuration.whole == {"archive-cache-size": "5G", "archive-cache-age": "36h"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('archive-cache-size = "much"', "'much' is not a size"),
        ("archive-cache-size = 5", "wants a string, not a number"),
        ('archive-cache-age = "30"', "'30' is not a time"),
        ('archive-cache-aeg = "1d"', "unknown table or key ‘archive-cache-aeg’"),
    ],
)
def test_a_mistake_leaves_the_default_and_all_chroots(places: Places, line: str, reason: str) -> None:
    configuration = load_toml(places, f"# here\n{line}\n[chroot.a]\n{FILE}")
    (problem,) = configuration.problems
    assert (problem.line, problem.reason) == (2, reason)
    assert configuration.whole == {"archive-cache-size": "20%", "archive-cache-age": "30d"}
    assert "a" in configuration.chroots


def test_sizes_and_times() -> None:
    gib = 1 << 30
    assert [keytypes.size_bytes(size, 200 * gib) for size in ("7", "3K", "2M", "1G", "1T", "20%", "")] == [
        7, 3072, 2 << 20, gib, 1 << 40, 40 * gib, 200 * gib
    ]  # fmt: skip
    assert [keytypes.age_s(age) for age in ("0h", "36h", "30d", "2w")] == [0, 129_600, 2_592_000, 1_209_600]
