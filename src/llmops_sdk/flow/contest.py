"""`Race` and `Gather` on an event loop: several flows of one call at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from llmops_sdk.errors import AllModelsFailedError, DeadlineExceededError
from llmops_sdk.flow.effects import END, Contest, End, Gather
from llmops_sdk.tracing import current_span
from llmops_sdk.types import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmops_sdk.flow.async_driver import AsyncDriver
    from llmops_sdk.flow.effects import Flow
    from llmops_sdk.types import Delta


def _child(flow: Flow[Any], parent: AsyncDriver) -> AsyncDriver:
    """A driver of an inner flow, under the parent's open span and within its time."""
    child = type(parent)(flow, parent.run, parent.context, serves_sync=parent.serves_sync)
    child.deadline_s = parent.deadline_s
    return child


class Won:
    """The winner of a race, as a source of its deltas. Meanwhile the losers clean up; then their usage is said."""

    def __init__(self, driver: AsyncDriver, first: Delta | End, losers: list[asyncio.Task[Usage | None]]) -> None:
        self._driver = driver
        self._first: Delta | End | None = first
        self._losers = losers

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
        current_span().add_event(
            "llmops.race.lost",
            {
                "llmops.race.losers": len(losers),
                "gen_ai.usage.input_tokens": total.input_tokens or 0,
                "gen_ai.usage.output_tokens": total.output_tokens or 0,
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

    async def first(self) -> tuple[AsyncDriver, Delta | End]:
        """Whoever first emits or returns. Raises `AllModelsFailedError`."""
        while self.waiting or self.running:
            if not self.running:
                self.start_next()
            patience = self.delay_s if self.waiting else None
            done, _ = await asyncio.wait(self.running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in self.running if task in done]:
                error = task.exception()
                if error is None:
                    return self.running.pop(task), task.result()
                del self.running[task]
                if isinstance(error, DeadlineExceededError):
                    raise error  # the time of the whole call is over, not only this flow's
                self.errors.append(error)
            if self.waiting and (not done or self.errors):
                self.start_next()
        raise AllModelsFailedError(self.errors) from (self.errors[-1] if self.errors else None)

    def dismiss(self) -> list[asyncio.Task[Usage | None]]:
        """Close the flows that never ran and begin the clean-up of those that run."""
        for driver in self.waiting:
            driver.abandon()
        return [asyncio.ensure_future(_lose(task, driver)) for task, driver in self.running.items()]


async def _lose(task: asyncio.Task[Delta | End], driver: AsyncDriver) -> Usage | None:
    """Cancel one loser and say what it had used, as far as it knows."""
    task.cancel()
    await asyncio.wait([task])
    if not driver.ended:
        await driver.cancel()
    answered = getattr(driver.result, "usage", None)
    return answered if answered is not None else driver.lost


async def contest(effect: Contest, parent: AsyncDriver) -> Won:
    """Run the flows of a race until one of them has won."""
    race = _Race(effect, parent)
    try:
        driver, first = await race.first()
    except BaseException:
        await asyncio.shield(asyncio.gather(*race.dismiss()))
        raise
    return Won(driver, first, race.dismiss())


async def gather(effect: Gather, parent: AsyncDriver) -> list[Any]:
    """Run all flows, at most `limit` at a time. Raises the first error, unless errors are wanted as results."""
    results: list[Any] = [None] * len(effect.flows)
    queue = iter(list(enumerate(effect.flows)))
    width = min(effect.limit or len(results), len(results))
    workers = [asyncio.ensure_future(_work(queue, results, effect, parent)) for _ in range(width)]
    try:
        if workers:
            done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            for worker in done:
                worker.result()
        return results
    finally:
        for worker in workers:
            worker.cancel()
        if workers:
            await asyncio.wait(workers)
        for _, flow in queue:
            flow.close()
        for worker in workers:
            if not worker.cancelled():
                worker.exception()  # looked at, so that a second failure is not reported as never retrieved


async def _work(
    queue: Iterator[tuple[int, Flow[Any]]], results: list[Any], effect: Gather, parent: AsyncDriver
) -> None:
    for place, flow in queue:
        child = _child(flow, parent)
        try:
            while await child.advance() is not END:
                pass
        except Exception as error:
            if not effect.return_errors:
                raise
            results[place] = error
        else:
            results[place] = child.result
