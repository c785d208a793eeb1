"""The examples, as a newcomer runs them: each is a program of its own, in an empty folder, without a network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from http_server import as_json, completion, serving

from llmops_sdk.settings import find_home, load_settings
from llmops_sdk.tracing import TraceStore

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = pytest.mark.weights


def run(name: str, folder: Path, *words: str, **variables: str) -> str:
    """What an example prints; its home is in `folder`."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    environment |= {"LLMOPS_HOME": str(folder / "home"), "LLMOPS_NETWORK": "loopback", "COLUMNS": "200", **variables}
    ended = subprocess.run(
        [sys.executable, EXAMPLES / name, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def rows(table: str) -> list[list[str]]:
    """The cells of a table that was printed with lines between its rows."""
    found: list[list[str]] = [[]]
    for line in table.splitlines():
        if line.startswith("├"):
            found.append([])
        elif line.startswith("│"):
            cells = [cell.strip() for cell in line.strip("│").split("│")]
            found[-1] = [" ".join(pair).strip() for pair in zip(found[-1] or [""] * len(cells), cells, strict=True)]
    return found


def test_ask_stdlib_answers_with_a_model_in_its_own_process(tmp_path: Path) -> None:
    """A dozen questions: one from the cache, one blocked, one unanswered, the others by the model; each is a trace."""
    told = rows(run("ask_stdlib.py", tmp_path))
    assert len(told) == 12
    by_note = {note[1]: row for row in told if (note := re.search(r"\((.+)\)$", row[0]))}
    assert {row[3] for row in told if "(" not in row[0]} == {"no"}
    first = next(row for row in told if row[0] == "What does bisect.insort do?")
    again = by_note["asked before"]
    assert (again[1], again[3], again[5]) == (first[1], "yes", "0 + 0")
    assert by_note["a paraphrase, which an exact cache does not know"][3] == "no"
    assert by_note["a prompt injection"][4].startswith("blocked")
    assert by_note["in no docstring"][1] == "Not in these docstrings."
    sources = [row[2].replace(" ", "") for row in told]  # a long one is folded
    assert all(re.search(r"^[\w.]+\d+-\d+\(0\.\d\d\)$", source) for source in sources)
    home = find_home(load_settings(home=tmp_path / "home"))
    stored = TraceStore(home / "traces.db").traces(limit=100, session=None)
    assert {summary.trace_id[:8] for summary in stored if summary.name == "ask"} == {row[6] for row in told}


def test_ask_stdlib_asks_a_provider_with_a_key(tmp_path: Path) -> None:
    """The same file, another model string: every question that passes the guard is asked over HTTP, once."""
    with serving(
        lambda asked: as_json(completion(f"Answer to {asked.json['messages'][-1]['content'][-20:]}"))
    ) as server:
        told = rows(
            run(
                "ask_stdlib.py",
                tmp_path,
                "--model",
                "openai:gpt-5-mini",
                OPENAI_API_KEY="sk-test",
                OPENAI_BASE_URL=server.url,
            )
        )
    assert len(server.asked) == 9
    assert {asked.headers["authorization"] for asked in server.asked} == {"Bearer sk-test"}
    assert {asked.json["model"] for asked in server.asked} == {"gpt-5-mini"}
    assert sum(row[1].startswith("Answer to") for row in told) == 10
    assert "sk-test" not in json.dumps(told)


def test_every_example_is_run_here() -> None:
    """One that is added without a test fails this one."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"ask_stdlib.py"}
