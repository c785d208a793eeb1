"""`ExactCache`: answers to requests that are equal in every field, in memory and on disk."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llmops_sdk import codec
from llmops_sdk.checks import check_number, shown
from llmops_sdk.errors import LLMOpsError, StoreError, UsageError
from llmops_sdk.models.layers.single_flight import Flights
from llmops_sdk.settings import current_settings, find_home
from llmops_sdk.tracing.forking import unforked
from llmops_sdk.types import Delta, Request, Response, canonical_json

if TYPE_CHECKING:
    import diskcache

FORMAT: Final = 1
"""Version of what is written; part of every key, so that an older entry is a miss."""


class Entry(NamedTuple):
    """A stored answer, with the deltas that it came in where it was streamed."""

    response: Response
    deltas: tuple[Delta, ...] = ()
    expires_s: float | None = None


class ExactCache:
    """Keeps responses under a hash of the model's name and the whole request.

    Args:
        path: folder of the disk tier; `<home>/cache` by default, and None in `memory_only`.
        ttl_s: age after which an answer is not given any more; None keeps it.
        memory_items: how many answers are also held in memory.
        size_bytes: bound of the disk tier; the least recently stored go first.
        memory_only: no disk tier.

    Threads, event loops and processes may share one. Entries are JSON; a pickled value in the files is refused. `get`
    and `put` raise `StoreError` where the disk tier cannot be used; a `Cached` model goes on without it.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        ttl_s: float | None = None,
        memory_items: int = 1024,
        size_bytes: int = 1 << 30,
        memory_only: bool = False,
    ) -> None:
        if path is not None and (not isinstance(path, str | os.PathLike) or not str(path)):
            raise UsageError(f"path must be a folder, or None for the one in the home; it is {shown(path)}.")
        check_number("ttl_s", ttl_s, least=0)
        check_number("memory_items", memory_items, least=0, whole=True, optional=False)
        check_number("size_bytes", size_bytes, above=0, whole=True, optional=False)
        self.path = None if path is None else Path(path)
        self.ttl_s = ttl_s
        self.memory_items = memory_items
        self.size_bytes = size_bytes
        self.memory_only = memory_only
        self.flights: Flights[Entry] = Flights()
        self._memory: OrderedDict[str, Entry] = OrderedDict()
        self._lock = threading.Lock()
        self._disk: diskcache.Cache | None = None
        self._told: set[tuple[str, object]] = set()
        _caches.add(self)

    def key(self, request: Request, *, model: str = "") -> str:
        """The key of a request to the model of that name: 64 hex digits."""
        text = canonical_json([FORMAT, model, codec.to_dict(request)])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def get(self, request: Request, *, model: str = "") -> Response | None:
        """The stored answer, or None."""
        entry = self.lookup(self.key(request, model=model))
        return None if entry is None else entry.response

    def put(self, request: Request, response: Response, *, model: str = "") -> None:
        """Store an answer."""
        key = self.key(request, model=model)
        entry = self.entry(response)
        self.remember(key, entry)
        self.write(key, entry)

    def entry(self, response: Response, deltas: tuple[Delta, ...] = ()) -> Entry:
        """An entry that expires as this cache's do."""
        return Entry(response, deltas, None if self.ttl_s is None else time.time() + self.ttl_s)

    def recall(self, key: str) -> Entry | None:
        """The entry held in memory, or None."""
        with self._lock:
            entry = self._memory.get(key)
            if entry is None:
                return None
            if entry.expires_s is not None and entry.expires_s <= time.time():
                del self._memory[key]
                return None
            self._memory.move_to_end(key)
            return entry

    def remember(self, key: str, entry: Entry) -> None:
        """Hold an entry in memory."""
        with self._lock:
            self._memory[key] = entry
            self._memory.move_to_end(key)
            while len(self._memory) > self.memory_items:
                self._memory.popitem(last=False)

    def lookup(self, key: str) -> Entry | None:
        """The entry in memory or on disk, or None. An entry that cannot be read is removed and is a miss."""
        entry = self.recall(key)
        if entry is not None or self.memory_only:
            return entry
        try:
            with unforked():
                text = self._on_disk().get(key)
            entry = None if text is None else _decode(text)
        except (LLMOpsError, ValueError, KeyError, TypeError):
            self._drop(key)
            return None
        except Exception as error:  # sqlite3.Error, OSError, diskcache.Timeout: one answer to all
            raise self._unusable(error) from error
        if entry is not None:
            self.remember(key, entry)
        return entry

    def write(self, key: str, entry: Entry) -> None:
        """Put an entry on disk."""
        if self.memory_only:
            return
        left_s = None if entry.expires_s is None else max(0.0, entry.expires_s - time.time())
        try:
            with unforked():
                self._on_disk().set(key, _encode(entry), expire=left_s)
        except Exception as error:  # as in lookup
            raise self._unusable(error) from error

    def is_news(self, error: StoreError) -> bool:
        """Whether the cache fails for a reason for which it did not fail before."""
        cause = error.__cause__
        # The text of an error may name another file each time.
        number = getattr(cause, "errno", None) or getattr(cause, "sqlite_errorcode", None)
        reason = (type(cause).__name__, number or (str(error) if cause is None else ""))
        with self._lock:
            news = reason not in self._told
            self._told.add(reason)
        return news

    def clear(self) -> None:
        """Forget everything, in memory and on disk."""
        with self._lock:
            self._memory.clear()
        if not self.memory_only:
            with unforked():
                self._on_disk().clear()

    def close(self) -> None:
        """Close this thread's connection to the files. A thread that ends closes its own."""
        if self._disk is not None:
            self._disk.close()

    def forget_leaders(self) -> None:
        """Called in a forked child."""
        self._lock = threading.Lock()
        self.flights.reset()

    def _drop(self, key: str) -> None:
        try:
            with unforked():
                self._on_disk().delete(key)
        except Exception as error:  # as in lookup
            raise self._unusable(error) from error

    def _on_disk(self) -> diskcache.Cache:
        with self._lock:
            if self._disk is None:
                from llmops_sdk.models.layers.disk import open_disk

                self.path = self.path or find_home(current_settings()) / "cache"
                self._disk = open_disk(self.path, self.size_bytes)
            return self._disk

    def _unusable(self, error: Exception) -> StoreError:
        if isinstance(error, StoreError):
            return error
        return StoreError(
            f"The cache in {self.path or 'the home'} cannot be used: {type(error).__name__}: {error}. "
            f"Check that the folder is writable; if its cache.db is damaged, delete the folder."
        )

    def __repr__(self) -> str:
        return f"<ExactCache {'memory' if self.memory_only else self.path or 'home'}>"


_caches: weakref.WeakSet[ExactCache] = weakref.WeakSet()


def _after_fork() -> None:
    for cache in list(_caches):
        cache.forget_leaders()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)


def _encode(entry: Entry) -> str:
    stored = {
        "response": codec.to_dict(entry.response),
        "deltas": [codec.to_dict(delta) for delta in entry.deltas],
        "expires_s": entry.expires_s,
    }
    return canonical_json(stored)


def _decode(text: Any) -> Entry:
    stored = json.loads(text)
    return Entry(
        response=codec.from_dict(Response, stored["response"]),
        deltas=tuple(codec.from_dict(Delta, delta) for delta in stored["deltas"]),
        expires_s=stored["expires_s"],
    )
