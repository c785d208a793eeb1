"""Any value as JSON, as it is now: bounded in depth, width and length, and never by running the user's code.

No `__repr__`, `__str__`, property or `__iter__` of a user's class is called: each may raise, block or print a secret.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

DEEPEST: Final = 8
MOST_ITEMS: Final = 200
MOST_CHARS: Final = 262_144
"""Characters of one text that are kept; its true length is said."""


def snapshot(value: Any, redact: Callable[[str], str]) -> Any:
    """`value` as what JSON can hold, with `redact` applied to every text."""
    return _Snapshot(redact).of(value, 0)


class _Snapshot:
    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact

    def of(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is int:
            return value
        if kind is float:
            return value if math.isfinite(value) else repr(value)
        if isinstance(value, str):
            return self._text(str.__str__(value))
        if depth >= DEEPEST:
            return f"<{kind.__qualname__}>"
        if kind in (list, tuple, set, frozenset):
            return self._items(value, depth)
        if kind is dict:
            return self._pairs(value, depth)
        return self._object(value, depth)

    def _text(self, text: str) -> str:
        redacted = self._redact(text)
        if len(redacted) <= MOST_CHARS:
            return redacted
        return f"{redacted[:MOST_CHARS]}… [{len(text)} characters]"

    def _items(self, value: Any, depth: int) -> list[Any]:
        kept = [self.of(item, depth + 1) for item, _ in zip(value, range(MOST_ITEMS), strict=False)]
        return kept if len(value) <= MOST_ITEMS else [*kept, f"… [{len(value)} items]"]

    def _pairs(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        kept = {}
        for (name, item), _ in zip(value.items(), range(MOST_ITEMS), strict=False):
            kept[self._name(name)] = self.of(item, depth + 1)
        if len(value) > MOST_ITEMS:
            kept["…"] = f"[{len(value)} entries]"
        return kept

    def _name(self, name: Any) -> str:
        plain = type(name) in (str, int, float, bool, type(None))
        return self._text(str(name)) if plain else f"<{type(name).__qualname__}>"

    def _object(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return f"<{len(value)} bytes>"
        if isinstance(value, enum.Enum):
            return self.of(value.value, depth + 1)
        if isinstance(value, BaseException):
            return {"error": kind.__qualname__, "message": self._message(value)}
        fields = _fields(value)
        if fields is not None:  # names that stand in code: they are not redacted
            return {name: self.of(field, depth + 1) for name, field in fields.items()}
        if isinstance(value, int):
            return int.__pos__(value)  # the plain number under a subclass
        if isinstance(value, float):
            return self.of(float.__pos__(value), depth)
        return _described(value)

    def _message(self, error: BaseException) -> str:
        """Exceptions of the standard library and of ours are built from their arguments; a `__str__` is not run."""
        return ", ".join(self._text(item) for item in error.args if isinstance(item, str))


def _fields(value: Any) -> Mapping[str, Any] | None:
    """The declared fields of an instance, read from where they are held."""
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        # a slot is a C descriptor; a name that a property covers is left out
        held = [f for f in dataclasses.fields(kind) if f.repr and not isinstance(getattr(kind, f.name, None), property)]
        return {f.name: object.__getattribute__(value, f.name) for f in held if _holds(value, f.name)}
    if hasattr(kind, "__pydantic_core_schema__") or hasattr(kind, "__attrs_attrs__"):
        state = getattr(value, "__dict__", None)
        return dict(state) if isinstance(state, dict) else None
    if isinstance(value, tuple) and isinstance(getattr(kind, "_fields", None), tuple):
        return dict(zip(kind._fields, tuple.__iter__(value), strict=False))
    return None


def _holds(value: Any, name: str) -> bool:
    try:
        object.__getattribute__(value, name)
    except AttributeError:
        return False
    return True


def _described(value: Any) -> str:
    """Arrays and tensors by type and shape, everything else by the name of its class."""
    kind = type(value)
    if kind.__module__.partition(".")[0] in ("numpy", "torch"):
        shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
        if shape is not None and dtype is not None:
            return f"<{kind.__qualname__} {dtype} [{', '.join(map(str, shape))}]>"
    return f"<{kind.__qualname__}>"
