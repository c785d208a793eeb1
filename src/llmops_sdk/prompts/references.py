"""Which names of its surroundings a piece of code uses: free names with their attribute chains, and imports in its body."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from llmops_sdk.prompts.normal_form import Definition, unquoted

SUPER = "super()"
"""The root of a reference such as `super().tone`."""


class Imported(NamedTuple):
    """Where an import inside a body takes a name from. `name` is None for the module itself."""

    module: str
    name: str | None
    level: int


class Reference(NamedTuple):
    """A name that code reads from around itself, with the attributes it goes on to: `texts.TONE` is ("texts", ("TONE",))."""

    root: str
    attributes: tuple[str, ...] = ()
    imported: Imported | None = None

    @property
    def path(self) -> str:
        """As written, such as `texts.TONE`."""
        return ".".join((self.root, *self.attributes))


def references(node: Definition) -> list[Reference]:
    """What `node` reads from around itself, sorted.

    Annotations, defaults and decorators of a function are left out: they were evaluated when it was defined.
    """
    outer = _Scope()
    if isinstance(node, ast.ClassDef):
        _enter_class(node, outer, fields=False)
    else:
        _enter_function(node, outer)
    return _sorted(outer.read)


def annotation_references(node: Definition) -> list[Reference]:
    """The names in the annotations of a function's parameters and result, sorted; of its own type parameters none."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return []
    scope = _Scope()
    for annotation in _annotations(node):
        _visit(annotation, scope)
    return _sorted(r for r in scope.read if r.root not in _type_parameters(node))


def _sorted(found: Iterable[Reference]) -> list[Reference]:
    return sorted(found, key=lambda r: (r.path, str(r.imported)))


