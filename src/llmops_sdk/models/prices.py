"""What an answer cost, by the price list of the package genai-prices, which comes with it; no network is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from llmops_sdk.types import Usage


class Price(NamedTuple):
    """A cost in US dollars, and the price list that it was computed by, with its date where that has one."""

    cost_usd: float
    source: str


def price_of(model: str, usage: Usage, base_url: str) -> Price | None:
    """What `usage` of `model` cost at the server behind `base_url`; cached tokens at their own price.

    None where it cannot be told: a server or model that is not in the list, usage that the server did not say, audio
    (whose tokens are not told apart by direction).
    """
    if usage.input_tokens is None or usage.output_tokens is None or usage.audio_tokens:
        return None
    import genai_prices

    counted = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    try:
        price = genai_prices.calc_price(counted, model_ref=model, provider_api_url=base_url)
    except (LookupError, ValueError):  # not in the list; counts that contradict each other
        return None
    updated = price.auto_update_timestamp
    dated = f" of {updated:%Y-%m-%d}" if updated is not None else ""
    return Price(float(price.total_price), f"genai-prices {genai_prices.__version__}{dated}")
