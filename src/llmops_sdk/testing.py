"""What users test with: a model that answers from a script, and a recorder of spans."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from llmops_sdk.errors import UnsupportedError, UsageError
from llmops_sdk.flow import Assembly, Emit, Invoke, Model
from llmops_sdk.flow.assembly import deltas_of
from llmops_sdk.tracing.genai import record_request, record_response, request_attributes
from llmops_sdk.tracing.recorder import add_sink
from llmops_sdk.types import Request, Response

if TYPE_CHECKING:
    from llmops_sdk.flow import Flow, Run
    from llmops_sdk.tracing import SpanRecord
    from llmops_sdk.types import AnyRequest

Reply: TypeAlias = str | Response | Exception | Callable[[Request], Any]


class ScriptedModel(Model):
    """Answers with `replies`, in order, the last not repeated.

    A reply is the text, a `Response`, an exception to raise, or a function (plain or coroutine) of the request that
    returns one of these. Streams come word by word. `requests` holds what was asked so far. A call beyond the last reply
    raises `UsageError`.

        model = ScriptedModel(["Paris", RateLimitedError("slow down")])
    """

    def __init__(self, replies: Sequence[Reply], *, name: str = "scripted") -> None:
        if isinstance(replies, str):
            raise UsageError(f"ScriptedModel takes a list of replies; wrap the text: ScriptedModel([{replies!r}]).")
        self.name = name
        self.replies = tuple(replies)
        self.requests: list[Request] = []
        self._lock = threading.Lock()

    def flow(self, request: AnyRequest, run: Run) -> Flow[Response]:
        """The next reply."""
        if not isinstance(request, Request):
            raise UnsupportedError(f"{self.name} answers chat requests; this is {type(request).__name__}.")
        attributes = request_attributes(request, operation="chat", provider="scripted", model=self.name)
        with run.span(f"chat {self.name}", attributes=attributes) as span:
            record_request(span, request)
            response = yield from self._reply(request, run)
            record_response(span, response)
            return dataclasses.replace(response, trace_id=span.trace_id, span_id=span.span_id)

    def _reply(self, request: Request, run: Run) -> Flow[Response]:
        reply: Any = self._take(request)
        while callable(reply) and not isinstance(reply, Response | Exception):
            reply = yield Invoke(reply, (request,))
        if isinstance(reply, Exception):
            raise reply
        response = reply if isinstance(reply, Response) else Response.of(str(reply), model=self.name)
        if run.streaming:
            assembly = Assembly()
            for delta in deltas_of(response):
                assembly.add(delta)
                yield Emit(delta)
        return response

    def _take(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            if len(self.requests) > len(self.replies):
                raise UsageError(
                    f"{self.name} has {len(self.replies)} replies and this is call {len(self.requests)}: "
                    f"{request.text[:80]!r}. Give it as many replies as the test makes calls."
                )
            return self.replies[len(self.requests) - 1]


class SpanRecorder:
    """Collects the spans that end while it is open, in this process, whether or not a store is written.

    with SpanRecorder() as recorder:
        answer("…")
    assert recorder.by_name("prompt answer")[0].status == "ok"
    """

    def __init__(self) -> None:
        self._spans: list[SpanRecord] = []

    @property
    def spans(self) -> tuple[SpanRecord, ...]:
        """What has ended so far, in that order: children before their parents."""
        return tuple(self._spans)

    def by_name(self, name: str) -> list[SpanRecord]:
        """The spans of that name."""
        return [span for span in self._spans if span.name == name]

    def take(self, record: SpanRecord) -> None:
        """Called by the recorder of this process."""
        self._spans.append(record)

    def flush(self, timeout_s: float) -> bool:
        """Nothing waits here."""
        return True

    def __enter__(self) -> Self:
        self._remove = add_sink(self)
        return self

    def __exit__(self, *exc: object) -> None:
        self._remove()
