"""The spans of a decorated call: one tree, each decision on the span that took it, each error where it happened."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from llmops_sdk import Cached, ExactCache, Fallback, Response, current_span, guard, prompt, trace, using
from llmops_sdk.errors import GuardBlockedError, OutputValidationError, OverloadedError
from llmops_sdk.testing import ScriptedModel, SpanRecorder
from llmops_sdk.types import Usage, Verdict

if TYPE_CHECKING:
    from llmops_sdk.tracing import SpanRecord


class City(BaseModel):
    name: str


class NoBombs:
    """Blocks what speaks of bombs, redacts what speaks of cake."""

    name = "no-bombs"

    def check(self, text: str) -> Verdict:
        if "bomb" in text:
            return Verdict(check=self.name, action="block", score=0.9, threshold=0.5, reason="explosives")
        if "cake" in text:
            return Verdict(check=self.name, action="redact", text=text.replace("cake", "[…]"))
        return Verdict(check=self.name, score=0.1, threshold=0.5)


@pytest.fixture
def recorder() -> Iterator[SpanRecorder]:
    with SpanRecorder() as recorder:
        yield recorder


@pytest.fixture
def cache() -> Iterator[ExactCache]:
    cache = ExactCache()
    yield cache
    cache.close()


def tree(recorder: SpanRecorder) -> dict[str, str]:
    """Of each span, the name of its parent."""
    names = {span.span_id: span.name for span in recorder.spans}
    return {span.name: names.get(span.parent_id, "") for span in recorder.spans}


def only(recorder: SpanRecorder, name: str) -> SpanRecord:
    (span,) = recorder.by_name(name)
    return span


def stacked(model: Any) -> Any:
    @trace
    @guard(NoBombs(), output=[NoBombs()])
    @prompt(model=model, temperature=0)
    def capital(country: str) -> str:
        """Answer in one word."""
        return f"The capital of {country}?"

    return capital


EXPECTED = {
    "chat m": "cache m",
    "cache m": "prompt capital",
    "prompt capital": "guard capital",
    "guard capital": "capital",
    "capital": "",
}


@pytest.mark.parametrize("entry", ["call", "response", "stream"])
def test_the_layers_of_a_call_are_its_spans(recorder: SpanRecorder, cache: ExactCache, entry: str) -> None:
    """Decorators outside in, then the layers of the model, whichever entry point was used."""
    capital = stacked(Cached(ScriptedModel(["Paris"], name="m"), cache=cache))
    if entry == "stream":
        assert "".join(delta.text for delta in capital.stream("France")) == "Paris"
    else:
        (capital if entry == "call" else capital.response)("France")
    assert tree(recorder) == EXPECTED
    assert {span.trace_id for span in recorder.spans} == {recorder.spans[0].trace_id}
    assert [span.status for span in recorder.spans] == ["unset"] * 5


async def test_async_calls_have_the_same_tree(recorder: SpanRecorder) -> None:
    """And concurrent ones are not mixed up."""
    model = ScriptedModel(["Paris", "Rome"], name="m")

    @trace
    @prompt(model=model)
    async def capital(country: str) -> str:
        await asyncio.sleep(0)
        return country

    await asyncio.gather(capital("France"), capital("Italy"))
    parents = {span.span_id: span for span in recorder.spans}
    for chat in recorder.by_name("chat m"):
        above = parents[chat.parent_id]
        assert (above.name, parents[above.parent_id].name) == ("prompt capital", "capital")
        assert chat.trace_id == above.trace_id
    assert len({span.trace_id for span in recorder.spans}) == 2


def test_user_code_runs_under_the_span_of_its_layer(recorder: SpanRecorder) -> None:
    """The body under the prompt's span, a check under the guard's, a scripted reply under the chat's."""
    seen: dict[str, str] = {}

    class Looking:
        name = "looking"

        def check(self, text: str) -> Verdict:
            seen["check"] = current_span().span_id
            return Verdict(check=self.name)

    def reply(_: Any) -> str:
        seen["reply"] = current_span().span_id
        return "Paris"

    @guard(Looking())
    @prompt(model=ScriptedModel([reply], name="m"))
    def capital(country: str) -> str:
        seen["body"] = current_span().span_id
        return country

    capital("France")
    assert seen == {
        "check": only(recorder, "guard capital").span_id,
        "body": only(recorder, "prompt capital").span_id,
        "reply": only(recorder, "chat m").span_id,
    }
    assert current_span().span_id == ""


