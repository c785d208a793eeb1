"""OpenAI's chat completions without a network: requests to JSON, bytes to deltas, failures to errors."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from email.utils import formatdate
from itertools import pairwise
from typing import Any

import pytest
from http_server import DONE, USAGE, chunk, completion, words
from hypothesis import given
from hypothesis import strategies as st

from llmops_sdk import errors
from llmops_sdk.flow import Assembly
from llmops_sdk.providers.keys import ApiKey
from llmops_sdk.providers.openai_errors import Refusals, retry_after_s
from llmops_sdk.providers.openai_request import payload_of
from llmops_sdk.providers.openai_response import ChatStream, read_response
from llmops_sdk.types import (
    Delta,
    Message,
    OutputSchema,
    Reasoning,
    Refusal,
    Request,
    Response,
    Text,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    ToolSpec,
    Usage,
)

REFUSALS = Refusals("m", ApiKey("sk-sesame-sesame"))


def payload(request: Request, *, stream: bool = False) -> dict[str, Any]:
    return payload_of(request, model="m", stream=stream, limit_field="max_tokens")


# Requests -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model", "messages", "stream", "stream_options", "n"])
def test_an_option_that_would_replace_what_is_sent_anyway_is_refused(name: str) -> None:
    """The span, the cache and the price would tell of another request than the one that was sent."""
    request = Request(messages=(Message.user("q"),), extra_json=json.dumps({"top_k": 5, name: None}))
    with pytest.raises(errors.UsageError, match=f"The option '{name}' cannot be set"):
        payload(request)


def test_unset_fields_are_not_sent() -> None:
    """The server's own defaults hold."""
    assert payload(Request.of("q")) == {"model": "m", "messages": [{"role": "user", "content": "q"}]}


def test_every_field_has_its_place() -> None:
    """Under the protocol's names, with `extra_json` merged last."""
    request = Request.of(
        "q",
        temperature=0,
        top_p=0.5,
        max_tokens=9,
        stop="x",
        seed=1,
        tools=[ToolSpec(name="t", description="d"), ToolSpec(name="u")],
        tool_choice="t",
        output=OutputSchema(name="o", schema_json='{"type":"object","properties":{},"additionalProperties":false}'),
        top_k=5,
    )
    told = payload(request, stream=True)
    assert told | {"response_format": None, "tools": None} == {
        "model": "m",
        "messages": [{"role": "user", "content": "q"}],
        "temperature": 0,
        "top_p": 0.5,
        "max_tokens": 9,
        "stop": ["x"],
        "seed": 1,
        "response_format": None,
        "tools": None,
        "tool_choice": {"type": "function", "function": {"name": "t"}},
        "stream": True,
        "stream_options": {"include_usage": True},
        "top_k": 5,
    }
    assert told["response_format"]["json_schema"] == {
        "name": "o",
        "schema": {"type": "object", "properties": {}, "additionalProperties": False},
        "strict": True,
    }
    assert [tool["function"].get("description") for tool in told["tools"]] == ["d", None]
    assert payload(Request.of("q", tool_choice="required"))["tool_choice"] == "required"


def test_a_conversation_with_tools_becomes_turns() -> None:
    """Results are turns of their own; reasoning is not sent back."""
    call = ToolCall(id="c1", name="t", arguments_json='{"a":1}')
    history = [
        Message.system("s"),
        Message.user([Text(text="a"), Text(text="b")]),
        Message.assistant([Reasoning(text="hm"), Text(text="let me see"), call]),
        Message.of("tool", [ToolResult(call_id="c1", text="1"), ToolResult(call_id="c2", text="2")]),
        Message.assistant(Refusal(text="no")),
        Message.assistant(call),
        Message.assistant(""),
    ]
    wire_call = {"id": "c1", "type": "function", "function": {"name": "t", "arguments": '{"a":1}'}}
    assert payload(Request.of(history))["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "let me see", "tool_calls": [wire_call]},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "tool", "tool_call_id": "c2", "content": "2"},
        {"role": "assistant", "refusal": "no"},
        {"role": "assistant", "tool_calls": [wire_call]},
        {"role": "assistant", "content": ""},
    ]


@pytest.mark.parametrize(
    "message",
    [
        Message.user(ToolCall(id="c", name="t")),
        Message.of("tool", "text"),
        Message.of("tool", [ToolResult(call_id="c", text="1"), Text(text="x")]),
    ],
    ids=["a call of the user's", "a tool's text", "a result with text"],
)
def test_what_the_protocol_has_no_form_for_is_refused(message: Message) -> None:
    """Before anything is sent."""
    with pytest.raises(errors.UsageError):
        payload(Request.of([message]))


