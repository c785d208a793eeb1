"""Search over documents: chunks with exact offsets, a small persistent index, hits as text for a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmops_sdk.lazy import bound_lazily

if TYPE_CHECKING:
    from llmops_sdk.retrieval.chunker import Chunk, Chunker
    from llmops_sdk.retrieval.document import Document
    from llmops_sdk.retrieval.index import Added, Index
    from llmops_sdk.retrieval.rendering import render

__all__ = ["Added", "Chunk", "Chunker", "Document", "Index", "render"]

__getattr__ = bound_lazily(
    __name__,
    {"chunker": ("Chunk", "Chunker"), "document": ("Document",), "index": ("Added", "Index"), "rendering": ("render",)},
)
