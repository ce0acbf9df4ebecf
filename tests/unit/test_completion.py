"""The completion of both commands, tried in bash: it knows every option there is, and what may follow each."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import click
import pytest

from sessions.cli import options
from sessions.cli.native import sessions

COMPLETION = Path(__file__).resolve().parents[2] / "etc/bash-completion"
COLON_BREAKS = " \t\n\"'><=;|&(:"
# What bash does when the tab key is pressed at the end of a line.
COMPLETE = """
source "$FILE"
COMP_LINE=$LINE_TO_COMPLETE COMP_POINT=${#LINE_TO_COMPLETE}
COMP_WORDBREAKS=$BREAKS
"$FUNCTION" "$COMMAND"
printf '%s\\n' "${COMPREPLY[@]}"
"""
# Stand-ins for the commands, which print what they print of a configuration and of sessions.
SCHROOT = """#!/bin/sh
case " $* " in
    *" --all-sessions "*) printf 'session:%s\\n' one two plain ;;
    *" --list "*) printf '%s\\n' chroot:bookworm chroot:stable source:bookworm ;;
esac
"""
SESSIONS = """#!/bin/sh
case "$*" in
    "--config-dir /other chroots") printf 'elsewhere  plain  -  -\\n' ;;
    chroots)
        printf '%s\\n' 'bookworm  directory  overlay  stable,testing  Debian' 'host  host  overlay  -  the system' \\
            'plain  plain  -  -' 'tar  file  -  -' 'dir  directory  -  -' ;;
    list) printf '%s  bookworm  up  -  /run\\n' one two ;;
esac
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("programs")
    for name, text in (("schroot", SCHROOT), ("sessions", SESSIONS)):
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    return directory


def complete(programs: Path, line: str, breaks: str = COLON_BREAKS) -> list[str]:
    command = line.split()[0]
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "FILE": str(COMPLETION / command),
        "FUNCTION": f"_{command}",
        "COMMAND": command,
        "LINE_TO_COMPLETE": line,
        "BREAKS": breaks,
    }
    call = ["bash", "--norc", "-c", COMPLETE]
    result = subprocess.run(call, env=environment, capture_output=True, text=True, cwd=programs, check=True)
    assert result.stderr == ""
    return [word for word in result.stdout.splitlines() if word]


def test_schroot_knows_every_option(programs: Path) -> None:
    long = {f"--{name}" for name in options.OPTIONS if name != "command"}
    known = {*long, *(f"-{letter}" for letter in options.SHORT)}
    assert set(complete(programs, "schroot -")) == known, "see etc/bash-completion/schroot"
    assert complete(programs, "schroot --al") == ["--all", "--all-chroots", "--all-sessions", "--all-source-chroots"]


VALUED = [name for name, kind in options.OPTIONS.items() if kind != options.FLAG and name != "command"]
WORDS = [f"--{name}" for name in VALUED] + [f"-{letter}" for letter, name in options.SHORT.items() if name in VALUED]


@pytest.mark.parametrize("word", WORDS)
def test_schroot_offers_no_option_as_a_value(programs: Path, word: str) -> None:
    assert [found for found in complete(programs, f"schroot {word} -") if found.startswith("-")] == []
    assert complete(programs, f"schroot {word} x --rec") == ["--recover-session"]


@pytest.mark.parametrize("name", [name for name, kind in options.OPTIONS.items() if kind == options.FLAG])
def test_schroot_takes_no_value_for_a_flag(programs: Path, name: str) -> None:
    assert complete(programs, f"schroot --{name} --recover") == ["--recover-session"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("schroot -c ", ["chroot:bookworm", "bookworm", "chroot:stable", "stable", "source:bookworm"]),
        ("schroot -c b", ["bookworm"]),
        ("schroot --chroot st", ["stable"]),
        ("schroot -qc b", ["bookworm"]),
        ("schroot --chroot=b", ["bookworm"]),
        ("schroot -c chroot:b", ["bookworm"]),
        ("schroot -c source:", ["bookworm"]),
        ("schroot --chroot=source:b", ["bookworm"]),
        ("schroot -l -c so", ["source:bookworm"]),
        ("schroot -r -c ", ["one", "two", "plain"]),
        ("schroot -rc t", ["two"]),
        ("schroot -e -c o", ["one"]),
        ("schroot --end-session --chroot o", ["one"]),
        ("schroot --recover-session -c t", ["two"]),
        ("schroot -c -e -c b", ["bookworm"]),
        ("schroot -c bookworm -u roo", ["root"]),
        ("schroot --user=roo", ["root"]),
        ("schroot -s /bin/s", ["/bin/sh"]),
        ("schroot --debug i", ["info"]),
        ("schroot -c bookworm -- -", []),
        ("schroot -c bookworm -d /us", ["/usr"]),
        ("schroot --config-dir /us", ["/usr"]),
    ],
)
def test_schroot(programs: Path, line: str, found: list[str]) -> None:
    assert complete(programs, line) == found


