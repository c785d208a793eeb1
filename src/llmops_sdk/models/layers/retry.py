"""`Retried`: asks a model again after failures that may pass."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from llmops_sdk.checks import check_number
from llmops_sdk.errors import RetryableError
from llmops_sdk.flow import Model, Sleep
from llmops_sdk.models.layers.inner import inner
from llmops_sdk.tracing import semconv

if TYPE_CHECKING:
    from llmops_sdk.flow import Flow, Run
    from llmops_sdk.types import AnyRequest

LONGEST_WAIT_S: Final = 60.0
"""A provider that asks for more patience than this is not waited for: its error goes on, with its advice."""


class Retried(Model):
    """Asks `model` again after a `RetryableError`, at most `max_retries` times.

    Pauses grow from `pause_s` on, twofold and with jitter, up to `most_pause_s`; a provider's own advice (`Retry-After`) is
    followed instead. No pause is begun that the call's deadline would cut. After the first delta nothing is retried:
    such a failure is a `StreamInterruptedError`. `model(…)` puts this layer around remote models; a stack needs it once.
    """

    def __init__(self, model: Model, *, max_retries: int = 2, pause_s: float = 0.5, most_pause_s: float = 8.0) -> None:
        check_number("max_retries", max_retries, least=0, whole=True, optional=False)
        check_number("pause_s", pause_s, least=0, optional=False)
        check_number("most_pause_s", most_pause_s, least=0, optional=False)
        self.model = inner("Retried", model)
        self.max_retries = max_retries
        self.pause_s = pause_s
        self.most_pause_s = most_pause_s
        self.name = self.model.name

    def flow(self, request: AnyRequest, run: Run) -> Flow[Any]:
        """The first answer. A span stands over what is retried, with an event for each time."""
        try:
            return (yield from self.model.flow(request, run))
        except RetryableError as error:
            schedule = Schedule(self, run.deadline_s)
            pause_s = schedule.pause_s(error)
            failed = type(error).__name__
        with run.span(f"retry {self.name}") as span:
            while True:
                span.add_event(
                    semconv.LLMOPS_RETRY_EVENT,
                    {
                        semconv.LLMOPS_RETRY_ATTEMPT: schedule.attempt,
                        semconv.LLMOPS_RETRY_PAUSE_S: pause_s,
                        semconv.ERROR_TYPE: failed,
                    },
                )
                yield Sleep(pause_s)
                try:
                    return (yield from self.model.flow(request, run))
                except RetryableError as error:
                    pause_s = schedule.pause_s(error)
                    failed = type(error).__name__


class Schedule:
    """When to try again: tenacity's strategies, asked after each failure.

    Its `Retrying` itself keeps its state in the thread, and a stream may be read by several.
    """

    def __init__(self, layer: Retried, deadline_s: float | None) -> None:
        # Here and not above: it imports asyncio, and most calls never fail.
        from tenacity import RetryCallState, Retrying, stop_after_attempt
        from tenacity.wait import wait_random, wait_random_exponential

        self._deadline_s = deadline_s
        self._stop = stop_after_attempt(layer.max_retries + 1)
        self._backoff = wait_random_exponential(multiplier=layer.pause_s, max=layer.most_pause_s)
        self._late = wait_random
        self._state = RetryCallState(Retrying(), None, (), {})

    @property
    def attempt(self) -> int:
        """Number of the attempt that comes next; the first call was attempt 1."""
        return self._state.attempt_number

    def pause_s(self, error: RetryableError) -> float:
        """Seconds to wait before the next attempt. Raises `error` if there is to be none."""
        advice = error.retry_after_s
        if self._stop(self._state) or (advice or 0.0) > LONGEST_WAIT_S:
            raise error
        # Those who were told alike must not come back at once.
        wait = self._backoff if advice is None else self._late(advice, advice * 1.1)
        pause_s = float(wait(self._state))
        if self._deadline_s is not None and time.monotonic() + pause_s >= self._deadline_s:
            raise error
        self._state.prepare_for_next_attempt()
        return pause_s
