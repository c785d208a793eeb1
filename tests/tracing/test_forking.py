"""A fork does not cut through a block that SQLite is in."""

from __future__ import annotations

import os
import threading
import time

import pytest

from llmops_sdk.tracing.forking import unforked

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")


def test_a_fork_waits_until_other_threads_are_out() -> None:
    """In the child no lock of SQLite's is held by a thread that does not exist there."""
    inside, go_on = threading.Event(), threading.Event()
    left: list[bool] = []

    def work() -> None:
        with unforked():
            inside.set()
            assert go_on.wait(10)
            left.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(10)
    threading.Timer(0.05, go_on.set).start()
    child = os.fork()
    if child == 0:
        os._exit(0 if left else 1)
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_fork_has_its_turn_among_threads_that_come_and_go() -> None:
    """Each of them is out sometimes, and all of them at once never: those that come later wait for the fork."""
    stop = threading.Event()
    inside = [0, 0, 0]

    def work(number: int) -> None:
        while not stop.is_set():
            with unforked():
                inside[number] = 1
                time.sleep(0.002)
                inside[number] = 0

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    statuses = []
    for _ in range(20):
        child = os.fork()
        if child == 0:
            os._exit(sum(inside))
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    stop.set()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 20


def test_a_thread_may_fork_from_inside_its_own_block() -> None:
    """It waits for others, not for itself."""
    with unforked(), unforked():
        child = os.fork()
        if child == 0:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_blocks_are_open_to_all_after_a_fork() -> None:
    """In the parent, and in the child, whose copy of the condition nobody would release."""

    def enter() -> None:
        with unforked():
            pass

    def enters() -> bool:
        thread = threading.Thread(target=enter, daemon=True)
        thread.start()
        thread.join(10)
        return not thread.is_alive()

    child = os.fork()
    if child == 0:
        os._exit(0 if enters() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert enters()
