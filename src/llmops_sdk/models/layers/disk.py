"""The disk tier of caches: diskcache, holding text and nothing else, and closing what it opens."""

from __future__ import annotations

import os
import sqlite3
import weakref
from pathlib import Path
from typing import Any

import diskcache
from diskcache.core import DBNAME, MODE_PICKLE

from llmops_sdk.settings import make_file, make_folder

_inherited: list[sqlite3.Connection] = []
"""Connections of a parent process. SQLite forbids a forked child to use or close them, so they are kept."""


class PlainDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache is not typed
    """Text only: a value or key that would have to be unpickled is refused."""

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        """The stored text."""
        if mode == MODE_PICKLE:
            raise ValueError("a pickled value in the cache is refused")
        return super().fetch(mode, filename, value, read)

    def get(self, key: Any, raw: bool) -> Any:
        """The stored key."""
        if not raw:
            raise ValueError("a pickled key in the cache is refused")
        return super().get(key, raw)


class Owner:
    """Stands in a thread's storage for the connection that is closed when it goes."""

    __slots__ = ("__weakref__",)


def _close(connection: sqlite3.Connection, process: int) -> None:
    if process == os.getpid():
        connection.close()
    else:
        _inherited.append(connection)


class ClosingCache(diskcache.Cache):  # type: ignore[misc]  # diskcache is not typed
    """A cache that closes each connection when its thread ends, the cache goes, or the program ends.

    diskcache keeps one connection a thread and leaves closing to the garbage collector, which Python 3.13 warns of. A
    finalizer holds the connection itself, so that it is never part of the garbage.
    """

    @property
    def _con(self) -> sqlite3.Connection:
        """This thread's connection; any thread may close it."""
        here = self._local
        if getattr(here, "pid", None) != os.getpid():
            here.__dict__.clear()
            here.pid = os.getpid()
        known: sqlite3.Connection | None = getattr(here, "con", None)
        if known is not None:
            return known
        made = sqlite3.connect(
            Path(self._directory) / DBNAME, timeout=self._timeout, isolation_level=None, check_same_thread=False
        )
        here.con, here.owner = made, Owner()
        weakref.finalize(here.owner, _close, made, os.getpid())
        self._set_pragmas(made)
        return made

    def _set_pragmas(self, connection: sqlite3.Connection) -> None:
        """Pragmas hold for one connection; the table that has them may not exist yet."""
        try:
            settings = connection.execute("SELECT key, value FROM Settings").fetchall()
        except sqlite3.OperationalError:
            return
        for name, value in settings:
            if name.startswith("sqlite_"):
                self.reset(name, value, update=False)


def open_disk(folder: Path, size_bytes: int) -> ClosingCache:
    """The files in `folder`, made if need be. Raises `OSError`, `sqlite3.Error` and `diskcache.Timeout`."""
    make_folder(folder)
    make_file(folder / DBNAME)
    return ClosingCache(str(folder), disk=PlainDisk, size_limit=size_bytes, eviction_policy="least-recently-stored")
