"""The form of types: annotations as objects, and the declared fields of schema classes.

Fields are read from the classes themselves and not from pydantic's JSON Schema, whose text changes between its versions.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from llmops_sdk.prompts.normal_form import normal_form, quoted

Encode: TypeAlias = Callable[[object], str]
EncodeField: TypeAlias = Callable[[object, str], str]
"""The form of what a field says, and the field's name where it is the field's value."""

# What a pydantic field tells a model or a validator; how it is stored differs between versions of pydantic.
_PYDANTIC_FIELD = (
    "default",
    "default_factory",
    "alias",
    "validation_alias",
    "title",
    "description",
    "examples",
    "discriminator",
    "json_schema_extra",
    "metadata",
)


def is_type_expression(value: object) -> bool:
    """Whether `value` is a type that is not a plain class: `list[int]`, `int | None`, `Literal["a"]`, a type variable."""
    return (
        typing.get_origin(value) is not None
        or isinstance(value, typing.TypeVar | typing.ParamSpec | typing.ForwardRef | typing.NewType)
        or type(value).__name__ in ("TypeAliasType", "_SpecialForm", "_AnyMeta")
    )


def type_form(value: Any, encode: Encode) -> str:
    """The form of a type expression; `Optional[X]`, `Union[X, None]` and `X | None` are one."""
    origin, arguments = typing.get_origin(value), typing.get_args(value)
    if origin is typing.Union or origin is types.UnionType:
        return f"union[{_all(arguments, encode)}]"
    if origin is typing.Literal:
        return f"literal[{_all(arguments, encode)}]"
    if origin is typing.Annotated:
        return f"annotated[{encode(value.__origin__)},{_all(value.__metadata__, encode)}]"
    if origin is not None:
        inner = (f"[{_all(a, encode)}]" if isinstance(a, list) else encode(a) for a in arguments)
        return f"{encode(origin)}[{','.join(inner)}]" if arguments else encode(origin)
    if isinstance(value, typing.ForwardRef):
        return _spelled(value.__forward_arg__)
    if isinstance(value, typing.NewType):
        return f"newtype({quoted(value.__name__)},{encode(value.__supertype__)})"
    if hasattr(value, "__value__"):
        return encode(value.__value__)
    return f"typing.{getattr(value, '_name', None) or getattr(value, '__name__', '')}"


def _all(values: Iterable[object], encode: Encode) -> str:
    return ",".join(map(encode, values))


def _spelled(annotation: str) -> str:
    try:
        return f"spelled({normal_form(ast.parse(annotation.strip(), mode='eval').body)})"
    except SyntaxError:
        return f"spelled({quoted(annotation)})"


def fields_form(cls: Any, encode: EncodeField) -> str | None:
    """The form of the declared fields of a schema class, in their order; None for any other class."""
    for kind in (_pydantic, _dataclass, _named_tuple, _typed_dict, _enum):
        fields = kind(cls, encode)
        if fields is not None:
            return f"{kind.__name__[1:]}{{{fields}}}"
    return None


def _field(name: str, annotation: object, encode: EncodeField, details: Mapping[str, object]) -> str:
    told = "".join(
        f"{key}={encode(value, name if key == 'default' else '')},"
        for key, value in details.items()
        if not _empty(value)
    )
    form = _spelled(annotation) if isinstance(annotation, str) else encode(annotation, "")
    return f"{quoted(name)}:{form}({told});"


def _empty(value: object) -> bool:
    return value is dataclasses.MISSING or type(value).__name__ == "PydanticUndefinedType"


def _said(value: object) -> object:
    """What a field leaves at its None or empty default is not said."""
    return (
        dataclasses.MISSING
        if value is None or (isinstance(value, list | tuple | dict | Mapping) and not value)
        else value
    )


def _hints(cls: type) -> Mapping[str, Any]:
    """Annotations resolved where they can be, else as they are written."""
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception:  # names that only a type checker sees, or any expression of the user's
        return {
            name: hint for base in reversed(cls.__mro__) for name, hint in vars(base).get("__annotations__", {}).items()
        }


def _pydantic(cls: Any, encode: EncodeField) -> str | None:
    if "__pydantic_core_schema__" not in vars(cls) or not hasattr(cls, "model_fields"):
        return None
    told = []
    for name, field in cls.model_fields.items():
        details = {key: _said(getattr(field, key, None)) for key in _PYDANTIC_FIELD}
        if not field.is_required() and field.default_factory is None:
            details["default"] = field.default
        told.append(_field(name, field.annotation, encode, details))
    return "".join(told) + encode(dict(sorted(cls.model_config.items())), "")


def _dataclass(cls: Any, encode: EncodeField) -> str | None:
    if not hasattr(cls, "__dataclass_fields__"):
        return None
    hints, told = _hints(cls), []
    for field in dataclasses.fields(cls):
        details = {
            "default": field.default,
            "default_factory": field.default_factory,
            "metadata": _said(field.metadata),
        }
        told.append(_field(field.name, hints.get(field.name, field.type), encode, details))
    return "".join(told)


def _named_tuple(cls: Any, encode: EncodeField) -> str | None:
    names, defaults = getattr(cls, "_fields", None), getattr(cls, "_field_defaults", None)
    if not issubclass(cls, tuple) or names is None or defaults is None:
        return None
    hints = _hints(cls)
    return "".join(
        _field(name, hints.get(name, Any), encode, {"default": defaults[name]} if name in defaults else {})
        for name in names
    )


def _typed_dict(cls: Any, encode: EncodeField) -> str | None:
    if not typing.is_typeddict(cls):
        return None
    return "".join(
        _field(name, hint, encode, {"required": name in cls.__required_keys__}) for name, hint in _hints(cls).items()
    )


def _enum(cls: Any, encode: EncodeField) -> str | None:
    if not issubclass(cls, enum.Enum):
        return None
    return "".join(f"{quoted(name)}={encode(member.value, name)};" for name, member in cls.__members__.items())
