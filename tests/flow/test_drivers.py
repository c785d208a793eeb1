"""The rules of flows, each on both drivers."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from concurrent.futures import Future
from functools import partial
from typing import Any

import httpx
import pytest
from flow_harness import Face, FlowModel, Numbers, answer, until

from llmops_sdk.errors import AllModelsFailedError, AsyncFunctionError, DeadlineExceededError, FlowCancelled, UsageError
from llmops_sdk.flow import (
    END,
    Block,
    Effect,
    Emit,
    Flow,
    Gather,
    Invoke,
    Next,
    Race,
    Run,
    Send,
    Sleep,
    Stream,
    Wait,
    run_async,
    run_sync,
)
from llmops_sdk.types import Delta, Response


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    return Face(request.param)


class Echo:
    """A transport that answers with what was asked, or hangs."""

    def __init__(self, *, hang: bool = False) -> None:
        self.hang = hang
        self.begun = threading.Event()
        self.sources: list[Numbers] = []

    def _answer(self, request: httpx.Request, stream: bool) -> Any:
        if stream:
            self.sources.append(Numbers(3))
            return self.sources[-1]
        return httpx.Response(200, text=str(request.url))

    def send(self, request: httpx.Request, *, stream: bool, timeout_s: float | None, deadline_s: float | None) -> Any:
        if self.hang:
            self.begun.set()
            left = None if deadline_s is None else deadline_s - time.monotonic()
            threading.Event().wait(left)
        return self._answer(request, stream)

    async def asend(
        self, request: httpx.Request, *, stream: bool, timeout_s: float | None, deadline_s: float | None
    ) -> Any:
        if self.hang:
            self.begun.set()
            await asyncio.get_running_loop().create_future()
        return self._answer(request, stream)


REQUEST = httpx.Request("GET", "http://127.0.0.1/x")


# Effects ------------------------------------------------------------------------------------------------------------


def test_each_effect_is_answered(face: Face) -> None:
    """Send, Next, Sleep, Block, Wait, Invoke and Gather answer with what they promise."""
    ready: Future[str] = Future()
    ready.set_result("ready")

    def flow() -> Flow[list[Any]]:
        response = yield Send(REQUEST, stream=False, transport=Echo())
        source = Numbers(1)
        return [
            response.text,
            (yield Next(source)),
            (yield Next(source)),
            (yield Sleep(0)),
            (yield Block(lambda: "blocked")),
            (yield Wait(ready)),
            (yield Invoke(lambda a, *, b: (a, b), (1,), {"b": 2})),
            [r.text for r in (yield Gather([answer("a"), answer("b")]))],
        ]

    expected = ["http://127.0.0.1/x", 0, END, None, "blocked", "ready", (1, 2), ["a", "b"]]
    assert face.run(flow()) == expected


def test_the_async_driver_awaits_coroutine_functions_and_the_sync_driver_names_them(face: Face) -> None:
    async def fetch(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    def flow(function: Any) -> Flow[Any]:
        return (yield Invoke(function, (1,)))

    for function in (fetch, partial(fetch), lambda x: fetch(x)):
        if face.kind == "async":
            assert face.run(flow(function)) == 2
        else:
            with pytest.raises(AsyncFunctionError, match=r"fetch|lambda|partial"):
                face.run(flow(function))


def test_what_is_not_an_effect_is_refused_inside_the_flow(face: Face) -> None:
    def flow() -> Flow[str]:
        try:
            yield "delta"  # type: ignore[misc]  # the mistake under test
        except TypeError as error:
            return str(error)
        return "accepted"

    assert "yield from" in face.run(flow())


def test_blocking_work_leaves_the_event_loop_free() -> None:
    """While Block runs, the loop runs other tasks."""
    entered, leave = threading.Event(), threading.Event()

    def work() -> str:
        entered.set()
        assert leave.wait(10)
        return "worked"

    def flow() -> Flow[Any]:
        return (yield Block(work))

    async def main() -> Any:
        task = asyncio.ensure_future(run_async(flow(), Run.start()))
        await until(entered)
        leave.set()
        return await task

    assert asyncio.run(main()) == "worked"


# Exceptions ---------------------------------------------------------------------------------------------------------


class TheirError(Exception):
    """An error of the user's own."""


