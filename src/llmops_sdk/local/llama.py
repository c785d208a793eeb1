"""The Llama architecture from GGUF into transformers' network of that name.

transformers can read GGUF by itself (`from_pretrained(gguf_file=…)`). Ours stands here because that way needs one more
package (accelerate), and for SmolLM2 on two cores takes four times as long (16 s against 4 s) and a quarter more memory.
The network and the arithmetic are transformers' own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from llmops_sdk.errors import StoreError, UnsupportedError
from llmops_sdk.local.extras import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmops_sdk.local.gguf import GGUF

MOST_LAYERS: Final = 1024
MOST_HEADS: Final = 1024
MOST_HEAD_DIMENSIONS: Final = 1024

_OF_LAYER: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def network_of_gguf(gguf: GGUF) -> tuple[Any, int]:
    """The network in float32, and how many tokens it can look at.

    Raises `UnsupportedError` for another architecture or scaled positions, `StoreError` where the parts do not fit.
    """
    torch, transformers = require("torch", "torch"), require("transformers", "torch")
    _check_architecture(gguf)
    settings = _settings(gguf)
    try:
        config = transformers.LlamaConfig(**settings)
        with torch.device("meta"):
            network = transformers.LlamaForCausalLM(config)
    except Exception as error:  # whatever the two raise for settings that no network can have
        raise StoreError(f"{gguf.path}: its settings do not fit together: {error}. Get the file again.") from error
    wanted = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    state = {}
    for name, stored in _names(gguf, config.num_hidden_layers).items():
        shape = gguf.tensors[stored].shape
        if shape != wanted.get(name):
            raise StoreError(
                f"{gguf.path}: {stored} has the shape {shape}; the file's own settings ask for {wanted.get(name)}. "
                f"Get the file again."
            )
        values = _unpermuted(gguf.load(stored), name, config)
        state[name] = torch.from_numpy(values if values.flags.writeable else values.copy())
    network.load_state_dict(state, assign=True, strict=False)
    network.tie_weights()
    # positions are computed, not stored; a network made without memory has none yet
    network.model.rotary_emb = type(network.model.rotary_emb)(config)
    assert not any(parameter.is_meta for parameter in network.parameters())
    return network.eval(), config.max_position_embeddings


def _check_architecture(gguf: GGUF) -> None:
    told = gguf.metadata
    architecture = told.get("general.architecture")
    kind = repr(architecture)
    if architecture == "llama":
        scaled = told.get("llama.rope.scaling.type", "none") != "none" or "llama.rope.scale_linear" in told
        wanted = set(_names(gguf, _whole(gguf, "block_count", MOST_LAYERS)).values())
        if missing := sorted(wanted - set(gguf.tensors)):
            raise StoreError(f"{gguf.path} has no tensor {missing[0]!r}: it is incomplete. Get the file again.")
        spare = sorted(set(gguf.tensors) - wanted)
        if not scaled and not spare:
            return
        kind = "llama with scaled positions" if scaled else f"llama with {spare[0]!r}"
    raise UnsupportedError(
        f"{gguf.path} is of the architecture {kind}; from GGUF this engine reads plain llama. Use the model as a folder "
        f"with .safetensors, or serve the file with llama.cpp: openai+http://localhost:8080/v1#name."
    )


def _settings(gguf: GGUF) -> dict[str, Any]:
    """The arguments of `LlamaConfig`. Raises `StoreError` for numbers that cannot be."""
    width, heads = _whole(gguf, "embedding_length"), _whole(gguf, "attention.head_count", MOST_HEADS)
    shared = _whole(gguf, "attention.head_count_kv", MOST_HEADS, default=heads)
    head = _whole(gguf, "attention.key_length", MOST_HEAD_DIMENSIONS, default=width // heads)
    turned = _whole(gguf, "rope.dimension_count", MOST_HEAD_DIMENSIONS, default=head)
    if heads % shared or head % 2 or turned != head or _whole(gguf, "attention.value_length", default=head) != head:
        raise StoreError(
            f"{gguf.path}: {heads} heads of {head} dimensions, {shared} of keys and values, {turned} dimensions turned "
            f"by position: that does not fit together. Get the file again."
        )
    tokens = gguf.metadata.get("tokenizer.ggml.tokens")
    return {
        "vocab_size": len(tokens) if isinstance(tokens, list) else 0,
        "hidden_size": width,
        "intermediate_size": _whole(gguf, "feed_forward_length"),
        "num_hidden_layers": _whole(gguf, "block_count", MOST_LAYERS),
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "head_dim": head,
        "max_position_embeddings": _whole(gguf, "context_length"),
        "rms_norm_eps": _positive(gguf, "attention.layer_norm_rms_epsilon", 1e-5),
        "rope_parameters": {"rope_type": "default", "rope_theta": _positive(gguf, "rope.freq_base", 10000.0)},
        "tie_word_embeddings": "output.weight" not in gguf.tensors,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def _whole(gguf: GGUF, name: str, most: int = 1 << 24, default: int | None = None) -> int:
    value = gguf.metadata.get(f"llama.{name}", default)
    if type(value) is not int or not 1 <= value <= most:
        raise StoreError(f"{gguf.path}: llama.{name} is {value!r}, which cannot be. Get the file again.")
    return value


def _positive(gguf: GGUF, name: str, default: float) -> float:
    value = gguf.metadata.get(f"llama.{name}", default)
    if type(value) is not float or not 0 < value < math.inf:
        raise StoreError(f"{gguf.path}: llama.{name} is {value!r}, which cannot be. Get the file again.")
    return value


def _names(gguf: GGUF, layers: int) -> dict[str, str]:
    """Name in the network: name in the file."""
    names = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if "output.weight" in gguf.tensors:
        names["lm_head.weight"] = "output.weight"
    for layer in range(layers):
        for stored, name in _OF_LAYER.items():
            names[f"model.layers.{layer}.{name}.weight"] = f"blk.{layer}.{stored}.weight"
    return names


def _unpermuted(values: NDArray[np.float32], name: str, config: Any) -> NDArray[np.float32]:
    """The converter to GGUF interleaves the two halves of each head's rows in q and k; here they are put apart again."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None or values.ndim != 2 or values.shape[0] % (2 * heads):
        return values
    rows, columns = values.shape
    return values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
