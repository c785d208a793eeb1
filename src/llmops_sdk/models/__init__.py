"""Models by name, and what they stand on: transport, prices, structured output. Layers are in `models.layers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmops_sdk.lazy import bound_lazily

if TYPE_CHECKING:
    from llmops_sdk.models.opening import model
    from llmops_sdk.models.prices import Price, price_of
    from llmops_sdk.models.structured import output_schema, parse_output

__all__ = ["Price", "model", "output_schema", "parse_output", "price_of"]

__getattr__ = bound_lazily(
    __name__,
    {"opening": ("model",), "prices": ("Price", "price_of"), "structured": ("output_schema", "parse_output")},
)
