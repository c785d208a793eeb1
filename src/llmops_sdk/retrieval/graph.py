"""The nearest-neighbour graph of an index: usearch in memory, kept in a file, made anew from the store when in doubt."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from usearch.index import Index as Usearch

if TYPE_CHECKING:
    from llmops_sdk.retrieval.store import Snapshot, Store

log = logging.getLogger("llmops_sdk")

FILE: Final = "vectors.usearch"
EXACT_UP_TO: Final = 20_000
"""Vectors up to which every one is compared: under 10 ms, and nothing is missed."""


class Graph:
    """The vectors of one index in this process, under cosine similarity. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._lock = threading.Lock()
        self._state: tuple[str, str] | None = None
        self._usearch: Any = None
        self._process = os.getpid()

    def nearest(
        self, snapshot: Snapshot, dimension: int, vector: NDArray[np.float32], k: int
    ) -> list[tuple[int, float]]:
        """(id, cosine similarity) of the `k` chunks nearest to `vector`, the nearest first."""
        with self._own_lock():
            self._follow(snapshot, dimension)
            if len(self._usearch) == 0:
                return []
            found = self._usearch.search(vector, k, exact=len(self._usearch) <= EXACT_UP_TO)
        pairs = zip(found.keys.tolist(), found.distances.tolist(), strict=True)
        return [(int(at), 1.0 - float(distance)) for at, distance in pairs]

    def save(self, store: Store) -> None:
        """Keep the graph of the store's present state in the file. A failure costs the next process a rebuild only."""
        with store.reading() as snapshot:
            embedding = snapshot.embedding() if snapshot else None
            if snapshot is None or embedding is None:
                return
            with self._own_lock():
                self._follow(snapshot, embedding.dimension)
                temporary = self._file.with_name(f"{FILE}.{os.getpid()}.{threading.get_ident()}.tmp")
                try:
                    self._usearch.save(str(temporary))
                    digest = _digest(temporary)
                    temporary.replace(self._file)
                except (OSError, RuntimeError) as error:  # usearch raises RuntimeError where it cannot write
                    log.warning(
                        "llmops: %s could not be written (%s); it is rebuilt at the next start.", self._file, error
                    )
                    temporary.unlink(missing_ok=True)
                    return
        with store.writing() as writing:
            writing.set_meta({"graph_sha256": digest})

    def _own_lock(self) -> threading.Lock:
        """The lock; in a forked child a new one, and nothing that another thread may have been changing."""
        if self._process != os.getpid():
            self._lock, self._usearch, self._state, self._process = threading.Lock(), None, None, os.getpid()
        return self._lock

    def _follow(self, snapshot: Snapshot, dimension: int) -> None:
        """Bring the graph to the snapshot's state: what has gone goes, what is new comes."""
        state = snapshot.state()
        if state == self._state:
            return
        if self._usearch is None or self._state is None or self._state[0] != state[0]:
            self._usearch = self._stored(snapshot, dimension)
        wanted, held = snapshot.ids(), np.sort(self._usearch.keys[:])
        gone = np.setdiff1d(held, wanted, assume_unique=True)
        if 2 * len(gone) > len(held):
            self._usearch, held, gone = _empty(dimension), held[:0], gone[:0]
        if len(gone):
            self._usearch.remove(gone)
        fresh = np.setdiff1d(wanted, held, assume_unique=True)
        if len(fresh):
            self._usearch.add(fresh, snapshot.vectors(fresh, dimension))
        self._state = state

    def _stored(self, snapshot: Snapshot, dimension: int) -> Any:
        """The graph in the file, if it is the one that the store knows; a damaged file could bring the process down."""
        known = snapshot.meta("graph_sha256")
        graph = _empty(dimension)
        if known is None or not self._file.is_file():
            return graph
        try:
            stored = self._file.read_bytes()
        except OSError:
            return graph
        if hashlib.sha256(stored).hexdigest() != known:
            log.info("llmops: %s is not the one that was last kept; it is rebuilt.", self._file)
            return graph
        graph.load(stored)
        return graph


def _empty(dimension: int) -> Any:
    return Usearch(ndim=dimension, metric="cos", dtype="f32")


def _digest(path: Path) -> str:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
