"""A fork does not cut through a block that SQLite is in."""

from __future__ import annotations

import os
import threading

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
