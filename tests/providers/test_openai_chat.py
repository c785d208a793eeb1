"""The OpenAI-compatible leaf against a real server, on both drivers."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from flow_harness import Face
from http_server import (
    DONE,
    PATIENCE_S,
    Answer,
    Server,
    as_json,
    chunk,
    completion,
    serving,
    streamed,
    words,
)

from llmops_sdk import Model, model
from llmops_sdk.errors import (
    AuthenticationError,
    ConnectionFailedError,
    DeadlineExceededError,
    MalformedResponseError,
    ModelError,
    OverloadedError,
    RateLimitedError,
    RequestTimeoutError,
    StreamInterruptedError,
    UnsupportedError,
)
from llmops_sdk.flow import Run
from llmops_sdk.models.layers.cached import Cached
from llmops_sdk.models.layers.exact_cache import ExactCache
from llmops_sdk.models.layers.fallback import Fallback
from llmops_sdk.models.opening import OPENAI_BASE_URL
from llmops_sdk.providers.keys import ApiKey
from llmops_sdk.providers.openai_chat import OpenAIChat
from llmops_sdk.testing import ScriptedModel, SpanRecorder
from llmops_sdk.tracing import semconv
from llmops_sdk.types import EmbedRequest, Request, Response, ToolCall, Usage


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    return Face(request.param)


def ask(face: Face, asked: Model, text: str = "q", **parameters: Any) -> Response:
    response: Response = face.run(asked.flow(Request.of(text, **parameters), Run.start()))
    return response


def once(server: Server, **keywords: Any) -> Model:
    """The model of a server, without retries."""
    return model(server.spec, max_retries=0, **keywords)


# Answers --------------------------------------------------------------------------------------------------------------


def test_a_question_is_answered(face: Face) -> None:
    """With what was asked on the wire, and all that the server says in the response."""
    with serving(as_json(completion())) as server:
        response = ask(face, once(server, temperature=0), max_tokens=5)
        assert (response.text, response.model, response.finish_reason) == ("Paris", "m-1", "stop")
        assert response.usage == Usage(input_tokens=7, output_tokens=2)
        assert (response.cost_usd, response.raw) == (None, completion())
        asked = server.asked[0]
        assert asked.path == "/v1/chat/completions"
        assert asked.json == {
            "model": "m",
            "messages": [{"role": "user", "content": "q"}],
            "temperature": 0,
            "max_tokens": 5,
        }
        assert asked.headers["user-agent"].startswith("llmops-sdk/")
        assert "authorization" not in asked.headers
        assert "traceparent" not in asked.headers


def test_a_stream_gives_deltas_as_they_come(face: Face) -> None:
    """The first delta is there while the server still holds the second back."""
    go_on = threading.Event()
    head, first, *rest = words("Pa", "ris")

    def hand_over(delta: Any) -> None:
        if delta.text == "Pa":
            go_on.set()

    with serving(streamed(head, first, go_on, *rest)) as server:
        stream = once(server).stream("q")
        texts: list[str] = []
        if face.kind == "sync":
            for delta in stream:
                hand_over(delta)
                texts.append(delta.text)
        else:

            async def read() -> None:
                async for delta in stream:
                    hand_over(delta)
                    texts.append(delta.text)

            asyncio.run(read())
        assert texts == ["Pa", "ris", "", ""]
        response = stream.response
        assert (response.text, response.model, response.finish_reason) == ("Paris", "m-1", "stop")
        assert response.usage == Usage(input_tokens=7, output_tokens=2)
        assert response.raw["id"] == "chatcmpl-1"
        assert server.asked[0].json["stream_options"] == {"include_usage": True}


def test_a_body_that_is_cut_into_bytes_streams_alike(face: Face) -> None:
    """Whatever the network does with the pieces."""
    body = b"".join(words("Pa", "rís ☃"))
    with serving(streamed(*(body[i : i + 1] for i in range(len(body))))) as server:
        assert [d.text for d in face.read(once(server).stream("q"))] == ["Pa", "rís ☃", "", ""]


def test_a_server_that_does_not_stream_is_understood(face: Face) -> None:
    """It answers whole, in JSON; the deltas are made of it."""
    with serving(as_json(completion("Paris it is"))) as server:
        stream = once(server).stream("q")
        assert [d.text for d in face.read(stream)] == ["Paris", " it", " is", ""]
        assert stream.response.usage.input_tokens == 7


def test_tool_calls_come_whole_and_streamed(face: Face) -> None:
    """The same call, either way."""
    call = {"id": "c1", "type": "function", "function": {"name": "t", "arguments": '{"a": 1}'}}
    parts = [
        {"tool_calls": [call | {"index": 0, "function": {"name": "t", "arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
    ]
    whole = as_json(completion(None, tool_calls=[call], finish_reason="tool_calls"))
    with serving(whole, streamed(*map(chunk, parts), chunk({}, "tool_calls"), DONE)) as server:
        asked = once(server)
        stream = asked.stream("q")
        answered = ask(face, asked)
        face.read(stream)
        expected = (ToolCall(id="c1", name="t", arguments_json='{"a": 1}'),)
        assert answered.message.tool_calls == stream.response.message.tool_calls == expected
        assert answered.finish_reason == stream.response.finish_reason == "tool_calls"


def test_keys_and_userinfo_travel_in_the_authorization_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """A given key first; OPENAI_API_KEY only where `openai:` was asked for, never to a server named by its address."""
    monkeypatch.setenv("OPENAI_API_KEY", " sk-of-the-environment\n")
    with serving(as_json(completion())) as server:
        model(server.spec, api_key="sk-given").complete("q")
        model("openai:m", base_url=server.url).complete("q")
        model(server.spec).complete("q")
        model(server.spec.replace("//", "//user:pass%20word@")).complete("q")
        sent = [asked.headers.get("authorization") for asked in server.asked]
        basic = base64.b64encode(b"user:pass word").decode()
        assert sent == ["Bearer sk-given", "Bearer sk-of-the-environment", None, f"Basic {basic}"]


def test_the_limit_of_tokens_has_the_name_that_the_server_knows() -> None:
    """OpenAI's own API wants `max_completion_tokens`, all others `max_tokens`."""
    openai = model("openai:gpt-5-mini", api_key="k", max_retries=0)
    assert isinstance(openai, OpenAIChat)
    sent = openai.http_request(Request.of("q", max_tokens=5), stream=False)
    assert b'"max_completion_tokens":5' in sent.content
    assert str(sent.url) == f"{OPENAI_BASE_URL}/chat/completions"


