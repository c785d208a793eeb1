"""`Run`: all about a call that is not what is asked, and the spans that layers open inside a flow."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llmops_sdk.errors import FlowCancelled
from llmops_sdk.settings import Settings, current_settings
from llmops_sdk.tracing import Scope, current_scope, semconv, start_span

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind
    from opentelemetry.util.types import AttributeValue

    from llmops_sdk.flow.driver import Driver
    from llmops_sdk.tracing import RecordedSpan


class _Stepping(threading.local):
    """The driver that is stepping a flow on this thread. A step never awaits, so a thread-local is exact."""

    driver: Driver | None = None


stepping = _Stepping()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The circumstances of one call.

    Attributes:
        parent: OpenTelemetry context under which the call's spans stand; None is the caller's current one.
        scope: user, session, tenant, tags and overrides, from `using(…)`.
        deadline_s: `time.monotonic()` by which the call must have ended, or None.
        streaming: whether somebody reads deltas. A leaf emits only then.
        settings: the settings in force when the call began.
    """

    parent: Context | None = None
    scope: Scope = field(default_factory=current_scope)
    deadline_s: float | None = None
    streaming: bool = False
    settings: Settings = field(default_factory=current_settings)

    @classmethod
    def start(cls, *, streaming: bool = False, deadline_s: float | None = None, **fields: Any) -> Run:
        """A run that begins now; here `deadline_s` counts seconds from now."""
        at = None if deadline_s is None else time.monotonic() + deadline_s
        return cls(streaming=streaming, deadline_s=at, **fields)

    def within(self, seconds: float | None) -> Run:
        """The same run with at most so many seconds from now."""
        return self if seconds is None else replace(self, deadline_s=sooner(self.deadline_s, seconds))

    def quiet(self) -> Run:
        """The same run with nobody reading deltas: for a repair, a shadow, a judge."""
        return replace(self, streaming=False)

    def span(
        self, name: str, *, kind: SpanKind | None = None, attributes: Mapping[str, AttributeValue] | None = None
    ) -> FlowSpan:
        """A span for a `with` inside a flow. It is current while the driver performs what the flow then yields."""
        return FlowSpan(self, name, kind, attributes)


class FlowSpan:
    """Opens a span, puts it on its driver's stack, and ends it whichever way the flow leaves, even by `close()`."""

    __slots__ = ("_attributes", "_driver", "_kind", "_name", "_run", "_span")

    def __init__(
        self, run: Run, name: str, kind: SpanKind | None, attributes: Mapping[str, AttributeValue] | None
    ) -> None:
        self._run = run
        self._name = name
        self._kind = kind
        self._attributes = attributes

    def __enter__(self) -> RecordedSpan:
        driver = self._driver = stepping.driver
        context = self._run.parent if driver is None else driver.context
        if self._kind is None:
            span = start_span(self._name, context=context, attributes=self._attributes)
        else:
            span = start_span(self._name, kind=self._kind, context=context, attributes=self._attributes)
        self._span = span
        if driver is not None:
            driver.spans.append(span)
        return span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        span, driver = self._span, self._driver
        if driver is not None and span in driver.spans:
            driver.spans.remove(span)
        if isinstance(error, FlowCancelled | GeneratorExit):
            span.set_attribute(semconv.LLMOPS_CANCELLED, True)
        elif error is not None:
            span.record_error(error)
        span.end()


def sooner(deadline_s: float | None, seconds: float) -> float:
    """The earlier of a deadline, if there is one, and `seconds` from now; both `time.monotonic()` values."""
    at = time.monotonic() + seconds
    return at if deadline_s is None else min(deadline_s, at)


def caller() -> object:
    """Who drives the flow that asks: the thread of a synchronous call, the task of an asynchronous one, or None.

    A flow that would wait for another one of the same caller, half-read beneath it, would wait for ever.
    """
    driver = stepping.driver
    return None if driver is None else driver.caller()
