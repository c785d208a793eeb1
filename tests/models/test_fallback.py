"""Fallback: the first model that answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flow_harness import Face, FlowModel

from llmops_sdk.errors import AllModelsFailedError, AuthenticationError, OverloadedError, RateLimitedError, UsageError
from llmops_sdk.flow import Emit, Flow, Model, Run, Sleep
from llmops_sdk.models.layers.cached import Cached
from llmops_sdk.models.layers.exact_cache import ExactCache
from llmops_sdk.models.layers.fallback import Fallback
from llmops_sdk.models.layers.retry import Retried
from llmops_sdk.testing import ScriptedModel
from llmops_sdk.types import Delta, Request, Response


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    return Face(request.param)


def ask(face: Face, model: Any) -> Response:
    response: Response = face.run(model.flow(Request.of("q"), Run.start()))
    return response


def test_a_retryable_error_leads_to_the_next_model(face: Face) -> None:
    model = Fallback(
        [ScriptedModel([OverloadedError("busy")]), ScriptedModel([RateLimitedError("slow")]), ScriptedModel(["c"])]
    )
    assert ask(face, model).text == "c"


def test_between_two_models_there_is_a_pause() -> None:
    """The flow asks its driver to sleep, before every model but the first."""
    candidates = [
        ScriptedModel([OverloadedError("busy")]),
        ScriptedModel([OverloadedError("busy")]),
        ScriptedModel(["c"]),
    ]
    flow = Fallback(candidates, pause_s=0.5).flow(Request.of("q"), Run.start())
    effects = [next(flow), next(flow)]
    assert [effect.seconds for effect in effects if isinstance(effect, Sleep)] == [0.5, 0.5]
    flow.close()


def test_an_error_that_no_other_model_would_mend_is_raised_at_once(face: Face) -> None:
    second = ScriptedModel(["never"])
    with pytest.raises(AuthenticationError):
        ask(face, Fallback([ScriptedModel([AuthenticationError("bad key")]), second]))
    assert second.requests == []


def test_when_all_fail_their_errors_are_told_in_order(face: Face) -> None:
    with pytest.raises(AllModelsFailedError) as caught:
        ask(face, Fallback([ScriptedModel([OverloadedError("one")]), ScriptedModel([OverloadedError("two")])]))
    assert [str(e) for e in caught.value.errors] == ["one", "two"]
    assert caught.value.__cause__ is caught.value.errors[-1]


def test_a_stream_falls_back_before_its_first_delta_and_never_after(face: Face) -> None:
    second = ScriptedModel(["b c", "never"])
    stream = Fallback([ScriptedModel([OverloadedError("busy")]), second]).stream("q")
    assert "".join(d.text for d in face.read(stream)) == "b c"

    def breaks(request: Any, run: Run) -> Flow[Response]:
        from llmops_sdk.flow import Assembly

        assembly = Assembly()
        delta = Delta(text="half")
        assembly.add(delta)
        yield Emit(delta)
        raise assembly.interrupted(OverloadedError("cut"))

    from llmops_sdk.errors import StreamInterruptedError

    with pytest.raises(StreamInterruptedError) as caught:
        face.read(Fallback([FlowModel(breaks), second]).stream("q"))
    assert caught.value.partial is not None
    assert caught.value.partial.text == "half"
    assert len(second.requests) == 1


def test_hedging_asks_the_second_model_when_the_first_is_slow(face: Face) -> None:
    def slow(request: Any, run: Run) -> Flow[Response]:
        yield Sleep(30)
        return Response.of("slow")

    stream = Fallback([FlowModel(slow), ScriptedModel(["fast one"])], hedge_s=0.01).stream("q")
    assert "".join(d.text for d in face.read(stream)) == "fast one"


def test_hedging_leaves_the_second_model_alone_when_the_first_is_quick(face: Face) -> None:
    second = ScriptedModel(["never"])
    assert ask(face, Fallback([ScriptedModel(["quick"]), second], hedge_s=30)).text == "quick"
    assert second.requests == []


def test_a_fallback_of_nobody_is_refused() -> None:
    with pytest.raises(UsageError):
        Fallback([])


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: Fallback(["openai:a"]), r'Fallback\(model\("openai:…"\)\)'),  # type: ignore[list-item]  # mistakes
        (lambda: Fallback("openai:a"), r"Fallback takes a list of models"),  # type: ignore[arg-type]
        (lambda: Fallback(ScriptedModel(["a"])), r"Fallback takes a list of models"),  # type: ignore[arg-type]
        (lambda: Fallback([3]), "3 was given"),  # type: ignore[list-item]
        (lambda: Fallback([ScriptedModel(["a"])], hedge_s=-1), "hedge_s must be a number of 0 or more"),
        (lambda: Retried("openai:a"), r'Retried\(model\("openai:…"\)\)'),  # type: ignore[arg-type]
        (lambda: Retried("gpt-5-mini"), r'Retried\(model\("openai:…"\)\)'),  # type: ignore[arg-type]
        (lambda: Retried(ScriptedModel(["a"]), max_retries="x"), "max_retries must be a whole number"),  # type: ignore[arg-type]
        (lambda: Retried(ScriptedModel(["a"]), pause_s=-1), "pause_s must be a number of 0 or more"),
        (lambda: Cached("openai:a", cache=ExactCache()), r'Cached\(model\("openai:…"\)\)'),  # type: ignore[arg-type]
        (lambda: Cached(ScriptedModel(["a"]), cache="dir"), "ExactCache.*it is 'dir'"),  # type: ignore[arg-type]
        (lambda: Cached(ScriptedModel(["a"]), cache=ExactCache(), lease_s=-1), "lease_s must be"),
    ],
)
def test_a_layer_on_what_is_no_model_is_refused_where_it_is_made(made: Callable[[], Model], told: str) -> None:
    """Strings are for `model(…)`; the message says so."""
    with pytest.raises(UsageError, match=told):
        made()


def test_layers_compose(face: Face, tmp_path: Any) -> None:
    """A cache over a hedged fallback streams, stores and replays."""
    from llmops_sdk.models.layers.cached import Cached
    from llmops_sdk.models.layers.exact_cache import ExactCache

    cache = ExactCache(tmp_path)
    inner = Fallback([ScriptedModel([OverloadedError("x")]), ScriptedModel(["a b"])], hedge_s=5)
    model = Cached(inner, cache=cache)
    assert [d.text for d in face.read(model.stream("q"))] == ["a", " b", ""]
    again = model.stream("q")
    assert [d.text for d in face.read(again)] == ["a", " b", ""]
    assert again.response.cached
    cache.close()
