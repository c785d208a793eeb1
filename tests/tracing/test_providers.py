"""Whose TracerProvider makes the spans, and what OpenTelemetry's own switches do: each case is a program of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

BEGIN = """
import json
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from llmops_sdk import configure, flush, trace

def host():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    otel.set_tracer_provider(provider)
    return lambda: [span.name for span in exporter.get_finished_spans()]

def span(name):
    with trace.span(name) as made:
        return made

def stored():
    from llmops_sdk.errors import StoreError
    from llmops_sdk.settings import current_settings, find_home
    from llmops_sdk.tracing import TraceStore
    assert flush()
    try:
        return sorted(summary.name for summary in TraceStore(find_home(current_settings()) / "traces.db").traces())
    except StoreError:
        return []

told = {}
"""


def run(code: str, folder: Path, **variables: str) -> dict[str, Any]:
    """What a program puts into `told`. What it logs or warns of fails the test."""
    program = BEGIN + textwrap.dedent(code) + "\nprint(json.dumps(told))"
    environment = {**os.environ, "LLMOPS_HOME": str(folder / "home"), **variables}
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    answer: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return answer


def test_without_configure_the_global_provider_is_left_alone(tmp_path: Path) -> None:
    """A library that a host happens to import must not take its place."""
    code = """
        span("first")
        told["global"] = type(otel.get_tracer_provider()).__name__
        told["stored"] = stored()
    """
    assert run(code, tmp_path) == {"global": "ProxyTracerProvider", "stored": ["first"]}


def test_a_provider_that_the_host_sets_later_makes_the_following_spans(tmp_path: Path) -> None:
    """They reach the host's exporters and our store; what came before is in the store alone."""
    code = """
        span("before")
        exported = host()
        span("after")
        span("again")
        told["exported"], told["stored"] = exported(), stored()
    """
    told = run(code, tmp_path)
    assert told["exported"] == ["after", "again"]
    assert told["stored"] == ["after", "again", "before"]


def test_spans_of_the_host_are_in_our_store_too(tmp_path: Path) -> None:
    """One tree in one place, whoever made the parts of it."""
    code = """
        host()
        span("ours")
        otel.get_tracer("host").start_span("theirs").end()
        told["stored"] = stored()
    """
    assert run(code, tmp_path)["stored"] == ["ours", "theirs"]


def test_configure_makes_ours_the_global_one_if_none_is_set(tmp_path: Path) -> None:
    """Then every instrumentation of the process records into the store."""
    code = """
        configure(project="shop")
        otel.get_tracer("other").start_span("theirs").end()
        told["service"] = otel.get_tracer_provider().resource.attributes["service.name"]
        told["stored"] = stored()
        configure(project="shop", sample=0.0)
        told["unsampled"] = span("not kept").is_recording()
        configure(project="shop", sample=1.0)
        told["sampled"] = span("kept").span_id != ""
        told["then"] = stored()
    """
    told = run(code, tmp_path)
    assert told["service"] == "shop"
    assert told["stored"] == ["theirs"]
    assert (told["unsampled"], told["sampled"]) == (False, True)
    assert told["then"] == ["kept", "theirs"]


def test_configure_keeps_the_hosts_provider(tmp_path: Path) -> None:
    """Set by the host first, it stays, and OpenTelemetry does not complain of a second one."""
    code = """
        exported = host()
        provider = otel.get_tracer_provider()
        configure()
        span("s")
        told["same"] = otel.get_tracer_provider() is provider
        told["exported"], told["stored"] = exported(), stored()
    """
    assert run(code, tmp_path) == {"same": True, "exported": ["s"], "stored": ["s"]}


def test_a_provider_that_is_not_of_the_sdk_is_used_as_it_is(tmp_path: Path) -> None:
    """Some vendors bring their own; it takes no processors, and gets the spans."""
    code = """
        class Theirs(otel.TracerProvider):
            def get_tracer(self, *args, **kwargs):
                return otel.NoOpTracer()
        otel.set_tracer_provider(Theirs())
        told["recording"] = span("s").is_recording()
    """
    assert run(code, tmp_path) == {"recording": False}


def test_a_wrong_configure_changes_nothing(tmp_path: Path) -> None:
    """The settings in force stay."""
    code = """
        from llmops_sdk.errors import UsageError
        from llmops_sdk.settings import current_settings
        before = current_settings()
        for given in ({"colour": 1}, {"redact": "("}):
            try:
                configure(**given)
            except UsageError as error:
                told[next(iter(given))] = str(error)
        told["same"] = current_settings() is before
    """
    told = run(code, tmp_path)
    assert "no setting 'colour'" in told["colour"]
    assert "neither a regular expression nor a function" in told["redact"]
    assert told["same"]


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, {"stored": [], "ids": False}),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, {"stored": [], "ids": True}),
        ({"LLMOPS_SAMPLE": "0"}, {"stored": [], "ids": True}),
        ({"LLMOPS_STORE": "0"}, {"stored": [], "ids": True}),
        ({"LLMOPS_DISABLED": "1"}, {"stored": [], "ids": False}),
    ],
    ids=lambda value: next(iter(value)),
)
def test_switches_turn_recording_off_and_nothing_else(
    tmp_path: Path, variables: dict[str, str], told: dict[str, Any]
) -> None:
    """The decorated function works as before."""
    code = """
        @trace
        def double(x):
            return 2 * x
        assert double(4) == 8
        told["ids"] = span("s").span_id != ""
        told["stored"] = stored()
    """
    assert run(code, tmp_path, **variables) == told


