"""The data of `types.py` as JSON and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops_sdk import codec
from llmops_sdk.types import (
    Delta,
    Hit,
    Message,
    OutputSchema,
    Part,
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
    Verdict,
    canonical_json,
)

words = st.text(max_size=20)
counts = st.none() | st.integers(0, 10**9)
shares = st.none() | st.floats(allow_nan=False, allow_infinity=False)
parts: st.SearchStrategy[Part] = st.one_of(
    st.builds(Text, text=words),
    st.builds(Reasoning, text=words),
    st.builds(Refusal, text=words),
    st.builds(ToolCall, id=words, name=words, arguments_json=words),
    st.builds(ToolResult, call_id=words, text=words),
)
roles = st.sampled_from(("system", "user", "assistant", "tool"))
ends = st.sampled_from(("stop", "length", "tool_calls", "content_filter", "cancelled", "other"))
messages = st.builds(Message, role=roles, parts=st.lists(parts, max_size=4).map(tuple))
usages = st.builds(Usage, input_tokens=counts, output_tokens=counts, cache_read_tokens=counts, reasoning_tokens=counts)
facts = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words
values = st.one_of(
    st.builds(
        Request,
        messages=st.lists(messages, min_size=1, max_size=3).map(tuple),
        temperature=st.none() | st.floats(0, allow_nan=False, allow_infinity=False),
        max_tokens=st.none() | st.integers(1, 10**9),
        stop=st.lists(words, max_size=2).map(tuple),
        output=st.none() | st.builds(OutputSchema, name=words, schema_json=words),
        tools=st.lists(st.builds(ToolSpec, name=words), max_size=2).map(tuple),
        extra_json=st.dictionaries(words, words, max_size=2).map(canonical_json),
    ),
    st.builds(Response, message=messages, finish_reason=ends, model=words, usage=usages, cost_usd=shares),
    st.builds(
        Delta,
        text=words,
        tool_call=st.none() | st.builds(ToolCallDelta, number=st.integers(0, 9), id=words),
        finish_reason=st.none() | ends,
        usage=st.none() | usages,
    ),
    st.builds(Hit, id=words, text=words, score=st.floats(-1, 1), metadata=st.lists(st.tuples(words, facts)).map(tuple)),
    st.builds(Verdict, check=words, action=st.sampled_from(("pass", "annotate", "redact", "block")), score=shares),
)


@given(values)
def test_what_is_written_comes_back_equal(value: Any) -> None:
    """Through JSON text, for every kind of value that is stored."""
    text = json.dumps(codec.to_dict(value))
    assert codec.from_dict(type(value), json.loads(text)) == value


def test_equal_requests_are_written_alike() -> None:
    """0 and 0.0 are equal temperatures, so a cache must not tell them apart."""
    assert codec.to_dict(Request.of("q", temperature=0)) == codec.to_dict(Request.of("q", temperature=0.0))
    assert json.dumps(codec.to_dict(Request.of("q", temperature=0))) == json.dumps(
        codec.to_dict(Request.of("q", temperature=0.0))
    )


def test_a_default_is_not_written() -> None:
    """A field that a later version adds changes no key of an earlier one."""
    assert codec.to_dict(Request.of("q")) == {
        "messages": [{"role": "user", "parts": [{"type": "text", "text": "q"}]}],
    }


def test_what_takes_no_part_in_equality_is_not_written() -> None:
    """Neither the provider's payload nor the typed value goes into a store."""
    told = codec.to_dict(Response.of("a", raw={"secret": object()}, parsed=object()))
    assert set(told) == {"message"}


@pytest.mark.parametrize(
    ("cls", "told", "place"),
    [
        (Response, [], "Response is list"),
        (Response, {}, "Response lacks 'message'"),
        (Response, {"message": {"role": "robot", "parts": []}}, "Response.message.role is 'robot'"),
        (
            Response,
            {"message": {"role": "user", "parts": [{"type": "code"}]}},
            "parts[0] is of the unknown type 'code'",
        ),
        (Response, {"message": {"role": "user", "parts": "hi"}}, "Response.message.parts is str"),
        (Response, {"message": {"role": "user", "parts": []}, "cached": 1}, "Response.cached is int, not bool"),
        (Response, {"message": {"role": "user", "parts": []}, "__class__": "x"}, "unknown field '__class__'"),
        (Usage, {"input_tokens": "3"}, "Usage.input_tokens is str"),
        (Hit, {"id": "1", "text": "t", "score": 1, "metadata": [["a"]]}, "Hit.metadata[0] has 1 items"),
    ],
)
def test_anything_else_is_refused_with_its_place(cls: type, told: Any, place: str) -> None:
    """A file on disk is not trusted: what does not fit the types does not become a value."""
    with pytest.raises(ValueError) as refused:
        codec.from_dict(cls, told)
    assert place in str(refused.value)
