"""The names of chroots: duplicates, aliases, source twins, and why one cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from configuring import ALL, OV, TOML_ALL, load_schroot, load_toml, places_in, summary, write

from sessions.config.load import Problem, load
from sessions.data import replace
from sessions.errors import ConfigError, NotFound
from sessions.model import File, Places, Plain, Union


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return places_in(tmp_path)


def test_of_two_definitions_the_first_counts(places: Places) -> None:
    write(places.schroot_config_dir, "schroot.conf", "\n[a]\ndirectory=/first\n")
    write(places.schroot_config_dir, "chroot.d/x", "[a]\ndirectory=/second\n")
    write(places.native_config_dir, "sessions.toml", '[chroot.a]\ndirectory = "/third"\n')
    configuration = load(places)
    assert configuration.chroots["a"].source == Plain("/first")
    reason = "A chroot or alias ‘chroot:a’ already exists with this name"
    assert [(problem.line, problem.severity, problem.reason) for problem in configuration.problems] == [
        (1, "error", reason),
        (1, "error", reason),
    ]
    first = f"{places.schroot_config_dir}/schroot.conf: line 2"
    assert all(first in problem.remedy for problem in configuration.problems)
    assert configuration.broken == {}


def test_a_broken_first_definition_is_not_replaced_by_the_second(places: Places) -> None:
    write(places.schroot_config_dir, "schroot.conf", "[a]\ntype=foo\n")
    write(places.native_config_dir, "sessions.toml", '[chroot.a]\ndirectory = "/srv"\n')
    configuration = load(places)
    assert configuration.chroots == {}
    assert configuration.broken["a"].reason == "Unknown chroot type ‘foo’"


def test_a_broken_chroot_says_why_under_all_its_names(places: Places) -> None:
    configuration = load_schroot(places, "[a]\ntype=directory\nunion-type=foo\ndirectory=x\naliases=b\n")
    file = f"{places.schroot_config_dir}/schroot.conf"
    for namespace, name in [("chroot", "a"), ("chroot", "b"), ("source", "a"), ("source", "b")]:
        with pytest.raises(ConfigError) as caught:
            configuration.find(namespace, name)
        assert caught.value.text == f"{file}: line 4 [a] directory: x: Directory must have an absolute path"
        assert caught.value.hint == "begin it with /"
    assert configuration.names("chroot", True) == []


def test_a_broken_section_takes_no_alias_from_a_usable_one(places: Places) -> None:
    configuration = load_schroot(places, "[a]\naliases=x,y\n[b]\ndirectory=/srv\naliases=x\n")
    assert configuration.find("chroot", "x").name == "b"
    with pytest.raises(ConfigError):
        configuration.find("chroot", "y")
    assert [problem.section for problem in configuration.problems] == ["a"]


def test_a_broken_name_is_not_opened_through_an_alias_of_another(places: Places) -> None:
    configuration = load_schroot(places, "[a]\n[b]\ndirectory=/srv\naliases=a\n")
    with pytest.raises(ConfigError):
        configuration.find("chroot", "a")


NAMES = (
    "[file]\ntype=file\nfile=/x\naliases=f\ndescription=It\nsource-root-users=s\nsource-users=u\nusers=x\n"
    "[ov]\ntype=directory\nunion-type=overlay\ndirectory=/srv\naliases=o1,o2\n"
    "[fixed]\ntype=directory\nunion-type=overlay\ndirectory=/srv\naliases=x\nsource-clone=false\n"
    "[dir]\ntype=directory\ndirectory=/srv\naliases=d\n"
    "[plain]\ndirectory=/srv\naliases=p\n"
)


def test_names(places: Places) -> None:
    configuration = load_schroot(places, NAMES)
    assert configuration.problems == ()
    assert configuration.names("chroot", False) == ["dir", "file", "fixed", "ov", "plain"]
    assert configuration.names("source", False) == ["file", "ov"]
    assert configuration.names("chroot", True) == sorted(
        ["dir", "file", "fixed", "ov", "plain", "d", "f", "x", "o1", "o2", "p", "f-source", "o1-source", "o2-source"]
    )
    assert configuration.names("source", True) == ["f", "file", "o1", "o2", "ov"]
    assert configuration.names("session", True) == []


@pytest.mark.parametrize(
    ("namespace", "name", "found"),
    [
        ("chroot", "ov", ("ov", False)),
        ("chroot", "o1", ("ov", False)),
        ("chroot", "o1-source", ("ov", True)),
        ("source", "ov", ("ov", True)),
        ("source", "o2", ("ov", True)),
        ("source", "f", ("file", True)),
        ("chroot", "plain", ("plain", False)),
    ],
)
def test_find(places: Places, namespace: str, name: str, found: tuple[str, bool]) -> None:
    chroot = load_schroot(places, NAMES).find(namespace, name)
    assert (chroot.name, chroot.is_source) == found


@pytest.mark.parametrize(
    ("namespace", "name", "asked"),
    [
        ("chroot", "nosuch", "nosuch"),
        ("chroot", "ov-source", "ov-source"),
        ("chroot", "d-source", "d-source"),
        ("chroot", "x-source", "x-source"),
        ("source", "fixed", "source:fixed"),
        ("source", "dir", "source:dir"),
        ("source", "plain", "source:plain"),
        ("source", "o1-source", "source:o1-source"),
        ("session", "ov", "session:ov"),
    ],
)
def test_not_found(places: Places, namespace: str, name: str, asked: str) -> None:
    with pytest.raises(NotFound) as caught:
        load_schroot(places, NAMES).find(namespace, name)
    assert (caught.value.text, caught.value.names) == (f"{asked}: Chroot not found", (asked,))
    assert caught.value.hint == "see sessions list for the names there are"


def test_not_found_says_that_some_files_could_not_be_used(places: Places) -> None:
    with pytest.raises(NotFound) as caught:
        load_toml(places, "[").find("chroot", "a")
    assert caught.value.hint == "some of the configuration cannot be used: see sessions config check"


def test_the_twin_of_a_file(places: Places) -> None:
    configuration = load_schroot(places, NAMES)
    original = configuration.find("chroot", "file")
    assert configuration.find("source", "file") == replace(
        original,
        source=File("/x", "", repack=True),
        description="It (source chroot)",
        users=("u",),
        root_users=("s",),
        source_users=(),
        source_root_users=(),
        is_source=True,
    )


def test_the_twin_of_a_union(places: Places) -> None:
    configuration = load_toml(places, TOML_ALL)
    assert configuration.find("source", "a") == replace(
        ALL,
        union=Union(),
        description="One (source chroot)",
        users=("s1",),
        groups=("s2",),
        root_users=("s3",),
        root_groups=("s4",),
        source_users=(),
        source_groups=(),
        source_root_users=(),
        source_root_groups=(),
        is_source=True,
    )


def test_the_twin_of_a_chroot_without_a_description_has_none(places: Places) -> None:
    assert load_schroot(places, OV).find("source", "a").description == ""


def test_an_alias_that_is_taken_is_dropped(places: Places) -> None:
    configuration = load_schroot(places, OV + "aliases=x,y\n[b]\ndirectory=/b\naliases=y,z\n")
    assert configuration.chroots["a"].aliases == ("x", "y")
    assert configuration.chroots["b"].aliases == ("z",)
    assert summary(configuration) == [
        ("warning", 8, "b", "aliases", "Alias ‘y’ already associated with ‘a’ chroot"),
    ]


@pytest.mark.parametrize(
    ("other", "owner"),
    [("[x-source]\ndirectory=/b\n", "x-source"), ("[b]\ndirectory=/b\naliases=x-source\n", "b")],
)
def test_a_name_beats_the_alias_of_a_twin(places: Places, other: str, owner: str) -> None:
    configuration = load_schroot(places, OV + "aliases=x\n" + other)
    assert configuration.find("chroot", "x-source").name == owner
    assert [problem.reason for problem in configuration.problems] == [
        f"Alias ‘x-source’ already associated with ‘{owner}’ chroot"
    ]


def test_problems_come_in_the_order_of_files_and_lines(places: Places) -> None:
    write(places.schroot_config_dir, "schroot.conf", "[z]\ndirectory=/z\nfoo=1\n[a]\ndirectory=/a\nfoo=1\nbar=1\n")
    write(places.schroot_config_dir, "chroot.d/b", "[y]\ndirectory=/y\naliases=a\nfoo=1\n")
    write(places.native_config_dir, "sessions.toml", "x = 1\n")
    found = [(problem.file.rpartition("/")[2], problem.line) for problem in load(places).problems]
    assert found == [
        ("schroot.conf", 3),
        ("schroot.conf", 6),
        ("schroot.conf", 7),
        ("b", 3),
        ("b", 4),
        ("sessions.toml", 1),
    ]


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("/f", 3, "a", "k", "error", "bad", "mend it"), "/f: line 3 [a] k: bad; mend it"),
        (Problem("/f", 3, "a", "", "error", "bad", "mend it"), "/f: line 3 [a]: bad; mend it"),
        (Problem("/f", 0, "", "", "error", "bad", "mend it"), "/f: bad; mend it"),
        (Problem("/f", 1, "", "k", "error", "bad", "mend it"), "/f: line 1 k: bad; mend it"),
    ],
)
def test_a_problem_as_text(problem: Problem, text: str) -> None:
    assert str(problem) == text
