"""Sections in schroot's dialect: the twenty cases of its users, and what each kind of value may be."""

from __future__ import annotations

from pathlib import Path

import pytest
from configuring import NOT_PERMITTED, OV, A, load_schroot, places_in, summary

from sessions.errors import NotFound
from sessions.model import Places


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return places_in(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected", "usable"),
    [
        pytest.param("foo\n[b]\ndirectory=/b\n", [("error", 1, "", "", "Invalid line: “foo”")], ["b"], id="1"),
        pytest.param("k=v\n" + A, [("error", 1, "", "", "No group specified: “k=v”")], ["a"], id="2"),
        pytest.param("[x\nk=v\n" + A, [("error", 1, "", "", "Invalid group: “[x”")], ["a"], id="3: not closed"),
        pytest.param("[]\n" + A, [("error", 1, "", "", "Invalid group: “[]”")], ["a"], id="3: empty"),
        pytest.param("[x]]\n" + A, [("error", 1, "", "", "Invalid group: “[x]]”")], ["a"], id="3: two brackets"),
        pytest.param("[a] # x\ndirectory=/srv\n", [], ["a"], id="4"),
        pytest.param(A + "users=root # me\n", [], ["a"], id="5"),
        pytest.param(A + " \n[b]\ndirectory=/b\n", [("error", 3, "a", "", "Invalid line: “ ”")], ["b"], id="6: blanks"),
        pytest.param(
            A + "directory=/x\n[b]\ndirectory=/b\n",
            [("error", 3, "a", "", "Duplicate key ‘directory’")],
            ["b"],
            id="7: key",
        ),
        pytest.param(
            A + "[a]\ndirectory=/x\n",
            [("error", 3, "", "", "Duplicate group ‘a’")],
            ["a"],
            id="7: group",
        ),
        pytest.param(
            "[a]\ndirectory=srv/chroot\n",
            [("error", 2, "a", "directory", "srv/chroot: Directory must have an absolute path")],
            [],
            id="8",
        ),
        pytest.param("[a]\n", [("error", 1, "a", "", "Required key ‘directory’ is missing")], [], id="9"),
        pytest.param("[a]\ntype=file\n", [("error", 1, "a", "", "Required key ‘file’ is missing")], [], id="9: file"),
        pytest.param(
            "[a]\ntype=file\nlocation=/x\n",
            [("error", 1, "a", "", "Required key ‘file’ is missing")],
            [],
            id="9: file with a location",
        ),
        pytest.param("[a]\nlocation=/srv\n", [("warning", 2, "a", "", "Obsolete key ‘location’ used")], ["a"], id="10"),
        pytest.param(
            "[a]\nlocation=\n",
            [
                ("warning", 2, "a", "", "Obsolete key ‘location’ used"),
                ("error", 2, "a", "location", ": Directory must have an absolute path"),
            ],
            [],
            id="10: bad",
        ),
        pytest.param(
            A + "location=/srv\n", [("error", 3, "a", "location", "Disallowed key ‘location’ used")], [], id="10: both"
        ),
        pytest.param(
            A + "preserve-environment=TRUE\n",
            [("warning", 3, "a", "preserve-environment", "Could not parse value ‘TRUE’")],
            ["a"],
            id="11",
        ),
        pytest.param(A + "foo=1\n", [("warning", 3, "a", "foo", NOT_PERMITTED.format("foo"))], ["a"], id="12"),
        pytest.param(A + "foo.bar=1\n", [], ["a"], id="12: custom"),
        pytest.param(
            A + "a.b-c=1\na.b.c=2\n",
            [("warning", 4, "a", "a.b.c", "Configuration key ‘a.b.c’ is ambiguous")],
            ["a"],
            id="13",
        ),
        pytest.param(
            A + "auth.x=1\nsetup.data.dir=2\n",
            [
                ("warning", 3, "a", "auth.x", NOT_PERMITTED.format("auth.x")),
                ("warning", 4, "a", "setup.data.dir", NOT_PERMITTED.format("setup.data.dir")),
            ],
            ["a"],
            id="14",
        ),
        pytest.param(
            A + "script-config=foo/config\n",
            [("warning", 3, "a", "", "Deprecated key ‘script-config’ used")],
            ["a"],
            id="16",
        ),
        pytest.param(
            "[a:b]\ndirectory=/srv\n" + A, [("error", 1, "a:b", "", "a:b: Invalid name")], ["a"], id="19: colon"
        ),
        pytest.param("[a/b]\ndirectory=/srv\n", [("error", 1, "a/b", "", "a/b: Invalid name")], [], id="19: slash"),
        pytest.param("[.a]\ndirectory=/srv\n", [("error", 1, ".a", "", ".a: Invalid name")], [], id="19: dot"),
        pytest.param("[a~]\ndirectory=/srv\n", [("error", 1, "a~", "", "a~: Invalid name")], [], id="19: tilde"),
        pytest.param("[a b]\ndirectory=/srv\n", [("error", 1, "a b", "", "a b: Invalid name")], [], id="19: blank"),
        pytest.param("[_a]\ndirectory=/srv\n", [("error", 1, "_a", "", "_a: Invalid name")], [], id="19: underscore"),
        pytest.param(
            "[a]\ndirectory=/srv\n[d]\ndirectory=/srv\naliases=a\n",
            [("warning", 5, "d", "aliases", "Alias ‘a’ already associated with ‘a’ chroot")],
            ["a", "d"],
            id="20: the alias is an earlier chroot",
        ),
        pytest.param(
            "[a]\ndirectory=/srv\naliases=d\n[d]\ndirectory=/srv\n",
            [("warning", 3, "a", "aliases", "Alias ‘d’ already associated with ‘d’ chroot")],
            ["a", "d"],
            id="20: the alias is a later chroot",
        ),
    ],
)
def test_the_twenty_cases(
    places: Places, text: str, expected: list[tuple[str, int, str, str, str]], usable: list[str]
) -> None:
    configuration = load_schroot(places, text)
    assert (summary(configuration), sorted(configuration.chroots)) == (expected, usable)


