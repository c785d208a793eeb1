"""A small persistent index: documents in, hits out."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from llmops_sdk.errors import MalformedResponseError, StoreError, UsageError
from llmops_sdk.flow import Block, Model, Run, run_async, run_sync
from llmops_sdk.retrieval.chunker import Chunker
from llmops_sdk.retrieval.document import Document, Fact, check_fact, check_whole
from llmops_sdk.retrieval.intake import BATCH_CHUNKS, Batch, Planned, batches, check_documents
from llmops_sdk.retrieval.progress import bar_for
from llmops_sdk.retrieval.store import Embedding, Entry, Store
from llmops_sdk.retrieval.vectors import EXACT_UP_TO, Vectors
from llmops_sdk.settings import current_settings, find_home
from llmops_sdk.tracing import semconv
from llmops_sdk.types import EmbedRequest, EmbedResponse, Hit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llmops_sdk.flow import Flow

log = logging.getLogger("llmops_sdk")

Where: TypeAlias = Mapping[str, Fact] | Sequence[tuple[str, Fact]]
Given: TypeAlias = Document | str | tuple[str, str] | tuple[str, str, Mapping[str, Fact]]


class Added(NamedTuple):
    """What `Index.add` did: documents that are new or changed, documents that were as they are, chunks embedded."""

    written: int
    unchanged: int
    chunks: int

    def plus(self, batch: Batch) -> Added:
        """With one more batch."""
        chunks = sum(len(planned.chunks) for planned in batch.planned)
        return Added(self.written + len(batch.planned), self.unchanged + batch.unchanged, self.chunks + chunks)


class Index:
    """Documents cut into chunks, each with a vector, in a folder; searched by cosine similarity.

    Nothing is read or made before the first use. Threads, processes and forked children may share an index: one adds
    while others search. A process that is killed while it adds leaves an index with whole documents. A folder that is
    not writable can be searched.

        index = Index(embedder=model("local:minilm"))
        index.add([("guide.md", text)])
        index.search("How do I install it?", k=3)

    Args:
        path: the folder of the index; `<home>/indexes/<name>` by default.
        embedder: makes the vectors; an index belongs to the embedder it was made by.
        chunker: how documents are cut.
        name: of the index, on spans and in the home; the name of the folder by default.
        exact_up_to: chunks up to which a search compares every vector. Beyond, a graph finds about the nearest.

    Raises `StoreError` for an index that is damaged, foreign or made by another embedder, and where it cannot write.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        embedder: Model,
        chunker: Chunker | None = None,
        name: str | None = None,
        exact_up_to: int = EXACT_UP_TO,
    ) -> None:
        if not isinstance(embedder, Model):
            raise UsageError(
                f"Index(embedder=…) takes a model, such as model('local:minilm'); this is {type(embedder).__name__}."
            )
        self.name = name or (Path(path).absolute().name if path is not None else "default")
        if path is None and (self.name in (".", "..") or Path(self.name).name != self.name):
            raise UsageError(
                f"The name of an index is the name of a folder; {self.name!r} is none. Use path=… instead."
            )
        self.embedder = embedder
        self.chunker = chunker or Chunker()
        self._path = None if path is None else Path(path).expanduser()
        self._exact_up_to = exact_up_to

    @functools.cached_property
    def path(self) -> Path:
        """The folder of the index."""
        return self._path if self._path is not None else find_home(current_settings()) / "indexes" / self.name

    @functools.cached_property
    def _store(self) -> Store:
        return Store(self.path)

    @functools.cached_property
    def _vectors(self) -> Vectors:
        return Vectors(self.path, self._exact_up_to)

    def add(self, documents: Iterable[Given], *, progress: bool | None = None) -> Added:
        """Add documents, each in place of the one of the same source; blocks.

        A document whose text and metadata are as they were is not embedded again. Documents are stored a batch at a time:
        an error or a cancellation keeps what was stored before it. `progress`: a bar on stderr; by default where stderr
        is a terminal. Raises `UsageError` for what is no document, and for two of one source that differ.
        """
        run = Run.start()
        return run_sync(self._adding(documents, progress, run), run)

    async def aadd(self, documents: Iterable[Given], *, progress: bool | None = None) -> Added:
        """The same as `add`."""
        run = Run.start()
        return await run_async(self._adding(documents, progress, run), run)

    def remove(self, source: str) -> bool:
        """Take a document out; False where there was none. Blocks."""
        with self._store.reading() as snapshot:
            if snapshot is None:
                return False
        with self._store.writing() as writing:
            removed = writing.remove(source)
        self._vectors.keep(self._store)
        return removed

    async def aremove(self, source: str) -> bool:
        """The same as `remove`."""
        return await run_async(_blocking(functools.partial(self.remove, source)), Run.start())

    def search(self, query: str, k: int = 5, where: Where = ()) -> list[Hit]:
        """The `k` chunks nearest to `query`, the best first; `score` is the cosine similarity. Blocks.

        `where`: metadata that the documents must have, equal in value. An index to which nothing was added yet has no
        hits, and a warning in the log says where it was looked for.
        """
        run = Run.start()
        return run_sync(self.search_flow(query, k, where, run), run)

    async def asearch(self, query: str, k: int = 5, where: Where = ()) -> list[Hit]:
        """The same as `search`."""
        run = Run.start()
        return await run_async(self.search_flow(query, k, where, run), run)

    def sources(self) -> list[str]:
        """The documents that are in the index, by name. Blocks."""
        with self._store.reading() as snapshot:
            return sorted(snapshot.digests()) if snapshot else []

    def __len__(self) -> int:
        """How many chunks there are."""
        with self._store.reading() as snapshot:
            return snapshot.count() if snapshot else 0

    def __bool__(self) -> bool:
        """An index is never false, however empty."""
        return True

    def __repr__(self) -> str:
        return f"<Index {self.name} of {self.embedder.name}>"

    # Searching.

    def search_flow(self, query: str, k: int, where: Where, run: Run) -> Flow[list[Hit]]:
        """`search` as a flow."""
        facts = _checked_search(query, k, where)
        attributes: dict[str, str | int] = {
            semconv.GEN_AI_OPERATION_NAME: "retrieval",
            semconv.OPENINFERENCE_SPAN_KIND: "RETRIEVER",
            semconv.GEN_AI_DATA_SOURCE_ID: self.name,
            semconv.LLMOPS_RETRIEVAL_K: k,
        }
        with run.span(f"retrieval {self.name}", attributes=attributes) as span:
            span.set_payload("arguments", {"query": query, "k": k, "where": dict(facts)})
            hits: list[Hit] = []
            if (yield Block(self._has_vectors)):
                vectors = yield from self._embed((query,), run)
                hits = yield Block(functools.partial(self._nearest, vectors[0], k, facts))
            span.set_attribute(semconv.LLMOPS_RETRIEVAL_HITS, len(hits))
            span.set_attribute(semconv.LLMOPS_RETRIEVAL_SCORES, [hit.score for hit in hits])
            span.set_payload("documents", hits)
            return hits

    def _has_vectors(self) -> bool:
        """Whether there is anything to search in. Raises `StoreError` before a query is embedded in vain."""
        with self._store.reading() as snapshot:
            if snapshot is None:
                log.warning("llmops: there is no index in %s yet, so nothing was found. Index.add makes it.", self.path)
                return False
            embedding = snapshot.embedding()
        if embedding is not None:
            self._check(embedding)
        return embedding is not None

    def _nearest(self, vector: NDArray[np.float32], k: int, where: Sequence[tuple[str, Fact]]) -> list[Hit]:
        with self._store.reading() as snapshot:
            embedding = snapshot.embedding() if snapshot else None
            if snapshot is None or embedding is None:
                return []
            self._check(embedding, len(vector))
            found = self._vectors.nearest(snapshot, vector, k, snapshot.ids_where(where) if where else None)
            return [snapshot.hit(at, score) for at, score in found]

    def _check(self, embedding: Embedding, dimension: int | None = None) -> None:
        """Raise `StoreError` where vectors of this embedder do not belong into the index."""
        if embedding.embedder != self.embedder.name:
            raise StoreError(
                f"The index {self.path} was made by the embedder {embedding.embedder!r}, and is asked by "
                f"{self.embedder.name!r}; their vectors cannot be compared. Use {embedding.embedder!r}, or give the index "
                f"another path and index the documents again."
            )
        if dimension not in (None, embedding.dimension):
            raise StoreError(
                f"The index {self.path} holds vectors of {embedding.dimension} numbers, made by {embedding.embedder!r}; "
                f"that model now gives {dimension}. Give the index another path and index the documents again."
            )

    # Adding.

    def _adding(self, documents: Iterable[Any], progress: bool | None, run: Run) -> Flow[Added]:
        check_documents(documents)
        total = len(documents) if isinstance(documents, Sequence) else None
        added = Added(0, 0, 0)
        with run.span(f"index {self.name}") as span, bar_for(progress, f"Indexing {self.name}", total) as bar:
            known = yield Block(self._known)
            coming = batches(documents, known, self.chunker)
            while (batch := (yield Block(functools.partial(next, coming, None)))) is not None:
                yield from self._write(batch.planned, run)
                added = added.plus(batch)
                bar.advance(len(batch.planned) + batch.unchanged)
            yield Block(functools.partial(self._vectors.keep, self._store))
            span.set_attribute(semconv.LLMOPS_INDEX_WRITTEN, added.written)
            span.set_attribute(semconv.LLMOPS_INDEX_UNCHANGED, added.unchanged)
            span.set_attribute(semconv.LLMOPS_INDEX_CHUNKS, added.chunks)
        return added

    def _known(self) -> dict[str, str]:
        """The digest of every document. Raises `StoreError` before anything is embedded in vain."""
        with self._store.reading() as snapshot:
            embedding = snapshot.embedding() if snapshot else None
            known = snapshot.digests() if snapshot else {}
        if embedding is not None:
            self._check(embedding)
        elif snapshot is None:
            with self._store.writing():
                pass  # a folder that is not writable is told now
        return known

    def _write(self, batch: Sequence[Planned], run: Run) -> Flow[None]:
        if batch:
            vectors = yield from self._embed([chunk.text for planned in batch for chunk in planned.chunks], run)
            yield Block(functools.partial(self._store_batch, batch, vectors))

    def _store_batch(self, batch: Sequence[Planned], vectors: NDArray[np.float32]) -> None:
        with self._store.writing() as writing:
            if len(vectors):
                embedding = writing.embedding()
                if embedding is None:
                    embedding = Embedding(self.embedder.name, vectors.shape[1])
                    writing.set_meta({"embedder": embedding.embedder, "dimension": str(embedding.dimension)})
                self._check(embedding, vectors.shape[1])
            at = 0
            for document, digest, chunks in batch:
                rows, at = vectors[at : at + len(chunks)], at + len(chunks)
                writing.put(Entry(document=document, digest=digest, chunks=chunks, vectors=rows))

    def _embed(self, texts: Sequence[str], run: Run) -> Flow[NDArray[np.float32]]:
        """float32 [n, D], of length 1 each, or 0 where the embedder gave 0. Raises `MalformedResponseError`."""
        found = [np.empty((0, 0), dtype=np.float32)] if not texts else []
        for begin in range(0, len(texts), BATCH_CHUNKS):
            part = tuple(texts[begin : begin + BATCH_CHUNKS])
            response: EmbedResponse = yield from self.embedder.flow(EmbedRequest(texts=part), run)
            vectors = np.asarray(response.vectors, dtype=np.float32)
            if vectors.ndim != 2 or len(vectors) != len(part) or not np.isfinite(vectors).all():
                raise MalformedResponseError(
                    f"{self.embedder.name} was given {len(part)} texts, and its vectors have the shape {vectors.shape}"
                    f"{'' if np.isfinite(vectors).all() else ', with numbers that are not finite'}. Use another embedder."
                )
            found.append(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
        return np.concatenate(found)


def _blocking(function: Any) -> Flow[Any]:
    return (yield Block(function))


def _checked_search(query: str, k: int, where: Where) -> tuple[tuple[str, Fact], ...]:
    """The filter as pairs. Raises `UsageError` for a search that cannot be right."""
    if not isinstance(query, str) or not query.strip():
        raise UsageError(f"A search needs a query, a str with something in it; it is {query!r}.")
    if not isinstance(k, int) or k < 1:
        raise UsageError(f"A search finds k hits, an int of at least 1; it is {k!r}.")
    check_whole(query, "The query")
    facts = tuple(where.items()) if isinstance(where, Mapping) else tuple(where)
    for name, value in facts:
        check_fact(name, value, "where")
        check_whole(f"{name} {value}", "where")
    return facts
