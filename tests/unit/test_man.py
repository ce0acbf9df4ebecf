"""The manual pages say what the code does: their made parts are current, and no option is missing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import click
import pytest

from sessions.cli import man
from sessions.cli.native import sessions

MAN = Path(__file__).resolve().parents[2] / "man"


@pytest.mark.parametrize("page", man.PAGES)
def test_made_parts_are_current(page: str) -> None:
    text = (MAN / page).read_text()
    assert text == man.page_with_keys(text, man.PAGES[page]), "run: make docs"


def test_page_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place"):
        man.page_with_keys("nothing", man.PAGES["sessions.toml.5"])


@pytest.mark.parametrize("page", sorted(path.name for path in MAN.iterdir()))
def test_pages_are_well_formed(page: str) -> None:
    outcome = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", MAN / page], capture_output=True, text=True)
    assert (outcome.returncode, outcome.stdout) == (0, "")


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
