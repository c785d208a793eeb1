"""Models by name, and what they stand on: transport, prices, structured output. Layers are in `models.layers`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmops_sdk.models.opening import model
    from llmops_sdk.models.prices import Price, price_of
    from llmops_sdk.models.structured import output_schema, parse_output

_HOMES = {
    "model": "opening",
    "Price": "prices",
    "price_of": "prices",
    "output_schema": "structured",
    "parse_output": "structured",
}

__all__ = ["Price", "model", "output_schema", "parse_output", "price_of"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
