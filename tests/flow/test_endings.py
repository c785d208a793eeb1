"""How flows end when something is amiss: unruly flows, user code that raises what it should not, bad sources, garbage."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import httpx
import pytest
from flow_harness import Face, FlowModel, Numbers, answer, until

from llmops_sdk.errors import AllModelsFailedError, DeadlineExceededError, FlowCancelled, UsageError
from llmops_sdk.flow import (
    Block,
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
    tap,
)
from llmops_sdk.settings import Settings
from llmops_sdk.types import Delta, Response


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    return Face(request.param)


class TheirError(Exception):
    """An error of the user's own."""


REQUEST = httpx.Request("GET", "http://127.0.0.1/x")


class Sources:
    """A transport that opens the sources it was given, in order."""

    def __init__(self, *sources: Any) -> None:
        self.left = list(sources)

    def send(self, request: httpx.Request, **_: Any) -> Any:
        return self.left.pop(0)

    async def asend(self, request: httpx.Request, **_: Any) -> Any:
        return self.left.pop(0)


def raising(error: BaseException) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


# Unruly flows -----------------------------------------------------------------------------------------------------


def swallowing(request: Any, run: Run) -> Flow[Response]:
    while True:
        try:
            yield Emit(Delta(text="x"))
        except FlowCancelled:
            continue


def catching_everything(request: Any, run: Run) -> Flow[Response]:
    for _ in range(10**9):
        try:
            yield Emit(Delta(text="x"))
            yield Sleep(0)
        except GeneratorExit:
            raise
        except BaseException:
            continue
    return Response.of("x")


def answering(request: Any, run: Run) -> Flow[Response]:
    try:
        yield Emit(Delta(text="x"))
    except FlowCancelled:
        yield Emit(Delta(text="y"))
    return Response.of("anyway")


@pytest.mark.parametrize("flow", [swallowing, catching_everything, answering])
def test_a_flow_that_swallows_its_cancellation_is_closed_after_the_closing_time(face: Face, flow: Any) -> None:
    """Also one that only emits, and nothing of it leaves any more."""
    run = Run(streaming=True, settings=Settings(close_timeout_s=0.05))
    stream: Stream[Response] = Stream(flow(None, run), run)
    assert len(face.read(stream, most=2 if flow is not answering else 1)) > 0
    if face.kind == "sync":
        assert list(stream) == []


def test_a_flow_that_yields_nonsense_while_it_is_cancelled_is_told_and_ends(face: Face) -> None:
    told: list[str] = []

    def flow(request: Any, run: Run) -> Flow[Response]:
        try:
            yield Emit(Delta(text="x"))
        except FlowCancelled:
            try:
                yield "nonsense"  # type: ignore[misc]  # the mistake under test
            except TypeError as error:
                told.append(str(error))
            raise
        return Response.of("x")

    face.read(FlowModel(flow).stream("q"), most=1)
    assert "not an effect" in told[0]


def test_an_error_in_the_clean_up_does_not_hide_why_the_call_ended(face: Face) -> None:
    begun = threading.Event()

    def flow() -> Flow[None]:
        try:
            begun.set()
            yield Sleep(1000)
        except FlowCancelled:
            yield Sleep(0)
            raise TheirError("in the clean-up") from None

    face.interrupt(flow(), begun)  # says so if anything but the interrupt comes out


def test_a_second_interrupt_ends_the_clean_up_at_once() -> None:
    """The task is cancelled again while the flow sleeps in its clean-up."""
    log: list[str] = []
    cleaning = threading.Event()

    def flow() -> Flow[None]:
        try:
            yield Sleep(1000)
        except FlowCancelled:
            cleaning.set()
            try:
                yield Sleep(1000)
            finally:
                log.append("closed")

    async def main() -> None:
        task = asyncio.ensure_future(run_async(flow(), Run.start()))
        await asyncio.sleep(0)
        task.cancel()
        await until(cleaning)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert log == ["closed"]


