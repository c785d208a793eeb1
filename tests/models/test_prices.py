"""Prices, by the list that comes with genai-prices."""

from __future__ import annotations

import pytest

from llmops_sdk.models.prices import price_of
from llmops_sdk.types import Usage

OPENAI = "https://api.openai.com/v1"


def test_cached_tokens_have_a_price_of_their_own() -> None:
    """The same tokens cost less where the provider had them in its cache, and more output costs more."""
    plain = price_of("gpt-5-mini", Usage(input_tokens=1000, output_tokens=100), OPENAI)
    cached = price_of("gpt-5-mini", Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=800), OPENAI)
    longer = price_of("gpt-5-mini", Usage(input_tokens=1000, output_tokens=200), OPENAI)
    assert plain is not None
    assert cached is not None
    assert longer is not None
    assert 0 < cached.cost_usd < plain.cost_usd < longer.cost_usd
    assert plain.source.startswith("genai-prices ")


def test_a_dated_name_of_a_model_is_known_as_the_model() -> None:
    """Providers answer with the dated name."""
    usage = Usage(input_tokens=10, output_tokens=1)
    assert price_of("gpt-5-mini-2025-08-07", usage, OPENAI) == price_of("gpt-5-mini", usage, OPENAI)


@pytest.mark.parametrize(
    ("model", "usage", "base_url"),
    [
        ("no-such-model", Usage(input_tokens=1, output_tokens=1), OPENAI),
        ("gpt-5-mini", Usage(input_tokens=1, output_tokens=1), "http://127.0.0.1:8000/v1"),
        ("gpt-5-mini", Usage(), OPENAI),
        ("gpt-5-mini", Usage(input_tokens=1), OPENAI),
        ("gpt-5-mini", Usage(input_tokens=9, output_tokens=1, audio_tokens=5), OPENAI),
        ("gpt-5-mini", Usage(input_tokens=1, output_tokens=1, cache_read_tokens=50), OPENAI),
    ],
    ids=["model", "server", "no usage", "half a usage", "audio", "contradiction"],
)
def test_what_cannot_be_told_is_none(model: str, usage: Usage, base_url: str) -> None:
    """A wrong cost is worse than none."""
    assert price_of(model, usage, base_url) is None
