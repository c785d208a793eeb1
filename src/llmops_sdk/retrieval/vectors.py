"""The vectors of one index in this process: a matrix while they are few, a graph beyond. Both follow the store."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from llmops_sdk.retrieval.graph import FILE, Graph, keep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llmops_sdk.retrieval.store import Snapshot, Store

EXACT_UP_TO: Final = 20_000
"""Chunks up to which every vector is compared: a few milliseconds, and nothing is missed."""


class Matrix(NamedTuple):
    """Vectors of length 1, float32 [n, D], and the ids of their chunks, sorted. Compared one and all."""

    ids: NDArray[np.uint64]
    rows: NDArray[np.float32]

    @classmethod
    def empty(cls, dimension: int) -> Matrix:
        """No vectors yet."""
        return cls(np.empty(0, np.uint64), np.empty((0, dimension), np.float32))

    def nearest(self, vector: NDArray[np.float32], k: int) -> list[tuple[int, float]]:
        """(id, cosine similarity) of the `k` nearest to `vector`, of length 1; equals in the order they were added."""
        # einsum, not @: a thread of BLAS's own on each core costs a query more than it saves, and on a busy machine most;
        # and a row's score does not depend on the rows beside it
        scores = np.einsum("ij,j->i", self.rows, vector)
        best = np.argsort(-scores, kind="stable")[:k]
        return [(int(self.ids[at]), min(1.0, max(-1.0, float(scores[at])))) for at in best]

    def among(self, ids: NDArray[np.uint64]) -> Matrix:
        """Only the vectors of these chunks."""
        return Matrix(ids, self.rows[np.searchsorted(self.ids, ids)])

    def following(self, snapshot: Snapshot, dimension: int) -> Matrix:
        """The vectors of the snapshot; only those that are new are read."""
        wanted = snapshot.ids()
        fresh = np.setdiff1d(wanted, self.ids, assume_unique=True)
        kept = np.isin(self.ids, wanted, assume_unique=True)
        ids = np.concatenate([self.ids[kept], fresh])
        rows = np.concatenate([self.rows[kept], snapshot.vectors(fresh, dimension)])
        order = np.argsort(ids)
        return Matrix(ids[order], rows[order])


class Vectors:
    """What searches compare with. Threads may share it; a forked child reads its own."""

    def __init__(self, folder: Path, exact_up_to: int) -> None:
        self._file = folder / FILE
        self._exact_up_to = exact_up_to
        self._lock = threading.Lock()
        self._held: Matrix | Graph | None = None
        self._state: tuple[str, str] | None = None
        self._process = os.getpid()

    def nearest(
        self, snapshot: Snapshot, vector: NDArray[np.float32], k: int, among: NDArray[np.uint64] | None
    ) -> list[tuple[int, float]]:
        """(id, cosine similarity) of the `k` chunks nearest to `vector`, of length 1, the nearest first.

        `among` limits them to these ids, and is always exact.
        """
        dimension = len(vector)
        with self._own_lock():
            held = self._follow(snapshot, dimension)
            if isinstance(held, Graph) and among is None:
                return held.nearest(vector, k)
        if isinstance(held, Matrix):
            return (held if among is None else held.among(among)).nearest(vector, k)
        assert among is not None
        return Matrix(among, snapshot.vectors(among, dimension)).nearest(vector, k)

    def keep(self, store: Store) -> None:
        """Keep the graph in its file, where there is one and much has changed since it was kept last.

        A failure, or what changed since, costs the next process time and nothing else.
        """
        with store.reading() as snapshot:
            embedding = snapshot.embedding() if snapshot else None
            if snapshot is None or embedding is None or snapshot.count() <= self._exact_up_to:
                return
            with self._own_lock():
                graph = self._follow(snapshot, embedding.dimension)
        if isinstance(graph, Graph):
            with store.writing() as writing, self._own_lock():
                graph = self._follow(writing, embedding.dimension)
                if isinstance(graph, Graph):
                    keep(graph, self._file, writing)

    def _own_lock(self) -> threading.Lock:
        """The lock; in a forked child a new one, and nothing that another thread may have been changing."""
        if self._process != os.getpid():
            self._lock, self._held, self._state, self._process = threading.Lock(), None, None, os.getpid()
        return self._lock

    def _follow(self, snapshot: Snapshot, dimension: int) -> Matrix | Graph:
        """The vectors at the snapshot's state."""
        state, held = snapshot.state(), self._held
        if held is not None and state == self._state:
            return held
        if self._state is not None and self._state[0] != state[0]:
            held = None  # another index has taken the folder
        # half made is not held: whatever fails in between starts anew
        self._held = self._state = None
        if snapshot.count() <= self._exact_up_to:
            held = held if isinstance(held, Matrix) else Matrix.empty(dimension)
            held = held.following(snapshot, dimension)
        else:
            held = held if isinstance(held, Graph) else Graph.stored(self._file, snapshot, dimension)
            held.follow(snapshot)
        self._held, self._state = held, state
        return held
