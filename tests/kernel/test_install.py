"""`make install` and its like, on a copy of this machine: an overlay of its root whose changes are thrown away."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import files
from pathlib import Path

import pytest
from helpers import MNT_DETACH, MS_BIND, MS_REC, REPOSITORY, make_chroot, mount, umount

DEPENDENCIES = ("click", "filelock", "psutil", "tomli", "tqdm")
DISTRIBUTIONS = "/usr/lib/python3/dist-packages"
CONFIGURATION = """
[tiny]
type=directory
directory=/mnt/tiny
union-type=overlay
union-overlay-directory=/run/layers
profile=minimal
setup.nssdatabases=
"""
# What a make that runs the tests tells those that it starts.
OF_MAKE = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")
Tell = Callable[[str], None]


class Machine:
    """A copy of this machine in `root`; what is written to it is in `upper`."""

    def __init__(self, base: Path) -> None:
        self.root, self.upper = base / "root", base / "layer/upper"

    def run(self, *argv: str, status: int = 0, env: Mapping[str, str] | None = None) -> str:
        """Output and messages of a command that ends with this status."""
        call = ["chroot", str(self.root), *argv]
        caller = {name: value for name, value in os.environ.items() if name not in OF_MAKE}
        usual = {**caller, "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        result = subprocess.run(
            call, env={**usual, **(env or {})}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, cwd="/",
        )  # fmt: skip
        assert result.returncode == status, (argv, result.stdout)
        return result.stdout

    def make(self, *words: str, status: int = 0) -> str:
        return self.run("make", "--no-print-directory", "-C", str(REPOSITORY), *words, status=status)

    def written(self) -> set[str]:
        """Every file and link that is not as it was; one that is gone counts as one."""
        return {
            f"/{path.relative_to(self.upper)}"
            for path in self.upper.rglob("*")
            if not path.is_dir() or path.is_symlink()
        }

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    (tmp_path / "layer").mkdir()
    made.root.mkdir()
    mount("none", tmp_path / "layer", "tmpfs")
    made.upper.mkdir()
    (tmp_path / "layer/work").mkdir()
    mount("none", made.root, "overlay", data=f"lowerdir=/,upperdir={made.upper},workdir={tmp_path}/layer/work")
    for name in ("proc", "sys", "dev"):
        mount(f"/{name}", made.root / name, flags=MS_BIND | MS_REC)
    # What others have open on this machine is theirs; and a chroot in /mnt can have an overlay, wherever ours lies.
    for name in ("run", "tmp", "mnt", "var/lib/chroot-sessions", "var/lib/schroot"):
        (made.root / name).mkdir(exist_ok=True)
        mount("none", made.root / name, "tmpfs", data="mode=755")
    if not made.path(f"{REPOSITORY}/Makefile").exists():
        with_checkout(made, tmp_path / "layer")
    try:
        yield made
    finally:
        umount(made.root, MNT_DETACH)
        umount(tmp_path / "layer")


def with_checkout(machine: Machine, layer: Path) -> None:
    """Show the checkout too where it lies on another file system, or in /tmp; its changes are thrown away as well."""
    target = machine.path(str(REPOSITORY))
    target.mkdir(parents=True, exist_ok=True)
    for name in ("checkout", "checkout-work"):
        (layer / name).mkdir()
    data = f"lowerdir={REPOSITORY},upperdir={layer}/checkout,workdir={layer}/checkout-work"
    mount("none", target, "overlay", data=data)


@pytest.fixture
def with_dependencies(machine: Machine) -> Machine:
    """As with Debian's python3-click and the others."""
    for name in DEPENDENCIES:
        for path in files(name) or ():
            target = machine.path(DISTRIBUTIONS) / str(path)
            if ".." not in path.parts:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path.locate(), target)
    return machine


@pytest.fixture
def installed(with_dependencies: Machine) -> Machine:
    with_dependencies.make("install")
    return with_dependencies


def files_of(directory: Path) -> set[str]:
    return {str(path) for path in directory.rglob("*") if not path.is_dir()}


