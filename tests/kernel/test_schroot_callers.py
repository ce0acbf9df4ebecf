"""Who calls `schroot`, and from where: other users, other directories, mistakes of our own, and the cost of a start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from helpers import Fork, World, bind, enter_private_namespace, fork, mount
from schrootcalls import CODE, Schroot

from sessions.cli import schroot

HEAVY = {"argparse", "click", "difflib", "filelock", "hashlib", "pathlib", "psutil", "subprocess", "tempfile", "uuid"}


@pytest.fixture
def call(world: World) -> Schroot:
    return Schroot(world)


@pytest.fixture
def as_user(call: Schroot) -> Callable[..., tuple[int, str, str]]:
    """The command as another user who finds our configuration at its usual place."""

    def run(*words: str) -> tuple[int, str, str]:
        out, err = call.world.base / "out", call.world.base / "err"

        def work(_it: Fork) -> None:
            enter_private_namespace()
            # Everything is imported before: who is not root may not be able to read our checkout.
            import sessions.cli.output
            import sessions.cli.selection
            import sessions.config.load
            import sessions.lifecycle
            import sessions.where  # noqa: F401

            mount("none", "/run", "tmpfs")
            mount("none", "/var/lib", "tmpfs")
            os.makedirs("/var/lib/chroot-sessions/sessions", 0o700)
            bind(call.world.places.schroot_config_dir, "/etc/schroot")
            for number, file in ((1, out), (2, err)):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            os._exit(schroot.run(words))

        status = fork(work).wait()
        return status, out.read_text(), err.read_text()

    return run


@pytest.mark.parametrize("words", ["-c ov -- true", "-c plain true", "-b -c ov", "-r -c s1", "-e -c s1", ""])
def test_only_root_opens_sessions(as_user: Callable[..., tuple[int, str, str]], words: str) -> None:
    status, output, errors = as_user(*words.split())
    assert (status, output, errors.count("\n")) == (1, "", 1)
    assert errors.startswith("E: ") and "root" in errors


def test_everybody_may_look(call: Schroot, as_user: Callable[..., tuple[int, str, str]]) -> None:
    assert as_user("-l") == call("-l")
    assert as_user("-l", "-c", "ov") == (0, "ov\n", "")
    assert as_user("--location", "-c", "plain") == (0, f"{call.world.root}\n", "")
    assert as_user("-V")[0] == as_user("-h")[0] == 0
    for words in (["-i", "-c", "plain"], ["--config", "-c", "dir"]):
        assert as_user(*words) == call(*words)
    status, output, errors = as_user("-l", "-a")
    assert (status, output) == (0, "".join(sorted([*call("-l")[1].splitlines(True), "session:plain\n"])))
    assert errors.startswith("W: sessions are left out")
    status, output, errors = as_user("-i", "-c", "session:s1")
    assert (status, output) == (1, "") and "root" in errors


def test_other_directories_are_for_root(as_user: Callable[..., tuple[int, str, str]]) -> None:
    status, output, errors = as_user("--state-dir=/tmp", "-l")
    assert (status, output) == (1, "") and "are for root" in errors


def test_directories_have_to_be_absolute(call: Schroot) -> None:
    call.options = ["--config-dir=etc"]
    status, output, errors = call("-l")
    assert (status, output) == (1, "") and errors.startswith("E: --config-dir etc: not an absolute path\n")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("odd"), "E: unexpected ValueError: odd; please report this\n"),
        (OSError(28, "No space left on device", "/x"), "E: /x: No space left on device\n"),
        (KeyboardInterrupt(), "E: Caught signal ‘Interrupt’\n"),
        (BrokenPipeError(), ""),
    ],
)
def test_never_a_traceback(
    error: BaseException, text: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_arguments: object, **_more: object) -> int:
        raise error

    monkeypatch.setattr(schroot, "_act", fail)
    assert schroot.run(["-l"]) == 1
    assert tuple(capfd.readouterr()) == ("", text)


def test_help_and_version(call: Schroot) -> None:
    status, output, errors = call("--help")
    assert (status, errors) == (0, "") and output.startswith("Usage:\n  schroot  [OPTION…] [COMMAND]")
    assert call("-V")[1].startswith("schroot (chroot-sessions ") and call("-V")[1].endswith(") 1.6.13\n")


def test_nothing_heavy_is_imported(call: Schroot) -> None:
    """Starting takes most of the time of a short command."""
    code = CODE.removesuffix("main()") + (
        "from sessions.cli.schroot import run; status = run(sys.argv[1:]); print(status, *sys.modules)"
    )
    for words in (["-c", "ov", "--", "true"], ["-l"]):
        result = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code, *call.options, *words], capture_output=True, text=True, cwd="/"
        )
        status, *modules = result.stdout.splitlines()[-1].split()
        assert (status, result.stderr) == ("0", "")
        assert HEAVY & set(modules) == set()
