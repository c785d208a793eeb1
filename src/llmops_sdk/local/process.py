"""What is loaded in this process: each weights file once, shared by all models and threads, and never across a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from llmops_sdk.errors import UsageError

T = TypeVar("T")


class _Process:
    """The engines of this process, by path. `owner` is the process that loaded the first of them."""

    lock = threading.Lock()
    loaded: dict[tuple[type, Path], object] = {}  # noqa: RUF012 - one per process is the point
    owner: int | None = None


def _renew_lock() -> None:
    _Process.lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_renew_lock)


def refuse_forked_child() -> None:
    """Raise `UsageError` in a process that was forked after an engine had been loaded: its threads stayed behind."""
    if _Process.owner not in (None, os.getpid()):
        raise UsageError(
            "A local model was loaded before this process was forked, and its threads do not survive a fork: a call would "
            'hang. Start processes with multiprocessing.get_context("spawn"), or make the first local call after the fork.'
        )


def loaded_once(kind: type[T], path: Path, load: Callable[[Path], T]) -> T:
    """The engine of `kind` for the weights at `path`, loaded at the first call. Raises `UsageError` in a forked child."""
    refuse_forked_child()
    key = (kind, path)
    with _Process.lock:
        engine = _Process.loaded.get(key)
        if engine is None:
            _Process.owner = os.getpid()
            engine = _Process.loaded[key] = load(path)
    return cast("T", engine)
