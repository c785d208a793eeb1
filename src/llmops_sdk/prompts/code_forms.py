"""The form of functions, classes, modules and models where a value or name refers to them.

What is the project's own is a number, under which the closure writes its code. What is others' is its name, since its code
is fixed by the version of its distribution.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import pathlib
import sys
import types
from collections.abc import Callable, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from llmops_sdk.errors import LLMOpsError
from llmops_sdk.flow import Model
from llmops_sdk.prompts.first_party import FirstParty, module_name
from llmops_sdk.prompts.normal_form import quoted
from llmops_sdk.prompts.resolve import External

if TYPE_CHECKING:
    from llmops_sdk.prompts.values import Encode

# A wrapper of these changes nothing that is asked: what it wraps counts alone.
_TRANSPARENT = frozenset({"functools", "llmops_sdk", "wrapt"})


def is_code(value: object) -> bool:
    """Whether a value is a function, a class, a module or a logger, which count by what they do."""
    if isinstance(value, type | ModuleType | External | FunctionType | BuiltinFunctionType | logging.Logger):
        return True
    return inspect.getattr_static(value, "__wrapped__", None) is not None or isinstance(value, _DESCRIPTORS)


_DESCRIPTORS = (classmethod, staticmethod, property, functools.cached_property, types.MethodDescriptorType)


class CodeForms:
    """What the encoder of one closure asks (`values.Surroundings`).

    Args:
        root: the prompt's function.
        first_party: what belongs to its project.
        number: the number of a function or class of the project's own.

    Attributes:
        opaques: names of what cannot be captured.
        modules: top-level modules of others that were met.
    """

    def __init__(
        self, root: FunctionType, first_party: FirstParty, number: Callable[[FunctionType | type], int]
    ) -> None:
        self.opaques: set[str] = set()
        self.modules: set[str] = set()
        self._root = root
        self._first_party = first_party
        self._number = number
        self._places = _places(root, first_party)

    def opaque(self, name: str) -> None:
        """Take note of a value that cannot be captured."""
        self.opaques.add(name)

    def place(self, path: str) -> str:
        """A path inside of the project, without where the project lies; any other text as it is."""
        for folder, shown in self._places:
            if path.startswith(folder) and path[len(folder) :][:1] in ("", "/", os.sep):
                return shown + path[len(folder) :].replace(os.sep, "/")
        return path

    def module_name(self, module: str) -> str:
        """The name of a module as others import it."""
        if module != "__main__":
            return module
        loaded = self._root.__globals__ if self._root.__module__ == module else vars(sys.modules[module])
        filename = loaded.get("__file__") or self._root.__code__.co_filename
        return module_name({**loaded, "__name__": module}, str(filename))

    def owns_function(self, function: FunctionType) -> bool:
        """Whether a function is the project's own."""
        # functools.wraps copies __module__, so the module that a function was defined in is the one of its globals.
        module = str(function.__globals__.get("__name__", ""))
        return function is self._root or self._first_party.owns(module, function.__code__.co_filename)

    def reference(self, value: Any, name: str, encode: Encode) -> str | None:
        """The form of a function, class, module or model; None for any other value."""
        if isinstance(value, type):
            return self.class_reference(value)
        if isinstance(value, ModuleType):
            return self._module(value)
        if isinstance(value, External):
            self.modules.add(value.module.partition(".")[0])
            return f"x:{public(value.module)}.{value.name or ''}"
        if isinstance(value, Model) and isinstance(value.name, str):
            return model_form(value)
        return self._callable(value, name, encode)

    def class_reference(self, cls: type) -> str:
        """The number of a class of the project's own, else its name."""
        if self._first_party.owns(cls.__module__) or _made_on_the_fly(cls):
            return f"#{self._number(cls)}"
        self.modules.add(cls.__module__.partition(".")[0])
        return f"x:{public(cls.__module__)}.{cls.__qualname__}"

    def _module(self, module: ModuleType) -> str:
        if self._first_party.owns(module.__name__):
            return f"m:{module_name(vars(module), getattr(module, '__file__', None) or '')}"
        self.modules.add(module.__name__.partition(".")[0])
        return f"m:{public(module.__name__)}"

    def _callable(self, value: Any, name: str, encode: Encode) -> str | None:
        if isinstance(value, FunctionType):
            return self._function(value, encode)
        if isinstance(value, MethodType):
            return self._method(value, name, encode)
        if isinstance(value, BuiltinFunctionType):
            return self._builtin(value, name, encode)
        if isinstance(value, types.MethodDescriptorType | types.WrapperDescriptorType):
            return f"x:{value.__objclass__.__name__}.{value.__name__}"
        if isinstance(value, classmethod | staticmethod):
            return f"{type(value).__name__}({encode(value.__func__, name)})"
        if isinstance(value, property):
            return f"property({encode(value.fget, name)})"
        if isinstance(value, functools.cached_property):
            return f"property({encode(value.func, name)})"
        if inspect.getattr_static(value, "__wrapped__", None) is not None:
            return self._wrapper(value, name, encode)
        return None

    def _function(self, function: FunctionType, encode: Encode) -> str:
        if self.owns_function(function):
            return f"#{self._number(function)}"
        module = str(function.__globals__.get("__name__", ""))
        self.modules.add(module.partition(".")[0])
        own = f"x:{public(module)}.{function.__code__.co_qualname}"
        wrapped = function.__dict__.get("__wrapped__")
        if wrapped is None:
            return own
        inner = encode(wrapped, function.__qualname__)
        others = function.__dict__.get("registry")  # the implementations of functools.singledispatch
        if isinstance(others, Mapping):
            told = (f"{encode(kind, '')}:{encode(other, function.__qualname__)}" for kind, other in others.items())
            return f"wrapped({own},{inner},{','.join(told)})"
        return inner if module.startswith("llmops_sdk.") else f"wrapped({own},{inner})"

    def _method(self, value: MethodType, name: str, encode: Encode) -> str:
        function = encode(value.__func__, name)
        if not isinstance(value.__func__, FunctionType) or not self.owns_function(value.__func__):
            return function
        return f"method({function},{encode(value.__self__, f'{name}.__self__')})"

    def _builtin(self, value: BuiltinFunctionType, name: str, encode: Encode) -> str:
        owner = value.__self__
        if owner is None or isinstance(owner, ModuleType | type):
            self.modules.add(str(value.__module__ or "").partition(".")[0])
            return f"x:{public(value.__module__)}.{value.__qualname__}"
        return f"method({encode(owner, name)},{value.__name__})"

    def _wrapper(self, value: Any, name: str, encode: Encode) -> str:
        """A decorated function that is an object: what it wraps, and the class that wraps it unless it is transparent."""
        wrapped = encode(value.__wrapped__, name)
        declared = getattr(inspect.getattr_static(value, "_tracker", None), "declared", None)
        if isinstance(declared, Mapping):
            return f"prompt({wrapped},{declared_form(declared, name, encode)})"
        kind = type(value)
        if kind.__module__.partition(".")[0] in _TRANSPARENT:
            return wrapped
        if not self._first_party.owns(kind.__module__):
            return f"wrapped({self.class_reference(kind)},{wrapped})"
        state = {key: held for key, held in vars(value).items() if key[:2] != "__" and held is not value.__wrapped__}
        return f"wrapped({self.class_reference(kind)},{wrapped},{encode(state, name)})"