def test_an_installation_in_destdir_writes_nothing_else(machine: Machine) -> None:
    """Nor does it need the network, or the packages that it depends on."""
    call = ["make", "-C", str(REPOSITORY), "install", "DESTDIR=/srv/package", "PREFIX=/usr"]
    machine.run("unshare", "--net", *call)
    written = machine.written()
    assert {path for path in written if not path.startswith("/srv/package/")} == set()
    names = {path.removeprefix("/srv/package") for path in written}
    assert {
        "/usr/bin/schroot",
        "/usr/bin/sessions",
        "/usr/bin/unschroot",
        "/usr/share/man/man1/schroot.1",
        "/usr/share/man/man1/sessions.1",
        "/usr/share/man/man1/unschroot.1",
        "/usr/share/man/man5/schroot-setup.5",
        "/usr/share/man/man5/schroot.conf.5",
        "/usr/share/man/man5/sessions.toml.5",
        "/usr/share/bash-completion/completions/schroot",
        "/usr/share/bash-completion/completions/sessions",
        "/usr/lib/systemd/system/sessions-recover.service",
        "/usr/lib/systemd/system/sessions-gc.service",
        "/usr/lib/systemd/system/sessions-gc.timer",
        "/usr/lib/systemd/system/sessions-shutdown.service",
        "/usr/lib/tmpfiles.d/chroot-sessions.conf",
        "/usr/share/chroot-sessions/setup.d/10mount",
        "/usr/share/chroot-sessions/etc/sbuild/fstab",
        "/usr/lib/python3/dist-packages/sessions/py.typed",
        "/etc/chroot-sessions/sessions.toml",
    } <= names
    for word in ("/srv/package", str(REPOSITORY)):
        found = machine.run("grep", "-rl", word, "/srv/package", status=1)
        assert found == ""
    machine.make("uninstall", "DESTDIR=/srv/package", "PREFIX=/usr")
    assert files_of(machine.path("/srv/package")) == {
        str(machine.path("/srv/package/etc/chroot-sessions/sessions.toml"))
    }


def test_every_file_of_the_checkout_has_its_place(machine: Machine) -> None:
    machine.make("install", "DESTDIR=/srv/package")
    base = machine.path("/srv/package/usr/local")
    for ours, theirs in (
        ("sessions", next(base.glob("lib/python3*/dist-packages/sessions"))),
        ("setup.d", base / "share/chroot-sessions/setup.d"),
    ):
        wanted = {str(path.relative_to(REPOSITORY / ours)) for path in (REPOSITORY / ours).rglob("*") if path.is_file()}
        found = {str(path.relative_to(theirs)) for path in theirs.rglob("*") if path.is_file()}
        assert {name for name in found ^ wanted if not name.endswith(".pyc")} == set()


def test_modes_do_not_depend_on_the_umask(machine: Machine) -> None:
    machine.run("sh", "-c", f"umask 077; make -C {REPOSITORY} install DESTDIR=/srv/package")
    for path in machine.path("/srv/package").rglob("*"):
        wanted = 0o644
        if path.is_dir() or path.parent.name in ("bin", "setup.d"):
            wanted = 0o755
        assert path.is_symlink() or stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_modules_are_compiled(installed: Machine) -> None:
    """With the times that they have: else each start would compile them again."""
    directory = next(installed.path("/usr/local/lib").glob("python3*/dist-packages/sessions"))
    scripts = [path for path in installed.path("/usr/local/share/chroot-sessions/setup.d").iterdir() if path.is_file()]
    modules = [*directory.rglob("*.py"), *scripts]
    assert len(modules) > 50 and scripts
    for module in modules:
        with open(importlib.util.cache_from_source(str(module)), "rb") as file:
            header = file.read(16)
        assert int.from_bytes(header[8:12], "little") == int(module.stat().st_mtime)


