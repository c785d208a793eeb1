"""The one wrapper behind all four decorators.

A decorated function is one `Wrapper`: the user's function, and the layers that decorators put around it, the innermost
first. Stacking a decorator copies the wrapper with one more layer, so that there is never a wrapper inside a wrapper
that an attribute could reach, and every entry point runs through all layers. The wrapper binds like a function
(methods, classmethods, staticmethods), keeps name, docstring and signature, answers `inspect.iscoroutinefunction` and its
like, and is pickled by its qualified name.

A program that only traces plain functions runs without a flow: what only flows and generators need is imported by the
first of them.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from llmops_sdk.errors import DecoratorError

if TYPE_CHECKING:
    from llmops_sdk.decorators.call import Call, Inner, Layer, Outcome, Want
    from llmops_sdk.flow import Flow, Run

Mode: TypeAlias = Literal["sync", "async", "generator", "async_generator"]


class Wrapper:
    """A decorated callable. Decorators make it; users call it."""

    __name__: str
    __qualname__: str
    __wrapped__: Any

    def __init__(self, target: Any, layers: tuple[Layer, ...] = ()) -> None:
        self._target = target
        self._layers = layers
        self._mode: Mode = mode_of(target)
        self._bound = False
        self._wear(target)

    def _wear(self, target: Any) -> None:
        """Take over name, docstring, annotations and, by `__wrapped__`, signature."""
        shown: Any = target.__func__ if isinstance(target, classmethod | staticmethod) else target
        named = shown
        while isinstance(named, functools.partial):
            named = named.func
        functools.update_wrapper(self, named, updated=())
        if not hasattr(named, "__name__"):
            functools.update_wrapper(self, type(named), assigned=("__name__", "__qualname__"), updated=())
        self.__wrapped__ = shown.__call__ if named is shown and not hasattr(shown, "__name__") else shown

    # What `inspect` looks at to tell coroutine and generator functions apart.

    @property
    def __code__(self) -> Any:
        return _plain_function(self._target).__code__

    @property
    def __defaults__(self) -> Any:
        return _plain_function(self._target).__defaults__

    @property
    def __kwdefaults__(self) -> Any:
        return _plain_function(self._target).__kwdefaults__

    @property
    def __isabstractmethod__(self) -> bool:
        """What `abc` asks of the members of a class."""
        return bool(getattr(self._target, "__isabstractmethod__", False))

    @property
    def __self__(self) -> Any:
        """The instance or class of a bound method. Raises AttributeError where there is none."""
        return self._target.__self__

    def _copy(self) -> Self:
        again = object.__new__(type(self))
        again.__dict__.update(self.__dict__)
        return again

    def _with_layer(self, layer: Layer) -> Self:
        again = self._copy()
        again._layers = (*self._layers, layer)
        return again

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind as the function itself would."""
        bind = getattr(type(self._target), "__get__", None)
        if self._bound or bind is None or (instance is None and not isinstance(self._target, _BOUND_BY_CLASS)):
            return self
        again = self._on(bind(self._target, instance, owner))
        again._bound = True
        again.__wrapped__ = again._target
        return again

    def _on(self, target: Any) -> Self:
        """The same layers around another target."""
        again = self._copy()
        again._target = target
        return again

    def _differences(self, other: Any) -> set[str]:
        """In what two wrappers differ besides their target: nothing, if both came from one decoration."""
        mine, theirs = self.__dict__, getattr(other, "__dict__", {})
        return {name for name in mine if mine[name] is not theirs.get(name)} - {"_target", "__wrapped__"}

    def __eq__(self, other: object) -> bool:
        """Bound methods are equal where functions' are: same decoration, same instance."""
        if self is other or not self._bound or not isinstance(other, Wrapper):
            return self is other
        return not self._differences(other) and self._receiver() is other._receiver()

    def __hash__(self) -> int:
        return hash((self.__qualname__, id(self._receiver()))) if self._bound else object.__hash__(self)

    def _receiver(self) -> Any:
        return getattr(self._target, "__self__", None)

    def __reduce__(self) -> tuple[Any, ...]:
        """By qualified name, as functions are pickled. Raises `PicklingError` where the name leads to something else:
        a copy with fewer layers would be a way around a guard.
        """
        self._named()
        if self._bound and hasattr(self._target, "__self__"):
            return getattr, (self._target.__self__, self.__name__)
        return _by_name, (self.__module__, self.__qualname__)

    def _named(self, may_differ: frozenset[str] = frozenset()) -> Self:
        """What this object's name leads to, if that is this object, or differs only in what it may."""
        import pickle

        found: Any
        try:
            if self._bound and hasattr(self._target, "__self__"):
                found = getattr(self._target.__self__, self.__name__)
            else:
                found = _by_name(self.__module__, self.__qualname__)
        except (AttributeError, ImportError) as error:
            raise pickle.PicklingError(
                f"{self!r} cannot be pickled, since its name does not lead to it: {error}. Define it at module level."
            ) from error
        if not isinstance(found, Wrapper) or not (self._differences(found) <= may_differ):
            raise pickle.PicklingError(
                f"{self!r} cannot be pickled, since its name leads to {found!r}, which has other decorators. "
                f"Decorate it with @ where it is defined, or give this one a name of its own."
            )
        return found  # type: ignore[return-value]  # the same class, or its class would be a difference

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        if not self._bound:
            return self
        import copy

        again = self._on(copy.deepcopy(self._target, memo))
        again.__wrapped__ = again._target
        return again

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.__module__}.{self.__qualname__}>"

    # Running through the layers.

    def _call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], want: Want, run: Run) -> Call:
        from llmops_sdk.decorators.call import Call

        return Call(function=self._target, args=args, kwargs=kwargs, want=want, run=run)

    def _core(self, call: Call) -> Flow[Outcome]:
        """The innermost flow: the user's function itself."""
        from llmops_sdk.decorators.call import Outcome
        from llmops_sdk.flow import Invoke

        return Outcome(value=(yield Invoke(call.function, call.args, call.kwargs)))

    def _flow(self, call: Call) -> Flow[Outcome]:
        """The call through every layer."""
        inner: Inner = self._core
        for layer in self._layers:
            inner = functools.partial(_around, layer, inner)
        return inner(call)

    def _generate(self, call: Call) -> Generator[Any, Any, Any]:
        def innermost(call: Call) -> Generator[Any, Any, Any]:
            generator: Generator[Any, Any, Any] = call.function(*call.args, **call.kwargs)
            return generator

        inner: Callable[[Call], Generator[Any, Any, Any]] = innermost
        for layer in self._layers:
            inner = functools.partial(_stepped, layer, inner)
        return inner(call)

    def _generate_async(self, call: Call) -> AsyncGenerator[Any, Any]:
        def innermost(call: Call) -> AsyncGenerator[Any, Any]:
            generator: AsyncGenerator[Any, Any] = call.function(*call.args, **call.kwargs)
            return generator

        inner: Callable[[Call], AsyncGenerator[Any, Any]] = innermost
        for layer in self._layers:
            inner = functools.partial(_stepped_async, layer, inner)
        return inner(call)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        from llmops_sdk.flow.run import Run

        call = self._call(args, kwargs, "value", Run.start())
        if self._mode == "generator":
            return self._generate(call)
        if self._mode == "async_generator":
            return self._generate_async(call)
        if self._mode == "async":
            return self._value_async(call)
        from llmops_sdk.flow import run_sync

        return run_sync(self._flow(call), call.run, quiet=True).value

    async def _value_async(self, call: Call) -> Any:
        from llmops_sdk.flow import run_async

        return (await run_async(self._flow(call), call.run)).value


