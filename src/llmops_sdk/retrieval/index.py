"""A small persistent index: documents in, hits out."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np

from llmops_sdk.errors import StoreError, UsageError
from llmops_sdk.flow import Block, Model, Run, run_async, run_sync
from llmops_sdk.retrieval.chunker import Chunk, Chunker
from llmops_sdk.retrieval.document import Document, Fact
from llmops_sdk.retrieval.graph import Graph
from llmops_sdk.retrieval.progress import bar_for
from llmops_sdk.retrieval.store import Embedding, Entry, Store
from llmops_sdk.settings import current_settings, find_home
from llmops_sdk.tracing import semconv
from llmops_sdk.types import EmbedRequest, EmbedResponse, Hit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llmops_sdk.flow import Flow

Where: TypeAlias = Mapping[str, Fact] | Sequence[tuple[str, Fact]]

BATCH_CHUNKS: Final = 64
"""Chunks that are embedded, and stored, at a time: what a killed process loses at most."""


class Added(NamedTuple):
    """What `Index.add` did: documents that are new or changed, documents that were as they are, chunks embedded."""

    written: int
    unchanged: int
    chunks: int

    def plus(self, batch: _Batch) -> Added:
        """With one more batch."""
        chunks = sum(len(planned.chunks) for planned in batch.planned)
        return Added(self.written + len(batch.planned), self.unchanged + batch.unchanged, self.chunks + chunks)


class _Planned(NamedTuple):
    """A document that has to be embedded."""

    document: Document
    digest: str
    chunks: list[Chunk]


class _Batch(NamedTuple):
    planned: list[_Planned]
    unchanged: int


class Index:
    """Documents cut into chunks, each with a vector, in a folder; searched by cosine similarity.

    Nothing is read or made before the first use. Threads and processes may share an index: one adds while others
    search. A process that is killed while it adds leaves an index with whole documents.

        index = Index(embedder=model("local:minilm"))
        index.add([("guide.md", text)])
        index.search("How do I install it?", k=3)

    Args:
        path: the folder of the index; `<home>/indexes/<name>` by default.
        embedder: makes the vectors; an index belongs to the embedder it was made by.
        chunker: how documents are cut.
        name: of the index, on spans and in the home; the name of the folder by default.

    Raises `StoreError` for an index that is damaged, foreign or made by another embedder.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        embedder: Model,
        chunker: Chunker | None = None,
        name: str | None = None,
    ) -> None:
        if not isinstance(embedder, Model):
            raise UsageError(
                f"Index(embedder=…) takes a model, such as model('local:minilm'); this is {type(embedder).__name__}."
            )
        self.name = name or (Path(path).name if path is not None else "default")
        if path is None and (self.name in (".", "..") or Path(self.name).name != self.name):
            raise UsageError(
                f"The name of an index is the name of a folder; {self.name!r} is none. Use path=… instead."
            )
        self.embedder = embedder
        self.chunker = chunker or Chunker()
        self._path = None if path is None else Path(path).expanduser()

    @functools.cached_property
    def path(self) -> Path:
        """The folder of the index."""
        return self._path if self._path is not None else find_home(current_settings()) / "indexes" / self.name

    @functools.cached_property
    def _store(self) -> Store:
        return Store(self.path)

    @functools.cached_property
    def _graph(self) -> Graph:
        return Graph(self.path)

    def add(self, documents: Iterable[Document | str | tuple[Any, ...]], *, progress: bool | None = None) -> Added:
        """Add documents, each in place of the one of the same source; blocks.

        A document whose text and metadata are as they were is not embedded again. `progress`: a bar on stderr; by
        default where stderr is a terminal.
        """
        run = Run.start()
        return run_sync(self._adding(documents, progress, run), run)

    async def aadd(
        self, documents: Iterable[Document | str | tuple[Any, ...]], *, progress: bool | None = None
    ) -> Added:
        """The same as `add`."""
        run = Run.start()
        return await run_async(self._adding(documents, progress, run), run)

    def remove(self, source: str) -> bool:
        """Take a document out; False where there was none."""
        with self._store.writing() as writing:
            removed = writing.remove(source)
        self._graph.save(self._store)
        return removed

    def search(self, query: str, k: int = 5, where: Where = ()) -> list[Hit]:
        """The `k` chunks nearest to `query`, the best first; `score` is the cosine similarity. Blocks.

        `where`: metadata that the documents must have, equal in value.
        """
        run = Run.start()
        return run_sync(self.search_flow(query, k, where, run), run)

    async def asearch(self, query: str, k: int = 5, where: Where = ()) -> list[Hit]:
        """The same as `search`."""
        run = Run.start()
        return await run_async(self.search_flow(query, k, where, run), run)

    def __len__(self) -> int:
        """How many chunks there are."""
        with self._store.reading() as snapshot:
            return snapshot.count() if snapshot else 0

    def __bool__(self) -> bool:
        """An index is never false, however empty."""
        return True

    def search_flow(self, query: str, k: int, where: Where, run: Run) -> Flow[list[Hit]]:
        """`search` as a flow."""
        if not query.strip() or k < 1:
            raise UsageError(f"A search needs a query and k of at least 1; they are {query!r} and {k}.")
        facts = tuple(where.items()) if isinstance(where, Mapping) else tuple(where)
        attributes = {
            semconv.GEN_AI_OPERATION_NAME: "retrieval",
            semconv.OPENINFERENCE_SPAN_KIND: "RETRIEVER",
            "gen_ai.data_source.id": self.name,
            "llmops.retrieval.k": k,
        }
        with run.span(f"retrieval {self.name}", attributes=attributes) as span:
            span.set_payload("arguments", {"query": query, "k": k, "where": dict(facts)})
            yield Block(self._check_embedder)
            response: EmbedResponse = yield from self.embedder.flow(EmbedRequest(texts=(query,)), run)
            hits: list[Hit] = yield Block(functools.partial(self._nearest, response.vectors[0], k, facts))
            span.set_attribute("llmops.retrieval.hits", len(hits))
            span.set_attribute("llmops.retrieval.scores", [hit.score for hit in hits])
            span.set_payload("documents", hits)
            return hits

    def _check_embedder(self) -> None:
        """Before anything is embedded. Raises `StoreError`."""
        with self._store.reading() as snapshot:
            embedding = snapshot.embedding() if snapshot else None
        if embedding is not None:
            self._check(embedding)

    def _nearest(self, vector: NDArray[np.float32], k: int, where: Sequence[tuple[str, Fact]]) -> list[Hit]:
        with self._store.reading() as snapshot:
            embedding = snapshot.embedding() if snapshot else None
            if snapshot is None or embedding is None:
                return []
            self._check(embedding, len(vector))
            if where:
                ids = snapshot.ids_where(where)
                scores = snapshot.vectors(ids, embedding.dimension) @ (
                    vector / max(float(np.linalg.norm(vector)), 1e-12)
                )
                best = np.argsort(-scores, kind="stable")[:k]
                found = [(int(ids[at]), float(scores[at])) for at in best]
            else:
                found = self._graph.nearest(snapshot, embedding.dimension, vector, k)
            hits = (snapshot.hit(at, score) for at, score in found)
            return [hit for hit in hits if hit is not None]

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

    def _adding(self, documents: Iterable[Any], progress: bool | None, run: Run) -> Flow[Added]:
        total = len(documents) if isinstance(documents, Sequence) else None
        added = Added(0, 0, 0)
        with run.span(f"index {self.name}") as span, bar_for(progress, f"Indexing {self.name}", total) as bar:
            yield Block(self._check_embedder)
            batches = self._batches(documents)
            while (batch := (yield Block(functools.partial(next, batches, None)))) is not None:
                if batch.planned:
                    yield from self._write(batch.planned, run)
                added = added.plus(batch)
                bar.advance(len(batch.planned) + batch.unchanged)
            if added.written:
                yield Block(functools.partial(self._graph.save, self._store))
            for name, count in added._asdict().items():
                span.set_attribute(f"llmops.index.{name}", count)
        return added

    def _batches(self, documents: Iterable[Any]) -> Iterator[_Batch]:
        """What is to be embedded, some documents at a time, and how many need not be."""
        with self._store.reading() as snapshot:
            known = snapshot.digests() if snapshot else {}
        planned: list[_Planned] = []
        size = unchanged = 0
        for given in documents:
            document = Document.of(given)
            digest = document.digest(repr(self.chunker))
            if known.get(document.source) == digest:
                unchanged += 1
                continue
            known[document.source] = digest
            planned.append(_Planned(document, digest, self.chunker.chunks(document.text)))
            size += len(planned[-1].chunks)
            if size >= BATCH_CHUNKS:
                yield _Batch(planned, unchanged)
                planned, size, unchanged = [], 0, 0
        yield _Batch(planned, unchanged)

    def _write(self, batch: Sequence[_Planned], run: Run) -> Flow[None]:
        texts = tuple(chunk.text for planned in batch for chunk in planned.chunks)
        vectors = np.empty((0, 0), dtype=np.float32)
        if texts:
            response: EmbedResponse = yield from self.embedder.flow(EmbedRequest(texts=texts), run)
            lengths = np.linalg.norm(response.vectors, axis=1, keepdims=True)
            vectors = response.vectors / np.maximum(lengths, 1e-12)
        yield Block(functools.partial(self._store_batch, batch, vectors))

    def _store_batch(self, batch: Sequence[_Planned], vectors: NDArray[np.float32]) -> None:
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
