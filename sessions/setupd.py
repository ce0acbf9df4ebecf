"""setup.d: which scripts there are, in which order, and the plan they make together.

A script with the marker line is loaded and asked for its steps; any other executable becomes one step that runs it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sessions.errors import SessionsError, StepFailed
from sessions.model import Places, Session
from sessions.steps import Step
from sessions.steps.foreign import RunScript

MARKER = b"# sessions-script: 1\n"
# The marker stands above the code, so that only the head of a file is looked at.
_HEAD_BYTES = 1024
_LARGEST_STOCK_BYTES = 1024 * 1024
# The names that schroot's run-parts takes (reference: run-parts(8), its LANANA and LSB forms).
_NAME = re.compile(r"[a-z0-9]+|_?([a-z0-9_.]+-)+[a-z0-9]+|[a-z0-9][a-z0-9-]*")
_LEFTOVER = re.compile(r".*dpkg-(old|dist|new|tmp)")

# What schroot itself ships: in its directory these are its own, written for its own way of mounting.
SCHROOTS_OWN = frozenset(
    ("00check", "05btrfs", "05file", "05lvm", "05union", "05zfs", "10mount", "15binfmt", "15killprocs", "20copyfiles",
     "20nssdatabases", "50chrootname", "70services", "99check")
)  # fmt: skip

Plan = Callable[[Session], Iterator[Step]]


@dataclass(frozen=True)
class Script:
    """One script: where it is, and what it plans in-process."""

    name: str
    path: str
    plan: Plan | None
    """What it plans, if it has the marker; None if it is only run."""


def scripts(places: Places) -> list[Script]:
    """Every script to be used, in order.

    /etc/chroot-sessions/setup.d overrides the stock ones by name, and masks them by a link to /dev/null;
    /etc/schroot/setup.d adds those that are neither stock nor shipped by schroot. Raises SessionsError for one that
    cannot be trusted.
    """
    found = _names(places.stock_setup_dir)
    schroots = f"{places.schroot_config_dir}/setup.d"
    own = f"{places.native_config_dir}/setup.d"
    if schroots != own:
        found = {name: path for name, path in _names(schroots).items() if name not in SCHROOTS_OWN} | found
    found.update(_names(own))
    return [_script(name, found[name]) for name in sorted(found) if found[name] != os.devnull]


def _names(directory: str) -> dict[str, str]:
    """The names in a setup.d directory that count, with their paths, or /dev/null for one that is masked."""
    try:
        with os.scandir(directory) as entries:
            return {entry.name: _unmasked(entry) for entry in entries if _counts(entry)}
    except FileNotFoundError:
        return {}


def _counts(entry: os.DirEntry[str]) -> bool:
    return bool(_NAME.fullmatch(entry.name)) and not _LEFTOVER.fullmatch(entry.name) and not entry.is_dir()


def _unmasked(entry: os.DirEntry[str]) -> str:
    return os.devnull if entry.is_symlink() and os.path.realpath(entry.path) == os.devnull else entry.path


def plan(session: Session) -> list[Step]:
    """The steps of all scripts, in order. Touches nothing; raises StepFailed if a script refuses the session."""
    steps: list[Step] = []
    for script in scripts(session.places):
        if script.plan is None:
            steps.append(RunScript(script.path))
        else:
            steps.extend(script.plan(session))
    return steps


# Scripts looked at before, by path: what stat said of the file then, and the script.
_KNOWN: dict[str, tuple[tuple[int, ...], Script]] = {}


def _script(name: str, path: str) -> Script:
    try:
        status = os.stat(path)
    except OSError as error:
        raise SessionsError(f"setup script {path}: {error.strerror}", hint="mend or remove it") from None
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
        raise SessionsError(
            f"setup script {path} can be written to by others than root", hint=f"chown root {path}; chmod o-w {path}"
        )
    signature = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    known = _KNOWN.get(path)
    if known is None or known[0] != signature:
        known = signature, _read(name, path)
        _KNOWN[path] = known
    return known[1]


def _read(name: str, path: str) -> Script:
    """Load a script that has the marker; any other is only run."""
    try:
        with open(path, "rb") as file:
            code = file.read(_LARGEST_STOCK_BYTES)
    except OSError as error:
        raise SessionsError(f"setup script {path}: {error.strerror}", hint="mend or remove it") from None
    if MARKER not in code[:_HEAD_BYTES]:
        return Script(name, path, None)
    module: dict[str, Any] = {"__name__": f"sessions.setup.d.{name}", "__file__": path}
    try:
        exec(compile(code, path, "exec"), module)
        plan_function: Plan = module["plan"]
    except Exception as error:
        raise StepFailed(f"setup script {path} cannot be loaded: {error!r}", hint="mend or mask it") from error
    return Script(name, path, plan_function)