@pytest.mark.parametrize("make", [Invoke, Block])
def test_the_users_exception_passes_through_every_layer_once_and_unchanged(face: Face, make: Any) -> None:
    raised = TheirError("mine")
    seen: list[BaseException] = []

    def fails() -> None:
        raise raised

    def leaf() -> Flow[None]:
        yield make(fails)

    def layer(inner: Flow[None]) -> Flow[None]:
        try:
            return (yield from inner)
        except TheirError as error:
            seen.append(error)
            raise

    with pytest.raises(TheirError) as caught:
        face.run(layer(layer(leaf())))
    assert caught.value is raised
    assert seen == [raised, raised]
    assert caught.value.__cause__ is None


def test_a_stop_iteration_of_user_code_does_not_end_the_flow_silently(face: Face) -> None:
    def flow() -> Flow[Any]:
        return (yield Invoke(next, (iter(()),)))

    with pytest.raises((StopIteration, RuntimeError)):
        face.run(flow())


def test_a_layer_can_catch_and_go_on(face: Face) -> None:
    def fails() -> None:
        raise TheirError

    def flow() -> Flow[str]:
        try:
            yield Invoke(fails)
        except TheirError:
            yield Sleep(0)
            return "recovered"
        return "nothing raised"

    assert face.run(flow()) == "recovered"


# Streams ------------------------------------------------------------------------------------------------------------


def counting(log: list[str], most: int = 1000) -> FlowModel:
    """Emits numbers; its clean-up takes an effect."""

    def flow(request: Any, run: Run) -> Flow[Response]:
        try:
            for number in range(most):
                yield Emit(Delta(text=str(number)))
        except FlowCancelled:
            yield Sleep(0)
            log.append("cleaned")
            raise
        return Response.of("all")

    return FlowModel(flow)


def test_a_stream_gives_its_deltas_then_its_response(face: Face) -> None:
    stream = counting([], most=3).stream("go")
    with pytest.raises(UsageError, match="to the end"):
        _ = stream.response
    assert [d.text for d in face.read(stream)] == ["0", "1", "2"]
    assert stream.response.text == "all"


def test_a_consumer_that_stops_reading_cancels_the_flow_which_cleans_up_with_effects(face: Face) -> None:
    log: list[str] = []
    stream = counting(log).stream("go")
    assert len(face.read(stream, most=2)) == 2
    assert log == ["cleaned"]
    with pytest.raises(UsageError):
        _ = stream.response


def test_a_stream_that_was_never_read_asks_nothing(face: Face) -> None:
    asked: list[int] = []

    def flow(request: Any, run: Run) -> Flow[Response]:
        asked.append(1)
        yield Sleep(0)
        return Response.of("x")

    stream = FlowModel(flow).stream("go")
    if face.kind == "sync":
        stream.close()
    else:
        asyncio.run(stream.aclose())
    assert asked == []
    assert list(FlowModel(flow).stream("go")) == []
    assert asked == [1]


def test_a_collected_stream_closes_its_flow_and_its_sources(face: Face) -> None:
    """No clean-up with effects is possible then, but nothing stays open."""
    closed: list[str] = []
    echo = Echo()

    def flow(request: Any, run: Run) -> Flow[Response]:
        yield Send(REQUEST, stream=True, transport=echo)
        try:
            yield Emit(Delta(text="one"))
        except GeneratorExit:
            closed.append("flow")
            raise
        return Response.of("x")

    def read_one() -> None:
        assert next(iter(FlowModel(flow).stream("go"))).text == "one"

    async def aread_one() -> None:
        stream = FlowModel(flow).stream("go")
        assert (await anext(stream)).text == "one"
        del stream
        gc.collect()
        await asyncio.sleep(0.01)

    if face.kind == "sync":
        read_one()
        gc.collect()
    else:
        asyncio.run(aread_one())
    assert closed == ["flow"]
    assert [s.closed for s in echo.sources] == [1]


def test_a_stream_is_read_in_one_way_only() -> None:
    stream = counting([]).stream("go")
    next(stream)

    async def read() -> None:
        await anext(stream)

    with pytest.raises(UsageError, match="go on with `for`"):
        asyncio.run(read())
    stream.close()


def test_an_async_stream_may_be_closed_in_another_task_than_it_was_read_in() -> None:
    log: list[str] = []

    async def main() -> None:
        stream = counting(log).astream("go")
        await asyncio.create_task(_first(stream))
        await asyncio.create_task(stream.aclose())

    asyncio.run(main())
    assert log == ["cleaned"]


