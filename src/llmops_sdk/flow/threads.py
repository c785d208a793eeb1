"""Threads for what must not run on an event loop: user functions on a pool of our own, blocking work on the loop's.

The two are apart so that user code that waits for a flow can never hold the thread that the flow needs.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextvars import Context, ContextVar
from queue import SimpleQueue
from typing import Any, Final, TypeAlias

MOST_INVOKED: Final = 256
"""Threads that may run user functions at once at one depth; they are made as needed."""


_depth: ContextVar[int] = ContextVar("llmops_invoke_depth", default=0)
"""How many user functions of this module stand around the one that runs."""

_Work: TypeAlias = "tuple[Future[Any], Callable[[], Any]]"


class Pool(Executor):
    """Threads that are made as needed, at most `most`, and kept.

    A thread is free again before its result is known. So whoever makes one call after the other has one thread, where a
    ThreadPoolExecutor, whose threads become free a moment after their result, makes one more for almost every call.
    They are daemons: a user function that hangs does not keep the process.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._lock = threading.Lock()
        self._free: list[SimpleQueue[_Work]] = []
        self._waiting: deque[_Work] = deque()
        self._made = 0

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in a free thread, a new one, or, where all are taken, the next one that is free."""
        future: Future[Any] = Future()
        work = (future, functools.partial(function, *args, **kwargs))
        with self._lock:
            if not self._free and self._made >= self._most:
                self._waiting.append(work)
                return future
            inbox = self._free.pop() if self._free else self._new_thread()
        inbox.put(work)
        return future

    def _new_thread(self) -> SimpleQueue[_Work]:
        self._made += 1
        inbox: SimpleQueue[_Work] = SimpleQueue()
        threading.Thread(target=self._serve, args=(inbox,), name=f"{self._name}-{self._made}", daemon=True).start()
        return inbox

    def _serve(self, inbox: SimpleQueue[_Work]) -> None:
        work: _Work | None = None
        while True:
            tell = _outcome(*(inbox.get() if work is None else work))
            with self._lock:
                work = self._waiting.popleft() if self._waiting else None
                if work is None:
                    self._free.append(inbox)
            tell()
            del tell  # a result must not be kept by a thread that waits


def _outcome(future: Future[Any], function: Callable[[], Any]) -> Callable[[], None]:
    """Run a function; what comes back makes its outcome known."""
    try:
        if not future.set_running_or_notify_cancel():
            return lambda: None
        return functools.partial(future.set_result, function())
    except BaseException as error:
        return functools.partial(future.set_exception, error)
    finally:
        del future, function  # the error's traceback holds this frame


class _Pools:
    """The pools of this process, by depth: what a user function waits for runs in another pool than it does itself."""

    lock = threading.Lock()
    by_depth: dict[int, Pool] = {}  # noqa: RUF012 - one per process is the point


def _forget_pools() -> None:
    _Pools.lock, _Pools.by_depth = threading.Lock(), {}


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forget_pools)


def _pool(depth: int) -> Pool:
    pool = _Pools.by_depth.get(depth)
    if pool is None:
        with _Pools.lock:
            pool = _Pools.by_depth.get(depth)
            if pool is None:
                pool = _Pools.by_depth[depth] = Pool(MOST_INVOKED, f"llmops-invoke-{depth}")
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
    """What a function raised comes back apart: asyncio would hand the waiter a copy of a TimeoutError."""
    loop = asyncio.get_running_loop()
    raised: list[BaseException] = []
    value = await loop.run_in_executor(executor, lambda: context.run(_call, function, args, kwargs, raised))
    if not raised:
        return value
    error = raised.pop()  # taken out, since frames in its traceback hold the list
    try:
        raise error
    finally:
        del error


def _call(function: Callable[..., Any], args: Any, kwargs: Any, raised: list[BaseException]) -> Any:
    try:
        return function(*args, **kwargs)
    except StopIteration as stop:  # no coroutine can raise it
        error = RuntimeError(f"{function!r} raised StopIteration")
        error.__cause__ = stop
        raised.append(error)
        del error
    except BaseException as error:
        raised.append(error)
