"""The source of one function or class, sliced from its file: a whole module is parsed only where a slice is ambiguous."""

from __future__ import annotations

import ast
import inspect
import linecache
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import CodeType, FunctionType
from typing import Any, TypeVar

from llmops_sdk.prompts.normal_form import Definition, normal_form
from llmops_sdk.prompts.references import Reference, annotation_references, reads_from_first_parameter, references

T = TypeVar("T")

# A body with text at the left margin has many lines that look like its end; after this many, tokens are counted instead.
_GUESSES = 8


class Slice:
    """A parsed definition and its text as it stands in the file. What is read out of it is read once."""

    __slots__ = ("_read", "node", "text")

    def __init__(self, node: Definition, text: str) -> None:
        self.node = node
        self.text = text
        self._read: dict[str, Any] = {}

    def _once(self, key: str, read: Callable[[], T]) -> T:
        if key not in self._read:
            self._read[key] = read()
        found: T = self._read[key]
        return found

    def form(self, *, annotations: bool = False, fields: bool = True) -> str:
        """The normal form, see there. Raises `RecursionError` for expressions nested thousands deep."""
        key = f"form {annotations} {fields}"
        return self._once(key, lambda: normal_form(self.node, annotations=annotations, fields=fields))

    def references(self) -> list[Reference]:
        return self._once("references", lambda: references(self.node))

    def annotation_references(self) -> list[Reference]:
        return self._once("annotations", lambda: annotation_references(self.node))

    def reads_from_first_parameter(self) -> list[Reference]:
        return self._once("first", lambda: reads_from_first_parameter(self.node))


class Sources:
    """Reads slices for the versions of one prompt.

    A slice is kept as long as its code object or class, since the text of a file may have moved on from what runs.
    """

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {}
        self._modules: dict[str, ast.Module | None] = {}
        self._slices: dict[int, tuple[object, Slice | None]] = {}

    def refresh(self) -> None:
        """Forget the text of files: the next slice is read from the file as it is then."""
        self._lines.clear()
        self._modules.clear()

    def _kept(self, key: object, read: Callable[[], Slice | None]) -> Slice | None:
        if id(key) not in self._slices:
            self._slices[id(key)] = (key, read())
        return self._slices[id(key)][1]

    def function(self, function: FunctionType) -> Slice | None:
        """The source of `function`, or None where there is none that fits."""
        return self._kept(function.__code__, lambda: self._function(function))

    def definition_of_class(self, cls: type) -> Slice | None:
        """The source of `cls`, or None where there is none that fits."""
        return self._kept(cls, lambda: self._definition_of_class(cls))

    def _lines_of(self, filename: str, module_globals: Mapping[str, Any]) -> list[str]:
        if filename not in self._lines:
            if not filename.startswith("<"):
                linecache.checkcache(filename)
            self._lines[filename] = linecache.getlines(filename, dict(module_globals))
        return self._lines[filename]

    def _function(self, function: FunctionType) -> Slice | None:
        code = function.__code__
        lines = self._lines_of(code.co_filename, function.__globals__)
        if not 0 < code.co_firstlineno <= len(lines):
            return None
        if code.co_name == "<lambda>":
            return self._lambda(code, lines)
        found = _block(lines, code.co_firstlineno - 1)
        if found is None or not isinstance(found.node, ast.FunctionDef | ast.AsyncFunctionDef):
            return None
        # A file that changed after it was imported has something else at that line.
        return found if found.node.name == code.co_name else None

    def _definition_of_class(self, cls: type) -> Slice | None:
        module = sys.modules.get(cls.__module__)
        for filename, module_globals in _files_of_class(cls, module):
            lines = self._lines_of(filename, module_globals)
            pattern = re.compile(rf"^[ \t]*class[ \t]+{re.escape(cls.__name__)}\b", re.MULTILINE)
            starts = [number for number, line in enumerate(lines) if pattern.match(line)]
            if starts:
                start = starts[0] if len(starts) == 1 else self._the_one(cls, filename, lines)
                found = None if start is None else _block(lines, _decorated_from(lines, start))
                return found if found is not None and isinstance(found.node, ast.ClassDef) else None
        return None

    def _the_one(self, cls: type, filename: str, lines: Sequence[str]) -> int | None:
        """Which of several classes of one name: the one with the same methods, else the last."""
        tree = self._module(filename, lines)
        if tree is None:
            return None
        named = [node for qualname, node in _classes(tree) if qualname == cls.__qualname__]
        inside = {f.__code__.co_firstlineno for f in methods_of(cls)}
        fitting = [n for n in named if inside and inside <= set(range(n.lineno, (n.end_lineno or n.lineno) + 1))]
        chosen = fitting or named
        return chosen[-1].lineno - 1 if chosen else None

    def _lambda(self, code: CodeType, lines: Sequence[str]) -> Slice | None:
        first = code.co_firstlineno
        here = [node for node in self._lambdas_near(code, lines) if node.lineno == first]
        fitting = here if len(here) == 1 else [node for node in here if _holds(node.body, code)]
        if not fitting:
            return None
        node = fitting[-1]  # the innermost: ast.walk goes from the outside in
        text = ast.get_source_segment("".join(lines[first - 1 : node.end_lineno]), _moved(node, first - 1))
        return Slice(node, text or "")

    def _lambdas_near(self, code: CodeType, lines: Sequence[str]) -> list[ast.Lambda]:
        """The lambdas of the statement that starts at the code's first line, else those of the whole module."""
        first = code.co_firstlineno
        for last in range(first, min(first + _GUESSES, len(lines) + 1)):
            tree = _parsed("".join(lines[first - 1 : last]))
            if tree is not None:
                ast.increment_lineno(tree, first - 1)
                return _lambdas(tree)
        whole = self._module(code.co_filename, lines)
        return [] if whole is None else _lambdas(whole)

    def _module(self, filename: str, lines: Sequence[str]) -> ast.Module | None:
        if filename not in self._modules:
            try:
                self._modules[filename] = ast.parse("".join(lines))
            except SyntaxError:
                self._modules[filename] = None
        return self._modules[filename]