async def _first(stream: Stream[Response]) -> Delta:
    return await anext(stream)


def test_sources_are_closed_however_the_flow_ends(face: Face) -> None:
    def flow(transport: Echo, fail: bool) -> Flow[Response]:
        yield Send(REQUEST, stream=True, transport=transport)
        if fail:
            raise TheirError
        return Response.of("x")

    good, bad = Echo(), Echo()
    face.run(flow(good, fail=False))
    with pytest.raises(TheirError):
        face.run(flow(bad, fail=True))
    assert [s.closed for s in good.sources + bad.sources] == [1, 1]


# Cancellation and deadlines in each effect ------------------------------------------------------------------------


def hanging(kind: str, face: Face) -> tuple[Effect, threading.Event]:
    """An effect that would last for ever, and the event that says it has begun."""
    begun = threading.Event()

    def hang_here() -> None:
        begun.set()
        threading.Event().wait(None if face.kind == "sync" else 0.3)

    def hang_inside() -> Flow[None]:
        begun.set()
        yield Sleep(1000)

    def wait_long() -> Effect:
        class Slow(Future[None]):
            def result(self, timeout: float | None = None) -> None:
                begun.set()
                super().result(timeout)

            def add_done_callback(self, fn: Any) -> None:
                begun.set()
                super().add_done_callback(fn)

        return Wait(Slow())

    if kind == "send":
        echo = Echo(hang=True)
        return Send(REQUEST, stream=False, transport=echo), echo.begun
    if kind == "next":
        source = Numbers(0, hang=True)
        return Next(source), source.begun
    if kind == "sleep":
        return Sleep(1000), begun
    made: dict[str, Any] = {
        "block": lambda: Block(hang_here),
        "invoke": lambda: Invoke(hang_here),
        "wait": wait_long,
        "race": lambda: Race([hang_inside()]),
        "gather": lambda: Gather([hang_inside(), answer()]),
    }
    return made[kind](), begun


KINDS = ["send", "next", "sleep", "block", "wait", "invoke", "race", "gather"]


@pytest.mark.parametrize("kind", KINDS)
def test_cancellation_reaches_the_flow_in_each_effect_and_clean_up_may_take_effects(face: Face, kind: str) -> None:
    log: list[str] = []
    effect, begun = hanging(kind, face)

    def flow() -> Flow[None]:
        try:
            if kind == "sleep":
                begun.set()
            yield effect
        except FlowCancelled:
            log.append("cancelled")
            yield Sleep(0)
            log.append((yield Block(lambda: "cleaned")))
            raise

    face.interrupt(flow(), begun)
    assert log == ["cancelled", "cleaned"]


def test_clean_up_that_never_ends_is_given_up_after_the_closing_time(face: Face) -> None:
    begun = threading.Event()

    def flow() -> Flow[None]:
        try:
            begun.set()
            yield Sleep(1000)
        except FlowCancelled:
            while True:
                yield Sleep(0.01)

    face.interrupt(flow(), begun, close_timeout_s=0.1)


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("block", "invoke", "next")])
def test_a_deadline_passes_in_each_effect(face: Face, kind: str) -> None:
    effect, _ = hanging(kind, face)

    def flow() -> Flow[str]:
        try:
            yield effect
        except DeadlineExceededError as error:
            yield Sleep(0)  # there is closing time for this
            return f"late: {error}"
        return "in time"

    assert face.run(flow(), deadline_s=0.05).startswith("late: The deadline of the call passed")


@pytest.mark.parametrize("make", [Block, Invoke])
def test_work_that_cannot_be_interrupted_is_late_when_it_ends(face: Face, make: Any) -> None:
    def flow() -> Flow[None]:
        yield make(lambda: time.sleep(0.1))

    with pytest.raises(DeadlineExceededError):
        face.run(flow(), deadline_s=0.02)


def test_a_source_that_hangs_is_left_at_the_deadline_by_the_async_driver() -> None:
    """The sync driver cannot leave a read: there the transport watches the deadline."""
    source = Numbers(0, hang=True)

    def flow() -> Flow[None]:
        yield Next(source)

    with pytest.raises(DeadlineExceededError):
        Face("async").run(flow(), deadline_s=0.05)