def test_the_prompt_span_has_name_version_and_overrides(recorder: SpanRecorder) -> None:
    """What was asked can be told from the span: which version, and what the call changed."""
    capital = stacked(ScriptedModel([], name="m"))
    with using(temperature=1):
        capital.using(model=ScriptedModel(["Paris"], name="other"), max_tokens=5)("France")
    told = only(recorder, "prompt capital").attributes
    assert told["gen_ai.prompt.name"] == capital.version.name
    assert told["gen_ai.prompt.version"] == capital.version.hash[:12]
    assert told["llmops.prompt.hash"] == capital.version.hash
    assert told["llmops.prompt.override.model"] == "other"
    assert told["llmops.prompt.override.max_tokens"] == "5"
    assert told["llmops.prompt.override.temperature"] == "1"
    assert told["openinference.span.kind"] == "PROMPT"
    chat = only(recorder, "chat other").attributes
    assert (chat["gen_ai.request.temperature"], chat["gen_ai.request.max_tokens"]) == (1.0, 5)


def test_a_response_says_which_span_it_came_from(recorder: SpanRecorder) -> None:
    """So that feedback can be given to it later."""
    response = stacked(ScriptedModel(["Paris"], name="m")).response("France")
    chat = only(recorder, "chat m")
    assert (response.trace_id, response.span_id) == (chat.trace_id, chat.span_id)


def test_every_verdict_is_an_event_of_the_guards_span(recorder: SpanRecorder) -> None:
    """With score and threshold, input and output told apart; the strongest action is an attribute."""
    stacked(ScriptedModel(["a cake"], name="m"))("France")
    span = only(recorder, "guard capital")
    told = [event.attributes for event in span.events if event.name == "llmops.guard.verdict"]
    assert {(t["llmops.guard.stage"], t["llmops.guard.action"]) for t in told} == {
        ("input", "pass"),
        ("output", "redact"),
    }
    assert told[0]["llmops.guard.score"] == 0.1
    assert told[0]["llmops.guard.threshold"] == 0.5
    assert span.attributes["llmops.guard.action"] == "redact"


def test_a_block_is_on_the_guards_span_and_nothing_below_it_was_begun(recorder: SpanRecorder) -> None:
    """The error is recorded by the spans that it passed through, and by no other."""
    with pytest.raises(GuardBlockedError):
        stacked(ScriptedModel([], name="m"))("bomb")
    assert tree(recorder) == {"guard capital": "capital", "capital": ""}
    span = only(recorder, "guard capital")
    assert span.status == "error"
    assert span.attributes["llmops.guard.action"] == "block"
    assert span.attributes["error.type"] == "GuardBlockedError"


def test_an_error_is_recorded_once_by_each_span_that_it_passes(recorder: SpanRecorder) -> None:
    """From where it happened outwards."""
    with pytest.raises(OverloadedError):
        stacked(ScriptedModel([OverloadedError("busy")], name="m"))("France")
    for span in recorder.spans:
        assert [event.name for event in span.events if event.name == "exception"] == ["exception"]
        assert span.attributes["error.type"] == "OverloadedError"


