"""The Llama architecture from GGUF into transformers' network of that name, without a second copy of the file's parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llmops_sdk.errors import StoreError, UnsupportedError
from llmops_sdk.local.extras import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmops_sdk.local.gguf import GGUF

MOST_LAYERS: Final = 1024

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
    architecture = gguf.metadata.get("general.architecture")
    scaled = gguf.metadata.get("llama.rope.scaling.type", "none") != "none" or "rope_freqs.weight" in gguf.tensors
    if architecture != "llama" or scaled:
        told = "llama with scaled positions" if architecture == "llama" else repr(architecture)
        raise UnsupportedError(
            f"{gguf.path} is of the architecture {told}; from GGUF this engine reads llama without scaling. Use the model "
            f"as a folder with .safetensors, or serve the file with llama.cpp: openai+http://localhost:8080/v1#name."
        )
    config = transformers.LlamaConfig(**_settings(gguf))
    with torch.device("meta"):
        network = transformers.LlamaForCausalLM(config)
    wanted = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    state = {}
    for name, stored in _names(gguf, config.num_hidden_layers).items():
        values = _unpermuted(gguf.load(stored), name, config)
        if values.shape != wanted.get(name):
            raise StoreError(
                f"{gguf.path}: {stored} has the shape {values.shape}; the file's own settings ask for {wanted.get(name)}. "
                f"Get the file again."
            )
        state[name] = torch.tensor(values)
    network.load_state_dict(state, assign=True, strict=False)
    network.tie_weights()
    # positions are computed, not stored; a network made without memory has none yet
    network.model.rotary_emb = type(network.model.rotary_emb)(config)
    if any(parameter.is_meta for parameter in network.parameters()):
        raise StoreError(f"{gguf.path} lacks weights that its architecture needs. Get the file again.")
    return network.eval(), config.max_position_embeddings


def _settings(gguf: GGUF) -> dict[str, Any]:
    """The arguments of `LlamaConfig`."""
    heads = _whole(gguf, "attention.head_count")
    width = _whole(gguf, "embedding_length")
    told = gguf.metadata
    return {
        "vocab_size": len(told.get("tokenizer.ggml.tokens", ())),
        "hidden_size": width,
        "intermediate_size": _whole(gguf, "feed_forward_length"),
        "num_hidden_layers": _whole(gguf, "block_count", MOST_LAYERS),
        "num_attention_heads": heads,
        "num_key_value_heads": _whole(gguf, "attention.head_count_kv"),
        "head_dim": told.get("llama.rope.dimension_count", width // heads),
        "max_position_embeddings": _whole(gguf, "context_length"),
        "rms_norm_eps": told.get("llama.attention.layer_norm_rms_epsilon", 1e-5),
        "rope_parameters": {"rope_type": "default", "rope_theta": told.get("llama.rope.freq_base", 10000.0)},
        "tie_word_embeddings": "output.weight" not in gguf.tensors,
    }


def _whole(gguf: GGUF, name: str, most: int = 1 << 24) -> int:
    value = gguf.metadata.get(f"llama.{name}")
    if type(value) is not int or not 1 <= value <= most:
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
