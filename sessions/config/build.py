"""From a section as written to a Chroot: every value typed, every rule of the key table applied, every fault named."""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from functools import cache

from sessions import keys, names, sources
from sessions.config import custom
from sessions.config.raw import ERROR, WARNING, Dialect, Problem, RawFile, RawSection
from sessions.data import TYPE_CHECKING, Frozen, Mutable, field, replace
from sessions.errors import InvalidName
from sessions.keys import Key, Part, Status
from sessions.keytypes import BOOLEAN, PERSONALITY, REGEX, Value
from sessions.model import Chroot, Custom, Directory, File, Image, Places, Plain, Source, Union

if TYPE_CHECKING:
    from typing import Any

# Keys of schroot's session files, which it refuses in a configuration file.
_DISALLOWED = ("name", "mount-location")
# An empty value of these is passed over with a warning, as schroot does with a truth value that is none.
_PASSED_OVER_WHEN_EMPTY = (REGEX, PERSONALITY)
_OLD_DIRECTORY = "location"
_CACHE = "archive-cache"

Origins = dict[str, tuple[str, int]]
Settings = dict[str, Value]


class Built(Frozen):
    """What became of a section: a chroot, or None and at least one problem that is an error."""

    name: str
    file: str
    line: int
    chroot: Chroot | None
    aliases: tuple[str, ...]
    problems: tuple[Problem, ...]
    origins: Origins

    @property
    def where(self) -> str:
        """``FILE: line N``."""
        return f"{self.file}: line {self.line}" if self.line else self.file

    @property
    def first_error(self) -> Problem | None:
        """Why the section cannot be used; None if it can."""
        return next((problem for problem in self.problems if problem.is_error), None)


class Report(Mutable):
    """A section being read, and what was found wrong with it so far."""

    section: RawSection
    file: str
    dialect: Dialect
    problems: list[Problem] = field(default_factory=list)

    @property
    def is_native(self) -> bool:
        """Whether the stricter rules of TOML hold."""
        return self.dialect is Dialect.TOML

    def error(self, key: str, reason: str, remedy: str) -> None:
        """Note what makes the section unusable."""
        self._note(ERROR, key, reason, remedy)

    def warn(self, key: str, reason: str, remedy: str) -> None:
        """Note what is wrong but leaves the section usable."""
        self._note(WARNING, key, reason, remedy)

    def retired(self, key: str, status: str, remedy: str, *, is_error: bool = False) -> None:
        """Note that a key is used at all that should not be any more; schroot names it in the reason only."""
        severity, reason = ERROR if is_error else WARNING, f"{status} key ‘{key}’ used"
        line, where = self.line_of(key), key if self.is_native else ""
        self.problems.append(Problem(self.file, line, self.section.name, where, severity, reason, remedy))

    def refuse(self, key: str, error: ValueError) -> None:
        """Note a value that its type refused with "REASON; REMEDY"."""
        reason, _, remedy = str(error).rpartition("; ")
        self.error(key, reason, remedy)

    def line_of(self, key: str) -> int:
        """The line of `key`, or of the section where the key is not given."""
        return self.section.values[key][1] if key in self.section.values else self.section.line

    def _note(self, severity: str, key: str, reason: str, remedy: str) -> None:
        line = self.line_of(key)
        self.problems.append(Problem(self.file, line, self.section.name, key, severity, reason, remedy))


def build(section: RawSection, raw: RawFile, places: Places) -> Built:
    """The chroot that `section` of `raw` defines, with everything that is wrong with it."""
    report = Report(section, raw.file, raw.dialect, list(section.problems))
    _check_name(report)
    source = _source_type(report)
    settings: Settings = {}
    given: dict[str, str] = {}
    chroot = None
    if source is not None:
        settings, given = _read_values(source, report)
        _check_required(source, settings, report)
        if "script-config" in settings:
            settings["profile"] = ""
        pairs = custom.merge(settings, given, report)
        _settle_cache(source, settings, report)
        chroot = _assemble(section.name, source, {**_native_defaults(report), **settings}, pairs, places)
        chroot = _without_source_keys(chroot, settings, report)
        _check_root(chroot, report)
        _check_image(chroot, report)
        _check_size(chroot.union, settings, report)
    aliases = _aliases(report)
    problems = tuple(report.problems)
    if any(problem.is_error for problem in problems):
        chroot = None
    origins = _origins(settings, dict(chroot.custom), report) if chroot else {}
    return Built(section.name, raw.file, section.line, chroot, aliases, problems, origins)


