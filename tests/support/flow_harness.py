"""Both drivers behind one face, so that each rule is tested on each."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from llmops_sdk.flow import END, Flow, Model, Run, Stream, run_async, run_sync
from llmops_sdk.settings import Settings
from llmops_sdk.types import Delta, Response


class Face:
    """One of the two drivers."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def run(self, flow: Flow[Any], *, deadline_s: float | None = None, close_timeout_s: float = 5.0) -> Any:
        """Drive a flow to its end."""
        run = Run.start(deadline_s=deadline_s, settings=Settings(close_timeout_s=close_timeout_s))
        if self.kind == "sync":
            return run_sync(flow, run)
        return asyncio.run(run_async(flow, run))

    def read(self, stream: Stream[Any], most: int | None = None) -> list[Delta]:
        """Read a stream, to its end or `most` deltas, then close it."""
        if self.kind == "sync":
            return self._read_sync(stream, most)
        return asyncio.run(self._read_async(stream, most))

    @staticmethod
    def _read_sync(stream: Stream[Any], most: int | None) -> list[Delta]:
        deltas = []
        with stream:
            for delta in stream:
                deltas.append(delta)
                if len(deltas) == most:
                    break
        return deltas

    @staticmethod
    async def _read_async(stream: Stream[Any], most: int | None) -> list[Delta]:
        deltas = []
        async with stream:
            async for delta in stream:
                deltas.append(delta)
                if len(deltas) == most:
                    break
        return deltas

    def interrupt(self, flow: Flow[Any], begun: threading.Event, *, close_timeout_s: float = 5.0) -> None:
        """Drive a flow; once `begun` is set, cancel it: Ctrl-C for the sync driver, `task.cancel()` for the async one."""
        run = Run.start(settings=Settings(close_timeout_s=close_timeout_s))
        if self.kind == "sync":
            self._interrupt_sync(flow, run, begun)
        else:
            asyncio.run(self._interrupt_async(flow, run, begun))

    @staticmethod
    def _interrupt_sync(flow: Flow[Any], run: Run, begun: threading.Event) -> None:
        main = threading.main_thread().ident
        assert main is not None

        def press() -> None:
            assert begun.wait(10)
            time.sleep(0.05)  # the flow says it begins an effect just before the driver does
            signal.pthread_kill(main, signal.SIGINT)

        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        finger = threading.Thread(target=press)
        finger.start()
        try:
            run_sync(flow, run)
        except KeyboardInterrupt:
            return
        finally:
            finger.join()
            signal.signal(signal.SIGINT, before)
        raise AssertionError("the interrupt did not come through")

    @staticmethod
    async def _interrupt_async(flow: Flow[Any], run: Run, begun: threading.Event) -> None:
        task = asyncio.ensure_future(run_async(flow, run))
        assert await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return
        raise AssertionError("the cancellation did not come through")


async def until(event: threading.Event) -> None:
    """Wait for what a thread or a flow sets, without a thread of one's own."""
    while not event.is_set():  # noqa: ASYNC110 - a threading.Event, since the same flows run under the sync driver
        await asyncio.sleep(0.001)


class Numbers:
    """A source of numbers, for both drivers; `begun` is set when it hangs."""

    def __init__(self, count: int, *, hang: bool = False) -> None:
        self.left = list(range(count))
        self.hang = hang
        self.begun = threading.Event()
        self.closed = 0
        self._never: Future[None] = Future()

    def next(self) -> Any:
        if self.left:
            return self.left.pop(0)
        if self.hang:
            self.begun.set()
            self._never.result()
        return END

    async def anext(self) -> Any:
        if self.left:
            return self.left.pop(0)
        if self.hang:
            self.begun.set()
            await asyncio.get_running_loop().create_future()
        return END

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


class FlowModel(Model):
    """A model made of one function."""

    def __init__(self, flow: Callable[[Any, Run], Flow[Any]], name: str = "flow") -> None:
        self._flow = flow
        self.name = name

    def flow(self, request: Any, run: Run) -> Flow[Any]:
        return self._flow(request, run)


def answer(text: str = "done") -> Flow[Response]:
    """A flow that returns at once."""
    return Response.of(text)
    yield
