"""All configuration files together: the chroots they define, and every problem with its file, line and remedy.

A problem costs its own line or section, at most its own file; everything else stays usable.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from sessions import keys, names
from sessions.config import build, ini
from sessions.config.build import Built
from sessions.config.configuration import Configuration, configuration_of
from sessions.config.raw import ERROR, WARNING, Dialect, Problem, RawFile
from sessions.config.read import UNSETTLED_NS, Signature, Untrusted, read_trusted, signature
from sessions.data import Frozen, Mutable, field
from sessions.keytypes import Value
from sessions.model import Places

__all__ = ["Configuration", "Problem", "load", "load_cached"]

_TOML_ENDING = ".toml"


def load(places: Places) -> Configuration:
    """Everything configured in `places`, read now."""
    return _load(places).configuration


def load_cached(places: Places) -> Configuration:
    """As :func:`load`, but the last result again while nothing that it was read from has changed."""
    kept = _KEPT.get(places)
    if kept is not None and kept.is_current():
        return kept.configuration
    fresh = _load(places)
    if fresh.is_settled:
        _KEPT[places] = fresh
    else:
        _KEPT.pop(places, None)
    return fresh.configuration


class _Looked(Mutable):
    """The files and directories that were looked at, each as it was just before."""

    at: dict[str, Signature] = field(default_factory=dict)

    def before(self, path: str) -> None:
        """Remember what `path` is now: if it changes while it is read, the cache will see a difference."""
        self.at[path] = signature(path)


class _Loaded(Frozen):
    """A result, and all that it depends on."""

    configuration: Configuration
    signatures: tuple[tuple[str, Signature], ...]
    is_settled: bool
    """Whether each file is old enough for a later change to show in its times."""

    def is_current(self) -> bool:
        return all(signature(path) == seen for path, seen in self.signatures)


_KEPT: dict[Places, _Loaded] = {}


def _load(places: Places) -> _Loaded:
    now_ns = time.time_ns()
    looked = _Looked()
    problems: list[Problem] = []
    definitions: dict[str, Built] = {}
    whole: dict[str, Value] = {}
    order = []
    for path, dialect in _files(places, looked, problems):
        order.append(path)
        raw = _parse(path, dialect, looked, problems)
        if raw is not None:
            problems.extend(raw.problems)
            _define(raw, places, definitions, problems)
            _read_whole_keys(raw, whole, problems)
    signatures = tuple(looked.at.items())
    is_settled = all(seen is None or now_ns - seen[4] > UNSETTLED_NS for _path, seen in signatures)
    return _Loaded(configuration_of(definitions, problems, order, whole), signatures, is_settled)


def _files(places: Places, looked: _Looked, problems: list[Problem]) -> Iterator[tuple[str, Dialect]]:
    """The files to read, schroot's before the native ones, those of a directory in name order.

    Where both share one directory (``--config-dir``), chroot.d/*.toml is native and the rest schroot's.
    """
    schroot, native = places.schroot_config_dir, places.native_config_dir
    is_shared = _is_same_directory(schroot, native)
    yield f"{schroot}/schroot.conf", Dialect.SCHROOT
    for path in _listed(f"{schroot}/chroot.d", looked, problems):
        if not (is_shared and path.endswith(_TOML_ENDING)):
            yield path, Dialect.SCHROOT
    yield f"{native}/sessions.toml", Dialect.TOML
    for path in _listed(f"{native}/chroot.d", looked, [] if is_shared else problems):
        if path.endswith(_TOML_ENDING):
            yield path, Dialect.TOML


def _is_same_directory(one: str, other: str) -> bool:
    if one == other:
        return True
    first, second = signature(one), signature(other)
    return first is not None and second is not None and first[:2] == second[:2]


def _listed(directory: str, looked: _Looked, problems: list[Problem]) -> list[str]:
    """The files of `directory` that count, in name order: package managers' leftovers and hidden files do not."""
    looked.before(directory)
    try:
        entries = os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        reason = f"cannot be listed: {error.strerror}"
        problems.append(Problem(directory, 0, "", "", ERROR, reason, "make it a directory that root can read"))
        return []
    return [f"{directory}/{entry}" for entry in sorted(entries) if names.is_of_a_file(entry)]


def _parse(path: str, dialect: Dialect, looked: _Looked, problems: list[Problem]) -> RawFile | None:
    """The file as written; None if it is not there, or must not be read, which is then a problem."""
    looked.before(path)
    try:
        text = read_trusted(path)
    except FileNotFoundError as error:
        if os.path.islink(path):  # one that leads nowhere; a file that is gone since the listing is no problem
            reason = f"Failed to stat file: {error.strerror}"
            problems.append(Problem(path, 0, "", "", WARNING, reason, "correct the link, or remove it"))
        return None
    except Untrusted as error:
        severity = WARNING if error.is_skipped else ERROR
        problems.append(Problem(path, 0, "", "", severity, error.reason, error.remedy))
        return None
    if dialect is Dialect.SCHROOT:
        return ini.parse(text, path)
    from sessions.config import toml

    return toml.parse(text, path)


def _read_whole_keys(raw: RawFile, whole: dict[str, Value], problems: list[Problem]) -> None:
    """Read the keys that are about no chroot; of two definitions of a key the first counts."""
    for name, (value, line) in raw.values.items():
        key = next(key for key in keys.WHOLE_KEYS if key.name == name)
        try:
            if name in whole:
                raise ValueError(f"Duplicate key ‘{name}’: another file has it, too; keep one of them")
            whole[name] = key.value_type.accept(value)
        except ValueError as error:
            reason, _semicolon, remedy = str(error).rpartition("; ")
            problems.append(Problem(raw.file, line, "", name, ERROR, reason, remedy))


def _define(raw: RawFile, places: Places, definitions: dict[str, Built], problems: list[Problem]) -> None:
    """Build the sections of a file in name order, as schroot does; of two definitions of a name the first counts."""
    for section in sorted(raw.sections, key=lambda section: section.name):
        first = definitions.get(section.name)
        if first is None:
            definitions[section.name] = built = build.build(section, raw, places)
            problems.extend(built.problems)
        else:
            reason = f"A chroot or alias ‘chroot:{section.name}’ already exists with this name"
            remedy = f"Duplicate names are not allowed: the first, in {first.where}, is used; rename or remove this one"
            problems.append(Problem(raw.file, section.line, section.name, "", ERROR, reason, remedy))
