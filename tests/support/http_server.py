"""A real HTTP server on loopback that does what a test scripts, request by request."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATIENCE_S = 10.0
"""How long the server waits for an event or a disconnection before it gives a test up."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as it came in; `gone` is set once the client has closed its connection before the answer's end."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    port: int
    gone: threading.Event = field(default_factory=threading.Event)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What to answer.

    Attributes:
        chunks: pieces of the body; an event between them is waited for.
        length: whether to say the body's length; else it is sent chunked, each piece as it stands.
        cut: break the connection off after the last piece, without an end.
        hang: after the last piece wait until the client has gone.
        before: waited for before the head is sent.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    chunks: Iterable[bytes | threading.Event] = ()
    length: bool = True
    cut: bool = False
    hang: bool = False
    before: threading.Event | None = None


Script = Answer | Callable[[Asked], Answer]


class Server:
    """Answers with `answers`, in order, the last one again and again; `asked` holds what came in."""

    def __init__(self, *answers: Script) -> None:
        self.answers: Sequence[Script] = answers
        self.asked: list[Asked] = []
        self.connections = 0
        self._lock = threading.Lock()
        self._http = _Http(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The base address of the API."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def spec(self) -> str:
        """A model string of this server."""
        return f"openai+{self.url}#m"

    def take(self, asked: Asked) -> Answer:
        """Keep a request and give its answer."""
        with self._lock:
            script = self.answers[min(len(self.asked), len(self.answers) - 1)]
            self.asked.append(asked)
        return script if isinstance(script, Answer) else script(asked)

    def close(self) -> None:
        """Stop, and wait for the threads of open connections."""
        self._http.shutdown()
        self._http.break_off()
        self._http.server_close()
        self._thread.join(PATIENCE_S)


class _Http(ThreadingHTTPServer):
    daemon_threads = False  # joined at the end, so that no connection outlives its test
    request_queue_size = 256

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def break_off(self) -> None:
        for request in list(self._open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is part of many tests."""


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            server.connections += 1

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            asked = Asked(
                path=self.path,
                headers={name.lower(): value for name, value in self.headers.items()},
                body=self.rfile.read(length),
                port=self.client_address[1],
            )
            self._answer(server.take(asked), asked)

        def _answer(self, answer: Answer, asked: Asked) -> None:
            try:
                if answer.before is not None:
                    self._wait(answer.before, asked)
                self._head(answer)
                self._body(answer, asked)
            except OSError:
                asked.gone.set()
                self.close_connection = True

        def _head(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.length:
                size = sum(len(chunk) for chunk in answer.chunks if isinstance(chunk, bytes))
                self.send_header("Content-Length", str(size))
            else:
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()

        def _body(self, answer: Answer, asked: Asked) -> None:
            for chunk in answer.chunks:
                if isinstance(chunk, threading.Event):
                    self._wait(chunk, asked)
                elif answer.length:
                    self.wfile.write(chunk)
                else:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            if answer.hang:
                self._until_gone(asked)
            if answer.cut or answer.hang:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            elif not answer.length:
                self.wfile.write(b"0\r\n\r\n")

        def _wait(self, event: threading.Event, asked: Asked) -> None:
            if not event.wait(PATIENCE_S):
                raise OSError("the event of the script never came")

        def _until_gone(self, asked: Asked) -> None:
            self.connection.settimeout(PATIENCE_S)
            if self.connection.recv(1) == b"":
                asked.gone.set()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class has it
            """Nothing on the terminal of the tests."""

    return Handler


@contextlib.contextmanager
def serving(*answers: Script) -> Iterator[Server]:
    """A server for the time of a `with`."""
    server = Server(*answers)
    try:
        yield server
    finally:
        server.close()


# What OpenAI-compatible servers say -----------------------------------------------------------------------------------


def as_json(value: Any, status: int = 200, **headers: str) -> Answer:
    """A JSON body. Underscores in the names of headers stand for hyphens."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    body = json.dumps(value).encode()
    return Answer(status=status, headers={"Content-Type": "application/json", **named}, chunks=(body,))


def completion(text: str | None = "Paris", **fields: Any) -> dict[str, Any]:
    """A chat completion; fields of the message and of the choice go where they belong."""
    message = {"role": "assistant", "content": text}
    for name in ("tool_calls", "refusal", "reasoning_content"):
        if name in fields:
            message[name] = fields.pop(name)
    choice = {"index": 0, "message": message, "finish_reason": fields.pop("finish_reason", "stop")}
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "m-1",
        "choices": [choice],
        "usage": usage,
    } | fields


def chunk(delta: Mapping[str, Any] | None = None, finish_reason: str | None = None, **fields: Any) -> bytes:
    """One event of a stream."""
    told = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m-1", **fields}
    if delta is not None:
        told["choices"] = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    return b"data: " + json.dumps(told).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


def words(*texts: str, done: bool = True) -> list[bytes]:
    """The events of a streamed text, with how it ended and its usage."""
    told = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": text}) for text in texts)]
    told += [chunk({}, "stop"), chunk(None, choices=[], usage=USAGE)]
    return [*told, DONE] if done else told


def streamed(*chunks: bytes | threading.Event, **fields: Any) -> Answer:
    """A stream of server-sent events."""
    return Answer(headers={"Content-Type": "text/event-stream"}, chunks=chunks, length=False, **fields)