# Whole responses ------------------------------------------------------------------------------------------------------


def read(value: Any) -> Response:
    return read_response(json.dumps(value).encode(), REFUSALS)


def test_a_response_is_read_with_all_that_it_tells() -> None:
    """Parts in a fixed order, every count, the payload as it came."""
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "t", "arguments": '{"a":1}'}},
        {"id": "c2", "type": "function", "function": {"name": "u", "arguments": {"b": 2}}},
        {"id": "c3", "type": "custom", "custom": {"name": "v", "input": "free"}},
    ]
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 2},
    }
    told = completion("hi", tool_calls=calls, reasoning_content="hm", finish_reason="tool_calls", usage=usage)
    response = read(told)
    assert response.message.parts == (
        Reasoning(text="hm"),
        Text(text="hi"),
        ToolCall(id="c1", name="t", arguments_json='{"a":1}'),
        ToolCall(id="c2", name="u", arguments_json='{"b":2}'),
        ToolCall(id="c3", name="v", arguments_json="free"),
    )
    assert response.usage == Usage(
        input_tokens=10, output_tokens=5, cache_read_tokens=4, reasoning_tokens=3, audio_tokens=3
    )
    assert (response.finish_reason, response.model, response.raw) == ("tool_calls", "m-1", told)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("function_call", "tool_calls"),
        ("eos", "other"),
        (None, "stop"),
    ],
)
def test_how_an_answer_ended(told: str | None, reason: str) -> None:
    """In our words; what the protocol does not know is "other"."""
    assert read(completion("x", finish_reason=told)).finish_reason == reason


def test_a_refusal_is_a_part_of_its_own() -> None:
    """It is no text of the answer."""
    response = read(completion(None, refusal="I will not."))
    assert (response.text, response.refused) == ("", True)


def test_content_in_parts_is_joined() -> None:
    """Mistral answers with a list of text and thinking."""
    content = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "hi"}]
    assert read(completion(content)).message.parts == (Reasoning(text="hm"), Text(text="hi"))  # type: ignore[arg-type]  # Mistral's


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>sk-sesame-sesame</html>",
        b"[]",
        b'"text"',
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": 3}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_what_is_no_completion_is_a_malformed_response(body: bytes) -> None:
    """The usual reason is a wrong address, and the message says so."""
    with pytest.raises(errors.MalformedResponseError, match="Check that the address is right") as caught:
        read_response(body, REFUSALS)
    assert "sesame" not in str(caught.value) + repr(caught.value.raw)


# Streams --------------------------------------------------------------------------------------------------------------


def deltas(*chunks: bytes) -> list[Delta]:
    stream = ChatStream(REFUSALS)
    found = [delta for chunk in chunks for delta in stream.feed(chunk)]
    return [*found, *stream.finish()]


def assembled(found: Sequence[Delta]) -> Response:
    assembly = Assembly()
    for delta in found:
        assembly.add(delta)
    return assembly.response()


def test_a_stream_is_text_then_its_end_then_its_usage() -> None:
    """The first chunk, which only names the role, is no delta."""
    found = deltas(*words("Pa", "ris"))
    assert found == [
        Delta(text="Pa"),
        Delta(text="ris"),
        Delta(finish_reason="stop"),
        Delta(usage=Usage(input_tokens=7, output_tokens=2)),
    ]


def piece(index: int | None, **call: Any) -> dict[str, Any]:
    function = {name: call.pop(name) for name in ("name", "arguments") if name in call}
    return {"tool_calls": [{"function": function} | call | ({} if index is None else {"index": index})]}


PARALLEL = [
    chunk(piece(0, id="a", name="t", arguments="")),
    chunk(piece(0, arguments='{"x"')),
    chunk(piece(1, id="b", name="u", arguments="")),
    chunk(piece(1, arguments="{}")),
    chunk(piece(0, arguments=": 1}")),
    chunk({}, "tool_calls"),
    DONE,
]


def test_parallel_tool_calls_come_in_pieces() -> None:
    """Pieces of several calls may alternate."""
    response = assembled(deltas(*PARALLEL))
    assert response.message.tool_calls == (
        ToolCall(id="a", name="t", arguments_json='{"x": 1}'),
        ToolCall(id="b", name="u", arguments_json="{}"),
    )
    assert response.finish_reason == "tool_calls"


