"""schroot.conf(5): the reader of schroot's dialect, to the letter.

A line is a comment (its first byte is ``#``), a group (its first byte is ``[``), empty (no byte at all), or an item
split at its first ``=``. Nothing is trimmed: not the key, not the value, not a comment behind them. Where schroot gives
up at the first error, every problem here is bound to its line, and only the section that holds it becomes unusable.
"""

from __future__ import annotations

from sessions.config.raw import ERROR, WARNING, Dialect, Problem, RawFile, RawSection, stray_at

_CORRECT = "correct or remove the line; until then nothing in its section is used"


def parse(text: str, file: str) -> RawFile:
    """The sections of `text`, in the order of the file; `file` is only what problems call it."""
    reader = _Reader(file)
    for number, line in enumerate(text.split("\n"), 1):
        reader.take(line, number)
    return RawFile(file, Dialect.SCHROOT, reader.sections(), tuple(reader.problems))


class _Section:
    """A section that is still being read."""

    def __init__(self, name: str, line: int) -> None:
        self.name = name
        self.line = line
        self.values: dict[str, tuple[object, int]] = {}
        self.problems: list[Problem] = []


class _Reader:
    """Goes through the lines; ``current`` is the section that items belong to.

    Below a group line that cannot be used (``is_lost``), items belong to nothing: they must not fall to the section
    above.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.current: _Section | None = None
        self.is_lost = False
        self._sections: dict[str, _Section] = {}

    def sections(self) -> tuple[RawSection, ...]:
        return tuple(
            RawSection(section.name, section.line, section.values, tuple(section.problems))
            for section in self._sections.values()
        )

    def take(self, line: str, number: int) -> None:
        if not line:
            return
        if line[0] == "#":
            self._check_comment(line, number)
        elif line[0] == "[":
            self._take_group(line, number)
        elif not self.is_lost:
            self._take_item(line, number)

    def _check_comment(self, line: str, number: int) -> None:
        if stray_at(line) >= 0:
            self.problems.append(self._problem(number, "the comment is not UTF-8", "save the file as UTF-8", WARNING))

    def _take_group(self, line: str, number: int) -> None:
        self.current = None
        self.is_lost = True
        name, bracket, rest = line[1:].partition("]")
        if stray_at(line) >= 0:
            self._complain(number, "the line is not UTF-8", "save the file as UTF-8")
        elif not name or not bracket or "]" in rest:
            self._complain(number, f"Invalid group: “{_shown(line)}”", "write [NAME]; what follows it is not used")
        elif name in self._sections:
            first = self._sections[name].line
            remedy = f"the first, in line {first}, is used: rename or remove this one"
            self.problems.append(Problem(self.file, number, "", "", ERROR, f"Duplicate group ‘{name}’", remedy))
        else:
            self.is_lost = False
            self.current = self._sections[name] = _Section(name, number)

    def _take_item(self, line: str, number: int) -> None:
        key, equals, value = line.partition("=")
        if stray_at(line) >= 0:
            self._complain(number, "the line is not UTF-8", "save the file as UTF-8")
        elif not equals:
            self._complain(number, f"Invalid line: “{_shown(line)}”", _remedy_for(line))
        elif not key:
            self._complain(number, f"No key specified: “{_shown(line)}”", _CORRECT)
        elif self.current is None:
            self._complain(number, f"No group specified: “{_shown(line)}”", "put a line [NAME] above it")
        elif key in self.current.values:
            first = self.current.values[key][1]
            self._complain(number, f"Duplicate key ‘{key}’", f"the first is in line {first}: keep one of them")
        else:
            self.current.values[key] = (value, number)

    def _complain(self, number: int, reason: str, remedy: str) -> None:
        """Blame the section being read, or the file where there is none."""
        problem = self._problem(number, reason, remedy, ERROR)
        (self.current.problems if self.current else self.problems).append(problem)

    def _problem(self, number: int, reason: str, remedy: str, severity: str) -> Problem:
        section = self.current.name if self.current else ""
        return Problem(self.file, number, section, "", severity, reason, remedy)


def _remedy_for(line: str) -> str:
    """What to do about a line that is none of the four kinds; the usual cause of some cannot be seen in an editor."""
    if line.startswith("\ufeff"):
        return "save the file without a byte order mark"
    if line == "\r":
        return "save the file with Unix line ends"
    if not line.strip():
        return "empty the line: blanks alone are not allowed"
    return _CORRECT


def _shown(line: str) -> str:
    """As much of the line as a message has room for."""
    return line if len(line) <= 60 else f"{line[:60]}…"
