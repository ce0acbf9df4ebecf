"""What the reader of either dialect gives: sections with their values and lines, and what is wrong with them."""

from __future__ import annotations

from enum import Enum

from sessions.data import Frozen, field

ERROR = "error"
WARNING = "warning"


def stray_at(text: str) -> int:
    """Where the first byte is that is not UTF-8, which the decoder made a surrogate of (surrogateescape); else -1."""
    if text.isascii():
        return -1
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return -1


class Dialect(Enum):
    """The two languages of configuration files; the keys are the same in both."""

    SCHROOT = "schroot.conf"
    TOML = "sessions.toml"


class Problem(Frozen):
    """One thing wrong: where, why, and what to do. An error makes its section unusable, a warning does not."""

    file: str
    line: int
    """Counted from 1; 0 is the whole file."""
    section: str
    key: str
    severity: str
    reason: str
    remedy: str

    @property
    def where(self) -> str:
        """``FILE: line N [section] key``, as schroot has it, without the parts that are not known."""
        line = f"line {self.line}" if self.line else ""
        section = f"[{self.section}]" if self.section else ""
        inside = " ".join(part for part in (line, section, self.key) if part)
        return f"{self.file}: {inside}" if inside else self.file

    @property
    def is_error(self) -> bool:
        """Whether what it is about cannot be used."""
        return self.severity == ERROR

    @property
    def text(self) -> str:
        """Where and why, with nothing in it that a terminal acts on."""
        return _printable(f"{self.where}: {self.reason}")

    def __str__(self) -> str:
        return f"{self.text}; {_printable(self.remedy)}"


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class RawSection(Frozen):
    """The definition of one chroot as written: ``values`` maps each key to its value and line."""

    name: str
    line: int
    values: dict[str, tuple[object, int]]
    problems: tuple[Problem, ...] = ()


class RawFile(Frozen):
    """One file as written; ``problems`` are those that belong to no section, or to one that is not in ``sections``."""

    file: str
    dialect: Dialect
    sections: tuple[RawSection, ...]
    problems: tuple[Problem, ...] = ()
    values: dict[str, tuple[object, int]] = field(default_factory=dict)
    """The keys that are about no chroot, each with its value and line."""