def _around(layer: Layer, inner: Inner, call: Call) -> Flow[Outcome]:
    return layer.around(call, inner)


def _stepped(layer: Layer, inner: Callable[[Call], Generator[Any, Any, Any]], call: Call) -> Generator[Any, Any, Any]:
    from llmops_sdk.decorators.stepping import stepped

    return stepped(layer, inner, call)


def _stepped_async(
    layer: Layer, inner: Callable[[Call], AsyncGenerator[Any, Any]], call: Call
) -> AsyncGenerator[Any, Any]:
    from llmops_sdk.decorators.stepping import stepped_async

    return stepped_async(layer, inner, call)


_BOUND_BY_CLASS = (classmethod, staticmethod)


def _plain_function(target: Any) -> Any:
    """The function with code at the bottom of a callable. Raises AttributeError where there is none."""
    while True:
        if isinstance(target, functools.partial):
            target = target.func
        elif isinstance(target, classmethod | staticmethod) or inspect.ismethod(target):
            target = target.__func__
        elif isinstance(target, Wrapper):
            target = target._target
        elif hasattr(target, "__code__"):
            return target
        else:
            target = type(target).__call__
            if not hasattr(target, "__code__"):
                raise AttributeError("__code__")


def mode_of(target: Any) -> Mode:
    """Which of the four kinds of function a callable is."""
    try:
        function = _plain_function(target)
    except AttributeError:
        return "sync"
    if inspect.isasyncgenfunction(function):
        return "async_generator"
    if inspect.iscoroutinefunction(function):
        return "async"
    if inspect.isgeneratorfunction(function):
        return "generator"
    return "sync"


def check_target(decorator: str, target: Any) -> None:
    """Raise `DecoratorError` for what no decorator here can take."""
    if isinstance(target, type):
        raise DecoratorError(f"@{decorator} goes on a function or method; {target.__qualname__} is a class.")
    if isinstance(target, functools.partialmethod):
        raise DecoratorError(
            f"@{decorator} goes on a function or method; this is a partialmethod. Decorate the function inside of it: "
            f"partialmethod({decorator}(…)(function), …)."
        )
    if not callable(target) and not isinstance(target, classmethod | staticmethod):
        raise DecoratorError(
            f"@{decorator} goes on a function or method; this is {type(target).__name__} ({str(target)[:60]!r}). "
            f"If it takes arguments, call it: @{decorator}(…)."
        )


def _by_name(module: str, qualname: str) -> Any:
    """Find a decorated function where it was defined; what a pickle of it refers to."""
    value: Any = importlib.import_module(module)
    for part in qualname.split("."):
        value = getattr(value, part)
    return value
