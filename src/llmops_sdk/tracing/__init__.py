"""Spans: recorded with OpenTelemetry, kept in the local store, sent wherever OpenTelemetry sends.

This is the whole seam: what stands below is used from elsewhere only through these names, `semconv` and `genai`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmops_sdk.tracing.context import attach, attached, detach, extract, inject
    from llmops_sdk.tracing.exporters import RedactingExporter
    from llmops_sdk.tracing.record import EventRecord, SpanRecord
    from llmops_sdk.tracing.recorder import configure, flush
    from llmops_sdk.tracing.scope import Scope, current_scope, using
    from llmops_sdk.tracing.span import RecordedSpan, current_span, start_span
    from llmops_sdk.tracing.store import TraceStore

_HOMES = {
    "context": ("attach", "attached", "detach", "extract", "inject"),
    "record": ("EventRecord", "SpanRecord"),
    "recorder": ("configure", "flush"),
    "exporters": ("RedactingExporter",),
    "scope": ("Scope", "current_scope", "using"),
    "span": ("RecordedSpan", "current_span", "start_span"),
    "store": ("TraceStore",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

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


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
