"""Every text in a value: containers, dataclasses and pydantic models are followed, and rebuilt as what they were."""

from __future__ import annotations

import copy
import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from llmops_sdk.errors import GuardBlockedError
from llmops_sdk.types import Message

DEEPEST: Final = 12
"""Nesting down to which texts are looked for; what lies deeper is refused."""

_PLAIN = (bool, int, float, complex, bytes, bytearray, type)


def texts_of(value: Any) -> list[str]:
    """The distinct texts in a value, in order. Raises `GuardBlockedError` below `DEEPEST` levels."""
    found: dict[str, None] = {}

    def note(text: str) -> str:
        found[text] = None
        return text

    rebuilt(value, note)
    return list(found)


def rebuilt(value: Any, change: Callable[[str], str], depth: int = 0) -> Any:
    """`value` with `change` applied to every text in it; what holds no changed text comes back as the same object.

    Keys of mappings count as texts. Objects of other kinds, generators among them, are not looked into. Raises
    `GuardBlockedError` below `DEEPEST` levels, which also ends a value that contains itself.
    """
    if isinstance(value, str):
        changed = change(value)
        return value if changed == value else changed
    if value is None or isinstance(value, _PLAIN):
        return value
    if depth >= DEEPEST:
        raise GuardBlockedError(f"A value is nested deeper than {DEEPEST} levels and cannot be checked. Flatten it.")
    if isinstance(value, Mapping):
        return _mapping(value, change, depth + 1)
    if isinstance(value, list | tuple | set | frozenset | deque):
        return _items(value, change, depth + 1)
    return _fields(value, change, depth + 1)


def _mapping(value: Mapping[Any, Any], change: Callable[[str], str], depth: int) -> Any:
    pairs = [(k, v, rebuilt(k, change, depth), rebuilt(v, change, depth)) for k, v in value.items()]
    if all(new_k is k and new_v is v for k, v, new_k, new_v in pairs):
        return value
    changed = {new_k: new_v for _, _, new_k, new_v in pairs}
    if type(value) is dict or not isinstance(value, dict):
        return changed
    again = copy.copy(value)  # a defaultdict keeps its factory
    again.clear()
    again.update(changed)
    return again


def _items(value: Any, change: Callable[[str], str], depth: int) -> Any:
    items = [rebuilt(item, change, depth) for item in value]
    if all(new is old for new, old in zip(items, value, strict=True)):
        return value
    if hasattr(value, "_make"):
        return value._make(items)
    return deque(items, value.maxlen) if isinstance(value, deque) else type(value)(items)


def _fields(value: Any, change: Callable[[str], str], depth: int) -> Any:
    changed = {}
    for name, old in _fields_of(value):
        new = rebuilt(old, change, depth)
        if new is not old:
            changed[name] = new
    if not changed:
        return value
    if hasattr(value, "model_copy"):
        return value.model_copy(update=changed)
    again = copy.copy(value)  # not `replace`, which would run `__post_init__` again and ask for `InitVar`s
    for name, new in changed.items():
        object.__setattr__(again, name, new)
    return again


def _fields_of(value: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a dataclass instance or pydantic model that are set; nothing of other objects."""
    if isinstance(value, Message):
        names = ["parts"]  # the role is one of four words
    elif dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
    elif hasattr(type(value), "model_fields") and hasattr(value, "model_copy"):
        names = [*type(value).model_fields, *(getattr(value, "model_extra", None) or {})]
    else:
        names = []
    for name in names:
        if hasattr(value, name):
            yield name, getattr(value, name)
