"""From a name in code to the object that it stands for, with the place to watch for rebinding."""

from __future__ import annotations

import builtins
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from types import CellType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from llmops_sdk.prompts.references import Imported, Reference

EMPTY = object()
"""Stands for a name or cell that holds nothing yet."""

# What a module knows of itself, and Python of the module: where it lies is no part of what code says.
_OF_MODULE = frozenset(
    f"__{name}__" for name in ("name", "file", "doc", "package", "spec", "loader", "path", "cached", "builtins")
)


class Found(NamedTuple):
    """An object that code refers to.

    Attributes:
        path: the part of the reference that led to it.
        value: the object.
        rest: the attributes that follow, which names do not resolve.
        home: the module that it was met in.
    """

    path: str
    value: object
    rest: tuple[str, ...]
    home: str


class Missing(NamedTuple):
    """A name that stands for nothing yet."""

    path: str


class External(NamedTuple):
    """Something of a module that is not imported yet and belongs to others."""

    module: str
    name: str | None


class Watched(NamedTuple):
    """What was read from one namespace. `key` keeps the owner of the namespace, and so its id, in use."""

    key: object
    namespace: Mapping[str, Any]
    seen: dict[str, object]


class Surrounding(NamedTuple):
    """Where the names of a piece of code are looked up."""

    namespace: dict[str, Any]
    cells: Mapping[str, CellType]
    owner: type | None


def cells_of(function: FunctionType) -> dict[str, CellType]:
    """The closure variables of a function by name."""
    return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))


def owner_of(function: FunctionType) -> type | None:
    """The class whose body defines `function`; None for a plain function, or where it cannot be told."""
    cell = cells_of(function).get("__class__")
    if cell is not None:
        owner = contents(cell)
        return owner if isinstance(owner, type) else None
    *outer, _ = function.__qualname__.split(".")
    value: Any = function.__globals__
    for name in outer:
        value = value.get(name) if isinstance(value, dict) else inspect.getattr_static(value, name, None)
    return value if isinstance(value, type) else None


def contents(cell: CellType) -> object:
    """What a cell holds; `EMPTY` where it holds nothing yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return EMPTY


class Resolver:
    """Looks references up, as they stand now, and remembers what was seen where.

    Args:
        owns: whether a module, by name, is first-party: only there do attributes lead on.

    Attributes:
        names: what names held when they were first read, by the namespace (of a module, class or instance).
        cells: the same of closure variables. Both say `EMPTY` where nothing was.
    """

    def __init__(self, owns: Callable[[str], bool]) -> None:
        self._owns = owns
        self.names: dict[int, Watched] = {}
        self.cells: dict[int, tuple[CellType, object]] = {}

    def read(self, namespace: dict[str, Any], name: str) -> object:
        """A name of a module's or instance's namespace."""
        return self._read(namespace, namespace, name)

    def _read(self, key: object, namespace: Mapping[str, Any], name: str) -> object:
        value = namespace.get(name, EMPTY)
        watched = self.names.setdefault(id(key), Watched(key, namespace, {}))
        watched.seen.setdefault(name, value)
        return value

    def cell(self, cell: CellType) -> object:
        """The contents of a cell."""
        value = contents(cell)
        self.cells.setdefault(id(cell), (cell, value))
        return value

    def resolve(self, reference: Reference, around: Surrounding) -> Found | Missing | None:
        """What `reference` stands for; None for builtins, and what a module knows of itself."""
        root, home = reference.root, str(around.namespace.get("__name__", ""))
        if reference.imported is not None:
            module = _absolute(reference.imported, around.namespace)
            home, value = module, self._imported(module, reference.imported.name)
        elif root in around.cells:
            value = self.cell(around.cells[root])
        elif root in _OF_MODULE:
            return None
        elif root in around.namespace:
            value = self.read(around.namespace, root)
        elif hasattr(builtins, root):
            return None
        else:
            self.read(around.namespace, root)
            value = EMPTY
        if value is EMPTY:
            return Missing(root)
        return self._descend(Found(root, value, reference.attributes, home))

    def _descend(self, found: Found) -> Found | Missing:
        """Through attributes of first-party modules; anything else is as far as names lead."""
        path, value, rest, home = found
        while rest and isinstance(value, ModuleType) and self._owns(value.__name__):
            name, rest = rest[0], rest[1:]
            home, path = value.__name__, f"{path}.{name}"
            inner = self.read(vars(value), name)
            if inner is EMPTY:
                inner = _lazily(value, name)
            if inner is EMPTY:
                return Missing(path)
            value = inner
        return Found(path, value, rest, home)

    def _imported(self, module: str, name: str | None) -> object:
        """What an import in a body brings. Modules of others are not imported for it, but named."""
        if not self._owns(module) and module not in sys.modules:
            return External(module, name)
        loaded = _module(module)
        if name is None or not isinstance(loaded, ModuleType):
            return loaded
        if name in vars(loaded):
            return self.read(vars(loaded), name) if self._owns(module) else vars(loaded)[name]
        return _lazily(loaded, name)

    def member(self, owner: type, name: str, *, beyond: bool = False) -> tuple[type, object] | None:
        """The class in the order of inheritance that holds `name`, and what it holds; `beyond` starts after `owner`."""
        for cls in owner.__mro__[1:] if beyond else owner.__mro__:
            if name in vars(cls):
                return cls, self._read(cls, vars(cls), name)
        return None


def _absolute(imported: Imported, namespace: Mapping[str, Any]) -> str:
    """The full name of the module that an import in the body of a function of `namespace` reads from."""
    if not imported.level:
        return imported.module
    package = str(namespace.get("__package__") or "").split(".")
    return ".".join([*package[: len(package) - imported.level + 1], imported.module]).strip(".")


def _lazily(module: ModuleType, name: str) -> object:
    """What a module makes of a name that it does not hold: by its own `__getattr__`, or a module inside of it."""
    try:
        return getattr(module, name)
    except Exception:  # `__getattr__` is any code of the user's
        return _module(f"{module.__name__}.{name}")


def _module(name: str) -> object:
    """The module of that name, imported if need be, as the body would; `EMPTY` where that fails."""
    try:
        return sys.modules.get(name) or importlib.import_module(name)
    except Exception:  # an import runs any code of the user's
        return EMPTY
