"""The SQLite file of an index: documents, chunks and their vectors. What it holds is the truth; graphs are made of it.

A connection lives for one operation, so that threads, forks and other processes need no care.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmops_sdk.errors import StoreError
from llmops_sdk.retrieval.chunker import Chunk
from llmops_sdk.retrieval.document import Document, Fact, comparable
from llmops_sdk.types import Hit, canonical_json

FORMAT: Final = "1"
FILE: Final = "index.db"
BUSY_S: Final = 30.0
AT_ONCE: Final = 500
"""Ids in one query."""

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE IF NOT EXISTS documents (
        id INTEGER PRIMARY KEY, source TEXT NOT NULL UNIQUE, digest TEXT NOT NULL, metadata TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS facts (
        name TEXT NOT NULL, value TEXT NOT NULL, document INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
        PRIMARY KEY (name, value, document)) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS facts_of_document ON facts (document)",
    # AUTOINCREMENT: an id is never used again, so a vector in memory under a known id is never out of date
    """CREATE TABLE IF NOT EXISTS chunks (
        id INTEGER PRIMARY KEY AUTOINCREMENT, document INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
        start INTEGER NOT NULL, end INTEGER NOT NULL, text TEXT NOT NULL, vector BLOB NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS chunks_of_document ON chunks (document)",
)


class Embedding(NamedTuple):
    """Who made the vectors of an index, and how many numbers each has."""

    embedder: str
    dimension: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A document ready to be stored: `vectors` is float32 [chunks, D]."""

    document: Document
    digest: str
    chunks: Sequence[Chunk]
    vectors: NDArray[np.float32]


class Store:
    """The file in `folder`. Raises `StoreError` for one that is corrupt, foreign, locked or not writable."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    @contextlib.contextmanager
    def reading(self) -> Iterator[Snapshot | None]:
        """One consistent state of the file; None where there is no index yet."""
        if not self.path.exists():
            yield None
            return
        with self._connection() as connection:
            connection.execute("BEGIN")
            snapshot = Snapshot(self.path, connection)
            yield snapshot if snapshot.usable() else None

    @contextlib.contextmanager
    def writing(self) -> Iterator[Writing]:
        """One transaction: all of it is stored, or none."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.path.parent} cannot be made: {error}. Give the index another path.") from error
        with self._connection() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Writing(self.path, connection)
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)) as connection:
                connection.execute("PRAGMA foreign_keys = ON")
                yield connection
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise StoreError(
                    f"{self.path} has been locked by another process for {BUSY_S:.0f} s. Try again when it has ended."
                ) from error
            raise StoreError(
                f"{self.path} cannot be used: {error}. If it is damaged, delete the folder {self.path.parent} and index "
                f"the documents again."
            ) from error


class Snapshot:
    """Reads within one transaction."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    def usable(self) -> bool:
        """Whether the file holds an index; an empty one, of a writer that has just begun, does not yet."""
        tables = self._connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]
        if tables == 0:
            return False
        if self.meta("format") != FORMAT:
            raise StoreError(
                f"{self._path} is not an index of this version (format {self.meta('format')!r}, not {FORMAT!r}). Give the "
                f"index another path, or delete the folder and index the documents again."
            )
        return True

    def meta(self, name: str) -> str | None:
        """One entry about the index itself."""
        row = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def embedding(self) -> Embedding | None:
        """Who made the vectors; None while there are none."""
        embedder, dimension = self.meta("embedder"), self.meta("dimension")
        return None if embedder is None or dimension is None else Embedding(embedder, int(dimension))

    def state(self) -> tuple[str, str]:
        """Changes whenever chunks do, and differs between any two indexes."""
        return self.meta("identity") or "", self.meta("generation") or ""

    def count(self) -> int:
        """How many chunks there are."""
        return int(self._connection.execute("SELECT count(*) FROM chunks").fetchone()[0])

    def digests(self) -> dict[str, str]:
        """Of every document: source, digest."""
        return dict(self._connection.execute("SELECT source, digest FROM documents"))

    def ids(self) -> NDArray[np.uint64]:
        """The ids of all chunks, sorted."""
        rows = self._connection.execute("SELECT id FROM chunks ORDER BY id").fetchall()
        return np.array([row[0] for row in rows], dtype=np.uint64)

    def ids_where(self, where: Sequence[tuple[str, Fact]]) -> NDArray[np.uint64]:
        """The ids of the chunks whose document has all these metadata."""
        having = " INTERSECT ".join(["SELECT document FROM facts WHERE name = ? AND value = ?"] * len(where))
        wanted = [part for name, value in where for part in (name, comparable(value))]
        query = f"SELECT id FROM chunks WHERE document IN ({having}) ORDER BY id"  # noqa: S608 - placeholders only
        return np.array([row[0] for row in self._connection.execute(query, wanted)], dtype=np.uint64)

    def vectors(self, ids: NDArray[np.uint64], dimension: int) -> NDArray[np.float32]:
        """float32 [n, D] of these chunks, in their order."""
        found: dict[int, bytes] = {}
        for begin in range(0, len(ids), AT_ONCE):
            part = [int(at) for at in ids[begin : begin + AT_ONCE]]
            marks = ",".join("?" * len(part))
            found.update(
                self._connection.execute(f"SELECT id, vector FROM chunks WHERE id IN ({marks})", part)  # noqa: S608
            )
        if any(len(vector) != dimension * 4 for vector in found.values()) or len(found) != len(ids):
            raise StoreError(
                f"{self._path} is damaged: vectors are missing or not of {dimension} numbers. Delete the folder "
                f"{self._path.parent} and index the documents again."
            )
        joined = b"".join(found[int(at)] for at in ids)
        return np.frombuffer(joined, dtype="<f4").reshape(len(ids), dimension)

    def hit(self, at: int, score: float) -> Hit | None:
        """The chunk of this id; None where it has gone since."""
        row = self._connection.execute(
            "SELECT source, start, end, text, metadata FROM chunks JOIN documents ON documents.id = document "
            "WHERE chunks.id = ?",
            (at,),
        ).fetchone()
        if row is None:
            return None
        source, start, end, text, metadata = row
        facts = tuple((str(name), value) for name, value in json.loads(metadata))
        return Hit(id=str(at), text=text, score=score, source=source, start=start, end=end, metadata=facts)


