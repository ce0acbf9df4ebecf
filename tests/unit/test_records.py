"""Records: whatever a journal holds comes back as it was, and nothing else is taken for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions import records, steps
from sessions.data import Frozen, replace
from sessions.model import (
    SOURCES,
    CachedTree,
    Chroot,
    CopyLine,
    FstabLine,
    HostMount,
    Identity,
    Luks,
    LvmVolume,
    Owner,
    Places,
    Raid,
    Script,
    Session,
    Union,
)
from sessions.steps import Step

# Lone surrogates are what Python makes of paths that are not UTF-8.
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
st.register_type_strategy(str, TEXT)


def data_of(cls: type[Frozen]) -> st.SearchStrategy[Any]:
    """Whatever its fields allow."""
    return st.builds(cls, **{name: st.from_type(hint) for name, hint in records.field_types(cls).items()})


VOLUMES = (Luks, Raid, LvmVolume)
DATA = (Owner, CachedTree, Union, Identity, Places, *VOLUMES, *SOURCES, Chroot, FstabLine, CopyLine, HostMount, Script)
for known in DATA:
    st.register_type_strategy(known, data_of(known))
SESSIONS = data_of(Session)
PLANS = st.lists(st.one_of([data_of(kind) for kind in steps.KINDS.values()]), max_size=4)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=5,
)


def through_a_journal(value: Any) -> Any:
    return json.loads(json.dumps(records.encode(value), ensure_ascii=True).encode())


@given(SESSIONS)
def test_a_session_comes_back(session: Session) -> None:
    assert records.decode(Session, through_a_journal(session)) == session


@pytest.mark.parametrize("kind", sorted(steps.KINDS))
def test_a_step_of_every_kind_comes_back(kind: str) -> None:
    @given(data_of(steps.KINDS[kind]))
    def check(step: Step) -> None:
        record = through_a_journal(step)
        assert record["kind"] == kind == step.kind
        found = steps.decode(record)
        assert found == step
        assert type(found) is type(step)
        assert found.describe() == step.describe()

    check()


def test_every_kind_of_step_and_source_has_a_name_of_its_own() -> None:
    def leaves(cls: type) -> set[type]:
        subclasses: list[type] = cls.__subclasses__()
        below = {leaf for subclass in subclasses for leaf in leaves(subclass)}
        return below | ({cls} if cls.__dict__.get("kind") else set())

    rare = {steps.rare(class_name) for _module, class_name in steps.RARE.values()}
    assert leaves(Step) == {*steps.KINDS.values(), *rare}
    assert not {kind.kind for kind in rare} & set(steps.KINDS) and {kind.kind for kind in rare} == set(steps.RARE)
    assert len({source.kind for source in SOURCES}) == len(SOURCES)
    for source in SOURCES:
        chroot = Chroot(name="x", source=source())
        assert records.decode(Chroot, through_a_journal(chroot)) == chroot


@given(SESSIONS, st.data())
def test_a_value_of_another_type_is_refused(session: Session, data: st.DataObject) -> None:
    """At any depth; a value that is refused is named."""
    record = through_a_journal(session)
    holder: Any = record
    while True:
        key = data.draw(st.sampled_from(sorted(holder)))
        if not isinstance(holder[key], dict) or not holder[key] or data.draw(st.booleans()):
            break
        holder = holder[key]
    other = data.draw(JSON)
    same_type = type(other) is type(holder[key]) and not isinstance(other, list | dict)
    is_list_of_same = (
        isinstance(other, list) and isinstance(holder[key], list) and all(type(item) is str for item in other)
    )
    holder[key] = other
    try:
        found = records.decode(Session, record)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        is_optional = key == "owner" and other is None
        assert same_type or is_list_of_same or is_optional or key == "kind"
        assert through_a_journal(found) == record or key == "kind"


@given(st.sampled_from([Session, Chroot, Union, Identity, Owner, Places, FstabLine]), JSON)
def test_anything_else_is_a_value_error(cls: type, data: object) -> None:
    try:
        found: object = records.decode(cls, data)
    except ValueError:
        return
    assert isinstance(data, dict)
    assert set(data) <= set(cls.__match_args__) | {"kind"}
    assert isinstance(found, cls)


@given(JSON)
def test_a_step_of_no_kind_is_refused(record: object) -> None:
    with pytest.raises(ValueError, match="unknown kind of step"):
        steps.decode(record)


def test_fields_that_are_unknown_or_missing_are_named() -> None:
    record = through_a_journal(Owner(1, 2, "boot", 3, 4))
    with pytest.raises(ValueError, match="Owner has no field 'more'"):
        records.decode(Owner, {**record, "more": 1})
    del record["pid"]
    with pytest.raises(ValueError, match="pid"):
        records.decode(Owner, record)
    with pytest.raises(ValueError, match=r"Owner\.pid: wants int, not True"):
        records.decode(Owner, {**record, "pid": True})
    with pytest.raises(ValueError, match="unknown kind of step 'nosuch'"):
        steps.decode({"kind": "nosuch"})
    assert replace(Owner(1, 2, "boot", 3, 4), pid=3).pid == 3
