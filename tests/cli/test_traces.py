"""`llmops traces`, as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmops_sdk import Cached, ExactCache, Response, Usage, flush, trace, using
from llmops_sdk.cli import build_app
from llmops_sdk.testing import ScriptedModel


def llmops(*words: str, status: int = 0) -> str:
    """What a command prints, wide enough for every column."""
    result = CliRunner(env={"COLUMNS": "160"}).invoke(build_app(), words)
    assert result.exit_code == status, result.output
    return result.output


@pytest.fixture
def trace_id() -> str:
    """A stored trace: a question, its answer, and an error."""

    @trace
    def ask() -> str:
        with pytest.raises(ValueError), trace.span("look \x1b[31mup"):
            raise ValueError("no [bold]such[/] city")
        ScriptedModel(["Paris"], name="m").complete("The capital of France?")
        with trace.span("here") as span:
            return span.trace_id

    with using(session="s1"):
        made = ask()
    assert flush()
    return made


def test_the_list_has_one_line_a_trace(trace_id: str) -> None:
    """With what one looks for: when, what, how long, how it went."""
    told = llmops("traces", "list")
    assert trace_id[:8] in told
    assert "ask" in told
    assert "1 error" in told


def test_the_list_as_json_is_for_programs(trace_id: str) -> None:
    """Whole ids, numbers as numbers."""
    (summary,) = json.loads(llmops("traces", "list", "--json"))
    assert summary["trace_id"] == trace_id
    assert (summary["name"], summary["spans"], summary["errors"], summary["session"]) == ("ask", 4, 1, "s1")


def test_the_list_is_narrowed(trace_id: str) -> None:
    """By errors, by session, by number."""
    with trace.span("fine"):
        pass
    assert flush()
    assert len(json.loads(llmops("traces", "list", "--json"))) == 2
    assert len(json.loads(llmops("traces", "list", "--json", "--errors"))) == 1
    assert len(json.loads(llmops("traces", "list", "--json", "--session", "s1"))) == 1
    assert len(json.loads(llmops("traces", "list", "--json", "-n", "1"))) == 1
    assert "No trace fits" in llmops("traces", "list", "--session", "nobody")


def test_a_trace_is_shown_as_a_tree(trace_id: str) -> None:
    """Spans under their parents; attributes and content only when asked."""
    told = llmops("traces", "show", trace_id[:8])
    lines = told.splitlines()
    depth = {name: next(line.index(name) for line in lines if name in line) for name in ("ask", "chat m", "here")}
    assert depth["ask"] < depth["chat m"] == depth["here"]
    assert "gen_ai.request.model" not in told
    assert "gen_ai.request.model m" in llmops("traces", "show", trace_id, "--attributes")
    assert "France" not in told
    assert "France" in llmops("traces", "show", trace_id, "--content")


def test_a_narrow_terminal_loses_no_column(trace_id: str) -> None:
    """At 80 columns only the name is cut."""
    with trace.span("a name that is far too long for any column of any table that one could wish for"):
        pass
    assert flush()
    result = CliRunner(env={"COLUMNS": "80"}).invoke(build_app(), ["traces", "list"])
    head, *lines = result.output.splitlines()
    assert head.split() == ["trace", "started", "name", "s", "spans", "tokens", "$"]
    assert max(map(len, lines)) <= 80
    assert any("1 error" in line for line in lines)


def test_a_span_says_what_it_took_and_what_was_decided(llmops_home: Path) -> None:
    """On its own line, so that a trace reads top to bottom."""
    answer = Response.of("Paris", usage=Usage(input_tokens=7, output_tokens=2), cost_usd=0.5)
    model = Cached(ScriptedModel([answer], name="m"), cache=ExactCache())
    for result in ("miss", "hit"):
        with trace.span(f"a {result}") as span:
            model.complete("q")
        assert flush()
        told = llmops("traces", "show", span.trace_id)
        assert f"cache {result}" in told
        assert ("7+2 tokens  $0.500000" in told) == (result == "miss")


def test_a_home_that_cannot_be_entered_is_told(llmops_home: Path, tmp_path: Path) -> None:
    """Not as a traceback of pathlib."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = CliRunner(env={"LLMOPS_HOME": str(tmp_path / "file" / "home")}).invoke(build_app(), ["doctor"])
    assert "broken" in result.output
    assert result.exit_code == 1


def test_texts_of_a_span_cannot_steer_the_terminal(trace_id: str) -> None:
    """Neither escape sequences nor the markup of the library that prints."""
    told = llmops("traces", "show", trace_id)
    assert "\x1b[31m" not in told
    assert "look \\x1b[31mup" in told
    assert "no [bold]such[/] city" in told


def test_a_trace_as_json_has_everything(trace_id: str) -> None:
    """Payload included: whoever pipes it has the file anyway."""
    spans = json.loads(llmops("traces", "show", trace_id, "--json"))
    assert {span["name"] for span in spans} == {"ask", "look \x1b[31mup", "chat m", "here"}
    (chat,) = [span for span in spans if span["name"] == "chat m"]
    assert chat["payload"]["output_messages"][0]["parts"][0]["content"] == "Paris"


def test_errors_are_one_line_and_exit_status_1(llmops_home: Path) -> None:
    """No traceback for what the user can mend."""
    ended = subprocess.run(
        [sys.executable, "-c", "from llmops_sdk.cli import main; main()", "traces", "list"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("llmops: There is no trace store at")