class Writing(Snapshot):
    """Writes within one transaction."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        super().__init__(path, connection)
        if not self.usable():
            for statement in _SCHEMA:
                connection.execute(statement)
            self.set_meta({"format": FORMAT, "identity": secrets.token_hex(16), "generation": "0"})

    def set_meta(self, entries: Mapping[str, str]) -> None:
        """Set entries about the index itself."""
        self._connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", entries.items())

    def put(self, entry: Entry) -> None:
        """Store a document in place of the one of the same source."""
        self.remove(entry.document.source)
        facts = entry.document.facts()
        row = self._connection.execute(
            "INSERT INTO documents (source, digest, metadata) VALUES (?, ?, ?)",
            (entry.document.source, entry.digest, canonical_json(facts)),
        )
        document = row.lastrowid
        self._connection.executemany(
            "INSERT INTO facts VALUES (?, ?, ?)", [(name, comparable(value), document) for name, value in facts]
        )
        vectors = np.ascontiguousarray(entry.vectors, dtype="<f4")
        self._connection.executemany(
            "INSERT INTO chunks (document, start, end, text, vector) VALUES (?, ?, ?, ?, ?)",
            [
                (document, chunk.start, chunk.end, chunk.text, vector.tobytes())
                for chunk, vector in zip(entry.chunks, vectors, strict=True)
            ],
        )

    def remove(self, source: str) -> bool:
        """Take a document out; False where there was none."""
        self.set_meta({"generation": str(int(self.meta("generation") or 0) + 1)})
        return self._connection.execute("DELETE FROM documents WHERE source = ?", (source,)).rowcount > 0
