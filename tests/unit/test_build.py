"""What a section becomes: profile and custom keys, defaults, and every key in both dialects."""

from __future__ import annotations

from pathlib import Path

import pytest
from configuring import ALL, OV, SCHROOT_ALL, TOML_ALL, A, four, load_schroot, load_toml, places_in

from sessions.keys import DEFAULT_ENVIRONMENT_FILTER
from sessions.model import Chroot, File, Places, Plain, Union


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return places_in(tmp_path)


@pytest.mark.parametrize(
    ("lines", "profile", "custom"),
    [
        pytest.param("", "default", four("default"), id="default"),
        pytest.param("profile=minimal\n", "minimal", four("minimal"), id="named"),
        pytest.param(
            "profile=minimal\nsetup.fstab=default/fstab\n",
            "minimal",
            {**four("minimal"), "setup.fstab": "default/fstab"},
            id="15: override",
        ),
        pytest.param("setup.fstab=\n", "default", {**four("default"), "setup.fstab": ""}, id="15: skip"),
        pytest.param("profile=\n", "", four(""), id="empty"),
        pytest.param("script-config=foo/config\n", "", {}, id="16: script-config"),
        pytest.param("script-config=\nprofile=minimal\n", "", {}, id="16: empty, yet it counts"),
        pytest.param("script-config=x\nsetup.fstab=y\nsetup.services=z\n", "", {"setup.services": "z"}, id="16: both"),
        pytest.param("z.y=1\na.b=\n", "default", {"a.b": "", **four("default"), "z.y": "1"}, id="in name order"),
        pytest.param("a.b.c=2\na.b-c=1\n", "default", {"a.b-c": "1", **four("default")}, id="13: first in name order"),
    ],
)
def test_profile_and_custom_keys(places: Places, lines: str, profile: str, custom: dict[str, str]) -> None:
    chroot = load_schroot(places, A + lines).chroots["a"]
    assert (chroot.profile, chroot.custom) == (profile, tuple(custom.items()))


def test_a_setup_key_beside_script_config_is_said_to_have_no_effect(places: Places) -> None:
    configuration = load_schroot(places, A + "script-config=x\nsetup.fstab=y\n")
    assert [problem.key for problem in configuration.problems] == ["", "setup.fstab"]


def test_unset_keys_have_the_defaults_of_the_table(places: Places) -> None:
    assert load_schroot(places, A).chroots["a"] == Chroot(
        name="a",
        source=Plain("/srv"),
        environment_filter=DEFAULT_ENVIRONMENT_FILTER,
        custom=tuple(four("default").items()),
    )


@pytest.mark.parametrize("dialect", ["schroot", "toml"])
def test_every_key_in_both_dialects(places: Places, dialect: str) -> None:
    configuration = load_schroot(places, SCHROOT_ALL) if dialect == "schroot" else load_toml(places, TOML_ALL)
    assert configuration.problems == ()
    assert configuration.chroots == {"a": ALL}
    file = "schroot/schroot.conf" if dialect == "schroot" else "native/sessions.toml"
    origins = configuration.origins["a"]
    lines = (SCHROOT_ALL if dialect == "schroot" else TOML_ALL).splitlines()
    for key, (path, line) in origins.items():
        written = lines[line - 1].partition("=")[0].strip(' "')
        assert written == ("profile" if key.startswith("setup.") else key)
        assert path.endswith(file)
    assert len(origins) == len(lines) - 1 + 4


def test_a_key_that_is_not_written_has_no_origin(places: Places) -> None:
    configuration = load_schroot(places, "[a]\nlocation=/srv\nfoo=1\nsetup.fstab=\n")
    file = f"{places.schroot_config_dir}/schroot.conf"
    assert configuration.origins == {"a": {"directory": (file, 2), "setup.fstab": (file, 4)}}


def test_the_directories_of_a_union_default_to_ours(places: Places) -> None:
    text = OV + "[b]\ntype=directory\ndirectory=/srv\n" + OV.replace("[a]", "[c]") + "union-overlay-directory=/o\n"
    chroots = load_schroot(places, text).chroots
    found = {
        name: (chroot.union.overlay_directory, chroot.union.underlay_directory) for name, chroot in chroots.items()
    }
    assert found == {
        "a": ("/state/union/overlay", "/state/union/underlay"),
        "b": ("", ""),
        "c": ("/o", "/state/union/underlay"),
    }


def test_a_file(places: Places) -> None:
    chroot = load_schroot(places, "[a]\ntype=file\nfile=/x.tar\nlocation=/root\n").chroots["a"]
    assert chroot.source == File("/x.tar", "/root")


def test_a_union_over_a_file_is_native_only(places: Places) -> None:
    configuration = load_schroot(places, "[a]\ntype=file\nfile=/x.tar\nunion-type=aufs\nunion-overlay-directory=x\n")
    assert configuration.chroots["a"].union == Union()
    assert [problem.severity for problem in configuration.problems] == ["warning", "warning"]
    native = '[chroot.b]\ntype = "file"\nfile = "/x.tar"\nunion-type = "overlay"\n'
    assert load_toml(places, native).chroots["b"].union.is_used


def test_file_repack_is_for_sessions_only(places: Places) -> None:
    configuration = load_schroot(places, "[a]\ntype=file\nfile=/x.tar\nfile-repack=true\n")
    assert configuration.broken["a"].reason == "Disallowed key ‘file-repack’ used"
