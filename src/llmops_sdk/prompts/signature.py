"""The form of a prompt's signature: parameters, their annotations and the output.

Two versions with equal signatures can be called alike and answer alike. Classes count by their declared fields, or by name,
and wherever they stand, so that this form is independent of the closure's numbers.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from llmops_sdk.prompts.normal_form import normal_form, quoted, unquoted
from llmops_sdk.prompts.resolve import Found, Resolver, Surrounding, cells_of
from llmops_sdk.prompts.types_form import fields_form
from llmops_sdk.prompts.values import Encode, Encoder

if TYPE_CHECKING:
    from llmops_sdk.prompts.source import Slice


def signature_form(function: FunctionType, found: Slice | None, output: object, resolver: Resolver) -> str:
    """The form of the signature of `function`, whose source is `found`, and of its declared output.

    A default counts by being there. Without source, annotations do not count.
    """
    encoder = Encoder(_Shapes())
    if found is not None and isinstance(found.node, ast.FunctionDef | ast.AsyncFunctionDef):
        parameters = "".join(f"{parameter};" for parameter in _parameters(found.node.args))
        around = Surrounding(function.__globals__, cells_of(function), None)
        names = _names(found, resolver, around, encoder)
    else:
        every = inspect.signature(function, follow_wrapped=False).parameters.values()
        parameters, names = "".join(f"{p.kind.name} {p.name};" for p in every), ""
    return f"signature 1\n{parameters}\n{names}\noutput={encoder.encode(output, 'output')}"


def _parameters(arguments: ast.arguments) -> Iterator[str]:
    positional = [*arguments.posonlyargs, *arguments.args]
    required = len(positional) - len(arguments.defaults)
    for number, parameter in enumerate(positional):
        kind = "/" if number < len(arguments.posonlyargs) else ""
        yield f"{kind}{_annotated(parameter)}{'=' if number >= required else ''}"
    if arguments.vararg is not None:
        yield f"*{_annotated(arguments.vararg)}"
    for parameter, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield f"*,{_annotated(parameter)}{'' if default is None else '='}"
    if arguments.kwarg is not None:
        yield f"**{_annotated(arguments.kwarg)}"


def _annotated(parameter: ast.arg) -> str:
    if parameter.annotation is None:
        return parameter.arg
    return f"{parameter.arg}:{normal_form(unquoted(parameter.annotation))}"


def _names(found: Slice, resolver: Resolver, around: Surrounding, encoder: Encoder) -> str:
    told = {}
    for reference in found.annotation_references():
        resolved = resolver.resolve(reference, around)
        if isinstance(resolved, Found):
            told[resolved.path] = encoder.encode(resolved.value, resolved.path)
    return "".join(f"{path}={form};" for path, form in sorted(told.items()))


class _Shapes:
    """Refers to classes by their declared fields, else by their names (`values.Surroundings`)."""

    def reference(self, value: Any, name: str, encode: Encode) -> str | None:
        if isinstance(value, type):
            fields = fields_form(value, lambda inner, field: encode(inner, field or name))
            return f"type({quoted(value.__name__)}{'' if fields is None else f',{fields}'})"
        if isinstance(value, ModuleType):
            return "module"
        qualname = getattr(value, "__qualname__", None)
        return f"function({quoted(qualname)})" if isinstance(qualname, str) else None

    def place(self, path: str) -> str:
        return path

    def opaque(self, name: str) -> None:
        """Named by the closure, which meets the same values."""
