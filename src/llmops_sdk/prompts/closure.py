"""What determines a prompt's request: its function, and every first-party function, class and value that it reaches.

The walk starts at the prompt's function and numbers what it finds in the order of discovery, which follows names in the
code and nothing else: not paths, modules, addresses or hash seeds. So moving or renaming a file changes nothing, and a
script, a module and a wheel give the same text.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import pathlib
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from llmops_sdk.prompts.first_party import FirstParty, module_name
from llmops_sdk.prompts.normal_form import Definition, normal_form, quoted
from llmops_sdk.prompts.references import SUPER, Reference, read_names, reads_from_first_parameter, references
from llmops_sdk.prompts.resolve import EMPTY, External, Found, Missing, Resolver, Surrounding, cells_of, owner_of
from llmops_sdk.prompts.source import Sources
from llmops_sdk.prompts.types_form import fields_form
from llmops_sdk.prompts.values import OPAQUE, Encoder


@dataclass(slots=True)
class Part:
    """One function or class of a closure.

    Attributes:
        name: `module.qualname`; for people, not part of the hash.
        form: normal form of the code; empty where there is no source.
        bound: what each outer name in it stands for.
        text: the source as written.
    """

    name: str
    form: str = ""
    bound: dict[str, str] = field(default_factory=dict)
    text: str = ""

    @property
    def whole(self) -> str:
        """What counts of it."""
        return self.form + "".join(f"\n {name} = {form}" for name, form in sorted(self.bound.items()))


class Closure:
    """The walk over what a prompt reaches. `parts[0]` is the prompt's own function.

    Args:
        function: the prompt's function.
        declared: what its decorator was given.
    """

    def __init__(self, function: FunctionType, declared: Mapping[str, object]) -> None:
        self.first_party = FirstParty(function)
        self.resolver = Resolver(self.first_party.owns)
        self.sources = Sources()
        self.parts: list[Part] = []
        self.captured: set[str] = set()
        self.opaques: set[str] = set()
        self.modules: set[str] = set()
        self._encoder = Encoder(self)
        self._numbers: dict[int, int] = {}
        self._kept: list[object] = []
        self._queue: list[Callable[[], None]] = []
        self._annotated = {id(function), *(id(inspect.unwrap(tool)) for tool in _tools(declared))}
        self._base = _base_folder(function)
        self._root = function
        self._function_part(function)
        self.declared = self._declared(declared)
        while self._queue:
            self._queue.pop(0)()

    @property
    def text(self) -> str:
        """All that counts, as one text."""
        parts = "\n".join(f"#{number} {part.whole}" for number, part in enumerate(self.parts))
        return f"prompt 1\n{self.declared}\n{parts}"

    def _declared(self, declared: Mapping[str, object]) -> str:
        """What the decorator was given, by name; what is None or empty is not said."""
        told = {name: _content(value) for name, value in sorted(declared.items()) if not _nothing(value)}
        name = self.parts[0].name
        return "".join(f"{key}={self._encoder.encode(value, f'{name}({key}=)')};" for key, value in told.items())

    # What the encoder asks (`values.Surroundings`).

    def opaque(self, name: str) -> None:
        """Take note of a value that cannot be captured."""
        self.opaques.add(name)

    def place(self, path: str) -> str:
        """A path below the folder of the prompt's top-level package, without that folder; any other text as it is."""
        if path.startswith(self._base + os.sep):
            return "./" + path[len(self._base) + 1 :].replace(os.sep, "/")
        return path

    def reference(self, value: Any, name: str) -> str | None:
        """The form of a function, class, module or model; None for a value."""
        if isinstance(value, type):
            return self._class_reference(value)
        if isinstance(value, ModuleType):
            return self._module_reference(value)
        if isinstance(value, External):
            self.modules.add(value.module.partition(".")[0])
            return f"x:{_public(value.module)}.{value.name or ''}"
        if _is_model(value):
            return f"model({quoted(value.name)})"
        return self._callable_reference(value, name)

    # References.

    def _module_reference(self, module: ModuleType) -> str:
        if self.first_party.owns(module.__name__):
            return f"m:{module_name(vars(module), getattr(module, '__file__', None) or '')}"
        self.modules.add(module.__name__.partition(".")[0])
        return f"m:{_public(module.__name__)}"

    def _callable_reference(self, value: Any, name: str) -> str | None:
        if isinstance(value, FunctionType):
            return self._function_reference(value)
        if isinstance(value, MethodType):
            return self._method_reference(value, name)
        if isinstance(value, BuiltinFunctionType):
            return self._builtin_reference(value, name)
        if isinstance(value, classmethod | staticmethod):
            return f"{type(value).__name__}({self._encoder.encode(value.__func__, name)})"
        if isinstance(value, property):
            return f"property({self._encoder.encode(value.fget, name)})"
        if isinstance(value, functools.cached_property):
            return f"property({self._encoder.encode(value.func, name)})"
        wrapped = inspect.getattr_static(value, "__wrapped__", None)
        if wrapped is None:
            return self._function_like(value)
        return self._wrapped_reference(value, name)

    def _function_like(self, value: Any) -> str | None:
        """C functions of other kinds, and descriptors such as `str.upper`."""
        if isinstance(value, types.MethodDescriptorType | types.WrapperDescriptorType | types.BuiltinMethodType):
            return f"x:{value.__objclass__.__name__}.{value.__name__}"
        return None

    def _wrapped_reference(self, value: Any, name: str) -> str:
        """A decorated function that is an object: what it wraps, and the class that wraps it unless it is transparent."""
        wrapped = self._encoder.encode(value.__wrapped__, name)
        tracker = getattr(value, "_tracker", None)
        declared = getattr(tracker, "declared", None)
        if isinstance(declared, Mapping):
            said = {key: given for key, given in sorted(declared.items()) if not _nothing(given)}
            return f"prompt({wrapped},{self._encoder.encode(said, name)})"
        kind = type(value)
        if kind.__module__.partition(".")[0] in ("functools", "llmops_sdk", "wrapt"):
            return wrapped
        return f"wrapped({self._class_reference(kind)},{wrapped})"

    def _method_reference(self, value: MethodType, name: str) -> str:
        function = self._encoder.encode(value.__func__, name)
        if not isinstance(value.__func__, FunctionType) or not self._owns_function(value.__func__):
            return function
        return f"method({function},{self._encoder.encode(value.__self__, f'{name}.__self__')})"

    def _builtin_reference(self, value: BuiltinFunctionType, name: str) -> str:
        owner = value.__self__
        if owner is None or isinstance(owner, ModuleType | type):
            self.modules.add(str(value.__module__ or "").partition(".")[0])
            return f"x:{_public(value.__module__)}.{value.__qualname__}"
        return f"method({self._encoder.encode(owner, name)},{value.__name__})"

    def _function_reference(self, function: FunctionType) -> str:
        if self._owns_function(function):
            return f"#{self._function_part(function)}"
        module = str(function.__globals__.get("__name__", ""))
        wrapped = function.__dict__.get("__wrapped__")
        own = f"x:{_public(module)}.{function.__code__.co_qualname}"
        self.modules.add(module.partition(".")[0])
        if wrapped is None:
            return own
        inner = self._encoder.encode(wrapped, function.__qualname__)
        return inner if module.startswith("llmops_sdk.") else f"wrapped({own},{inner})"

    def _owns_function(self, function: FunctionType) -> bool:
        # functools.wraps copies __module__, so the module that a function was defined in is the one of its globals.
        return function is self._root or self.first_party.owns(
            str(function.__globals__.get("__name__", "")), function.__code__.co_filename
        )

    def _class_reference(self, cls: type) -> str:
        if self.first_party.owns(cls.__module__) or _made_on_the_fly(cls):
            return f"#{self._number(cls, lambda part: self._fill_class(part, cls), cls.__module__)}"
        self.modules.add(cls.__module__.partition(".")[0])
        return f"x:{_public(cls.__module__)}.{cls.__qualname__}"

    # Parts.

    def _number(self, value: Any, fill: Callable[[Part], None], module: str) -> int:
        """The number of a function's or class's part; it is filled in its turn."""
        key = id(value)
        if key not in self._numbers:
            self._numbers[key] = len(self.parts)
            self._kept.append(value)
            part = Part(f"{self.module_name(module)}.{value.__qualname__}")
            self.parts.append(part)
            self._queue.append(lambda: fill(part))
        return self._numbers[key]

    def module_name(self, module: str) -> str:
        """The name of a module as others import it."""
        loaded = self._root.__globals__ if module == self._root.__module__ else vars(sys.modules.get(module, types))
        filename = loaded.get("__file__") or self._root.__code__.co_filename
        return module_name({**loaded, "__name__": module}, str(filename)) if module == "__main__" else module

    def _function_part(self, function: FunctionType) -> int:
        module = str(function.__globals__.get("__name__", ""))
        return self._number(function, lambda part: self._fill_function(part, function), module)

    def _fill_function(self, part: Part, function: FunctionType) -> None:
        owner = owner_of(function)
        around = Surrounding(function.__globals__, cells_of(function), owner)
        annotations = id(function) in self._annotated
        found = self.sources.function(function)
        if found is None:
            self.opaque(part.name)
            code = function.__code__
            names = [*code.co_names, *code.co_freevars]
            self._bind_all(part, [r for r in read_names(names) if r.root in {*around.namespace, *around.cells}], around)
            part.form = f"no source {','.join(inspect.signature(function, follow_wrapped=False).parameters)}"
        else:
            self._read(part, found.node, annotations=annotations)
            part.text = found.text
            self._bind_all(part, references(found.node, annotations=annotations), around)
            self._bind_members(part, found.node, function, owner)
        self._bind_defaults(part, function)
        wrapped = function.__dict__.get("__wrapped__")
        if wrapped is not None:
            part.bound["__wrapped__"] = self._encoder.encode(wrapped, part.name)

    def _read(self, part: Part, node: Definition, *, annotations: bool = False, fields: bool = True) -> None:
        try:
            part.form = normal_form(node, annotations=annotations, fields=fields)
        except RecursionError:  # an expression nested thousands deep, as generated code has
            self.opaque(part.name)

    def _bind_all(self, part: Part, every: Sequence[Reference], around: Surrounding) -> None:
        for reference in every:
            if reference.root == SUPER:
                self._bind_super(part, reference, around.owner)
            else:
                self._bind(part, reference, around)

    def _bind(self, part: Part, reference: Reference, around: Surrounding) -> None:
        found = self.resolver.resolve(reference, around)
        if found is None:
            return
        if isinstance(found, Missing):
            self.opaque(f"{part.name.rpartition('.')[0]}.{found.path}")
            part.bound[found.path] = OPAQUE
            return
        home = self.module_name(found.home)
        name = f"{part.name}.{found.path}" if reference.root in around.cells else f"{home}.{found.path.rpartition('.')[2]}"
        if isinstance(found.value, type) and found.rest:
            self._bind_class_attribute(part, found, name)
        elif self._bind_attribute(part, found, name):
            return
        self._capture(part, found.path, found.value, name)

    def _bind_class_attribute(self, part: Part, found: Found, name: str) -> None:
        """`Style.TONE`: the value too, since it may be set after the class body ran."""
        assert isinstance(found.value, type)
        if not self.first_party.owns(found.value.__module__):
            return
        member = self.resolver.member(found.value, found.rest[0])
        if member is not None and self.first_party.owns(member[0].__module__):
            self._capture(part, f"{found.path}.{found.rest[0]}", member[1], f"{name}.{found.rest[0]}")

    def _bind_attribute(self, part: Part, found: Found, name: str) -> bool:
        """`config.tone` of an object that cannot be captured whole: that attribute alone, if it is plain."""
        value = found.value
        cls = type(value)
        if not found.rest or not self.first_party.owns(cls.__module__) or isinstance(value, ModuleType | FunctionType):
            return False
        state = getattr(value, "__dict__", None) if type(inspect.getattr_static(cls, "__dict__", None)) else None
        if not isinstance(state, dict) or found.rest[0] not in state or fields_of_value(value):
            return False
        self._class_reference(cls)
        self._capture(part, f"{found.path}.{found.rest[0]}", self.resolver.read(state, found.rest[0]), f"{name}.{found.rest[0]}")
        return True

    def _capture(self, part: Part, path: str, value: object, name: str) -> None:
        part.bound[path] = form = self._encoder.encode(value, name)
        if form != OPAQUE and not form.startswith(("#", "x:", "m:", "wrapped(", "prompt(", "logger")):
            self.captured.add(name)

    def _bind_members(self, part: Part, node: Definition, function: FunctionType, owner: type | None) -> None:
        """`self.X`: what the class holds under that name. What instances hold is input, like arguments."""
        *outer, _ = function.__qualname__.split(".")
        if not outer or outer[-1] == "<locals>":
            return
        for reference in reads_from_first_parameter(node):
            path = f"{reference.root}.{reference.attributes[0]}"
            if owner is None:
                self.opaque(f"{part.name}: {path}")
            elif not isinstance(inspect.getattr_static(owner, function.__name__, None), staticmethod):
                self._bind_member(part, owner, reference.attributes[0], path)

    def _bind_super(self, part: Part, reference: Reference, owner: type | None) -> None:
        if owner is None:
            self.opaque(f"{part.name}: {reference.path}")
        elif reference.attributes:
            self._bind_member(part, owner, reference.attributes[0], reference.path, beyond=True)

    def _bind_member(self, part: Part, owner: type, name: str, path: str, *, beyond: bool = False) -> None:
        member = self.resolver.member(owner, name, beyond=beyond)
        if member is not None and self.first_party.owns(member[0].__module__):
            cls, value = member
            self._capture(part, path, value, f"{self.module_name(cls.__module__)}.{cls.__qualname__}.{name}")

    def _bind_defaults(self, part: Part, function: FunctionType) -> None:
        for name, parameter in inspect.signature(function, follow_wrapped=False).parameters.items():
            if parameter.default is not parameter.empty:
                path = f"{name}="
                self._capture(part, path, parameter.default, f"{part.name}({path})")

    def _fill_class(self, part: Part, cls: type) -> None:
        fields = fields_form(cls, lambda value: self._encoder.encode(value, part.name))
        found = self.sources.definition_of_class(cls)
        if fields is not None:
            part.bound["fields"] = fields
        part.bound["bases"] = ",".join(self._class_reference(base) for base in cls.__bases__)
        functions = [f for f in map(_inner_function, vars(cls).values()) if f is not None]
        if found is None:
            self._fill_class_without_source(part, cls, fields)
            return
        self._read(part, found.node, fields=fields is None)
        part.text = found.text
        namespace = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
        cells = {name: cell for f in functions for name, cell in cells_of(f).items()}
        around = Surrounding(functions[0].__globals__ if functions else namespace, cells, cls)
        # Names of the class itself are in its own body, whose methods are read with it.
        self._bind_all(part, [r for r in references(found.node) if r.root != "__class__"], around)

    def _fill_class_without_source(self, part: Part, cls: type, fields: str | None) -> None:
        part.form = f"class {quoted(cls.__name__)}"
        if fields is None:
            self.opaque(part.name)
        for name, member in sorted(vars(cls).items()):
            function = _inner_function(member)
            if function is not None and self._owns_function(function) and not name.startswith("__"):
                part.bound[name] = self._encoder.encode(member, f"{part.name}.{name}")