def _check_name(report: Report) -> None:
    name = report.section.name
    try:
        names.check(name, "chroot name")
    except InvalidName as error:
        remedy = (
            f"Namespace separator ‘:’ may not be used in a chroot name; {error.hint}" if ":" in name else error.hint
        )
        report.error("", f"{name}: Invalid name", remedy)


def _source_type(report: Report) -> type[Source] | None:
    """The kind of source that the section's type asks for; None, and a problem, if there is none."""
    key = keys.BY_NAME["type"]
    if key.name not in report.section.values:
        return keys.TYPES[str(key.default)]
    try:
        return keys.TYPES[str(key.value_type.accept(report.section.values[key.name][0]))]
    except ValueError as error:
        report.refuse(key.name, error)
        return None


def _read_values(source: type[Source], report: Report) -> tuple[Settings, dict[str, str]]:
    """The legal values of the table's keys, and those of custom keys."""
    settings: Settings = {}
    given: dict[str, str] = {}
    for name, (value, _line) in sorted(report.section.values.items()):
        key = keys.BY_NAME.get(name)
        if name == "type":
            continue
        if name == _OLD_DIRECTORY and source in (Plain, Directory) and not report.is_native:
            _read_old_directory(value, settings, report)
        elif key is None:
            _read_unlisted(name, value, source, given, report)
        elif not _is_legal(key, source, settings, report):
            _unknown(name, source, report)
        elif key.internal:
            report.error(name, f"Disallowed key ‘{name}’ used", "remove the line: sessions have it, and chroots do not")
        elif key.status is Status.OBSOLETE:
            remedy = "This option has been removed, and no longer has any effect: remove the line"
            report.retired(name, "Obsolete", remedy, is_error=report.is_native)
        else:
            _read_value(key, value, settings, report)
    return settings, given


def _is_legal(key: Key, source: type[Source], settings: Settings, report: Report) -> bool:
    """As the table says; but schroot knows no unions over some, whatever is said of one, and so do its files here.

    Unless they ask for the cache of archives, of which schroot knows nothing; its key comes before those of the union.
    """
    is_ours_alone = key.part is Part.UNION and source in keys.NATIVELY_UNIONABLE and not settings.get(_CACHE)
    return keys.is_legal(key, source) and (report.is_native or not is_ours_alone)


def _read_value(key: Key, value: object, settings: Settings, report: Report) -> None:
    if key.status is Status.DEPRECATED:
        remedy = "This option will be removed in the future; set profile, or the setup.* keys, instead"
        report.retired(key.name, "Deprecated", remedy)
    try:
        settings[key.name] = key.value_type.accept(value) if report.is_native else key.value_type.parse(str(value))
    except ValueError as error:
        is_empty = value == "" and key.value_type in _PASSED_OVER_WHEN_EMPTY
        if not report.is_native and (key.value_type is BOOLEAN or is_empty):
            remedy = f"the default stays: {str(error).rpartition('; ')[2]}"
            report.warn(key.name, f"Could not parse value ‘{value}’", remedy)
        else:
            report.refuse(key.name, error)


def _read_old_directory(value: object, settings: Settings, report: Report) -> None:
    """``location`` said what ``directory`` says now, and still does; the two together are an error."""
    if "directory" in report.section.values:
        report.error(_OLD_DIRECTORY, f"Disallowed key ‘{_OLD_DIRECTORY}’ used", "remove it: directory says the same")
        return
    report.retired(_OLD_DIRECTORY, "Obsolete", "write directory instead")
    try:
        settings["directory"] = keys.BY_NAME["directory"].value_type.parse(str(value))
    except ValueError as error:
        report.refuse(_OLD_DIRECTORY, error)


