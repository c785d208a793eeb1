"""One model in many loops, threads and processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flow_harness import FlowModel

from llmops_sdk.errors import FlowCancelled
from llmops_sdk.flow import Block, Emit, Flow, Gather, Invoke, Race, Run, Sleep, Wait, run_async, run_sync
from llmops_sdk.types import Delta, Response


def working(request: Any, run: Run) -> Flow[Any]:
    """Uses every effect that needs a loop, a thread or a pool."""

    def one(text: str) -> Flow[Any]:
        yield Sleep(0)
        text = yield Invoke(text.upper)
        return (yield Block(lambda: text))

    first, second = yield Gather([one("a"), one(request.text)])
    raced = yield Race([one("c"), never()], delay_s=60)
    yield Emit(Delta(text=first + second + raced))
    return Response.of(first + second + raced)


def never() -> Flow[None]:
    yield Sleep(1000)


MODEL = FlowModel(working)


async def ask(text: str) -> str:
    streamed = [delta.text async for delta in MODEL.astream(text)]
    assert streamed == [(await MODEL.acomplete(text)).text]
    return streamed[0]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_one_model_serves_three_loops_four_threads_and_a_forked_child() -> None:
    """The child is forked while the background loop and the pools of the parent run, and makes its own."""
    assert [asyncio.run(ask(f"loop{n}")) for n in range(3)] == [f"ALOOP{n}C" for n in range(3)]
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda n: MODEL.complete(f"thread{n}").text, range(4)))
    assert texts == [f"ATHREAD{n}C" for n in range(4)]

    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put((MODEL.complete("sync").text, asyncio.run(ask("async")))))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert queue.get() == ("ASYNCC", "AASYNCC")
    queue.close()
    assert MODEL.complete("after").text == "AAFTERC"


def test_a_child_forked_inside_a_call_ends_like_any_process() -> None:
    """At exit it closes its own background loop and leaves the parent's alone."""
    program = (
        "import os, sys\n"
        "from llmops_sdk.flow import Gather, Run, run_sync\n"
        "def one():\n"
        "    return 1\n"
        "    yield\n"
        "def flow():\n"
        "    return (yield Gather([one(), one()]))\n"
        "print(run_sync(flow(), Run.start()), flush=True)\n"
        "child = os.fork()\n"
        "print(run_sync(flow(), Run.start()), flush=True)\n"
        "if child:\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
    )
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n") == ["[1, 1]"] * 3 + [""]


def test_at_exit_flows_on_the_background_loop_clean_up() -> None:
    """A daemon thread is in the middle of a gather when the process ends."""
    program = (
        "import threading\n"
        "from llmops_sdk.errors import FlowCancelled\n"
        "from llmops_sdk.flow import Block, Gather, Run, Sleep, run_sync\n"
        "begun = threading.Event()\n"
        "def one():\n"
        "    yield Block(int)\n"
        "    try:\n"
        "        begun.set()\n"
        "        yield Sleep(1000)\n"
        "    except FlowCancelled:\n"
        "        yield Sleep(0.05)\n"
        "        print('cleaned', flush=True)\n"
        "        raise\n"
        "def flow():\n"
        "    return (yield Gather([one()]))\n"
        "def call():\n"
        "    try:\n"
        "        run_sync(flow(), Run.start())\n"
        "    except BaseException:\n"
        "        pass\n"
        "threading.Thread(target=call, daemon=True).start()\n"
        "begun.wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "cleaned\n", "")


def test_an_event_loop_that_ends_lets_children_of_a_gather_clean_up() -> None:
    """`asyncio.run` cancels every task at its end, children and parent; each child is cancelled once."""
    log: list[str] = []

    def one() -> Flow[None]:
        try:
            yield Sleep(1000)
        except FlowCancelled:
            yield Sleep(0.02)
            log.append("cleaned")
            raise

    def flow() -> Flow[Any]:
        return (yield Gather([one(), one()]))

    def racing() -> Flow[Any]:
        return (yield Race([one(), one()]))

    async def main() -> Any:
        tasks = [asyncio.ensure_future(run_async(made, Run.start())) for made in (flow(), racing())]
        await asyncio.sleep(0.05)
        return tasks

    tasks = asyncio.run(main())
    assert log == ["cleaned"] * 4
    assert all(task.cancelled() for task in tasks)


def test_a_wait_is_woken_by_another_loop_and_another_thread() -> None:
    """A future completed in a thread wakes a flow in a loop, and one completed in a loop wakes a thread."""
    from concurrent.futures import Future

    there: Future[str] = Future()
    back: Future[str] = Future()

    def waiting(future: Future[str]) -> Flow[Any]:
        return (yield Wait(future, 10))

    def in_thread() -> None:
        there.set_result(f"thread got {run_sync(waiting(back), Run.start())}")

    async def main() -> str:
        thread = threading.Thread(target=in_thread)
        thread.start()
        await asyncio.sleep(0.01)
        back.set_result("loop's word")
        told: str = await run_async(waiting(there), Run.start())
        thread.join()
        return told

    assert asyncio.run(main()) == "thread got loop's word"


def test_many_calls_leave_nothing_behind() -> None:
    """Neither tasks on the background loop, nor threads, nor futures: 500 calls cost no more memory than 50."""
    import tracemalloc

    def calls(count: int) -> int:
        for number in range(count):
            MODEL.complete(str(number))
            with MODEL.stream("x") as stream:
                next(stream)
        return tracemalloc.get_traced_memory()[0]

    calls(50)
    tracemalloc.start()
    try:
        before = calls(50)
        threads = threading.active_count()
        after = calls(450)
    finally:
        tracemalloc.stop()
    assert threading.active_count() <= threads + 1
    assert after - before < 100_000, "about 220 bytes a call would show here"


def test_a_blocked_background_loop_is_not_needed_by_plain_calls() -> None:
    """Only races and gathers use it: everything else stays in the caller's thread."""
    release = threading.Event()

    def plain() -> Flow[Any]:
        seen = [(yield Invoke(threading.get_ident)), (yield Block(threading.get_ident))]
        yield Sleep(0)
        return seen

    def holding() -> Flow[None]:
        assert release.wait(10)
        yield Sleep(0)

    def flow() -> Flow[Any]:
        return (yield Gather([holding()]))

    holder = threading.Thread(target=lambda: run_sync(flow(), Run.start()))
    holder.start()
    time.sleep(0.01)
    try:
        assert run_sync(plain(), Run.start()) == [threading.get_ident()] * 2
    finally:
        release.set()
        holder.join()
