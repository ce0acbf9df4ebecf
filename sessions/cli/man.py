"""The parts of the manual pages that are made from the table of keys: ``make docs`` writes them anew."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from sessions.keys import KEYS, TYPES, Key, Status
from sessions.keytypes import show

BEGIN = '.\\" The lines from here on are made from the table of keys by: make docs\n'
END = '.\\" The made lines end here.\n'
# Page -> the states of keys that it lists.
PAGES = {"sessions.toml.5": (Status.CURRENT, Status.NATIVE)}


def key_list(states: tuple[Status, ...]) -> str:
    """The roff list of all keys in one of these states."""
    return "".join(_entry(key) for key in KEYS if key.status in states and not key.internal)


def _entry(key: Key) -> str:
    return "\n".join(_lines(key)) + "\n"


def _lines(key: Key) -> Iterator[str]:
    yield ".TP"
    yield f'.BR {_escaped(key.name)} " = \\fI{_escaped(key.value_type.word)}\\fR"'
    yield _escaped(key.help)
    facts = []
    if key.required:
        facts.append("Required.")
    default = show(key.default)
    if default and len(default) < 40:
        facts.append(f"Default: {_escaped(default)}.")
    if key.sources:
        kinds = ", ".join(name for name, source in TYPES.items() if source in key.sources)
        facts.append(f"For chroots of type {_escaped(kinds)}.")
    if key.variable:
        facts.append(f"Setup scripts see it as {key.variable}.")
    if facts:
        yield " ".join(facts)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-")


def page_with_keys(text: str, states: tuple[Status, ...]) -> str:
    """A page's text with the made part made anew; raises ValueError if it has no place for it."""
    before, begin, rest = text.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no place for the list of keys")
    return f"{before}{BEGIN}{key_list(states)}{END}{after}"


def main() -> None:
    """Write the made parts of the pages in the directory ``man`` beside the package."""
    directory = os.path.join(os.path.dirname(__file__), "..", "..", "man")
    for name, states in PAGES.items():
        path = os.path.normpath(os.path.join(directory, name))
        with open(path, encoding="utf-8") as file:
            text = file.read()
        with open(path, "w", encoding="utf-8") as file:
            file.write(page_with_keys(text, states))
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
