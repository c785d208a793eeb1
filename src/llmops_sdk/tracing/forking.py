"""Work that a fork must not cut through.

SQLite has locks of its own, one set for the whole process. A child that is forked while another thread is inside of SQLite
inherits them locked, and waits for ever at its first statement, on whatever file. So `os.fork` waits until no thread of
ours is inside, and while it waits no other enters. (`subprocess` does not fork in this way and does not wait.)
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Final

PATIENCE_S: Final = 5.0
"""How long a fork waits: a statement may itself be waiting for another process."""


class _Depth(threading.local):
    """How many such blocks this thread is in."""

    depth: int = 0


class _Process:
    """How many such blocks all threads of this process are in."""

    changed = threading.Condition()
    inside = 0
    forking = False
    own = _Depth()


@contextlib.contextmanager
def unforked() -> Iterator[None]:
    """A block of this thread that a fork in another thread waits for."""
    with _Process.changed:
        while _Process.forking and not _Process.own.depth:  # who is inside already must be let finish
            _Process.changed.wait(PATIENCE_S)
        _Process.inside += 1
        _Process.own.depth += 1
    try:
        yield
    finally:
        with _Process.changed:
            _Process.inside -= 1
            _Process.own.depth -= 1
            _Process.changed.notify_all()


def _before_fork() -> None:
    """Wait; then hold the condition, so that nobody enters until the fork is done."""
    _Process.changed.acquire()
    _Process.forking = True
    until = time.monotonic() + PATIENCE_S
    while _Process.inside > _Process.own.depth and (left := until - time.monotonic()) > 0:
        _Process.changed.wait(left)


def _after_fork_in_parent() -> None:
    _Process.forking = False
    _Process.changed.notify_all()
    _Process.changed.release()


def _after_fork_in_child() -> None:
    _Process.changed, _Process.forking = threading.Condition(), False
    _Process.inside = _Process.own.depth


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
