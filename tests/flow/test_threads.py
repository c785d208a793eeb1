"""The threads that run user functions."""

from __future__ import annotations

import threading
import weakref

import pytest

from llmops_sdk.flow.threads import Pool


def test_one_call_after_the_other_takes_one_thread() -> None:
    """A thread is free before its result is known, so the next call finds it."""
    pool = Pool(8, "t")
    assert len({pool.submit(threading.get_ident).result(10) for _ in range(500)}) == 1


def test_calls_at_once_have_a_thread_each_up_to_the_most() -> None:
    """Beyond it they wait for one that is free, in their order."""
    pool = Pool(3, "t")
    together, go_on = threading.Barrier(4), threading.Event()

    def hold() -> int:
        together.wait(10)
        assert go_on.wait(10)
        return threading.get_ident()

    held = [pool.submit(hold) for _ in range(3)]
    together.wait(10)
    order: list[int] = []
    late = [pool.submit(order.append, number) for number in range(5)]
    assert not any(future.done() for future in late)
    go_on.set()
    assert len({future.result(10) for future in held}) == 3
    for future in late:
        future.result(10)
    assert sorted(order) == list(range(5))


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3)], ids=lambda e: type(e).__name__)
def test_what_a_function_raises_is_its_callers(error: BaseException) -> None:
    """And the thread goes on."""
    pool = Pool(1, "t")

    def fails() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        pool.submit(fails).result(10)
    assert raised.value is error
    assert pool.submit(lambda: 1).result(10) == 1


def test_a_waiting_call_that_is_cancelled_is_not_run() -> None:
    """Its turn passes."""
    pool = Pool(1, "t")
    go_on, ran = threading.Event(), threading.Event()
    first = pool.submit(go_on.wait, 10)
    second = pool.submit(ran.set)
    assert second.cancel()
    go_on.set()
    assert first.result(10)
    assert pool.submit(lambda: 2).result(10) == 2
    assert not ran.is_set()


def test_a_thread_that_waits_keeps_nothing() -> None:
    """Neither the function that it ran nor what came of it."""

    class Thing:
        pass

    pool = Pool(1, "t")
    thing = Thing()
    kept = weakref.ref(thing)
    assert pool.submit(lambda given: given, thing).result(10) is thing
    pool.submit(lambda: None).result(10)
    del thing
    assert kept() is None