def _read_unlisted(name: str, value: object, source: type[Source], given: dict[str, str], report: Report) -> None:
    """A key that is not in the table: a custom key, or a mistake."""
    if name in _DISALLOWED:
        report.error(name, f"Disallowed key ‘{name}’ used", "remove the line: sessions have it, and chroots do not")
    elif name.startswith("description[") and not report.is_native:
        return  # a translation: schroot accepts it without a word and shows it nowhere
    elif not keys.is_custom(name):
        _unknown(name, source, report)
    else:
        try:
            given[name] = custom.check_value(name, value)
        except ValueError as error:
            report.refuse(name, error)


def _unknown(name: str, source: type[Source], report: Report) -> None:
    """A key that has no meaning here: an error in TOML, ignored with a warning in schroot.conf."""
    reason = f"Configuration key name ‘{name}’ is not a permitted name."
    is_elsewhere = name in keys.BY_NAME and name != _OLD_DIRECTORY
    remedy = f"it has no meaning for type ‘{source.kind}’: remove it, or change the type" if is_elsewhere else ""
    if report.is_native:
        report.error(name, reason, remedy or _did_you_mean(name, source))
    else:
        report.warn(name, reason, f"it is ignored: {remedy or 'correct it, or remove the line'}")


def _did_you_mean(name: str, source: type[Source]) -> str:
    import difflib  # only for a mistake: it costs milliseconds

    if name == _OLD_DIRECTORY:
        return "write directory instead"
    legal = [key.name for key in keys.KEYS if keys.is_legal(key, source) and not key.internal]
    close = difflib.get_close_matches(name, legal, 1) or difflib.get_close_matches(name, keys.PROFILE_FILES, 1)
    return f"did you mean ‘{close[0]}’?" if close else "remove the line"


def _settle_cache(source: type[Source], settings: Settings, report: Report) -> None:
    """An archive is shared only below an overlay: with the cache there is one, and where none is wanted, no cache."""
    if source is not File:
        return
    union = settings.get("union-type")
    if not settings.get(_CACHE, report.is_native):
        return
    if union is None:
        settings["union-type"] = "overlay"
    elif union == "none":
        if settings.get(_CACHE):
            reason = "an archive in the cache is shared by its sessions, and without a union they would change it"
            report.error(_CACHE, reason, f"remove union-type = none, or set {_CACHE} = false")
        settings[_CACHE] = False


def _check_required(source: type[Source], settings: Settings, report: Report) -> None:
    if report.section.problems:
        return  # the key may stand in a line that could not be read
    for key in keys.KEYS:
        is_missing = key.required and keys.is_legal(key, source) and key.name not in settings
        if is_missing and not any(name in report.section.values for name in _written_as(key)):
            report.error("", f"Required key ‘{key.name}’ is missing", f"add a line {key.name} = …")


def _written_as(key: Key) -> tuple[str, ...]:
    """The names under which `key` may be written; a bad value under one of them has been refused already."""
    return (key.name, _OLD_DIRECTORY) if key.name == "directory" else (key.name,)


def _without_source_keys(chroot: Chroot, settings: Settings, report: Report) -> Chroot:
    """Take out the keys of a ``source:`` twin that cannot exist, as a directory without a union has none."""
    useless = [key for key in keys.KEYS if key.name.startswith("source-") and key.name in settings]
    if not useless or sources.is_cloned(chroot):
        return chroot
    is_custom = isinstance(chroot.source, Custom)
    needed = "custom-source-cloneable = true" if is_custom else "union-type = overlay"
    for key in useless:
        del settings[key.name]
        reason = f"Configuration key name ‘{key.name}’ is not a permitted name."
        report.warn(key.name, reason, f"it is ignored, for there is no source: twin: set {needed}, or remove the line")
    unset: dict[str, Any] = {key.field: key.default for key in useless}
    return replace(chroot, **unset)


