"""The leaf of models behind OpenAI's chat completions, OpenAI's own or another server's."""

from __future__ import annotations

import base64
import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import httpx
from opentelemetry.trace import SpanKind

import llmops_sdk
from llmops_sdk.errors import FlowCancelled, UnsupportedError
from llmops_sdk.flow import END, Assembly, Block, Emit, Model, Next, Send
from llmops_sdk.flow.assembly import deltas_of
from llmops_sdk.providers.openai_errors import Refusals
from llmops_sdk.providers.openai_request import payload_of
from llmops_sdk.providers.openai_response import ChatStream, read_response
from llmops_sdk.tracing import semconv
from llmops_sdk.tracing.genai import record_request, record_response, request_attributes
from llmops_sdk.types import Request, Response

if TYPE_CHECKING:
    from llmops_sdk.flow import ByteSource, Flow, Run, Transport
    from llmops_sdk.providers.keys import ApiKey
    from llmops_sdk.tracing import RecordedSpan
    from llmops_sdk.types import AnyRequest, Usage

# Bodies of these kinds are read whole, even where a stream was asked for: errors, and servers that do not stream.
_WHOLE: Final = ("application/json", "text/html")
_PORTS: Final = {"http": 80, "https": 443}


class Priced(Protocol):
    """What an answer cost, and by which price list."""

    @property
    def cost_usd(self) -> float: ...

    @property
    def source(self) -> str: ...


