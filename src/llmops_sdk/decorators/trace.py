"""`@trace`: the plain span, around a function or a block."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from llmops_sdk.decorators.function import decorated
from llmops_sdk.decorators.keywords import MISSPELT_NAMES
from llmops_sdk.errors import DecoratorError
from llmops_sdk.tracing import attach, detach, semconv, start_span

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.util.types import AttributeValue

    from llmops_sdk.decorators.call import Call, Inner, Outcome
    from llmops_sdk.decorators.wrapper import Mode
    from llmops_sdk.flow import Flow
    from llmops_sdk.tracing import RecordedSpan

F = TypeVar("F", bound="Callable[..., Any]")


class Block:
    """A span around a `with` or `async with` block."""

    __slots__ = ("_attributes", "_name", "_span", "_token")

    def __init__(self, name: str, attributes: Mapping[str, AttributeValue]) -> None:
        self._name = name
        self._attributes = attributes

    def __enter__(self) -> RecordedSpan:
        self._span = start_span(self._name, attributes=self._attributes)
        self._token = attach(self._span.otel_context)
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        detach(self._token)
        end(self._span, error)

    async def __aenter__(self) -> RecordedSpan:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


def end(span: RecordedSpan, error: BaseException | None = None) -> None:
    """End a span with the error that it ended by, if any; being closed early or cancelled is none."""
    asyncio = sys.modules.get("asyncio")  # not imported for this: who is cancelled has it
    if isinstance(error, GeneratorExit):
        span.set_attribute(semconv.LLMOPS_CLOSED_EARLY, value=True)
    elif asyncio is not None and isinstance(error, asyncio.CancelledError):
        span.set_attribute(semconv.LLMOPS_CANCELLED, value=True)
    elif error is not None:
        span.record_error(error)
    span.end()


class TraceLayer:
    """A span around every call, with arguments and result in its payload."""

    def __init__(self, name: str | None, attributes: Mapping[str, AttributeValue]) -> None:
        self.name = name
        self.attributes = {semconv.OPENINFERENCE_SPAN_KIND: "CHAIN", **attributes}

    def _start(self, function: Any, args: Any, kwargs: Any) -> RecordedSpan:
        span = start_span(self.name or span_name(function), attributes=self.attributes)
        span.set_payload("arguments", {"args": args, "kwargs": kwargs} if args else kwargs)
        return span

    def direct(self, function: Any, mode: Mode, args: Any, kwargs: Any) -> Any:
        """The call of a plain function with nothing but this layer: no flow is needed."""
        if mode == "async":
            return self._direct_async(function, args, kwargs)
        span = self._start(function, args, kwargs)
        token = attach(span.otel_context)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            detach(token)
            end(span, error)
            raise
        detach(token)
        span.set_payload("result", result)
        span.end()
        return result

    async def _direct_async(self, function: Any, args: Any, kwargs: Any) -> Any:
        span = self._start(function, args, kwargs)
        token = attach(span.otel_context)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            detach(token)
            end(span, error)
            raise
        detach(token)
        span.set_payload("result", result)
        span.end()
        return result

    def around(self, call: Call, inner: Inner) -> Flow[Outcome]:
        """A span around a call that is a flow already."""
        with call.run.span(self.name or span_name(call.function), attributes=self.attributes) as span:
            span.set_payload("arguments", call.arguments())
            outcome = yield from inner(call)
            span.set_payload("result", outcome.value)
            return outcome

    def passage(self, call: Call) -> TracePassage:
        """A span from the first item to the last, current only while the user's generator runs."""
        return TracePassage(self, call)


class TracePassage:
    """One iteration of a traced generator."""

    def __init__(self, layer: TraceLayer, call: Call) -> None:
        self.run = call.run
        self._layer = layer
        self._items = 0

    def begin(self, call: Call) -> None:
        """Open the span."""
        self._span = self._layer._start(call.function, call.args, dict(call.kwargs))  # noqa: SLF001 - its own layer
        self.context = self._span.otel_context

    def each(self, item: Any) -> None:
        """Count."""
        self._items += 1

    def last(self) -> None:
        """Nothing is added."""

    def returned(self, value: Any) -> None:
        """It stays as it is."""

    def end(self, error: BaseException | None, result: Any) -> None:
        """End the span."""
        self._span.set_attribute(semconv.LLMOPS_ITEMS, self._items)
        if result is not None:
            self._span.set_payload("result", result)
        end(self._span, error)


def span_name(function: Any) -> str:
    """The name of a function's span: its qualified name without the `<locals>` of where it was defined."""
    name = getattr(function, "__qualname__", None)
    if name is None:
        inner = getattr(function, "func", None)
        return type(function).__qualname__ if inner is None else span_name(inner)
    return str(name).rpartition("<locals>.")[2]


class Trace:
    """`@trace`, `@trace(name=…, attribute=…)` and `with trace.span("name", attribute=…) as span`."""

    @overload
    def __call__(self, function: F, /) -> F: ...
    @overload
    def __call__(self, *, name: str | None = None, **attributes: AttributeValue) -> Callable[[F], F]: ...

    def __call__(self, *target: Any, name: str | None = None, **attributes: Any) -> Any:
        """Record a span for every call of a function, method or generator, whose type stays as it is."""
        for slip in attributes.keys() & MISSPELT_NAMES:
            raise DecoratorError(f"@trace({slip}=…) would be an attribute of the span. Did you mean name=?")
        layer = TraceLayer(name, attributes)
        match target:
            case ():
                return lambda function: decorated("trace", function, layer)
            case (function,):
                return decorated("trace", function, layer)
        raise DecoratorError("@trace takes one function; a name goes into @trace(name=…).")

    def span(self, name: str, /, **attributes: AttributeValue) -> Block:
        """A span around a block; also `async with`."""
        return Block(name, attributes)

    def __repr__(self) -> str:
        return "<decorator trace>"


trace = Trace()
