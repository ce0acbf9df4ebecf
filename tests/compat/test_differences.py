"""DIFFERENCES of schroot(1) and the cases that differ on purpose are one and the same list."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import comparing

MODULES = sorted(path.stem for path in Path(__file__).parent.glob("test_*.py") if path.stem != Path(__file__).stem)


def _modules() -> Iterator[ModuleType]:
    return map(importlib.import_module, MODULES)


def _named() -> set[str]:
    cases = {case.differs for module in _modules() for batch in comparing.batches_of(module) for case in batch.cases}
    values = [value for module in _modules() for value in vars(module).values() if callable(value)]
    tests = {getattr(value, "differs", "") for value in values}
    return {name for name in cases | tests if name}


def test_every_entry_is_pinned_and_every_name_is_an_entry() -> None:
    entries = comparing.differences()
    assert len(set(entries)) == len(entries)
    assert sorted(_named()) == sorted(entries)


def test_a_case_that_is_to_differ_says_in_what() -> None:
    cases = [case for module in _modules() for batch in comparing.batches_of(module) for case in batch.cases]
    assert [case.line for case in cases if case.differs and not case.fields] == []
    assert len(cases) >= 200
