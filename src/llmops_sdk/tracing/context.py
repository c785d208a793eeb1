"""Context in one process and across processes: attach and detach without noise, W3C inject and extract."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING

from opentelemetry import context as otel_context

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context


def attach(context: Context) -> Token[Context]:
    """Make `context` current; `detach` what comes back."""
    return otel_context.attach(context)


def detach(token: Token[Context]) -> None:
    """Make current what was before, if this is still the same thread of execution.

    OpenTelemetry's own function logs an error where a generator was closed by another task, or by the garbage
    collector. There is nothing to restore there: that task never had this context.
    """
    try:
        otel_context._RUNTIME_CONTEXT.detach(token)  # noqa: SLF001 - the public one logs instead of raising
    except (ValueError, RuntimeError):
        return


@contextlib.contextmanager
def attached(context: Context) -> Iterator[None]:
    """Make `context` current for a block."""
    token = attach(context)
    try:
        yield
    finally:
        detach(token)


def inject(carrier: MutableMapping[str, str], context: Context | None = None) -> None:
    """Write `traceparent` (and baggage, where there is any) of the current context into headers."""
    from opentelemetry import propagate

    propagate.inject(carrier, context=context)


def extract(carrier: Mapping[str, str]) -> Context:
    """The context that headers tell of; without or with malformed `traceparent`, the current one.

    with attached(extract(request.headers)):
        ...
    """
    from opentelemetry import propagate

    return propagate.extract(carrier)
