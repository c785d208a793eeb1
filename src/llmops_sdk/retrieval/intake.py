"""What of the documents given to an index has to be embedded, some at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llmops_sdk.errors import UsageError
from llmops_sdk.retrieval.document import Document

if TYPE_CHECKING:
    from llmops_sdk.retrieval.chunker import Chunk, Chunker

BATCH_CHUNKS: Final = 64
"""Chunks from which a batch is full: what a killed process loses at most, beside the document that fills it."""
BATCH_DOCUMENTS: Final = 256
"""Documents from which a batch is full, however few are to be embedded."""


class Planned(NamedTuple):
    """A document that is new or has changed."""

    document: Document
    digest: str
    chunks: list[Chunk]


class Batch(NamedTuple):
    """Documents to embed and store together, and how many were met that are as they were."""

    planned: list[Planned]
    unchanged: int


def check_documents(documents: Any) -> None:
    """Raise `UsageError` for what would be iterated as something that was not meant."""
    if isinstance(documents, str | bytes | Mapping | Document) or not isinstance(documents, Iterable):
        raise UsageError(
            f"Index.add takes a list or other iterable of documents; this is {type(documents).__name__}. One document "
            f"goes into a list, [(source, text)], and a dict as dict.items()."
        )


def batches(documents: Iterable[Any], known: Mapping[str, str], chunker: Chunker) -> Iterator[Batch]:
    """Batches of the documents whose digest is not the one that is `known` of their source; the last may be empty.

    Raises `UsageError` for what is no document, or two documents of one name.
    """
    met: dict[str, str] = {}
    planned: list[Planned] = []
    size = unchanged = 0
    for given in documents:
        document = Document.of(given)
        digest = document.digest(repr(chunker))
        before = met.get(document.source)
        if before not in (None, digest):
            raise UsageError(
                f"Two documents of this call are named {document.source!r} and differ; one would take the place of the "
                f"other. Give each a source of its own."
            )
        met[document.source] = digest
        if digest in (before, known.get(document.source)):
            unchanged += 1
        else:
            planned.append(Planned(document, digest, chunker.chunks(document.text)))
            size += len(planned[-1].chunks)
        if size >= BATCH_CHUNKS or len(planned) + unchanged >= BATCH_DOCUMENTS:
            yield Batch(planned, unchanged)
            planned, size, unchanged = [], 0, 0
    yield Batch(planned, unchanged)
