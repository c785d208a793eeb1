"""What determines a prompt's request: its function, and every first-party function, class and value that it reaches.

The walk starts at the prompt's function and numbers what it finds in the order of discovery, which follows names in the
code and nothing else: not paths, modules, addresses or hash seeds. So moving or renaming a file changes nothing, and a
script, a module and a wheel give the same text.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from llmops_sdk.prompts.code_forms import CodeForms, declared_form, is_code
from llmops_sdk.prompts.first_party import FirstParty
from llmops_sdk.prompts.normal_form import quoted
from llmops_sdk.prompts.references import SUPER, Reference, read_names
from llmops_sdk.prompts.resolve import Found, Missing, Resolver, Surrounding, cells_of, owner_of
from llmops_sdk.prompts.source import inner_function, methods_of
from llmops_sdk.prompts.types_form import fields_form
from llmops_sdk.prompts.values import OPAQUE, Encoder, declared_fields

if TYPE_CHECKING:
    from llmops_sdk.prompts.source import Slice, Sources


@dataclass(slots=True)
class Part:
    """One function or class of a closure.

    Attributes:
        name: `module.qualname`; for people, not part of the hash.
        form: normal form of the code; empty where there is no source.
        bound: what each outer name in it stands for.
    """

    name: str
    form: str = ""
    bound: dict[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> str:
        """What counts of it."""
        return self.form + "".join(f"\n {name} = {form}" for name, form in sorted(self.bound.items()))


class Closure:
    """The walk over what a prompt reaches. `parts[0]` is the prompt's own function.

    Args:
        target: what was decorated: a function, or something callable around one.
        declared: what its decorator was given.
        sources: where source is read; kept from one version of a prompt to the next.

    Attributes:
        captured: names of constants, closure variables and defaults whose values count.
        forms: knows the names of what cannot be captured, and the modules of others that were met.
        resolver: knows what to watch.
    """

    def __init__(self, target: object, declared: Mapping[str, object], sources: Sources) -> None:
        self.root = root_function(target)
        self.first_party = FirstParty(self.root)
        self.forms = CodeForms(self.root, self.first_party, self._number)
        self.resolver = Resolver(self.first_party.owns)
        self.sources = sources
        self.parts: list[Part] = []
        self.captured: set[str] = set()
        self.declared = ""
        self._target = target
        self._given = declared
        self._encoder = Encoder(self.forms)
        self._numbers: dict[int, int] = {}
        self._kept: list[object] = []
        self._queue: list[Callable[[], None]] = []

    def walk(self) -> None:
        """Follow every name to its end."""
        self._number(self.root)
        name = self.parts[0].name
        try:
            self.declared = declared_form(self._given, name, self._encoder.encode)
        except Exception:  # a model of the user's may have a name that raises
            self.forms.opaque(f"{name}(…)")
        around = self._encoder.encode(self._target, name)
        if around != "#0":
            self.declared += f"around={around};"
        while self._queue:
            self._queue.pop(0)()

    @property
    def text(self) -> str:
        """All that counts, as one text."""
        parts = "\n".join(f"#{number} {part.whole}" for number, part in enumerate(self.parts))
        return f"prompt 1\n{self.declared}\n{parts}"

    # Parts.

    def _number(self, value: FunctionType | type) -> int:
        """The number of a function's or class's part; it is filled in its turn."""
        key = id(value)
        if key not in self._numbers:
            self._numbers[key] = len(self.parts)
            self._kept.append(value)
            # functools.wraps copies __module__; a function is of the module whose globals it sees.
            module = str(value.__globals__.get("__name__", "")) if isinstance(value, FunctionType) else value.__module__
            part = Part(f"{self.forms.module_name(module)}.{value.__qualname__}")
            self.parts.append(part)
            self._queue.append(lambda: self._fill(part, value))
        return self._numbers[key]

    def _fill(self, part: Part, value: FunctionType | type) -> None:
        try:
            if isinstance(value, FunctionType):
                self._fill_function(part, value)
            else:
                self._fill_class(part, value)
        except Exception:  # whatever descriptors and metaclasses of the user's raise; also RecursionError
            self.forms.opaque(part.name)

    def _fill_function(self, part: Part, function: FunctionType) -> None:
        owner = owner_of(function)
        around = Surrounding(function.__globals__, cells_of(function), owner)
        found = self.sources.function(function)
        if found is None:
            self._fill_without_source(part, function, around)
        else:
            annotated = function is self.root
            part.form = found.form(annotations=annotated)
            self._bind_all(part, found.references(), around)
            if annotated:
                # A name that only type checkers see counts as it is written.
                self._bind_all(part, found.annotation_references(), around, missing_is_opaque=False)
            self._bind_members(part, found, function, owner)
        self._bind_defaults(part, function)
        wrapped = function.__dict__.get("__wrapped__")
        if wrapped is not None:
            part.bound["__wrapped__"] = self._encoder.encode(wrapped, part.name)

    def _fill_without_source(self, part: Part, function: FunctionType, around: Surrounding) -> None:
        self.forms.opaque(part.name)
        code = function.__code__
        known = {*around.namespace, *around.cells}
        names = [name for name in (*code.co_names, *code.co_freevars) if name in known]
        self._bind_all(part, read_names(names), around)
        part.form = f"no source {','.join(inspect.signature(function, follow_wrapped=False).parameters)}"

    def _fill_class(self, part: Part, cls: type) -> None:
        fields = fields_form(cls, lambda value, name: self._encoder.encode(value, f"{part.name}.{name or 'fields'}"))
        if fields is not None:
            part.bound["fields"] = fields
        part.bound["bases"] = ",".join(self.forms.class_reference(base) for base in cls.__bases__)
        found = self.sources.definition_of_class(cls)
        if found is None:
            self._fill_class_without_source(part, cls, fields)
            return
        part.form = found.form(fields=fields is None)
        functions = methods_of(cls)
        namespace = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
        cells = {name: cell for f in functions for name, cell in cells_of(f).items()}
        around = Surrounding(functions[0].__globals__ if functions else namespace, cells, cls)
        # Names of the class itself are in its own body, whose methods are read with it.
        self._bind_all(part, [r for r in found.references() if r.root != "__class__"], around)

    def _fill_class_without_source(self, part: Part, cls: type, fields: str | None) -> None:
        part.form = f"class {quoted(cls.__name__)}"
        if fields is None:
            self.forms.opaque(part.name)
        for name, member in sorted(vars(cls).items()):
            function = inner_function(member)
            if function is not None and self.forms.owns_function(function) and not name.startswith("__"):
                part.bound[name] = self._encoder.encode(member, f"{part.name}.{name}")

    # What the names of a part stand for.

    def _bind_all(
        self, part: Part, every: Sequence[Reference], around: Surrounding, *, missing_is_opaque: bool = True
    ) -> None:
        for reference in every:
            try:
                if reference.root == SUPER:
                    self._bind_super(part, reference, around.owner)
                else:
                    self._bind(part, reference, around, missing_is_opaque=missing_is_opaque)
            except Exception:  # attributes of user objects run any code of the user's
                self._bind_opaque(part, reference.path)

    def _bind_opaque(self, part: Part, path: str) -> None:
        self.forms.opaque(f"{part.name.rpartition('.')[0]}.{path}")
        part.bound[path] = OPAQUE

    def _bind(self, part: Part, reference: Reference, around: Surrounding, *, missing_is_opaque: bool) -> None:
        found = self.resolver.resolve(reference, around)
        if found is None:
            return
        if isinstance(found, Missing):
            if missing_is_opaque:
                self._bind_opaque(part, found.path)
            return
        if reference.root in around.cells:
            name = f"{part.name}.{found.path}"
        else:
            name = f"{self.forms.module_name(found.home)}.{found.path.rpartition('.')[2]}"
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
        """`config.tone` of an object that cannot be captured whole: that attribute alone, if the object holds it."""
        value, cls = found.value, type(found.value)
        if not found.rest or isinstance(value, ModuleType | FunctionType) or not self.first_party.owns(cls.__module__):
            return False
        state = getattr(value, "__dict__", None)
        if not isinstance(state, dict) or found.rest[0] not in state or declared_fields(value) is not None:
            return False
        self.forms.class_reference(cls)
        held = self.resolver.read(state, found.rest[0])
        self._capture(part, f"{found.path}.{found.rest[0]}", held, f"{name}.{found.rest[0]}")
        return True

    def _capture(self, part: Part, path: str, value: object, name: str) -> None:
        part.bound[path] = form = self._encoder.encode(value, name)
        if form != OPAQUE and not is_code(value):
            self.captured.add(name)

    def _bind_members(self, part: Part, found: Slice, function: FunctionType, owner: type | None) -> None:
        """`self.X`: what the class holds under that name. What instances hold is input, like arguments."""
        *outer, _ = function.__qualname__.split(".")
        if not outer or outer[-1] == "<locals>":
            return
        for reference in found.reads_from_first_parameter():
            path = f"{reference.root}.{reference.attributes[0]}"
            if owner is None:
                self.forms.opaque(f"{part.name}: {path}")
            elif not isinstance(inspect.getattr_static(owner, function.__name__, None), staticmethod):
                self._bind_member(part, owner, reference.attributes[0], path)

    def _bind_super(self, part: Part, reference: Reference, owner: type | None) -> None:
        if owner is None:
            self.forms.opaque(f"{part.name}: {reference.path}")
        elif reference.attributes:
            self._bind_member(part, owner, reference.attributes[0], reference.path, beyond=True)

    def _bind_member(self, part: Part, owner: type, name: str, path: str, *, beyond: bool = False) -> None:
        member = self.resolver.member(owner, name, beyond=beyond)
        if member is not None and self.first_party.owns(member[0].__module__):
            cls, value = member
            self._capture(part, path, value, f"{self.forms.module_name(cls.__module__)}.{cls.__qualname__}.{name}")

    def _bind_defaults(self, part: Part, function: FunctionType) -> None:
        for name, parameter in inspect.signature(function, follow_wrapped=False).parameters.items():
            if parameter.default is not parameter.empty:
                path = f"{name}="
                self._capture(part, path, parameter.default, f"{part.name}({path})")


def root_function(target: Any) -> FunctionType:
    """The function at the bottom of a callable. Raises `TypeError` where there is none in Python."""
    while True:
        if inspect.getattr_static(target, "__wrapped__", None) is not None:
            target = target.__wrapped__
        elif isinstance(target, FunctionType):
            return target
        elif isinstance(target, functools.partial):
            target = target.func
        elif isinstance(target, MethodType | classmethod | staticmethod):
            target = target.__func__
        elif isinstance(type(target).__call__, FunctionType):
            target = type(target).__call__
        else:
            raise TypeError(f"{type(target).__name__} is not made of a Python function")