@pytest.mark.parametrize("index", [None, 0])
def test_calls_that_share_an_index_are_told_apart_by_their_ids(index: int | None) -> None:
    """Some servers leave the index out, or always say 0."""
    found = deltas(
        chunk(piece(index, id="a", name="t", arguments='{"x":')),
        chunk(piece(index, arguments="1}")),
        chunk(piece(index, id="b", name="t", arguments="{}")),
        chunk({}, "tool_calls"),
    )
    assert [(c.id, c.arguments_json) for c in assembled(found).message.tool_calls] == [("a", '{"x":1}'), ("b", "{}")]


def test_an_id_that_is_repeated_with_every_piece_is_one_call() -> None:
    """As some servers do."""
    found = deltas(
        chunk(piece(0, id="a", name="t", arguments="{")), chunk(piece(0, id="a", arguments="}")), chunk({}, "stop")
    )
    assert [d.tool_call for d in found if d.tool_call] == [
        ToolCallDelta(0, "a", "t", "{"),
        ToolCallDelta(0, "a", "", "}"),
    ]


def test_refusals_and_reasoning_stream_as_such() -> None:
    """Neither is text."""
    found = deltas(
        chunk({"reasoning_content": "hm"}), chunk({"reasoning": "m"}), chunk({"refusal": "no"}), chunk({}, "stop"), DONE
    )
    assert assembled(found).message.parts == (Reasoning(text="hmm"), Refusal(text="no"))


def test_what_stands_around_choices_is_kept_and_other_choices_are_not() -> None:
    """Azure begins with a chunk without choices; `n=2` interleaves two answers, of which the first is ours."""
    second = json.dumps({"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": None}]}).encode()
    stream = ChatStream(REFUSALS)
    body = [chunk(None, choices=[], prompt_filter_results=[]), b"data: " + second + b"\n\n", *words("yes")]
    found = [delta for part in body for delta in stream.feed(part)]
    assert assembled(found).text == "yes"
    assert (stream.model, stream.raw["id"], stream.raw["usage"], stream.done) == ("m-1", "chatcmpl-1", USAGE, True)


@pytest.mark.parametrize("body", [words("a", done=False), [b": ping\n\n", *words("a")], [*words("a"), b"data: {x"]])
def test_a_stream_may_lack_done_and_hold_comments(body: list[bytes]) -> None:
    """A finish reason ends an answer too; after [DONE] nothing counts."""
    assert assembled(deltas(*body)).text == "a"


@pytest.mark.parametrize(
    "body", [[], [chunk({"content": "a"})], [chunk({"content": "a"}), b'data: {"choi'], [b"data: {"]]
)
def test_a_stream_that_ends_before_the_answer_was_cut(body: list[bytes]) -> None:
    """Trying again may help."""
    with pytest.raises(errors.ConnectionFailedError, match="was cut"):
        deltas(*body)


def test_a_stream_without_an_answer_is_malformed() -> None:
    """Ended in the protocol's way, with nothing in it."""
    with pytest.raises(errors.MalformedResponseError, match="without an answer"):
        deltas(DONE)


@pytest.mark.parametrize("data", [b"data: nonsense\n\n", b"data: []\n\n", b"data: " + b"[" * 100_000 + b"\n\n"])
def test_an_event_that_is_no_chunk_is_malformed(data: bytes) -> None:
    """In the midst of a stream."""
    with pytest.raises(errors.MalformedResponseError):
        deltas(chunk({"content": "a"}), data, chunk({}, "stop"))


STREAM = b"".join([b": ping\r\n\r\n", *words("é☃", "𝄞 b", done=False), *PARALLEL])


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_where_a_stream_is_cut_changes_no_delta(cuts: list[int]) -> None:
    """Within an event, a line end, a letter."""
    chunks = [STREAM[a:b] for a, b in pairwise([0, *sorted(cuts), len(STREAM)])]
    assert deltas(*chunks) == deltas(STREAM)


@given(st.binary(max_size=200))
def test_any_bytes_are_deltas_or_a_typed_error(body: bytes) -> None:
    """A stream, or a body, of anything."""
    for take in (lambda: deltas(body), lambda: read_response(body, REFUSALS)):
        try:
            take()
        except errors.ModelError:
            continue


# Failures -------------------------------------------------------------------------------------------------------------


