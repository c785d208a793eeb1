"""What each import loads, by module set: milliseconds are for tests/benchmarks/import_cost.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "starlette", "uvicorn", "typer", "click", "rich", "usearch", "diskcache", "tiktoken"}


def loaded_by(statement: str, folder: Path) -> set[str]:
    """The modules that a statement loads in a fresh interpreter, over what a bare one has."""
    told = "import json\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    code = f"import sys\nbefore = set(sys.modules)\n{statement}\n{told}"
    # Coverage measures subprocesses by importing itself into them: these must be bare.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=folder
    )
    return set(json.loads(ended.stdout))


def packages(modules: set[str]) -> set[str]:
    """The top-level names that are not of the standard library."""
    return {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {"json"}


def test_the_package_itself_loads_next_to_nothing(tmp_path: Path) -> None:
    """`import llmops_sdk` loads no third party, and none of its own rooms."""
    modules = loaded_by("import llmops_sdk", tmp_path)
    assert packages(modules) == {"llmops_sdk"}
    assert {module for module in modules if module.startswith("llmops_sdk")} == {"llmops_sdk"}
    assert not modules & {"asyncio", "dataclasses", "inspect", "pathlib", "logging"}


def test_trace_loads_opentelemetry_and_no_more(tmp_path: Path) -> None:
    """A program that only traces pays for OpenTelemetry alone."""
    modules = loaded_by("from llmops_sdk import trace", tmp_path)
    baseline = loaded_by("from opentelemetry.sdk import trace", tmp_path)
    assert packages(modules) - packages(baseline) == {"llmops_sdk"}
    assert not modules & {"pydantic", "httpx", "numpy", "asyncio"}


@pytest.mark.parametrize(
    "statement",
    [
        "from llmops_sdk import trace, prompt, model, retrieve, guard",
        "import llmops_sdk\nfor name in llmops_sdk.__all__: getattr(llmops_sdk, name)",
        "import llmops_sdk.testing",
        "from llmops_sdk.guards import *",
    ],
    ids=["decorators", "every public name", "testing", "guards"],
)
def test_heavy_packages_wait_for_their_first_use(statement: str, tmp_path: Path) -> None:
    """No public name loads torch, a server, the command line or an index."""
    assert not packages(loaded_by(statement, tmp_path)) & HEAVY


def test_the_command_line_starts_without_what_its_commands_need(tmp_path: Path) -> None:
    """`llmops --help` is for the fingers: it loads no HTTP client, no array library and no tracing."""
    modules = loaded_by("from llmops_sdk.cli import build_app\nbuild_app()", tmp_path)
    assert not modules & {"torch", "transformers", "httpx", "numpy", "pydantic", "opentelemetry.sdk", "asyncio"}


def test_the_pytest_plugin_costs_other_projects_nothing(tmp_path: Path) -> None:
    """It loads in every pytest run of every project beside the SDK: only the package's own two modules come with it."""
    modules = loaded_by("import pytest\nbefore = set(sys.modules)\nimport llmops_sdk.pytest_plugin", tmp_path)
    assert {module for module in modules if module.partition(".")[0] not in sys.stdlib_module_names} == {
        "llmops_sdk",
        "llmops_sdk.pytest_plugin",
    }


def test_a_name_that_is_not_there_says_so() -> None:
    """The lazily bound package answers like any other."""
    import llmops_sdk

    with pytest.raises(AttributeError, match="'llmops_sdk' has no attribute 'promt'"):
        _ = llmops_sdk.promt


def test_every_public_name_is_bound_and_listed() -> None:
    """`dir()` and `__all__` name what can be imported."""
    import llmops_sdk

    for name in llmops_sdk.__all__:
        assert getattr(llmops_sdk, name) is not None
    assert set(llmops_sdk.__all__) <= set(dir(llmops_sdk))