def _check_root(chroot: Chroot, report: Report) -> None:
    """Refuse the host's root as it is: setting a session up would change the host's own files."""
    if is_host_root(chroot) and not chroot.union.is_used:
        reason = "the directory / is the host itself, and sessions of it would change the host"
        report.error("directory", reason, "name another directory, or put a union over it: union-type = overlay")


def _check_image(chroot: Chroot, report: Report) -> None:
    if isinstance(chroot.source, Image) and not chroot.union.is_used:
        remedy = "set union-type = overlay; or take type loopback, whose sessions write into the file"
        report.error("", "an image is never written to, so that it needs a union over it", remedy)


def is_host_root(chroot: Chroot) -> bool:
    """Whether the directory is a way to write ``/``."""
    if not isinstance(chroot.source, Plain | Directory) or not chroot.source.directory:
        return False
    return not os.path.normpath(chroot.source.directory).strip("/")


def _check_size(union: Union, settings: Settings, report: Report) -> None:
    if union.overlay_size and union.overlay_storage != "tmpfs":
        remedy = "set union-overlay-storage = tmpfs, or remove the line"
        report.warn("union-overlay-size", "a layer on a disk has no limit: the size has no effect", remedy)


def _aliases(report: Report) -> tuple[str, ...]:
    """The aliases, each a valid name; read apart, so that those of an unusable section lead to its problem."""
    key = keys.BY_NAME["aliases"]
    value = report.section.values.get(key.name, ("" if not report.is_native else [], 0))[0]
    try:
        aliases = key.value_type.accept(value) if report.is_native else key.value_type.parse(str(value))
    except ValueError:
        return ()  # has been refused where all values are read
    assert isinstance(aliases, tuple)
    aliases = tuple(map(str, aliases))
    for alias in aliases:
        try:
            names.check(alias, "alias")
        except InvalidName as error:
            colon = "Namespace separator ‘:’ may not be used in an alias name; " if ":" in alias else ""
            report.error(key.name, f"{alias}: Invalid name", colon + error.hint)
    return tuple(alias for alias in aliases if names.is_valid(alias))


def _native_defaults(report: Report) -> Settings:
    """The defaults that are others in TOML than in schroot.conf."""
    if not report.is_native:
        return {}
    return {key.name: key.native_default for key in keys.KEYS if key.native_default is not None}


def _assemble(
    name: str, source: type[Source], settings: Settings, pairs: tuple[tuple[str, str], ...], places: Places
) -> Chroot:
    """The chroot of checked settings, each unset key at its default."""
    union = Union(**_fields(Part.UNION, source, settings))
    if union.is_used:
        overlay_directory = union.overlay_directory or places.overlay_dir
        underlay_directory = union.underlay_directory or places.underlay_dir
        union = replace(union, overlay_directory=overlay_directory, underlay_directory=underlay_directory)
    root = source(**_fields(Part.SOURCE, source, settings))
    return Chroot(name=name, source=root, union=union, custom=pairs, **_fields(Part.CHROOT, source, settings))


def _fields(part: Part, source: type[Source], settings: Settings) -> dict[str, Any]:
    """The arguments that make `part`."""
    return {field: settings.get(name, default) for field, name, default in _fields_of(part, source.kind)}


@cache
def _fields_of(part: Part, kind: str) -> tuple[tuple[str, str, Value], ...]:
    """The fields of `part` that a chroot of this type can set, with their keys and defaults."""
    return tuple(
        (key.field, key.name, key.default)
        for key in keys.KEYS
        if key.part is part
        and key.name != "type"
        and keys.is_legal(key, keys.TYPES[kind])
        and not key.internal
        and key.status is not Status.OBSOLETE
    )


def _origins(settings: Mapping[str, Value], pairs: Mapping[str, str], report: Report) -> Origins:
    """Where each value that is not a default was written; the files of a profile are given where the profile is."""
    written = set(report.section.values)
    origins = {}
    for name in ["type", *settings, *pairs]:
        origin = name
        if name == "directory" and name not in written:
            origin = _OLD_DIRECTORY
        elif name in keys.PROFILE_FILES and name not in written:
            origin = "profile"
        if origin in written:
            origins[name] = (report.file, report.line_of(origin))
    return origins
