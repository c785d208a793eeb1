"""A real embedder that needs no weights: hashed words, counted."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from llmops_sdk.errors import UnsupportedError
from llmops_sdk.flow import Block, Flow, Model, Run
from llmops_sdk.types import EmbedRequest, EmbedResponse

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ToyEmbedder(Model):
    """Answers `EmbedRequest` with bags of words: each word adds a direction of its own, found by its hash.

    Texts with the same words have the same vector, texts without a common word are near to orthogonal. The vectors are
    not of length 1. `embedded` holds what was asked, one tuple of texts a request.
    """

    def __init__(self, dimension: int = 64, *, name: str = "toy") -> None:
        self.name = name
        self.dimension = dimension
        self.embedded: list[tuple[str, ...]] = []

    def flow(self, request: Any, run: Run) -> Flow[EmbedResponse]:
        """One vector a text."""
        if not isinstance(request, EmbedRequest):
            raise UnsupportedError(f"{self.name} embeds texts; this is {type(request).__name__}.")
        with run.span(f"embeddings {self.name}"):
            vectors = yield Block(lambda: self.vectors(request.texts))
        self.embedded.append(request.texts)
        return EmbedResponse(vectors=vectors, model=self.name)

    def vectors(self, texts: tuple[str, ...]) -> NDArray[np.float32]:
        """float32 [n, D]."""
        found = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(found, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                row += self._direction(word)
        return found

    def _direction(self, word: str) -> NDArray[np.float32]:
        seed = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())
        return np.random.default_rng(seed).standard_normal(self.dimension, dtype=np.float32)
