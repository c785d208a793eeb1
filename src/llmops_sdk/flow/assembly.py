"""`Assembly`: a response put together from deltas, whole or partial; and `deltas_of`, the way back."""

from __future__ import annotations

import re
from typing import Any

from llmops_sdk.errors import StreamInterruptedError
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
)


class Assembly:
    """Collects the deltas of one stream."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.finish_reason: FinishReason | None = None
        self.usage: Usage | None = None

    def add(self, delta: Delta) -> None:
        """Take the next delta."""
        self.deltas.append(delta)
        if delta.finish_reason is not None:
            self.finish_reason = delta.finish_reason
        if delta.usage is not None:
            self.usage = delta.usage

    def message(self) -> Message:
        """What has arrived: reasoning, text, refusal and tool calls, each kind joined, in that order."""
        parts: list[Part] = []
        for kind, name in ((Reasoning, "reasoning"), (Text, "text"), (Refusal, "refusal")):
            joined = "".join(getattr(delta, name) for delta in self.deltas)
            if joined:
                parts.append(kind(text=joined))
        return Message(role="assistant", parts=(*parts, *self._tool_calls()))

    def _tool_calls(self) -> list[ToolCall]:
        pieces: dict[int, list[str]] = {}
        for delta in self.deltas:
            call = delta.tool_call
            if call is not None:
                known = pieces.setdefault(call.number, ["", "", ""])
                known[0] = known[0] or call.id
                known[1] = known[1] or call.name
                known[2] += call.arguments_json
        return [
            ToolCall(id=call_id, name=name, arguments_json=arguments or "{}")
            for _, (call_id, name, arguments) in sorted(pieces.items())
        ]

    def response(self, **fields: Any) -> Response:
        """The response, with `fields` of `Response` set on it."""
        told: dict[str, Any] = {"finish_reason": self.finish_reason or "stop", "usage": self.usage or Usage()}
        return Response(message=self.message(), **(told | fields))

    def interrupted(self, error: BaseException, **fields: Any) -> StreamInterruptedError:
        """The error of a stream that failed after its first delta, with what had arrived. Raise it `from error`."""
        partial = self.response(**({"finish_reason": "other"} | fields))
        return StreamInterruptedError(
            f"The stream broke after {len(self.deltas)} deltas ({len(partial.text)} characters): {error} "
            f"The partial response is on this error as .partial; nothing was retried.",
            partial=partial,
        )


def deltas_of(response: Response) -> list[Delta]:
    """A response as a stream would have brought it: its text word by word, then how it ended."""
    deltas: list[Delta] = []
    calls = 0
    for part in response.message.parts:
        match part:
            case Text(text=text):
                deltas += [Delta(text=word) for word in re.findall(r"\s*\S+|\s+$", text)]
            case Reasoning(text=text):
                deltas.append(Delta(reasoning=text))
            case Refusal(text=text):
                deltas.append(Delta(refusal=text))
            case ToolCall(id=call_id, name=name, arguments_json=arguments):
                deltas.append(Delta(tool_call=ToolCallDelta(calls, call_id, name, arguments)))
                calls += 1
            case _:
                continue  # a tool's result is never part of an answer
    return [*deltas, Delta(finish_reason=response.finish_reason, usage=response.usage)]
