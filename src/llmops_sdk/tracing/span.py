"""`RecordedSpan`: an OpenTelemetry span with a slot for content that attributes must not carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import trace as otel
from opentelemetry.context import get_current
from opentelemetry.trace import SpanKind, StatusCode

from llmops_sdk.tracing import recorder, semconv

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanContext, Status
    from opentelemetry.util.types import Attributes, AttributeValue


class RecordedSpan(otel.Span):
    """A span of OpenTelemetry, whoever made it, with its ids as hex and a payload.

    The payload holds what was asked and answered. It goes to the local store; onto attributes only where the settings
    allow it. Nothing here raises into the caller's code.
    """

    __slots__ = ("_context", "_parent", "_payload", "_span", "span_id", "trace_id")

    def __init__(self, span: otel.Span, context: Context | None = None) -> None:
        self._span = span
        self._payload: dict[str, Any] = {}
        ids = span.get_span_context()
        self.trace_id = otel.format_trace_id(ids.trace_id) if ids.is_valid else ""
        self.span_id = otel.format_span_id(ids.span_id) if ids.is_valid else ""
        self._parent = get_current() if context is None else context
        self._context: Context | None = None

    @property
    def otel_context(self) -> Context:
        """The context in which this span is the current one."""
        if self._context is None:
            self._context = otel.set_span_in_context(self, self._parent)
        return self._context

    def set_payload(self, slot: str, value: Any) -> None:
        """Keep `value` as it is now under one of the names of `semconv.SLOTS`."""
        if self._span.is_recording() and (kept := recorder.snapshot_of(value)) is not recorder.NOT_KEPT:
            self._payload[slot] = kept

    def record_error(self, error: BaseException) -> None:
        """The error as an exception event, as `error.type`, and as the status.

        Its message and traceback are left out where no content is kept, or where its `__str__` raises.
        """
        name = type(error).__qualname__
        self._span.set_attribute(semconv.ERROR_TYPE, name)
        try:
            told = str(error) if recorder.keeps_content() else None
        except Exception:  # any code of the user's
            told = None
        if told is None:
            self._span.add_event("exception", {"exception.type": name})
            self._span.set_status(StatusCode.ERROR, name)
        else:
            self._span.record_exception(error)
            self._span.set_status(StatusCode.ERROR, f"{type(error).__name__}: {told}")

    # The interface of OpenTelemetry.

    def end(self, end_time: int | None = None) -> None:
        """End the span; only the first time counts."""
        recorder.end(self._span, self._payload, end_time)
        self._payload = {}
        self._context = None  # it refers to this span: together they would wait for the garbage collector

    def get_span_context(self) -> SpanContext:
        return self._span.get_span_context()

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        self._span.set_attributes(attributes)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        self._span.set_attribute(key, value)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        self._span.add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        self._span.add_link(context, attributes)

    def update_name(self, name: str) -> None:
        self._span.update_name(name)

    def is_recording(self) -> bool:
        return self._span.is_recording()

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        self._span.set_status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        self._span.record_exception(exception, attributes, timestamp, escaped)

    def __repr__(self) -> str:
        return f"<RecordedSpan {self.trace_id}/{self.span_id}>"


def start_span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    context: Context | None = None,
    attributes: Mapping[str, AttributeValue] | None = None,
) -> RecordedSpan:
    """Start a span under the one of `context`, by default the current one. It is not made current: attach `otel_context`."""
    return RecordedSpan(recorder.tracer().start_span(name, context=context, kind=kind, attributes=attributes), context)


def current_span() -> RecordedSpan:
    """The current span, with `.trace_id` and `.span_id` as hex; one that records nothing where there is none."""
    span = otel.get_current_span()
    return span if isinstance(span, RecordedSpan) else RecordedSpan(span)
