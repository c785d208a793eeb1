"""`Fallback`: the first model that answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from llmops_sdk.checks import check_number
from llmops_sdk.errors import AllModelsFailedError, RetryableError, UsageError
from llmops_sdk.flow import Model, Race, Sleep
from llmops_sdk.models.layers.inner import inner
from llmops_sdk.tracing import semconv

if TYPE_CHECKING:
    from llmops_sdk.flow import Flow, Run
    from llmops_sdk.types import AnyRequest


class Fallback(Model):
    """Asks `models` in order until one answers.

    A `RetryableError` leads to the next one, after `pause_s` seconds; every other error is raised. Once a delta has
    left, nothing is tried again. With `hedge_s` the next model starts that many seconds after the one before it, without
    waiting for it to fail, and the first to answer wins. Raises `AllModelsFailedError` with the errors of all.
    """

    def __init__(self, models: Sequence[Model], *, pause_s: float = 0.0, hedge_s: float | None = None) -> None:
        if isinstance(models, str | Model) or not isinstance(models, Iterable):
            raise UsageError('Fallback takes a list of models: Fallback([model("openai:…"), model("local:…")]).')
        check_number("pause_s", pause_s, least=0, optional=False)
        check_number("hedge_s", hedge_s, least=0)
        self.models = tuple(inner("Fallback", each) for each in models)
        if not self.models:
            raise UsageError("Fallback needs at least one model.")
        self.pause_s = pause_s
        self.hedge_s = hedge_s
        self.name = f"fallback({','.join(each.name for each in self.models)})"

    def flow(self, request: AnyRequest, run: Run) -> Flow[Any]:
        """The first answer."""
        asked = {semconv.LLMOPS_FALLBACK_MODELS: [model.name for model in self.models]}
        with run.span("fallback", attributes=asked) as span:
            if self.hedge_s is not None:
                flows = [model.flow(request, run) for model in self.models]
                return (yield Race(flows, self.hedge_s))
            errors: list[RetryableError] = []
            for model in self.models:
                if errors and self.pause_s > 0:
                    yield Sleep(self.pause_s)
                try:
                    response = yield from model.flow(request, run)
                except RetryableError as error:
                    errors.append(error)
                    span.add_event(
                        semconv.LLMOPS_FALLBACK_FAILED_EVENT,
                        {semconv.LLMOPS_MODEL: model.name, semconv.ERROR_TYPE: type(error).__name__},
                    )
                else:
                    span.set_attribute(semconv.LLMOPS_FALLBACK_ANSWERED, model.name)
                    return response
            raise AllModelsFailedError(errors) from errors[-1]
