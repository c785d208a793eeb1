"""Where spans come from and where they go: one recorder a process.

`configure()` makes ours the global TracerProvider if none is set. A first span without it uses a private provider and
leaves the global one alone; when the host sets one later, the spans that follow go to that, with our recorder as one
added processor.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased

from llmops_sdk.tracing import semconv

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span
    from opentelemetry.trace import Tracer

    from llmops_sdk.settings import Settings
    from llmops_sdk.tracing.record import SpanRecord

    class Sink(Protocol):
        """Takes the spans that end: the store, and recorders in tests."""

        def take(self, record: SpanRecord) -> None: ...
        def flush(self, timeout_s: float) -> bool: ...


log = logging.getLogger("llmops_sdk")

TRACER: Final = "llmops_sdk"
NOT_KEPT: Final = object()
"""What `snapshot_of` answers where content is not kept."""

_OTLP_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class _Process:
    """The recorder of this process. `outlets` is made anew when the settings change."""

    lock = threading.RLock()
    outlets: _Outlets | None = None
    private: TracerProvider | None = None
    """Ours, whether it has become the global one or not."""
    fed: set[int] = set()  # noqa: RUF012 - one per process is the point
    """ids of the providers that have our processor; they live as long as the process."""
    payloads: dict[tuple[int, int], dict[str, Any]] = {}  # noqa: RUF012 - as above
    """Payloads of the spans that are ending at this moment, by (trace id, span id)."""
    sinks: tuple[Sink, ...] = ()
    """Further sinks of this process, beside the store."""


class _Outlets:
    """Where spans go under one set of settings."""

    def __init__(self, settings: Settings) -> None:
        from llmops_sdk.tracing.drain import store_drain
        from llmops_sdk.tracing.record import record_of
        from llmops_sdk.tracing.redaction import redactor
        from llmops_sdk.tracing.snapshot import snapshot

        self.record_of, self.snapshot = record_of, snapshot
        self.settings = settings
        self.redact = redactor(settings.redact)
        self.store: Sink | None = store_drain(settings) if settings.store and not settings.disabled else None
        self.otlp: SpanProcessor | None = None
        if settings.otlp is not None:
            from llmops_sdk.tracing.exporters import otlp_processor

            self.otlp = otlp_processor(settings.otlp)

    def flush(self, timeout_s: float) -> bool:
        done = self.otlp is None or self.otlp.force_flush(int(timeout_s * 1000))
        return (self.store is None or self.store.flush(timeout_s)) and done

    def close(self) -> None:
        """Send what is left. The store's thread goes on: other outlets may share it."""
        if self.store is not None:
            self.store.flush(5.0)
        if self.otlp is not None:
            self.otlp.shutdown()


def current_settings() -> Settings:
    """The settings in force. What the first span needs is imported by the first span."""
    from llmops_sdk.settings import current_settings

    return current_settings()


def _outlets() -> _Outlets:
    settings, outlets = current_settings(), _Process.outlets
    if outlets is not None and outlets.settings is settings:
        return outlets
    with _Process.lock:
        outlets = _Process.outlets
        if outlets is None or outlets.settings is not settings:
            if outlets is not None:
                outlets.close()
            outlets = _Process.outlets = _Outlets(settings)
        return outlets


class Recorder(SpanProcessor):
    """Our processor on a TracerProvider: adds the scope to spans that start, and hands on those that end."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Add user, session, tenant, tags and metadata."""
        from llmops_sdk.tracing.scope import current_scope

        told = current_scope(parent_context).attributes()
        if told:
            span.set_attributes(told)

    def on_end(self, span: ReadableSpan) -> None:
        """Hand the span to store, sinks and OTLP. A failure here is ours, and is logged, never raised."""
        try:
            outlets = _outlets()
            if outlets.settings.disabled:
                return
            if outlets.store is not None or _Process.sinks:
                ids = span.get_span_context()
                payload = _Process.payloads.get((ids.trace_id, ids.span_id), {}) if ids else {}
                record = outlets.record_of(span, payload, outlets.redact)
                for sink in (outlets.store, *_Process.sinks):
                    if sink is not None:
                        sink.take(record)
            if outlets.otlp is not None:
                outlets.otlp.on_end(span)
        except Exception:  # tracing never raises into the user's code
            log.warning("llmops: a span could not be recorded.", exc_info=True)

    def shutdown(self) -> None:
        """The provider ends: send what is left."""
        flush()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what is left, within the time."""
        return flush(timeout_millis / 1000)


class _SettingsSampler(Sampler):
    """Samples by `Settings.sample`; where it says 1, by OpenTelemetry's own variables."""

    def __init__(self, otherwise: Sampler) -> None:
        self._otherwise = otherwise
        self._share = -1.0
        self._by_share: Sampler = otherwise

    def should_sample(self, *args: Any, **kwargs: Any) -> Any:
        """Decide for one span."""
        share = current_settings().sample
        if share >= 1.0:
            return self._otherwise.should_sample(*args, **kwargs)
        if share != self._share:
            self._share, self._by_share = share, ParentBased(TraceIdRatioBased(share))
        return self._by_share.should_sample(*args, **kwargs)

    def get_description(self) -> str:
        """For people."""
        return f"llmops({self._otherwise.get_description()})"


