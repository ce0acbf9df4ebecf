"""The three files that setup scripts of others source, under every shell they may be written for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

LIBRARIES = Path(__file__).parents[2] / "setup.d/common"
HEAD = "set -e\n" + "".join(f'. "$SETUP_DATA_DIR/common-{name}"\n' for name in ("data", "functions", "config"))
Result = subprocess.CompletedProcess[str]
SHELLS = ("dash", "bash", "busybox")
SHOWN = ("SETUP_CONFIG", "SETUP_FSTAB", "SETUP_COPYFILES", "SETUP_NSSDATABASES", "FSTAB", "COPYFILES", "NSSDATABASES")
PROFILE = {
    "SETUP_CONFIG": "p/config", "SETUP_FSTAB": "p/fstab", "SETUP_COPYFILES": "p/copyfiles",
    "SETUP_NSSDATABASES": "p/nssdatabases",
}  # fmt: skip


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    return ["busybox", "sh"] if request.param == "busybox" else [request.param]


def run(shell: list[str], script: Path, text: str, *arguments: str, **variables: str) -> Result:
    """A script that begins as those of others do, with this environment and no other."""
    script.write_text(HEAD + text)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SETUP_DATA_DIR": str(LIBRARIES), **variables}
    return subprocess.run([*shell, script, *arguments], env=environment, capture_output=True, text=True)


def located(shell: list[str], base: Path, **variables: str) -> dict[str, str]:
    """What common-config makes of the variables; those that stay unset are left out."""
    text = "\n".join(f'echo "{name}=${{{name}-}}"' for name in SHOWN)
    result = run(shell, base / "script", text, SYSCONF_DIR=str(base / "etc"), **variables)
    assert (result.returncode, result.stderr) == (0, "")
    pairs = dict(line.split("=", 1) for line in result.stdout.splitlines())
    return {name: value.replace(f"{base}/", "") for name, value in pairs.items() if value}


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("shell_name", ["sh", "dash", "bash"])
def test_shellcheck_finds_nothing(shell_name: str) -> None:
    result = subprocess.run(
        ["shellcheck", f"--shell={shell_name}", *sorted(LIBRARIES.iterdir())], capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (0, "")
    assert {path.name for path in LIBRARIES.iterdir()} == {"common-config", "common-data", "common-functions"}


def test_what_a_script_was_called_with(shell: list[str], tmp_path: Path) -> None:
    text = 'echo "$STAGE|$STATUS|$DEVTYPE|$VERBOSE|$1|$2"\n'
    result = run(shell, tmp_path / "script", text, "setup-start", "ok", VERBOSE="quiet", SYSCONF_DIR="/etc/schroot")
    assert (result.stdout, result.stderr) == ("setup-start|ok|-b|quiet|setup-start|ok\n", "")


def test_a_script_that_allows_no_unset_variable(shell: list[str], tmp_path: Path) -> None:
    text = f'set -u\n{HEAD}echo "[$STAGE]"\n'
    assert run(shell, tmp_path / "script", text, SYSCONF_DIR="/etc/schroot").stdout == "[]\n"


@pytest.mark.parametrize("verbosity", ["quiet", "normal", "verbose"])
def test_how_a_script_speaks(shell: list[str], tmp_path: Path, verbosity: str) -> None:
    text = "info 'a  \\n \"b\"' && warn '-n' && error '%s' && echo on && fatal 'the end' ; echo never\n"
    result = run(shell, tmp_path / "script", text, VERBOSE=verbosity, SYSCONF_DIR="/etc/schroot")
    told = 'a  \\n "b"\n' if verbosity == "verbose" else ""
    assert (result.returncode, result.stdout) == (1, f"{told}on\n")
    assert result.stderr == "warning: -n\nerror: %s\nerror: the end\n"


def test_files_of_the_profile_are_made_absolute(shell: list[str], tmp_path: Path) -> None:
    assert located(shell, tmp_path) == {}
    assert located(shell, tmp_path, **PROFILE) == {name: f"etc/{value}" for name, value in PROFILE.items()}


def test_files_are_found_where_the_session_finds_them(shell: list[str], tmp_path: Path) -> None:
    """The first directory that has the file counts; one that nobody has would be schroot's."""
    path = ":".join(str(tmp_path / name) for name in ("etc", "native", "stock"))
    for name in ("native/p/fstab", "stock/p/fstab", "stock/p/copyfiles", "etc/p/copyfiles", "stock/p/config"):
        write(tmp_path / name)
    write(tmp_path / "stock/p/config", "SETUP_NSSDATABASES=q/other\n")
    assert located(shell, tmp_path, SESSIONS_CONFIG_PATH=path, **PROFILE) == {
        "SETUP_CONFIG": "stock/p/config", "SETUP_FSTAB": "native/p/fstab", "SETUP_COPYFILES": "etc/p/copyfiles",
        "SETUP_NSSDATABASES": "etc/q/other",
    }  # fmt: skip


def test_a_shell_file_may_say_otherwise(shell: list[str], tmp_path: Path) -> None:
    write(tmp_path / "etc/p/config", 'SETUP_FSTAB=other/fstab\nCOPYFILES="/abs/a b"\nSETUP_COPYFILES=lost\n')
    assert located(shell, tmp_path, **PROFILE) == {
        "SETUP_CONFIG": "etc/p/config", "SETUP_FSTAB": "etc/other/fstab", "SETUP_COPYFILES": "/abs/a b",
        "SETUP_NSSDATABASES": "etc/p/nssdatabases", "COPYFILES": "/abs/a b",
    }  # fmt: skip


def test_script_config_has_its_files_beside_it(shell: list[str], tmp_path: Path) -> None:
    config = str(tmp_path / "etc/old/config")
    beside = {name: f"etc/old/{name.lower()}" for name in ("FSTAB", "COPYFILES", "NSSDATABASES")}
    absolute = {f"SETUP_{name}": value for name, value in beside.items()}
    assert located(shell, tmp_path, CHROOT_SCRIPT_CONFIG=config) == {**beside, **absolute}
    write(tmp_path / "etc/old/config", 'FSTAB="$SYSCONF_DIR/x"\nCOPYFILES=\n')
    assert located(shell, tmp_path, CHROOT_SCRIPT_CONFIG=config) == {
        "FSTAB": "etc/x", "SETUP_FSTAB": "etc/x",
        "NSSDATABASES": "etc/old/nssdatabases", "SETUP_NSSDATABASES": "etc/old/nssdatabases",
    }  # fmt: skip


def test_a_shell_file_that_fails_stops_the_script(shell: list[str], tmp_path: Path) -> None:
    write(tmp_path / "etc/p/config", "false\n")
    result = run(shell, tmp_path / "script", "echo on\n", SYSCONF_DIR=str(tmp_path / "etc"), SETUP_CONFIG="p/config")
    assert (result.returncode, result.stdout) == (1, "")
