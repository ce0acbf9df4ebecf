"""Installing and uninstalling: every file appears whole, what is the administrator's is left alone."""

from __future__ import annotations

import importlib.metadata
import os
import py_compile
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterable
from dataclasses import replace

from layout import CHECKOUT, Item, Layout, Refused

# Directories that are the administrator's to fill.
_CONFIGURATION_DIRECTORIES = ("chroot.d", "setup.d")
_NEW = ".chroot-sessions-new"
# Units, and the targets that want those that are enabled.
_UNITS = {
    "sessions-recover.service": "multi-user.target",
    "sessions-shutdown.service": "reboot.target",
    "sessions-gc.timer": "timers.target",
}
# Stock scripts are loaded rather than run: see sessions/setupd.py.
_SCRIPT_MARKER = b"\n# sessions-script: 1\n"


def install(layout: Layout, _keep_sessions: bool) -> None:
    """Install all files, compiled; configuration that is there already is not touched."""
    items = list(layout.items())
    if not layout.root:
        _check_owners(item.path for item in items if not item.is_configuration)
        if not layout.has_venv:
            _check_dependencies(layout)
    if layout.has_venv:
        _make_venv(layout)
    for item in items:
        if not (item.is_configuration and os.path.lexists(layout.at(item.path))):
            _write(layout, item)
    for name in _CONFIGURATION_DIRECTORIES:
        os.makedirs(layout.at(f"{layout.config_dir}/{name}"), exist_ok=True)
    # A setup script or module of an earlier release would still be run, and a package of the other kind be found.
    _remove_all_but(layout, {item.path for item in items})
    _remove_modules(replace(layout, has_venv=not layout.has_venv))
    for item in items:
        is_module = item.path.startswith(f"{layout.package_dir}/") and item.path.endswith(".py")
        if is_module or _SCRIPT_MARKER in item.data:
            compiled = py_compile.compile(layout.at(item.path), dfile=item.path, doraise=True)
            os.chmod(str(compiled), 0o644)
    if not layout.root:
        print(f"installed below {layout.prefix}; see {layout.config_dir}, and: man schroot")


def uninstall(layout: Layout, _keep_sessions: bool) -> None:
    """Remove all that `install` has made, but for the configuration."""
    if not layout.root:
        _check_unused(layout)
    for item in replace(layout, has_venv=True).items():
        path = layout.at(item.path)
        if not item.is_configuration and os.path.lexists(path):
            os.unlink(path)
    shutil.rmtree(layout.at(layout.data_dir), ignore_errors=True)
    for has_venv in (False, True):
        _remove_modules(replace(layout, has_venv=has_venv))


def _remove_modules(layout: Layout) -> None:
    """Remove the package of one of the two kinds of installation, and the virtual environment of the other."""
    try:
        directory = os.path.dirname(layout.venv_dir) if layout.has_venv else layout.package_dir
    except Refused:  # without an environment of our own there is no place for it, so that nothing is there
        return
    shutil.rmtree(layout.at(directory), ignore_errors=True)


