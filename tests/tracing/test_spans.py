"""What a span holds, where it goes, and that tracing never gets into the way of what it traces."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace as otel

from llmops_sdk import current_span, trace, using
from llmops_sdk.settings import current_settings, load_settings, set_settings
from llmops_sdk.testing import SpanRecorder
from llmops_sdk.tracing import attached, extract, inject, semconv, start_span
from llmops_sdk.tracing.genai import record_request, record_response, request_attributes
from llmops_sdk.types import (
    Message,
    OutputSchema,
    Reasoning,
    Request,
    Response,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)


@pytest.fixture
def recorder() -> Any:
    with SpanRecorder() as recorder:
        yield recorder


def test_spans_nest_by_the_current_context(recorder: SpanRecorder) -> None:
    """The span that is current when another starts is its parent, and both are of one trace."""
    with trace.span("outer") as outer, trace.span("inner") as inner:
        assert current_span().span_id == inner.span_id
    inside, outside = recorder.spans
    assert (inside.name, outside.name) == ("inner", "outer")
    assert inside.parent_id == outer.span_id
    assert outside.parent_id == ""
    assert inside.trace_id == outside.trace_id == outer.trace_id
    assert 0 < inside.start_ns <= inside.end_ns <= outside.end_ns


def test_ids_are_hex_and_opentelemetrys_own() -> None:
    """What the SDK says of a span is what any backend shows."""
    with trace.span("s") as span:
        ids = otel.get_current_span().get_span_context()
        assert span.trace_id == otel.format_trace_id(ids.trace_id)
        assert span.span_id == otel.format_span_id(ids.span_id)


def test_outside_of_any_span_there_is_one_that_records_nothing() -> None:
    """`current_span()` never gives None, so code under it needs no test."""
    span = current_span()
    assert (span.trace_id, span.span_id, span.is_recording()) == ("", "", False)
    span.set_attribute("a", 1)
    span.set_payload("result", "x")
    span.record_error(ValueError("x"))
    span.end()


def test_a_span_of_another_instrumentation_is_a_parent_like_any(recorder: SpanRecorder) -> None:
    """Spans made by the host with OpenTelemetry's API and ours are of one tree, in both directions."""
    with trace.span("ours"):
        tracer = otel.get_tracer("host")
        foreign = tracer.start_span("theirs")
        assert foreign.get_span_context().trace_id == otel.get_current_span().get_span_context().trace_id
        with otel.use_span(foreign, end_on_exit=True), trace.span("ours again") as again:
            assert current_span().span_id == again.span_id


def test_an_error_is_event_attribute_and_status(recorder: SpanRecorder) -> None:
    """Once, and the exception itself goes on to the caller unchanged."""
    wrong = ValueError("no such city")

    @trace
    def fails() -> None:
        raise wrong

    with pytest.raises(ValueError) as raised:
        fails()
    assert raised.value is wrong
    (span,) = recorder.spans
    assert span.status == "error"
    assert span.status_message == "ValueError: no such city"
    assert span.attributes[semconv.ERROR_TYPE] == "ValueError"
    assert [event.name for event in span.events] == ["exception"]


def test_the_scope_is_on_every_span_beneath(recorder: SpanRecorder) -> None:
    """User, session, tenant, tags and metadata; inner scopes win and add up."""
    with (
        using(user="u1", session="s1", tags=["a"], metadata={"plan": "free"}),
        trace.span("outer"),
        using(user="u2", tenant="t1", tags=["b"], metadata={"beta": True}),
        trace.span("inner"),
    ):
        pass
    inner, outer = (span.attributes for span in recorder.spans)
    assert (outer["user.id"], inner["user.id"]) == ("u1", "u2")
    assert inner["session.id"] == inner["gen_ai.conversation.id"] == "s1"
    assert inner["llmops.tenant"] == "t1"
    assert list(inner["llmops.tags"]) == ["a", "b"]
    assert (inner["llmops.metadata.plan"], inner["llmops.metadata.beta"]) == ("free", True)


async def test_a_scope_decorates_functions_of_every_kind(recorder: SpanRecorder) -> None:
    """Plain, coroutine and generator functions run in it; between the steps of a generator it is not in force."""

    def user() -> object:
        with trace.span("probe"):
            pass
        return recorder.spans[-1].attributes.get("user.id")

    @using(user="u")
    def plain() -> object:
        return user()

    @using(user="u")
    async def coroutine() -> object:
        await asyncio.sleep(0)
        return user()

    @using(user="u")
    def generator() -> Any:
        try:
            sent = yield user()
            yield (user(), sent)
        except LookupError:
            yield (user(), "caught")

    @using(user="u")
    async def async_generator() -> Any:
        sent = yield user()
        yield (user(), sent)

    assert plain() == "u"
    assert await coroutine() == "u"
    steps = generator()
    assert next(steps) == "u"
    assert user() is None
    assert steps.send("x") == ("u", "x")
    assert steps.throw(LookupError()) == ("u", "caught")
    steps.close()
    asteps: Any = async_generator()
    assert await anext(asteps) == "u"
    assert user() is None
    assert await asteps.asend("y") == ("u", "y")
    await asteps.aclose()
    async with using(user="v"):
        assert user() == "v"
    assert user() is None