def test_it_works(installed: Machine) -> None:
    make_chroot(installed.path("/mnt/tiny"))
    installed.path("/etc/schroot/chroot.d/tiny").write_text(CONFIGURATION)
    assert installed.run("schroot", "-l", "-c", "tiny") == "tiny\n"
    assert installed.run("schroot", "-c", "tiny", "-d", "/", "--", "true") == ""
    assert installed.run("unschroot", "-c", "tiny", "-d", "/", "--", "cat", "/etc/debian_chroot") == "tiny\n"
    installed.run("schroot", "-c", "tiny", "-d", "/", "--", "sh", "-c", "exit 7", status=7)
    assert installed.run("unschroot", "-V").startswith("unschroot (chroot-sessions ")
    assert installed.run("schroot", "-b", "-c", "tiny", "-n", "one") == "one\n"
    assert installed.run("sessions", "list").split()[:3] == ["one", "tiny", "up"]
    assert installed.run("sessions", "end", "one") == ""
    assert installed.run("sessions", "list") == ""
    assert "0 problems" in installed.run("sessions", "config", "check")
    # Nothing that the caller has in its environment or its directory is loaded.
    for name in ("sessions.py", "os.py", "click.py"):
        installed.path(f"/tmp/{name}").write_text("raise SystemExit('loaded')")
    for command in ("schroot", "sessions"):
        installed.run("sh", "-c", f"cd /tmp && exec {command} --version", env={"PYTHONPATH": "/tmp"})


def test_setup_scripts_find_the_package_from_a_shell(installed: Machine) -> None:
    script = "/usr/local/share/chroot-sessions/setup.d/10mount"
    assert installed.run(script, status=1).startswith("error: usage: 10mount plan")
    code = "from sessions import where; print(where.usual_places().stock_setup_dir)"
    assert installed.run("/usr/bin/python3", "-I", "-c", code) == "/usr/local/share/chroot-sessions/setup.d\n"


def test_manual_pages_are_found(installed: Machine) -> None:
    for page in ("schroot.1", "sessions.1", "sessions.toml.5", "schroot.conf.5", "schroot-setup.5"):
        path = f"/usr/local/share/man/man{page[-1]}/{page}"
        said = installed.run("man", "--warnings", "-l", path, env={"MANPAGER": "cat", "MANWIDTH": "100"})
        assert page.rpartition(".")[0].upper() in said and "warning" not in said.lower().partition("name")[0]
    pages = ("--manpath=/usr/local/share/man", "1", "unschroot")
    assert "SCHROOT(1)" in installed.run("man", *pages, env={"MANPAGER": "cat"})


def test_units_are_right(installed: Machine) -> None:
    units = [str(path) for path in installed.path("/usr/local/lib/systemd/system").iterdir()]
    assert units
    names = [f"/{Path(unit).relative_to(installed.root)}" for unit in units]
    assert installed.run("systemd-analyze", "verify", *names) == ""


@pytest.mark.parametrize("unit", ["sessions-recover.service", "sessions-gc.timer", "sessions-shutdown.service"])
def test_a_unit_that_is_enabled_is_not_taken_away(installed: Machine, unit: str) -> None:
    installed.run("systemctl", "enable", unit)
    assert f"first systemctl disable --now {unit}" in installed.make("uninstall", status=2)
    installed.run("systemctl", "disable", unit)
    installed.make("uninstall")


def test_completion_is_bash(installed: Machine) -> None:
    directory = "/usr/local/share/bash-completion/completions"
    for command, function in (("schroot", "_schroot"), ("unschroot", "_schroot"), ("sessions", "_sessions")):
        code = f"source {directory}/{command}; complete -p {command}"
        assert installed.run("bash", "-c", code) == f"complete -F {function} {command}\n"


def test_installing_again(installed: Machine) -> None:
    """Configuration stays as it is; what an earlier release had is gone."""
    configuration = installed.path("/etc/chroot-sessions/sessions.toml")
    configuration.write_text("# mine\n")
    stale = installed.path("/usr/local/share/chroot-sessions/setup.d/99gone")
    stale.write_text("#!/bin/sh\n")
    before = installed.written() - {"/usr/local/share/chroot-sessions/setup.d/99gone"}
    installed.make("install")
    assert configuration.read_text() == "# mine\n"
    assert installed.written() == before


def test_uninstalling(with_dependencies: Machine) -> None:
    before = with_dependencies.written()
    with_dependencies.make("install")
    with_dependencies.make("uninstall")
    assert with_dependencies.written() - before == {"/etc/chroot-sessions/sessions.toml"}
    with_dependencies.make("uninstall")  # again, which is no error


def test_missing_dependencies_are_named(machine: Machine) -> None:
    said = machine.make("install", status=2)
    assert "click (python3-click on Debian)" in said and "WITH_VENV=1" in said and "Traceback" not in said
    assert machine.written() == set()