def test_cache_and_fallback_say_what_they_decided(recorder: SpanRecorder, cache: ExactCache) -> None:
    """Miss then hit with what it saved; who failed, who answered."""
    first = ScriptedModel([OverloadedError("busy")], name="first")
    answer = Response.of("Paris", model="second", usage=Usage(input_tokens=7, output_tokens=2), cost_usd=0.5)
    model = Cached(Fallback([first, ScriptedModel([answer], name="second")]), cache=cache)
    model.complete("q")
    hit = model.complete("q")
    assert (hit.cached, hit.cost_usd, hit.usage.input_tokens) == (True, 0.0, 0)
    missed, found = recorder.by_name(f"cache {model.name}")
    assert missed.attributes["llmops.cache.result"] == "miss"
    assert found.attributes["llmops.cache.result"] == "hit"
    assert found.attributes["llmops.cache.saved_input_tokens"] == 7
    fallback = only(recorder, "fallback")
    assert fallback.attributes["llmops.fallback.answered"] == "second"
    failed = [event.attributes for event in fallback.events if event.name == "llmops.fallback.failed"]
    assert failed == [{"llmops.model": "first", "error.type": "OverloadedError"}]
    assert fallback.status == "unset"


def test_a_repair_is_a_visible_span(recorder: SpanRecorder) -> None:
    """With the reason, and the second call beneath it."""

    @prompt(model=ScriptedModel(["no JSON", '{"name": "Paris"}'], name="m"), output=City)
    def city() -> str:
        return "Which city?"

    assert city() == City(name="Paris")
    repair = only(recorder, "repair city")
    assert repair.attributes["llmops.repair.result"] == "mended"
    assert "holds no JSON" in repair.attributes["llmops.repair.reason"]
    first, second = recorder.by_name("chat m")
    prompt_span = only(recorder, "prompt city")
    assert first.parent_id == repair.parent_id == prompt_span.span_id
    assert second.parent_id == repair.span_id


def test_a_repair_that_fails_is_told_on_its_span(recorder: SpanRecorder) -> None:
    """And raised with the second answer."""

    @prompt(model=ScriptedModel(["no", "no again"], name="m"), output=City)
    def city() -> str:
        return "Which city?"

    with pytest.raises(OutputValidationError) as failed:
        city()
    assert failed.value.text == "no again"
    assert only(recorder, "repair city").attributes["llmops.repair.result"] == "failed"


def test_a_stream_that_is_left_ends_its_spans(recorder: SpanRecorder) -> None:
    """Marked as cancelled, not as an error."""
    capital = stacked(ScriptedModel(["one two three"], name="m"))
    with capital.stream("France") as stream:
        next(stream)
    assert set(tree(recorder)) == {"chat m", "prompt capital", "guard capital", "capital"}
    for span in recorder.spans:
        assert span.status == "unset"
        assert span.attributes.get("llmops.cancelled") is True


def test_a_stream_read_elsewhere_stands_under_the_span_where_it_was_made(recorder: SpanRecorder) -> None:
    """A handler makes it, the server's loop reads it."""
    capital = stacked(ScriptedModel(["Paris"], name="m"))
    with trace.span("handler") as handler:
        stream = capital.stream("France")
    with trace.span("server"):
        list(stream)
    assert only(recorder, "capital").parent_id == handler.span_id


def test_a_traced_generator_is_one_span_that_is_current_only_inside(recorder: SpanRecorder) -> None:
    """What its consumer does between the items is not part of it."""
    inside: list[str] = []

    @trace
    def numbers() -> Iterator[int]:
        for number in range(3):
            inside.append(current_span().span_id)
            yield number

    with trace.span("consumer") as consumer:
        for _ in numbers():
            assert current_span().span_id == consumer.span_id
    span = only(recorder, "numbers")
    assert set(inside) == {span.span_id}
    assert span.attributes["llmops.items"] == 3
    assert span.parent_id == consumer.span_id


def test_a_batch_is_many_calls_under_one_parent(recorder: SpanRecorder) -> None:
    """Each with a tree of its own below the caller's span."""
    capital = stacked(ScriptedModel(["a", "b", "c"], name="m"))
    with trace.span("batch") as batch:
        assert sorted(capital.batch(["x", "y", "z"])) == ["a", "b", "c"]
    assert [span.parent_id for span in recorder.by_name("capital")] == [batch.span_id] * 3
