"""The types a configuration value can have: how it is read from schroot.conf, from TOML, and written back.

A reader raises ValueError with "REASON; REMEDY", in words that fit behind "FILE, line N, key: ".
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sessions.data import Frozen
from sessions.model import Volume

Value = str | bool | int | tuple[str, ...] | tuple[Volume, ...]

# The persona values of personality(2), under schroot's names ("scorvr3" is its spelling).
PERSONALITIES = {
    "undefined": 0xFFFFFFFF,
    "linux": 0x0000,
    "linux_32bit": 0x0800000,
    "linux32": 0x0008,
    "svr4": 0x4100001,
    "scorvr3": 0x7000003,
    "osr5": 0x6000003,
    "wysev386": 0x5000004,
    "iscr4": 0x4000005,
    "bsd": 0x0006,
    "sunos": 0x4000006,
    "xenix": 0x5000007,
    "irix32": 0x4000009,
    "irixn32": 0x400000A,
    "irix64": 0x400000B,
    "riscos": 0x000C,
    "solaris": 0x400000D,
    "uw7": 0x410000E,
    "osf4": 0x000F,
    "hpux": 0x0010,
}

_CLASSES = {
    "alnum": "A-Za-z0-9",
    "alpha": "A-Za-z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r" \t\n\r\f\v",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
# The patterns are compiled where they are used first: at most starts that is nowhere.
_ERE_TOKEN = r"(?s)\\(.)|\[(\^?)(\]?(?:\[:[a-z]+:\]|[^]])*)\]|(\[)"
_ERE_MEMBER = r"(?s)\[:([a-z]+):\]|(.)-(?!\[:)(.)|(.)"

_SIZE = r"[1-9][0-9]*[KMGT%]?"
_AGE = r"[0-9]+[hdw]"
_AGE_UNITS_S = {"h": 3600, "d": 86400, "w": 7 * 86400}


class KeyType(Frozen):
    """How values of one type are read and written.

    ``parse`` takes the text of a schroot.conf line; ``accept`` takes what a TOML parser gives; ``word`` names the type
    in manual pages and messages.
    """

    word: str
    parse: Callable[[str], Value]
    accept: Callable[[object], Value]


def show(value: Value, joint: str = ",") -> str:
    """The value as schroot.conf writes it: lists joined by commas, or by `joint`, true and false."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return value if isinstance(value, str) else joint.join(map(_shown, value))


def _shown(item: str | Volume) -> str:
    """An item of a list; a volume as what it is, and what it is opened as."""
    return item if isinstance(item, str) else f"{item.kind}:{item.opens}"


def kind(value: object) -> str:
    """What a TOML value is, for messages: the value itself may be of any size."""
    kinds = {
        str: "a string",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "a table",
    }
    return kinds.get(type(value), "a date or time")


def compile_regex(text: str) -> re.Pattern[str]:
    """A POSIX extended regular expression, which is what schroot.conf holds, as one of Python's.

    They differ between brackets: ``[[:alpha:]]`` is a class, and a backslash there is a character like any other.
    """
    try:
        is_plain = "\\" not in text and "[" not in text
        return re.compile(text if is_plain else re.sub(_ERE_TOKEN, _translate_token, text))
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}; see regex(7)") from None


def _translate_token(match: re.Match[str]) -> str:
    escaped, negation, members, stray = match.groups()
    if stray:
        raise re.error("a bracket is not closed")
    if escaped is None:
        return f"[{negation}{re.sub(_ERE_MEMBER, _translate_member, members)}]"
    if escaped in "<>":
        return r"\b"
    return match[0] if escaped in "123456789bBdDsSwW" else re.escape(escaped)


def _translate_member(match: re.Match[str]) -> str:
    name, first, last, single = match.groups()
    if name:
        if name not in _CLASSES:
            raise re.error(f"there is no class [:{name}:]")
        return _CLASSES[name]
    return re.escape(single) if single else f"{re.escape(first)}-{re.escape(last)}"


def _text(text: str) -> str:
    if "\0" in text or "\n" in text:
        raise ValueError("may not hold a newline or a NUL; take it out")
    return text


def _boolean(text: str) -> bool:
    if text in ("true", "yes", "1"):
        return True
    if text in ("false", "no", "0"):
        return False
    raise ValueError(f"{text!r} is not a truth value; write true or false")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in _text(text).split(",") if word)


def _absolute_path(text: str, what: str = "Directory") -> str:
    if not _text(text).startswith("/"):
        raise ValueError(f"{text}: {what} must have an absolute path; begin it with /")
    return text


