"""The ways into the drivers: run a flow to its end, or hand out its deltas."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from llmops_sdk.errors import UsageError
from llmops_sdk.flow.effects import END, End
from llmops_sdk.flow.sync_driver import SyncDriver
from llmops_sdk.flow.tracebacks import shorten

if TYPE_CHECKING:
    from types import TracebackType

    from llmops_sdk.flow.async_driver import AsyncDriver
    from llmops_sdk.flow.effects import Flow
    from llmops_sdk.flow.run import Run
    from llmops_sdk.types import Delta

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class BlockingCallWarning(RuntimeWarning):
    """A synchronous call was made on a thread whose event loop is running: it works, and holds the loop up."""


class _Warned:
    """Whether this process has been told."""

    told = False


def _warn_on_event_loop() -> None:
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or _Warned.told or asyncio._get_running_loop() is None:  # noqa: SLF001 - documented for libraries
        return
    _Warned.told = True
    warnings.warn(
        "A synchronous model call was made while an event loop runs on this thread; the loop waits for it. "
        "Await acomplete(), astream() or a prompt defined with async def instead. This is said once.",
        BlockingCallWarning,
        stacklevel=_depth_of_caller(),
    )


def _depth_of_caller() -> int:
    """How far up the stack, counted for `warnings.warn` in the function that asks, the first line of other code is."""
    frame, depth = sys._getframe(1), 1  # noqa: SLF001 - there is no other way to the caller's line
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("llmops_sdk."):
        frame, depth = frame.f_back, depth + 1
    return depth


def run_sync(flow: Flow[R], run: Run, *, quiet: bool = False) -> R:
    """Drive `flow` in this thread and return its answer; its deltas go nowhere.

    With `quiet`, a running event loop is no reason for a warning: the flow asks no model.
    """
    if not quiet:
        _warn_on_event_loop()
    driver = SyncDriver(flow, run)
    try:
        while driver.advance() is not END:
            pass
    except Exception as error:
        shorten(error)
        raise
    return driver.result  # type: ignore[no-any-return]  # what the flow returned


async def run_async(flow: Flow[R], run: Run) -> R:
    """Drive `flow` on the running event loop and return its answer; its deltas go nowhere."""
    from llmops_sdk.flow.async_driver import AsyncDriver

    driver = AsyncDriver(flow, run)
    try:
        while await driver.advance() is not END:
            pass
    except Exception as error:
        shorten(error)
        raise
    return driver.result  # type: ignore[no-any-return]  # what the flow returned


class Stream(Generic[R_co]):
    """The deltas of one call, for `for` or `async for`; the first use decides which. Nothing is asked before it.

    Leave it by its end, by `with` or by `close()` (`aclose()`): then the call is cancelled and its connection closed at
    once. `response` holds the whole answer after the end.
    """

    def __init__(self, flow: Flow[R_co], run: Run) -> None:
        self._flow: Flow[R_co] | None = flow
        self._run = run
        self._sync: SyncDriver | None = None
        self._async: AsyncDriver | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Delta:
        driver = self._sync_driver()
        try:
            delta = END if driver.ended else driver.advance()
        except StopIteration as error:  # of user code; to a `for` it would be the end, as PEP 479 says of generators
            raise RuntimeError("The call behind this stream raised StopIteration.") from error
        except Exception as error:
            shorten(error)
            raise
        if isinstance(delta, End):
            raise StopIteration
        return delta

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        driver = self._async_driver()
        try:
            delta = END if driver.ended else await driver.advance()
        except StopAsyncIteration as error:  # as in __next__
            raise RuntimeError("The call behind this stream raised StopAsyncIteration.") from error
        except Exception as error:
            shorten(error)
            raise
        if isinstance(delta, End):
            raise StopAsyncIteration
        return delta

    @property
    def response(self) -> R_co:
        """The whole answer. Raises `UsageError` before the end of the stream."""
        driver = self._sync or self._async
        if driver is None or not driver.completed:
            raise UsageError("The response of a stream is there after its last delta. Iterate it to the end first.")
        return driver.result  # type: ignore[no-any-return]  # what the flow returned

    def close(self) -> None:
        """Cancel what is left of the call. A stream read with `async for` is closed with `aclose()`."""
        if self._async is not None:
            if self._async.ended:
                return
            raise UsageError("This stream was read with `async for`. Close it with `await stream.aclose()`.")
        self._sync_driver(reads=False).cancel()

    async def aclose(self) -> None:
        """Cancel what is left of the call."""
        if self._sync is not None:
            self.close()
        else:
            await self._async_driver().cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        """The last resort of a stream that was neither ended nor closed: no effect can be performed here."""
        driver = self._sync or self._async
        if driver is not None and not driver.ended:
            driver.collect()

    def _sync_driver(self, *, reads: bool = True) -> SyncDriver:
        if self._sync is None:
            if self._flow is None:
                raise UsageError("This stream was read with `async for`; go on with `async for`.")
            if reads:
                _warn_on_event_loop()
            self._sync, self._flow = SyncDriver(self._flow, self._run), None
        return self._sync

    def _async_driver(self) -> AsyncDriver:
        if self._async is None:
            if self._flow is None:
                raise UsageError("This stream was read with `for`; go on with `for`.")
            from llmops_sdk.flow.async_driver import AsyncDriver

            self._async, self._flow = AsyncDriver(self._flow, self._run), None
        return self._async
