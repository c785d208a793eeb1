"""The normal form of code: one text for everything that reads alike, whatever its formatting and whichever Python parsed it.

Our own serialiser over AST nodes, because `ast.dump`, `ast.unparse`, bytecode and `__doc__` differ between Python versions
and under `-OO`. Fields that are empty are left out (newer Pythons add fields), neighbouring constants of an f-string are
one, docstrings come from the source and lose their indentation, numbers and strings count by value and not by spelling.
Annotations count only where asked for. This module needs nothing but the standard library, so that any interpreter can
check it against `tests/prompts/golden`.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Sequence
from typing import TypeAlias

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda

# ctx follows from the place of a node; kind and type_comment are spelling.
_LEFT_OUT = frozenset({"ctx", "kind", "type_comment"})


def normal_form(node: ast.AST, *, annotations: bool = False, fields: bool = True) -> str:
    """The normal form of `node`.

    Of a function or class that is `node` itself, decorators are left out: what they made is seen at run time. A function's
    own name is left out too, so that moving or renaming it changes nothing. `annotations` keeps the annotations of the
    parameters and of the result; `fields` false leaves out the annotated names of a class, which a schema counts itself.
    """
    writer = _Writer()
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        writer.function(node, outermost=True, annotations=annotations)
    elif isinstance(node, ast.ClassDef):
        writer.definition_of_class(node, outermost=True, fields=fields)
    else:
        writer.value(node)
    return "".join(writer.out)


def digest(text: str) -> str:
    """SHA-256 of `text`, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def quoted(text: str) -> str:
    """`text` with its length in front, so that no two lists of texts run into the same form."""
    return f"s{len(text)}:{text}"


def constant_form(value: object) -> str:
    """The form of a constant that Python source can spell. Raises `TypeError` for anything else."""
    if isinstance(value, str):
        return quoted(value)
    if value is None or value is True or value is False or value is ...:
        return repr(value)
    if isinstance(value, int):
        return f"i{value:x}"
    if isinstance(value, float):
        return f"f{value!r}"
    if isinstance(value, complex):
        return f"c{value.real!r},{value.imag!r}"
    if isinstance(value, bytes):
        return f"b{len(value)}:{value.hex()}"
    raise TypeError(type(value).__name__)


def clean_docstring(text: str) -> str:
    """`text` without the indentation that its place in the file gave it. `inspect.cleandoc` changed with Python 3.13."""
    first, *rest = text.expandtabs().split("\n")
    margins = [len(line) - len(line.lstrip(" ")) for line in rest if line.strip(" ")]
    margin = min(margins, default=0)
    return "\n".join([first.lstrip(" "), *(line[margin:] for line in rest)]).strip("\n ")


def split_docstring(body: Sequence[ast.stmt]) -> tuple[str | None, Sequence[ast.stmt]]:
    """The cleaned docstring of a body, and its other statements."""
    if body and isinstance(body[0], ast.Expr):
        value = body[0].value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return clean_docstring(value.value), body[1:]
    return None, body