async def test_one_scope_serves_concurrent_calls(recorder: SpanRecorder) -> None:
    """The decorator object is shared by all calls of a function; their contexts are not mixed up."""

    @using(user="u")
    async def call(pause: float) -> None:
        with trace.span("call"):
            await asyncio.sleep(pause)

    await asyncio.gather(*(call(0.001 * (n % 3)) for n in range(20)))
    assert [span.attributes["user.id"] for span in recorder.by_name("call")] == ["u"] * 20
    with trace.span("after"):
        pass
    assert "user.id" not in recorder.by_name("after")[0].attributes


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"user": 7}, "Write user='7'"),
        ({"tags": "a"}, "list of str"),
        ({"metadata": {"a": object()}}, "has object"),
        ({"user_id": "u1"}, "using has no keyword 'user_id'. Did you mean user=?"),
        ({"temprature": 1}, "Did you mean temperature=?"),
        ({"colour": "red"}, "metadata={…}"),
    ],
)
def test_a_wrong_scope_is_refused_where_it_is_written(given: Any, told: str) -> None:
    """Not at the first span beneath it."""
    with pytest.raises(Exception, match="using") as refused:
        using(**given)
    assert told in str(refused.value)


def test_the_context_crosses_processes_by_traceparent(recorder: SpanRecorder) -> None:
    """`inject` writes W3C headers, `extract` reads them; malformed ones change nothing."""
    headers: dict[str, str] = {}
    with trace.span("client") as client:
        inject(headers)
    assert client.trace_id in headers["traceparent"]
    with attached(extract(headers)), trace.span("server") as server:
        pass
    assert server.trace_id == client.trace_id
    assert recorder.by_name("server")[0].parent_id == client.span_id
    with attached(extract({"traceparent": "nonsense"})), trace.span("alone") as alone:
        pass
    assert alone.trace_id != client.trace_id


