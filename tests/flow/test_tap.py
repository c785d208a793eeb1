"""`tap`: the one helper that steps an inner flow, on both drivers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from flow_harness import Face, FlowModel, Numbers

from llmops_sdk.errors import FlowCancelled
from llmops_sdk.flow import END, Block, Emit, Flow, Invoke, Next, Race, Run, Sleep, tap
from llmops_sdk.types import Delta, Response


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    return Face(request.param)


class TheirError(Exception):
    """An error of the user's own."""


def talking(*texts: str, log: list[str] | None = None) -> Flow[Response]:
    """Emits texts; its clean-up takes an effect."""
    try:
        for text in texts:
            yield Emit(Delta(text=text))
            yield Sleep(0)
    except FlowCancelled:
        if log is not None:
            log.append((yield Block(lambda: "cancelled")))
        raise
    except GeneratorExit:
        if log is not None:
            log.append("closed")
        raise
    return Response.of("".join(texts))


def tapped(face: Face, flow: Flow[Response], on_emit: Any, most: int | None = None) -> list[str]:
    """The texts that leave a tap around `flow`."""
    stream = FlowModel(lambda request, run: tap(flow, on_emit)).stream("q")
    return [delta.text for delta in face.read(stream, most)]


def test_deltas_pass_as_they_are_and_are_seen_first(face: Face) -> None:
    """What `on_emit` returns None for leaves unchanged, after it was seen; the result is the inner flow's."""
    seen: list[str] = []
    stream = FlowModel(lambda request, run: tap(talking("a", "b"), lambda d: seen.append(d.text))).stream("q")
    assert [delta.text for delta in face.read(stream)] == ["a", "b"] == seen
    assert stream.response.text == "ab"


def test_a_flow_may_stand_in_place_of_a_delta(face: Face) -> None:
    """It may emit other deltas, none, or take effects first."""

    def instead(delta: Delta) -> Flow[None]:
        upper = yield Invoke(delta.text.upper)
        if upper != "B":
            yield Emit(Delta(text=upper))
            yield Emit(Delta(text="!"))

    assert tapped(face, talking("a", "b", "c"), instead) == ["A", "!", "C", "!"]


def test_send_and_throw_reach_the_inner_flow(face: Face) -> None:
    """Answers of effects and their errors go in, through two taps, as if there were none."""
    heard: list[Any] = []

    def fails() -> None:
        raise TheirError("inside")

    def inner() -> Flow[str]:
        heard.append((yield Invoke(lambda: "answer")))
        source = Numbers(1)
        heard.extend([(yield Next(source)), (yield Next(source))])
        try:
            yield Invoke(fails)
        except TheirError as error:
            heard.append(str(error))
        return "result"

    assert face.run(tap(tap(inner(), lambda d: None), lambda d: None)) == "result"
    assert heard == ["answer", 0, END, "inside"]


def test_a_consumer_that_leaves_cancels_the_inner_flow_which_cleans_up_with_effects(face: Face) -> None:
    """FlowCancelled is forwarded, and the effects of the clean-up are performed."""
    log: list[str] = []
    assert tapped(face, talking("a", "b", log=log), lambda d: None, most=1) == ["a"]
    assert log == ["cancelled"]


@pytest.mark.parametrize("late", [False, True], ids=["raises at once", "raises in its flow"])
def test_when_on_emit_raises_the_inner_flow_is_cancelled_and_the_error_goes_on(face: Face, late: bool) -> None:
    """The inner flow cleans up with effects; what it emits meanwhile goes nowhere."""
    log: list[str] = []
    raised = TheirError("no")

    def inner() -> Flow[Response]:
        try:
            return (yield from talking("a", "b", "c", log=log))
        finally:
            log.append("left")

    def refuse(delta: Delta) -> Flow[None] | None:
        def flow() -> Flow[None]:
            yield Sleep(0)
            raise raised

        if delta.text != "b":
            return None
        if late:
            return flow()
        raise raised

    left: list[str] = []
    stream = FlowModel(lambda request, run: tap(inner(), refuse)).stream("q")
    with pytest.raises(TheirError) as caught:
        read_into(face, stream, left)
    assert caught.value is raised
    assert left == ["a"]
    assert log == ["cancelled", "left"]


def read_into(face: Face, stream: Any, texts: list[str]) -> None:
    """Read a stream and keep what came before an error."""

    async def read() -> None:
        async for delta in stream:
            texts.append(delta.text)  # noqa: PERF401 - a comprehension would lose them with the error

    if face.kind == "async":
        asyncio.run(read())
        return
    for delta in stream:
        texts.append(delta.text)  # noqa: PERF401 - as above


def test_an_error_of_the_inner_flow_passes_unchanged(face: Face) -> None:
    """A tap adds nothing to it."""
    raised = TheirError("mine")

    def inner() -> Flow[Response]:
        yield Emit(Delta(text="a"))
        raise raised

    with pytest.raises(TheirError) as caught:
        tapped(face, inner(), lambda d: None)
    assert caught.value is raised
    assert caught.value.__cause__ is None


def test_a_tap_sees_the_winners_deltas_of_a_race(face: Face) -> None:
    """A `Race` that passes through a tap is expanded there, one inside another too."""

    def inner() -> Flow[Any]:
        return (yield Race([racing(), talking("never")], delay_s=60))

    def racing() -> Flow[Any]:
        return (yield Race([talking("a", "b"), talking("never")], delay_s=60))

    def twice(delta: Delta) -> Flow[None]:
        yield Emit(Delta(text=delta.text * 2))

    assert tapped(face, inner(), twice) == ["aa", "bb"]


def test_closing_a_tap_closes_the_inner_flow() -> None:
    """`close()` performs nothing; it is the last resort."""
    log: list[str] = []
    inner = talking("a", log=log)  # held here too, so that it is not merely collected
    flow = tap(inner, lambda d: None)
    next(flow)
    flow.close()
    assert log == ["closed"]
    assert list(inner) == []


def test_two_hundred_layers_are_no_depth(face: Face) -> None:
    """Calls and deltas pass through 200 taps and 200 plain layers."""

    def layer(flow: Flow[Any]) -> Flow[Any]:
        return (yield from flow)

    def deep(request: Any, run: Run) -> Flow[Any]:
        flow = talking("a", "b")
        for _ in range(200):
            flow = tap(layer(flow), lambda d: None)
        return flow

    assert [delta.text for delta in face.read(FlowModel(deep).stream("q"))] == ["a", "b"]
