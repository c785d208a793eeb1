"""Search over documents: chunks with exact offsets, a small persistent index, hits as text for a prompt."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmops_sdk.retrieval.chunker import Chunk, Chunker
    from llmops_sdk.retrieval.document import Document
    from llmops_sdk.retrieval.index import Added, Index
    from llmops_sdk.retrieval.rendering import render

__all__ = ["Added", "Chunk", "Chunker", "Document", "Index", "render"]

_HOME_OF = {
    "Added": "index",
    "Chunk": "chunker",
    "Chunker": "chunker",
    "Document": "document",
    "Index": "index",
    "render": "rendering",
}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
