"""Frozen data to plain JSON values and back, with every type checked on the way back in.

Where a field may hold data of several classes, each has a ``kind`` class attribute, which stands in its record.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable

from sessions.data import TYPE_CHECKING, Frozen, asdict

if TYPE_CHECKING:
    from typing import Any, TypeAlias, TypeVar

    T = TypeVar("T")

Decoder: TypeAlias = "Callable[[object], Any]"


def encode(value: Any) -> Any:
    """The JSON value for frozen data, a tuple or a plain value."""
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if not isinstance(value, Frozen):
        return value
    return {name: encode(item) for name, item in _record(value).items()}


def to_json(value: Any) -> str:
    """The same as a line of JSON, without a value in between."""
    return _ENCODER.encode(value)


def _record(value: Frozen) -> dict[str, Any]:
    """The fields of data, as they are, and its kind."""
    kind = getattr(value, "kind", None)
    return asdict(value) if kind is None else {**asdict(value), "kind": kind}


# Calls for a record wherever it comes to data; tuples are lists to it.
_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_record)


def decode(cls: type[T], data: object) -> T:
    """The data of class `cls` that `data` records; raises ValueError, which names the field, if it records none."""
    value: T = _decoder(cls)(data)
    return value


def field_types(cls: type[Frozen]) -> dict[str, Any]:
    """The type of each field: its annotation as the module understands it that it stands in."""
    found = {}
    for base in reversed(cls.__mro__):
        words = getattr(base, "__annotations__", {})
        names = vars(sys.modules[base.__module__])
        found.update({name: eval(words[name], names) for name in cls.__match_args__ if name in words})
    return found


def _decoder(hint: Any) -> Decoder:
    """What decodes values of a type: worked out once, since journals are read all the time."""
    if hint not in _DECODERS:
        _DECODERS[hint] = _make_decoder(hint)
    return _DECODERS[hint]


def _make_decoder(hint: Any) -> Decoder:
    if isinstance(hint, types.UnionType):
        return _union_decoder(hint.__args__)
    if isinstance(hint, types.GenericAlias) and hint.__origin__ is tuple:
        return _tuple_decoder(hint.__args__)
    return _data_decoder(hint) if issubclass(hint, Frozen) else _plain_decoder(hint)


def _plain_decoder(cls: type) -> Decoder:
    def plain(data: object) -> object:
        if type(data) is not cls:
            raise ValueError(f"wants {cls.__name__}, not {data!r}")
        return data

    return plain


def _data_decoder(cls: type[Frozen]) -> Decoder:
    decoders = {name: _decoder(hint) for name, hint in field_types(cls).items()}
    allowed = {*decoders, "kind"}

    def table(data: object) -> Any:
        if not isinstance(data, dict):
            raise ValueError(f"{cls.__name__} wants a table, not {data!r}")
        values = {}
        for name, value in data.items():
            if name not in allowed:
                raise ValueError(f"{cls.__name__} has no field {name!r}")
            if name in decoders:
                try:
                    values[name] = decoders[name](value)
                except ValueError as error:
                    raise ValueError(f"{cls.__name__}.{name}: {error}") from None
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(str(error)) from None

    return table


def _union_decoder(choices: tuple[Any, ...]) -> Decoder:
    """Of None and one type, or of classes told apart by their kind."""
    others = [choice for choice in choices if choice is not type(None)]
    if len(others) == 1:
        return lambda data: None if data is None else _decoder(others[0])(data)
    kinds = {choice.kind: choice for choice in others}

    def by_kind(data: object) -> object:
        kind = data.get("kind") if isinstance(data, dict) else None
        if not isinstance(kind, str) or kind not in kinds:
            raise ValueError(f"unknown kind {kind!r}")
        return _decoder(kinds[kind])(data)

    return by_kind


def _tuple_decoder(arguments: tuple[Any, ...]) -> Decoder:
    if len(arguments) == 2 and arguments[1] is ...:
        decode_item = _decoder(arguments[0])

        def items(data: object) -> tuple[Any, ...]:
            if not isinstance(data, list):
                raise ValueError(f"wants a list, not {data!r}")
            return tuple(map(decode_item, data))

        return items
    decoders = [_decoder(hint) for hint in arguments]

    def fixed(data: object) -> tuple[Any, ...]:
        if not isinstance(data, list) or len(data) != len(decoders):
            raise ValueError(f"wants a list of {len(decoders)} values, not {data!r}")
        return tuple(decode_item(item) for decode_item, item in zip(decoders, data, strict=True))

    return fixed


# By type.
_DECODERS: dict[Any, Decoder] = {}
