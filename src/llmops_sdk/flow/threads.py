"""Threads for what must not run on an event loop: user functions on a pool of our own, blocking work on the loop's.

The two are apart so that user code that waits for a flow can never hold the thread that the flow needs.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import Context, ContextVar
from typing import Any, Final

MOST_INVOKED: Final = 256
"""Threads that may run user functions at once at one depth; they are made as needed."""


_depth: ContextVar[int] = ContextVar("llmops_invoke_depth", default=0)
"""How many user functions of this module stand around the one that runs."""


class _Pools:
    """The pools of this process, by depth: what a user function waits for runs in another pool than it does itself."""

    lock = threading.Lock()
    by_depth: dict[int, ThreadPoolExecutor] = {}  # noqa: RUF012 - one per process is the point


def _forget_pools() -> None:
    _Pools.lock, _Pools.by_depth = threading.Lock(), {}


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forget_pools)


def _pool(depth: int) -> ThreadPoolExecutor:
    pool = _Pools.by_depth.get(depth)
    if pool is None:
        with _Pools.lock:
            pool = _Pools.by_depth.get(depth)
            if pool is None:
                pool = _Pools.by_depth[depth] = ThreadPoolExecutor(MOST_INVOKED, f"llmops-invoke-{depth}")
    return pool


async def run_in_thread(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The result of a user function, run in a thread with a copy of the current context."""
    context = contextvars.copy_context()
    depth = _depth.get()
    context.run(_depth.set, depth + 1)
    return await _run(_pool(depth), context, function, args, kwargs)


async def run_blocking(function: Callable[[], Any]) -> Any:
    """The result of blocking work of our own, run on the loop's executor with a copy of the current context."""
    return await _run(None, contextvars.copy_context(), function, (), {})


async def _run(
    executor: Executor | None, context: Context, function: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(executor, lambda: context.run(_call, function, args, kwargs))


def _call(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """A future cannot hold a StopIteration (its waiter would hang), and a coroutine could not raise it either."""
    try:
        return function(*args, **kwargs)
    except StopIteration as stop:
        raise RuntimeError(f"{function!r} raised StopIteration") from stop
