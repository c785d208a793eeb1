"""The interim embedding engine: a transformers encoder with the pooling that its folder declares."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llmops_sdk.errors import StoreError, UnsupportedError
from llmops_sdk.local.extras import require, without_progress_bars
from llmops_sdk.local.process import DEFAULT_THREADS, refuse_forked_child, torch_threads
from llmops_sdk.local.weights import check_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BATCH_TEXTS: Final = 8
"""Texts of like length per forward pass; on two cores 8 was measured best of 1 to 64."""
MOST_TOKENS: Final = 256
"""Tokens of a text that are looked at where the folder does not say."""


class Embedded(NamedTuple):
    """`vectors`: float32 [n, D], each of length 1. `tokens`: how many were read, special ones included."""

    vectors: NDArray[np.float32]
    tokens: int


class EmbedEngine:
    """A loaded encoder with its tokenizer. Threads may share it."""

    def __init__(self, *, network: Any, tokenizer: Any) -> None:
        self.dimension: int = network.config.hidden_size
        self._network = network
        self._tokenizer = tokenizer
        self._lock = threading.Lock()

    @classmethod
    def load(cls, folder: Path) -> EmbedEngine:
        """Load a folder in the layout of sentence-transformers: encoder, mean pooling, normalisation.

        Raises `UnsupportedError` for other pooling, `StoreError` for a folder that cannot be read.
        """
        torch, transformers = require("torch", "torch"), require("transformers", "torch")
        tokenizers = require("tokenizers", "torch")
        check_folder(folder)
        _check_pooling(folder)
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            with without_progress_bars():
                network = transformers.AutoModel.from_pretrained(
                    str(folder),
                    local_files_only=True,
                    use_safetensors=True,
                    trust_remote_code=False,
                    dtype=torch.float32,
                )
        except Exception as error:  # whatever transformers, safetensors and tokenizers raise for what they cannot read
            raise StoreError(f"{folder} cannot be loaded as an embedder: {error}. Get the folder again.") from error
        tokenizer.no_padding()
        tokenizer.enable_truncation(min(_most_tokens(folder), network.config.max_position_embeddings))
        if not tokenizer.encode("").ids:
            raise UnsupportedError(f"{folder}: its tokenizer gives no token for an empty text, which has no mean.")
        return cls(network=network.eval(), tokenizer=tokenizer)

    def embed(self, texts: Sequence[str], threads: int = DEFAULT_THREADS) -> Embedded:
        """The vectors of `texts`, in their order; what goes past the model's longest input is cut off."""
        import numpy as np

        encoded = [self._tokenizer.encode(text).ids for text in texts]
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        by_length = sorted(range(len(texts)), key=lambda at: len(encoded[at]))
        for begin in range(0, len(texts), BATCH_TEXTS):
            rows = by_length[begin : begin + BATCH_TEXTS]
            vectors[rows] = self._batch([encoded[row] for row in rows], threads)
        return Embedded(vectors, sum(map(len, encoded)))

    def _batch(self, encoded: Sequence[Sequence[int]], threads: int) -> NDArray[np.float32]:
        """[n, D] from n token lists of like length."""
        import torch

        refuse_forked_child()
        width = max(map(len, encoded))
        ids = torch.zeros((len(encoded), width), dtype=torch.long)
        mask = torch.zeros((len(encoded), width), dtype=torch.long)
        for row, tokens in enumerate(encoded):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        with self._lock, torch_threads(threads), torch.inference_mode():
            hidden = self._network(input_ids=ids, attention_mask=mask).last_hidden_state  # [n, width, D]
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1.0)
            vectors: NDArray[np.float32] = torch.nn.functional.normalize(mean, dim=-1).numpy()
        return vectors


def _most_tokens(folder: Path) -> int:
    told = _json(folder / "sentence_bert_config.json")
    most = told.get("max_seq_length") if isinstance(told, dict) else None
    return most if type(most) is int and most > 0 else MOST_TOKENS


def _check_pooling(folder: Path) -> None:
    """Raise `UnsupportedError` unless the folder says: an encoder, the mean of its tokens, length 1."""
    modules, pooling = _json(folder / "modules.json"), _json(folder / "1_Pooling" / "config.json")
    if not isinstance(modules, list) or not isinstance(pooling, dict):
        raise StoreError(f"{folder}: modules.json holds no list, or 1_Pooling/config.json no object. Get it again.")
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules if isinstance(module, dict)]
    modes = [mode for mode, on in pooling.items() if mode.startswith("pooling_mode_") and on is True]
    if kinds != ["Transformer", "Pooling", "Normalize"] or modes != ["pooling_mode_mean_tokens"]:
        raise UnsupportedError(
            f"{folder} pools as {modes} through {kinds}; this engine does the mean of all tokens, normalised "
            f"(Transformer, Pooling, Normalize), as local:minilm does."
        )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}. Get the model folder again.") from error
