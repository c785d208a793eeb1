"""`Cached`: a model that answers equal requests once."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from llmops_sdk.checks import check_number, shown
from llmops_sdk.errors import StoreError, UsageError, fresh
from llmops_sdk.flow import Block, Emit, Model, Wait, tap
from llmops_sdk.flow.assembly import deltas_of
from llmops_sdk.models.layers.exact_cache import ExactCache
from llmops_sdk.models.layers.inner import inner
from llmops_sdk.tracing import semconv
from llmops_sdk.tracing.genai import record_request, record_response
from llmops_sdk.types import Request, Response, Usage

if TYPE_CHECKING:
    from llmops_sdk.flow import Flow, Run
    from llmops_sdk.models.layers.exact_cache import Entry
    from llmops_sdk.models.layers.single_flight import Flight
    from llmops_sdk.tracing import RecordedSpan
    from llmops_sdk.types import AnyRequest, Delta

log = logging.getLogger("llmops_sdk")


class Cached(Model):
    """Answers from `cache` where it can, else asks `model` and stores what it said.

    Of equal requests under way at once, one is asked and the others wait for its answer, for at most `lease_s` seconds.
    A stream is stored when it has ended well, and replayed as a stream. Errors and refusals are never stored. A hit has
    `cached=True`, no tokens and no cost. A cache that fails is a miss, said on the span, and in the log
    once for each cache and reason.
    """

    def __init__(self, model: Model, *, cache: ExactCache, lease_s: float = 60.0) -> None:
        if not isinstance(cache, ExactCache):
            raise UsageError(f"Cached keeps answers in an ExactCache: cache=ExactCache(…); it is {shown(cache)}.")
        check_number("lease_s", lease_s, least=0, optional=False)
        self.model = inner("Cached", model)
        self.cache = cache
        self.lease_s = lease_s
        self.name = self.model.name

    def flow(self, request: AnyRequest, run: Run) -> Flow[Any]:
        """A stored answer, the answer of an equal request under way, or the model's."""
        if not isinstance(request, Request):
            return (yield from self.model.flow(request, run))
        key = self.cache.key(request, model=self.model.name)
        with run.span(f"cache {self.name}") as span:
            while True:
                entry = yield from self._stored(key, span)
                if entry is not None:
                    return (yield from _replay(entry, request, run, span))
                flight, leads = self.cache.flights.join(key)
                if leads and (entry := self.cache.recall(key)) is not None:
                    flight.land(entry)  # another flight landed between the look-up and this one
                    continue
                if leads or flight.is_of_caller():
                    break
                try:
                    landed = yield Wait(flight.future, self.lease_s)
                except TimeoutError:
                    break  # the leader is too slow: go alone
                if landed.error is not None:
                    raise fresh(landed.error)
                if landed.value is not None:
                    return (yield from _replay(landed.value, request, run, span))
            span.set_attribute(semconv.LLMOPS_CACHE_RESULT, "miss")
            return (yield from self._ask(request, run, key, flight if leads else None, span))

    def _stored(self, key: str, span: RecordedSpan) -> Flow[Entry | None]:
        entry = self.cache.recall(key)
        if entry is None and not self.cache.memory_only:
            try:
                entry = yield Block(lambda: self.cache.lookup(key))
            except StoreError as error:
                self._tell(error, span)
        return entry

    def _ask(
        self, request: Request, run: Run, key: str, flight: Flight[Entry] | None, span: RecordedSpan
    ) -> Flow[Response]:
        deltas: list[Delta] = []
        try:
            flow = self.model.flow(request, run)
            response: Response = yield from (tap(flow, deltas.append) if run.streaming else flow)
            entry = self.cache.entry(response, tuple(deltas))
            if storable(response):
                self.cache.remember(key, entry)
            if flight is not None:
                flight.land(entry)
            if storable(response) and not self.cache.memory_only:
                try:
                    yield Block(lambda: self.cache.write(key, entry))
                except StoreError as error:
                    self._tell(error, span)
        except Exception as error:
            if flight is not None:
                flight.fail(error)
            raise
        finally:
            if flight is not None:
                flight.abandon()
        return response

    def _tell(self, error: StoreError, span: RecordedSpan) -> None:
        """Say on the span that the cache failed, and in the log once for each cache and reason."""
        span.set_attribute(semconv.LLMOPS_CACHE_ERROR, str(error))
        if self.cache.is_news(error):
            log.warning("llmops: %s Calls go on without it; this is said once.", error)


def storable(response: Response) -> bool:
    """Whether an answer may be given again: it ended by itself, and is no refusal."""
    return response.finish_reason in ("stop", "length", "tool_calls") and not response.refused


def _replay(entry: Entry, request: Request, run: Run, span: RecordedSpan) -> Flow[Response]:
    """Give a stored answer, as a stream where one is read."""
    stored = entry.response
    response = dataclasses.replace(
        stored,
        cached=True,
        cost_usd=0.0,
        usage=Usage(input_tokens=0, output_tokens=0),
        trace_id=span.trace_id,
        span_id=span.span_id,
    )
    span.set_attribute(semconv.LLMOPS_CACHE_RESULT, "hit")
    for name, saved in (
        (semconv.LLMOPS_CACHE_SAVED_INPUT_TOKENS, stored.usage.input_tokens),
        (semconv.LLMOPS_CACHE_SAVED_OUTPUT_TOKENS, stored.usage.output_tokens),
    ):
        if saved is not None:
            span.set_attribute(name, saved)
    record_request(span, request)
    if run.streaming:
        for delta in entry.deltas or deltas_of(stored):
            yield Emit(delta if delta.usage is None else delta._replace(usage=response.usage))
    record_response(span, response)
    return response