@pytest.mark.parametrize(
    ("lines", "expected", "is_usable"),
    [
        pytest.param("type=foo\n", [("error", "type", "Unknown chroot type ‘foo’")], False, id="unknown type"),
        pytest.param("type=\n", [("error", "type", "Unknown chroot type ‘’")], False, id="empty type"),
        pytest.param("users=\ngroups=,\n", [], True, id="empty lists"),
        pytest.param("description[de]=Ein\n", [], True, id="a translation"),
        pytest.param("users[de]=x\n", [("warning", "users[de]", NOT_PERMITTED.format("users[de]"))], True, id="x[de]"),
        pytest.param("Foo.bar=1\n", [("warning", "Foo.bar", NOT_PERMITTED.format("Foo.bar"))], True, id="capital"),
        pytest.param("name=b\n", [("error", "name", "Disallowed key ‘name’ used")], False, id="name"),
        pytest.param(
            "mount-location=/b\n",
            [("error", "mount-location", "Disallowed key ‘mount-location’ used")],
            False,
            id="mount-location",
        ),
        pytest.param(
            "original-name=b\n",
            [("warning", "original-name", NOT_PERMITTED.format("original-name"))],
            True,
            id="original",
        ),
        pytest.param(
            "active=true\npriority=3\n",
            [
                ("warning", "", "Obsolete key ‘active’ used"),
                ("warning", "", "Obsolete key ‘priority’ used"),
            ],
            True,
            id="obsolete",
        ),
        pytest.param(
            "union-type=overlay\n",
            [
                (
                    "warning",
                    "union-type",
                    NOT_PERMITTED.format("union-type"),
                )
            ],
            True,
            id="a key of another type",
        ),
        pytest.param(
            "message-verbosity=loud\n",
            [("error", "message-verbosity", "loud: Message verbosity is invalid")],
            False,
            id="verbosity",
        ),
        pytest.param(
            "personality=foo\n", [("error", "personality", "Personality ‘foo’ is unknown")], False, id="persona"
        ),
        pytest.param(
            "personality=\n",
            [("warning", "personality", "Could not parse value ‘’")],
            True,
            id="empty persona",
        ),
        pytest.param(
            "environment-filter=(\n",
            [
                (
                    "error",
                    "environment-filter",
                    "'(' is not a regular expression: missing ), unterminated subpattern at position 0",
                )
            ],
            False,
            id="bad filter",
        ),
        pytest.param(
            "environment-filter=\n",
            [("warning", "environment-filter", "Could not parse value ‘’")],
            True,
            id="empty filter",
        ),
        pytest.param("environment-filter=^[[:alpha:]_]*$\n", [], True, id="a filter with a class"),
        pytest.param("shell=bin/sh\n", [], True, id="shell"),
        pytest.param("shell=\n", [], True, id="empty shell"),
        pytest.param("aliases=b:c\n", [("error", "aliases", "b:c: Invalid name")], False, id="alias with a colon"),
        pytest.param("aliases=b, c\n", [("error", "aliases", " c: Invalid name")], False, id="alias with a blank"),
        pytest.param(
            "aliases=a,b,b\n",
            [
                ("warning", "aliases", "Alias ‘a’ already associated with ‘a’ chroot"),
                ("warning", "aliases", "Alias ‘b’ already associated with ‘a’ chroot"),
            ],
            True,
            id="aliases of its own",
        ),
        pytest.param(
            "setup.fstab=../fstab\n",
            [("error", "setup.fstab", "'../fstab' leaves the configuration directory")],
            False,
            id="climbing fstab",
        ),
        pytest.param(
            "setup.x=a/..\n",
            [("error", "setup.x", "'a/..' leaves the configuration directory")],
            False,
            id="climbing x",
        ),
        pytest.param("setup.x=a..b\n", [], True, id="two dots in a name"),
        pytest.param("acme.x=../y\n", [], True, id="other custom keys may climb"),
        pytest.param("acme.x=a\0b\n", [("error", "acme.x", "may not hold a newline or a NUL")], False, id="NUL"),
        pytest.param("profile=a/b\n", [], True, id="profile with a slash"),
        pytest.param("profile=../b\n", [("error", "profile", "‘../b’ is not the name of a profile")], False, id="up"),
        pytest.param(
            "script-config=../b\n",
            [
                ("warning", "", "Deprecated key ‘script-config’ used"),
                ("error", "script-config", "'../b' leaves the configuration directory"),
            ],
            False,
            id="climbing script-config",
        ),
    ],
)
def test_values_in_schroots_dialect(
    places: Places, lines: str, expected: list[tuple[str, str, str]], is_usable: bool
) -> None:
    configuration = load_schroot(places, A + lines)
    found = [(problem.severity, problem.key, problem.reason) for problem in configuration.problems]
    assert (found, "a" in configuration.chroots) == (expected, is_usable)
    assert all(problem.remedy and problem.section == "a" for problem in configuration.problems)