def test_threads_have_traces_of_their_own(recorder: SpanRecorder) -> None:
    """A thread inherits no context, as everywhere in OpenTelemetry."""

    def work() -> None:
        with trace.span("in thread"):
            pass

    with trace.span("main"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert recorder.by_name("in thread")[0].parent_id == ""


# Content -------------------------------------------------------------------------------------------------------------


def setting(**given: Any) -> None:
    set_settings(load_settings(**given))


def test_content_is_in_the_payload_and_not_among_the_attributes(recorder: SpanRecorder) -> None:
    """What was asked and answered stays with the recorder unless it is let out."""

    @trace
    def double(x: int, note: str) -> int:
        return x * 2

    double(2, note="private words")
    (span,) = recorder.spans
    assert span.payload == {"arguments": {"args": [2], "kwargs": {"note": "private words"}}, "result": 4}
    assert "private words" not in str(dict(span.attributes))


def test_capture_none_keeps_no_content_at_all(recorder: SpanRecorder) -> None:
    """Not in the store either."""
    setting(capture="none")

    @trace
    def double(x: int) -> int:
        return x * 2

    double(2)
    assert recorder.spans[0].payload == {}


def test_content_is_redacted_when_it_is_taken(recorder: SpanRecorder) -> None:
    """Keys by built-in patterns, and what `redact=` adds; as text, in containers and in dict keys."""
    setting(redact=(r"\b\d{4}-\d{4}\b", lambda text: text.replace("Zeus", "[god]")))
    key = "sk-proj-" + "aB3dE6gH9jK2mN5pQ8rS1tU4vW7xY0zA"

    @trace
    def ask(question: str, more: Any) -> str:
        return f"Zeus said {key}"

    ask(f"my key is {key}", {"card": ["1234-5678"], key: 1})
    told = str(recorder.spans[0].payload)
    assert key not in told
    assert "1234-5678" not in told
    assert "Zeus" not in told
    assert "[god] said" in told


def test_secrets_in_attributes_names_and_errors_are_redacted(recorder: SpanRecorder) -> None:
    """An exception's message is the commonest way for a key into a trace."""
    key = "sk-proj-" + "aB3dE6gH9jK2mN5pQ8rS1tU4vW7xY0zA"

    def call() -> None:
        with trace.span(f"call {key}", header=f"Bearer {key}", several=[key]) as span:
            span.add_event("sent", {"authorization": key})
            raise RuntimeError(f"refused {key}")

    with pytest.raises(RuntimeError):
        call()
    assert key not in repr(recorder.spans[0])


class Rude:
    """An object that does harm when it is printed, compared or iterated."""

    def __repr__(self) -> str:
        raise RuntimeError("printed")

    __str__ = __repr__

    def __iter__(self) -> Any:
        raise RuntimeError("iterated")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    __hash__ = object.__hash__


def test_user_objects_are_never_run(recorder: SpanRecorder) -> None:
    """Objects are told by their class; recording calls none of their methods."""

    @trace
    def take(thing: Any) -> Any:
        return [thing]

    take(Rude())
    assert recorder.spans[0].payload == {"arguments": {"args": ["<Rude>"], "kwargs": {}}, "result": ["<Rude>"]}


def test_content_is_as_it_was_when_the_call_was_made(recorder: SpanRecorder) -> None:
    """A list that the function changes is recorded as it was given."""

    @trace
    def drain(items: list[int]) -> None:
        items.clear()

    drain([1, 2])
    assert recorder.spans[0].payload["arguments"]["args"] == [[1, 2]]


def test_a_failing_redaction_costs_the_content_and_not_the_call(
    recorder: SpanRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Tracing never raises into the user's code, and what could not be redacted is not kept."""

    def breaks(text: str) -> str:
        if text == "private":
            raise RuntimeError("a bug in the pattern")
        return text

    setting(redact=breaks)

    @trace
    def say(text: str) -> str:
        return text

    with caplog.at_level(logging.WARNING, "llmops_sdk"):
        assert say("private") == "private"
    assert recorder.spans[0].payload == {}
    assert "could not be kept" in caplog.text


# Model calls in the GenAI conventions -----------------------------------------------------------------------------------


def test_a_model_call_has_the_names_and_types_of_the_conventions(recorder: SpanRecorder) -> None:
    """Names, value types and shapes as backends expect them."""
    request = Request(
        messages=(
            Message.system("Be brief."),
            Message.user("Hi"),
            Message.assistant([Reasoning(text="hm"), ToolCall(id="1", name="f", arguments_json='{"x":1}')]),
            Message.of("tool", ToolResult(call_id="1", text="ok")),
        ),
        temperature=0,
        max_tokens=9,
        stop=("x",),
        seed=3,
        output=OutputSchema(name="o", schema_json="{}"),
    )
    response = Response(
        message=Message.assistant(Text(text="Hello")),
        finish_reason="stop",
        model="m-2026",
        usage=Usage(input_tokens=5, output_tokens=2, cache_read_tokens=4, reasoning_tokens=1),
        cost_usd=0.5,
    )
    attributes = request_attributes(request, operation="chat", provider="openai", model="m")
    span = start_span("chat m", attributes=attributes)
    record_request(span, request)
    record_response(span, response)
    span.end()
    (told,) = recorder.spans
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.stop_sequences": ["x"],
        "gen_ai.request.seed": 3,
        "gen_ai.output.type": "json",
        "gen_ai.response.model": "m-2026",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.reasoning.output_tokens": 1,
        "llmops.cost_usd": 0.5,
        "openinference.span.kind": "LLM",
    }
    assert told.attributes == expected
    assert type(told.attributes["gen_ai.request.temperature"]) is float
    assert told.payload["input_messages"] == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "Hi"}]},
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "hm"},
                {"type": "tool_call", "id": "1", "name": "f", "arguments": {"x": 1}},
            ],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": "ok"}]},
    ]
    assert told.payload["output_messages"] == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Hello"}], "finish_reason": "stop"}
    ]


def test_unknown_token_counts_are_left_out(recorder: SpanRecorder) -> None:
    """Unknown is unknown, never zero."""
    span = start_span("chat m")
    record_response(span, Response.of("Hello"))
    span.end()
    assert not [name for name in recorder.spans[0].attributes if "usage" in name or "cost" in name]


def test_the_settings_of_the_process_are_those_of_the_test(llmops_home: Path) -> None:
    """The fixture that every test here has really gives each a home of its own."""
    assert current_settings().home == llmops_home


# Errors ------------------------------------------------------------------------------------------------------------------


class UnspeakableError(Exception):
    """An error that cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("printed")


def test_an_error_that_cannot_be_printed_goes_on_as_it_is(recorder: SpanRecorder) -> None:
    """The caller gets the error itself, and not what went wrong while it was recorded."""
    wrong = UnspeakableError()

    @trace
    def fails() -> None:
        raise wrong

    with pytest.raises(UnspeakableError) as raised:
        fails()
    assert raised.value is wrong
    (span,) = recorder.spans
    assert (span.status, span.status_message, span.attributes["error.type"]) == (
        "error",
        "UnspeakableError",
        "UnspeakableError",
    )
    assert [dict(event.attributes) for event in span.events] == [{"exception.type": "UnspeakableError"}]


def test_capture_none_leaves_messages_of_errors_out(recorder: SpanRecorder) -> None:
    """They may quote what was asked."""
    setting(capture="none")

    @trace
    def fails() -> None:
        raise ValueError("private words")

    with pytest.raises(ValueError, match="private words"):
        fails()
    assert "private words" not in repr(recorder.spans[0])
    assert recorder.spans[0].status_message == "ValueError"
