"""Calls of models in OpenTelemetry's GenAI conventions: attributes for who was asked what way, payload for the words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llmops_sdk.tracing import semconv
from llmops_sdk.types import Part, Reasoning, Refusal, Request, Text, ToolCall, ToolResult

if TYPE_CHECKING:
    from llmops_sdk.tracing.span import RecordedSpan
    from llmops_sdk.types import AnyRequest, Message, Response, Usage

_KINDS = {"chat": "LLM", "embeddings": "EMBEDDING", "rerank": "RERANKER"}


def request_attributes(request: AnyRequest, *, operation: str, provider: str, model: str) -> dict[str, Any]:
    """The attributes that are known before the call; unset parameters are left out."""
    told: dict[str, Any] = {
        semconv.GEN_AI_OPERATION_NAME: operation,
        semconv.GEN_AI_PROVIDER_NAME: provider,
        semconv.GEN_AI_REQUEST_MODEL: model,
        semconv.OPENINFERENCE_SPAN_KIND: _KINDS.get(operation, "CHAIN"),
    }
    if isinstance(request, Request):
        told |= {
            semconv.GEN_AI_REQUEST_TEMPERATURE: _float(request.temperature),
            semconv.GEN_AI_REQUEST_TOP_P: _float(request.top_p),
            semconv.GEN_AI_REQUEST_MAX_TOKENS: request.max_tokens,
            semconv.GEN_AI_REQUEST_STOP_SEQUENCES: request.stop or None,
            semconv.GEN_AI_REQUEST_SEED: request.seed,
            semconv.GEN_AI_OUTPUT_TYPE: "json" if request.output is not None else None,
        }
    return {name: value for name, value in told.items() if value is not None}


def _float(value: float | None) -> float | None:
    """As the conventions want it; what is no number is the provider's to refuse."""
    return float(value) if isinstance(value, int | float) else None


def record_request(span: RecordedSpan, request: Request) -> None:
    """Keep the messages in the span's payload."""
    if span.is_recording():
        span.set_payload("input_messages", [_message(message) for message in request.messages])


def record_response(span: RecordedSpan, response: Response) -> None:
    """Say who answered, how it ended and what it took, and keep the answer in the payload."""
    if not span.is_recording():
        return
    span.set_attribute(semconv.GEN_AI_RESPONSE_FINISH_REASONS, [response.finish_reason])
    if response.model:
        span.set_attribute(semconv.GEN_AI_RESPONSE_MODEL, response.model)
    if response.cost_usd is not None:
        span.set_attribute(semconv.LLMOPS_COST_USD, response.cost_usd)
    record_usage(span, response.usage)
    span.set_payload("output_messages", [{**_message(response.message), "finish_reason": response.finish_reason}])


def record_usage(span: RecordedSpan, usage: Usage) -> None:
    """The token counts that are known."""
    for name, count in (
        (semconv.GEN_AI_USAGE_INPUT_TOKENS, usage.input_tokens),
        (semconv.GEN_AI_USAGE_OUTPUT_TOKENS, usage.output_tokens),
        (semconv.GEN_AI_USAGE_CACHE_READ_TOKENS, usage.cache_read_tokens),
        (semconv.GEN_AI_USAGE_CACHE_CREATION_TOKENS, usage.cache_write_tokens),
        (semconv.GEN_AI_USAGE_REASONING_TOKENS, usage.reasoning_tokens),
    ):
        if count is not None:
            span.set_attribute(name, count)


def _message(message: Message) -> dict[str, Any]:
    return {"role": message.role, "parts": [_part(part) for part in message.parts]}


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Text(text=text):
            return {"type": "text", "content": text}
        case Reasoning(text=text):
            return {"type": "reasoning", "content": text}
        case Refusal(text=text):
            return {"type": "refusal", "content": text}
        case ToolCall(id=call_id, name=name, arguments_json=arguments):
            return {"type": "tool_call", "id": call_id, "name": name, "arguments": _parsed(arguments)}
        case ToolResult(call_id=call_id, text=text):
            return {"type": "tool_call_response", "id": call_id, "response": text}


def _parsed(arguments_json: str) -> Any:
    """Arguments as the object that they are; what is not JSON stays text."""
    try:
        return json.loads(arguments_json)
    except ValueError:
        return arguments_json
