"""The rule of spans: the flow's span is current while an effect is performed, and only then; on both drivers."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from flow_harness import Face, FlowModel, Numbers, answer
from opentelemetry import trace as otel

from llmops_sdk import trace
from llmops_sdk.errors import FlowCancelled
from llmops_sdk.flow import Block, Effect, Emit, Flow, Gather, Invoke, Next, Race, Run, Send, Sleep, run_async, run_sync
from llmops_sdk.testing import SpanRecorder
from llmops_sdk.types import Delta, Response, Usage


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    return Face(request.param)


def current_id() -> str:
    """The id of the current span, or zeros."""
    return otel.format_span_id(otel.get_current_span().get_span_context().span_id)


NONE = "0" * 16


class Watching:
    """A transport and a source that say which span is current when they are used."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def send(self, request: httpx.Request, **_: Any) -> httpx.Response:
        self.seen.append(current_id())
        return httpx.Response(200)

    async def asend(self, request: httpx.Request, **_: Any) -> httpx.Response:
        await asyncio.sleep(0)
        return self.send(request)

    def next(self) -> str:
        return current_id()

    async def anext(self) -> str:
        await asyncio.sleep(0)
        return current_id()

    def close(self) -> None:
        """Nothing is held."""

    async def aclose(self) -> None:
        """Nothing is held."""


def test_each_effect_is_performed_under_the_flows_span_and_the_flow_itself_under_the_callers(face: Face) -> None:
    """So HTTP instrumentation and user code nest rightly, and no token crosses a yield."""
    watching = Watching()

    def child() -> Flow[Any]:
        return (yield Invoke(current_id))

    def flow(run: Run) -> Flow[tuple[str, list[Any], list[str]]]:
        between: list[str] = []
        with run.span("layer") as span:
            request = httpx.Request("GET", "http://127.0.0.1/")
            yield Send(request, stream=False, transport=watching)
            between.append(current_id())
            seen = [
                (yield Next(watching)),
                (yield Invoke(current_id)),
                (yield Block(current_id)),
                *(yield Gather([child(), child()])),
                (yield Race([child()])),
            ]
            between.append(current_id())
        seen_after = yield Invoke(current_id)
        return span.span_id, [*watching.seen, *seen], [*between, seen_after]

    span_id, inside, outside = face.run(flow(Run.start()))
    assert inside == [span_id] * 7
    assert outside == [NONE] * 3


def test_spans_of_layers_nest_and_those_of_children_stand_under_the_layer_that_started_them(face: Face) -> None:
    """Also in a gather and in a race."""

    def leaf(run: Run, name: str) -> Flow[Response]:
        with run.span(name):
            yield Sleep(0)
            return Response.of(name)

    def flow(run: Run) -> Flow[None]:
        with run.span("outer"):
            with run.span("inner"):
                yield from leaf(run, "plain")
                yield Gather([leaf(run, "gathered")])
            yield Race([leaf(run, "raced")])

    with SpanRecorder() as recorder:
        face.run(flow(Run.start()))
    parents = {span.span_id: span.name for span in recorder.spans}
    tree = {span.name: parents.get(span.parent_id or "") for span in recorder.spans}
    assert tree == {"outer": None, "inner": "outer", "plain": "inner", "gathered": "inner", "raced": "outer"}


def spanned(log: list[str], fail: bool = False) -> FlowModel:
    """A streaming model with one span."""

    def flow(request: Any, run: Run) -> Flow[Response]:
        with run.span("model") as span:
            try:
                for number in range(3):
                    yield Emit(Delta(text=str(number)))
                    yield Sleep(0)
                if fail:
                    raise LookupError("mine")
            except FlowCancelled:
                log.append((yield Invoke(current_id)))
                log.append(span.span_id)
                raise
        return Response.of("x")

    return FlowModel(flow)


ENDS: dict[str, Callable[[Any], object]] = {
    "read": lambda stream: list(stream),
    "closed": lambda stream: (next(stream), stream.close()),
    "dropped": lambda stream: next(stream),
}


@pytest.mark.parametrize("end", ENDS)
def test_no_context_is_left_behind_however_a_stream_ends(face: Face, end: str) -> None:
    """The current span is what it was: after each delta, after the end, after close and after collection."""

    async def read(stream: Any) -> None:
        async for _ in stream:
            assert current_id() == own
            if end != "read":
                break
        if end == "closed":
            await stream.aclose()

    def use(stream: Any) -> None:
        if face.kind == "sync":
            ENDS[end](stream)
        else:
            asyncio.run(read(stream))
        assert current_id() == own

    with SpanRecorder() as recorder, trace.span("caller") as caller:
        own = caller.span_id
        use(spanned([]).stream("q"))
        gc.collect()
        assert current_id() == own
    assert current_id() == NONE
    assert [span.name for span in recorder.spans] == ["model", "caller"]
    assert recorder.spans[0].attributes.get("llmops.cancelled", False) is (end != "read")