def test_words_that_bash_does_not_break(programs: Path) -> None:
    breaks = COLON_BREAKS.replace(":", "").replace("=", "")
    assert complete(programs, "schroot -c source:b", breaks) == ["source:bookworm"]
    assert complete(programs, "schroot --chroot=b", breaks) == ["--chroot=bookworm"]


@pytest.mark.parametrize(
    "line", ["schroot -c bookworm -- ", "schroot ", "sessions run bookworm -- ", "sessions exec one "]
)
def test_commands_and_files(programs: Path, line: str) -> None:
    assert "bash" in complete(programs, f"{line}bas")
    assert complete(programs, f"{line}cat sess") == ["sessions"]


def _commands(group: click.Group, prefix: str = "") -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = [(prefix.strip(), group)]
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += _commands(command, f"{prefix}{name} ")
        else:
            found.append((f"{prefix}{name}", command))
    return found


@pytest.mark.parametrize(("name", "command"), _commands(sessions))
def test_sessions_knows_every_option(programs: Path, name: str, command: click.Command) -> None:
    found = {"--help", "-h"}
    valued = []
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            found.update(parameter.opts)
            if not parameter.is_flag and parameter.name != "version":
                valued += parameter.opts
    line = f"sessions {name}".rstrip()
    assert set(complete(programs, f"{line} -")) == found, "see etc/bash-completion/sessions"
    for option in valued:
        assert complete(programs, f"{line} {option} -") == []
        assert "--help" in complete(programs, f"{line} {option} x --h")


@pytest.mark.parametrize(("name", "group"), [(n, c) for n, c in _commands(sessions) if isinstance(c, click.Group)])
def test_sessions_knows_every_subcommand(programs: Path, name: str, group: click.Group) -> None:
    assert sorted(complete(programs, f"sessions {name} ".replace("  ", " "))) == sorted(group.commands)


CHROOTS = ["bookworm", "stable", "testing", "source:bookworm", "host", "plain", "tar", "source:tar", "dir"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("sessions run ", CHROOTS),
        ("sessions begin -n x ", CHROOTS),
        ("sessions plan ", CHROOTS),
        ("sessions lock ", CHROOTS),
        ("sessions lock --reason why ", CHROOTS),
        ("sessions unlock ", CHROOTS),
        ("sessions config show ", CHROOTS),
        ("sessions run source:", ["bookworm", "tar"]),
        ("sessions --config-dir /other run ", ["elsewhere"]),
        ("sessions exec ", ["one", "two"]),
        ("sessions end one t", ["two"]),
        ("sessions recover ", ["one", "two"]),
        ("sessions show o", ["one"]),
        ("sessions show one ", []),
        ("sessions list ", []),
        ("sessions service ", ["start", "stop"]),
        ("sessions run -u roo", ["root"]),
        ("sessions run bookworm --user=roo", ["root"]),
        ("sessions run bookworm -d /us", ["/usr"]),
        ("sessions run bookworm -s /bin/s", ["/bin/sh"]),
        ("sessions run bookworm make -", []),
    ],
)
def test_sessions(programs: Path, line: str, found: list[str]) -> None:
    assert complete(programs, line) == found


@pytest.mark.parametrize("name", ["schroot", "sessions"])
def test_shellcheck(name: str) -> None:
    outcome = subprocess.run(["shellcheck", "-s", "bash", COMPLETION / name], capture_output=True, text=True)
    assert (outcome.returncode, outcome.stdout) == (0, "")
