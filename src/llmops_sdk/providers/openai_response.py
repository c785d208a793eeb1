"""From the bytes of OpenAI's chat completions to a `Response`, or to deltas."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from llmops_sdk.errors import ConnectionFailedError, MalformedResponseError
from llmops_sdk.providers.sse import EventDecoder
from llmops_sdk.types import (
    Delta,
    FinishReason,
    Message,
    Part,
    Reasoning,
    Refusal,
    Response,
    Text,
    ToolCall,
    ToolCallDelta,
    Usage,
    canonical_json,
)

if TYPE_CHECKING:
    from llmops_sdk.providers.openai_errors import Refusals

_REASONS: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


def finish_reason_of(told: Any) -> FinishReason:
    """How an answer ended, in our words; "other" for a reason that is not of the protocol."""
    return _REASONS.get(told, "other") if isinstance(told, str) else "stop"


def usage_of(told: Any) -> Usage:
    """The tokens, as far as the server says."""
    if not isinstance(told, dict):
        return Usage()
    asked, answered = _object(told, "prompt_tokens_details"), _object(told, "completion_tokens_details")
    audio = [n for n in (_count(asked, "audio_tokens"), _count(answered, "audio_tokens")) if n is not None]
    return Usage(
        input_tokens=_count(told, "prompt_tokens"),
        output_tokens=_count(told, "completion_tokens"),
        cache_read_tokens=_count(asked, "cached_tokens"),
        reasoning_tokens=_count(answered, "reasoning_tokens"),
        audio_tokens=sum(audio) if audio else None,
    )


def read_response(body: bytes, refusals: Refusals) -> Response:
    """The response in a whole body. Raises `MalformedResponseError`, and the error that a body tells of."""
    payload = _parsed(body.decode("utf-8", "replace"), refusals)
    choice = _first_choice(payload)
    message = _object(choice, "message")
    if not message:
        raise refusals.malformed("its choice has no message", payload)
    return Response(
        message=Message(role="assistant", parts=tuple(_parts(message))),
        finish_reason=finish_reason_of(choice.get("finish_reason")),
        model=_text(payload.get("model")),
        usage=usage_of(payload.get("usage")),
        raw=payload,
    )


class ChatStream:
    """Takes the chunks of a streamed body, cut anywhere, and gives the deltas in them.

    `raw` holds the fields around the choices (id, model, usage, …), the latest of each. `done` says that the server ended
    the stream in the protocol's way.
    """

    def __init__(self, refusals: Refusals) -> None:
        self.raw: dict[str, Any] = {}
        self.done = False
        self._events = EventDecoder()
        self._refusals = refusals
        self._calls = _CallNumbers()
        self._finished = False
        self._answered = False

    @property
    def model(self) -> str:
        """The model that answers, as it names itself; "" before the first chunk."""
        return _text(self.raw.get("model"))

    def feed(self, chunk: bytes) -> Iterator[Delta]:
        """The deltas that are complete with this chunk. Raises as `read_response` does."""
        for event in self._events.feed(chunk):
            yield from self._event(event.data)

    def finish(self) -> Iterator[Delta]:
        """The deltas that only the end of the body completes.

        Raises `ConnectionFailedError` if the body ended before the answer did, `MalformedResponseError` if there was
        none.
        """
        try:
            for event in self._events.finish():
                yield from self._event(event.data)
        except MalformedResponseError as error:
            raise self._cut() from error
        if not self._answered and self.done:
            raise self._refusals.malformed("its stream ended without an answer", self.raw)
        if not self.done and not self._finished:
            raise self._cut()

    def _cut(self) -> ConnectionFailedError:
        return ConnectionFailedError(f"{self._refusals.name}: the stream was cut before the answer was complete.")

    def _event(self, data: str) -> Iterator[Delta]:
        if self.done:
            return
        if data.strip() == "[DONE]":
            self.done = True
            return
        payload = _parsed(data, self._refusals)
        self.raw |= {name: value for name, value in payload.items() if name != "choices"}
        usage = payload.get("usage")
        told = usage_of(usage) if isinstance(usage, dict) else None
        choice = next((c for c in _list(payload, "choices") if isinstance(c, dict) and not c.get("index")), None)
        if choice is None:
            if told is not None:
                yield Delta(usage=told)
            return
        self._answered = True
        yield from self._choice(choice, told)

    def _choice(self, choice: dict[str, Any], usage: Usage | None) -> Iterator[Delta]:
        delta = _object(choice, "delta")
        reason = choice.get("finish_reason")
        ended = finish_reason_of(reason) if reason else None
        self._finished = self._finished or ended is not None
        text, thought = _written(delta.get("content"))
        said = Delta(text=text, reasoning=thought + _reasoning(delta), refusal=_text(delta.get("refusal")))
        if said != Delta():
            yield said
        for piece in _list(delta, "tool_calls"):
            if isinstance(piece, dict):
                yield Delta(tool_call=self._calls.piece(piece))
        if ended is not None or usage is not None:
            yield Delta(finish_reason=ended, usage=usage)


class _CallNumbers:
    """Counts the calls of one streamed message.

    The protocol numbers the pieces of a call by `index`. Some servers leave it out, or give each call the same one: then
    a new id begins a new call, and a piece without an id goes on with the latest.
    """

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._by_index: dict[int | None, int] = {}

    def piece(self, told: dict[str, Any]) -> ToolCallDelta:
        index, call_id = told.get("index"), _text(told.get("id"))
        key = index if isinstance(index, int) else None
        number = self._by_index.get(key)
        if number is None or (call_id and self._ids[number] and call_id != self._ids[number]):
            number = self._by_index[key] = len(self._ids)
            self._ids.append(call_id)
        elif call_id and not self._ids[number]:
            self._ids[number] = call_id
        name, arguments = _function(told)
        return ToolCallDelta(number, call_id, name, arguments)


def _parsed(text: str, refusals: Refusals) -> dict[str, Any]:
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refusals.malformed(f"{text[:80]!r} is not JSON", text[:2000]) from error
    if not isinstance(payload, dict):
        raise refusals.malformed(f"it is a JSON {type(payload).__name__}, not an object", payload)
    if payload.get("error"):
        raise refusals.inside(payload)
    return payload


def _first_choice(payload: dict[str, Any]) -> dict[str, Any]:
    choices = _list(payload, "choices")
    return choices[0] if choices and isinstance(choices[0], dict) else {}


def _parts(message: dict[str, Any]) -> Iterator[Part]:
    """Reasoning, text, refusal and tool calls, in the order that `Assembly` has for streams."""
    text, thought = _written(message.get("content"))
    thought += _reasoning(message)
    if thought:
        yield Reasoning(text=thought)
    if text:
        yield Text(text=text)
    if refusal := _text(message.get("refusal")):
        yield Refusal(text=refusal)
    for call in _list(message, "tool_calls"):
        if isinstance(call, dict):
            name, arguments = _function(call)
            yield ToolCall(id=_text(call.get("id")), name=name, arguments_json=arguments or "{}")


def _written(content: Any) -> tuple[str, str]:
    """The text and the reasoning of a content: a string, or, from Mistral, a list of typed parts."""
    if not isinstance(content, list):
        return _text(content), ""
    parts = [part for part in content if isinstance(part, dict)]
    text = "".join(_text(part.get("text")) for part in parts if part.get("type") == "text")
    thought = "".join(_written(part.get("thinking"))[0] for part in parts if part.get("type") == "thinking")
    return text, thought


def _reasoning(told: dict[str, Any]) -> str:
    """OpenAI does not show it; DeepSeek, vLLM and SGLang name it `reasoning_content`, Groq and OpenRouter `reasoning`."""
    return _text(told.get("reasoning_content")) or _text(told.get("reasoning"))


def _function(call: dict[str, Any]) -> tuple[str, str]:
    """Name and arguments of a call, or of a piece of one."""
    function = _object(call, "function") or _object(call, "custom")
    arguments = function.get("arguments", function.get("input"))
    return _text(function.get("name")), canonical_json(arguments) if isinstance(arguments, dict) else _text(arguments)


def _object(told: dict[str, Any], name: str) -> dict[str, Any]:
    value = told.get(name)
    return value if isinstance(value, dict) else {}


def _list(told: dict[str, Any], name: str) -> list[Any]:
    value = told.get(name)
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _count(told: dict[str, Any], name: str) -> int | None:
    value = told.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
