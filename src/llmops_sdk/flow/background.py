"""The one background event loop of a process, where the sync driver runs `Race` and `Gather`."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import os
import threading
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

from llmops_sdk.errors import UsageError
from llmops_sdk.flow import contest as on_loop
from llmops_sdk.flow.async_driver import AsyncDriver, close_later

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from llmops_sdk.flow.driver import Driver
    from llmops_sdk.flow.effects import Contest, Gather


class _Background:
    """The loop and its thread; those of the parent process are kept in `orphans`, since a child must not close them."""

    lock = threading.Lock()
    loop: asyncio.AbstractEventLoop | None = None
    thread: threading.Thread | None = None
    orphans: list[asyncio.AbstractEventLoop] = []  # noqa: RUF012 - process-wide on purpose


def _after_fork() -> None:
    if _Background.loop is not None:
        _Background.orphans.append(_Background.loop)
    _Background.lock, _Background.loop, _Background.thread = threading.Lock(), None, None


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)


def background_loop() -> asyncio.AbstractEventLoop:
    """The loop, started at the first call in this process."""
    with _Background.lock:
        if _Background.loop is None:
            loop = _Background.loop = asyncio.new_event_loop()
            _Background.thread = threading.Thread(target=_serve, args=(loop,), name="llmops-flows", daemon=True)
            _Background.thread.start()
            atexit.register(_stop, loop, _Background.thread)
        return _Background.loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    while _Background.loop is loop:
        # KeyboardInterrupt and SystemExit of a user's function leave the loop as well as their task; the task has them
        # for who waits, and the loop goes on for everybody else.
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            loop.run_forever()
    loop.run_until_complete(_wind_up())
    loop.close()


async def _wind_up() -> None:
    """Cancel what is left, wait for its clean-up, and close asynchronous generators. (`asyncio.Runner` would also start
    a thread, which a process that ends may not.)
    """
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """At exit: cancel what still runs, let asynchronous generators close, then the loop."""
    if thread is not _Background.thread or loop.is_closed():
        return
    _Background.loop = _Background.thread = None
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=2.0)


def submit(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """The result of a coroutine run on the background loop, in a copy of the caller's context.

    On Ctrl-C the coroutine is cancelled, and has cleaned up before the interrupt goes on.
    """
    loop = background_loop()
    if threading.current_thread() is _Background.thread:
        raise UsageError("A synchronous call stands inside asynchronous code of its own. Await the asynchronous form.")
    outcome: Future[Any] = Future()
    tasks: list[asyncio.Task[Any]] = []
    loop.call_soon_threadsafe(_start, loop, work, tasks, outcome, context=contextvars.copy_context())
    try:
        return outcome.result()
    except BaseException:
        if not outcome.done():
            loop.call_soon_threadsafe(_cancel, tasks)
            wait([outcome])
        raise
    finally:
        del outcome, tasks  # they hold the exception, whose traceback holds this frame


def _start(
    loop: asyncio.AbstractEventLoop,
    work: Callable[[], Coroutine[Any, Any, Any]],
    tasks: list[asyncio.Task[Any]],
    outcome: Future[Any],
) -> None:
    task = loop.create_task(work())
    tasks.append(task)
    task.add_done_callback(lambda ended: _pass_on(ended, outcome))


def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()


def _pass_on(task: asyncio.Task[Any], outcome: Future[Any]) -> None:
    if task.cancelled():
        outcome.set_exception(asyncio.CancelledError())
    elif (error := task.exception()) is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())


def _stand_in(parent: Driver) -> AsyncDriver:
    """A driver that lends a synchronous call's run, span and time to its children on the loop."""
    driver = AsyncDriver((_ for _ in ()), parent.run, parent.context, serves_sync=True)
    driver.deadline_s, driver.late = parent.deadline_s, parent.late
    return driver


def gather(effect: Gather, parent: Driver) -> list[Any]:
    """`Gather` for the sync driver."""
    results: list[Any] = submit(lambda: on_loop.gather(effect, _stand_in(parent)))
    return results


def contest(effect: Contest, parent: Driver) -> SyncWon:
    """`Contest` for the sync driver."""
    return SyncWon(submit(lambda: on_loop.contest(effect, _stand_in(parent))), background_loop())


class SyncWon:
    """The winner of a race on the background loop, read from the caller's thread."""

    def __init__(self, won: on_loop.Won, loop: asyncio.AbstractEventLoop) -> None:
        self._won = won
        self._loop = loop

    @property
    def result(self) -> Any:
        return self._won.result

    def next(self) -> Any:
        """The winner's next delta, or `END`."""
        return submit(self._won.anext)

    def close(self) -> None:
        """Cancel the winner if it has not ended, and wait for the losers' clean-up."""
        submit(self._won.aclose)

    def collect(self) -> None:
        """The same at garbage collection, in any thread, the loop's included: nothing can be waited for."""
        close_later(self._loop, [self._won])

    async def anext(self) -> Any:
        """Read on another loop than the one it runs on, it would break."""
        raise RuntimeError("This source belongs to a synchronous call; read it with next().")

    aclose = anext