def reads_from_first_parameter(node: Definition) -> list[Reference]:
    """`self.X` or `cls.X`: what a method reads from its first parameter, as references with that name as root."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return []
    positional = [*node.args.posonlyargs, *node.args.args]
    if not positional:
        return []
    first, scope = positional[0].arg, _Scope()
    for statement in node.body:
        _visit(statement, scope)
    return _sorted(r for r in scope.read if r.root == first and r.attributes and r.imported is None)


class _Scope:
    """The names that one scope reads and binds."""

    def __init__(self) -> None:
        self.read: set[Reference] = set()
        self.bound: set[str] = set()
        self.declared_outside: set[str] = set()  # by `global` and `nonlocal`
        self.imports: dict[str, Imported] = {}

    def free(self) -> Iterable[Reference]:
        """What is read here and bound further out; a name that an import here binds leaves with its import."""
        for reference in self.read:
            root = reference.root
            if reference.imported is not None or root in self.declared_outside:
                yield reference
            elif root in self.imports:
                yield reference._replace(imported=self.imports[root])
            elif root not in self.bound:
                yield reference


def _enter_function(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, outer: _Scope) -> None:
    inner = _Scope()
    arguments = node.args
    parameters = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    parameters += [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    inner.bound.update(a.arg for a in parameters)
    inner.bound.update(_type_parameters(node))
    for statement in node.body if isinstance(node.body, list) else [node.body]:
        _visit(statement, inner)
    outer.read.update(inner.free())


def _enter_class(node: ast.ClassDef, outer: _Scope, *, fields: bool) -> None:
    head, body, methods = _Scope(), _Scope(), _Scope()
    for expression in (*node.bases, *(k.value for k in node.keywords), *node.decorator_list):
        _visit(expression, head)
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and fields:
            _visit(unquoted(statement.annotation), body)
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            # A method does not see the names that the class body binds; its defaults and decorators do.
            _around_function(statement, body)
            body.bound.add(statement.name)
            _enter_function(statement, methods)
        else:
            _visit(statement, body)
    generic = _type_parameters(node)
    outer.read.update(r for r in (*head.read, *body.free(), *methods.read) if r.root not in generic)


def _type_parameters(node: ast.AST) -> set[str]:
    """The T of `def f[T]` and `class C[T]`, which Python 3.12 brought."""
    return {parameter.name for parameter in getattr(node, "type_params", ())}


def _around_function(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, scope: _Scope) -> None:
    for default in (*node.args.defaults, *node.args.kw_defaults, *getattr(node, "decorator_list", ())):
        if default is not None:
            _visit(default, scope)


def _annotations(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.expr]:
    every = [a.annotation for a in ast.walk(node.args) if isinstance(a, ast.arg)]
    return [unquoted(a) for a in (*every, node.returns) if a is not None]


def _visit(node: ast.AST, scope: _Scope) -> None:
    kind = type(node)
    if kind is ast.Name:
        _name(node, scope)  # type: ignore[arg-type]  # the exact type was looked at
    elif kind is ast.Attribute:
        _attribute(node, scope)  # type: ignore[arg-type]  # as above
    elif kind in _SCOPES:
        _scoped(node, scope)
    elif kind in _BINDING:
        _binding(node, scope)
    else:
        _children(node, scope)


def _children(node: ast.AST, scope: _Scope) -> None:
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, ast.AST):
            _visit(value, scope)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, ast.AST):
                    _visit(item, scope)


def _name(node: ast.Name, scope: _Scope) -> None:
    if isinstance(node.ctx, ast.Load):
        scope.read.add(Reference(node.id))
    else:
        scope.bound.add(node.id)


def _attribute(node: ast.Attribute, scope: _Scope) -> None:
    attributes: list[str] = []
    inner: ast.expr = node
    while isinstance(inner, ast.Attribute):
        # What is assigned to is not read.
        if isinstance(inner.ctx, ast.Load):
            attributes.append(inner.attr)
        inner = inner.value
    attributes.reverse()
    if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load):
        scope.read.add(Reference(inner.id, tuple(attributes)))
    elif isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id == "super":
        scope.read.add(Reference(SUPER, tuple(attributes)))
    else:
        _visit(inner, scope)


_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_SCOPES = frozenset({ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, *_COMPREHENSIONS})


def _scoped(node: ast.AST, scope: _Scope) -> None:
    if isinstance(node, ast.ClassDef):
        scope.bound.add(node.name)
        _enter_class(node, scope, fields=True)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        if not isinstance(node, ast.Lambda):
            scope.bound.add(node.name)
        _around_function(node, scope)
        _enter_function(node, scope)
    elif isinstance(node, _COMPREHENSIONS):
        _comprehension(node, scope)


def _comprehension(node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp, outer: _Scope) -> None:
    """A comprehension binds its targets in itself; its first iterable is read outside, and `:=` binds outside."""
    _visit(node.generators[0].iter, outer)
    inner = _Scope()
    results = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
    for number, generator in enumerate(node.generators):
        for part in (generator.target, *generator.ifs, *(() if number == 0 else (generator.iter,))):
            _visit(part, inner)
    for result in results:
        _visit(result, inner)
    walrus = {n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr) and isinstance(n.target, ast.Name)}
    outer.bound.update(walrus)
    inner.bound -= walrus
    outer.read.update(inner.free())


_BINDING = frozenset(
    {
        ast.Import,
        ast.ImportFrom,
        ast.Global,
        ast.Nonlocal,
        ast.ExceptHandler,
        ast.AnnAssign,
        ast.MatchAs,
        ast.MatchStar,
        ast.MatchMapping,
    }
)


def _binding(node: ast.AST, scope: _Scope) -> None:
    if isinstance(node, ast.Import | ast.ImportFrom):
        _import(node, scope)
    elif isinstance(node, ast.Global | ast.Nonlocal):
        scope.declared_outside.update(node.names)
    elif isinstance(node, ast.AnnAssign):
        for part in (node.target, node.value):
            if part is not None:
                _visit(part, scope)
    else:
        name = getattr(node, "rest", None) or getattr(node, "name", None)
        if name is not None:
            scope.bound.add(name)
        _children(node, scope)


def _import(node: ast.Import | ast.ImportFrom, scope: _Scope) -> None:
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            bound, imported = alias.asname or alias.name, Imported(node.module or "", alias.name, node.level)
        elif alias.asname:
            bound, imported = alias.asname, Imported(alias.name, None, 0)
        else:
            bound = alias.name.partition(".")[0]
            imported = Imported(bound, None, 0)
        scope.bound.add(bound)
        scope.imports[bound] = imported


def read_names(names: Sequence[str]) -> list[Reference]:
    """References to plain names, for code that has no source."""
    return [Reference(name) for name in sorted(set(names))]
