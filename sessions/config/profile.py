"""The setup files of a chroot - fstab, copyfiles, nssdatabases - read when a session begins, and then part of it.

The custom key (``setup.fstab`` ...) names the file relative to a configuration directory. schroot's directory is asked
first, then the native one, then the profiles that came with the package. An empty value means that there is nothing to
do. A file that is named and missing, or holds a line that makes no sense, is an error: nothing has been set up yet.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterator

from sessions import keys
from sessions.config import custom
from sessions.config.raw import NOT_UTF8
from sessions.config.read import Untrusted, read_trusted_again
from sessions.errors import ConfigError
from sessions.model import Chroot, CopyLine, FstabLine, Places

_BLANKS = " \t\r"
_BETWEEN_FIELDS = re.compile("[ \t]+")
# The escapes of fstab(5) for what separates fields and lines, and for the backslash itself.
_FSTAB_ESCAPE = re.compile(r"\\(040|011|012|134|\\)")
_FSTAB_MEANING = {"040": " ", "011": "\t", "012": "\n", "134": "\\", "\\": "\\"}
# A word of copyfiles: a backslash keeps the character behind it from ending the word, as for the shell's read.
_COPY_WORD = re.compile(r"(?:\\.|[^ \t\\])+")
_DATABASE = re.compile("[a-z][a-z0-9_-]*")


def fstab(chroot: Chroot, places: Places) -> tuple[FstabLine, ...]:
    """What is mounted inside the root, in the order of the file; fields as in fstab(5), the last two unused."""
    return tuple(_fstab_line(line, where) for where, line in _lines(chroot, "setup.fstab", places))


def copyfiles(chroot: Chroot, places: Places) -> tuple[CopyLine, ...]:
    """The files copied from the host into the root: lines ``SOURCE [TARGET]``."""
    return tuple(_copy_line(line, where) for where, line in _lines(chroot, "setup.copyfiles", places))


def nssdatabases(chroot: Chroot, places: Places) -> tuple[str, ...]:
    """The databases copied from the host into the root's /etc: a name a line, each once."""
    names = dict.fromkeys(_database(line, where) for where, line in _lines(chroot, "setup.nssdatabases", places))
    return tuple(names)


def _lines(chroot: Chroot, key: str, places: Places) -> Iterator[tuple[str, str]]:
    """Each line that says something, with ``FILE, line N``; blanks around it, comments and empty lines are dropped."""
    value = _file_named(chroot, key)
    if not value:
        return
    path, text = _read(value, key, places)
    for number, line in enumerate(text.split("\n"), 1):
        content = line.strip(_BLANKS)
        if content and not content.startswith("#"):
            where = f"{path}, line {number}"
            if NOT_UTF8.search(content) or "\0" in content:
                raise ConfigError(f"{where}: the line is not UTF-8 text", hint="save the file as UTF-8")
            yield where, content


def _file_named(chroot: Chroot, key: str) -> str:
    """The file that `key` names; with a script-config, the one beside that, which is how schroot reads such chroots."""
    if chroot.script_config and not chroot.custom_value(key):
        return f"{os.path.dirname(chroot.script_config)}/{keys.PROFILE_FILES[key]}"
    return chroot.custom_value(key)


def _read(value: str, key: str, places: Places) -> tuple[str, str]:
    """Path and text of the file named `value` in the first directory that has it."""
    try:
        custom.check_inside(value)
    except ValueError as error:
        reason, _, remedy = str(error).rpartition("; ")
        raise ConfigError(f"{key}: {reason}", hint=remedy) from None
    directories = list(dict.fromkeys((places.schroot_config_dir, places.native_config_dir, places.stock_etc_dir)))
    for directory in directories:
        path = f"{directory}/{value}"
        try:
            return path, read_trusted_again(path)
        except FileNotFoundError:
            continue
        except Untrusted as error:
            raise ConfigError(f"{key}: {path}: {error.reason}", hint=error.remedy) from None
    *others, last = directories
    listed = f"{', '.join(others)} or {last}" if others else last
    raise ConfigError(
        f"{key}: file {value!r} does not exist in {listed}",
        hint=f"create it, choose another profile, or set {key} to nothing",
    )


def _fstab_line(line: str, where: str) -> FstabLine:
    fields = [_FSTAB_ESCAPE.sub(lambda match: _FSTAB_MEANING[match[1]], field) for field in _BETWEEN_FIELDS.split(line)]
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
    match = _COPY_WORD.match(line)
    source, rest = (match[0], line[match.end() :].strip(_BLANKS)) if match else (line, "")
    source = re.sub(r"\\(.)", r"\1", source)
    target = re.sub(r"\\(.)", r"\1", rest) or source
    for path in (source, target):
        if not path.startswith("/"):
            raise ConfigError(f"{where}: {path!r} is not an absolute path", hint="write SOURCE [TARGET], both from /")
    return CopyLine(source, _checked_target(target, where))


def _checked_target(target: str, where: str) -> str:
    """`target`, unless it climbs: what ``..`` means inside depends on links that can change."""
    if ".." in target.split("/"):
        raise ConfigError(f"{where}: the target {target!r} has a '..' in it", hint="write the path without it")
    return target


def _database(line: str, where: str) -> str:
    if not _DATABASE.fullmatch(line):
        raise ConfigError(
            f"{where}: {line!r} is not the name of a database", hint="write one name a line, such as passwd"
        )
    return line