def unquoted(annotation: ast.expr) -> ast.expr:
    """An annotation that is written as a string, as the expression in it."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            return ast.parse(annotation.value.strip(), mode="eval").body
        except SyntaxError:
            return annotation
    return annotation


class _Writer:
    """Appends to `out` the form of what it is given."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.keep_annotations = False

    def value(self, value: object) -> None:
        special = _SPECIAL.get(type(value))
        if special is not None:
            special(self, value)
        elif isinstance(value, ast.AST):
            self.node(value)
        elif isinstance(value, list):
            self.sequence(value)
        else:
            self.out.append(constant_form(value))

    def sequence(self, values: Sequence[object]) -> None:
        self.out.append("[")
        for value in values:
            if isinstance(value, ast.AnnAssign) and value.value is None:
                continue
            # A gap: a keyword parameter without default, the key of `{**other}`.
            self.out.append("~") if value is None else self.value(value)
            self.out.append(" ")
        self.out.append("]")

    def node(self, node: ast.AST) -> None:
        out = self.out
        out.append(type(node).__name__)
        out.append("(")
        for name in node._fields:
            value = getattr(node, name, None)
            if value is None or value == [] or name in _LEFT_OUT:
                continue
            out.append(f"{name}=")
            self.value(value)
            out.append(",")
        out.append(")")

    def named(self, name: str, value: object) -> None:
        if value is not None and value != []:
            self.out.append(f"{name}=")
            self.value(value)
            self.out.append(",")

    def body(self, statements: Sequence[ast.stmt]) -> None:
        docstring, rest = split_docstring(statements)
        if docstring:
            self.out.append(f"doc={quoted(docstring)},")
        self.named("body", list(rest))

    def function(self, node: Function, *, outermost: bool = False, annotations: bool = False) -> None:
        self.out.append(f"{type(node).__name__}(")
        if not outermost:
            self.named("name", node.name)
            self.named("decorators", node.decorator_list)
        before, self.keep_annotations = self.keep_annotations, annotations
        self.named("args", node.args)
        if annotations and node.returns is not None:
            self.named("returns", unquoted(node.returns))
        self.keep_annotations = before
        self.named("type_params", getattr(node, "type_params", None) if annotations else None)
        self.body(node.body)
        self.out.append(")")

    def definition_of_class(self, node: ast.ClassDef, *, outermost: bool = False, fields: bool = True) -> None:
        self.out.append("ClassDef(")
        self.named("name", node.name)
        if not outermost:
            self.named("decorators", node.decorator_list)
        self.named("bases", node.bases)
        self.named("keywords", node.keywords)
        if outermost:
            self.body(node.body if fields else [s for s in node.body if not isinstance(s, ast.AnnAssign)])
        else:
            # A class inside a function may be a schema that nobody can look at before the function runs.
            self.body([Field.of(s) if isinstance(s, ast.AnnAssign) else s for s in node.body])
        self.out.append(")")

    def argument(self, node: ast.arg) -> None:
        self.out.append(f"arg({quoted(node.arg)}")
        if self.keep_annotations and node.annotation is not None:
            self.out.append(":")
            self.value(unquoted(node.annotation))
        self.out.append(")")

    def constant(self, node: ast.Constant) -> None:
        self.out.append(constant_form(node.value))

    def name(self, node: ast.Name) -> None:
        self.out.append(f"${node.id};")

    def annotated(self, node: ast.AnnAssign) -> None:
        """`x: int = 1` counts as `x = 1`; `x: int` counts for nothing, see `sequence`."""
        self.out.append("Assign(targets=[")
        self.value(node.target)
        self.out.append(" ],value=")
        self.value(node.value)
        self.out.append(",)")

    def joined(self, node: ast.JoinedStr) -> None:
        """Where an f-string is split into constants differs between Pythons, so neighbours are merged."""
        pieces = merged(node.values)
        if all(isinstance(piece, str) for piece in pieces):
            self.out.append(quoted("".join(map(str, pieces))))
            return
        self.out.append(f"{type(node).__name__}(")
        self.sequence(pieces)
        self.out.append(")")

    def formatted(self, node: ast.FormattedValue) -> None:
        self.out.append("{")
        self.value(node.value)
        if node.conversion != -1:
            self.out.append(f"!{node.conversion}")
        if isinstance(node.format_spec, ast.JoinedStr) and merged(node.format_spec.values):
            self.out.append(":")
            self.value(node.format_spec)
        self.out.append("}")


class Field(ast.stmt):
    """An annotated name of a class body whose annotation counts. The name of this class is part of the form."""

    _fields = ("target", "annotation", "value")

    @classmethod
    def of(cls, node: ast.AnnAssign) -> Field:
        field = cls()
        field.__dict__.update(target=node.target, annotation=unquoted(node.annotation), value=node.value)
        return field


def merged(values: Sequence[ast.expr]) -> list[str | ast.expr]:
    """The parts of an f-string: texts, none of them empty or beside another, and expressions."""
    pieces: list[str | ast.expr] = []
    for value in _flat(values):
        if not isinstance(value, str):
            pieces.append(value)
        elif value and pieces and isinstance(pieces[-1], str):
            pieces[-1] += value
        elif value:
            pieces.append(value)
    return pieces


def _flat(values: Sequence[ast.expr]) -> list[str | ast.expr]:
    flat: list[str | ast.expr] = []
    for value in values:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            flat.append(value.value)
        elif isinstance(value, ast.JoinedStr):
            flat.extend(_flat(value.values))
        else:
            flat.append(value)
    return flat


_SPECIAL: dict[type, Callable[..., None]] = {
    ast.FunctionDef: _Writer.function,
    ast.AsyncFunctionDef: _Writer.function,
    ast.ClassDef: _Writer.definition_of_class,
    ast.arg: _Writer.argument,
    ast.Constant: _Writer.constant,
    ast.Name: _Writer.name,
    ast.AnnAssign: _Writer.annotated,
    ast.JoinedStr: _Writer.joined,
    ast.FormattedValue: _Writer.formatted,
}
