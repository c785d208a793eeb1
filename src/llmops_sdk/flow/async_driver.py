"""The async driver: performs effects on the running event loop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from llmops_sdk.errors import FlowCancelled
from llmops_sdk.flow.contest import contest, gather
from llmops_sdk.flow.driver import RETURNED, Driver
from llmops_sdk.flow.effects import END, Block, Contest, Emit, End, Gather, Invoke, Next, Send, Sleep, Wait
from llmops_sdk.flow.sync_driver import is_coroutine_function, log, refuse_coroutine
from llmops_sdk.flow.threads import run_blocking, run_in_thread
from llmops_sdk.tracing import attach, detach

if TYPE_CHECKING:
    from concurrent.futures import Future

    from opentelemetry.context import Context

    from llmops_sdk.flow.effects import Effect, Flow, Source
    from llmops_sdk.flow.run import Run
    from llmops_sdk.types import Delta


class AsyncDriver(Driver):
    """Drives one flow to its end, or from delta to delta.

    `serves_sync` marks the children of a synchronous call, which run on the background loop: there coroutine functions
    are refused, since they belong to a loop of their own.
    """

    __slots__ = ("loop", "serves_sync")

    def __init__(self, flow: Flow[Any], run: Run, parent: Context | None = None, *, serves_sync: bool = False) -> None:
        super().__init__(flow, run, parent)
        self.serves_sync = serves_sync
        self.loop: asyncio.AbstractEventLoop | None = None

    def caller(self) -> object:
        """The task."""
        return asyncio.current_task()

    async def advance(self) -> Delta | End:
        """The next delta, or `END` with the answer in `result`. Raises what the flow raises."""
        self.loop = asyncio.get_running_loop()
        if self.performing:
            raise self.busy()
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                effect = self.resume(value, error)
            except BaseException:
                if not self.frames:  # else another thread is stepping them
                    await self._release()
                raise
            finally:
                error = None
            if effect is RETURNED:
                await self._release()
                return END
            if type(effect) is Emit:
                return effect.delta
            value = None
            try:
                value = await self.perform(effect)  # type: ignore[arg-type]  # RETURNED has been dealt with
            except Exception as raised:
                error = raised
            except GeneratorExit:  # this coroutine is being closed: it cannot await any more
                self.collect()
                raise
            except BaseException:  # the task is cancelled: the flow cleans up, then the cancellation goes on
                await self.cancel()
                raise

    async def cancel(self) -> None:
        """Throw `FlowCancelled` into the flow and perform its clean-up, for at most the closing time."""
        if self.ended:
            return
        self.check_idle()
        signal = self.start_closing()
        value: Any = None
        error: BaseException | None = signal
        try:
            while (effect := self.resume(value, error)) is not RETURNED:
                value = error = None
                if self.out_of_time():
                    break
                if type(effect) is Emit:
                    continue
                try:
                    value = await self.perform(effect)  # type: ignore[arg-type]  # RETURNED ends the loop
                except Exception as raised:
                    error = raised
        except (FlowCancelled, Exception):
            pass
        except GeneratorExit:  # as in advance
            self.collect()
            raise
        finally:
            self.lost = signal.usage
            del error, signal  # their tracebacks hold this frame
            self.abandon()
            await self._release()

    def collect(self) -> None:
        """Called at garbage collection, in any thread: close the flow, and its sources when the loop comes to it."""
        self.abandon()
        sources, self.sources = self.sources, []
        if sources and self.loop is not None:
            close_later(self.loop, sources)

    async def perform(self, effect: Effect) -> Any:
        """Perform one effect with the flow's span current, within the time that is left."""
        action = _ACTIONS.get(type(effect))
        if action is None:
            raise TypeError(f"A flow yielded {effect!r}, which is not an effect. Use `yield from` for an inner flow.")
        left = self.remaining_s()
        context = self.context
        token = None if context is None else attach(context)
        self.performing = True
        try:
            if left is None:
                return await action(self, effect)
            if type(effect) in _BOUND_THEMSELVES:
                value = await action(self, effect)
                self.remaining_s()
                return value
            return await self._bounded(action(self, effect), left)
        finally:
            self.performing = False
            if token is not None:
                detach(token)

    async def _bounded(self, action: Awaitable[Any], left_s: float) -> Any:
        clock = asyncio.timeout(left_s)
        try:
            async with clock:
                return await action
        except TimeoutError:
            if not clock.expired():
                raise
        finally:
            del clock  # it holds the task, which comes to hold an error whose traceback holds this frame
        raise self.too_late()  # out here, where it gets no context

    async def _send(self, effect: Send) -> Any:
        answer = await effect.transport.asend(
            effect.request, stream=effect.stream, timeout_s=effect.timeout_s, deadline_s=self.deadline_s
        )
        if effect.stream:
            self.sources.append(answer)  # type: ignore[arg-type]  # with stream=True a transport answers with a source
        return answer

    async def _next(self, effect: Next) -> Any:
        return await effect.source.anext()

    async def _sleep(self, effect: Sleep) -> None:
        await asyncio.sleep(max(0.0, effect.seconds))

    async def _block(self, effect: Block) -> Any:
        return await run_blocking(effect.function)

    async def _wait(self, effect: Wait) -> Any:
        return await wait_for_future(effect.future, effect.timeout_s)

    async def _invoke(self, effect: Invoke) -> Any:
        function = effect.function
        if is_coroutine_function(function):
            if self.serves_sync:
                raise refuse_coroutine(function)
            return await function(*effect.args, **effect.kwargs)
        answer = await run_in_thread(function, effect.args, effect.kwargs)
        if not inspect.iscoroutine(answer):
            return answer
        if self.serves_sync:
            answer.close()
            raise refuse_coroutine(function, returned=True)
        return await answer

    async def _gather(self, effect: Gather) -> Any:
        return await gather(effect, self)

    async def _contest(self, effect: Contest) -> Any:
        winner = await contest(effect, self)
        self.sources.append(winner)
        return winner

    async def _release(self) -> None:
        self.ended = True
        if not self.sources:
            return
        sources, self.sources = self.sources, []
        try:
            await _close_all(sources)
        finally:
            if sources and self.loop is not None:  # cancelled meanwhile
                close_later(self.loop, sources)


