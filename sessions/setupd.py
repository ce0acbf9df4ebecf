"""setup.d: which scripts there are, in which order, and the plan they make together.

A script with the marker line is loaded and asked for its steps; any other executable becomes one step that runs it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.machinery import SourceFileLoader

from sessions import model
from sessions import schroots as schroot_scripts
from sessions.config.raw import ERROR, Problem
from sessions.data import TYPE_CHECKING, Frozen, replace
from sessions.errors import SessionsError, StepFailed
from sessions.model import Places, Session
from sessions.steps import Step
from sessions.steps.foreign import RunScript

if TYPE_CHECKING:
    from typing import Any

    from _typeshed import ReadableBuffer

MARKER = b"# sessions-script: 1\n"
# The marker stands above the code, so that only the head of a file is looked at.
_HEAD_BYTES = 1024
_LARGEST_STOCK_BYTES = 1024 * 1024
_EXECUTABLE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
# The names that schroot's run-parts takes (reference: run-parts(8), its LANANA and LSB forms).
_NAME = r"_?([a-z0-9_.]+-)+[a-z0-9]+|[a-z0-9][a-z0-9-]*"
_SIMPLE = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_LEFTOVERS = ("dpkg-old", "dpkg-dist", "dpkg-new", "dpkg-tmp")

Plan = Callable[[Session], Iterator[Step]]


class Script(Frozen):
    """One script: where it is, and what it plans in-process."""

    name: str
    path: str
    plan: Plan | None
    """What it plans, if it has the marker; None if it is only run."""


def scripts(places: Places) -> list[Script]:
    """Every script to be used, in order.

    /etc/chroot-sessions/setup.d overrides the stock ones by name, and masks them by a link to /dev/null;
    /etc/schroot/setup.d adds those that are not schroot's own, which were written for its way of mounting. Raises
    StepFailed for one that cannot be trusted or run.
    """
    found = _names(places.stock_setup_dir, _is_no_directory)
    schroots, own = f"{places.schroot_config_dir}/setup.d", f"{places.native_config_dir}/setup.d"
    if schroots == own:
        own_names = {name: path for name, path in _names(own).items() if not _is_schroots(name, path)}
    else:
        added = {name: path for name, path in _names(schroots).items() if name not in schroot_scripts.SHIPPED}
        found, own_names = added | found, _names(own)
    found |= own_names
    return [_script(name, found[name]) for name in sorted(found) if found[name] != os.devnull]


def _is_schroots(name: str, path: str) -> bool:
    return name in schroot_scripts.SHIPPED and schroot_scripts.is_shipped(name, path)


def problems(places: Places) -> list[Problem]:
    """What is wrong with the scripts: those that cannot be run are errors, those that are not run are warnings."""
    found = list(schroot_scripts.problems(places))
    try:
        scripts(places)
    except SessionsError as error:
        found.append(Problem(f"{places.native_config_dir}/setup.d", 0, "", "", ERROR, error.text, error.hint))
    return found


def _names(directory: str, is_wanted: Callable[[os.DirEntry[str]], bool] = lambda entry: True) -> dict[str, str]:
    """The names in a setup.d directory that count, with their paths, or /dev/null for one that is masked."""
    try:
        with os.scandir(directory) as entries:
            return {entry.name: _unmasked(entry) for entry in entries if _counts(entry.name) and is_wanted(entry)}
    except FileNotFoundError:
        return {}


def _is_no_directory(entry: os.DirEntry[str]) -> bool:
    return not entry.is_dir()


def _counts(name: str) -> bool:
    return (_SIMPLE.issuperset(name) or bool(re.fullmatch(_NAME, name))) and not name.endswith(_LEFTOVERS)


def _unmasked(entry: os.DirEntry[str]) -> str:
    return os.devnull if entry.is_symlink() and os.path.realpath(entry.path) == os.devnull else entry.path


def plan(session: Session) -> tuple[Session, list[Step]]:
    """The session, which now knows its scripts, and their steps, in order.

    A script that plans nothing counts only if schroot has it too, whose users are told of it. Touches nothing; raises
    StepFailed if a script refuses the session.
    """
    planned: list[model.Script] = []
    steps: list[Step] = []
    for script in scripts(session.places):
        own = [RunScript(script.path)] if script.plan is None else list(script.plan(session))
        if own or script.name in schroot_scripts.SHIPPED:
            planned.append(_planned(script.name, len(own)))
            steps.extend(own)
    return replace(session, scripts=tuple(planned)), steps


@lru_cache(maxsize=256)
def _planned(name: str, steps: int) -> model.Script:
    """The same in most sessions."""
    return model.Script(name, steps)


# Scripts looked at before, by path: what stat said of the file then, and the script.
_KNOWN: dict[str, tuple[tuple[int, ...], Script]] = {}


def _script(name: str, path: str) -> Script:
    try:
        status = os.stat(path)
    except OSError as error:
        raise StepFailed(f"setup script {path}: {error.strerror}", hint="mend or remove it") from None
    if not stat.S_ISREG(status.st_mode):
        raise StepFailed(f"setup script {path} is not a regular file", hint="remove it, or give it another name")
    if not _is_trusted(status):
        raise StepFailed(
            f"setup script {path} can be written to by others than root", hint=f"chown root {path}; chmod o-w {path}"
        )
    if not status.st_mode & _EXECUTABLE:
        raise StepFailed(f"setup script {path} is not executable", hint=f"chmod +x {path}, or remove it")
    signature = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    known = _KNOWN.get(path)
    if known is None or known[0] != signature:
        known = signature, _read(name, path)
        _KNOWN[path] = known
    return known[1]


def _is_trusted(status: os.stat_result) -> bool:
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & stat.S_IWOTH


class _Loader(SourceFileLoader):
    """Loads a script whose text has been read, compiled by the installation if it has done that, and writes nothing."""

    def __init__(self, name: str, path: str, text: bytes) -> None:
        super().__init__(name, path)
        self._text = text

    def get_data(self, path: str) -> bytes:
        """The text itself, or the file with the compiled code, which is passed over where an OSError is raised."""
        if path == self.path:
            return self._text
        with open(path, "rb") as file:
            if not _is_trusted(os.fstat(file.fileno())):
                raise PermissionError
            return file.read(_LARGEST_STOCK_BYTES)

    def set_data(self, path: str, data: ReadableBuffer, *, _mode: int = 0) -> None:
        """Directories of scripts are no place for a cache."""


def _read(name: str, path: str) -> Script:
    """Load a script that has the marker; any other is only run."""
    try:
        with open(path, "rb") as file:
            text = file.read(_LARGEST_STOCK_BYTES)
    except OSError as error:
        raise StepFailed(f"setup script {path}: {error.strerror}", hint="mend or remove it") from None
    if MARKER not in text[:_HEAD_BYTES]:
        return Script(name, path, None)
    module: dict[str, Any] = {"__name__": f"sessions.setup.d.{name}", "__file__": path}
    try:
        code = _Loader(module["__name__"], path, text).get_code(module["__name__"])
        assert code
        exec(code, module)
        plan_function: Plan = module["plan"]
    except Exception as error:
        raise StepFailed(f"setup script {path} cannot be loaded: {error!r}", hint="mend or mask it") from error
    return Script(name, path, plan_function)
