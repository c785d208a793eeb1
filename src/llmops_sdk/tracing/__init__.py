"""Spans: recorded with OpenTelemetry, kept in the local store, sent wherever OpenTelemetry sends.

This is the whole seam: what stands below is used from elsewhere only through these names, `semconv` and `genai`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmops_sdk.lazy import bound_lazily

if TYPE_CHECKING:
    from llmops_sdk.tracing.context import attach, attached, detach, extract, inject
    from llmops_sdk.tracing.exporters import RedactingExporter
    from llmops_sdk.tracing.record import EventRecord, SpanRecord
    from llmops_sdk.tracing.recorder import configure, flush
    from llmops_sdk.tracing.scope import Scope, current_scope, using
    from llmops_sdk.tracing.span import RecordedSpan, current_span, start_span
    from llmops_sdk.tracing.store import TraceStore

__all__ = [
    "EventRecord",
    "RecordedSpan",
    "RedactingExporter",
    "Scope",
    "SpanRecord",
    "TraceStore",
    "attach",
    "attached",
    "configure",
    "current_scope",
    "current_span",
    "detach",
    "extract",
    "flush",
    "inject",
    "start_span",
    "using",
]

__getattr__ = bound_lazily(
    __name__,
    {
        "context": ("attach", "attached", "detach", "extract", "inject"),
        "record": ("EventRecord", "SpanRecord"),
        "recorder": ("configure", "flush"),
        "exporters": ("RedactingExporter",),
        "scope": ("Scope", "current_scope", "using"),
        "span": ("RecordedSpan", "current_span", "start_span"),
        "store": ("TraceStore",),
    },
)