class OpenAIChat(Model):
    """Asks `{base_url}/chat/completions`.

    Args:
        name: the model's identity.
        model: what the server calls it.
        base_url: without userinfo, which stands in `userinfo`.
        api_key: read at each request.
        price_of: the price of a model's usage at a server, or None where it is not known.
        parameters: defaults of requests.
        timeout_s: bounds each phase of a request.
        limit_field: the server's name for the limit of output tokens.

    Raises, beside the errors of the `ModelError` branch, `MissingKeyError` and `NetworkBlockedError`.
    """

    def __init__(
        self,
        *,
        name: str,
        model: str,
        base_url: httpx.URL,
        transport: Transport,
        api_key: ApiKey,
        userinfo: tuple[str, str] | None = None,
        price_of: Callable[[str, Usage, str], Priced | None] | None = None,
        parameters: Mapping[str, Any] | None = None,
        timeout_s: float | None = 60,
        limit_field: str = "max_tokens",
    ) -> None:
        self.name = name
        self._model = model
        self._base_url = base_url
        self._transport = transport
        self._key = api_key
        self._userinfo = userinfo
        self._price_of = price_of
        self._prices_loaded = False
        self._parameters = dict(parameters or {})
        self._timeout_s = timeout_s
        self._limit_field = limit_field
        self._refusals = Refusals(name, api_key)

    def flow(self, request: AnyRequest, run: Run) -> Flow[Response]:
        """One answer, in one HTTP request."""
        if not isinstance(request, Request):
            raise UnsupportedError(f"{self.name} answers chat requests; this is {type(request).__name__}.")
        request = request.under(self._parameters)
        attributes = request_attributes(request, operation="chat", provider="openai", model=self._model)
        with run.span(
            f"chat {self._model}", kind=SpanKind.CLIENT, attributes=attributes | self._where(run.streaming)
        ) as span:
            record_request(span, request)
            sent = self.http_request(request, stream=run.streaming)
            response = yield from (self._streamed(sent, span) if run.streaming else self._whole(sent))
            response = yield from self._priced(response, span)
            if response_id := (response.raw or {}).get("id"):
                span.set_attribute(semconv.GEN_AI_RESPONSE_ID, str(response_id))
            record_response(span, response)
            return dataclasses.replace(response, trace_id=span.trace_id, span_id=span.span_id)

    def http_request(self, request: Request, *, stream: bool) -> httpx.Request:
        """The HTTP request for a request. Raises `MissingKeyError`, and `UsageError` for what cannot be asked."""
        payload = payload_of(request, model=self._model, stream=stream, limit_field=self._limit_field)
        headers = httpx.Headers(
            {
                "Accept": "text/event-stream" if stream else "application/json",
                "Accept-Encoding": "gzip, deflate",
                "Content-Type": "application/json",
                "User-Agent": f"llmops-sdk/{llmops_sdk.__version__}",
            }
        )
        key = self._key.read()
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        elif self._userinfo is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(":".join(self._userinfo).encode()).decode()
        url = self._base_url.copy_with(path=self._base_url.path.rstrip("/") + "/chat/completions")
        content = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        return httpx.Request("POST", url, headers=headers, content=content)

    def _where(self, streaming: bool) -> dict[str, Any]:
        url = self._base_url
        told: dict[str, Any] = {
            semconv.SERVER_ADDRESS: url.host,
            semconv.SERVER_PORT: url.port or _PORTS[url.scheme],
        }
        return told | ({semconv.GEN_AI_REQUEST_STREAM: True} if streaming else {})

    def _whole(self, sent: httpx.Request) -> Flow[Response]:
        answer: httpx.Response = yield Send(sent, stream=False, transport=self._transport, timeout_s=self._timeout_s)
        return self._read(answer.status_code, answer.headers, answer.content)

    def _read(self, status: int, headers: Mapping[str, str], body: bytes) -> Response:
        if not 200 <= status < 300:
            raise self._refusals.of_status(status, headers, body)
        response = read_response(body, self._refusals)
        return response if response.model else dataclasses.replace(response, model=self._model)

    def _streamed(self, sent: httpx.Request, span: RecordedSpan) -> Flow[Response]:
        """Delta by delta. What fails after the first one is a `StreamInterruptedError`."""
        began = time.monotonic()
        source: ByteSource = yield Send(sent, stream=True, transport=self._transport, timeout_s=self._timeout_s)
        kind = source.headers.get("content-type", "")
        if not 200 <= source.status_code < 300 or kind.startswith(_WHOLE):
            return (yield from self._unstreamed(source))
        stream, assembly = ChatStream(self._refusals), Assembly()
        try:
            while (chunk := (yield from self._next(source, stream))) is not END:
                for delta in stream.feed(chunk):
                    if not assembly.deltas:
                        span.set_attribute(semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, time.monotonic() - began)
                    assembly.add(delta)
                    yield Emit(delta)
            for delta in stream.finish():
                assembly.add(delta)
                yield Emit(delta)
        except FlowCancelled as signal:
            signal.usage = assembly.usage
            raise
        except Exception as error:
            if not assembly.deltas:
                raise
            raise assembly.interrupted(error, model=stream.model or self._model, raw=stream.raw) from error
        return assembly.response(model=stream.model or self._model, raw=stream.raw)

    def _next(self, source: ByteSource, stream: ChatStream) -> Flow[Any]:
        """The next bytes. Once the answer is complete its body is only read so that the connection can serve again."""
        try:
            return (yield Next(source))
        except Exception:  # of the transport, whatever it is: the answer is whole
            if not stream.done:
                raise
            return END

    def _unstreamed(self, source: ByteSource) -> Flow[Response]:
        """A body that is no stream: an error, or the whole answer of a server that does not stream."""
        pieces: list[bytes] = []
        while (chunk := (yield Next(source))) is not END:
            pieces.append(chunk)
        response = self._read(source.status_code, source.headers, b"".join(pieces))
        for delta in deltas_of(response):
            yield Emit(delta)
        return response

    def _priced(self, response: Response, span: RecordedSpan) -> Flow[Response]:
        """The response with what it cost, where that is known."""
        if self._price_of is None:
            return response
        ask = partial(self._price_of, response.model or self._model, response.usage, str(self._base_url))
        # The price list takes a while to load, once a process.
        price: Priced | None = ask() if self._prices_loaded else (yield Block(ask))
        self._prices_loaded = True
        if price is None:
            return response
        span.set_attribute(semconv.LLMOPS_COST_SOURCE, price.source)
        return dataclasses.replace(response, cost_usd=price.cost_usd)
