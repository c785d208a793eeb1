"""From a `Request` to the JSON of OpenAI's chat completions (https://platform.openai.com/docs/api-reference/chat)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from llmops_sdk.errors import UsageError
from llmops_sdk.types import Message, OutputSchema, Refusal, Request, Text, ToolCall, ToolResult, ToolSpec

OWNED: Final[Mapping[str, str]] = {
    "model": "The model's string names it: pass another model.",
    "messages": "They are what the request was made from.",
    "stream": "Read the answer with .stream(…).",
    "stream_options": "Read the answer with .stream(…); its usage is asked for.",
    "n": "One answer is read: ask again for another.",
}
"""Fields of the payload that no option may set, and what to do instead."""

_CHOICES: Final = ("auto", "none", "required")

# What OpenAI's strict mode takes; anything else in a schema makes it guidance that is not enforced.
# https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
_STRICT: Final = frozenset(
    {
        *("$defs", "$ref", "additionalProperties", "anyOf", "const", "description", "enum", "format", "items"),
        *(
            "exclusiveMaximum",
            "exclusiveMinimum",
            "maxItems",
            "maximum",
            "minItems",
            "minimum",
            "multipleOf",
            "pattern",
        ),
        *("properties", "required", "title", "type"),
    }
)
_FORMATS: Final = frozenset(
    {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"},
)


def payload_of(request: Request, *, model: str, stream: bool, limit_field: str) -> dict[str, Any]:
    """The JSON object to send.

    `limit_field` is the server's name for the limit of output tokens. The request's `extra_json` is merged last. Raises
    `UsageError` for messages that the protocol has no form for, and for options that would replace what is sent anyway.
    """
    told: dict[str, Any] = {
        "model": model,
        "messages": [turn for message in request.messages for turn in _turns(message)],
        "temperature": request.temperature,
        "top_p": request.top_p,
        limit_field: request.max_tokens,
        "stop": list(request.stop) or None,
        "seed": request.seed,
        "response_format": None if request.output is None else _response_format(request.output),
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": None if request.tool_choice is None else _tool_choice(request.tool_choice),
    }
    if stream:
        told |= {"stream": True, "stream_options": {"include_usage": True}}
    extra: dict[str, Any] = json.loads(request.extra_json)
    for name in extra.keys() & OWNED.keys():
        raise UsageError(f"The option {name!r} cannot be set: the request says it itself. {OWNED[name]}")
    return {name: value for name, value in told.items() if value is not None} | extra


def _turns(message: Message) -> Iterator[dict[str, Any]]:
    """A message as one turn, or, for the results of tools, one a result."""
    kinds = {type(part) for part in message.parts}
    if ToolResult in kinds:
        if kinds != {ToolResult}:
            raise UsageError("A message with tool results holds nothing else. Put the text into a message of its own.")
        for part in message.parts:
            assert isinstance(part, ToolResult)
            yield {"role": "tool", "tool_call_id": part.call_id, "content": part.text}
    elif message.role == "assistant":
        yield _assistant(message)
    elif kinds <= {Text} and message.role != "tool":
        yield {"role": message.role, "content": message.text}
    else:
        told = ", ".join(sorted(kind.__name__ for kind in kinds)) or "nothing"
        raise UsageError(f"A {message.role} message cannot hold {told} in this protocol.")


def _assistant(message: Message) -> dict[str, Any]:
    """What a model said before. Its reasoning is not sent back: the protocol has no place for it."""
    turn: dict[str, Any] = {"role": "assistant"}
    refusal = "".join(part.text for part in message.parts if isinstance(part, Refusal))
    if message.text or not (message.tool_calls or refusal):
        turn["content"] = message.text
    if refusal:
        turn["refusal"] = refusal
    if message.tool_calls:
        turn["tool_calls"] = [_call(call) for call in message.tool_calls]
    return turn


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": json.loads(tool.parameters_json)}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _tool_choice(choice: str) -> Any:
    return choice if choice in _CHOICES else {"type": "function", "function": {"name": choice}}


def _response_format(output: OutputSchema) -> dict[str, Any]:
    schema = json.loads(output.schema_json)
    return {
        "type": "json_schema",
        "json_schema": {"name": output.name, "schema": schema, "strict": fits_strict(schema)},
    }


def fits_strict(schema: Any) -> bool:
    """Whether a schema is one that OpenAI's strict mode takes: closed objects with all properties required, an object at
    the root, and known keywords only.
    """
    return isinstance(schema, dict) and schema.get("type") == "object" and _strict(schema)


def _strict(schema: Any) -> bool:
    if not isinstance(schema, dict) or not set(schema) <= _STRICT:
        return False
    if "$ref" in schema:
        return set(schema) == {"$ref"}
    if schema.get("format", "date") not in _FORMATS or "(?" in schema.get("pattern", ""):
        return False
    properties = schema.get("properties", {})
    is_object = "properties" in schema or schema.get("type") == "object"
    closed = schema.get("additionalProperties") is False and set(schema.get("required", ())) == set(properties)
    if is_object and not closed:
        return False
    inner = [*properties.values(), *schema.get("anyOf", ()), *schema.get("$defs", {}).values()]
    if "items" in schema:
        inner.append(schema["items"])
    return bool({"type", "anyOf", "enum", "const"} & set(schema)) and all(map(_strict, inner))
