"""The data of `types.py` as plain JSON values, and back.

Fields at their default are left out, so that a field added later changes no stored key. Values come back only as what the
type hints declare: a stored file decides nothing but the values. What takes no part in equality (`raw`, `parsed`) is not
written.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from llmops_sdk.types import Part, Reasoning, Refusal, Text, ToolCall, ToolResult

T = TypeVar("T")

PARTS: typing.Final[Mapping[str, type[Part]]] = {
    "text": Text,
    "reasoning": Reasoning,
    "refusal": Refusal,
    "tool_call": ToolCall,
    "tool_result": ToolResult,
}
"""How the parts of a message are marked, under "type"."""

EXACT_BELOW: typing.Final = 2**53
"""Whole floats below this are written as integers: 0 and 0.0 are equal, and so are their keys."""

_MARKS = {cls: mark for mark, cls in PARTS.items()}


def to_dict(value: Any) -> dict[str, Any]:
    """A dataclass or named tuple of `types.py` as a dict that JSON can hold."""
    told: dict[str, Any] = {"type": _MARKS[type(value)]} if type(value) in _MARKS else {}
    cls: type = type(value)
    for name, default in _fields(cls):
        field = getattr(value, name)
        if default is dataclasses.MISSING or field != default:
            told[name] = _plain(field)
    return told


def from_dict(cls: type[T], told: Any) -> T:
    """The value that `to_dict` made `told` of. Raises `ValueError`, with the place, for anything else."""
    return typing.cast("T", _object(cls, told, cls.__name__))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT_BELOW:
        return int(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return to_dict(value)


@functools.cache
def _fields(cls: type) -> tuple[tuple[str, Any], ...]:
    """(name, default) of what is written of a class."""
    if dataclasses.is_dataclass(cls):
        return tuple(
            (f.name, f.default if f.default_factory is dataclasses.MISSING else f.default_factory())
            for f in dataclasses.fields(cls)
            if f.compare
        )
    defaults: Mapping[str, Any] = cls._field_defaults  # type: ignore[attr-defined]  # a named tuple has it
    return tuple((name, defaults.get(name, dataclasses.MISSING)) for name in cls._fields)  # type: ignore[attr-defined]


@functools.cache
def _readers(cls: type) -> dict[str, Callable[[Any, str], Any]]:
    hints = typing.get_type_hints(cls)
    return {name: _reader(hints[name]) for name, _ in _fields(cls)}


def _object(cls: type, told: Any, place: str) -> Any:
    readers = _readers(cls)
    if not isinstance(told, Mapping):
        raise ValueError(f"{place} is {type(told).__name__}, not an object")  # noqa: TRY004 - one error for all that is stored wrong
    if unknown := set(told) - set(readers) - {"type"}:
        raise ValueError(f"{place} has the unknown field {min(map(str, unknown))!r}")
    for name, default in _fields(cls):
        if default is dataclasses.MISSING and name not in told:
            raise ValueError(f"{place} lacks {name!r}")
    return cls(**{name: readers[name](value, f"{place}.{name}") for name, value in told.items() if name in readers})


def _part(told: Any, place: str) -> Any:
    mark = told.get("type") if isinstance(told, Mapping) else None
    if not isinstance(mark, str) or mark not in PARTS:
        raise ValueError(f"{place} is of the unknown type {mark!r}")
    return _object(PARTS[mark], told, place)


def _reader(hint: Any) -> Callable[[Any, str], Any]:
    """What reads a value of the type that `hint` declares."""
    if hint == Part:
        return _part
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return functools.partial(_one_of, arguments)
    if origin in (typing.Union, types.UnionType):
        return functools.partial(_first, [_reader(argument) for argument in arguments])
    if origin is tuple:
        items = [_reader(argument) for argument in arguments if argument is not Ellipsis]
        return functools.partial(_tuple, items, Ellipsis in arguments)
    if hint is float:
        return functools.partial(_plain_value, (float, int))
    if hint in (str, int, bool, type(None)):
        return functools.partial(_plain_value, (hint,))
    return functools.partial(_object, hint)


def _plain_value(kinds: tuple[type, ...], told: Any, place: str) -> Any:
    if type(told) not in kinds:
        raise ValueError(f"{place} is {type(told).__name__}, not {kinds[0].__name__}")
    return kinds[0](told) if told is not None else None


def _one_of(allowed: tuple[Any, ...], told: Any, place: str) -> Any:
    if told not in allowed:
        raise ValueError(f"{place} is {told!r}, none of {allowed}")
    return told


def _first(readers: list[Callable[[Any, str], Any]], told: Any, place: str) -> Any:
    *others, last = readers
    for reader in others:
        try:
            return reader(told, place)
        except ValueError:
            continue
    return last(told, place)


def _tuple(items: list[Callable[[Any, str], Any]], repeated: bool, told: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(told, list | tuple):
        raise ValueError(f"{place} is {type(told).__name__}, not a list")  # noqa: TRY004 - as above
    if not repeated and len(told) != len(items):
        raise ValueError(f"{place} has {len(told)} items, not {len(items)}")
    readers = items * len(told) if repeated else items
    return tuple(
        reader(item, f"{place}[{number}]") for number, (reader, item) in enumerate(zip(readers, told, strict=True))
    )
