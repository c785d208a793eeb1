"""The SQLite file of an index: documents, chunks and their vectors. What it holds is the truth; graphs are made of it.

A connection lives for one operation, so that threads, forks and other processes need no care.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from llmops_sdk.errors import StoreError
from llmops_sdk.retrieval.document import Document, Fact, comparable
from llmops_sdk.settings import make_file, make_folder
from llmops_sdk.tracing.forking import unforked
from llmops_sdk.tracing.store import use_log
from llmops_sdk.types import Hit, canonical_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llmops_sdk.retrieval.chunker import Chunk

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

    def __init__(self, folder: Path, *, busy_s: float = BUSY_S) -> None:
        self.busy_s = busy_s
        self.path = folder / FILE

    @contextlib.contextmanager
    def reading(self) -> Iterator[Snapshot | None]:
        """One consistent state of the file; None where there is no index yet."""
        try:
            there = self.path.exists()
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {error}. Give this user the right to.") from error
        if not there:
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
            make_folder(self.path.parent)
            make_file(self.path)
        except OSError as error:
            raise StoreError(f"{self.path.parent} cannot be made: {error}. Give the index another path.") from error
        with self._connection() as connection:
            use_log(connection, self.busy_s)
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
            with unforked(), contextlib.closing(self._open()) as connection:
                connection.execute("PRAGMA foreign_keys = ON")
                yield connection
        except sqlite3.Error as error:
            raise self._told(error) from error
        except UnicodeDecodeError as error:  # a message of SQLite that quotes damaged bytes
            raise damaged(self.path, error) from error

    def _open(self) -> sqlite3.Connection:
        """Readers of SQLite's write-ahead log write beside the file. In a folder that was shipped read-only they cannot;
        there nobody writes, so that they need not.
        """
        address = self.path.absolute().as_uri()
        log = self.path.with_name(f"{FILE}-wal")
        if not os.access(self.path.parent, os.W_OK) and not log.exists():
            address += "?immutable=1"
        return sqlite3.connect(address, uri=True, timeout=self.busy_s, isolation_level=None)

    def _told(self, error: sqlite3.Error) -> StoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without what extends it
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreError(
                f"{self.path} has been locked by another process for {self.busy_s:g} s. Try again when it has ended."
            )
        if code in _OUTSIDE:
            return StoreError(
                f"{self.path} cannot be read or written: {error}. Look at its permissions and the space on its disk, or "
                f"give the index another path."
            )
        return damaged(self.path, error)


def damaged(path: Path, why: object) -> StoreError:
    """The error of a file that is an index no more."""
    return StoreError(
        f"{path} is damaged: {why}. Delete {FILE}, {FILE}-wal and {FILE}-shm in {path.parent}, and index the documents again."
    )


_OUTSIDE: Final = (
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
)


class Snapshot:
    """Reads within one transaction."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    def usable(self) -> bool:
        """Whether the file holds an index; an empty one, of a writer that has just begun, does not yet."""
        tables = {row[0] for row in self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return False
        seen = self.meta("format") if "meta" in tables else None
        if seen != FORMAT:
            raise StoreError(
                f"{self._path} is no index of this version: its format is {seen!r}, not {FORMAT!r}. Give the index another "
                f"path, or if it is an old index, delete it and index the documents again."
            )
        return True

    def meta(self, name: str) -> str | None:
        """One entry about the index itself."""
        row = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def embedding(self) -> Embedding | None:
        """Who made the vectors; None while there are none."""
        embedder, dimension = self.meta("embedder"), self.meta("dimension")
        if embedder is None or dimension is None:
            return None
        if not dimension.isdecimal():
            raise damaged(self._path, f"its dimension is {dimension!r}")
        return Embedding(embedder, int(dimension))

    def state(self) -> tuple[str, str]:
        """Changes whenever chunks do, and differs between any two indexes."""
        return self.meta("identity") or "", self.meta("generation") or ""

    def count(self) -> int:
        """How many chunks there are."""
        return int(self._connection.execute("SELECT count(*) FROM chunks").fetchone()[0])

    def count_up_to(self, last: int) -> int:
        """How many chunks there are with an id up to `last`."""
        return int(self._connection.execute("SELECT count(*) FROM chunks WHERE id <= ?", (last,)).fetchone()[0])

    def last_id(self) -> int:
        """The last id that was given to a chunk."""
        row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'chunks'").fetchone()
        return 0 if row is None else int(row[0])

    def digests(self) -> dict[str, str]:
        """Of every document: source, digest."""
        found = dict(self._connection.execute("SELECT source, digest FROM documents"))
        if not all(isinstance(source, str) for source in found):
            raise damaged(self._path, "a document has no name")
        return found

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
                self._connection.execute(f"SELECT id, vector FROM chunks WHERE id IN ({marks})", part)  # noqa: S608 - as above
            )
        if any(len(vector) != dimension * 4 for vector in found.values()) or len(found) != len(ids):
            raise damaged(self._path, f"vectors are missing or not of {dimension} numbers")
        joined = b"".join(found[int(at)] for at in ids)
        return np.frombuffer(joined, dtype="<f4").reshape(len(ids), dimension)

    def hit(self, at: int, score: float) -> Hit:
        """The chunk of this id."""
        row = self._connection.execute(
            "SELECT source, start, end, text, metadata FROM chunks JOIN documents ON documents.id = document "
            "WHERE chunks.id = ?",
            (at,),
        ).fetchone()
        if row is None:
            raise damaged(self._path, f"the document of chunk {at} is missing")
        source, start, end, text, metadata = row
        if [type(value) for value in row] != [str, int, int, str, str]:
            raise damaged(self._path, f"chunk {at} is of {source!r}, from {start!r} to {end!r}")
        try:
            facts = tuple((str(name), value) for name, value in json.loads(metadata))
        except ValueError as error:
            raise damaged(self._path, f"the metadata of {source!r} is no JSON") from error
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
