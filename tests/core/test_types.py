"""What messages and requests refuse, and what they tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from llmops_sdk.errors import PromptBodyError, UsageError
from llmops_sdk.prompts.call import PromptPlan
from llmops_sdk.testing import ScriptedModel
from llmops_sdk.types import Message, Request, Text, ToolCall

TURN = {"role": "user", "content": "hello"}


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: Message.user(3), "a str, a part or several parts; it is 3"),  # type: ignore[arg-type]  # mistakes
        (lambda: Message.user(TURN), "a str, a part or several parts; it is {'role'"),  # type: ignore[arg-type]
        (lambda: Message.user(["a"]), r"they are \('a',\)"),  # type: ignore[list-item]
        (lambda: Message(role="usr", parts=()), "role must be one of system, user, assistant, tool; it is 'usr'"),  # type: ignore[arg-type]
        (lambda: Message(role="user", parts="hello"), "they are 'hello'.*Message.user"),  # type: ignore[arg-type]
        (lambda: Message(role="user", parts=[Text(text="a")]), "are a tuple"),  # type: ignore[arg-type]
    ],
)
def test_a_message_that_cannot_be_is_refused_where_it_is_made(made: Callable[[], Message], told: str) -> None:
    """Not at the provider, three layers below."""
    with pytest.raises(UsageError, match=told):
        made()


def test_a_message_is_made_of_text_of_a_part_or_of_several() -> None:
    """Any iterable of parts will do."""
    call = ToolCall(id="1", name="t")
    assert Message.user("a") == Message.user(Text(text="a")) == Message.user(part for part in (Text(text="a"),))
    assert Message.assistant([Text(text="a"), call]).tool_calls == (call,)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"temperature": -1}, "temperature must be a number of 0 or more, or None; it is -1"),
        ({"temperature": "hot"}, "temperature must be a number of 0 or more, or None; it is 'hot'"),
        ({"temperature": float("inf")}, "temperature must be a number of 0 or more, or None; it is inf"),
        ({"temperature": float("nan")}, "temperature must be .* it is nan"),
        ({"temperature": True}, "temperature must be .* it is True"),
        ({"top_p": 3}, "top_p must be a number from 0 to 1, or None; it is 3"),
        ({"max_tokens": -1}, "max_tokens must be a whole number of 1 or more, or None; it is -1"),
        ({"max_tokens": "many"}, "max_tokens must be .* it is 'many'"),
        ({"max_tokens": 1.5}, "max_tokens must be a whole number"),
        ({"seed": "x"}, "seed must be a whole number, or None; it is 'x'"),
        ({"stop": 3}, "stop must be a tuple of str; it is 3"),
        ({"stop": [3]}, r"stop must be a tuple of str; it is \(3,\)"),
        ({"tools": [{"name": "t"}]}, "tools must be a tuple of ToolSpec"),
        ({"tool_choice": {"type": "auto"}}, "tool_choice must be .*required"),
        ({"output": dict}, "output must be an OutputSchema"),
        ({"extra_json": "[]"}, "extra_json must be a JSON object"),
        ({"extra_json": "{"}, "extra_json must be a JSON object"),
        ({"messages": [TURN]}, "messages must be a tuple of Message.*write Message.user"),
    ],
    ids=str,
)
def test_a_value_that_no_model_takes_is_refused_with_its_name(parameters: dict[str, Any], told: str) -> None:
    """Before anything is sent, by every way to a request."""
    with pytest.raises(UsageError, match=told):
        Request.of("q", **parameters)
    with pytest.raises(UsageError, match=told):
        ScriptedModel(["a"]).complete("q", **parameters)


@pytest.mark.parametrize(
    "parameters",
    [{"temperature": 0}, {"temperature": 2.0}, {"top_p": 0}, {"top_p": 1}, {"max_tokens": 1}, {"seed": -1}],
)
def test_values_at_the_bounds_pass(parameters: dict[str, Any]) -> None:
    """What some model takes is not refused here."""
    ((name, value),) = parameters.items()
    assert getattr(Request.of("q", **parameters), name) == value


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("temprature", "temperature"),
        ("maxTokens", "max_tokens"),
        ("max-tokens", "max_tokens"),
        ("tool", "tools"),
        ("stops", "stop"),
    ],
)
def test_a_name_that_is_nearly_that_of_a_field_is_a_slip(slip: str, meant: str) -> None:
    """As an option of the provider it would be refused there, or passed over."""
    told = rf"no parameter '{slip}'\. Did you mean {meant}=\?"
    with pytest.raises(UsageError, match=told):
        Request.of("q").using(**{slip: 1})
    with pytest.raises(UsageError, match=told):
        ScriptedModel(["a"]).complete("q", **{slip: 1})


@pytest.mark.parametrize(
    "option",
    ["top_k", "min_p", "min_tokens", "n_probs", "logprobs", "top_logprobs", "reasoning_effort", "max_new_tokens"],
)
def test_options_of_providers_pass_as_they_are(option: str) -> None:
    """Some are not far from a field."""
    assert json.loads(Request.of("q", **{option: 1}).extra_json) == {option: 1}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([TURN], r"for {'role': 'user', 'content': 'hello'} write Message\.user\("),
        (TURN, r"for {'role': 'user', 'content': 'hello'} write Message\.user\("),
        ([{"role": "system", "content": "s"}, TURN], r"for {'role': 'system'.* write Message\.system\("),
        ([Message.user("a"), {"role": "assistant"}], r"for {'role': 'assistant'} write Message\.assistant\("),
        ([{"text": "a"}], r"write Message\.user\("),
    ],
    ids=str,
)
def test_messages_written_as_dicts_are_answered_with_what_to_write(content: Any, told: str) -> None:
    """Given to a model, or returned by a prompt's body."""
    with pytest.raises(UsageError, match=told):
        ScriptedModel(["a"]).complete(content)
    plan = PromptPlan(name="p", model=None, parameters={}, output=None, system=None)
    with pytest.raises(PromptBodyError, match=told):
        plan.request(content, {})