def _absolute_paths(text: str) -> tuple[str, ...]:
    return tuple(_absolute_path(path) for path in _words(text))


def _regex(text: str) -> str:
    if not text:
        raise ValueError("is empty, which would find every name; write ^$ to find none")
    compile_regex(_text(text))
    return text


def _personality(text: str) -> str:
    if text not in PERSONALITIES:
        raise ValueError(f"Personality ‘{text}’ is unknown; Valid personalities: {', '.join(sorted(PERSONALITIES))}")
    return text


def _size(text: str) -> str:
    if text and not re.fullmatch(_SIZE, text):
        raise ValueError(f"{text!r} is not a size; write bytes, or a number followed by K, M, G, T or %")
    return text


def _age(text: str) -> str:
    if not re.fullmatch(_AGE, text):
        raise ValueError(f"{text!r} is not a time; write a number followed by h, d or w")
    return text


def _text_type(word: str, parse: Callable[[str], Value]) -> KeyType:
    def accept(value: object) -> Value:
        if not isinstance(value, str):
            raise ValueError(f"wants a string, not {kind(value)}; write it in quotes")
        return parse(value)

    return KeyType(word, parse, accept)


def _list_type(word: str, parse: Callable[[str], tuple[str, ...]], check: Callable[[str], str]) -> KeyType:
    def accept(value: object) -> Value:
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise ValueError('wants a list of strings, none empty; write ["one", "two"]')
        return tuple(check(item) for item in value)

    return KeyType(word, parse, accept)


def _accept_boolean(value: object) -> Value:
    if not isinstance(value, bool):
        raise ValueError(f"wants true or false, not {kind(value)}; write it without quotes")
    return value


_LONGEST_S = 10**7
_SECONDS_WANTED = "write a whole number of seconds, such as 30"


def _seconds(text: str) -> int:
    if not re.fullmatch("[0-9]{1,8}", text) or int(text) > _LONGEST_S:
        raise ValueError(f"{text!r} is not a time of at most {_LONGEST_S} seconds; {_SECONDS_WANTED}")
    return int(text)


def _accept_seconds(value: object) -> Value:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"wants a number, not {kind(value)}; {_SECONDS_WANTED}")
    return _seconds(str(value))


def _parse_volumes(_text: str) -> Value:
    raise ValueError("volumes cannot be written in this file; define the chroot in sessions.toml")


def _accept_volumes(value: object) -> Value:
    from sessions import volumetables  # few chroots have any

    return volumetables.accept(value)


def choice(*words: str, complaint: str = "") -> KeyType:
    """A type whose value is one of `words`; `complaint` replaces the usual one, with ``{}`` for the value."""

    def parse(text: str) -> str:
        if text not in words:
            said = complaint.format(text) if complaint else f"{text!r} is not known"
            raise ValueError(f"{said}; use one of {', '.join(words)}")
        return text

    return _text_type(" | ".join(words), parse)


def path(what: str, *, is_optional: bool = False) -> KeyType:
    """A type whose value is an absolute path, of something that schroot's message calls `what`."""

    def parse(text: str) -> str:
        return text if is_optional and not text else _absolute_path(text, what)

    return _text_type("absolute path", parse)


TEXT = _text_type("text", _text)
BOOLEAN = KeyType("true | false", _boolean, _accept_boolean)
NAMES = _list_type("list of names", _words, _text)
PATHS = _list_type("list of absolute paths", _absolute_paths, _absolute_path)
REGEX = _text_type("regular expression", _regex)
# schroot takes any shell; whether it is there, it says when it is wanted.
SHELL = KeyType("absolute path", _text, path("Shell", is_optional=True).accept)
PERSONALITY = _text_type("personality", _personality)
SIZE = _text_type("size", _size)
SECONDS = KeyType("seconds", _seconds, _accept_seconds)
VOLUMES = KeyType("list of tables", _parse_volumes, _accept_volumes)
AGE = _text_type("time", _age)


def size_bytes(size: str, whole_bytes: int) -> int:
    """How many bytes a value of SIZE is; `whole_bytes` is what parts of it are of, and what is meant by none."""
    if not size:
        return whole_bytes
    number, unit = int(size.rstrip("KMGT%")), size[-1]
    return number * whole_bytes // 100 if unit == "%" else number << 10 * ("KMGT".find(unit) + 1)


def age_s(age: str) -> int:
    """How many seconds a value of AGE is."""
    return int(age[:-1]) * _AGE_UNITS_S[age[-1]]
