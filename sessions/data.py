"""Data: classes that derive from :class:`Frozen` or :class:`Mutable` are to their users what dataclass would make them.

But dataclass compiles the methods of each class whenever a command starts, and needs modules (inspect, typing) that
take longer to import than the interpreter takes to start. Here every method stands once. Annotations are looked at as
they are written, so a module that defines data begins with the future import of annotations.
"""

from __future__ import annotations

__all__ = ["TYPE_CHECKING", "Frozen", "Mutable", "asdict", "field", "impossible", "replace"]

# Type checkers take every variable of this name for true. It is not imported from typing, so that typing is not.
TYPE_CHECKING = False


class _Fresh:
    """A default that is made anew for each object."""

    def __init__(self, make: Callable[[], object]) -> None:
        self.make = make


if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import field, replace
    from typing import Any, ClassVar, Never, dataclass_transform
else:

    def field(*, default_factory):
        """The default of a field of which each object gets its own."""
        return _Fresh(default_factory)

    def replace(value, /, **changes):
        """The same with some fields changed."""
        return type(value)(**{**asdict(value), **changes})

    def dataclass_transform(**_words):
        """For type checkers only."""
        return lambda cls: cls


class _Data:
    """The fields are the annotated names of the class and its bases, but for those annotated as ClassVar."""

    __match_args__: ClassVar[tuple[str, ...]] = ()
    _names: ClassVar[frozenset[str]] = frozenset()
    _defaults: ClassVar[dict[str, Any]] = {}
    _fresh: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        names = [name for name, words in cls.__annotations__.items() if not words.startswith("ClassVar")]
        defaults = {name: cls.__dict__[name] for name in names if name in cls.__dict__}
        cls.__match_args__ = tuple(dict.fromkeys((*cls.__match_args__, *names)))  # type: ignore[misc]
        cls._names = frozenset(cls.__match_args__)
        cls._defaults = {**cls._defaults, **defaults}
        cls._fresh = {name: value.make for name, value in cls._defaults.items() if isinstance(value, _Fresh)}

    def __init__(self, *args: Any, **words: Any) -> None:
        values = words
        if args:
            values = {**dict(zip(self.__match_args__, args, strict=False)), **words}
        is_each_given_once = len(values) == len(args) + len(words)
        if values.keys() != self._names:
            values = {**self._defaults, **values}
        if not is_each_given_once or values.keys() != self._names:
            raise self._misfit(values, args, words)
        for name, make in self._fresh.items():
            if values[name] is self._defaults[name]:
                values[name] = make()
        self.__dict__.update(values)

    def _misfit(self, values: dict[str, Any], args: tuple[Any, ...], words: dict[str, Any]) -> TypeError:
        name, names = type(self).__name__, self.__match_args__
        if missing := [field for field in names if field not in values]:
            return TypeError(f"{name} lacks {', '.join(missing)}")
        if unknown := [field for field in words if field not in names]:
            return TypeError(f"{name} has no field {', '.join(unknown)}")
        return TypeError(f"{name} has {len(names)} fields: got {len(args)} values, and {', '.join(words) or 'none'}")

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in asdict(self).items())
        return f"{type(self).__name__}({values})"


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Frozen(_Data):
    """Frozen data, equal to other data of its class with the same values."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple(asdict(self).values()))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be deleted")


@dataclass_transform(field_specifiers=(field,))
class Mutable(_Data):
    """Data that changes."""


def asdict(value: _Data) -> dict[str, Any]:
    """The fields and their values, in order."""
    values = value.__dict__
    return {name: values[name] for name in value.__match_args__}


def impossible(value: Never) -> AssertionError:
    """To be raised where no value can come to: type checkers refuse it where one can."""
    return AssertionError(f"{value!r} was not expected here")
