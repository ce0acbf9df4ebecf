"""Data classes are to their users what dataclass would make of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest

from sessions.data import Frozen, Mutable, asdict, field, replace


class Point(Frozen):
    kind: ClassVar[str] = "point"
    x: int
    y: int = 2


class Named(Point):
    name: str = "n"
    y: int = 3


class Log(Mutable):
    lines: list[str] = field(default_factory=list)
    write: Callable[[str], None] = lambda line: None


def test_fields_come_by_place_by_name_or_by_default() -> None:
    assert asdict(Point(1)) == asdict(Point(x=1)) == asdict(Point(1, 2)) == {"x": 1, "y": 2}
    assert list(asdict(Point(y=5, x=4))) == ["x", "y"]
    assert asdict(Named(1)) == {"x": 1, "y": 3, "name": "n"}
    assert Point(1).kind == "point"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Point(), "Point lacks x"),  # type: ignore[call-arg]
        (lambda: Point(y=1), "Point lacks x"),  # type: ignore[call-arg]
        (lambda: Point(1, z=3), "Point has no field z"),  # type: ignore[call-arg]
        (lambda: Point(1, 2, 3), "Point has 2 fields: got 3 values"),  # type: ignore[call-arg]
        (lambda: Point(1, x=1), "Point has 2 fields: got 1 values, and x"),  # type: ignore[misc]
        (lambda: replace(Point(1), z=3), "Point has no field z"),  # type: ignore[call-arg]
        (lambda: Point(1, kind="line"), "Point has no field kind"),  # type: ignore[call-arg]
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        make()


def test_frozen_data_is_equal_by_its_values_and_its_class() -> None:
    assert Point(1) == Point(x=1, y=2) != Point(2)
    assert hash(Point(1)) == hash(Point(y=2, x=1))
    assert Named(1, 2) != Point(1, 2)
    assert Point(1) != (1, 2)
    assert repr(Point(1)) == "Point(x=1, y=2)"


def test_frozen_data_cannot_change() -> None:
    point = Point(1)
    with pytest.raises(AttributeError, match="Point is frozen: x cannot be set"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="Point is frozen: x cannot be deleted"):
        del point.x
    assert replace(point, x=2) == Point(2)
    assert point == Point(1)


def test_fields_are_matched_by_place() -> None:
    match Named(1, name="m"):
        case Named(x, name, y):
            assert (x, name, y) == (1, 3, "m")


def test_each_object_gets_a_fresh_default() -> None:
    one, other = Log(), Log()
    one.lines.append("line")
    assert (one.lines, other.lines) == (["line"], [])
    other.lines = one.lines
    assert Log(["a"]).lines == ["a"]
    one.write("nothing")
