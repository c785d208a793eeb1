"""What is loaded in this process: each weights file once, shared by all models and threads, and never across a fork."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar, cast

from llmops_sdk.errors import UsageError
from llmops_sdk.local.extras import require

T = TypeVar("T")


DEFAULT_THREADS: Final = 1
"""A pass takes some hundred small operations, and at the end of each all threads wait for the last. Measured with SmolLM2 on
two cores: a second thread gives 1.5 times the tokens where nothing else runs, and a fifteenth of them where other
processes want the cores too.
"""


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
            # before the load: a child forked in the midst of it would find the threads gone too
            _Process.owner = os.getpid()
            try:
                engine = _Process.loaded[key] = load(path)
            except BaseException:
                if not _Process.loaded:
                    _Process.owner = None
                raise
    return cast("T", engine)


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Inside, torch computes with `count` threads; after, with as many as before."""
    torch = require("torch", "torch")
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
