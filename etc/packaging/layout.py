"""Where an installation puts every file: one table, from which it is installed and uninstalled."""

from __future__ import annotations

import os
import re
import site
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

CHECKOUT = os.path.abspath(f"{os.path.dirname(__file__)}/../..")
NAME = "chroot-sessions"
# Command -> the module whose main() it is; and further names, as links.
COMMANDS = {"sessions": "sessions.cli.native", "schroot": "sessions.cli.schroot"}
LINKS = {"unschroot": "schroot"}
# The first line of a stock script as it stands in the checkout.
_INTERPRETER_LINE = b"#!/usr/bin/python3 -I\n"


class Refused(Exception):
    """The installation cannot be done so: why, and what to do next."""


@dataclass(frozen=True)
class Item:
    """One file to install: its path on the installed system, and its contents, or where a link leads."""

    path: str
    data: bytes = b""
    mode: int = 0o644
    link: str = ""
    is_configuration: bool = False
    """Belongs to the administrator once it is there: never written again, never removed."""


@dataclass(frozen=True)
class Layout:
    """The directories of one installation; `root` (DESTDIR) stands before each when it is written."""

    root: str
    prefix: str
    config_dir: str
    has_venv: bool

    @property
    def bin_dir(self) -> str:
        """The commands."""
        return f"{self.prefix}/bin"

    @property
    def data_dir(self) -> str:
        """setup.d and etc as they come with the package; sessions/where.py finds it from where the package is."""
        return f"{self.prefix}/share/{NAME}"

    @property
    def completion_dir(self) -> str:
        """Completion for bash, a file a command."""
        return f"{self.prefix}/share/bash-completion/completions"

    @property
    def venv_dir(self) -> str:
        """The virtual environment of an installation that brings its dependencies."""
        return f"{self.prefix}/lib/{NAME}/venv"

    @cached_property
    def interpreter(self) -> str:
        """The Python that the commands are run by: the one that runs this, without a virtual environment of its own."""
        return os.path.realpath(sys.executable) if sys.prefix != sys.base_prefix else sys.executable

    @property
    def script_interpreter(self) -> str:
        """The Python that finds the package by itself, for setup scripts that are run by hand."""
        return f"{self.venv_dir}/bin/python3" if self.has_venv else self.interpreter

    @cached_property
    def module_dir(self) -> str:
        """Where the package goes: where the interpreter looks for modules below this prefix."""
        if self.has_venv:
            version = f"python{sys.version_info.major}.{sys.version_info.minor}"
            return f"{self.venv_dir}/lib/{version}/site-packages"
        for directory in site.getsitepackages():
            if directory.startswith(f"{self.prefix}/lib/"):
                return directory
        raise Refused(
            f"{self.interpreter} looks for modules in {', '.join(site.getsitepackages())}, nowhere below "
            f"{self.prefix}/lib: choose another PREFIX, or install with WITH_VENV=1"
        )

    @property
    def package_dir(self) -> str:
        """The package."""
        return f"{self.module_dir}/sessions"

    @property
    def path(self) -> list[str]:
        """Where the commands look for modules, behind the standard library."""
        if self.has_venv:
            return [self.module_dir]
        return list(dict.fromkeys((self.module_dir, *site.getsitepackages())))

    @property
    def own_directories(self) -> tuple[str, ...]:
        """The directories in which every file is ours."""
        return self.package_dir, self.data_dir

    def at(self, path: str) -> str:
        """Where a path of the installed system is now."""
        return self.root + path

    def items(self) -> Iterator[Item]:
        """Every file of the installation."""
        yield from self._commands()
        for path in _files("sessions", r".*\.py|py\.typed"):
            yield Item(f"{self.module_dir}/{path}", _read(path))
        for path in _files("setup.d", r"[0-9a-z][^/]*|common/[^/]+"):
            yield self._script(path)
        yield Item(f"{self.data_dir}/etc/sessions.toml", _read("etc/sessions.toml"))
        for path in _files("etc", r"[a-z]+/(config|copyfiles|fstab|nssdatabases)"):
            yield Item(f"{self.data_dir}/{path}", _read(path))
        for path in _files("man", r"[^/]+\.[1-8]"):
            yield Item(f"{self.prefix}/share/man/man{path[-1]}/{os.path.basename(path)}", _read(path))
        for path in _files("etc/bash-completion", r"[a-z]+"):
            name = os.path.basename(path)
            yield Item(f"{self.completion_dir}/{name}", _read(path))
        for path in _files("etc/systemd", r"[a-z-]+\.[a-z]+"):
            text = _read(path).replace(b"/usr/bin/", f"{self.bin_dir}/".encode())
            yield Item(f"{self.prefix}/lib/systemd/system/{os.path.basename(path)}", text)
        for path in _files("etc/tmpfiles.d", r"[a-z-]+\.conf"):
            yield Item(f"{self.prefix}/lib/tmpfiles.d/{os.path.basename(path)}", _read(path))
        yield Item(f"{self.config_dir}/sessions.toml", _read("etc/sessions.toml"), is_configuration=True)

    def _commands(self) -> Iterator[Item]:
        for command, module in COMMANDS.items():
            # -I: nothing that the caller has in its environment or directory is loaded. -S: nor is the module "site",
            # which is a third of the start of a bare interpreter.
            text = (
                f"#!{self.interpreter} -IS\n"
                f'"""The command {command}: see {command}(1)."""\n\n'
                "import sys\n\n"
                f"sys.path += {self.path!r}\n\n"
                f"from {module} import main\n\n"
                "main()\n"
            )
            yield Item(f"{self.bin_dir}/{command}", text.encode(), 0o755)
        for link, command in LINKS.items():
            yield Item(f"{self.bin_dir}/{link}", link=command)
            # Completion is looked for by the name of the command.
            yield Item(f"{self.completion_dir}/{link}", link=command)

    def _script(self, path: str) -> Item:
        data = _read(path)
        if data.startswith(_INTERPRETER_LINE):
            data = f"#!{self.script_interpreter} -I\n".encode() + data.removeprefix(_INTERPRETER_LINE)
        is_executable = os.access(f"{CHECKOUT}/{path}", os.X_OK)
        return Item(f"{self.data_dir}/{path}", data, 0o755 if is_executable else 0o644)


def _files(directory: str, pattern: str) -> Iterator[str]:
    """The files below a directory of the checkout whose paths in there match, as paths in the checkout."""
    top = f"{CHECKOUT}/{directory}"
    found = []
    for parent, directories, files in os.walk(top):
        directories[:] = [name for name in directories if name != "__pycache__"]
        found += [os.path.relpath(f"{parent}/{name}", top) for name in files]
    return (f"{directory}/{path}" for path in sorted(found) if re.fullmatch(pattern, path))


def _read(path: str) -> bytes:
    with open(f"{CHECKOUT}/{path}", "rb") as file:
        return file.read()