def test_turned_off_it_still_passes_a_trace_on(tmp_path: Path) -> None:
    """A service that records nothing must not cut the trace of those around it."""
    code = """
        from llmops_sdk.tracing import attached, extract, inject
        headers = {}
        with attached(extract({"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"})), trace.span("s"):
            inject(headers)
        told["traceparent"] = headers["traceparent"]
    """
    assert run(code, tmp_path, LLMOPS_DISABLED="1") == {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}


def test_opentelemetrys_names_for_the_service_win(tmp_path: Path) -> None:
    """Over the project's name."""
    code = """
        configure(project="shop")
        told["service"] = otel.get_tracer_provider().resource.attributes["service.name"]
    """
    assert run(code, tmp_path, OTEL_SERVICE_NAME="till") == {"service": "till"}
    assert run(code, tmp_path, OTEL_RESOURCE_ATTRIBUTES="service.name=desk") == {"service": "desk"}


def test_spans_are_stored_when_the_program_ends(tmp_path: Path) -> None:
    """Without a flush: by the end of the program, by an exception, by sys.exit."""
    for number, end in enumerate(
        ("pass", "raise SystemExit(0)", "import atexit; atexit.register(lambda: span('at exit'))")
    ):
        folder = tmp_path / str(number)
        program = BEGIN + f"span('last')\n{end}"
        environment = {**os.environ, "LLMOPS_HOME": str(folder / "home")}
        subprocess.run([sys.executable, "-c", program], check=True, env=environment)
        wanted = ["at exit", "last"] if "atexit" in end else ["last"]
        assert run("told['stored'] = stored()", folder) == {"stored": wanted}


# Content on its way out ---------------------------------------------------------------------------------------------------


ASK = """
    from llmops_sdk import Message
    from llmops_sdk.testing import ScriptedModel
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    otel.set_tracer_provider(provider)
    from opentelemetry import _logs
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
    events = InMemoryLogRecordExporter()
    logs = LoggerProvider()
    logs.add_log_record_processor(SimpleLogRecordProcessor(events))
    _logs.set_logger_provider(logs)
    key = "sk-proj-" + "aB3dE6gH9jK2mN5pQ8rS1tU4vW7xY0zA"
    ScriptedModel(["An answer."], name="m").complete("A question with " + key)
    (made,) = exporter.get_finished_spans()
    told["attributes"] = {n: v for n, v in made.attributes.items() if n.startswith("gen_ai.") and "messages" in n}
    told["events"] = [[e.log_record.event_name, dict(e.log_record.attributes)] for e in events.get_finished_logs()]
    from llmops_sdk.tracing import TraceStore
    from llmops_sdk.settings import current_settings, find_home
    flush()
    store = TraceStore(find_home(current_settings()) / "traces.db")
    (kept,) = store.spans(store.traces()[0].trace_id)
    told["payload"] = sorted(kept.payload)
    told["doubled"] = [n for n in kept.attributes if "messages" in n]
"""
VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


def test_content_stays_here_unless_it_is_let_out(tmp_path: Path) -> None:
    """The local store has it, the host's exporters have not."""
    told = run(ASK, tmp_path)
    assert told["attributes"] == {}
    assert told["events"] == []
    assert told["payload"] == ["input_messages", "output_messages"]


@pytest.mark.parametrize(
    ("policy", "on_span", "on_event"),
    [("true", True, False), ("SPAN_ONLY", True, False), ("EVENT_ONLY", False, True), ("SPAN_AND_EVENT", True, True)],
)
def test_content_goes_where_the_policy_says(tmp_path: Path, policy: str, on_span: bool, on_event: bool) -> None:
    """As attributes of the span, as a log event, or both: redacted, and once in the store."""
    told = run(ASK, tmp_path, **{VARIABLE: policy})
    names = {"gen_ai.input.messages", "gen_ai.output.messages"}
    assert set(told["attributes"]) == (names if on_span else set())
    assert [name for name, _ in told["events"]] == (["gen_ai.client.inference.operation.details"] if on_event else [])
    for content in (told["attributes"], *(attributes for _, attributes in told["events"])):
        if content:
            (message,) = json.loads(content["gen_ai.input.messages"])
            assert message["role"] == "user"
            assert "A question with" in message["parts"][0]["content"]
            assert "sk-proj-" not in message["parts"][0]["content"]
    assert told["payload"] == ["input_messages", "output_messages"]
    assert told["doubled"] == []
