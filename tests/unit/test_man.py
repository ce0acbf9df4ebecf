"""The manual pages say what the code does: their made parts are current, and no option is missing."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sessions import environ, keys, keytypes
from sessions.cli import man, options
from sessions.cli.native import sessions
from sessions.config.load import load
from sessions.data import replace
from sessions.model import SOURCES, Chroot, Identity, Places, Plain, Session, Union

MAN = Path(__file__).resolve().parents[2] / "man"
PAGES = sorted(path.name for path in MAN.iterdir())
# Pages that are another page under a name of their own.
NAMES = {"unschroot.1": "schroot.1"}


@pytest.mark.parametrize("page", man.PAGES)
def test_made_parts_are_current(page: str) -> None:
    text = (MAN / page).read_text()
    assert text == man.page_with(text, man.PAGES[page]()), "run: make docs"


def test_page_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place"):
        man.page_with("nothing", "made")


def text_of(page: str) -> str:
    """What a page says, without its font changes and the escapes of hyphens."""
    return re.sub(r"\\f[BIR]|\\&", "", (MAN / page).read_text()).replace("\\-", "-")


def section(page: str, title: str) -> str:
    """The text below one heading."""
    _before, _heading, rest = text_of(page).partition(f"\n.SH {title}\n")
    assert rest, f"{page} has no section {title}"
    return rest.partition("\n.SH ")[0]


def words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z0-9_.$-]+", text))


@pytest.mark.parametrize("page", [page for page in PAGES if page not in NAMES])
def test_pages_are_well_formed(page: str) -> None:
    outcome = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", MAN / page], capture_output=True, text=True)
    assert (outcome.returncode, outcome.stdout) == (0, "")


@pytest.mark.parametrize(("page", "other"), NAMES.items())
def test_other_names_of_pages(page: str, other: str) -> None:
    assert (MAN / page).read_text() == f".so man{other[-1]}/{other}\n"
    assert page.partition(".")[0] in section(other, "NAME")


@pytest.mark.parametrize("page", [page for page in PAGES if page not in NAMES])
def test_pages_that_are_pointed_to_exist(page: str) -> None:
    """Of those that are ours: schroot, sessions and what begins so."""
    pointed = set(re.findall(r"\.B[RI]* (\S+) \((\d)\)", text_of(page)))
    assert pointed
    for name, number in pointed:
        if name.startswith(("schroot", "sessions")):
            assert f"{name}.{number}" in PAGES


@pytest.mark.parametrize("name", [name for name in options.OPTIONS if name != "command"])
def test_every_option_of_schroot_has_an_entry(name: str) -> None:
    """An entry of its own, with its short form, and with a value if it takes one."""
    heads = re.findall(r"\.TP\n(.*)", section("schroot.1", "OPTIONS"))
    head = next((head for head in heads if re.search(rf"(^|[ ,\"]|, )--{name}( |$|\")", head)), "")
    assert head, f"--{name} has no entry"
    assert bool(re.search(rf"--{name} \"? ?[A-Z]", head)) == (options.OPTIONS[name] != options.FLAG), head
    for letter, long in options.SHORT.items():
        assert (f"-{letter} " in head) == (long == name) or long != name, head


def test_every_short_option_of_schroot_is_its_long_one() -> None:
    heads = re.findall(r"\.TP\n\.BR -(\w) \", \" --([a-z-]+)", section("schroot.1", "OPTIONS"))
    assert dict(heads) == options.SHORT


def test_every_action_is_in_help_and_page() -> None:
    for name in options.OPTIONS:
        assert (
            f"--{name} " in options.HELP_TEXT
            or name in ("command", "debug", *options.EXACT)
            or (f"--{name}\n" in options.HELP_TEXT)
        ), name


def test_every_key_has_an_entry() -> None:
    page = section("schroot.conf.5", "KEYS")
    for key in keys.KEYS:
        entry = f'\n.BR {key.name} " = ' in page
        assert entry != key.internal, key.name
        assert key.name in words(page)


def test_every_type_and_personality_is_said() -> None:
    types = set(re.findall(r"\.TP\n\.B (\S+)", section("schroot.conf.5", "TYPES")))
    assert types == set(keys.TYPES)
    syntax = section("schroot.conf.5", "SYNTAX")
    assert {word.rstrip(".,") for word in words(syntax)} >= set(keytypes.PERSONALITIES)


def test_every_value_type_is_said() -> None:
    for key in keys.KEYS:
        word = key.value_type.word
        assert " | " in word or word in section("schroot.conf.5", "SYNTAX"), word


def test_every_reserved_prefix_is_said() -> None:
    said = words(section("schroot.conf.5", "KEYS"))
    for prefix in ("auth.", "chroot.", "host.", "libexec.", "mount.", "session.", "status.", "sysconf."):
        assert not keys.is_custom(f"{prefix}x") and prefix in said


def _all_sessions() -> Iterator[Session]:
    """Sessions of every type, in which every value that scripts can see is set."""
    who = Identity(1, 1, "u", "g", (), "/home", "/bin/sh")
    custom = tuple((f"setup.{name}", "x") for name in ("config", "copyfiles", "fstab", "nssdatabases", "services"))
    for kind in SOURCES:
        fields = {key.field: "x" for key in keys.KEYS if key.part is keys.Part.SOURCE and kind in key.sources}
        fields = {name: value for name, value in fields.items() if name not in ("repack",) and "able" not in name}
        for union in (Union(), Union("overlay", "x", "/x", "/x")):
            chroot = Chroot("c", kind(**fields), union, "d", profile="p", script_config="s", custom=custom)
            made = Session("i", "", chroot, "a", who, who, None, 0, "", 0, Places(), "/l", "/l")
            if kind is not Plain:
                yield replace(
                    made, unpack_directory="/u", overlay_directory="/o", underlay_directory="/u", mount_device="/d",
                    snapshot="/s", snapshot_clone="/c",
                )  # fmt: skip


def test_every_variable_of_setup_scripts_is_said() -> None:
    said = words(section("schroot-setup.5", "ENVIRONMENT"))
    seen = {name for session in _all_sessions() for name in environ.for_scripts(session, "setup-start")}
    assert len(seen) > 50
    assert seen - said == set()


def test_every_variable_of_commands_is_said() -> None:
    session = next(_all_sessions())
    given = {"TERM": "x"}
    seen = environ.for_commands(session, session.caller, session.user, given, preserve=False, command="x")
    assert set(seen) - words(section("schroot.1", "ENVIRONMENT")) == set()


def test_every_stage_is_said() -> None:
    from sessions.steps import Stage

    assert words(section("schroot-setup.5", "STAGES")) >= set(Stage)


def test_every_stock_script_is_said() -> None:
    said = words(section("schroot-setup.5", "SCRIPTS"))
    for path in (MAN.parent / "setup.d").iterdir():
        assert path.name in said or path.is_dir(), path.name


def test_every_function_of_the_shell_libraries_is_said() -> None:
    said = words(section("schroot-setup.5", "LIBRARIES"))
    for path in (MAN.parent / "setup.d/common").iterdir():
        assert path.name in said
        for function in re.findall(r"^(\w+)\(\)", path.read_text(), re.MULTILINE):
            assert function in said or function.startswith("sessions_"), function


def test_every_profile_is_said() -> None:
    said = {word.rstrip(".") for word in words(section("schroot-setup.5", "PROFILES"))}
    profiles = [path.parent.name for path in (MAN.parent / "etc").glob("*/fstab")]
    assert profiles and said >= set(profiles)


def _commands(group: click.Group, prefix: str = "") -> list[tuple[str, click.Command]]:
    found = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += _commands(command, f"{prefix}{name} ")
        else:
            found.append((f"{prefix}{name}", command))
    return found


@pytest.mark.parametrize(("name", "command"), _commands(sessions))
def test_every_command_and_option_is_in_the_page(name: str, command: click.Command) -> None:
    page = (MAN / "sessions.1").read_text().replace("\\-", "-")
    assert f"{name}\n" in page or f'"{name}"' in page or f"{name} " in page
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            for option in parameter.opts:
                assert option in page, f"{option} of sessions {name}"


def _examples(page: str) -> list[str]:
    """The texts of a page that stand as they are."""
    found = re.findall(r"\.nf\n(?:\.RS\n)?(.*?)\n(?:\.RE\n)?\.fi", text_of(page), re.DOTALL)
    assert found
    return found


def _problems(directory: Path, name: str, text: str) -> list[str]:
    (directory / name).write_text(text + "\n")
    places = Places(native_config_dir=str(directory), schroot_config_dir=str(directory), stock_etc_dir="/no")
    configuration = load(places)
    assert configuration.chroots or configuration.problems
    return [str(problem) for problem in configuration.problems]


@pytest.mark.parametrize(("page", "name"), [("schroot.conf.5", "schroot.conf"), ("sessions.toml.5", "sessions.toml")])
def test_examples_of_configuration_are_right(page: str, name: str, tmp_path: Path) -> None:
    for example in _examples(page):
        if example.startswith("["):
            assert _problems(tmp_path, name, example) == []


def test_examples_of_calls_are_right() -> None:
    calls = [line for text in _examples("schroot.1") for line in text.split("\n") if line.startswith("schroot ")]
    assert len(calls) > 5
    for call in calls:
        options.parse(call.split()[1:]).check(lambda letter, line: None)


def test_the_example_of_a_script_is_a_shell_s(tmp_path: Path) -> None:
    (script,) = _examples("schroot-setup.5")
    path = tmp_path / "52aptcache"
    path.write_text(script + "\n")
    outcome = subprocess.run(["shellcheck", "-e", "SC1091", path], capture_output=True, text=True)
    assert (outcome.returncode, outcome.stdout) == (0, "")
