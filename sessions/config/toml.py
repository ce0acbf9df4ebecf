"""sessions.toml(5): the reader of the native dialect, one table ``[chroot.NAME]`` a chroot, with schroot's key names.

The parser gives values without lines, so the lines are looked for in the text: best effort, good for every way of
writing but the strangest. A key that is not found gets the line of its section, a section the line 0.
"""

from __future__ import annotations

import re

from sessions import keys
from sessions.config.raw import ERROR, Dialect, Problem, RawFile, RawSection, stray_at
from sessions.keytypes import kind

_CHROOT = "chroot"
_WHOLE = tuple(key.name for key in keys.WHOLE_KEYS)
_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_PATH = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_HEADER = re.compile(rf"[ \t]*\[\[?[ \t]*({_PATH})[ \t]*\]")
_ASSIGNMENT = re.compile(rf"[ \t]*({_PATH})[ \t]*=")
_LONGEST_KEY = 200
_DEEPEST = 20
_ERROR_LINE = re.compile(r"\(at line (\d+), column \d+\)$")


def parse(text: str, file: str) -> RawFile:
    """The sections of `text`; with an error of syntax none, for nothing behind it can be trusted."""
    if (stray := stray_at(text)) >= 0:
        line = text.count("\n", 0, stray) + 1
        return _unusable(file, line, "the line is not UTF-8", "save the file as UTF-8")
    import tomli  # only where there is a TOML file: it costs milliseconds

    try:
        root = tomli.loads(text)
    except ValueError as error:
        return _unusable(file, _error_line(str(error), text), f"not TOML: {error}", "correct the line")
    except RecursionError:
        return _unusable(file, 0, "not TOML: the values are nested too deeply", "write them flat")
    return _sections(root, file, Lines(text))


class Lines:
    """Where sections and keys are written: a small scan for ``[chroot.NAME]`` and ``key =``."""

    def __init__(self, text: str) -> None:
        self._found: dict[tuple[str, ...], int] = {}
        header: tuple[str, ...] = ()
        ending = ""  # of the many-line string that we are inside of
        for number, line in enumerate(text.split("\n"), 1):
            if ending:
                ending = "" if ending in line else ending
                continue
            if match := _HEADER.match(line):
                header = _parts(match[1])
                self._note(header, number)
            elif match := _ASSIGNMENT.match(line):
                self._note(header + _parts(match[1]), number)
            ending = next((quotes for quotes in ('"""', "'''") if line.count(quotes) % 2), "")

    def _note(self, path: tuple[str, ...], number: int) -> None:
        """Remember the first line of `path` and of each table it implies; a dotted key counts as written out."""
        for length in range(1, min(len(path), _DEEPEST) + 1):
            known = path[:length] if length <= 3 else (*path[:2], ".".join(path[2:length]))
            self._found.setdefault(known, number)

    def section(self, name: str) -> int:
        """The line of ``[chroot.NAME]``."""
        return self._found.get((_CHROOT, name), 0)

    def key(self, section: str, key: str) -> int:
        """The line of `key` in the section, else the section's."""
        return self._found.get((_CHROOT, section, key), self.section(section))

    def top(self, name: str) -> int:
        """The line of a table or key at the top."""
        return self._found.get((name,), 0)


def _parts(path: str) -> tuple[str, ...]:
    """``chroot."a.b"`` taken apart; escapes inside quotes are left as they are (best effort)."""
    return tuple(part[1:-1] if part[0] in "\"'" else part for part in re.findall(_PART, path))


def _sections(root: dict[str, object], file: str, lines: Lines) -> RawFile:
    sections = []
    problems = []
    values = {}
    for name, value in root.items():
        if name in _WHOLE:
            values[name] = (value, lines.top(name))
        elif name != _CHROOT:
            remedy = "only tables [chroot.NAME] are known" + _did_you_mean(name)
            problems.append(Problem(file, lines.top(name), "", name, ERROR, f"unknown table or key ‘{name}’", remedy))
        elif not isinstance(value, dict):
            reason, remedy = f"‘{_CHROOT}’ wants tables, not {kind(value)}", "write [chroot.NAME]"
            problems.append(Problem(file, lines.top(name), "", name, ERROR, reason, remedy))
        else:
            sections = [_section(chroot, table, file, lines) for chroot, table in value.items()]
    return RawFile(file, Dialect.TOML, tuple(sections), tuple(problems), values)


def _did_you_mean(name: str) -> str:
    if name.lower().startswith("ch"):
        return f"; write [chroot.NAME] for [{name}.NAME]"
    return f", and {' and '.join(_WHOLE)}" if name.startswith(_WHOLE[0][:3]) else ""


def _section(name: str, table: object, file: str, lines: Lines) -> RawSection:
    line = lines.section(name)
    if not isinstance(table, dict):
        reason = f"‘{name}’ wants a table, not {kind(table)}"
        problem = Problem(file, line, name, "", ERROR, reason, f"write [chroot.{name}] and the keys below it")
        return RawSection(name, line, {}, (problem,))
    values: dict[str, tuple[object, int]] = {}
    problems = []
    for key, value in _flatten(table):
        place = lines.key(name, key)
        if key in values:
            reason = f"Duplicate key ‘{key}’: the first is in line {values[key][1]}"
            problems.append(Problem(file, place, name, key, ERROR, reason, "keep one of them"))
        else:
            values[key] = (value, place)
    return RawSection(name, line, values, tuple(problems))


def _flatten(table: dict[str, object]) -> list[tuple[str, object]]:
    """Keys and values, nested tables written with dots: ``[chroot.sid.setup] fstab`` is ``setup.fstab``.

    A known key is never taken apart, so that a table given for one is found to be of the wrong type.
    """
    flat = []
    waiting: list[tuple[str, object]] = list(reversed(table.items()))
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict) and key not in keys.BY_NAME and len(key) < _LONGEST_KEY:
            waiting.extend((f"{key}.{inner}", item) for inner, item in reversed(value.items()))
        else:
            flat.append((key, value))
    return flat


def _error_line(message: str, text: str) -> int:
    """The line that the parser's message ends with, or 0 where it says none."""
    match = _ERROR_LINE.search(message)
    if match:
        return int(match[1])
    return text.rstrip("\n").count("\n") + 1 if message.endswith("(at end of document)") else 0


def _unusable(file: str, line: int, reason: str, remedy: str) -> RawFile:
    remedy += "; until then nothing in this file is used"
    return RawFile(file, Dialect.TOML, (), (Problem(file, line, "", "", ERROR, reason, remedy),))
