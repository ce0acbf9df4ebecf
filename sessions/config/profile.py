"""The setup files of a chroot - fstab, copyfiles, nssdatabases - read when a session begins, and then part of it.

The custom key (``setup.fstab`` ...) names the file relative to a configuration directory. schroot's directory is asked
first, then the native one, then the profiles that came with the package. An empty value means that there is nothing to
do. A file that is named and missing, or holds a line that makes no sense, is an error: nothing has been set up yet.

What a shell file of the administrator's says instead (sessions.config.shellfile) is `told`: an absolute path for a key.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

from sessions import keys
from sessions.config import custom
from sessions.config.raw import stray_at
from sessions.config.read import Untrusted, read_trusted_again
from sessions.data import TYPE_CHECKING
from sessions.errors import ConfigError
from sessions.model import Chroot, CopyLine, FstabLine, Places

if TYPE_CHECKING:
    from typing import Any

_BLANKS = " \t\r"
_SPECIAL_IN_COPIES = frozenset(" \t\\")
# The patterns are compiled where they are used first, which in most sessions is nowhere.
# The escapes of fstab(5) for what separates fields and lines, and for the backslash itself.
_FSTAB_ESCAPE = r"\\(040|011|012|134|\\)"
_FSTAB_MEANING = {"040": " ", "011": "\t", "012": "\n", "134": "\\", "\\": "\\"}
# A word of copyfiles: a backslash keeps the character behind it from ending the word, as for the shell's read.
_COPY_WORD = r"(?:\\.|[^ \t\\])+"
_DATABASE = "[a-z][a-z0-9_-]*"
# What may be a service: it becomes a word for the init system inside, and must not be taken for an option.
_SERVICE = "[A-Za-z0-9_][A-Za-z0-9_.@:+-]*"
# What schroot calls the file of each key when it is missing.
_WORDS = {"setup.fstab": "setup_fstab", "setup.copyfiles": "copyfiles", "setup.nssdatabases": "nssdatabases"}

Told = Mapping[str, str]
_NOTHING_TOLD: Told = {}


def fstab(chroot: Chroot, places: Places, told: Told = _NOTHING_TOLD) -> tuple[FstabLine, ...]:
    """What is mounted inside the root, in the order of the file; fields as in fstab(5), the last two unused."""
    return _parsed(_fstab_line, chroot, "setup.fstab", places, told)


def copyfiles(chroot: Chroot, places: Places, told: Told = _NOTHING_TOLD) -> tuple[CopyLine, ...]:
    """The files copied from the host into the root: lines ``SOURCE [TARGET]``; relative paths are for who copies."""
    return _parsed(_copy_line, chroot, "setup.copyfiles", places, told)


def nssdatabases(chroot: Chroot, places: Places, told: Told = _NOTHING_TOLD) -> tuple[str, ...]:
    """The databases copied from the host into the root's /etc: a name a line, each once."""
    return tuple(dict.fromkeys(_parsed(_database, chroot, "setup.nssdatabases", places, told)))


def services(chroot: Chroot, told: Told = _NOTHING_TOLD) -> tuple[str, ...]:
    """The services that are started inside, in this order: names with commas or blanks between them."""
    value = told["setup.services"] if "setup.services" in told else chroot.custom_value("setup.services")
    names = tuple(value.replace(",", " ").split())
    for name in names:
        if not re.fullmatch(_SERVICE, name):
            raise ConfigError(
                f"setup.services: {name!r} is not the name of a service", hint="write names, with commas between them"
            )
    return names


def _parsed(parse: Callable[[str, str], Any], chroot: Chroot, key: str, places: Places, told: Told) -> tuple[Any, ...]:
    """What `parse` makes of each line of the file that `key` names, given where the line is, too."""
    paths = tuple(filter(None, [told[key]])) if key in told else candidates(_file_named(chroot, key), key, places)
    return _all_parsed(parse, *_read(paths, key)) if paths else ()