def _private_provider() -> TracerProvider:
    """Our own provider, with the resource, limits and samplers that OpenTelemetry's variables ask for."""
    if _Process.private is None:
        with _Process.lock:
            if _Process.private is None:
                from opentelemetry.sdk.resources import Resource

                named = bool(os.environ.get("OTEL_SERVICE_NAME")) or "service.name=" in os.environ.get(
                    "OTEL_RESOURCE_ATTRIBUTES", ""
                )
                project = {} if named else {semconv.SERVICE_NAME: current_settings().project}
                provider = TracerProvider(resource=Resource.create(project), shutdown_on_exit=False)
                provider.sampler = _SettingsSampler(provider.sampler)
                if any(os.environ.get(name) for name in _OTLP_VARIABLES) and current_settings().otlp is None:
                    from llmops_sdk.tracing.exporters import otlp_processor

                    provider.add_span_processor(otlp_processor(None))
                _feed(provider)
                _Process.private = provider
                atexit.register(_end_of_process)
    return _Process.private


def _feed(provider: TracerProvider) -> None:
    """Put our processor on a provider, once."""
    with _Process.lock:
        if id(provider) not in _Process.fed:
            _Process.fed.add(id(provider))
            provider.add_span_processor(Recorder())
            atexit.register(flush)


def _host_provider() -> otel.TracerProvider | None:
    """The global provider, where there is one."""
    provider = otel.get_tracer_provider()
    return None if isinstance(provider, otel.ProxyTracerProvider) else provider


def tracer() -> Tracer:
    """The tracer of the provider in force: the global one if there is one, else our own."""
    if current_settings().disabled:
        return _PASS_THROUGH
    provider = _host_provider()
    if provider is None:
        provider = _private_provider()
    elif id(provider) not in _Process.fed and isinstance(provider, TracerProvider):
        _feed(provider)
    return provider.get_tracer(TRACER)


class _PassThrough(otel.NoOpTracer):
    """Records nothing; a span of it stands for its parent, so that trace ids go on to other services."""

    def start_span(self, name: str, context: Context | None = None, *args: Any, **kwargs: Any) -> otel.Span:
        """The parent, not recording."""
        return otel.NonRecordingSpan(otel.get_current_span(context).get_span_context())


_PASS_THROUGH: Final = _PassThrough()


def configure(**settings: Any) -> Settings:
    """Set what holds for the whole process, and make our TracerProvider the global one if the host has set none.

    Names and values are those of `Settings`; what is not given comes from `LLMOPS_*` variables and `[tool.llmops]`.
    Raises `UsageError` for an unknown name or a value that cannot be right, and changes nothing then.
    """
    from llmops_sdk.settings import load_settings, set_settings

    made = load_settings(**settings)
    set_settings(made)
    if not made.disabled:
        if _host_provider() is None:
            otel.set_tracer_provider(_private_provider())
        _outlets()
    return made


def flush(timeout_s: float = 10.0) -> bool:
    """Wait until what has ended is stored and sent; False if that took longer."""
    outlets, provider = _Process.outlets, _Process.private
    done = outlets is None or outlets.flush(timeout_s)
    if provider is not None and not _Flushing.now:
        _Flushing.now = True
        try:
            done = provider.force_flush(int(timeout_s * 1000)) and done
        finally:
            _Flushing.now = False
    return done


class _Flushing(threading.local):
    """Whether this thread is flushing a provider, whose processors flush us in turn."""

    now = False


def _end_of_process() -> None:
    if _Process.private is not None:
        flush()
        _Process.private.shutdown()


def keeps_content() -> bool:
    """Whether the settings let content be kept at all."""
    return current_settings().capture != "none"


def snapshot_of(value: Any) -> Any:
    """`value` as JSON and redacted, or `NOT_KEPT` where the settings keep no content."""
    outlets = _outlets()
    if not keeps_content():
        return NOT_KEPT
    try:
        return outlets.snapshot(value, outlets.redact)
    except Exception as error:  # a pattern of the user's, or a class that breaks reading its fields
        log.warning("llmops: content of a span could not be kept: %s.", type(error).__name__)
        return NOT_KEPT


def end(span: otel.Span, payload: dict[str, Any], end_time: int | None) -> None:
    """End a span. Its payload is at hand for our processor meanwhile, and leaves only as the settings allow."""
    if not payload or not span.is_recording():
        span.end(end_time)
        return
    capture = current_settings().capture
    if capture in ("span", "span_and_event"):
        span.set_attributes(_content(payload))
    if capture in ("event", "span_and_event"):
        _emit_event(span, payload)
    ids = span.get_span_context()
    key = (ids.trace_id, ids.span_id)
    _Process.payloads[key] = payload
    try:
        span.end(end_time)
    finally:
        _Process.payloads.pop(key, None)


def _content(payload: dict[str, Any]) -> dict[str, Any]:
    """Content as attributes: JSON text, as the conventions have it."""
    return {
        semconv.SLOTS.get(slot, f"llmops.{slot}"): value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False)
        for slot, value in payload.items()
    }


def _emit_event(span: otel.Span, payload: dict[str, Any]) -> None:
    """Content as a log event, where the host has a LoggerProvider; the API drops it otherwise."""
    from opentelemetry._logs import LogRecord, get_logger

    event = LogRecord(
        event_name=semconv.GEN_AI_DETAILS_EVENT,
        context=otel.set_span_in_context(span, otel_context.get_current()),
        attributes=_content(payload),
    )
    get_logger(TRACER).emit(event)


def add_sink(sink: Sink) -> Callable[[], None]:
    """Show every span that ends to `sink` too; what comes back takes it off."""
    with _Process.lock:
        _Process.sinks = (*_Process.sinks, sink)

    def remove() -> None:
        with _Process.lock:
            _Process.sinks = tuple(other for other in _Process.sinks if other is not sink)

    return remove


def _after_fork() -> None:
    _Process.lock = threading.RLock()
    _Process.payloads = {}


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)
