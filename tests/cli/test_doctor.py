"""`llmops doctor`: every finding, sound and broken, with its exit status."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmops_sdk import flush, trace
from llmops_sdk.cli import build_app
from llmops_sdk.tracing.store import FILE


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.endswith("_API_KEY") or name.startswith("OTEL_"):
            monkeypatch.delenv(name)


def examine() -> tuple[int, dict[str, Any]]:
    """The exit status and the findings by name."""
    result = CliRunner().invoke(build_app(), ["doctor", "--json"])
    return result.exit_code, {finding["name"]: finding for finding in json.loads(result.output)}


def test_a_new_installation_is_sound() -> None:
    """What is optional and not there is absent, not broken."""
    status, found = examine()
    assert status == 0
    assert found["python"]["state"] == found["packages"]["state"] == found["home"]["state"] == "ok"
    assert platform.python_version() in found["python"]["detail"]
    assert "pydantic" in found["packages"]["detail"]
    assert found["store"]["state"] == "absent"
    assert found["OPENAI_API_KEY"] == {"name": "OPENAI_API_KEY", "state": "absent", "detail": "not set", "advice": ""}


def test_the_store_is_counted(llmops_home: Path) -> None:
    """Spans and traces that a program has left."""
    with trace.span("a"), trace.span("b"):
        pass
    with trace.span("c"):
        pass
    assert flush()
    status, found = examine()
    assert status == 0
    assert found["store"]["state"] == "ok"
    assert f"{llmops_home / FILE}: 3 spans of 2 traces" in found["store"]["detail"]


def test_looking_changes_nothing(llmops_home: Path) -> None:
    """Neither a home nor a store is made by asking about them."""
    before = sorted(llmops_home.rglob("*"))
    examine()
    assert sorted(llmops_home.rglob("*")) == before


def broken_page(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE spans (trace_id TEXT, span_id TEXT, filler TEXT)")
        connection.executemany("INSERT INTO spans VALUES (?, ?, ?)", [(str(n), "s", "x" * 500) for n in range(200)])
        connection.execute("CREATE INDEX i ON spans (trace_id)")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    content = bytearray(path.read_bytes())
    content[8192:40960] = b"\xff" * (40960 - 8192)
    path.write_bytes(content)


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()


def newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def no_database(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 100)


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "why", "advice"),
    [
        (broken_page, "damaged", "Move the file away"),
        (no_database, "cannot be read", "Move the file away"),
        (folder, "cannot be read", "Move the file away"),
        (foreign, "of format 0", "LLMOPS_HOME"),
        (newer, "of format 99", "Upgrade"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_store_that_cannot_be_used_is_broken(damage: Any, why: str, advice: str, llmops_home: Path) -> None:
    """With what to do about it, and exit status 1."""
    llmops_home.mkdir(exist_ok=True)
    damage(llmops_home / FILE)
    status, found = examine()
    assert status == 1
    assert found["store"]["state"] == "broken"
    assert why in found["store"]["detail"]
    assert advice in found["store"]["advice"]


def test_a_home_that_is_a_file_is_broken(llmops_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Traces would be lost without a word otherwise."""
    (tmp_path / "file").touch()
    found = json.loads(run("doctor", "--json", LLMOPS_HOME=str(tmp_path / "file")).stdout)
    home = next(finding for finding in found if finding["name"] == "home")
    assert home["state"] == "broken"
    assert "LLMOPS_HOME" in home["advice"]


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The real command line, in a process of its own."""
    code = "from llmops_sdk.cli import main; main()"
    environment = {**os.environ, "COLUMNS": "160", **variables}
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, env=environment
    )


def test_no_secret_is_shown(tmp_path: Path) -> None:
    """Keys, headers, and what stands in an address are named without their values."""
    ended = run(
        "doctor",
        LLMOPS_HOME=str(tmp_path),
        OPENAI_API_KEY="sk-very-secret",
        OTEL_EXPORTER_OTLP_HEADERS="authorization=very-secret",
        OTEL_EXPORTER_OTLP_ENDPOINT="https://user:very-secret@collector.example/v1?token=very-secret",
        LLMOPS_OTLP="http://very-secret@collector.example:4318",
    )
    assert ended.returncode == 0, ended.stderr
    assert "very-secret" not in ended.stdout
    shown = " ".join(ended.stdout.split())
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=https://…@collector.example/v1?…" in shown
    assert "OPENAI_API_KEY ok set" in shown


def test_a_setting_that_cannot_be_ends_the_examination(tmp_path: Path) -> None:
    """What depends on settings cannot be looked at; the reason is a finding, not a traceback."""
    ended = run("doctor", "--json", LLMOPS_HOME=str(tmp_path), LLMOPS_SAMPLE="7")
    assert ended.returncode == 1
    last = json.loads(ended.stdout)[-1]
    assert (last["name"], last["state"]) == ("settings", "broken")
    assert "sample must be between 0 and 1" in last["detail"]


def test_the_table_keeps_brackets(tmp_path: Path) -> None:
    """A path or a command with brackets is no markup."""
    home = tmp_path / "[red]home[/nothing]"
    ended = run("doctor", LLMOPS_HOME=str(home))
    assert ended.returncode == 0, ended.stderr
    assert "[red]home[/nothing]" in "".join(ended.stdout.split())


def test_the_version_and_the_help_are_there() -> None:
    """The first things that fingers type; a wrong command ends with 2."""
    from llmops_sdk import __version__

    assert run("--version").stdout.strip() == __version__
    told = run("--help")
    assert told.returncode == 0
    for word in ("doctor", "models", "traces"):
        assert word in told.stdout
    assert run("nothing").returncode == 2