def test_a_deadline_passes_between_deltas(face: Face) -> None:
    def flow(request: Any, run: Run) -> Flow[Response]:
        while True:
            yield Emit(Delta(text="x"))
            yield Sleep(0.01)

    with pytest.raises(DeadlineExceededError):
        face.read(FlowModel(flow).stream("go", deadline_s=0.05))


# Wait ---------------------------------------------------------------------------------------------------------------


def test_wait_gives_up_after_its_own_time_and_leaves_the_future_alone(face: Face) -> None:
    future: Future[str] = Future()

    def flow() -> Flow[str]:
        try:
            yield Wait(future, 0.02)
        except TimeoutError:
            return "gave up"
        return "came"

    assert face.run(flow()) == "gave up"
    assert not future.cancelled()
    future.set_result("late")


def test_two_hundred_waiters_hold_no_thread_of_an_executor_with_two() -> None:
    """Blocking work still finds a thread while 200 flows wait, and all of them get the answer."""
    from concurrent.futures import ThreadPoolExecutor

    future: Future[str] = Future()

    def waiter() -> Flow[Any]:
        return (yield Wait(future))

    def worker() -> Flow[Any]:
        return (yield Block(lambda: "computed"))

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(2)
        loop.set_default_executor(executor)
        waiters = [asyncio.ensure_future(run_async(waiter(), Run.start())) for _ in range(200)]
        await asyncio.sleep(0)
        future.set_result(await run_async(worker(), Run.start()))
        return await asyncio.gather(*waiters)

    assert asyncio.run(main()) == ["computed"] * 200


# Race and Gather --------------------------------------------------------------------------------------------------


def emitting(*texts: str, after_s: float = 0.0, log: list[str] | None = None) -> Flow[Response]:
    try:
        yield Sleep(after_s)
        for text in texts:
            yield Emit(Delta(text=text))
    except FlowCancelled:
        if log is not None:
            log.append("cancelled " + "".join(texts))
        raise
    return Response.of("".join(texts))


def failing(message: str) -> Flow[Response]:
    yield Sleep(0)
    raise TheirError(message)


def racing(*flows: Flow[Any], delay_s: float = 0.0) -> FlowModel:
    def flow(request: Any, run: Run) -> Flow[Any]:
        return (yield Race(flows, delay_s))

    return FlowModel(flow)


def test_only_the_winners_deltas_leave_and_the_losers_are_cancelled(face: Face) -> None:
    log: list[str] = []
    stream = racing(emitting("s", "low", after_s=30, log=log), emitting("f", "ast"), delay_s=0.0).stream("go")
    assert [d.text for d in face.read(stream)] == ["f", "ast"]
    assert stream.response.text == "fast"
    assert log == ["cancelled slow"]


def test_a_failure_does_not_win_and_starts_the_next_at_once(face: Face) -> None:
    """With a delay of a minute, the second flow starts as soon as the first has failed."""
    stream = racing(failing("first"), emitting("second"), delay_s=60).stream("go")
    assert [d.text for d in face.read(stream)] == ["second"]


def test_a_failure_starts_the_next_while_another_one_still_runs(face: Face) -> None:
    """The third starts when the second fails, at 0.4 s, before the first answers at 0.6 s, and not at 0.8 s."""
    stream = racing(emitting("slow", after_s=0.6), failing("second"), emitting("third"), delay_s=0.4).stream("go")
    assert [d.text for d in face.read(stream)] == ["third"]


def test_a_race_that_all_lose_carries_every_error(face: Face) -> None:
    with pytest.raises(AllModelsFailedError) as caught:
        face.run(racing(failing("a"), failing("b")).flow(None, Run.start()))
    assert [str(e) for e in caught.value.errors] == ["a", "b"]


def test_a_race_of_nobody_fails(face: Face) -> None:
    with pytest.raises(AllModelsFailedError):
        face.run(racing().flow(None, Run.start()))


def test_later_flows_start_only_after_the_delay(face: Face) -> None:
    started: list[str] = []

    def late() -> Flow[Response]:
        started.append("late")
        return (yield from answer("late"))

    response = face.run(racing(emitting("early", after_s=0.02), late(), delay_s=60).flow(None, Run.start()))
    assert response.text == "early"
    assert started == []


def test_the_winner_may_fail_later_and_its_error_is_the_callers(face: Face) -> None:
    def breaks() -> Flow[Response]:
        yield Emit(Delta(text="one"))
        raise TheirError("broke")

    stream = racing(breaks(), emitting("other", after_s=30)).stream("go")
    with pytest.raises(TheirError, match="broke"):
        face.read(stream)


