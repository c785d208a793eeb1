"""From what an OpenAI-compatible server says of a failure to our errors."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llmops_sdk.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilteredError,
    ContextTooLongError,
    MalformedResponseError,
    ModelError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitedError,
    RequestTimeoutError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from llmops_sdk.providers.keys import ApiKey

_MOST_SHOWN: Final = 500
_TOO_LONG: Final = re.compile(
    r"maximum context length|context[_ ](?:length|window|size)|exceed_context_size|prompt is too long", re.IGNORECASE
)
_FILTERED: Final = re.compile(r"content_filter|content_policy_violation|ResponsibleAIPolicyViolation")
_SPENT: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})


class Told(NamedTuple):
    """What a server said: a sentence, and its words for the kind."""

    message: str
    kinds: frozenset[str]
    status: int | None
    payload: Any


class Refusals:
    """Makes the errors of one model: its name stands in them, its key never does."""

    def __init__(self, name: str, api_key: ApiKey) -> None:
        self.name = name
        self._key = api_key

    def of_status(self, status: int, headers: Mapping[str, str], body: bytes) -> ModelError:
        """The error of a response that is none of 200 to 299."""
        told = self._told(body.decode("utf-8", "replace"))
        return self._error(status, told, retry_after_s=retry_after_s(headers))

    def inside(self, payload: dict[str, Any]) -> ModelError:
        """The error of an error object in a body or stream that began well."""
        told = self._told(json.dumps(payload))
        return self._error(told.status or _status_of(told.kinds), told, retry_after_s=None)

    def malformed(self, what: str, raw: Any) -> MalformedResponseError:
        """The error of a body that is not of the protocol."""
        shown = self._key.hide(what)
        return MalformedResponseError(
            f"{self.name} answered something that is no chat completion: {shown}. Check that the address is right.",
            raw=json.loads(self._key.hide(json.dumps(raw))),
        )

    def _told(self, text: str) -> Told:
        from llmops_sdk.tracing.secrets import redact_secrets

        text = redact_secrets(self._key.hide(text))
        try:
            payload: Any = json.loads(text)
        except (ValueError, RecursionError):
            return Told(_first_line(text), frozenset(), None, text[:2000])
        said = payload[0] if isinstance(payload, list) and payload else payload
        said = said if isinstance(said, dict) else {"message": str(said)}
        error = said.get("error", said)
        error = error if isinstance(error, dict) else {"message": str(error)}
        message = error.get("message") or error.get("detail") or said.get("message") or ""
        inner = error.get("innererror")
        code = inner.get("code") if isinstance(inner, dict) else None
        kinds = {str(kind) for kind in (error.get("type"), error.get("code"), code) if kind}
        status = _status(error.get("code")) or _status(error.get("status_code"))
        shown = message if isinstance(message, str) else json.dumps(message)
        return Told(shown.strip()[:_MOST_SHOWN], frozenset(kinds), status, payload)

    def _error(self, status: int, told: Told, *, retry_after_s: float | None) -> ModelError:
        said = f": {told.message}" if told.message else ""
        context: dict[str, Any] = {"status": status, "raw": told.payload}

        def sentence(what: str, advice: str) -> str:
            return f"{self.name} {what} (HTTP {status}){said.rstrip('.')}. {advice}"

        if status == 429:
            if told.kinds & _SPENT:
                message = sentence("has no quota left", "Waiting will not help: check the plan and its billing.")
                return RateLimitedError(message, retry_after_s=math.inf, **context)
            message = sentence("limits the rate of requests", "Ask less often, or raise max_retries.")
            return RateLimitedError(message, retry_after_s=retry_after_s, **context)
        if status == 408:
            message = sentence("gave up waiting for the request", "Try again.")
            return RequestTimeoutError(message, retry_after_s=retry_after_s, **context)
        if status == 501:
            return UnsupportedError(sentence("does not do this", "Use another model or server."), **context)
        if status >= 500 or status in (409, 425):
            message = sentence("failed or is overloaded on its side", "Try again, or elsewhere.")
            return OverloadedError(message, retry_after_s=retry_after_s, **context)
        if status < 400:
            return NotFoundError(sentence("answers with a redirect", "Give the address that it leads to."), **context)
        return self._refused(status, told, sentence, context)

    def _refused(self, status: int, told: Told, sentence: Any, context: dict[str, Any]) -> ModelError:
        """The error of a request that would fail again."""
        words = " ".join((told.message, *told.kinds))
        if status in (400, 413, 422) and _TOO_LONG.search(words):
            advice = "Shorten the input or max_tokens, or use a model with a longer context."
            return ContextTooLongError(sentence("cannot take so much input", advice), **context)
        if _FILTERED.search(words):
            return ContentFilteredError(sentence("filtered the request", "Change what is asked."), **context)
        if status == 401:
            advice = f"Check the key ({self._key.source}). {self._key.advice}"
            return AuthenticationError(sentence("refused the API key", advice), **context)
        if status == 403:
            advice = "Check what the key, its project and this country may use."
            return PermissionDeniedError(sentence("does not allow this", advice), **context)
        if status == 404:
            advice = "Check the model's name and the address, which usually ends with /v1."
            return NotFoundError(sentence("was not found", advice), **context)
        return BadRequestError(sentence("refused the request", "Change the request."), **context)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The server's advice on waiting, in seconds: `retry-after-ms`, or `Retry-After` in seconds or as a date."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit_s
        except ValueError:
            continue
        if 0 <= seconds < math.inf:
            return seconds
    date = headers.get("retry-after")
    if not date:
        return None
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _status(value: Any) -> int | None:
    """A status that stands in the place of a code, as vLLM and llama.cpp have it."""
    return value if isinstance(value, int) and 400 <= value <= 599 else None


def _status_of(kinds: frozenset[str]) -> int:
    """The status that a server would have sent, had the failure come before the first byte."""
    if kinds & {"rate_limit_exceeded", "rate_limit_error", "tokens", "requests", *_SPENT}:
        return 429
    if kinds & {"invalid_request_error", "BadRequestError", "context_length_exceeded", "content_filter"}:
        return 400
    return 503 if any("overload" in kind for kind in kinds) else 500


def _first_line(text: str) -> str:
    """What a page or a plain text says, without its markup."""
    return " ".join(re.sub(r"<[^>]*>", " ", text[:4000]).split())[:_MOST_SHOWN]
