"""How the native command prints lists and records: as tables for people, as JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def tell(text: str) -> None:
    """A line on standard error; one that cannot be written is lost."""
    try:
        os.write(2, f"{text}\n".encode("utf-8", "surrogateescape"))
    except OSError:
        pass


def print_json(value: Any) -> None:
    """One JSON value."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they have to be; heads only for people."""
    lines = [list(row) for row in rows]
    if sys.stdout.isatty():
        lines.insert(0, list(heads))
    widths = [max((len(line[column]) for line in lines), default=0) for column in range(len(heads))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
