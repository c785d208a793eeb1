"""A Llama small enough to make anew in a test, and a writer of GGUF files for it: the gguf package's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tokenizers
import torch
import transformers
from gguf.quants import quantize

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("h e", "l l", "he ll", "Ġ hell", "i m")
VOCABULARY = (
    *SPECIALS,
    *sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
    *(merge.replace(" ", "") for merge in MERGES),
)
CONTEXT_TOKENS = 128

_IN_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def tiny_network(*, seed: int = 0, tied: bool = True) -> Any:
    """Random weights; the tokens that end an answer get no weight, so that it seldom ends by itself."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=tied,
        initializer_range=0.5,
    )
    network: Any = transformers.LlamaForCausalLM(config)
    network.eval()
    with torch.no_grad():
        for ending in (0, 2):
            network.lm_head.weight[ending] = 0
    return network


def interleaved(weights: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """The order of rows in which converters to GGUF write q and k of the Llama architecture."""
    rows, columns = weights.shape
    return weights.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(
    path: Path,
    network: Any,
    *,
    changed: Mapping[str, Any] | None = None,
    stored_as: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    more: Callable[[gguf.GGUFWriter], None] | None = None,
) -> Path:
    """Write `network` with its tokenizer; `changed` replaces parts of the metadata, None leaves one out."""
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in (_metadata(network.config) | dict(changed or {})).items():
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif value is not None:
            writer.add_array(name, value)
    for name, values in _tensors(network).items():
        kind = stored_as if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)
    if more is not None:
        more(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _metadata(config: Any) -> dict[str, Any]:
    return {
        "llama.block_count": config.num_hidden_layers,
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "llama.rope.dimension_count": config.head_dim,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": list(VOCABULARY),
        "tokenizer.ggml.token_type": [3 if token in SPECIALS else 1 for token in VOCABULARY],
        "tokenizer.ggml.merges": list(MERGES),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": CHATML,
    }


def _tensors(network: Any) -> dict[str, np.ndarray[Any, Any]]:
    config = network.config
    found = {}
    for name, parameter in network.named_parameters():
        values = parameter.detach().numpy()
        place = name.removesuffix(".weight")
        if place.endswith("q_proj"):
            values = interleaved(values, config.num_attention_heads)
        elif place.endswith("k_proj"):
            values = interleaved(values, config.num_key_value_heads)
        if place in _OUTSIDE:
            stored = _OUTSIDE[place]
        else:
            _, _, layer, inside = place.split(".", 3)
            stored = f"blk.{layer}.{_IN_LAYER[inside]}"
        found[f"{stored}.weight"] = np.ascontiguousarray(values)
    return found