def failure(message: str = "words", **fields: Any) -> bytes:
    return json.dumps({"error": {"message": message, "type": None, "param": None, "code": None} | fields}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, failure(code="context_length_exceeded"), errors.ContextTooLongError),
        (400, failure("This model's maximum context length is 4096 tokens."), errors.ContextTooLongError),
        (400, failure(code=400, type="exceed_context_size_error"), errors.ContextTooLongError),
        (400, failure(code="content_filter"), errors.ContentFilteredError),
        (400, failure(innererror={"code": "ResponsibleAIPolicyViolation"}), errors.ContentFilteredError),
        (400, failure(code="unsupported_parameter"), errors.BadRequestError),
        (422, b'{"detail": [{"loc": ["body"], "msg": "words"}]}', errors.BadRequestError),
        (401, failure(code="invalid_api_key"), errors.AuthenticationError),
        (403, failure(), errors.PermissionDeniedError),
        (404, failure(code="model_not_found"), errors.NotFoundError),
        (404, b'{"detail": "Not Found"}', errors.NotFoundError),
        (408, failure(), errors.RequestTimeoutError),
        (409, failure(), errors.OverloadedError),
        (413, failure(), errors.BadRequestError),
        (429, failure(code="rate_limit_exceeded"), errors.RateLimitedError),
        (301, b"", errors.NotFoundError),
        (501, b"", errors.UnsupportedError),
        *((status, b"<html><b>bad</b> gateway</html>", errors.OverloadedError) for status in (500, 502, 503, 504, 529)),
        (400, b'{"object": "error", "message": "words", "code": 400}', errors.BadRequestError),
        (400, b'[{"error": {"message": "words", "code": 400}}]', errors.BadRequestError),
        (400, b'{"error": "words"}', errors.BadRequestError),
        (400, b'"words"', errors.BadRequestError),
        (400, b"[" * 100_000, errors.BadRequestError),
    ],
)
def test_status_and_body_tell_the_kind_of_a_failure(status: int, body: bytes, kind: type[errors.ModelError]) -> None:
    """With the status, the payload and a next step on the error."""
    error = REFUSALS.of_status(status, {}, body)
    assert type(error) is kind
    assert error.status == status
    assert f"HTTP {status}" in str(error)
    assert ("words" in str(error)) == (b"words" in body)


def test_a_page_is_shown_without_its_markup() -> None:
    """Gateways answer in HTML."""
    assert "bad gateway" in str(REFUSALS.of_status(502, {}, b"<html><b>bad</b>\n gateway</html>"))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
        ({"retry-after": formatdate(0)}, 0.0),
    ],
)
def test_the_servers_advice_on_waiting(headers: dict[str, str], seconds: float | None) -> None:
    """In seconds, milliseconds or as a date; nonsense is no advice."""
    assert retry_after_s(headers) == seconds
    assert getattr(REFUSALS.of_status(429, headers, b""), "retry_after_s") == seconds  # noqa: B009 - ModelError lacks it


def test_a_date_to_come_is_the_time_until_then() -> None:
    """By this machine's clock."""
    told = retry_after_s({"retry-after": formatdate(time.time() + 1000)})
    assert told is not None
    assert 900 < told <= 1000


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_hard_limit_reached"])
def test_a_spent_quota_is_not_waited_for(code: str) -> None:
    """Another model may answer; the same one will not."""
    error = REFUSALS.of_status(429, {"retry-after": "1"}, failure(code=code))
    assert isinstance(error, errors.RateLimitedError)
    assert error.retry_after_s == math.inf
    assert "Waiting will not help" in str(error)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"type": "server_error"}, errors.OverloadedError),
        ({}, errors.OverloadedError),
        ({"code": "rate_limit_exceeded"}, errors.RateLimitedError),
        ({"code": 502}, errors.OverloadedError),
        ({"code": 400, "message": "context length"}, errors.ContextTooLongError),
        ({"type": "invalid_request_error"}, errors.BadRequestError),
        ({"type": "overloaded_error"}, errors.OverloadedError),
    ],
)
def test_an_error_object_inside_a_stream_or_a_body_is_that_error(fields: dict[str, Any], kind: type) -> None:
    """A server that fails after it said 200 has no other way to tell."""
    told = {"error": {"message": "words"} | fields}
    with pytest.raises(kind) as caught:
        deltas(chunk({"content": "a"}), b"data: " + json.dumps(told).encode() + b"\n\n")
    assert type(caught.value) is kind
    with pytest.raises(kind):
        read(told)


@pytest.mark.parametrize("echo", ["sk-sesame-sesame", "sk-proj-abc***wxyz", "gsk_abcdefgh1234"])
def test_a_key_that_the_server_echoes_is_hidden(echo: str) -> None:
    """OpenAI shows the ends of a wrong key."""
    error = REFUSALS.of_status(401, {}, failure(f"Incorrect API key provided: {echo}. See the console."))
    assert echo not in str(error) + repr(error.raw)
    assert "Incorrect API key provided: [key]" in str(error)
