"""SmolLM2 as its package brings it: a real file, read right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import transformers

from llmops_sdk.local import open_model
from llmops_sdk.local.extras import without_progress_bars
from llmops_sdk.local.gguf import read_gguf
from llmops_sdk.local.tokenizer import ChatTokenizer, tokenizer_of_gguf
from llmops_sdk.local.weights import find_weights
from llmops_sdk.settings import Settings

if TYPE_CHECKING:
    from llmops_sdk.flow import Model

pytestmark = pytest.mark.weights

TEXTS = (
    "What does json.dumps do?",
    "  two spaces, 2024 and 3.14159\n\n\ttab",
    "naïve café 你好 🎉👩‍👩‍👧",
    "def f(x):\n    return x**2  # comment",
    "I'll we've they'd DON'T",
    "",
)


@pytest.fixture(scope="module")
def smollm2() -> Model:
    return open_model("smollm2", {}, {"temperature": 0})


@pytest.fixture(scope="module")
def path() -> Path:
    return find_weights("smollm2", Settings())


def test_it_knows_a_capital(smollm2: Model) -> None:
    """A wrong row, scale or position anywhere would make words of it, not this one."""
    response = smollm2.complete("What is the capital of France? Answer in one word.", max_tokens=8)
    assert "Paris" in response.text
    assert response.finish_reason == "stop"


def test_its_tokens_are_those_of_transformers(path: Path) -> None:
    """transformers reads the same tokenizer from the same file, by code of its own."""
    ours: ChatTokenizer = tokenizer_of_gguf(read_gguf(path))
    with without_progress_bars():
        theirs = transformers.AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    for text in TEXTS:
        turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
        wanted = theirs.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        assert ours.chat(turns) == theirs(wanted, add_special_tokens=False)["input_ids"]
