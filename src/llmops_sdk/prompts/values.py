"""The form of captured values: constants, closure variables, defaults, and what a decorator was given.

A value is captured whole or not at all: what is not known here is named in `opaque` and never asked for its repr, which may
hold an address or a secret. Sets are sorted by the form of their elements. Functions, classes and modules are references,
which the closure resolves.
"""

from __future__ import annotations

import collections
import contextvars
import dataclasses
import datetime as dt
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
from itertools import pairwise
from operator import itemgetter
from typing import Any, ClassVar, Protocol, TypeAlias

from llmops_sdk.prompts.normal_form import constant_form, quoted
from llmops_sdk.prompts.types_form import is_type_expression, type_form
from llmops_sdk.tracing.secrets import find_secrets

OPAQUE = "o"
"""The form of what cannot be captured."""

# What a subclass of these holds is known, whatever else it does.
_PLAIN: tuple[type[Any], ...] = (str, int, float, bytes, tuple, list, dict, set, frozenset)
_CONSTANTS = frozenset({type(None), bool, int, float, complex, bytes, type(...)})
# Beyond this a value is data, not a constant; walking it would stall the first call.
_MOST_VALUES = 20_000
_MOST_NUMBERED = 100  # beyond this, opaque elements of a list share one name
_MOST_BYTES = 16 * 1024 * 1024


Encode: TypeAlias = Callable[[object, str], str]
_Write: TypeAlias = Callable[[Any, Any, str], str]
"""A method of `Encoder`: the encoder, a value of its kind, the name of the value."""


class Surroundings(Protocol):
    """What the form of a value needs to know of the code around it."""

    def reference(self, value: object, name: str, encode: Encode) -> str | None:
        """The form of a function, class, module or model; None for any other value."""
        ...

    def place(self, path: str) -> str:
        """A path as it is in every checkout and installation."""
        ...

    def opaque(self, name: str) -> None:
        """Take note of a value that cannot be captured."""
        ...


class _TooMuchError(Exception):
    """A value is larger than a constant is."""


