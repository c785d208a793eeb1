"""The way into the local store: a bounded queue and one thread that writes it."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmops_sdk.errors import StoreError
from llmops_sdk.settings import find_home

if TYPE_CHECKING:
    from llmops_sdk.settings import Settings
    from llmops_sdk.tracing.record import SpanRecord
    from llmops_sdk.tracing.store import Row, TraceStore

log = logging.getLogger("llmops_sdk")

TOGETHER_S: Final = 0.05
"""How long the thread waits for more, so that many spans share a transaction."""
AT_EXIT_S: Final = 10.0


class Drain:
    """Takes spans in any thread and writes them to one store; a store that cannot be written is said once.

    `queue_bytes` bounds what waits. On a full queue a span is dropped and counted, or with `block` its thread waits.
    """

    def __init__(self, store: TraceStore, *, queue_bytes: int, block: bool) -> None:
        self.store = store
        self.dropped = 0
        self.queue_bytes = queue_bytes
        self.block = block
        self._broken = False
        self._waited = False
        self._renew()

    def _renew(self) -> None:
        """An empty queue without a thread: as at first, and in a forked child, whose parent writes what waits."""
        self._changed = threading.Condition()
        self._queue: deque[tuple[Row, int]] = deque()
        self._size_bytes = 0
        self._writing = False
        self._thread: threading.Thread | None = None

    def take(self, record: SpanRecord) -> None:
        """Queue one span."""
        from llmops_sdk.tracing.store import row_of

        if self._broken:
            return
        row = row_of(record)
        size = sum(len(column) for column in row if isinstance(column, str))
        with self._changed:
            while self.block and self._size_bytes + size > self.queue_bytes and self._queue:
                self._changed.wait(0.1)
            if self._size_bytes + size > self.queue_bytes and self._queue:
                self._drop()
                return
            self._queue.append((row, size))
            self._size_bytes += size
            if self._thread is None:
                self._start()
            if len(self._queue) == 1:
                self._changed.notify_all()

    def _drop(self) -> None:
        self.dropped += 1
        if self.dropped == 1:
            log.warning(
                "llmops: the queue of the trace store is full (%s bytes): spans are dropped and counted. Raise "
                'queue_bytes, or configure(on_full="block").',
                self.queue_bytes,
            )

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._work, name="llmops-store", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is going down: what waits is written by the flush at exit
            self._thread = None

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    self._changed.wait()
            time.sleep(TOGETHER_S)
            self._write_all()

    def _write_all(self) -> None:
        with self._changed:
            if self._writing:
                return
            # swapped, not copied: a span that the garbage collector ends here would come into the middle of it
            waiting, self._queue = self._queue, deque()
            self._size_bytes = 0
            self._writing = bool(waiting)
            self._changed.notify_all()
        written = True
        try:
            written = not waiting or self._write([row for row, _ in waiting])
        finally:
            with self._changed:
                if not written:
                    self._queue.extendleft(reversed(waiting))
                    self._size_bytes += sum(size for _, size in waiting)
                self._writing = False
                self._changed.notify_all()

    def _write(self, rows: list[Row]) -> bool:
        """Write spans; False where another process holds the store, and they are to be tried again."""
        from llmops_sdk.tracing.store import is_busy

        try:
            self.store.write(rows)
        except StoreError as error:
            if is_busy(error):
                if not self._waited:
                    log.warning("llmops: %s Spans wait until it is free.", error)
                self._waited = True
                return False
            if not self._broken:
                log.warning("llmops: %s Spans of this process are not stored.", error)
            self._broken = True
        return True

    def flush(self, timeout_s: float) -> bool:
        """Write what waits; False if that took longer, or the store cannot be written."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            self._write_all()
            with self._changed:
                if not self._queue and not self._writing:
                    return not self._broken
                self._changed.wait(min(0.05, max(0.0, until - time.monotonic())))
        return False


class _Process:
    """The drains of this process, one a store."""

    lock = threading.Lock()
    drains: dict[Path, Drain] = {}  # noqa: RUF012 - one per process is the point


def store_drain(settings: Settings) -> Drain:
    """The drain of the store in the settings' home."""
    from llmops_sdk.tracing.store import FILE, TraceStore

    path = (find_home(settings) / FILE).absolute()
    with _Process.lock:
        drain = _Process.drains.get(path)
        if drain is None:
            drain = _Process.drains[path] = Drain(
                TraceStore(path), queue_bytes=settings.queue_bytes, block=settings.on_full == "block"
            )
            if len(_Process.drains) == 1:
                atexit.register(_flush_all)
        drain.queue_bytes, drain.block = settings.queue_bytes, settings.on_full == "block"
        return drain


def _flush_all() -> None:
    for drain in list(_Process.drains.values()):
        drain.flush(AT_EXIT_S)
        if drain.dropped:
            log.warning("llmops: %s spans were dropped because the queue was full.", drain.dropped)


def _after_fork() -> None:
    _Process.lock = threading.Lock()
    for drain in _Process.drains.values():
        drain._renew()  # noqa: SLF001 - the same room


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)
