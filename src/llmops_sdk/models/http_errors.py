"""From httpx's errors to ours."""

from __future__ import annotations

import time

import httpx

from llmops_sdk.errors import (
    ConnectionFailedError,
    DeadlineExceededError,
    LLMOpsError,
    MalformedResponseError,
    RequestTimeoutError,
    UsageError,
)


def translated(error: Exception, request: httpx.Request, deadline_s: float | None) -> LLMOpsError:
    """Our error for one of httpx's. Its text names the server, and nothing of headers or content."""
    where = f"{request.url.scheme}://{request.url.netloc.decode('ascii', 'replace')}"
    if deadline_s is not None and time.monotonic() >= deadline_s - 0.001:
        return DeadlineExceededError(f"The deadline of the call passed while {where} was asked. Give it more time.")
    if isinstance(error, httpx.TimeoutException):
        phase = type(error).__name__.removesuffix("Timeout").lower()
        seconds = request.extensions["timeout"][phase]
        return RequestTimeoutError(f"{where} took longer than {seconds:g} s ({phase}). Raise timeout_s, or try again.")
    if isinstance(error, httpx.DecodingError):
        return MalformedResponseError(f"{where} sent a body that is not encoded as it says: {error}.")
    if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol | httpx.InvalidURL):
        return UsageError(f"The request to {where} cannot be sent: its address or a header is not valid HTTP.")
    if isinstance(error, httpx.ConnectError | httpx.ProxyError):
        return ConnectionFailedError(f"{where} cannot be reached: {error or type(error).__name__}. Is it running?")
    return ConnectionFailedError(f"The connection to {where} broke: {error or type(error).__name__}. Try again.")


def hidden(error: Exception) -> Exception | None:
    """The cause to show: httpx quotes a header that is not valid HTTP, which may be the key."""
    return None if isinstance(error, httpx.LocalProtocolError) else error