def test_a_consumer_that_leaves_a_race_cancels_its_winner(face: Face) -> None:
    log: list[str] = []
    stream = racing(emitting("a", "b", "c", after_s=0.02, log=log), emitting("z", after_s=30, log=log)).stream("go")
    assert [d.text for d in face.read(stream, most=1)] == ["a"]
    assert sorted(log) == ["cancelled abc", "cancelled z"]


def test_races_and_gathers_nest(face: Face) -> None:
    def inner(text: str) -> Flow[Any]:
        return (yield Race([emitting(text), emitting("never", after_s=30)]))

    def middle() -> Flow[Any]:
        return (yield Gather([inner("a"), inner("b")], limit=1))

    def outer() -> Flow[Any]:
        return (yield Race([middle(), emitting("never", after_s=30)]))

    assert [r.text for r in face.run(outer())] == ["a", "b"]


def test_gather_keeps_order_and_never_runs_more_than_its_limit(face: Face) -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def enter() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)

    def leave() -> None:
        nonlocal running
        with lock:
            running -= 1

    def item(number: int) -> Flow[int]:
        yield Invoke(enter)
        yield Sleep(0.005)
        yield Invoke(leave)
        return number

    def flow() -> Flow[Any]:
        return (yield Gather([item(n) for n in range(12)], limit=3))

    assert face.run(flow()) == list(range(12))
    assert 1 < most <= 3


def test_the_first_error_of_a_gather_cancels_the_rest(face: Face) -> None:
    log: list[str] = []

    def flow() -> Flow[Any]:
        return (yield Gather([failing("no"), emitting("slow", after_s=30, log=log)]))

    with pytest.raises(TheirError, match="no"):
        face.run(flow())
    assert log == ["cancelled slow"]


def test_a_gather_gives_errors_in_their_place_when_asked(face: Face) -> None:
    def flow() -> Flow[Any]:
        return (yield Gather([answer("a"), failing("no"), answer("c")], return_errors=True))

    first, second, third = face.run(flow())
    assert (first.text, str(second), third.text) == ("a", "no", "c")


def test_gathering_nothing_is_an_empty_list(face: Face) -> None:
    def flow() -> Flow[Any]:
        return (yield Gather([]))

    assert face.run(flow()) == []


def test_plain_functions_of_a_gather_run_at_the_same_time(face: Face) -> None:
    """Two functions that wait for each other end only if both run at once."""
    meeting = threading.Barrier(2, timeout=10)

    def flow() -> Flow[Any]:
        def one() -> Flow[Any]:
            return (yield Invoke(meeting.wait))

        return (yield Gather([one(), one()]))

    assert sorted(face.run(flow())) == [0, 1]


def test_coroutine_functions_in_a_gather_of_a_synchronous_call_are_refused() -> None:
    async def fetch() -> int:
        return 1

    def one() -> Flow[Any]:
        return (yield Invoke(fetch))

    def flow() -> Flow[Any]:
        return (yield Gather([one()]))

    with pytest.raises(AsyncFunctionError, match="fetch"):
        run_sync(flow(), Run.start())


# Loops, threads, processes ----------------------------------------------------------------------------------------


def test_a_sync_call_inside_a_running_event_loop_works_and_is_warned_of_once() -> None:
    """In a process of its own, since the warning is said once a process."""
    import subprocess
    import sys

    program = (
        "import asyncio, warnings\n"
        "from llmops_sdk.testing import ScriptedModel\n"
        "model = ScriptedModel(['a', 'b'])\n"
        "async def main():\n"
        "    with warnings.catch_warnings(record=True) as caught:\n"
        "        warnings.simplefilter('always')\n"
        "        texts = [model.complete('x').text, ''.join(d.text for d in model.stream('y'))]\n"
        "    return texts, [w.category.__name__ for w in caught], [w.filename for w in caught]\n"
        "print(asyncio.run(main()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(['a', 'b'], ['BlockingCallWarning'], ['<string>'])"


def test_a_sync_gather_works_inside_a_running_event_loop_and_in_many_threads() -> None:
    def flow() -> Flow[Any]:
        return (yield Gather([answer("a"), answer("b")]))

    results: list[Any] = []

    def call() -> None:
        results.append([r.text for r in run_sync(flow(), Run.start())])

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [["a", "b"]] * 4
