"""OTLP over HTTP to a real server on this machine, and the exporter that redacts for hosts of their own."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanKind, StatusCode

from llmops_sdk.tracing import RedactingExporter

KEY = "sk-proj-" + "aB3dE6gH9jK2mN5pQ8rS1tU4vW7xY0zA"


class Collector(ThreadingHTTPServer):
    """Takes traces as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), CollectorHandler)
        self.paths: list[str] = []
        self.spans: list[Any] = []
        self.address = f"http://127.0.0.1:{self.server_port}"


class CollectorHandler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        collector = self.server
        assert isinstance(collector, Collector)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        told = ExportTraceServiceRequest.FromString(body)
        collector.paths.append(self.path)
        collector.spans += [s for r in told.resource_spans for scope in r.scope_spans for s in scope.spans]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(code: str, folder: Path, **variables: str) -> None:
    environment = {**os.environ, "LLMOPS_HOME": str(folder / "home"), **variables}
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=environment)


@pytest.mark.parametrize("how", ["configure", "LLMOPS_OTLP", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_spans_are_sent_by_the_end_of_the_program(collector: Collector, tmp_path: Path, how: str) -> None:
    """By our setting, by our variable, and by OpenTelemetry's; redacted; content stays here."""
    given = f"configure(otlp={collector.address!r})" if how == "configure" else ""
    code = f"""
from llmops_sdk import configure, trace
from llmops_sdk.testing import ScriptedModel
{given}
with trace.span("outer", header="Bearer {KEY}"):
    ScriptedModel(["an answer"], name="m").complete("a question")
"""
    variables = {} if how == "configure" else {how: collector.address}
    run(code, tmp_path, **variables)
    assert sorted(span.name for span in collector.spans) == ["chat m", "outer"]
    assert set(collector.paths) == {"/v1/traces"}
    told = str(collector.spans)
    assert KEY not in told
    assert "a question" not in told
    assert "gen_ai.request.model" in told


def test_a_collector_that_is_away_costs_the_program_nothing(tmp_path: Path) -> None:
    """No exception, and the spans are in the store."""
    code = """
from llmops_sdk import configure, flush, trace
from llmops_sdk.tracing import TraceStore
settings = configure(otlp="http://127.0.0.1:9")
with trace.span("s"):
    pass
flush(0.1)
assert [t.name for t in TraceStore(settings.home / "traces.db").traces()] == ["s"]
import os
os._exit(0)  # what is left to send is tried for some seconds more
"""
    run(code, tmp_path)


def test_the_redacting_exporter_leaves_everything_else_as_it_is() -> None:
    """Names, ids, times, parents, links, kinds, events, status: what is no secret is not touched."""
    plain, redacted = InMemorySpanExporter(), InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(plain))
    provider.add_span_processor(SimpleSpanProcessor(RedactingExporter(redacted, redact=[r"\d{4}"])))
    tracer = provider.get_tracer("t")
    other = tracer.start_span("other")
    span = tracer.start_span(
        "name", kind=SpanKind.CLIENT, attributes={"a": 1, "b": [True], "c": "x"}, links=[Link(other.get_span_context())]
    )
    span.add_event("e", {"n": 1.5}, timestamp=7)
    span.set_status(StatusCode.ERROR, "why")
    span.end()
    secret = tracer.start_span(f"n {KEY}", attributes={"k": KEY, "l": [KEY, "1234"]})
    secret.add_event("e", {"k": KEY})
    secret.set_status(StatusCode.ERROR, KEY)
    secret.end()
    assert plain.get_finished_spans()[0].to_json() == redacted.get_finished_spans()[0].to_json()
    assert KEY not in redacted.get_finished_spans()[1].to_json()
    assert "1234" not in str(redacted.get_finished_spans()[1].attributes)
    provider.shutdown()