@lru_cache(maxsize=64)
def _all_parsed(parse: Callable[[str, str], Any], path: str, text: str) -> tuple[Any, ...]:
    """Every session of a profile has the same lines."""
    return tuple(parse(line, where) for where, line in _lines(path, text))


def _lines(path: str, text: str) -> Iterator[tuple[str, str]]:
    """Each line that says something, with ``FILE, line N``; blanks around it, comments and empty lines are dropped."""
    for number, line in enumerate(text.split("\n"), 1):
        content = line.strip(_BLANKS)
        if content and not content.startswith("#"):
            where = f"{path}, line {number}"
            if stray_at(content) >= 0 or "\0" in content:
                raise ConfigError(f"{where}: the line is not UTF-8 text", hint="save the file as UTF-8")
            yield where, content


def _file_named(chroot: Chroot, key: str) -> str:
    """The file that `key` names; with a script-config, the one beside that, which is how schroot reads such chroots."""
    if chroot.script_config and not chroot.custom_value(key):
        return f"{os.path.dirname(chroot.script_config)}/{keys.PROFILE_FILES[key]}"
    return chroot.custom_value(key)


def candidates(value: str, key: str, places: Places) -> tuple[str, ...]:
    """The paths at which the file may be that `key` names, in the order in which they count; none for an empty value.

    Raises ConfigError for a value that climbs out of the configuration.
    """
    try:
        custom.check_inside(value)
    except ValueError as error:
        reason, _, remedy = str(error).rpartition("; ")
        raise ConfigError(f"{key}: {reason}", hint=remedy) from None
    return tuple(f"{directory}/{value}" for directory in places.config_path) if value else ()


def _read(paths: Sequence[str], key: str) -> tuple[str, str]:
    """Path and text of the first of the files that is there."""
    for path in paths:
        try:
            return path, read_trusted_again(path)
        except FileNotFoundError:
            continue
        except Untrusted as error:
            raise ConfigError(f"{key}: {path}: {error.reason}", hint=error.remedy) from None
    first, *others = paths
    instead = f" (or {', or '.join(others)})" if others else ""
    raise ConfigError(
        f"{_WORDS[key]} file '{first}' does not exist",
        hint=f"create it{instead}, choose another profile, or set {key} to nothing",
    )


def _fstab_line(line: str, where: str) -> FstabLine:
    fields = [field for field in line.replace("\t", " ").split(" ") if field]
    if "\\" in line:
        fields = [re.sub(_FSTAB_ESCAPE, lambda match: _FSTAB_MEANING[match[1]], field) for field in fields]
    if len(fields) < 3:
        raise ConfigError(
            f"{where}: {len(fields)} of at least 3 fields",
            hint="write what to mount, where, the type of file system, and the options",
        )
    source, target, fstype, *rest = fields
    # A target without the slash is taken from the root, as schroot does.
    target = target if target.startswith("/") else f"/{target}"
    return FstabLine(source, _checked_target(target, where), fstype, rest[0] if rest else "defaults")


def _copy_line(line: str, where: str) -> CopyLine:
    source, rest = line, ""
    if not _SPECIAL_IN_COPIES.isdisjoint(line):
        match = re.match(_COPY_WORD, line)
        source, rest = (match[0], line[match.end() :].strip(_BLANKS)) if match else (line, "")
        source, rest = (re.sub(r"\\(.)", r"\1", words) for words in (source, rest))
    target = rest or source
    # A relative path is passed over, with a warning, when the session comes to it.
    return CopyLine(source, _checked_target(target, where) if target.startswith("/") else target)


def _checked_target(target: str, where: str) -> str:
    """`target`, unless it climbs: what ``..`` means inside depends on links that can change."""
    if ".." in target.split("/"):
        raise ConfigError(f"{where}: the target {target!r} has a '..' in it", hint="write the path without it")
    return target


def _database(line: str, where: str) -> str:
    if not (line.isalpha() and line.isascii() and line.islower()) and not re.fullmatch(_DATABASE, line):
        raise ConfigError(
            f"{where}: {line!r} is not the name of a database", hint="write one name a line, such as passwd"
        )
    return line