def _write(layout: Layout, item: Item) -> None:
    """Write a file beside its place and rename it there: a command that is just starting finds the old or the new."""
    path = layout.at(item.path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    new = path + _NEW
    if os.path.lexists(new):
        os.unlink(new)
    if item.link:
        os.symlink(item.link, new)
    else:
        with open(new, "xb") as file:
            file.write(item.data)
            os.fchmod(file.fileno(), item.mode)
    os.rename(new, path)


def _remove_all_but(layout: Layout, wanted: set[str]) -> None:
    for directory in layout.own_directories:
        for parent, _directories, files in os.walk(layout.at(directory), topdown=False):
            for name in files:
                path = f"{parent}/{name}"
                if path.removeprefix(layout.root) not in wanted:
                    os.unlink(path)
            if not os.listdir(parent):
                os.rmdir(parent)


def _dependencies() -> dict[str, str]:
    """The packages that pyproject.toml asks for, each with its lowest version."""
    with open(f"{CHECKOUT}/pyproject.toml", "rb") as file:
        wanted = tomllib.load(file)["project"]["dependencies"]
    return {name: version for name, version in (text.split(">=") for text in wanted)}


def _check_dependencies(layout: Layout) -> None:
    """Raise Refused unless the interpreter has what we need; a package of a distribution declares it instead."""
    lacking = []
    for name, lowest in _dependencies().items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            lacking.append(f"{name} (python3-{name} on Debian)")
            continue
        if _numbers(version) < _numbers(lowest):
            lacking.append(f"{name} {lowest} (there is {version})")
    if lacking:
        raise Refused(
            f"{layout.interpreter} lacks {', '.join(lacking)}: install that, or let the installation bring its own: "
            "make install WITH_VENV=1"
        )


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _make_venv(layout: Layout) -> None:
    """A virtual environment with the dependencies and nothing else: what is in it runs as root.

    It takes the place of one that is there only when it is complete.
    """
    path = layout.at(layout.venv_dir)
    new, old = f"{path}.new", f"{path}.old"
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    wanted = [f"{name}>={version}" for name, version in _dependencies().items()]
    try:
        _run(layout.interpreter, "-I", "-m", "venv", new)
        _run(*_pip(new), "install", "--no-compile", *wanted)
        _run(*_pip(new), "uninstall", "--yes", "setuptools", "pip")
        _forget_directory(new)
        # The package is in there, and finds its data from its place: see sessions/where.py.
        os.symlink("../../../share", f"{new}/share")
        if os.path.lexists(path):
            os.rename(path, old)
        os.rename(new, path)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    _run(layout.interpreter, "-I", "-m", "compileall", "-q", "-s", layout.root or "/", "-p", "/", path)


def _forget_directory(venv: str) -> None:
    """Remove what names the directory that the environment was made in: the activation scripts, and the call."""
    for name in os.listdir(f"{venv}/bin"):
        if not name.startswith("python"):
            os.unlink(f"{venv}/bin/{name}")
    with open(f"{venv}/pyvenv.cfg", "r+") as file:
        lines = [line for line in file if not line.startswith("command ")]
        file.seek(0)
        file.truncate()
        file.writelines(lines)


def _pip(venv: str) -> tuple[str, ...]:
    return f"{venv}/bin/python3", "-I", "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"


def _run(*argv: str) -> None:
    outcome = subprocess.run(argv, stdin=subprocess.DEVNULL)
    if outcome.returncode != 0:
        raise Refused(
            f"{' '.join(argv)} failed; the dependencies come from the network, or from where PIP_FIND_LINKS says"
        )


def _check_owners(paths: Iterable[str]) -> None:
    """Raise Refused if a file is there that belongs to a package of the distribution, and would be overwritten."""
    present = [path for path in paths if os.path.lexists(path)]
    if not present or not shutil.which("dpkg-query"):
        return
    answer = subprocess.run(["dpkg-query", "--search", *present], capture_output=True, text=True)
    owned = {}
    for line in answer.stdout.splitlines():
        owner, _colon, path = line.rpartition(": ")
        if not owner.startswith(("diversion", "local diversion")):
            owned[path] = owner
        elif owner.endswith(" from"):
            owned[path] = ""
    taken = [f"{path} of package {owner}" for path, owner in owned.items() if owner]
    if taken:
        raise Refused(
            f"{', '.join(taken)} would be overwritten: install with another PREFIX, such as /usr/local, and then make "
            "divert"
        )


def _check_unused(layout: Layout) -> None:
    """Raise Refused while the installation is needed."""
    from diverting import COMMAND, is_diverted_to, open_sessions

    if is_diverted_to(layout):
        raise Refused(f"{COMMAND} leads here: first make undivert")
    for unit, target in _UNITS.items():
        if os.path.lexists(f"/etc/systemd/system/{target}.wants/{unit}"):
            raise Refused(f"{unit} is enabled: first systemctl disable --now {unit}")
    names = open_sessions()
    if names:
        raise Refused(f"sessions are open, and nothing could end them any more: sessions end {' '.join(names)}")