def fields_of_value(value: object) -> bool:
    """Whether a value is captured by declared fields."""
    from llmops_sdk.prompts.values import _fields_of

    return _fields_of(value) is not None


def _tools(declared: Mapping[str, object]) -> Sequence[Any]:
    tools = declared.get("tools")
    return tools if isinstance(tools, list | tuple) else ()


def _nothing(value: object) -> bool:
    return value is None or (isinstance(value, str | tuple | list | dict | set | frozenset) and not value)


def _content(value: object) -> object:
    """A declared file counts by what is in it."""
    if isinstance(value, pathlib.Path):
        return hashlib.sha256(value.read_bytes()).hexdigest() if value.is_file() else value
    return value


def _is_model(value: object) -> bool:
    from llmops_sdk.flow import Model

    return isinstance(value, Model) and isinstance(value.name, str)


def _inner_function(member: object) -> FunctionType | None:
    inner = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
    return inner if isinstance(inner, FunctionType) and not inner.__code__.co_filename.startswith("<string") else None


def _made_on_the_fly(cls: type) -> bool:
    """Made by `create_model`, `make_dataclass` and their like: it names a module that does not hold it."""
    module = sys.modules.get(cls.__module__)
    top = cls.__qualname__.partition(".")[0]
    known = fields_form_possible(cls)
    return known and module is not None and top not in vars(module)


def fields_form_possible(cls: type) -> bool:
    """Whether `cls` declares fields."""
    return any(hasattr(cls, mark) for mark in ("__pydantic_core_schema__", "__dataclass_fields__", "__attrs_attrs__"))


def _public(module: str | None) -> str:
    """The top-level module without the underscore of its C half; where something stands inside changes between versions."""
    top = (module or "builtins").partition(".")[0].lstrip("_")
    return "os" if top in ("posixpath", "ntpath", "posix", "nt") else top


def _base_folder(function: FunctionType) -> str:
    """The folder that holds the function's top-level package, or its script."""
    filename = function.__code__.co_filename
    depth = module_name(function.__globals__, filename).count(".")
    path = pathlib.Path(filename)
    if not path.is_absolute() or depth >= len(path.parents):
        return os.path.realpath(".")
    return str(path.parents[depth])


_ = EMPTY