def declared_form(declared: Mapping[str, object], name: str, encode: Encode) -> str:
    """What a decorator was given, by name; what is None or empty is not said, also among its parameters."""
    told = []
    for key, value in _said(declared).items():
        if key == "model":
            form = model_form(value)
        else:
            form = encode(_said(value) if isinstance(value, Mapping) else value, f"{name}({key}=)")
        told.append(f"{key}={form};")
    return "".join(told)


def _said(given: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in sorted(given.items()) if not _nothing(value)}


def _nothing(value: object) -> bool:
    return value is None or (isinstance(value, str | tuple | list | dict | set | frozenset) and not value)


def model_form(model: Any) -> str:
    """The form of a model, or of the model that a model string opens: by its name, which has no key and no timeouts."""
    return f"model({quoted(_opened_name(model) if isinstance(model, str) else model.name)})"


def _opened_name(string: str) -> str:
    from llmops_sdk.models import model

    try:
        return model(string).name
    except LLMOpsError:  # said when the prompt is called
        return string


def public(module: str | None) -> str:
    """The top-level module without the underscore of its C half: where something stands inside changes between versions."""
    top = (module or "builtins").partition(".")[0].lstrip("_")
    return "os" if top in ("posixpath", "ntpath", "posix", "nt") else top


def _made_on_the_fly(cls: type) -> bool:
    """Made by `create_model`, `make_dataclass` and their like: it declares fields, and no module holds it."""
    marks = ("__pydantic_core_schema__", "__dataclass_fields__")
    module = sys.modules.get(cls.__module__)
    top = cls.__qualname__.partition(".")[0]
    return any(hasattr(cls, mark) for mark in marks) and module is not None and top not in vars(module)


def _places(function: FunctionType, first_party: FirstParty) -> list[tuple[str, str]]:
    """Folders, the innermost first, and what a path shows in place of each.

    They are the function's top-level package, the folder that holds it (or the script), and the project.
    """
    filename = function.__code__.co_filename
    depth = module_name(function.__globals__, filename).count(".")
    path = pathlib.Path(filename)
    if not path.is_absolute() or depth >= len(path.parents):
        return [(str(pathlib.Path.cwd().resolve()), ".")]
    folders = [(path.parents[depth - 1], ".")] if depth else []
    folders.append((path.parents[depth], ".." if depth else "."))
    if first_party.root is not None:
        folders.append((first_party.root, "<project>"))
    return [(str(folder), shown) for folder, shown in folders]
