"""The nearest-neighbour graph of a large index: usearch in memory, kept in a file, made anew from the store in doubt."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llmops_sdk.retrieval.store import Snapshot, Writing

log = logging.getLogger("llmops_sdk")

FILE: Final = "vectors.usearch"
STALE: Final = 0.02
"""Share of vectors that may differ between the file and the store before the file is written again."""
AT_ONCE: Final = 10_000
"""Vectors that are read at a time."""


class Graph:
    """Vectors of length 1 in a graph (HNSW, https://arxiv.org/abs/1603.09320): fast, and now and then it misses one."""

    def __init__(self, usearch: Any, dimension: int) -> None:
        self.usearch = usearch
        self.kept = False  # whether the file holds it, or held it some changes ago
        self._dimension = dimension

    @classmethod
    def empty(cls, dimension: int) -> Graph:
        """No vectors yet."""
        from usearch.index import Index

        return cls(Index(ndim=dimension, metric="cos", dtype="f32"), dimension)

    @classmethod
    def stored(cls, file: Path, snapshot: Snapshot, dimension: int) -> Graph:
        """The graph in the file, if it is the one that the store knows; a damaged one could bring the process down."""
        graph, known = cls.empty(dimension), snapshot.meta("graph_sha256")
        try:
            stored = file.read_bytes() if known is not None else b""
        except OSError:
            return graph
        if hashlib.sha256(stored).hexdigest() == known:
            graph.usearch.load(stored)
            graph.kept = True
        elif known is not None:
            log.info("llmops: %s is not the one that was last kept; it is made anew.", file)
        return graph

    def nearest(self, vector: NDArray[np.float32], k: int) -> list[tuple[int, float]]:
        """(id, cosine similarity) of about the `k` nearest to `vector`, the nearest first."""
        found = self.usearch.search(vector, k)
        pairs = zip(found.keys.tolist(), found.distances.tolist(), strict=True)
        return [(int(at), min(1.0, max(-1.0, 1.0 - float(distance)))) for at, distance in pairs]

    def follow(self, snapshot: Snapshot) -> None:
        """Bring the graph to the snapshot's state: what has gone goes, what is new comes."""
        wanted, held = snapshot.ids(), np.sort(self.usearch.keys[:])
        gone = np.setdiff1d(held, wanted, assume_unique=True)
        if 2 * len(gone) > len(held):
            self.usearch, held, gone = Graph.empty(self._dimension).usearch, held[:0], gone[:0]
        if len(gone):
            self.usearch.remove(gone)
        fresh = np.setdiff1d(wanted, held, assume_unique=True)
        for begin in range(0, len(fresh), AT_ONCE):
            ids = fresh[begin : begin + AT_ONCE]
            self.usearch.add(ids, snapshot.vectors(ids, self._dimension))


def keep(graph: Graph, file: Path, writing: Writing) -> None:
    """Write the graph of this transaction's state to the file, unless what is there is near enough."""
    if graph.kept and _differs(writing) <= STALE * writing.count():
        return
    temporary = file.with_name(f"{FILE}.tmp")  # one writer at a time: the transaction is the lock
    try:
        graph.usearch.save(str(temporary))
        digest = _digest(temporary)
        temporary.replace(file)
    except (OSError, RuntimeError) as error:  # usearch raises RuntimeError where it cannot write
        log.warning("llmops: %s could not be written (%s); the next process makes its own.", file, error)
        with contextlib.suppress(OSError):  # it may be what could not be written
            temporary.unlink()
        return
    of = {"graph_sha256": digest, "graph_count": str(writing.count()), "graph_last": str(writing.last_id())}
    writing.set_meta(of)
    graph.kept = True


def _differs(snapshot: Snapshot) -> int:
    """How many vectors came or went since the graph was kept."""
    left = snapshot.count_up_to(int(snapshot.meta("graph_last") or 0))
    came, went = snapshot.count() - left, int(snapshot.meta("graph_count") or 0) - left
    return came + went


def _digest(path: Path) -> str:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
