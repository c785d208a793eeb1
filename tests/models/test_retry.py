"""Retries: which failures, how often, how long, and when not."""

from __future__ import annotations

import math
from typing import Any

import pytest
from flow_harness import Face, FlowModel
from http_server import as_json, completion, serving

from llmops_sdk import model
from llmops_sdk.errors import (
    AuthenticationError,
    ConnectionFailedError,
    OverloadedError,
    RateLimitedError,
    RequestTimeoutError,
    RetryableError,
    StreamInterruptedError,
)
from llmops_sdk.flow import Emit, Flow, Run, Sleep
from llmops_sdk.models.layers.retry import LONGEST_WAIT_S, Retried
from llmops_sdk.testing import ScriptedModel, SpanRecorder
from llmops_sdk.tracing import semconv
from llmops_sdk.types import Delta, Request, Response


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    return Face(request.param)


def retried(*replies: Any, max_retries: int = 2) -> tuple[Retried, ScriptedModel]:
    inner = ScriptedModel(replies)
    return Retried(inner, max_retries=max_retries, pause_s=0.001), inner


def pauses(layer: Retried, run: Run | None = None) -> tuple[list[float], Any]:
    """Step a flow by hand: the pauses that it asks for, and how it ended."""
    flow = layer.flow(Request.of("q"), run or Run.start())
    asked: list[float] = []
    try:
        effect = next(flow)
        while True:
            assert isinstance(effect, Sleep)
            asked.append(effect.seconds)
            effect = flow.send(None)
    except StopIteration as stop:
        return asked, stop.value
    except RetryableError as error:
        return asked, error


@pytest.mark.parametrize(
    "error",
    [OverloadedError("busy"), RateLimitedError("slow"), RequestTimeoutError("late"), ConnectionFailedError("cut")],
    ids=lambda e: type(e).__name__,
)
def test_what_may_pass_is_tried_again(face: Face, error: Exception) -> None:
    """Each error of the retryable branch."""
    layer, inner = retried(error, "answer")
    assert face.run(layer.flow(Request.of("q"), Run.start())).text == "answer"
    assert len(inner.requests) == 2


def test_the_last_error_is_raised_when_the_attempts_are_used_up(face: Face) -> None:
    """As it is, not wrapped."""
    last = OverloadedError("third")
    layer, inner = retried(OverloadedError("first"), RateLimitedError("second"), last, max_retries=2)
    with pytest.raises(OverloadedError, match="third") as caught:
        face.run(layer.flow(Request.of("q"), Run.start()))
    assert caught.value is last
    assert len(inner.requests) == 3


@pytest.mark.parametrize("error", [AuthenticationError("key"), ValueError("mine")], ids=["ours", "the user's"])
def test_what_will_not_pass_is_raised_at_once(face: Face, error: Exception) -> None:
    """A wrong key stays wrong, and errors of the user's own code are not judged."""
    layer, inner = retried(error, "never")
    with pytest.raises(type(error)) as caught:
        face.run(layer.flow(Request.of("q"), Run.start()))
    assert caught.value is error
    assert len(inner.requests) == 1


def test_nothing_is_retried_after_the_first_delta(face: Face) -> None:
    """The reader has seen half an answer; a second would not fit to it."""
    calls: list[int] = []

    def breaks(request: Any, run: Run) -> Flow[Response]:
        calls.append(1)
        yield Emit(Delta(text="half"))
        raise StreamInterruptedError("cut")

    with pytest.raises(StreamInterruptedError):
        face.read(Retried(FlowModel(breaks)).stream("q"))
    assert len(calls) == 1


def test_pauses_grow_with_jitter_up_to_their_bound() -> None:
    """Each is drawn between nothing and twice what the one before could be."""

    def busy(request: Any, run: Run) -> Flow[Response]:
        raise OverloadedError("busy")
        yield

    layer = Retried(FlowModel(busy), max_retries=5, pause_s=1.0, most_pause_s=4.0)
    drawn = [pauses(layer)[0] for _ in range(50)]
    for number, bound in enumerate((1, 2, 4, 4, 4)):
        seen = [pause[number] for pause in drawn]
        assert 0 <= min(seen) < max(seen) <= bound
        assert max(seen) > bound / 2


@pytest.mark.parametrize("advice", [0.0, 2.0, LONGEST_WAIT_S])
def test_the_providers_advice_is_followed(advice: float) -> None:
    """Never sooner, and at most a tenth later, so that those who were told alike do not come back at once."""
    layer, _ = retried(RateLimitedError("slow", retry_after_s=advice), "answer")
    (asked,), response = pauses(layer)
    assert advice <= asked <= advice * 1.1
    assert response.text == "answer"


@pytest.mark.parametrize("advice", [LONGEST_WAIT_S + 1, math.inf])
def test_advice_that_is_too_long_is_left_to_the_caller(advice: float) -> None:
    """Nobody waits for minutes inside of a call; a spent quota is waited for by nobody."""
    layer, _ = retried(RateLimitedError("slow", retry_after_s=advice), "never")
    asked, error = pauses(layer)
    assert asked == []
    assert error.retry_after_s == advice


def test_no_pause_is_begun_that_the_deadline_would_cut() -> None:
    """The error that is known says more than a deadline that passes later."""
    layer, _ = retried(RateLimitedError("slow", retry_after_s=30), "never")
    asked, error = pauses(layer, Run.start(deadline_s=20))
    assert asked == []
    assert isinstance(error, RateLimitedError)
    asked, response = pauses(retried(RateLimitedError("slow", retry_after_s=10), "answer")[0], Run.start(deadline_s=20))
    assert response.text == "answer"


def test_each_retry_is_an_event_and_a_good_call_has_no_span_of_this_layer(span_recorder: SpanRecorder) -> None:
    """Attempt, pause and reason are there for whoever is on call."""
    layer, _ = retried(OverloadedError("busy"), RateLimitedError("slow", retry_after_s=0), "answer", "again")
    layer.complete("q")
    layer.complete("q")
    (span,) = span_recorder.by_name("retry scripted")
    told = [(e.attributes[semconv.LLMOPS_RETRY_ATTEMPT], e.attributes[semconv.ERROR_TYPE]) for e in span.events]
    assert told == [(2, "OverloadedError"), (3, "RateLimitedError")]
    assert len(span_recorder.by_name("chat scripted")) == 4


def test_a_model_string_retries_by_the_servers_advice(face: Face) -> None:
    """The whole way: HTTP status, header, pause, second request."""
    busy = as_json({"error": {"message": "busy"}}, 429, Retry_After="0.01")
    with serving(busy, busy, as_json(completion("answer"))) as server:
        assert face.run(model(server.spec).flow(Request.of("q"), Run.start())).text == "answer"
        assert len(server.asked) == 3
        server.answers, count = [busy], len(server.asked)
        with pytest.raises(RateLimitedError):
            face.run(model(server.spec, max_retries=1).flow(Request.of("q"), Run.start()))
        assert len(server.asked) == count + 2
