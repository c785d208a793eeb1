"""What spans pass through on their way to other backends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Link, Status

from llmops_sdk.settings import current_settings
from llmops_sdk.tracing.redaction import redacted_attributes, redactor

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExportResult

    from llmops_sdk.settings import Redaction


def otlp_processor(address: str | None) -> BatchSpanProcessor:
    """Sends spans by OTLP/HTTP, redacted, in batches; to where OpenTelemetry's own variables say without an address."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    exporter = OTLPSpanExporter() if address is None else OTLPSpanExporter(endpoint=f"{address.rstrip('/')}/v1/traces")
    return BatchSpanProcessor(RedactingExporter(exporter))


class RedactingExporter(SpanExporter):
    """Wraps a span exporter of your own: what it gets has no secrets in attributes, events, links, status and names.

    Args:
        exporter: any OpenTelemetry span exporter.
        redact: further regular expressions, or functions of a string; those of the settings by default.
    """

    def __init__(self, exporter: SpanExporter, redact: Sequence[Redaction] | None = None) -> None:
        self._exporter = exporter
        self._redact = None if redact is None else redactor(tuple(redact))

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Redact and pass on."""
        redact = self._redact or redactor(current_settings().redact)
        return self._exporter.export([_redacted_span(span, redact) for span in spans])

    def shutdown(self) -> None:
        """Shut the wrapped exporter down."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the wrapped exporter."""
        return self._exporter.force_flush(timeout_millis)


def _redacted_span(span: ReadableSpan, redact: Callable[[str], str]) -> ReadableSpan:
    status = span.status
    return ReadableSpan(
        name=redact(span.name),
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes=redacted_attributes(span.attributes, redact),
        events=[Event(redact(e.name), redacted_attributes(e.attributes, redact), e.timestamp) for e in span.events],
        links=[Link(link.context, redacted_attributes(link.attributes, redact)) for link in span.links],
        kind=span.kind,
        status=Status(status.status_code, redact(status.description)) if status.description else status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
