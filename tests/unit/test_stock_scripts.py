"""Stock scripts are loaded as the installation has compiled them, where that can be trusted and is of the same text."""

from __future__ import annotations

import os
import py_compile
from pathlib import Path

import pytest

from sessions import setupd
from sessions.model import Places

TEXT = '"""A script."""\n\n# sessions-script: 1\n\n\ndef plan(session):\n    yield "{}"\n'
OTHERS_UID = 65534


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A script that plans "text", and beside it what is compiled, which plans "made"."""
    path = tmp_path / "setup.d/50own"
    path.parent.mkdir()
    path.write_text(TEXT.format("made"))
    path.chmod(0o755)
    before = path.stat()
    py_compile.compile(str(path), doraise=True)
    path.write_text(TEXT.format("text"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return path


def compiled(script: Path) -> Path:
    (path,) = (script.parent / "__pycache__").iterdir()
    return path


def planned(script: Path) -> object:
    places = Places(stock_setup_dir=str(script.parent), native_config_dir="/no", schroot_config_dir="/no")
    (found,) = setupd.scripts(places)
    assert found.plan
    return next(found.plan(None))  # type: ignore[arg-type]


def test_what_is_compiled_is_used(script: Path) -> None:
    assert planned(script) == "made"


def test_what_is_compiled_of_another_text_is_not_used(script: Path) -> None:
    os.utime(script, (1, 1))
    assert planned(script) == "text"


@pytest.mark.parametrize("change", ["owner", "mode", "cut short", "gone"])
def test_what_cannot_be_trusted_is_not_used(script: Path, change: str) -> None:
    path = compiled(script)
    if change == "owner":
        os.chown(path, OTHERS_UID, OTHERS_UID)
    elif change == "mode":
        path.chmod(0o646)
    elif change == "cut short":
        path.write_bytes(path.read_bytes()[:8])
    else:
        path.unlink()
    before = sorted(script.parent.rglob("*"))
    assert planned(script) == "text"
    assert sorted(script.parent.rglob("*")) == before
