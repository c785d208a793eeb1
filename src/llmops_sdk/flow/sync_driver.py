"""The sync driver: performs effects in the caller's thread."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from llmops_sdk.errors import AsyncFunctionError, FlowCancelled
from llmops_sdk.flow.driver import RETURNED, Driver
from llmops_sdk.flow.effects import END, Block, Contest, Emit, End, Gather, Invoke, Next, Send, Sleep, Wait
from llmops_sdk.tracing import attach, detach

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmops_sdk.flow.effects import Effect
    from llmops_sdk.types import Delta

log = logging.getLogger("llmops_sdk")


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether calling `function` gives a coroutine: a function, a partial of one, or an object that is called."""
    while isinstance(function, functools.partial):
        function = function.func
    call = getattr(function, "__call__", None)  # noqa: B004 - whether it may be called is not the question
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def refuse_coroutine(function: Callable[..., Any], *, returned: bool = False) -> AsyncFunctionError:
    """The error of a synchronous call that met a coroutine function, or a plain one that `returned` a coroutine."""
    name = getattr(function, "__qualname__", None) or repr(type(function).__name__)
    if returned:
        return AsyncFunctionError(
            f"{name} is a plain function that returned a coroutine, and this call is synchronous. Define {name} with "
            f"async def and await what it calls, or call something that is not asynchronous."
        )
    return AsyncFunctionError(
        f"{name} is a coroutine function, and this call is synchronous. Await the asynchronous form of the call "
        f"(acomplete, astream, or a function defined with async def), or pass a plain function."
    )


class SyncDriver(Driver):
    """Drives one flow to its end, or from delta to delta."""

    __slots__ = ()

    def caller(self) -> object:
        """The thread."""
        return threading.get_ident()

    def advance(self) -> Delta | End:
        """The next delta, or `END` with the answer in `result`. Raises what the flow raises."""
        if self.performing:
            raise self.busy()
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                effect = self.resume(value, error)
            except BaseException:
                if not self.frames:  # else another thread is stepping them
                    self._release()
                raise
            finally:
                error = None
            if effect is RETURNED:
                self._release()
                return END
            if type(effect) is Emit:
                return effect.delta
            value = None
            try:
                value = self.perform(effect)  # type: ignore[arg-type]  # RETURNED has been dealt with
            except Exception as raised:
                error = raised
            except BaseException:  # Ctrl-C and its like: the flow cleans up, then it goes on its way
                self.cancel()
                raise

    def cancel(self) -> None:
        """Throw `FlowCancelled` into the flow and perform its clean-up, for at most the closing time."""
        if self.ended:
            return
        self.check_idle()
        value: Any = None
        error: BaseException | None = self.start_closing()
        try:
            while (effect := self.resume(value, error)) is not RETURNED:
                value = error = None
                if self.out_of_time():
                    break
                if type(effect) is Emit:
                    continue
                try:
                    value = self.perform(effect)  # type: ignore[arg-type]  # RETURNED ends the loop
                except Exception as raised:
                    error = raised
        except (FlowCancelled, Exception):
            pass
        finally:
            error = None
            self.abandon()
            self._release()

    def collect(self) -> None:
        """Called at garbage collection: close the flow and its sources, performing nothing."""
        self.abandon()
        sources, self.sources = self.sources, []
        for source in reversed(sources):
            close = getattr(source, "collect", source.close)
            with contextlib.suppress(Exception):  # nobody is left to be told
                close()

    def perform(self, effect: Effect) -> Any:
        """Perform one effect with the flow's span current, within the time that is left."""
        action = _ACTIONS.get(type(effect))
        if action is None:
            raise TypeError(f"A flow yielded {effect!r}, which is not an effect. Use `yield from` for an inner flow.")
        self.remaining_s()
        context = self.context
        token = None if context is None else attach(context)
        self.performing = True
        try:
            value = action(self, effect)
            self.remaining_s()
            return value
        finally:
            self.performing = False
            if token is not None:
                detach(token)

    def _send(self, effect: Send) -> Any:
        answer = effect.transport.send(
            effect.request, stream=effect.stream, timeout_s=effect.timeout_s, deadline_s=self.deadline_s
        )
        if effect.stream:
            self.sources.append(answer)  # type: ignore[arg-type]  # with stream=True a transport answers with a source
        return answer

    def _next(self, effect: Next) -> Any:
        return effect.source.next()

    def _sleep(self, effect: Sleep) -> None:
        left, seconds = self.remaining_s(), max(0.0, effect.seconds)
        time.sleep(seconds if left is None else min(seconds, left))

    def _block(self, effect: Block) -> Any:
        return effect.function()

    def _wait(self, effect: Wait) -> Any:
        left, own = self.remaining_s(), effect.timeout_s
        patience = own if left is None else left if own is None else min(own, left)
        try:
            return effect.future.result(patience)
        except TimeoutError:
            if effect.future.done():  # it came in the last moment, or a TimeoutError is what came
                return effect.future.result()
            if own is None or (left is not None and left <= own):
                raise self.too_late() from None
            raise TimeoutError(f"Nothing came within {own} s.") from None

    def _invoke(self, effect: Invoke) -> Any:
        if is_coroutine_function(effect.function):
            raise refuse_coroutine(effect.function)
        answer = effect.function(*effect.args, **effect.kwargs)
        if inspect.iscoroutine(answer):
            answer.close()
            raise refuse_coroutine(effect.function, returned=True)
        return answer

    def _gather(self, effect: Gather) -> Any:
        from llmops_sdk.flow.background import gather

        return gather(effect, self)

    def _contest(self, effect: Contest) -> Any:
        from llmops_sdk.flow.background import contest

        winner = contest(effect, self)
        self.sources.append(winner)
        return winner

    def _release(self) -> None:
        self.ended = True
        while self.sources:
            source = self.sources.pop()
            try:
                source.close()
            except Exception:  # how the flow ended is the news, not that a connection did not close well
                log.debug("llmops: %r did not close.", source, exc_info=True)


_ACTIONS: dict[type[Effect], Callable[[SyncDriver, Any], Any]] = {
    Send: SyncDriver._send,  # noqa: SLF001 - the table belongs to the class
    Next: SyncDriver._next,  # noqa: SLF001 - as above
    Sleep: SyncDriver._sleep,  # noqa: SLF001 - as above
    Block: SyncDriver._block,  # noqa: SLF001 - as above
    Wait: SyncDriver._wait,  # noqa: SLF001 - as above
    Invoke: SyncDriver._invoke,  # noqa: SLF001 - as above
    Gather: SyncDriver._gather,  # noqa: SLF001 - as above
    Contest: SyncDriver._contest,  # noqa: SLF001 - as above
}
