"""Layers around generators: a `Passage` sees each item of one iteration and lets it pass, changes it or holds it.

send, throw and close reach the user's generator, and the passage's context is current only while that runs. Where an
item is held back, the generator is stepped on with None.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, Any, Final, Protocol

from llmops_sdk.tracing import attach, detach

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from llmops_sdk.decorators.call import Call, Layer
    from llmops_sdk.flow import Flow, Run


class _Held:
    """The type of `HELD`."""

    __slots__ = ()


HELD: Final = _Held()
"""What stands for an item that does not leave now."""


class Passage(Protocol):
    """What one layer does to one iteration of a generator. A method that returns None changes nothing."""

    run: Run
    context: Context

    def begin(self, call: Call) -> Flow[Call] | None:
        """Before the first item: open the span, check the arguments."""
        ...

    def each(self, item: Any) -> Flow[Any] | None:
        """What leaves for an item, or `HELD`."""
        ...

    def last(self) -> Flow[Any] | None:
        """What leaves after the last item, or `HELD`."""
        ...

    def returned(self, value: Any) -> Flow[Any] | None:
        """What the generator's return value becomes."""
        ...

    def end(self, error: BaseException | None, result: Any) -> None:
        """After all, however it ended."""
        ...


def stepped(layer: Layer, inner: Callable[[Call], Generator[Any, Any, Any]], call: Call) -> Generator[Any, Any, Any]:
    """The items of a generator as the layer's passage lets them out, and its return value."""
    from llmops_sdk.flow import run_sync

    passage = layer.passage(call)
    result = None
    try:
        checks = passage.begin(call)
        items = inner(call if checks is None else run_sync(checks, passage.run, quiet=True))
        sent, thrown = None, None
        try:
            while True:
                token = attach(passage.context)
                try:
                    item = items.send(sent) if thrown is None else items.throw(thrown)
                except StopIteration as stop:
                    result = stop.value
                    break
                finally:
                    sent = thrown = None
                    detach(token)
                flow = passage.each(item)
                out = item if flow is None else run_sync(flow, passage.run, quiet=True)
                if out is HELD:
                    continue
                try:
                    sent = yield out
                except GeneratorExit:
                    raise
                except BaseException as error:  # thrown in by the consumer, for the generator
                    thrown = error
        finally:
            token = attach(passage.context)
            try:
                items.close()
            finally:
                detach(token)
        flow = passage.last()
        if flow is not None and (rest := run_sync(flow, passage.run, quiet=True)) is not HELD:
            yield rest
        flow = passage.returned(result)
        result = result if flow is None else run_sync(flow, passage.run, quiet=True)
    except BaseException as error:
        passage.end(error, None)
        raise
    passage.end(None, result)
    return result


async def stepped_async(
    layer: Layer, inner: Callable[[Call], AsyncGenerator[Any, Any]], call: Call
) -> AsyncGenerator[Any, Any]:
    """The same for an async generator."""
    from llmops_sdk.flow import run_async

    passage = layer.passage(call)
    try:
        checks = passage.begin(call)
        items = inner(call if checks is None else await run_async(checks, passage.run))
        sent, thrown = None, None
        try:
            while True:
                token = attach(passage.context)
                try:
                    item = await (items.asend(sent) if thrown is None else items.athrow(thrown))
                except StopAsyncIteration:
                    break
                finally:
                    sent = thrown = None
                    detach(token)
                flow = passage.each(item)
                out = item if flow is None else await run_async(flow, passage.run)
                if out is HELD:
                    continue
                try:
                    sent = yield out
                except GeneratorExit:
                    raise
                except BaseException as error:  # thrown in by the consumer, for the generator
                    thrown = error
        finally:
            token = attach(passage.context)
            try:
                await items.aclose()
            finally:
                detach(token)
        flow = passage.last()
        if flow is not None and (rest := await run_async(flow, passage.run)) is not HELD:
            yield rest
    except BaseException as error:
        passage.end(error, None)
        raise
    passage.end(None, None)
