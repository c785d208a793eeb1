"""`Race` and `Gather` on an event loop: several flows of one call at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from llmops_sdk.errors import AllModelsFailedError, DeadlineExceededError
from llmops_sdk.flow.effects import END, Contest, End, Gather
from llmops_sdk.flow.run import sooner
from llmops_sdk.tracing import current_span, semconv
from llmops_sdk.types import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llmops_sdk.flow.async_driver import AsyncDriver
    from llmops_sdk.flow.effects import Flow
    from llmops_sdk.types import Delta


def _child(flow: Flow[Any], parent: AsyncDriver) -> AsyncDriver:
    """A driver of an inner flow, under the parent's open span and within its time."""
    child = type(parent)(flow, parent.run, parent.context, serves_sync=parent.serves_sync)
    child.deadline_s, child.late = parent.deadline_s, parent.late
    return child


class Won:
    """The winner of a race, as a source of its deltas. Meanwhile the losers clean up; then their usage is said."""

    def __init__(self, driver: AsyncDriver, first: Delta | End, losers: list[asyncio.Task[Usage | None]]) -> None:
        self._driver = driver
        self._first: Delta | End | None = first
        self._losers = losers
        self._span = current_span()

    @property
    def result(self) -> Any:
        return self._driver.result

    async def anext(self) -> Delta | End:
        """The winner's next delta, or `END`."""
        if self._first is not None:
            delta, self._first = self._first, None
        else:
            delta = await self._driver.advance()
        if delta is END:
            await self._tell_losses()
        return delta

    async def aclose(self) -> None:
        """Cancel the winner if it has not ended, and wait for the losers' clean-up."""
        await self._driver.cancel()
        await self._tell_losses()

    def next(self) -> Any:
        """A race on an event loop is never read from outside it."""
        raise RuntimeError("This source belongs to an event loop; read it with anext().")

    close = next

    async def _tell_losses(self) -> None:
        losers, self._losers = self._losers, []
        if not losers:
            return
        known = [usage for usage in await asyncio.gather(*losers) if usage is not None]
        total = sum(known, Usage())
        if self._span.is_recording():  # a race that was left early closes after the spans of its flow
            self._span.add_event(
                semconv.LLMOPS_RACE_LOST_EVENT,
                {
                    semconv.LLMOPS_RACE_LOSERS: len(losers),
                    semconv.GEN_AI_USAGE_INPUT_TOKENS: total.input_tokens or 0,
                    semconv.GEN_AI_USAGE_OUTPUT_TOKENS: total.output_tokens or 0,
                },
            )


class _Race:
    """The heats of one race: which flows run, which failed, and who is next."""

    def __init__(self, effect: Contest, parent: AsyncDriver) -> None:
        self.delay_s = effect.delay_s
        self.waiting = [_child(flow, parent) for flow in reversed(effect.flows)]
        self.running: dict[asyncio.Task[Delta | End], AsyncDriver] = {}
        self.errors: list[BaseException] = []

    def start_next(self) -> None:
        driver = self.waiting.pop()
        self.running[asyncio.ensure_future(driver.advance())] = driver

    async def first(self) -> tuple[AsyncDriver, Delta | End] | BaseException:
        """Whoever first emits or returns; or the error of the race."""
        while self.waiting or self.running:
            if not self.running:
                self.start_next()
            patience = self.delay_s if self.waiting else None
            done, _ = await asyncio.wait(self.running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in self.running if task in done]:
                driver, error = self.running.pop(task), task.exception()
                if error is None:
                    return driver, task.result()
                if not isinstance(error, Exception) or (isinstance(error, DeadlineExceededError) and driver.late):
                    return error  # Ctrl-C and its like; or the time of the whole call is over, not only this flow's
                self.errors.append(error)
            if self.waiting:
                self.start_next()
        failed = AllModelsFailedError(self.errors)
        failed.__cause__ = self.errors[-1] if self.errors else None
        return failed

    def dismiss(self) -> list[asyncio.Task[Usage | None]]:
        """Close the flows that never ran and begin the clean-up of those that run."""
        for driver in self.waiting:
            driver.abandon()
        return [asyncio.ensure_future(_lose(task, driver)) for task, driver in self.running.items()]


async def _first_failed(workers: list[asyncio.Task[None]]) -> asyncio.Task[None] | None:
    """The first to fail, as soon as it has, or None when all have ended well. (`asyncio.wait` would pass over a worker
    in which user code raised CancelledError.)
    """
    told: asyncio.Future[asyncio.Task[None] | None] = asyncio.get_running_loop().create_future()
    left = len(workers)

    def note(worker: asyncio.Task[None]) -> None:
        nonlocal left
        left -= 1
        bad = worker.cancelled() or worker.exception() is not None
        if (bad or not left) and not told.done():
            told.set_result(worker if bad else None)

    for worker in workers:
        worker.add_done_callback(note)
    return await told


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have cleaned up. A second cancellation would cut the clean-up short, and a loop
    that ends cancels every task itself. (One that has failed already stays as it is, and asyncio does not report it.)
    """
    for task in tasks:
        if not task.cancelling():
            task.cancel()
    await asyncio.wait(tasks)


async def _lose(task: asyncio.Task[Delta | End], driver: AsyncDriver) -> Usage | None:
    """Cancel one loser and say what it had used, as far as it knows."""
    await _cancelled([task])
    if not driver.ended:
        await driver.cancel()
    answered = getattr(driver.result, "usage", None)
    return answered if answered is not None else driver.lost


async def contest(effect: Contest, parent: AsyncDriver) -> Won:
    """Run the flows of a race until one of them has won."""
    race = _Race(effect, parent)
    outcome = None
    try:
        outcome = await race.first()
        if isinstance(outcome, BaseException):
            raise outcome
    except BaseException:
        await asyncio.shield(asyncio.gather(*race.dismiss()))
        del outcome  # its traceback holds this frame
        raise
    return Won(*outcome, race.dismiss())


async def gather(effect: Gather, parent: AsyncDriver) -> list[Any]:
    """Run all flows, at most `limit` at a time. Raises the first error, unless errors are wanted as results."""
    if not effect.flows:
        return []
    results: list[Any] = [None] * len(effect.flows)
    queue = iter(list(enumerate(effect.flows)))
    width = min(effect.limit or len(results), len(results))
    workers = [asyncio.ensure_future(_work(queue, results, effect, parent)) for _ in range(width)]
    failed: asyncio.Task[None] | None = None
    try:
        failed = await _first_failed(workers)
        if failed is not None:
            failed.result()
        return results
    finally:
        await _cancelled(workers)
        for _, flow in queue:
            flow.close()
        failed = None  # it holds its error, whose traceback holds this frame
        workers.clear()


async def _work(
    queue: Iterator[tuple[int, Flow[Any]]], results: list[Any], effect: Gather, parent: AsyncDriver
) -> None:
    for place, flow in queue:
        child = _child(flow, parent)
        if effect.each_s is not None:
            child.deadline_s = sooner(child.deadline_s, effect.each_s)
        try:
            while await child.advance() is not END:
                pass
        except Exception as error:
            if not effect.return_errors:
                raise
            results[place] = error
        else:
            results[place] = child.result
    del results, parent  # they may come to hold errors, whose tracebacks hold this frame
