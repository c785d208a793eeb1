"""What layers stand on."""

from __future__ import annotations

from typing import Any

from llmops_sdk.checks import shown
from llmops_sdk.errors import UsageError
from llmops_sdk.flow import Model


def inner(layer: str, value: Any) -> Model:
    """`value`, where it is a model. Raises `UsageError`, which says how a model is made of a string."""
    if isinstance(value, Model):
        return value
    if isinstance(value, str):
        provider, colon, _ = value.partition(":")
        told = f"{provider[:20]}:…" if colon else "openai:…"
        raise UsageError(f'{layer} stands on a model; a string was given. Write {layer}(model("{told}")).')
    raise UsageError(f"{layer} stands on a model; {shown(value)} was given.")