# What user code raises ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("make", [Invoke, Block])
def test_what_is_no_exception_ends_the_call_after_the_flow_has_cleaned_up(face: Face, make: Any, kind: Any) -> None:
    """The flow sees that it is cancelled, and the caller sees what was raised."""
    raised = kind()
    log: list[str] = []

    def flow() -> Flow[None]:
        try:
            yield make(raising(raised))
        except (FlowCancelled, GeneratorExit):
            log.append("cancelled")
            raise

    with pytest.raises(kind):
        face.run(flow())
    assert log == ["cancelled"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("around", [Gather, Race])
def test_in_a_gather_or_race_it_comes_out_too_and_the_next_call_works(face: Face, around: Any, kind: Any) -> None:
    """It is not one candidate's failure, and the background loop of synchronous calls outlives it."""

    def child() -> Flow[None]:
        yield Invoke(raising(kind()))

    def flow(*flows: Flow[Any]) -> Flow[Any]:
        return (yield around(flows))

    with pytest.raises(kind):
        face.run(flow(child(), _late()))
    assert face.run(flow(answer("after"))) is not None


def test_a_stop_iteration_of_user_code_reaches_the_caller_of_a_sync_call_as_it_was() -> None:
    raised = StopIteration("theirs")

    def flow() -> Flow[None]:
        yield Invoke(raising(raised))

    with pytest.raises(StopIteration) as caught:
        run_sync(flow(), Run.start())
    assert caught.value is raised
    assert caught.value.__context__ is None


def test_errors_that_refer_to_each_other_pass_through(face: Face) -> None:
    """A loop of causes and contexts is walked by nobody."""
    one, two = TheirError("one"), TheirError("two")
    one.__cause__, two.__cause__ = two, one
    one.__context__, two.__context__ = two, one

    def flow() -> Flow[Any]:
        return (yield Race([child(), child()]))

    def child() -> Flow[None]:
        yield Invoke(raising(one))

    with pytest.raises(AllModelsFailedError) as caught:
        face.run(flow())
    assert caught.value.errors == (one, one)


# Times --------------------------------------------------------------------------------------------------------------


def test_a_deadline_of_zero_lets_nothing_be_asked(face: Face) -> None:
    asked: list[int] = []

    def flow() -> Flow[None]:
        yield Invoke(lambda: asked.append(1))

    with pytest.raises(DeadlineExceededError):
        face.run(flow(), deadline_s=0)
    assert asked == []


def test_a_sleep_of_less_than_nothing_is_none(face: Face) -> None:
    """A pause until a time that has passed."""

    def flow() -> Flow[str]:
        yield Sleep(-1)
        return "slept"

    assert face.run(flow()) == "slept"
    assert face.run(flow(), deadline_s=5) == "slept"


def test_a_late_call_inside_of_a_call_takes_no_time_from_the_outer_one(face: Face) -> None:
    """A tool whose own model was late raises its error in the flow, whose own deadline stays what it was."""
    inner = FlowModel(lambda request, run: answer_later())

    def answer_later() -> Flow[Response]:
        yield Sleep(30)
        return Response.of("never")

    def tool() -> None:
        inner.complete("q", deadline_s=0.01)

    def flow(deadline: bool) -> Flow[str]:
        try:
            yield Invoke(tool)
        except DeadlineExceededError:
            yield Sleep(0.2)
            return "went on"
        return "in time"

    assert face.run(flow(False), close_timeout_s=0.02) == "went on"
    assert face.run(flow(True), deadline_s=60, close_timeout_s=0.02) == "went on"


def test_a_late_call_inside_of_a_race_is_one_candidates_failure(face: Face) -> None:
    def late() -> Flow[Response]:
        raise DeadlineExceededError("an inner one")
        yield

    def flow() -> Flow[Any]:
        return (yield Race([late(), answer("the other")]))

    assert face.run(flow(), deadline_s=60).text == "the other"


def test_children_have_their_closing_time_when_the_deadline_passes(face: Face) -> None:
    """Each child of a gather is told of the deadline and cleans up undisturbed, before its parent goes on."""
    log: list[str] = []

    def child() -> Flow[None]:
        try:
            yield Sleep(30)
        except DeadlineExceededError:
            yield Sleep(0.05)
            log.append("cleaned")
            raise

    def flow() -> Flow[str]:
        try:
            yield Gather([child(), child()], return_errors=True)
        except DeadlineExceededError:
            return f"late, {len(log)} cleaned"
        return "in time"

    assert face.run(flow(), deadline_s=0.05) == "late, 2 cleaned"


def test_the_closing_time_is_given_once_to_children_of_a_clean_up_too(face: Face) -> None:
    """A gather started in a clean-up ends with it: its children have no closing time of their own."""
    begun = threading.Event()
    steps: list[str] = []

    def child() -> Flow[None]:
        try:
            yield Sleep(1000)
        except DeadlineExceededError:
            steps.append("told")
            yield Sleep(0)
            steps.append("went on")

    def flow() -> Flow[None]:
        try:
            begun.set()
            yield Sleep(1000)
        except FlowCancelled:
            yield Gather([child()])

    face.interrupt(flow(), begun, close_timeout_s=0.1)
    assert steps == ["told"]


# Wait ---------------------------------------------------------------------------------------------------------------


def test_waiting_for_a_cancelled_future_is_an_error_in_the_flow(face: Face) -> None:
    future: Future[str] = Future()
    future.cancel()

    def flow() -> Flow[str]:
        try:
            yield Wait(future)
        except CancelledError:
            return "was cancelled"
        return "came"

    assert face.run(flow()) == "was cancelled"


def test_a_future_that_is_done_needs_no_time(face: Face) -> None:
    future: Future[str] = Future()
    future.set_result("here")

    def flow() -> Flow[Any]:
        return (yield Wait(future, 0))

    assert face.run(flow()) == "here"


def test_a_timeout_error_that_the_future_holds_is_told_apart_from_waiting_too_long(face: Face) -> None:
    future: Future[str] = Future()
    raised = FutureTimeoutError("theirs")
    future.set_exception(raised)

    def flow() -> Flow[Any]:
        return (yield Wait(future, 5))

    with pytest.raises(TimeoutError) as caught:
        face.run(flow())
    assert caught.value is raised


# Gather and Race ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, -1])
def test_a_gather_of_no_width_is_refused(limit: int) -> None:
    with pytest.raises(UsageError, match=f"it is {limit}"):
        Gather([answer()], limit)


def test_ten_thousand_flows_are_gathered_in_order(face: Face) -> None:
    def flow() -> Flow[Any]:
        return (yield Gather([answer(str(n)) for n in range(10_000)]))

    assert [r.text for r in face.run(flow())] == [str(n) for n in range(10_000)]


def test_flows_that_a_gather_never_started_are_closed(face: Face) -> None:
    started: list[int] = []

    def item(number: int) -> Flow[None]:
        started.append(number)
        yield Sleep(0)
        raise TheirError(str(number))

    items = [item(n) for n in range(5)]

    def flow() -> Flow[Any]:
        return (yield Gather(items, limit=1))

    with pytest.raises(TheirError, match="0"):
        face.run(flow())
    assert started == [0]
    assert all(flow.gi_frame is None for flow in items)  # type: ignore[attr-defined]  # these are plain generators


def test_what_children_of_a_gather_emit_goes_nowhere(face: Face) -> None:
    def child() -> Flow[str]:
        yield Emit(Delta(text="lost"))
        return "child"

    def flow(request: Any, run: Run) -> Flow[Any]:
        results = yield Gather([child(), child()])
        yield Emit(Delta(text="kept"))
        return results

    stream = FlowModel(flow).stream("q")
    assert [delta.text for delta in face.read(stream)] == ["kept"]
    assert list(stream.response) == ["child", "child"]  # type: ignore[call-overload]  # no response, a list


def test_a_race_of_one_is_that_one(face: Face) -> None:
    def one() -> Flow[Response]:
        yield Emit(Delta(text="only"))
        return Response.of("only")

    def flow(request: Any, run: Run) -> Flow[Any]:
        return (yield Race([one()]))

    stream = FlowModel(flow).stream("q")
    assert [delta.text for delta in face.read(stream)] == ["only"]
    assert stream.response.text == "only"


def test_a_loser_that_fails_in_the_moment_of_the_victory_is_not_reported(
    face: Face, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio would log an exception that was never retrieved."""

    def failing() -> Flow[None]:
        raise TheirError
        yield

    def flow() -> Flow[Any]:
        return (yield Race([answer("won"), failing()]))

    def both_at_once() -> Flow[Any]:
        gate: Future[None] = Future()
        return (yield Race([after(gate, answer("won")), after(gate, failing()), opening(gate)]))

    def after(gate: Future[None], then: Flow[Any]) -> Flow[Any]:
        yield Wait(gate)
        return (yield from then)

    def opening(gate: Future[None]) -> Flow[Any]:
        yield Sleep(0.01)
        gate.set_result(None)
        yield Sleep(30)

    with caplog.at_level(logging.ERROR, "asyncio"):
        assert face.run(flow()).text == "won"
        assert face.run(both_at_once()).text == "won"
        gc.collect()
    assert caplog.records == []


def test_ctrl_c_waits_for_the_clean_up_of_children_on_the_background_loop() -> None:
    """A process that ends right after it would cut their clean-up short."""
    begun = threading.Event()
    log: list[str] = []

    def child() -> Flow[None]:
        try:
            begun.set()
            yield Sleep(1000)
        except FlowCancelled:
            yield Sleep(0.1)
            log.append("cleaned")
            raise

    def flow() -> Flow[None]:
        try:
            yield Gather([child(), child()])
        except FlowCancelled:
            log.append("parent")
            raise

    Face("sync").interrupt(flow(), begun)
    assert log == ["cleaned", "cleaned", "parent"]


def test_ctrl_c_while_a_race_streams_cancels_its_winner_once() -> None:
    begun = threading.Event()
    log: list[str] = []

    def winner() -> Flow[Response]:
        yield Emit(Delta(text="one"))
        try:
            begun.set()
            yield Sleep(1000)
        except FlowCancelled:
            log.append("cancelled")
            try:
                yield Sleep(0.1)
                log.append("cleaned")
            except FlowCancelled:
                log.append("cancelled again")
            raise
        return Response.of("x")

    def flow() -> Flow[Any]:
        return (yield Race([winner()]))

    Face("sync").interrupt(flow(), begun)
    assert log == ["cancelled", "cleaned"]


def test_more_user_functions_than_threads_may_wait_for_flows_of_their_own() -> None:
    """300 tools at once, each making a synchronous call that runs tools of its own: none waits for a thread that
    another one holds.
    """

    def inner() -> Flow[Any]:
        return (yield Gather([_invoking(lambda: 1)]))

    def tool() -> int:
        meeting.wait()
        return sum(run_sync(inner(), Run.start()))

    def outer() -> Flow[Any]:
        return (yield Gather([_invoking(tool) for _ in range(256)]))

    meeting = threading.Barrier(256, timeout=30)
    assert run_sync(outer(), Run.start()) == [1] * 256


def _invoking(function: Callable[[], Any]) -> Flow[Any]:
    return (yield Invoke(function))


# Sources ------------------------------------------------------------------------------------------------------------


class Unclosable(Numbers):
    """A source whose closing fails."""

    def close(self) -> None:
        super().close()
        raise OSError("close failed")

    async def aclose(self) -> None:
        self.close()


def test_a_source_that_does_not_close_hides_neither_answer_nor_error_and_the_others_are_closed(face: Face) -> None:
    def flow(transport: Sources, error: Exception | None) -> Flow[str]:
        for _ in range(3):
            yield Send(REQUEST, stream=True, transport=transport)
        if error is not None:
            raise error
        return "answer"

    for error in (None, TheirError("mine")):
        sources = [Numbers(1), Unclosable(1), Numbers(1)]
        if error is None:
            assert face.run(flow(Sources(*sources), None)) == "answer"
        else:
            with pytest.raises(TheirError, match="mine"):
                face.run(flow(Sources(*sources), error))
        assert [source.closed for source in sources] == [1, 1, 1]


def test_all_sources_are_closed_when_the_task_is_cancelled_while_one_closes() -> None:
    class Slow(Numbers):
        async def aclose(self) -> None:
            self.begun.set()
            await asyncio.sleep(1000)

    first, slow = Numbers(1), Slow(1)

    def flow() -> Flow[str]:
        transport = Sources(first, slow)
        yield Send(REQUEST, stream=True, transport=transport)
        yield Send(REQUEST, stream=True, transport=transport)
        return "answer"

    async def main() -> None:
        task = asyncio.ensure_future(run_async(flow(), Run.start()))
        await until(slow.begun)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert first.closed == 1


# Streams in several hands -------------------------------------------------------------------------------------------


def stuck(source: Numbers) -> FlowModel:
    def flow(request: Any, run: Run) -> Flow[Response]:
        got = yield Next(source)
        yield Emit(Delta(text=str(got)))
        return Response.of("x")

    return FlowModel(flow)


class Opening(Numbers):
    """A source that hangs until it is opened."""

    def __init__(self) -> None:
        super().__init__(1)
        self.opened = threading.Event()

    def next(self) -> Any:
        self.begun.set()
        assert self.opened.wait(10)
        return super().next()

    async def anext(self) -> Any:
        self.begun.set()
        await until(self.opened)
        return super().next()


def test_a_second_thread_that_reads_or_closes_is_refused_and_the_first_goes_on() -> None:
    """It would take the answer that the flow expects for the first one."""
    source = Opening()
    stream = stuck(source).stream("q")
    texts: list[str] = []
    reader = threading.Thread(target=lambda: texts.extend(delta.text for delta in stream))
    reader.start()
    assert source.begun.wait(10)
    for use in (lambda: next(stream), stream.close):
        with pytest.raises(UsageError, match="being read at this moment"):
            use()
    source.opened.set()
    reader.join(10)
    assert texts == ["0"]
    assert stream.response.text == "x"


def test_a_second_task_that_reads_or_closes_is_refused_and_the_first_goes_on() -> None:
    source = Opening()
    stream = stuck(source).stream("q")

    async def read() -> list[str]:
        return [delta.text async for delta in stream]

    async def main() -> list[str]:
        reader = asyncio.ensure_future(read())
        await until(source.begun)
        for use in (stream.__anext__, stream.aclose):
            with pytest.raises(UsageError, match="being read at this moment"):
                await use()
        source.opened.set()
        return await reader

    assert asyncio.run(main()) == ["0"]
    assert stream.response.text == "x"


def test_code_that_the_stream_itself_runs_may_not_read_it(face: Face) -> None:
    """Neither from a function that it invokes, nor from inside the flow."""
    told: list[str] = []

    def use() -> None:
        try:
            next(stream)
        except UsageError as error:
            told.append(str(error))

    def flow(request: Any, run: Run) -> Flow[Response]:
        use()
        yield Invoke(use)
        yield Emit(Delta(text="a"))
        return Response.of("x")

    stream = FlowModel(flow).stream("q")
    assert [delta.text for delta in face.read(stream)] == ["a"]
    assert len(told) == 2


def test_a_stream_may_be_made_read_and_closed_in_three_threads() -> None:
    log: list[str] = []

    def flow(request: Any, run: Run) -> Flow[Response]:
        try:
            for number in range(9):
                yield Emit(Delta(text=str(number)))
        except FlowCancelled:
            log.append("cleaned")
            raise
        return Response.of("x")

    streams: list[Stream[Response]] = []
    steps: list[Callable[[], object]] = [
        lambda: streams.append(FlowModel(flow).stream("q")),
        lambda: log.append(next(streams[0]).text),
        lambda: streams[0].close(),
    ]
    for step in steps:
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
    assert log == ["0", "cleaned"]


def test_a_stream_that_was_closed_unread_gives_nothing_and_warns_of_nothing(face: Face) -> None:
    """Also inside an event loop, where reading it would hold the loop up."""

    async def main() -> None:
        stream = FlowModel(lambda request, run: answer()).stream("q")
        if face.kind == "sync":
            stream.close()
            assert list(stream) == []
        else:
            await stream.aclose()
            assert [delta async for delta in stream] == []

    asyncio.run(main())


# Garbage ------------------------------------------------------------------------------------------------------------


def test_a_half_read_race_that_is_collected_on_the_background_loop_is_cancelled_there() -> None:
    """The collector runs in any thread; it can wait for nothing on the loop's own."""
    log: list[str] = []
    done = threading.Event()

    def talk() -> Flow[Response]:
        try:
            yield Emit(Delta(text="one"))
            yield Emit(Delta(text="two"))
        except FlowCancelled:
            yield Sleep(0)
            log.append("cancelled")
            done.set()
            raise
        return Response.of("x")

    def racing(request: Any, run: Run) -> Flow[Any]:
        return (yield Race([talk()]))

    holder = [FlowModel(racing).stream("q")]
    next(holder[0])

    def dropping() -> Flow[None]:
        holder.clear()
        yield Sleep(0)

    def flow() -> Flow[Any]:
        return (yield Gather([dropping()]))

    run_sync(flow(), Run.start())
    assert done.wait(10)
    assert log == ["cancelled"]


def test_an_async_stream_that_outlives_its_loop_is_closed_without_noise(caplog: pytest.LogCaptureFixture) -> None:
    source = Numbers(3)
    closed: list[str] = []

    def flow(request: Any, run: Run) -> Flow[Response]:
        yield Send(REQUEST, stream=True, transport=Sources(source))
        try:
            yield Emit(Delta(text="one"))
        except GeneratorExit:
            closed.append("flow")
            raise
        return Response.of("x")

    holder = [FlowModel(flow).stream("q")]

    async def read_one() -> str:
        return (await anext(holder[0])).text

    assert asyncio.run(read_one()) == "one"
    holder.clear()
    gc.collect()
    assert closed == ["flow"]
    assert caplog.records == []


def test_a_coroutine_that_is_closed_in_an_effect_closes_its_flow() -> None:
    """A task collected with its loop: nothing can be awaited there, so clean-up takes no effects."""
    log: list[str] = []
    source = Numbers(1)

    def flow() -> Flow[None]:
        yield Send(REQUEST, stream=True, transport=Sources(source))
        try:
            yield Sleep(1000)
        except FlowCancelled:
            yield Sleep(1000)
        except GeneratorExit:
            log.append("closed")
            raise

    async def main() -> None:
        call = run_async(flow(), Run.start())
        call.send(None)
        call.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert log == ["closed"]
    assert source.closed == 1


def _emitting(count: int) -> Flow[str]:
    for number in range(count):
        yield Emit(Delta(text=str(number)))
        yield Sleep(0)
    return "end"


def _failing() -> Flow[None]:
    yield Sleep(0)
    raise TheirError


def _late() -> Flow[None]:
    yield Sleep(30)


def _effect(effect: Any) -> Flow[Any]:
    return (yield effect)


def _refuse(delta: Delta) -> None:
    raise TheirError


def _boom() -> None:
    raise TheirError


def _stop() -> None:
    raise StopIteration


def _spanned(flow: Flow[Any]) -> Flow[Any]:
    with Run.start().span("layer"):
        return (yield from flow)


CALLS: dict[str, Callable[[], Flow[Any]]] = {
    "span": lambda: _spanned(_emitting(2)),
    "span with an error": lambda: _spanned(_effect(Invoke(_boom))),
    "race with a loser": lambda: _spanned(_effect(Race([_emitting(2), _late()]))),
    "answer": lambda: _emitting(2),
    "error of user code": lambda: _effect(Invoke(_boom)),
    "StopIteration of user code": lambda: _effect(Invoke(_stop)),
    "gather": lambda: _effect(Gather([_emitting(1), _emitting(1)])),
    "gather that fails": lambda: _effect(Gather([_emitting(1), _failing(), _failing()])),
    "gather with errors": lambda: _effect(Gather([_emitting(1), _failing()], return_errors=True)),
    "race that all lose": lambda: _effect(Race([_failing(), _failing()])),
    "deadline": _late,
    "deadline in a gather": lambda: _effect(Gather([_late(), _late()])),
    "deadline in a race": lambda: _effect(Race([_late(), _late()])),
    "tap": lambda: tap(_emitting(2), lambda delta: None),
    "tap that refuses": lambda: tap(_emitting(2), _refuse),
}


@pytest.mark.parametrize("make", CALLS.values(), ids=CALLS)
def test_a_call_that_has_ended_leaves_no_garbage(face: Face, make: Callable[[], Flow[Any]]) -> None:
    """Everything goes by reference counts: no cycle waits for the collector, also after errors."""

    async def call_async(loop_deadline_s: float) -> None:
        try:
            await run_async(make(), Run.start(deadline_s=loop_deadline_s))
        except Exception:
            return

    def call() -> None:
        if face.kind == "async":
            loop.run_until_complete(call_async(0.02))
            return
        try:
            run_sync(make(), Run.start(deadline_s=0.02))
        except Exception:
            return

    loop = asyncio.new_event_loop()
    try:
        call()
        gc.collect()
        gc.disable()
        call()
        assert gc.collect() == 0
    finally:
        gc.enable()
        loop.close()


def test_a_stream_that_was_left_leaves_no_garbage(face: Face) -> None:
    def leave() -> None:
        stream = FlowModel(lambda request, run: _emitting(5)).stream("q")
        if face.kind == "sync":
            with stream:
                next(stream)
        else:
            loop.run_until_complete(leave_async(stream))

    async def leave_async(stream: Stream[Any]) -> None:
        async with stream:
            await anext(stream)

    loop = asyncio.new_event_loop()
    try:
        leave()
        gc.collect()
        gc.disable()
        leave()
        assert gc.collect() == 0
    finally:
        gc.enable()
        loop.close()