def test_other_kinds_of_requests_are_refused(face: Face) -> None:
    """This leaf chats."""
    with serving(as_json(completion())) as server, pytest.raises(UnsupportedError, match="EmbedRequest"):
        face.run(once(server).flow(EmbedRequest(texts=("a",)), Run.start()))


# Spans and cost -------------------------------------------------------------------------------------------------------


def test_the_span_of_a_call_is_in_genai_conventions(face: Face, span_recorder: SpanRecorder) -> None:
    """Who was asked, how, who answered, what it took; and no key anywhere."""
    with serving(as_json(completion()), streamed(*words("Pa", "ris"))) as server:
        asked = once(server, temperature=0.5, api_key="sk-sesame-sesame")
        response = ask(face, asked)
        face.read(asked.stream("q"))
        port = httpx.URL(server.url).port
    whole, stream = span_recorder.by_name("chat m")
    assert (response.trace_id, response.span_id) == (whole.trace_id, whole.span_id)
    told = dict(whole.attributes)
    assert (
        told
        | {
            semconv.GEN_AI_OPERATION_NAME: "chat",
            semconv.GEN_AI_PROVIDER_NAME: "openai",
            semconv.GEN_AI_REQUEST_MODEL: "m",
            semconv.GEN_AI_REQUEST_TEMPERATURE: 0.5,
            semconv.GEN_AI_RESPONSE_MODEL: "m-1",
            semconv.GEN_AI_RESPONSE_ID: "chatcmpl-1",
            semconv.GEN_AI_USAGE_INPUT_TOKENS: 7,
            semconv.GEN_AI_USAGE_OUTPUT_TOKENS: 2,
            semconv.SERVER_ADDRESS: "127.0.0.1",
            semconv.SERVER_PORT: port,
        }
        == told
    )
    assert semconv.GEN_AI_REQUEST_STREAM not in told
    assert stream.attributes[semconv.GEN_AI_REQUEST_STREAM] is True
    first = stream.attributes[semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK]
    assert isinstance(first, float)
    assert first > 0
    assert "sesame" not in repr([(span.name, span.attributes, span.events) for span in span_recorder.spans])


