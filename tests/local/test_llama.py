"""From GGUF to a network: the same numbers as the network that was written, and a refusal of what is not plain Llama."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tiny_gguf import VOCABULARY, tiny_network, write_gguf

from llmops_sdk.errors import StoreError, UnsupportedError
from llmops_sdk.local.chat_engine import ChatEngine
from llmops_sdk.local.linear import SplitLinear, split_linears

IDS = (1, 40, 41, 42, 43, 44, 45, 200, 2)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_written_network_comes_back(tied: bool, tmp_path: Path) -> None:
    """Names, the order of the rows of q and k, and the head that may share the embeddings: equal logits."""
    network = tiny_network(seed=4, tied=tied)
    engine = ChatEngine.load(write_gguf(tmp_path / "m.gguf", network))
    with torch.inference_mode():
        wanted = network(input_ids=torch.tensor([IDS])).logits[0, -1]
    found, _ = engine.step(IDS, None)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_tokens_one_by_one_see_what_tokens_at_once_see(weights: Path) -> None:
    """The cache holds what has been read: a step after others continues the same text."""
    engine = ChatEngine.load(weights)
    at_once, _ = engine.step(IDS, None)
    one_by_one: Any = None
    cache: Any = None
    for token in IDS:
        one_by_one, cache = engine.step((token,), cache)
    torch.testing.assert_close(one_by_one, at_once, rtol=1e-4, atol=1e-4)


def test_a_quantized_file_gives_the_network_of_its_quantized_weights(tmp_path: Path) -> None:
    network = tiny_network(seed=5)
    engine = ChatEngine.load(write_gguf(tmp_path / "q.gguf", network, stored_as=gguf.GGMLQuantizationType.Q8_0))
    found, _ = engine.step(IDS, None)
    with torch.inference_mode():
        wanted = network(input_ids=torch.tensor([IDS])).logits[0, -1]
    assert not torch.equal(found, wanted)
    assert torch.nn.functional.cosine_similarity(found, wanted, dim=0) > 0.99


@pytest.mark.parametrize(
    ("changed", "error", "why"),
    [
        ({"general.architecture": "mamba"}, UnsupportedError, "architecture 'mamba'"),
        ({"llama.rope.scaling.type": "yarn"}, UnsupportedError, "scaled positions"),
        ({"llama.block_count": 1}, UnsupportedError, r"llama with 'blk\.1\."),
        ({"llama.block_count": 3}, StoreError, r"no tensor 'blk\.2\."),
        ({"llama.block_count": 10**9}, StoreError, "block_count is 1000000000"),
        ({"llama.block_count": "two"}, StoreError, "block_count is 'two'"),
        ({"llama.context_length": None}, StoreError, "context_length is None"),
        ({"llama.feed_forward_length": 128}, StoreError, "has the shape"),
        ({"llama.embedding_length": 66}, StoreError, "fit"),
        ({"llama.attention.head_count": 3}, StoreError, "does not fit together"),
        ({"llama.rope.dimension_count": 8}, StoreError, "does not fit together"),
        ({"llama.rope.dimension_count": 10**9}, StoreError, "cannot be"),
        ({"llama.rope.freq_base": -1.0}, StoreError, "freq_base is -1.0"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, StoreError, "epsilon is nan"),
        ({"tokenizer.ggml.tokens": None}, StoreError, "list tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.tokens": [1, 2]}, StoreError, "list tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.token_type": ["a"]}, StoreError, "list tokenizer.ggml.token_type"),
        ({"tokenizer.ggml.token_type": [1]}, StoreError, "and 1 types"),
        ({"tokenizer.ggml.tokens": ["a"] * len(VOCABULARY)}, StoreError, "1 different tokens"),
        ({"tokenizer.ggml.merges": ["h e l"]}, StoreError, "not of two parts"),
        ({"tokenizer.ggml.merges": ["h x"]}, StoreError, "does not fit together"),
        ({"tokenizer.ggml.model": "llama"}, UnsupportedError, "tokenizer is llama/smollm"),
        ({"tokenizer.ggml.pre": "qwen2"}, UnsupportedError, "tokenizer is gpt2/qwen2"),
        ({"tokenizer.chat_template": None}, StoreError, "no chat template"),
        ({"tokenizer.chat_template": "{% for %}"}, StoreError, "does not parse"),
    ],
)
def test_what_would_answer_wrongly_is_refused(
    changed: dict[str, Any], error: type[Exception], why: str, network: Any, tmp_path: Path
) -> None:
    """A file whose parts do not fit, or that another engine must read, is never run half understood."""
    with pytest.raises(error, match=why):
        ChatEngine.load(write_gguf(tmp_path / "m.gguf", network, changed=changed))


def test_a_tensor_that_plain_llama_has_not_is_refused(network: Any, tmp_path: Path) -> None:
    """A bias that was left out would change every answer."""

    def with_bias(writer: gguf.GGUFWriter) -> None:
        writer.add_tensor("blk.0.attn_q.bias", np.zeros(64, dtype=np.float32))

    with pytest.raises(UnsupportedError, match=r"blk\.0\.attn_q\.bias"):
        ChatEngine.load(write_gguf(tmp_path / "m.gguf", network, more=with_bias))


def test_weights_that_are_no_numbers_are_noticed(tmp_path: Path) -> None:
    """The likeliest of NaN would be token 0, for ever."""
    network = tiny_network(seed=6)
    with torch.no_grad():
        network.model.norm.weight[3] = float("nan")
    engine = ChatEngine.load(write_gguf(tmp_path / "m.gguf", network))
    with pytest.raises(StoreError, match="weights are damaged"):
        engine.step(IDS, None)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_rows_in_parts_give_what_rows_at_once_give(threads: int) -> None:
    """The linear map of a single token is divided among threads; the numbers are those of torch's own."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(48, 30, bias=False), torch.nn.Linear(30, 7))
    plain = network[0]
    one, several = torch.randn(1, 1, 48), torch.randn(1, 9, 48)
    split_linears(network)
    assert isinstance(network[0], SplitLinear)
    assert network[0].weight is plain.weight
    assert type(network[1]) is torch.nn.Linear
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            torch.testing.assert_close(network[0](one), plain(one), rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(network[0](one[0, 0]), plain(one[0, 0]), rtol=1e-6, atol=1e-6)
            assert torch.equal(network[0](several), plain(several))
    finally:
        torch.set_num_threads(before)
