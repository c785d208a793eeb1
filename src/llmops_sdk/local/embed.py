"""The leaf of embedding models in this process."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from llmops_sdk.errors import UnsupportedError
from llmops_sdk.flow import Block, Model
from llmops_sdk.local.embed_engine import Embedded, EmbedEngine
from llmops_sdk.local.process import DEFAULT_THREADS, loaded_once
from llmops_sdk.local.weights import find_weights
from llmops_sdk.tracing import semconv
from llmops_sdk.tracing.genai import record_usage, request_attributes
from llmops_sdk.types import EmbedRequest, EmbedResponse, Usage

if TYPE_CHECKING:
    from llmops_sdk.flow import Flow, Run
    from llmops_sdk.settings import Settings
    from llmops_sdk.types import AnyRequest

AT_ONCE: Final = 64
"""Texts per effect: between two of them a call can be cancelled or run out of time."""


class LocalEmbedder(Model):
    """An embedding model in this process: float32 [n, D], each vector of length 1.

    Texts beyond the model's longest input (256 tokens for `minilm`) are cut off there. Raises as `LocalChat` does.
    """

    def __init__(self, *, weights: str, name: str, threads: int = DEFAULT_THREADS) -> None:
        self.name = name
        self._weights = weights
        self._threads = threads

    def flow(self, request: AnyRequest, run: Run) -> Flow[EmbedResponse]:
        """One vector a text."""
        if not isinstance(request, EmbedRequest):
            raise UnsupportedError(f"{self.name} embeds texts; this is {type(request).__name__}. Use model.embed([…]).")
        attributes = request_attributes(request, operation="embeddings", provider="local", model=self._weights)
        with run.span(f"embeddings {self._weights}", attributes=attributes) as span:
            vectors, tokens = [], 0
            for begin in range(0, max(len(request.texts), 1), AT_ONCE):
                texts = request.texts[begin : begin + AT_ONCE]
                embedded: Embedded = yield Block(functools.partial(self._embed, texts, run.settings))
                vectors.append(embedded.vectors)
                tokens += embedded.tokens
            usage, joined = Usage(input_tokens=tokens), np.concatenate(vectors)
            record_usage(span, usage)
            span.set_attribute(semconv.GEN_AI_EMBEDDINGS_DIMENSION_COUNT, joined.shape[1])
            return EmbedResponse(
                vectors=joined,
                model=self.name,
                usage=usage,
                trace_id=span.trace_id,
                span_id=span.span_id,
            )

    def _embed(self, texts: Sequence[str], settings: Settings) -> Embedded:
        engine = loaded_once(EmbedEngine, find_weights(self._weights, settings), EmbedEngine.load)
        return engine.embed(texts, self._threads)
