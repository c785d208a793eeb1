"""The form of captured values: constants, closure variables, defaults, and what a decorator was given.

A value is captured whole or not at all: what is not known here is named in `opaque` and never asked for its repr, which may
hold an address or a secret. Sets are sorted by the form of their elements. Functions, classes and modules are references,
which the closure resolves.
"""

from __future__ import annotations

import collections
import contextvars
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import hashlib
import logging
import pathlib
import re
import types
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from llmops_sdk.prompts.normal_form import constant_form, quoted
from llmops_sdk.prompts.types_form import is_type_expression, type_form

OPAQUE = "o"
# Beyond this a container is data, not a constant; walking it would stall the first call.
_MOST_VALUES = 100_000


class Surroundings(Protocol):
    """What the form of a value needs to know of the code around it."""

    def reference(self, value: object, name: str) -> str | None:
        """The form of a function, class, module or model; None for any other value."""
        ...

    def place(self, path: str) -> str:
        """A path as it is in every checkout and installation."""
        ...

    def opaque(self, name: str) -> None:
        """Take note of a value that cannot be captured."""
        ...


class Encoder:
    """Writes values into their form. One encoder serves one computation, so that its budget bounds the whole."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._inside: list[int] = []
        self._left = _MOST_VALUES

    def encode(self, value: object, name: str) -> str:
        """The form of `value`, known to the user as `name`. Whatever user objects raise makes them opaque."""
        try:
            return self._encode(value, name)
        except Exception:  # a property, __eq__ or __len__ of the user's may raise anything, also RecursionError
            return self._opaque(name)

    def _opaque(self, name: str) -> str:
        self._surroundings.opaque(name)
        return OPAQUE

    def _encode(self, value: object, name: str) -> str:
        if type(value) in _CONSTANTS:
            return constant_form(self._surroundings.place(value) if type(value) is str else value)
        if id(value) in self._inside:
            return f"^{len(self._inside) - self._inside.index(id(value))}"
        self._left -= 1
        if self._left < 0:
            return self._opaque(name)
        self._inside.append(id(value))
        try:
            return self._compound(value, name)
        finally:
            self._inside.pop()

    def _compound(self, value: Any, name: str) -> str:
        exact = _EXACT.get(type(value))
        if exact is not None:
            return exact(self, value, name)
        if is_type_expression(value):
            return type_form(value, lambda inner: self._encode(inner, name))
        reference = self._surroundings.reference(value, name)
        if reference is not None:
            return reference
        for kind, form in _KINDS:
            if isinstance(value, kind):
                return form(self, value, name)
        return self._object(value, name)

    def _object(self, value: Any, name: str) -> str:
        """A value of a class: by its fields where it has declared fields."""
        cls = type(value)
        fields = _fields_of(value)
        if fields is not None:
            return f"{self._class(cls, name)}{self.pairs(fields, name, '.')}"
        if cls.__module__.partition(".")[0] == "numpy":
            return self._numpy(value, name)
        for base in (str, int, float, bytes, tuple, list, dict, set, frozenset):
            if isinstance(value, base):
                plain = base(value)  # type: ignore[call-overload]  # each takes an instance of its subclass
                return f"{self._class(cls, name)}<{self._encode(plain, name)}>"
        self._class(cls, name)
        return self._opaque(name)

    def _class(self, cls: type, name: str) -> str:
        return self._surroundings.reference(cls, name) or OPAQUE

    def pairs(self, pairs: Iterable[tuple[str, object]], name: str, separator: str) -> str:
        """The form of named values, in their order."""
        return "{" + "".join(f"{quoted(k)}={self._encode(v, f'{name}{separator}{k}')};" for k, v in pairs) + "}"

    def _items(self, values: Iterable[object], name: str) -> str:
        return "".join(f"{self._encode(v, f'{name}[{number}]')}," for number, v in enumerate(values))

    def _tuple(self, value: tuple[object, ...], name: str) -> str:
        return f"({self._items(value, name)})"

    def _list(self, value: list[object], name: str) -> str:
        return f"[{self._items(value, name)}]"

    def _dict(self, value: Mapping[object, object], name: str) -> str:
        told = "".join(
            f"{self._encode(k, name)}:{self._encode(v, f'{name}[{k!r}]' if type(k) in (str, int) else name)},"
            for k, v in value.items()
        )
        return f"{{{told}}}"

    def _set(self, value: Iterable[object], name: str) -> str:
        """Numbers of classes follow the order of discovery, so elements are ordered by a form that has no numbers."""
        unordered = list(value)
        keys = Encoder(_ByName())
        ordered = sorted(unordered, key=lambda element: keys.encode(element, name))
        return f"<{''.join(f'{self._encode(element, name)},' for element in ordered)}>"

    def _enum(self, value: enum.Enum, name: str) -> str:
        member = value.name if value.name is not None else ""
        return f"{self._class(type(value), name)}.{quoted(member)}={self._encode(value.value, name)}"

    def _pattern(self, value: re.Pattern[Any], name: str) -> str:
        return f"re({self._encode(value.pattern, name)},{value.flags})"

    def _path(self, value: pathlib.PurePath, name: str) -> str:
        return f"path({quoted(self._surroundings.place(value.as_posix()))})"

    def _partial(self, value: functools.partial[Any], name: str) -> str:
        function = self._encode(value.func, name)
        return f"partial({function},{self._tuple(value.args, name)},{self._dict(value.keywords, name)})"

    def _text(self, value: object, name: str) -> str:
        """Values whose str is their identity: numbers, identifiers, dates."""
        return f"{type(value).__name__}({quoted(str(value))})"

    def _numpy(self, value: Any, name: str) -> str:
        dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
        if dtype is None or shape is None or dtype.hasobject:
            return self._opaque(name)
        content = hashlib.sha256(value.tobytes()).hexdigest()
        return f"array({quoted(dtype.str)},{','.join(map(str, shape))},{content})"


def _fields_of(value: Any) -> list[tuple[str, object]] | None:
    """Names and values of the declared fields of an instance, without running properties where that can be told."""
    cls = type(value)
    if dataclasses.is_dataclass(cls):
        return [(f.name, getattr(value, f.name)) for f in dataclasses.fields(cls)]
    if hasattr(cls, "__pydantic_core_schema__") and hasattr(cls, "model_fields"):
        return sorted({**vars(value), **(getattr(value, "__pydantic_extra__", None) or {})}.items())
    if isinstance(value, tuple) and isinstance(getattr(cls, "_fields", None), tuple):
        return list(zip(cls._fields, value, strict=True))
    if hasattr(cls, "__attrs_attrs__"):
        return [(a.name, getattr(value, a.name)) for a in cls.__attrs_attrs__]
    if isinstance(value, types.SimpleNamespace):
        return list(vars(value).items())
    # Constraints such as Field(pattern=…) are held by pydantic in objects of its own, which are nothing but their names.
    if cls.__module__.startswith("pydantic.") and cls.__name__.endswith("GeneralMetadata"):
        return sorted(vars(value).items())
    return None


class _ByName:
    """Refers to functions and classes by their names: an order for sets that does not depend on discovery."""

    def reference(self, value: object, name: str) -> str | None:
        qualname = getattr(value, "__qualname__", None)
        return None if qualname is None else f"{getattr(value, '__module__', '')}.{qualname}"

    def place(self, path: str) -> str:
        return path

    def opaque(self, name: str) -> None:
        """Said by the encoder that the set belongs to."""


_CONSTANTS = frozenset({type(None), bool, int, float, complex, str, bytes, type(...)})
_EXACT: dict[type, Callable[[Encoder, Any, str], str]] = {
    tuple: Encoder._tuple,
    list: Encoder._list,
    dict: Encoder._dict,
    set: Encoder._set,
    frozenset: Encoder._set,
}
_KINDS: tuple[tuple[type | tuple[type, ...], Callable[[Encoder, Any, str], str]], ...] = (
    (enum.Enum, Encoder._enum),
    (re.Pattern, Encoder._pattern),
    (pathlib.PurePath, Encoder._path),
    (functools.partial, Encoder._partial),
    ((datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo), Encoder._text),
    ((decimal.Decimal, fractions.Fraction, uuid.UUID, range), Encoder._text),
    (bytearray, lambda encoder, value, name: f"bytearray({constant_form(bytes(value))})"),
    (slice, lambda encoder, value, name: f"slice{encoder._tuple((value.start, value.stop, value.step), name)}"),
    (types.MappingProxyType, Encoder._dict),
    ((collections.OrderedDict, collections.Counter), Encoder._dict),
    (
        collections.defaultdict,
        lambda encoder, value, name: f"default({encoder._encode(value.default_factory, name)}){encoder._dict(value, name)}",
    ),
    (collections.deque, lambda encoder, value, name: f"deque{encoder._list(list(value), name)}"),
    # Where a log line goes, or what a context holds, is no part of what the code says.
    (logging.Logger, lambda encoder, value, name: "logger"),
    (contextvars.ContextVar, lambda encoder, value, name: f"contextvar({quoted(value.name)})"),
)