class Encoder:
    """Writes values into their form."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._inside: list[int] = []
        self._left = _MOST_VALUES

    def encode(self, value: object, name: str) -> str:
        """The form of `value`, known to the user as `name`. Whatever user objects raise makes them opaque."""
        if not self._inside:
            self._left = _MOST_VALUES
        try:
            return self._encode(value, name)
        except _TooMuchError:
            if self._inside:
                raise
            return self._opaque(name)
        except Exception:  # a property, __eq__ or __len__ of the user's may raise anything, also RecursionError
            return self._opaque(name)

    def _opaque(self, name: str) -> str:
        self._surroundings.opaque(name)
        return OPAQUE

    def _encode(self, value: object, name: str) -> str:
        self._left -= 1
        if self._left < 0:
            raise _TooMuchError
        if type(value) is str:
            return self._opaque(name) if is_secret(name, value) else quoted(self._surroundings.place(value))
        if type(value) in _CONSTANTS:
            return constant_form(value)
        if id(value) in self._inside:
            return f"^{len(self._inside) - self._inside.index(id(value))}"
        self._inside.append(id(value))
        try:
            return self._compound(value, name)
        finally:
            self._inside.pop()

    def _compound(self, value: Any, name: str) -> str:
        exact = self._exact.get(type(value))
        if exact is not None:
            return exact(self, value, name)
        if is_type_expression(value):
            return type_form(value, lambda inner: self._encode(inner, name))
        reference = self._surroundings.reference(value, name, self.encode)
        if reference is not None:
            return reference
        for kind, form in self._kinds:
            if isinstance(value, kind):
                return form(self, value, name)
        return self._object(value, name)

    def _object(self, value: Any, name: str) -> str:
        """A value of a class: by its fields where it has declared fields."""
        cls = type(value)
        fields = declared_fields(value)
        if fields is not None:
            return f"{self._class(cls, name)}{self.pairs(fields, name, '.')}"
        top = cls.__module__.partition(".")[0]
        if top == "numpy":
            return self._numpy(value, name)
        if top == "zoneinfo":
            return self._text(value, name)
        for base in _PLAIN:
            if isinstance(value, base):
                return f"{self._class(cls, name)}<{self._encode(base(value), name)}>"
        self._class(cls, name)
        return self._opaque(name)

    def _class(self, cls: type, name: str) -> str:
        return self._surroundings.reference(cls, name, self.encode) or OPAQUE

    def pairs(self, pairs: Iterable[tuple[str, object]], name: str, separator: str) -> str:
        """The form of named values, in their order."""
        return "{" + "".join(f"{quoted(k)}={self._encode(v, f'{name}{separator}{k}')};" for k, v in pairs) + "}"

    def _items(self, values: Iterable[object], name: str) -> str:
        return "".join(f"{self._encode(v, f'{name}[{_position(number)}]')}," for number, v in enumerate(values))

    def _tuple(self, value: tuple[object, ...], name: str) -> str:
        return f"({self._items(value, name)})"

    def _list(self, value: list[object], name: str) -> str:
        return f"[{self._items(value, name)}]"

    def _dict(self, value: Mapping[Any, Any], name: str) -> str:
        told = "".join(f"{self._encode(k, name)}:{self._encode(v, f'{name}[{_shown(k)}]')}," for k, v in value.items())
        return f"{{{told}}}"

    def _set(self, value: Iterable[object], name: str) -> str:
        """Numbers of classes follow the order of discovery, so elements are ordered by a form that has no numbers."""
        by_name = Encoder(_ByName())
        keyed = sorted(((by_name.encode(element, name), element) for element in value), key=itemgetter(0))
        if any(one == other for (one, _), (other, _) in pairwise(keyed)):
            return self._opaque(name)  # nothing orders them that another process would agree on
        ordered = [element for _, element in keyed]
        kind = "" if isinstance(value, set) else "frozen"
        return f"{kind}<{''.join(f'{self._encode(element, name)},' for element in ordered)}>"

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

    def _bytearray(self, value: bytearray, name: str) -> str:
        return f"bytearray({constant_form(bytes(value))})"

    def _slice(self, value: slice, name: str) -> str:
        return f"slice{self._tuple((value.start, value.stop, value.step), name)}"

    def _defaultdict(self, value: collections.defaultdict[Any, Any], name: str) -> str:
        return f"default({self._encode(value.default_factory, name)}){self._dict(value, name)}"

    def _deque(self, value: collections.deque[Any], name: str) -> str:
        return f"deque{self._list(list(value), name)}"

    def _logger(self, value: logging.Logger, name: str) -> str:
        return "logger"

    def _context_variable(self, value: contextvars.ContextVar[Any], name: str) -> str:
        return f"contextvar({quoted(value.name)})"

    def _text(self, value: object, name: str) -> str:
        """Values whose str is their identity: numbers, identifiers, dates."""
        return f"{type(value).__name__}({quoted(str(value))})"

    def _numpy(self, value: Any, name: str) -> str:
        dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
        if dtype is None or shape is None or dtype.hasobject or value.nbytes > _MOST_BYTES:
            return self._opaque(name)
        content = hashlib.sha256(value.tobytes()).hexdigest()
        return f"array({quoted(dtype.str)},{','.join(map(str, shape))},{content})"

    # What is written by its exact class, and what by any class that it is an instance of.
    _exact: ClassVar[dict[type, _Write]] = {
        tuple: _tuple,
        list: _list,
        dict: _dict,
        set: _set,
        frozenset: _set,
    }
    _kinds: ClassVar[tuple[tuple[type | tuple[type, ...], _Write], ...]] = (
        (enum.Enum, _enum),
        (re.Pattern, _pattern),
        (pathlib.PurePath, _path),
        (functools.partial, _partial),
        ((dt.date, dt.time, dt.timedelta, dt.timezone), _text),
        ((decimal.Decimal, fractions.Fraction, uuid.UUID, range), _text),
        (bytearray, _bytearray),
        (slice, _slice),
        (types.MappingProxyType, _dict),
        ((collections.OrderedDict, collections.Counter), _dict),
        (collections.defaultdict, _defaultdict),
        (collections.deque, _deque),
        # Where a log line goes, or what a context holds, is no part of what the code says.
        (logging.Logger, _logger),
        (contextvars.ContextVar, _context_variable),
    )


def declared_fields(value: Any) -> list[tuple[str, object]] | None:
    """Names and values of the declared fields of an instance; None where its class declares none."""
    cls = type(value)
    if dataclasses.is_dataclass(cls):
        return [(f.name, getattr(value, f.name)) for f in dataclasses.fields(cls)]
    if hasattr(cls, "__pydantic_core_schema__") and hasattr(cls, "model_fields"):
        return sorted({**vars(value), **(getattr(value, "__pydantic_extra__", None) or {})}.items())
    if isinstance(value, tuple) and isinstance(getattr(cls, "_fields", None), tuple):
        return list(zip(cls._fields, value, strict=True))
    if isinstance(value, types.SimpleNamespace):
        return list(vars(value).items())
    # Constraints such as Field(pattern=…) are held by pydantic in objects of its own, which are nothing but their names.
    if cls.__module__.startswith("pydantic.") and cls.__name__.endswith("GeneralMetadata"):
        return sorted(vars(value).items())
    return None


_SECRET_NAME = re.compile(
    r"(?i)(api|access|private|secret)_?key|secret|passw(or)?d|credential|(auth|access|bearer)_?token"
)


_LAST_WORD = re.compile(r"[A-Za-z_]\w*(?=\W*\d*\W*$)")


def is_secret(name: str, text: str) -> bool:
    """Whether a text is a credential, by the last word of its name or by its looks: such a one is never hashed."""
    if not 8 <= len(text) <= 4096 or len(text.split(None, 1)) != 1:
        return False
    word = _LAST_WORD.search(name)
    return bool((word and _SECRET_NAME.search(word[0])) or find_secrets(text))


def _shown(key: object) -> str:
    """A key of a dict in the name of its value; keys are data, so only what reads like a name is shown."""
    if type(key) is int or (type(key) is str and key.isidentifier() and len(key) <= 24):
        return repr(key)
    return "…"


def _position(number: int) -> int | str:
    return number if number < _MOST_NUMBERED else "…"


class _ByName:
    """Refers to functions and classes by their names: an order for sets that does not depend on discovery."""

    def reference(self, value: object, name: str, encode: Encode) -> str | None:
        qualname = getattr(value, "__qualname__", None)
        return None if qualname is None else f"{getattr(value, '__module__', '')}.{qualname}"

    def place(self, path: str) -> str:
        return path

    def opaque(self, name: str) -> None:
        """Said by the encoder that the set belongs to."""
