"""`SpanRecord`: one span that has ended, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from opentelemetry.trace import StatusCode, format_span_id, format_trace_id

from llmops_sdk.tracing import semconv
from llmops_sdk.tracing.redaction import redacted_attributes

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

State: TypeAlias = Literal["unset", "ok", "error"]
_STATES: Final[Mapping[StatusCode, State]] = {
    StatusCode.UNSET: "unset",
    StatusCode.OK: "ok",
    StatusCode.ERROR: "error",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """Something that happened during a span. `time_ns` is Unix time."""

    name: str
    time_ns: int
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanRecord:
    """A span that has ended.

    Attributes:
        trace_id, span_id, parent_id: hex; `parent_id` is "" for a root.
        kind: as OpenTelemetry names it, in lower case: internal, client, server, producer, consumer.
        start_ns, end_ns: Unix time.
        links: (trace_id, span_id, attributes).
        payload: what was asked and answered, by slot (`semconv.SLOTS`).
        service: `service.name` of the resource.
        scope: name of the instrumentation that made the span.
    """

    trace_id: str
    span_id: str
    parent_id: str = ""
    name: str
    kind: str = "internal"
    start_ns: int
    end_ns: int
    status: State = "unset"
    status_message: str = ""
    attributes: Mapping[str, Any]
    events: tuple[EventRecord, ...] = ()
    links: tuple[tuple[str, str, Mapping[str, Any]], ...] = ()
    payload: Mapping[str, Any]
    service: str = ""
    scope: str = ""

    @property
    def duration_s(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9


def record_of(span: ReadableSpan, payload: Mapping[str, Any], redact: Callable[[str], str]) -> SpanRecord:
    """An ended span as a record, its texts redacted. What the payload holds is not repeated among the attributes."""
    ids, status = span.get_span_context(), span.status
    assert ids is not None
    doubled = {semconv.SLOTS[slot] for slot in payload if slot in semconv.SLOTS}
    attributes = {name: value for name, value in (span.attributes or {}).items() if name not in doubled}
    return SpanRecord(
        trace_id=format_trace_id(ids.trace_id),
        span_id=format_span_id(ids.span_id),
        parent_id="" if span.parent is None else format_span_id(span.parent.span_id),
        name=redact(span.name),
        kind=span.kind.name.lower(),
        start_ns=span.start_time or 0,
        end_ns=span.end_time or 0,
        status=_STATES[status.status_code],
        status_message=redact(status.description or ""),
        attributes=redacted_attributes(attributes, redact),
        events=tuple(
            EventRecord(
                name=redact(event.name),
                time_ns=event.timestamp,
                attributes=redacted_attributes(event.attributes, redact),
            )
            for event in span.events
        ),
        links=tuple(
            (
                format_trace_id(link.context.trace_id),
                format_span_id(link.context.span_id),
                redacted_attributes(link.attributes, redact),
            )
            for link in span.links
        ),
        payload=payload,
        service=str(span.resource.attributes.get(semconv.SERVICE_NAME, "")),
        scope=span.instrumentation_scope.name if span.instrumentation_scope else "",
    )
