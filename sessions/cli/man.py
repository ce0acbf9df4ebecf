"""The parts of the manual pages that are made from the table of keys: ``make docs`` writes them anew."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

from sessions.keys import KEYS, TYPES, WHOLE_KEYS, Key, Part, Status
from sessions.keytypes import show

BEGIN = '.\\" The lines from here on are made from the table of keys by: make docs\n'
END = '.\\" The made lines end here.\n'


def key_list(*states: Status) -> str:
    """The roff list of all keys in one of these states that a configuration file may have."""
    return "".join(_entry(key) for key in KEYS if key.status in states and not key.internal)


def whole_key_list() -> str:
    """The roff list of the keys that are about no chroot."""
    return "".join(_entry(key) for key in WHOLE_KEYS)


def variable_list() -> str:
    """The roff list of the variables of setup scripts that hold the value of a key."""
    variables = dict.fromkeys(key.variable for key in KEYS if key.variable)
    return "".join("\n".join(_variable_lines(name)) + "\n" for name in sorted(variables))


# Page -> what is made in it.
PAGES: dict[str, Callable[[], str]] = {
    "sessions.toml.5": lambda: key_list(Status.CURRENT, Status.NATIVE) + whole_key_list(),
    "schroot.conf.5": lambda: key_list(*Status),
    "schroot-setup.5": variable_list,
}
_STATUS_WORDS = {
    Status.NATIVE: "An addition: schroot 1.6.13 does not know it.",
    Status.DEPRECATED: "Deprecated.",
    Status.OBSOLETE: "Obsolete.",
}


def _entry(key: Key) -> str:
    return "\n".join(_lines(key)) + "\n"


def _lines(key: Key) -> Iterator[str]:
    yield ".TP"
    yield f'.BR {_escaped(key.name)} " = \\fI{_escaped(key.value_type.word)}\\fR"'
    yield _escaped(key.help)
    facts = []
    if key.status in _STATUS_WORDS:
        facts.append(_STATUS_WORDS[key.status])
    if key.required:
        facts.append("Required.")
    if key.part is Part.WHOLE:
        facts.append("It stands above all tables, and is about no chroot.")
    default = show(key.default)
    if default and len(default) < 40:
        facts.append(f"Default: {_escaped(default)}.")
    if key.sources:
        facts.append(f"For chroots of type {_kinds(key)}.")
    if key.variable:
        facts.append(f"Setup scripts see it as {key.variable}.")
    if facts:
        yield " ".join(facts)


def _variable_lines(name: str) -> Iterator[str]:
    yield ".TP"
    yield f".B {name}"
    for key in KEYS:
        if key.variable == name:
            what = _escaped(key.help) if key.internal else f"The value of the key \\fB{_escaped(key.name)}\\fR."
            kinds = f" For sessions of type {_kinds(key)}." if key.sources else ""
            at_start = " Not there once the command that has begun the session is gone." if key.configured_only else ""
            is_named = key.part is Part.UNION and key.name.endswith("-directory")
            named = " Where there is a union, with the session's name behind it." if is_named else ""
            yield f"{what}{kinds}{at_start}{named}"


def _kinds(key: Key) -> str:
    return _escaped(", ".join(name for name, source in TYPES.items() if source in key.sources))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-")


def page_with(text: str, made: str) -> str:
    """A page's text with the made part made anew; raises ValueError if it has no place for it."""
    before, begin, rest = text.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no place for the made part")
    return f"{before}{BEGIN}{made}{END}{after}"


def main() -> None:
    """Write the made parts of the pages in the directory ``man`` beside the package."""
    directory = os.path.join(os.path.dirname(__file__), "..", "..", "man")
    for name, make in PAGES.items():
        path = os.path.normpath(os.path.join(directory, name))
        with open(path, encoding="utf-8") as file:
            text = file.read()
        with open(path, "w", encoding="utf-8") as file:
            file.write(page_with(text, make()))
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