def test_an_old_dependency_is_named(with_dependencies: Machine) -> None:
    metadata = next(with_dependencies.path(DISTRIBUTIONS).glob("filelock-*.dist-info"))
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: filelock\nVersion: 3.9.0\n")
    assert "filelock 4.2 (there is 3.9.0)" in with_dependencies.make("install", status=2)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("PREFIX=usr",), "PREFIX=usr: not an absolute path"),
        (("PREFIX=/usr/../opt",), "not an absolute path"),
        (("PREFIX=/opt/my own",), "blank"),
        (("DESTDIR=package",), "DESTDIR=package: not an absolute path"),
        (("PREFIX=/opt/sessions",), "looks for modules in"),
    ],
)
def test_refusals(with_dependencies: Machine, words: tuple[str, ...], reason: str) -> None:
    before = with_dependencies.written()
    assert reason in with_dependencies.make("install", *words, status=2)
    assert with_dependencies.written() == before


def test_files_of_packages_are_not_overwritten(with_dependencies: Machine) -> None:
    before = with_dependencies.written()
    said = with_dependencies.make("install", "PREFIX=/usr", status=2)
    assert "/usr/bin/schroot of package schroot" in said and "would be overwritten" in said
    assert with_dependencies.written() == before


def test_in_usr_where_debians_is_gone(with_dependencies: Machine) -> None:
    """As a distribution's package has it."""
    machine = with_dependencies
    machine.run("dpkg", "--purge", "--force-depends", "schroot", "schroot-common")
    machine.make("install", "PREFIX=/usr")
    make_chroot(machine.path("/mnt/tiny"))
    machine.path("/etc/chroot-sessions/chroot.d/tiny.toml").write_text(
        '[chroot.tiny]\ntype = "directory"\ndirectory = "/mnt/tiny"\nunion-type = "overlay"\n'
        'union-overlay-storage = "tmpfs"\nprofile = "minimal"\nsetup.nssdatabases = ""\n'
    )
    assert machine.run("/usr/bin/schroot", "-c", "tiny", "-d", "/", "--", "cat", "/etc/debian_chroot") == "tiny\n"
    assert machine.run("/usr/bin/sessions", "config", "check") == "1 chroots can be used, 0 problems\n"
    assert machine.run("systemd-analyze", "verify", "sessions-recover.service") == ""
    assert "DIFFERENCES" in machine.run("man", "-P", "cat", "schroot")
    machine.make("uninstall", "PREFIX=/usr")
    assert not machine.path("/usr/bin/schroot").exists()


def test_an_installation_that_brings_its_dependencies(machine: Machine, tell: Tell) -> None:
    machine.make("install", "WITH_VENV=1", "PREFIX=/opt/sessions")
    make_chroot(machine.path("/mnt/tiny"))
    machine.path("/etc/schroot/chroot.d/tiny").write_text(CONFIGURATION)
    command = ["/opt/sessions/bin/schroot", "-c", "tiny", "-d", "/"]
    assert machine.run(*command, "--", "cat", "/etc/debian_chroot") == "tiny\n"
    assert machine.run("/opt/sessions/bin/sessions", "list") == ""
    script = "/opt/sessions/share/chroot-sessions/setup.d/10mount"
    assert machine.run(script, status=1).startswith("error: usage: 10mount plan")
    code = "from sessions import where; print(where.usual_places().stock_setup_dir)"
    python = "/opt/sessions/lib/chroot-sessions/venv/bin/python3"
    assert machine.run(python, "-I", "-c", code) == "/opt/sessions/share/chroot-sessions/setup.d\n"
    modules = next(machine.path("/opt/sessions/lib/chroot-sessions/venv/lib").glob("python3*/site-packages"))
    tell(f"packages of the virtual environment: {' '.join(sorted(path.name for path in modules.glob('*.dist-info')))}")
    assert not list(modules.glob("pip*"))
    assert machine.run("grep", "-rl", "venv.new", "/opt/sessions", status=1) == ""
    # An upgrade that fails leaves what works.
    failing = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/nowhere"}
    call = ["make", "-C", str(REPOSITORY), "install", "WITH_VENV=1", "PREFIX=/opt/sessions"]
    assert "PIP_FIND_LINKS" in machine.run(*call, env=failing, status=2)
    assert machine.run("/opt/sessions/bin/sessions", "list") == ""
    machine.make("uninstall", "PREFIX=/opt/sessions")
    assert files_of(machine.path("/opt/sessions")) == set()