def _parsed(text: str) -> ast.Module | None:
    """The statements of `text`, which may be indented. Indentation inside of strings stays as it is."""
    indented = text[:1] in (" ", "\t")
    try:
        tree = ast.parse("if 1:\n" + text if indented else text)
    except (SyntaxError, ValueError):
        return None
    if not indented:
        return tree
    branch = tree.body[0]
    assert isinstance(branch, ast.If)
    inner = ast.Module(body=branch.body, type_ignores=[])
    return ast.increment_lineno(inner, -1)


def _block(lines: Sequence[str], start: int) -> Slice | None:
    """The definition that starts at `lines[start]`, with its decorators."""
    for end in _ends(lines, start):
        text = "".join(lines[start:end])
        tree = _parsed(text)
        if tree is not None and len(tree.body) == 1 and isinstance(tree.body[0], ast.stmt):
            node = tree.body[0]
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                return Slice(node, "".join(lines[start : start + (node.end_lineno or 1)]))
            return None
    return None


def _ends(lines: Sequence[str], start: int) -> Iterator[int]:
    """Where a definition may end: before a line that is not indented further.

    Inside of strings and brackets such a slice does not parse, so the first one that does is right.
    """
    margin = _indent(lines[start])
    guesses = 0
    for number in range(start + 1, len(lines)):
        line = lines[number].lstrip(" \t\f")
        if line.strip() and not line.startswith("#") and _indent(lines[number]) <= margin:
            yield number
            guesses += 1
            if guesses > _GUESSES:
                yield start + len(inspect.getblock(list(lines[start:])))
                return
    yield len(lines)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" \t\f"))


def _decorated_from(lines: Sequence[str], start: int) -> int:
    """The line of the first decorator of the class at `start`."""
    margin, first = _indent(lines[start]), start
    for number in range(start - 1, -1, -1):
        line = lines[number].strip()
        if _indent(lines[number]) == margin and line.startswith("@"):
            first = number
        elif line and _indent(lines[number]) <= margin and not line.startswith(("#", ")", "]", "}")):
            break
    return first


def _files_of_class(cls: type, module: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where the class may stand: the files of its methods, then of its module."""
    for function in methods_of(cls)[:1]:
        yield function.__code__.co_filename, function.__globals__
    filename = getattr(module, "__file__", None)
    if isinstance(filename, str):
        yield filename.removesuffix("c") if filename.endswith(".pyc") else filename, vars(module)
    elif module is not None and cls.__module__ == "__main__":
        # A notebook has no file; its cells are cached under names of their own, the newest last.
        for cell in reversed([name for name in linecache.cache if "ipykernel_" in name or name.startswith("<ipython")]):
            yield cell, {}


def inner_function(member: object) -> FunctionType | None:
    """The function that a member of a class is made of, if it was written in a file."""
    inner = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
    return inner if isinstance(inner, FunctionType) and not inner.__code__.co_filename.startswith("<string") else None


def methods_of(cls: type) -> list[FunctionType]:
    """The functions of the class's own body. Those that dataclasses and others put in see the globals of another module."""
    found = [function for function in map(inner_function, vars(cls).values()) if function is not None]
    inside = f"{cls.__qualname__}."
    return [f for f in found if f.__qualname__.startswith(inside) and f.__globals__.get("__name__") == cls.__module__]


def _classes(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.ClassDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield prefix + node.name, node
            yield from _classes(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _classes(node, f"{prefix}{node.name}.<locals>.")
        else:
            yield from _classes(node, prefix)


def _lambdas(tree: ast.AST) -> list[ast.Lambda]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]


def _holds(body: ast.expr, code: CodeType) -> bool:
    """Whether the instructions of `code` stand inside of `body`."""
    for line, _, column, _ in code.co_positions():
        # The first instructions of a code object stand at its head, without a width.
        if line is not None and column is not None and (line, column) != (code.co_firstlineno, 0):
            start, end = (body.lineno, body.col_offset), (body.end_lineno or 0, body.end_col_offset or 0)
            return start <= (line, column) <= end
    return False


def _moved(node: ast.Lambda, lines: int) -> ast.expr:
    moved = ast.Lambda(args=node.args, body=node.body)
    moved.lineno, moved.col_offset = node.lineno - lines, node.col_offset
    moved.end_lineno, moved.end_col_offset = (node.end_lineno or node.lineno) - lines, node.end_col_offset
    return moved
