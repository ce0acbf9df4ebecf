"""Sections in TOML: stricter than schroot.conf, and every mistake with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from configuring import NOT_PERMITTED, PLAIN, four, load_toml, places_in, write

from sessions.config.load import Problem, load
from sessions.model import Places, Plain


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return places_in(tmp_path)


@pytest.mark.parametrize(
    ("line", "key", "reason", "remedy"),
    [
        pytest.param(
            'union-typ = "overlay"',
            "union-typ",
            NOT_PERMITTED.format("union-typ"),
            "did you mean ‘union-type’?",
            id="typo",
        ),
        pytest.param(
            '"setup.fstb" = 1', "setup.fstb", "wants a string, not a number", "write it in quotes", id="custom value"
        ),
        pytest.param('zzz = "x"', "zzz", NOT_PERMITTED.format("zzz"), "remove the line", id="nothing like it"),
        pytest.param(
            'file = "/x"',
            "file",
            NOT_PERMITTED.format("file"),
            "it has no meaning for type ‘directory’: remove it, or change the type",
            id="of another type",
        ),
        pytest.param(
            'location = "/x"',
            "location",
            NOT_PERMITTED.format("location"),
            "write directory instead",
            id="location",
        ),
        pytest.param(
            'active = "true"',
            "active",
            "Obsolete key ‘active’ used",
            "This option has been removed, and no longer has any effect: remove the line",
            id="obsolete",
        ),
        pytest.param(
            'name = "x"',
            "name",
            "Disallowed key ‘name’ used",
            "remove the line: sessions have it, and chroots do not",
            id="name",
        ),
        pytest.param(
            'users = "joe"',
            "users",
            "wants a list of strings, none empty",
            'write ["one", "two"]',
            id="string for a list",
        ),
        pytest.param(
            'users = [""]', "users", "wants a list of strings, none empty", 'write ["one", "two"]', id="empty name"
        ),
        pytest.param(
            'preserve-environment = "true"',
            "preserve-environment",
            "wants true or false, not a string",
            "write it without quotes",
            id="string for a truth value",
        ),
        pytest.param(
            "description = {x = 1}", "description", "wants a string, not a table", "write it in quotes", id="table"
        ),
        pytest.param(
            "shell = 2020-01-01", "shell", "wants a string, not a date or time", "write it in quotes", id="date"
        ),
        pytest.param(
            'union-overlay-size = "4 G"',
            "union-overlay-size",
            "'4 G' is not a size",
            "write bytes, or a number followed by K, M, G, T or %",
            id="size",
        ),
        pytest.param(
            'environment-filter = ""',
            "environment-filter",
            "is empty, which would find every name",
            "write ^$ to find none",
            id="empty filter",
        ),
        pytest.param(
            'profile = "a/b"',
            "profile",
            "‘a/b’ is not the name of a profile",
            "name a directory below the configuration directory, such as minimal",
            id="profile with a slash",
        ),
        pytest.param(
            'profile = ".b"',
            "profile",
            "‘.b’ is not the name of a profile",
            "name a directory below the configuration directory, such as minimal",
            id="hidden profile",
        ),
        pytest.param(
            'setup.fstab = "x/../../y"',
            "setup.fstab",
            "'x/../../y' leaves the configuration directory",
            "write it without ..",
            id="climbing",
        ),
        pytest.param(
            'acme.x = "a\\nb"',
            "acme.x",
            "may not hold a newline or a NUL",
            "take it out",
            id="newline in a custom value",
        ),
        pytest.param(
            'aliases = ["b c"]',
            "aliases",
            "b c: Invalid name",
            "a name is a letter or digit, then letters, digits, '_', '.' or '-', at most 200",
            id="alias",
        ),
    ],
)
def test_mistakes_in_toml_break_their_section(places: Places, line: str, key: str, reason: str, remedy: str) -> None:
    text = f'[chroot.a]\ntype = "directory"\ndirectory = "/srv"\n{line}\n[chroot.b]\ndirectory = "/b"\n'
    configuration = load_toml(places, text)
    (problem,) = configuration.problems
    file = f"{places.native_config_dir}/sessions.toml"
    assert problem == Problem(file, 4, "a", key, "error", reason, remedy)
    assert str(problem) == f"{file}: line 4 [a] {key}: {reason}; {remedy}"
    assert (list(configuration.chroots), configuration.broken) == (["b"], {"a": problem})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[chroot."a:b"]\ndirectory = "/srv"\n', "a:b: Invalid name"),
        ('[chroot."a\\nb"]\ndirectory = "/srv"\n', "a\nb: Invalid name"),
        ('[chroot.""]\ndirectory = "/srv"\n', ": Invalid name"),
        ('[chroot.a]\ntype = "foo"\n', "Unknown chroot type ‘foo’"),
        ('[chroot.a]\ntype = ["plain"]\n', "wants a string, not a list"),
        ('[chroot.a]\ntype = "zfs-snapshot"\n', "Required key ‘zfs-dataset’ is missing"),
        ('[chroot.a]\ntype = "file"\n', "Required key ‘file’ is missing"),
        ('[chroot.a]\ntype = "plain"\ndirectory = "/"\n', "the directory / is the host itself"),
        ("[chroot]\na = 1\n", "‘a’ wants a table, not a number"),
        ("[chroots.a]\n", "unknown table or key ‘chroots’"),
        ("[chroot.a\n", "not TOML"),
    ],
)
def test_toml_that_defines_nothing(places: Places, text: str, reason: str) -> None:
    configuration = load_toml(places, text)
    (problem,) = configuration.problems
    assert problem.reason.startswith(reason)
    assert (configuration.chroots, problem.severity) == ({}, "error")


def test_a_chroot_called_host_is_one_like_any_other(places: Places) -> None:
    chroot = load_toml(places, '[chroot.host]\ndirectory = "/srv"\n').find("chroot", "host")
    assert chroot.source == Plain("/srv")


@pytest.mark.parametrize(
    "text",
    ['"setup.fstab" = ""', 'setup.fstab = ""', 'setup = {fstab = ""}', '[chroot.a.setup]\nfstab = ""'],
)
def test_custom_keys_in_every_way_of_writing(places: Places, text: str) -> None:
    configuration = load_toml(places, f'[chroot.a]\ndirectory = "/srv"\n{text}\n')
    assert configuration.problems == ()
    assert configuration.chroots["a"].custom == tuple({**four("default"), "setup.fstab": ""}.items())


def test_deprecated_keys_still_work_in_toml(places: Places) -> None:
    configuration = load_toml(places, '[chroot.a]\ndirectory = "/srv"\nscript-config = "x/config"\n')
    chroot = configuration.chroots["a"]
    assert (chroot.script_config, chroot.profile, chroot.custom) == ("x/config", "", ())
    assert [problem.severity for problem in configuration.problems] == ["warning"]


def test_an_empty_profile_is_none_in_toml(places: Places) -> None:
    assert load_toml(places, '[chroot.a]\ndirectory = "/srv"\nprofile = ""\n').chroots["a"].custom == ()


def test_one_bad_file_costs_no_other(places: Places) -> None:
    write(places.native_config_dir, "chroot.d/bad.toml", "[")
    write(places.native_config_dir, "chroot.d/good.toml", '[chroot.good]\ndirectory = "/srv"\n')
    write(places.schroot_config_dir, "chroot.d/bad", "[")
    write(places.schroot_config_dir, "chroot.d/good", PLAIN.format("also", "also"))
    configuration = load(places)
    assert list(configuration.chroots) == ["also", "good"]
    assert [problem.file.rpartition("/")[2] for problem in configuration.problems] == ["bad", "bad.toml"]