def test_a_stream_stands_under_the_span_that_was_current_when_it_was_made(face: Face) -> None:
    """Wherever and whenever it is read."""
    with SpanRecorder() as recorder:
        with trace.span("asked here"):
            stream = spanned([]).stream("q")
        face.read(stream)
    model, asked = recorder.by_name("model")[0], recorder.by_name("asked here")[0]
    assert model.parent_id == asked.span_id
    assert model.trace_id == asked.trace_id


def test_clean_up_runs_under_the_flows_span(face: Face) -> None:
    """An effect after FlowCancelled is performed with the span current that is still open."""
    log: list[str] = []
    face.read(spanned(log).stream("q"), most=1)
    assert log[0] == log[1] != NONE


def test_an_error_is_on_the_span_and_a_cancellation_is_none(face: Face) -> None:
    with SpanRecorder() as recorder:
        with pytest.raises(LookupError):
            face.read(spanned([], fail=True).stream("q"))
        face.read(spanned([]).stream("q"), most=1)
    assert [span.status for span in recorder.by_name("model")] == ["error", "unset"]


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_user_code_sees_the_callers_context_variables(face: Face) -> None:
    """In plain functions, in blocking work, and in the children of a gather and a race."""

    def child() -> Flow[Any]:
        return (yield Invoke(variable.get))

    def flow() -> Flow[list[str]]:
        first = [(yield Invoke(variable.get)), (yield Block(variable.get))]
        return [*first, *(yield Gather([child()])), (yield Race([child()]))]

    def call() -> list[str]:
        variable.set("mine")
        seen: list[str] = face.run(flow())
        return seen

    assert contextvars.copy_context().run(call) == ["mine"] * 4


def test_what_user_code_sets_stays_where_it_ran() -> None:
    """In the caller's context for a synchronous call and for coroutine functions; in a thread's copy else."""

    async def aset() -> None:
        variable.set("by coroutine")

    def flow(function: Any, *args: Any) -> Flow[None]:
        yield Invoke(function, args)

    async def main() -> tuple[str, str]:
        await run_async(flow(variable.set, "by thread"), Run.start())
        after_thread = variable.get()
        await run_async(flow(aset), Run.start())
        return after_thread, variable.get()

    def call() -> str:
        run_sync(flow(variable.set, "by function"), Run.start())
        return variable.get()

    assert contextvars.Context().run(call) == "by function"
    assert contextvars.Context().run(asyncio.run, main()) == ("unset", "by coroutine")


def test_the_losers_usage_is_reported_on_the_span_of_the_race(face: Face) -> None:
    """What a loser knew of when it was cancelled, and what one had used that answered too late."""

    def slow() -> Flow[Response]:
        try:
            yield Sleep(30)
        except FlowCancelled as signal:
            signal.usage = Usage(input_tokens=11, output_tokens=2)
            raise
        return Response.of("never")

    def winner() -> Flow[Response]:
        yield Sleep(0.02)
        yield Emit(Delta(text="won"))
        return Response.of("won")

    def flow(run: Run) -> Flow[Any]:
        with run.span("hedge"):
            return (yield Race([slow(), slow(), winner()]))

    with SpanRecorder() as recorder:
        assert face.run(flow(Run.start())).text == "won"
    (event,) = [event for event in recorder.by_name("hedge")[0].events if event.name == "llmops.race.lost"]
    assert dict(event.attributes) == {
        "llmops.race.losers": 2,
        "gen_ai.usage.input_tokens": 22,
        "gen_ai.usage.output_tokens": 4,
    }


def test_a_race_that_is_left_early_says_nothing_on_the_callers_span(face: Face) -> None:
    """Its own span has ended by then, and the caller's is not its."""

    def flow(request: Any, run: Run) -> Flow[Any]:
        with run.span("hedge"):
            return (yield Race([talk(), answer_late()]))

    def talk() -> Flow[Response]:
        yield Sleep(0.02)
        yield Emit(Delta(text="one"))
        yield Emit(Delta(text="two"))
        return Response.of("x")

    def answer_late() -> Flow[Response]:
        yield Sleep(30)
        return Response.of("never")

    with SpanRecorder() as recorder, trace.span("caller"):
        face.read(FlowModel(flow).stream("q"), most=1)
    assert [event.name for event in recorder.by_name("caller")[0].events] == []


def test_contexts_of_two_threads_stay_apart() -> None:
    """Two flows stepped in turn, in two threads, each under its own span."""
    meeting = threading.Barrier(2, timeout=10)
    results: list[bool] = []

    def flow(run: Run) -> Flow[bool]:
        with run.span("mine") as span:
            seen = []
            for _ in range(5):
                yield Invoke(meeting.wait)
                seen.append((yield Invoke(current_id)))
            yield Next(Numbers(1))
            yield from answer()
            return seen == [span.span_id] * 5

    threads = [threading.Thread(target=lambda: results.append(run_sync(flow(Run.start()), Run.start()))) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True, True]


def test_every_effect_class_is_known() -> None:
    """A new effect without a test above would be forgotten silently."""
    names = {cls.__name__ for cls in Effect.__subclasses__()}
    assert names == {"Send", "Next", "Sleep", "Emit", "Block", "Wait", "Invoke", "Race", "Contest", "Gather"}