def test_the_cost_of_an_answer_is_on_the_response_and_its_span(face: Face, span_recorder: SpanRecorder) -> None:
    """Where the price list knows server and model; here the server stands where OpenAI does."""
    from llmops_sdk.models.prices import Price, price_of
    from llmops_sdk.models.transport import shared_transport

    def as_openai(name: str, usage: Usage, base_url: str) -> Price | None:
        return price_of(name, usage, OPENAI_BASE_URL)

    with serving(as_json(completion(model="gpt-5-mini-2025-08-07"))) as server:
        leaf = OpenAIChat(
            name="m",
            model="gpt-5-mini",
            base_url=httpx.URL(server.url),
            transport=shared_transport(),
            api_key=ApiKey(),
            price_of=as_openai,
        )
        costs = [ask(face, leaf).cost_usd for _ in range(2)]
    price = price_of("gpt-5-mini", Usage(input_tokens=7, output_tokens=2), OPENAI_BASE_URL)
    assert price is not None
    assert costs == [price.cost_usd] * 2
    span = span_recorder.by_name("chat gpt-5-mini")[0]
    assert span.attributes[semconv.LLMOPS_COST_USD] == price.cost_usd
    assert span.attributes[semconv.LLMOPS_COST_SOURCE] == price.source


# Failures -------------------------------------------------------------------------------------------------------------


def failing(status: int, **headers: str) -> Answer:
    return as_json({"error": {"message": "words", "type": "t"}}, status, **headers)


@pytest.mark.parametrize("way", ["complete", "stream"])
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (failing(401), AuthenticationError),
        (failing(429, Retry_After="7"), RateLimitedError),
        (failing(503), OverloadedError),
        (as_json({"error": {"message": "words"}}), OverloadedError),
        (Answer(headers={"Content-Type": "text/html"}, chunks=(b"<html>words</html>",)), MalformedResponseError),
    ],
    ids=["401", "429", "503", "an error in a 200", "a page"],
)
def test_a_failure_is_the_same_typed_error_whole_and_streamed(
    face: Face, answer: Answer, kind: type[ModelError], way: str, span_recorder: SpanRecorder
) -> None:
    """Nothing was emitted, so nothing was interrupted; the span says what it was."""
    with serving(answer) as server:
        asked = once(server)
        with pytest.raises(kind, match="words") as caught:
            ask(face, asked) if way == "complete" else face.read(asked.stream("q"))
    assert type(caught.value) is kind
    assert getattr(caught.value, "retry_after_s", 7) in (7, None)
    (span,) = span_recorder.by_name("chat m")
    assert span.attributes[semconv.ERROR_TYPE] == kind.__name__


@pytest.mark.parametrize(
    ("after", "kind"),
    [
        (streamed(cut=True), ConnectionFailedError),
        (streamed(chunk({"role": "assistant", "content": ""}), cut=True), ConnectionFailedError),
        (streamed(chunk({"role": "assistant"})), ConnectionFailedError),
        (streamed(b'data: {"error": {"message": "words", "type": "server_error"}}\n\n'), OverloadedError),
        (streamed(b"data: nonsense\n\n"), MalformedResponseError),
    ],
    ids=["cut at once", "cut after the role", "ended too early", "an error object", "nonsense"],
)
def test_a_stream_that_fails_before_its_first_delta_may_be_retried_elsewhere(
    face: Face, after: Answer, kind: type[ModelError]
) -> None:
    """It is the plain error, and a fallback takes over where that is retryable."""
    with serving(after) as server:
        with pytest.raises(kind):
            face.read(once(server).stream("q"))
        if issubclass(kind, ConnectionFailedError | OverloadedError):
            fallback = Fallback([once(server), ScriptedModel(["spare"])])
            assert "".join(d.text for d in face.read(fallback.stream("q"))) == "spare"


@pytest.mark.parametrize(
    ("rest", "fields"),
    [
        ([], {"cut": True}),
        ([], {}),
        ([b'data: {"error": {"message": "words", "type": "server_error"}}\n\n'], {}),
        ([b"data: nonsense\n\n"], {}),
    ],
    ids=["cut", "ended too early", "an error object", "nonsense"],
)
def test_a_stream_that_fails_after_its_first_delta_is_interrupted(
    face: Face, rest: list[bytes], fields: dict[str, Any]
) -> None:
    """Nothing retries it, and what had arrived is on the error."""
    with serving(streamed(chunk({"content": "Pa"}), *rest, **fields)) as server:
        stream = model(server.spec, max_retries=2).stream("q")
        with pytest.raises(StreamInterruptedError) as caught:
            face.read(stream)
        assert caught.value.partial is not None
        assert (caught.value.partial.text, caught.value.partial.model) == ("Pa", "m-1")
        assert isinstance(caught.value.__cause__, ModelError)
        assert len(server.asked) == 1


