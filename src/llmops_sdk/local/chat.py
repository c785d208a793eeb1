"""The leaf of chat models in this process."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from llmops_sdk.errors import BadRequestError, FlowCancelled, UnsupportedError
from llmops_sdk.flow import END, Assembly, Block, Emit, Model, Next
from llmops_sdk.local.chat_engine import ChatEngine, Generation, Sampling
from llmops_sdk.local.process import DEFAULT_THREADS, loaded_once
from llmops_sdk.local.weights import find_weights
from llmops_sdk.tracing import semconv
from llmops_sdk.tracing.genai import record_request, record_response, request_attributes
from llmops_sdk.types import Delta, Reasoning, Request, Response, Text

if TYPE_CHECKING:
    from llmops_sdk.flow import Flow, Run
    from llmops_sdk.tracing import RecordedSpan
    from llmops_sdk.types import AnyRequest

ONLY_JSON: Final = "Answer with nothing but one JSON value that fits this JSON Schema:"


class LocalChat(Model):
    """A chat model in this process, loaded at the first request and shared by all models of the same weights.

    Greedy unless a temperature above 0 is asked for; then `seed` makes an answer repeatable. Without `max_tokens` an
    answer may fill the context. Beside the fields of `Request` it knows `top_k`. An output schema is written into the
    system message, and what a model thought aloud before is left out. `threads` compute it: as
    many as there are cores are fastest where nothing else runs, and one anywhere else.

    Raises `ContextTooLongError` with both counts, `UnsupportedError` for tools, `MissingModelError`,
    `MissingExtraError`, and `UsageError` in a process forked after a local model was loaded.
    """

    def __init__(
        self, *, weights: str, name: str, parameters: Mapping[str, Any], threads: int = DEFAULT_THREADS
    ) -> None:
        self.name = name
        self._weights = weights
        self._parameters = dict(parameters)
        self._threads = threads

    def flow(self, request: AnyRequest, run: Run) -> Flow[Response]:
        """One answer."""
        if not isinstance(request, Request):
            raise UnsupportedError(f"{self.name} answers chat requests; this is {type(request).__name__}.")
        request = request.under(self._parameters)
        turns, sampling = _turns(self.name, request), _sampling(self.name, request)
        attributes = request_attributes(request, operation="chat", provider="local", model=self._weights)
        with run.span(f"chat {self._weights}", attributes=attributes) as span:
            record_request(span, request)
            generation = yield Block(lambda: self._begin(request, turns, sampling, run))
            try:
                response = yield from self._written(generation, run, span)
            except FlowCancelled as signal:
                signal.usage = generation.usage
                raise
            finally:
                generation.close()
            record_response(span, response)
            return dataclasses.replace(response, trace_id=span.trace_id, span_id=span.span_id)

    def _begin(self, request: Request, turns: list[dict[str, str]], sampling: Sampling, run: Run) -> Generation:
        engine = loaded_once(ChatEngine, find_weights(self._weights, run.settings), ChatEngine.load)
        prompt = engine.tokenizer.chat(turns)
        return Generation(
            engine,
            prompt,
            sampling=sampling,
            max_tokens=request.max_tokens,
            stop=request.stop,
            threads=self._threads,
        )

    def _written(self, generation: Generation, run: Run, span: RecordedSpan) -> Flow[Response]:
        """Token by token; deltas leave where somebody reads them."""
        assembly, began, emitted = Assembly(), time.monotonic(), False
        try:
            while (piece := (yield Next(generation))) is not END:
                if not piece:
                    continue
                if not assembly.deltas:
                    span.set_attribute(semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, time.monotonic() - began)
                delta = Delta(text=piece)
                assembly.add(delta)
                if run.streaming:
                    emitted = True
                    yield Emit(delta)
            last = Delta(finish_reason=generation.finish_reason, usage=generation.usage)
            assembly.add(last)
            if run.streaming:
                emitted = True
                yield Emit(last)
        except Exception as error:
            if not emitted:
                raise
            raise assembly.interrupted(error, model=self.name, usage=generation.usage) from error
        return assembly.response(model=self.name)


def _turns(name: str, request: Request) -> list[dict[str, str]]:
    """The messages as the chat template takes them."""
    if request.tools:
        raise UnsupportedError(f"{name} cannot call tools. Leave tools out, or use a model that can.")
    kinds = {type(part) for message in request.messages for part in message.parts} - {Text, Reasoning}
    if kinds:
        told = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise UnsupportedError(f"{name} reads text; a message of this chat holds {told}.")
    turns = [{"role": message.role, "content": message.text} for message in request.messages]
    if request.output is None:
        return turns
    wanted = f"{ONLY_JSON} {request.output.schema_json}"
    if turns and turns[0]["role"] == "system":
        return [{"role": "system", "content": f"{turns[0]['content']}\n\n{wanted}"}, *turns[1:]]
    return [{"role": "system", "content": wanted}, *turns]


def _sampling(name: str, request: Request) -> Sampling:
    """How to sample. Raises `BadRequestError` for a number that cannot be, and for options that nobody knows."""
    extra = json.loads(request.extra_json)
    top_k = extra.pop("top_k", 0)
    if extra:
        raise BadRequestError(f"{name} knows no option {min(extra)!r}. Beside the fields of Request there is top_k.")
    sampling = Sampling(
        temperature=0.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        top_k=top_k,
        seed=request.seed,
    )
    limits = {
        "temperature must be a number, 0 or more": 0 <= sampling.temperature < math.inf,
        "top_p must be above 0 and at most 1": 0 < sampling.top_p <= 1,
        "top_k must be a whole number, 0 or more": type(top_k) is int and top_k >= 0,
        "max_tokens must be at least 1": request.max_tokens is None or request.max_tokens >= 1,
    }
    broken = next((rule for rule, kept in limits.items() if not kept), None)
    if broken is not None:
        raise BadRequestError(f"{name}: {broken}; the request says {sampling}, max_tokens={request.max_tokens}.")
    return sampling
