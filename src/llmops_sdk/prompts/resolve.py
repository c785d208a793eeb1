"""From a name in code to the object that it stands for, with the place to watch for rebinding."""

from __future__ import annotations

import builtins
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from types import CellType, FunctionType, ModuleType
from typing import Any, NamedTuple

from llmops_sdk.prompts.references import SUPER, Imported, Reference

_OF_MODULE = frozenset(
    {"__name__", "__file__", "__doc__", "__package__", "__spec__", "__loader__", "__path__", "__cached__", "__builtins__"}
)


class Found(NamedTuple):
    """An object that code refers to. `path` is the part of the reference that led to it, `home` the module it was met in."""

    path: str
    value: object
    rest: tuple[str, ...]
    home: str


class Missing(NamedTuple):
    """A name that stands for nothing yet."""

    path: str


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


EMPTY = object()


def contents(cell: CellType) -> object:
    """What a cell holds; `EMPTY` where it holds nothing yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return EMPTY


class Resolver:
    """Looks references up, as they stand now, and remembers in `watch` what was seen where.

    Args:
        owns: whether a module, by name, is first-party: only there do attributes lead on.
    """

    def __init__(self, owns: Callable[[str], bool]) -> None:
        self._owns = owns
        self.names: dict[int, tuple[Mapping[str, Any], dict[str, object]]] = {}
        self.cells: dict[CellType, object] = {}
        self.absent: set[tuple[int, str]] = set()

    def read(self, namespace: Mapping[str, Any], name: str, default: object = EMPTY) -> object:
        """A name of a namespace, watched from now on."""
        value = namespace.get(name, default)
        key = id(namespace)
        _, seen = self.names.setdefault(key, (namespace, {}))
        seen.setdefault(name, value)
        return value

    def cell(self, cell: CellType) -> object:
        """The contents of a cell, watched from now on."""
        return self.cells.setdefault(cell, contents(cell))

    def resolve(self, reference: Reference, around: Surrounding) -> Found | Missing | None:
        """What `reference` stands for; None for builtins, and what a module knows of itself."""
        root, home = reference.root, str(around.namespace.get("__name__", ""))
        if reference.imported is not None:
            value = self._imported(reference.imported, around.namespace)
        elif root in around.cells:
            value = self.cell(around.cells[root])
        elif root in _OF_MODULE and root not in around.cells:
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
                inner = _module(f"{value.__name__}.{name}")
            if inner is EMPTY:
                return Missing(path)
            value = inner
        return Found(path, value, rest, home)

    def _imported(self, imported: Imported, namespace: Mapping[str, Any]) -> object:
        """What an import in a body brings. Modules of others are not imported for it, but named."""
        module = imported.module
        if imported.level:
            package = str(namespace.get("__package__") or "")
            module = ".".join([*package.split(".")[: len(package.split(".")) - imported.level + 1], module]).strip(".")
        if not self._owns(module) and module not in sys.modules:
            return External(module, imported.name)
        loaded = _module(module)
        if imported.name is None or not isinstance(loaded, ModuleType):
            return loaded
        if imported.name in vars(loaded):
            return self.read(vars(loaded), imported.name) if self._owns(module) else vars(loaded)[imported.name]
        inner = _module(f"{module}.{imported.name}")
        return inner if inner is not EMPTY else getattr(loaded, imported.name, EMPTY)

    def member(self, owner: type, name: str, *, beyond: bool = False) -> tuple[type, object] | None:
        """The class in the order of inheritance that holds `name`, and what it holds; `beyond` starts after `owner`."""
        for cls in owner.__mro__[1:] if beyond else owner.__mro__:
            if name in vars(cls):
                return cls, self.read(vars(cls), name)
        return None


class External(NamedTuple):
    """Something of a module that is not imported yet and belongs to others."""

    module: str
    name: str | None


def _module(name: str) -> object:
    """The module of that name, imported if need be, as the body would; `EMPTY` where that fails."""
    try:
        return sys.modules.get(name) or importlib.import_module(name)
    except Exception:  # an import runs any code of the user's
        return EMPTY


__all__ = ["EMPTY", "SUPER", "External", "Found", "Missing", "Resolver", "Surrounding", "cells_of", "contents", "owner_of"]