def test_a_connection_that_breaks_after_the_answer_was_complete_does_not_spoil_it(face: Face) -> None:
    """After [DONE] the body is only read so that the connection can serve again."""
    with serving(streamed(*words("Paris"), cut=True)) as server:
        stream = once(server).stream("q")
        face.read(stream)
        assert stream.response.text == "Paris"


def test_a_deadline_amid_a_stream_interrupts_it(face: Face) -> None:
    """It had emitted; the deadline is the cause."""
    silence = threading.Event()
    with serving(streamed(chunk({"content": "Pa"}), silence)) as server:
        stream = once(server).stream("q", deadline_s=0.15)
        with pytest.raises(StreamInterruptedError) as caught:
            face.read(stream)
        assert isinstance(caught.value.__cause__, DeadlineExceededError)
        silence.set()


def test_a_server_that_does_not_answer_is_a_timeout(face: Face) -> None:
    """`timeout_s` of the model, as argument or in its string."""
    never = threading.Event()
    with serving(Answer(before=never)) as server:
        for asked in (once(server, timeout_s=0.05), model(f"{server.spec}?timeout_s=0.05&max_retries=0")):
            with pytest.raises(RequestTimeoutError):
                ask(face, asked)
        never.set()


# Leaving early --------------------------------------------------------------------------------------------------------


def test_a_stream_that_is_left_closes_its_connection(face: Face) -> None:
    """The server sees it at once, and need not go on generating."""
    with serving(streamed(chunk({"content": "a"}), hang=True)) as server:
        deltas = face.read(once(server).stream("q"), most=1)
        assert deltas[0].text == "a"
        assert server.asked[0].gone.wait(PATIENCE_S)


def test_a_cancelled_call_closes_its_connection(face: Face, span_recorder: SpanRecorder) -> None:
    """By Ctrl-C or `task.cancel()`; the span says that it was cancelled, which is no error."""
    begun = threading.Event()

    def hang(asked: Any) -> Answer:
        begun.set()
        return streamed(hang=True)

    with serving(hang) as server:
        face.interrupt(once(server).flow(Request.of("q"), Run.start()), begun)
        assert server.asked[0].gone.wait(PATIENCE_S)
    (span,) = span_recorder.by_name("chat m")
    assert span.attributes[semconv.LLMOPS_CANCELLED] is True
    assert semconv.ERROR_TYPE not in span.attributes


def test_the_losers_of_a_hedge_are_hung_up_on(face: Face) -> None:
    """The first to answer wins, and the other server sees its client go."""
    with serving(streamed(hang=True)) as slow, serving(as_json(completion("fast"))) as fast:
        hedged = Fallback([once(slow), once(fast)], hedge_s=0.02)
        assert ask(face, hedged).text == "fast"
        assert slow.asked[0].gone.wait(PATIENCE_S)


# In company -----------------------------------------------------------------------------------------------------------


def test_one_model_serves_three_loops_and_four_threads() -> None:
    """Whole and streamed, from one object."""
    with serving(
        lambda asked: streamed(*words("a")) if asked.json.get("stream") else as_json(completion("a"))
    ) as server:
        shared = model(server.spec)

        async def both() -> list[str]:
            return [(await shared.acomplete("q")).text, "".join([d.text async for d in shared.astream("q")])]

        def in_thread(number: int) -> list[str]:
            if number % 2:
                return asyncio.run(both())
            return [shared.complete("q").text, "".join(d.text for d in shared.stream("q"))]

        answers = [asyncio.run(both()) for _ in range(3)]
        with ThreadPoolExecutor(4) as pool:
            answers += list(pool.map(in_thread, range(4)))
        assert answers == [["a", "a"]] * 7


@pytest.fixture
def cache() -> Iterator[ExactCache]:
    cache = ExactCache(memory_only=True)
    yield cache
    cache.close()


def test_a_cache_key_holds_no_key_and_no_timeout(cache: ExactCache) -> None:
    """Two keys of one account share answers; two addresses do not."""
    with serving(as_json(completion("one"))) as one, serving(as_json(completion("two"))) as two:
        first = Cached(model(one.spec, api_key="sk-a", timeout_s=9), cache=cache)
        second = Cached(model(one.spec, api_key="sk-b", max_retries=0), cache=cache)
        other = Cached(model(two.spec), cache=cache)
        assert [m.complete("q").text for m in (first, second, other)] == ["one", "one", "two"]
        assert second.complete("q").cached
        assert len(one.asked) == 1
