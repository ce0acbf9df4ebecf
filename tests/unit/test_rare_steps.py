"""Steps of rare storage: in modules that are loaded when a plan or a journal names them, and not before."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from sessions import records, script, steps

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", steps.RARE)
def test_the_table_says_where_each_is(kind: str) -> None:
    module, class_name = steps.RARE[kind]
    found = steps.rare(class_name)
    assert (found.kind, found.__name__, found.__module__) == (kind, class_name, f"sessions.steps.{module}")
    assert getattr(script, class_name) is found
    assert class_name in script.__all__
    assert kind not in steps.KINDS
    assert records.field_types(found)


def test_there_are_no_others() -> None:
    with pytest.raises(KeyError):
        steps.rare("MountPoint")
    with pytest.raises(AttributeError, match="has no attribute 'NoStep'"):
        script.NoStep  # noqa: B018
    with pytest.raises(ValueError, match="unknown kind of step 'no-kind'"):
        steps.decode({"kind": "no-kind"})


@pytest.mark.parametrize("path", sorted(path for path in (ROOT / "setup.d").iterdir() if path.is_file()))
def test_scripts_import_them_where_they_plan_them(path: Path) -> None:
    """At the top of a file it would be for every session."""
    rare = {class_name for _module, class_name in steps.RARE.values()}
    top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
    assert rare.isdisjoint(alias.name for node in top for alias in node.names)