def test_taking_the_place_of_debians(installed: Machine) -> None:
    command = installed.path("/usr/bin/schroot")
    debians = (command.stat().st_mode, command.stat().st_uid, command.read_bytes())
    version = installed.run("/usr/bin/schroot", "-V")
    assert "leads to /usr/local/bin/schroot" in installed.make("divert")
    assert installed.run("/usr/bin/schroot", "-V").startswith("schroot (chroot-sessions ")
    assert installed.run("/usr/bin/schroot.distrib", "-V") == version
    assert "is ours already" in installed.make("divert")
    assert "first make undivert" in installed.make("uninstall", status=2)
    installed.make("install")  # an upgrade, meanwhile
    assert "is the distribution's again" in installed.make("undivert")
    assert (command.stat().st_mode, command.stat().st_uid, command.read_bytes()) == debians
    assert not installed.path("/usr/bin/schroot.distrib").exists()
    assert "nothing to undo" in installed.make("undivert", status=2)
    installed.make("uninstall")


def test_a_switch_that_was_cut_short_is_finished(installed: Machine) -> None:
    installed.run(
        "dpkg-divert", "--local", "--rename", "--divert", "/usr/bin/schroot.distrib", "--add", "/usr/bin/schroot"
    )
    assert not installed.path("/usr/bin/schroot").exists()
    installed.make("divert")
    assert installed.run("/usr/bin/schroot", "-V").startswith("schroot (chroot-sessions ")
    installed.path("/usr/bin/schroot").unlink()
    installed.make("undivert")
    assert installed.run("/usr/bin/schroot", "-V").startswith("schroot (Debian")


def test_open_sessions_of_debians_are_named_at_the_switch(installed: Machine) -> None:
    make_chroot(installed.path("/mnt/tiny"))
    installed.path("/etc/schroot/chroot.d/tiny").write_text(CONFIGURATION)
    installed.path("/var/lib/schroot/session").mkdir()
    installed.path("/var/lib/schroot/session/sid-1234").write_text("[sid-1234]\n")
    said = installed.make("divert", status=2)
    assert "\n  /usr/bin/schroot -e -c session:sid-1234\n" in said and "KEEP_SESSIONS=1" in said
    assert not installed.path("/usr/bin/schroot").is_symlink()
    said = installed.make("divert", "KEEP_SESSIONS=1")
    assert "\n  /usr/bin/schroot.distrib -e -c session:sid-1234\n" in said
    assert installed.path("/usr/bin/schroot").is_symlink()


def test_open_sessions_of_ours_are_named_on_the_way_back(installed: Machine) -> None:
    make_chroot(installed.path("/mnt/tiny"))
    installed.path("/etc/schroot/chroot.d/tiny").write_text(CONFIGURATION)
    installed.make("divert")
    installed.run("/usr/bin/schroot", "-b", "-c", "tiny", "-n", "one")
    said = installed.make("undivert", status=2)
    assert "\n  sessions end one\n" in said
    installed.make("undivert", "KEEP_SESSIONS=1")
    assert "sessions end one" in installed.make("uninstall", status=2)
    installed.run("sessions", "end", "one")
    installed.make("uninstall")


def test_the_init_script_looks_after_our_sessions(installed: Machine) -> None:
    """Without systemd, Debian's own does at boot and at shutdown what it says, by the command's name."""
    make_chroot(installed.path("/mnt/tiny"))
    installed.path("/etc/schroot/chroot.d/tiny").write_text(CONFIGURATION)
    installed.make("divert")
    installed.run("schroot", "-b", "-c", "tiny", "-n", "one")
    installed.path("/run/lock").mkdir()
    for action, left in (("none", "one"), ("end", "")):
        installed.path("/etc/default/schroot").write_text(f"START_ACTION=recover\nSTOP_ACTION={action}\n")
        installed.run("/usr/share/schroot/bin/schroot-init", "start")
        installed.run("/usr/share/schroot/bin/schroot-init", "stop")
        assert installed.run("sessions", "list").partition(" ")[0] == left
