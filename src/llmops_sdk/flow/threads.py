"""Threads for what must not run on an event loop: user functions on a pool of our own, blocking work on the loop's.

The two are apart so that user code that waits for a flow can never hold the thread that the flow needs.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Final

MOST_INVOKED: Final = 256
"""Threads that may run user functions at once; they are made as needed."""


class _Pool:
    """The pool of this process."""

    executor: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    _Pool.executor = None


os.register_at_fork(after_in_child=_forget_pool)


def _pool() -> ThreadPoolExecutor:
    if _Pool.executor is None:
        _Pool.executor = ThreadPoolExecutor(MOST_INVOKED, thread_name_prefix="llmops-invoke")
    return _Pool.executor


async def run_in_thread(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The result of a user function, run in a thread with a copy of the current context."""
    return await _run(_pool(), function, args, kwargs)


async def run_blocking(function: Callable[[], Any]) -> Any:
    """The result of blocking work of our own, run on the loop's executor with a copy of the current context."""
    return await _run(None, function, (), {})


async def _run(executor: Executor | None, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(executor, lambda: context.run(_call, function, args, kwargs))


def _call(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """A future cannot hold a StopIteration (its waiter would hang), and a coroutine could not raise it either."""
    try:
        return function(*args, **kwargs)
    except StopIteration as stop:
        raise RuntimeError(f"{function!r} raised StopIteration") from stop
