"""Effects: what a flow asks of the outside world, and the two protocols that a leaf is built on.

A flow is a generator. It yields effects, a driver performs each one and sends the answer back, and what the generator
returns is the answer to the request. Nothing in here performs anything.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar

from llmops_sdk.errors import UsageError

if TYPE_CHECKING:
    from concurrent.futures import Future

    import httpx

    from llmops_sdk.types import Delta

R = TypeVar("R")


class End:
    """The type of `END`, which `Next` answers when a source has no more."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "END"


END: Final = End()


class Source(Protocol):
    """What `Next` reads. A driver uses the first or the second pair of methods, never both on one source."""

    def next(self) -> Any:
        """The next chunk, or `END`; blocks."""
        ...

    def close(self) -> None:
        """Release what the source holds; may be called again."""
        ...

    async def anext(self) -> Any:
        """The next chunk, or `END`."""
        ...

    async def aclose(self) -> None:
        """Release what the source holds; may be called again."""
        ...


class ByteSource(Source, Protocol):
    """The body of a streamed HTTP response, with its head."""

    @property
    def status_code(self) -> int: ...

    @property
    def headers(self) -> httpx.Headers: ...


class Transport(Protocol):
    """Performs `Send`. `timeout_s` bounds each phase (connect, write, read); `deadline_s`, a `time.monotonic()` value,
    bounds all of it, the reading of a streamed body included.

    Raises `ConnectionFailedError`, `RequestTimeoutError` or `DeadlineExceededError`.
    """

    def send(
        self, request: httpx.Request, *, stream: bool, timeout_s: float | None, deadline_s: float | None
    ) -> httpx.Response | ByteSource:
        """The whole response, or with `stream` its head and a source of its body; blocks."""
        ...

    async def asend(
        self, request: httpx.Request, *, stream: bool, timeout_s: float | None, deadline_s: float | None
    ) -> httpx.Response | ByteSource:
        """The same on the running event loop."""
        ...


class Effect:
    """The root of the effects; a driver knows them by their exact class."""

    __slots__: tuple[str, ...] = ()

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({told})"


Flow: TypeAlias = Generator[Effect, Any, R]


class Send(Effect):
    """Answers with the `httpx.Response`, or with `stream` with a `ByteSource` that the driver closes with the flow."""

    __slots__ = ("request", "stream", "timeout_s", "transport")

    def __init__(
        self, request: httpx.Request, *, stream: bool, transport: Transport, timeout_s: float | None = None
    ) -> None:
        self.request = request
        self.stream = stream
        self.transport = transport
        self.timeout_s = timeout_s


class Next(Effect):
    """Answers with the next chunk of a source, or `END`."""

    __slots__ = ("source",)

    def __init__(self, source: Source) -> None:
        self.source = source


class Sleep(Effect):
    """Answers with None, `seconds` later."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Emit(Effect):
    """Answers with None once the consumer of the stream asks for more."""

    __slots__ = ("delta",)

    def __init__(self, delta: Delta) -> None:
        self.delta = delta


class Block(Effect):
    """Answers with the result of `function()`, computed off the event loop: disk work, an embedding, a big parse."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function


class Wait(Effect):
    """Answers with the result of a future that another flow completes. Blocks the thread under the sync driver, holds
    none under the async one. After `timeout_s` a `TimeoutError` is raised in the flow; the future is never cancelled.
    """

    __slots__ = ("future", "timeout_s")

    def __init__(self, future: Future[Any], timeout_s: float | None = None) -> None:
        self.future = future
        self.timeout_s = timeout_s


class Invoke(Effect):
    """Answers with the result of user code.

    The async driver awaits coroutine functions and runs others in a thread; the sync driver runs them where it stands,
    and raises `AsyncFunctionError` for a coroutine function.
    """

    __slots__ = ("args", "function", "kwargs")

    def __init__(
        self, function: Callable[..., Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs or {}


class Race(Effect):
    """Answers with the result of the flow that first emits or returns; only its deltas leave, and the others are
    cancelled. Each flow starts `delay_s` after the one before it, or as soon as that one fails. A failure does not win;
    if all fail, `AllModelsFailedError`.
    """

    __slots__ = ("delay_s", "flows")

    def __init__(self, flows: Iterable[Flow[Any]], delay_s: float = 0.0) -> None:
        self.flows = tuple(flows)
        self.delay_s = delay_s


class Contest(Effect):
    """What a driver performs of a `Race`: answers with the `Winner`, a source of the winning flow's deltas."""

    __slots__ = ("delay_s", "flows")

    def __init__(self, race: Race) -> None:
        self.flows = race.flows
        self.delay_s = race.delay_s


class Gather(Effect):
    """Answers with the results of all flows, in order, at most `limit` at a time; their deltas go nowhere. The first
    error cancels the rest, unless `return_errors` puts each error in its flow's place. Each flow has `each_s` seconds
    from when it begins, where that is less than what the whole has left.
    """

    __slots__ = ("each_s", "flows", "limit", "return_errors")

    def __init__(
        self,
        flows: Iterable[Flow[Any]],
        limit: int | None = None,
        *,
        return_errors: bool = False,
        each_s: float | None = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise UsageError(f"Gather(limit=…) is at least 1, or None for no limit; it is {limit}.")
        self.flows = tuple(flows)
        self.limit = limit
        self.return_errors = return_errors
        self.each_s = each_s


class Winner(Source, Protocol):
    """The source that `Contest` answers with: the winner's deltas, and after `END` its `result`."""

    @property
    def result(self) -> Any: ...


def expand(race: Race) -> Flow[Any]:
    """A race as a flow of its own, so that whatever watches deltas sees the winner's."""
    winner: Winner = yield Contest(race)
    while (delta := (yield Next(winner))) is not END:
        yield Emit(delta)
    return winner.result
