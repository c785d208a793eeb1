"""What leaves is redacted first: built-in patterns for secrets, and those of `configure(redact=…)`."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from llmops_sdk.tracing.secrets import redact_secrets

if TYPE_CHECKING:
    from llmops_sdk.settings import Redaction

REDACTED: Final = "[REDACTED]"


@functools.lru_cache(maxsize=16)
def redactor(further: tuple[Redaction, ...]) -> Callable[[str], str]:
    """A function from a text to the same without secrets. `further` are patterns that compile, or functions."""
    steps = tuple(_step(rule) for rule in further)

    def redact(text: str) -> str:
        text = redact_secrets(text)
        for step in steps:
            text = step(text)
        return text

    return redact


def _step(rule: Redaction) -> Callable[[str], str]:
    if not isinstance(rule, str):
        return rule
    pattern = re.compile(rule)
    return lambda text: pattern.sub(REDACTED, text)


def redacted_attributes(attributes: Mapping[str, Any] | None, redact: Callable[[str], str]) -> dict[str, Any]:
    """Attributes with every text redacted."""
    return {name: _redacted(value, redact) for name, value in (attributes or {}).items()}


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)  # JSON has no number for it
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_redacted(item, redact) for item in value]
    return value
