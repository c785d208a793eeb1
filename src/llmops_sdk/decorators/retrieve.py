"""`@retrieve`: a function that returns a query becomes a function that returns hits."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, overload

from llmops_sdk.decorators.call import Call, Inner, Outcome
from llmops_sdk.decorators.function import decorated
from llmops_sdk.decorators.keywords import refuse_unknown
from llmops_sdk.decorators.trace import end, span_name
from llmops_sdk.decorators.wrapper import Wrapper, check_target, mode_of
from llmops_sdk.errors import DecoratorError, UsageError
from llmops_sdk.flow import Invoke, run_async, run_sync
from llmops_sdk.flow.run import Run
from llmops_sdk.tracing import semconv, start_span
from llmops_sdk.types import Hit, Query

if TYPE_CHECKING:
    from llmops_sdk.flow import Flow
    from llmops_sdk.retrieval.index import Index
    from llmops_sdk.tracing import RecordedSpan

P = ParamSpec("P")
Q = ParamSpec("Q")
F = TypeVar("F", bound="Callable[..., Any]")
R_co = TypeVar("R_co", covariant=True)


class _RetrieverBase(Wrapper):
    """What retrievers of both kinds share."""

    def __init__(self, target: Any, index: Index, k: int) -> None:
        super().__init__(target)
        self._index = index
        self._k = k

    def _core(self, call: Call) -> Flow[Outcome]:
        asked = yield Invoke(call.function, call.args, call.kwargs)
        if isinstance(asked, str):
            asked = Query(text=asked)
        if not isinstance(asked, Query):
            raise UsageError(
                f"The retriever {span_name(self)} returned {type(asked).__name__}. Its body returns the query: a "
                f"str or a Query(text=…, k=…, where=…)."
            )
        k = self._k if asked.k is None else asked.k
        hits = yield from self._index.search_flow(asked.text, k, asked.where, call.run)
        return Outcome(value=hits)


class Retriever(_RetrieverBase, Generic[P]):
    """A decorated query function. Calling it searches the index and returns the hits."""

    @overload
    def __get__(self, instance: None, owner: type, /) -> Self: ...
    @overload
    def __get__(
        self: Retriever[Concatenate[Any, Q]], instance: object, owner: type | None = None, /
    ) -> Retriever[Q]: ...
    # the second overload gives `self` a narrower type, which pyright does not compare with the base
    def __get__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, instance: Any, owner: type | None = None, /
    ) -> Any:
        """Bind as a method."""
        return super().__get__(instance, owner)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> list[Hit]:
        """Search, and return the hits, the best first."""
        call = self._call(args, kwargs, "value", Run.start())
        hits: list[Hit] = run_sync(self._flow(call), call.run).value
        return hits


class AsyncRetriever(_RetrieverBase, Generic[P]):
    """A decorated `async def` query function: the same, awaited."""

    @overload
    def __get__(self, instance: None, owner: type, /) -> Self: ...
    @overload
    def __get__(
        self: AsyncRetriever[Concatenate[Any, Q]], instance: object, owner: type | None = None, /
    ) -> AsyncRetriever[Q]: ...
    # the second overload gives `self` a narrower type, which pyright does not compare with the base
    def __get__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, instance: Any, owner: type | None = None, /
    ) -> Any:
        """Bind as a method."""
        return super().__get__(instance, owner)

    async def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> list[Hit]:
        """Search, and return the hits, the best first."""
        call = self._call(args, kwargs, "value", Run.start())
        hits: list[Hit] = (await run_async(self._flow(call), call.run)).value
        return hits


class RetrieveLayer:
    """A retrieval span around a function that finds things itself."""

    def around(self, call: Call, inner: Inner) -> Flow[Outcome]:
        """Record what the call found."""
        with call.run.span(f"retrieval {span_name(call.function)}", attributes=_ATTRIBUTES) as span:
            span.set_payload("arguments", call.arguments())
            outcome = yield from inner(call)
            _record(span, outcome.value)
            return outcome

    def passage(self, call: Call) -> RetrievePassage:
        """Record what a generator found."""
        return RetrievePassage(call)


class RetrievePassage:
    """One iteration of a generator of hits."""

    def __init__(self, call: Call) -> None:
        self.run = call.run
        self._span = start_span(f"retrieval {span_name(call.function)}", attributes=_ATTRIBUTES)
        self._span.set_payload("arguments", call.arguments())
        self.context = self._span.otel_context
        self._found: list[Any] = []

    def begin(self, call: Call) -> None:
        """Nothing is checked."""

    def each(self, item: Any) -> None:
        """Keep what was found."""
        self._found.append(item)

    def last(self) -> None:
        """Nothing is added."""

    def returned(self, value: Any) -> None:
        """It stays as it is."""

    def end(self, error: BaseException | None, result: Any) -> None:
        """Record it all and end the span."""
        _record(self._span, self._found)
        end(self._span, error)


_ATTRIBUTES = {semconv.GEN_AI_OPERATION_NAME: "retrieval", semconv.OPENINFERENCE_SPAN_KIND: "RETRIEVER"}


def _record(span: RecordedSpan, found: Any) -> None:
    items = _items(found)
    span.set_attribute(semconv.LLMOPS_RETRIEVAL_HITS, len(items))
    scores = [item.score for item in items if isinstance(item, Hit)]
    if scores:
        span.set_attribute(semconv.LLMOPS_RETRIEVAL_SCORES, scores)
    span.set_payload("documents", items)


def _items(found: Any) -> list[Any]:
    """What a function found, one by one; a value that is no sequence is one thing found, and None is nothing."""
    if found is None:
        return []
    return list(found) if isinstance(found, Sequence) and not isinstance(found, str | bytes) else [found]


class RetrieverDecorator(Protocol):
    """What `@retrieve(index)` puts on a function."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, str | Query]], /) -> AsyncRetriever[P]: ...
    @overload
    def __call__(self, function: Callable[P, str | Query], /) -> Retriever[P]: ...


@overload
def retrieve(source: Index, /, *, k: int = 5) -> RetrieverDecorator: ...
@overload
def retrieve(source: F, /) -> F: ...
def retrieve(source: Any = None, /, *, k: int = 5, **unknown: Any) -> Any:
    """`@retrieve(index, k=5)`: search `index` for the query that the function returns.

    Bare `@retrieve` records what a function found itself, and keeps its type. Raises `DecoratorError` for a wrong use.
    """
    refuse_unknown("retrieve", unknown, ("k",))
    if source is None:
        raise DecoratorError(
            "@retrieve takes an index, @retrieve(index, k=5), or stands bare on a function that finds."
        )
    if not hasattr(source, "search_flow"):
        return decorated("retrieve", source, RetrieveLayer())
    if not isinstance(k, int) or k < 1:
        raise DecoratorError(f"@retrieve(index, k=…) finds k hits, an int of at least 1; k is {k!r}.")
    return lambda target: _retriever(target, source, k)


def _retriever(target: Any, index: Index, k: int) -> Any:
    check_target("retrieve", target)
    mode = mode_of(target)
    if mode in ("generator", "async_generator"):
        raise DecoratorError(f"{span_name(target)} yields; the body of @retrieve(index) returns the query.")
    if isinstance(target, _RetrieverBase):
        raise DecoratorError(f"{span_name(target)} is a retriever already; put one @retrieve(index) on it.")
    return AsyncRetriever(target, index, k) if mode == "async" else Retriever(target, index, k)