async def wait_for_future(future: Future[Any], timeout_s: float | None = None) -> Any:
    """The result of a thread-safe future, which giving up leaves as it is. Raises `TimeoutError` after `timeout_s`."""
    if future.done():
        return future.result()
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def wake(_: Future[Any]) -> None:
        try:
            loop.call_soon_threadsafe(lambda: None if done.done() else done.set_result(None))
        except RuntimeError:  # the loop has closed: nobody waits any more
            return

    future.add_done_callback(wake)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await done
    if not future.done():
        raise TimeoutError(f"Nothing came within {timeout_s} s.")
    return future.result()


def close_later(loop: asyncio.AbstractEventLoop, sources: list[Source]) -> None:
    """Have sources closed by their loop, from any thread, waiting for nothing."""
    try:
        loop.call_soon_threadsafe(lambda: loop.create_task(_close_all(sources)))
    except RuntimeError:  # the loop has closed, and its connections with it
        return


async def _close_all(sources: list[Source]) -> None:
    """Close and take off each of `sources`, the last first."""
    while sources:
        source = sources.pop()
        try:
            await source.aclose()
        except Exception:  # how the flow ended is the news, not that a connection did not close well
            log.debug("llmops: %r did not close.", source, exc_info=True)


_BOUND_THEMSELVES = (Gather, Contest)
"""Effects whose children have the deadline themselves: each is told of it, and has its closing time undisturbed."""


_ACTIONS: dict[type[Effect], Callable[[AsyncDriver, Any], Awaitable[Any]]] = {
    Send: AsyncDriver._send,  # noqa: SLF001 - the table belongs to the class
    Next: AsyncDriver._next,  # noqa: SLF001 - as above
    Sleep: AsyncDriver._sleep,  # noqa: SLF001 - as above
    Block: AsyncDriver._block,  # noqa: SLF001 - as above
    Wait: AsyncDriver._wait,  # noqa: SLF001 - as above
    Invoke: AsyncDriver._invoke,  # noqa: SLF001 - as above
    Gather: AsyncDriver._gather,  # noqa: SLF001 - as above
    Contest: AsyncDriver._contest,  # noqa: SLF001 - as above
}