@pytest.mark.parametrize("word", ["true", "yes", "1"])
def test_truth(places: Places, word: str) -> None:
    assert load_schroot(places, A + f"preserve-environment={word}\n").chroots["a"].preserve_environment is True


@pytest.mark.parametrize("word", ["false", "no", "0"])
def test_falsehood(places: Places, word: str) -> None:
    assert load_schroot(places, OV + f"source-clone={word}\n").chroots["a"].source_clone is False


def test_union_types_without_a_kernel_stay_legal(places: Places) -> None:
    text = OV.replace("overlay", "aufs") + OV.replace("overlay", "foo").replace("[a]", "[b]")
    configuration = load_schroot(places, text)
    assert configuration.chroots["a"].union.type == "aufs"
    assert configuration.broken["b"].reason == "Unknown filesystem union type ‘foo’"


def test_native_keys_are_legal_in_schroots_dialect(places: Places) -> None:
    lines = "union-overlay-storage=tmpfs\nunion-overlay-size=4G\nunion-lower-directories=/x,/y\n"
    configuration = load_schroot(places, OV + lines)
    union = configuration.chroots["a"].union
    assert (union.overlay_storage, union.overlay_size, union.lower_directories) == ("tmpfs", "4G", ("/x", "/y"))
    assert configuration.problems == ()


def test_a_size_that_limits_nothing_is_said(places: Places) -> None:
    (problem,) = load_schroot(places, OV + "union-overlay-size=4G\n").problems
    assert (problem.severity, problem.key) == ("warning", "union-overlay-size")


def test_source_keys_have_no_effect_without_a_union(places: Places) -> None:
    configuration = load_schroot(places, OV.replace("overlay", "none") + "source-users=joe\nsource-clone=true\n")
    assert configuration.chroots["a"].source_users == ()
    assert [(problem.severity, problem.key) for problem in configuration.problems] == [
        ("warning", "source-users"),
        ("warning", "source-clone"),
    ]


@pytest.mark.parametrize("root", ["/", "//", "/.", "/srv/..", "/./", "///"])
@pytest.mark.parametrize("kind", ["plain", "directory"])
def test_the_hosts_root_is_refused_without_a_union(places: Places, kind: str, root: str) -> None:
    configuration = load_schroot(places, f"[a]\ntype={kind}\ndirectory={root}\n")
    (problem,) = configuration.problems
    assert not configuration.chroots
    assert problem.reason == "the directory / is the host itself, and sessions of it would change the host"


def test_the_hosts_root_below_a_union_has_no_twin(places: Places) -> None:
    configuration = load_schroot(places, OV.replace("/srv", "/") + "aliases=b\n")
    assert configuration.problems == ()
    assert configuration.names("chroot", True) == ["a", "b"]
    with pytest.raises(NotFound):
        configuration.find("source", "a")
