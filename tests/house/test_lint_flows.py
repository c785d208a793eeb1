"""Our own lint: a `yield` in `finally` of a flow, or where GeneratorExit is caught, is an error."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmops_sdk.errors import FlowCancelled

ROOT = Path(__file__).resolve().parents[2]
LINT = ROOT / "scripts/lint_flows.py"

TRY = "def flow():\n    try:\n        pass\n    finally:\n"
EXCEPT = "def flow():\n    try:\n        pass\n    except{}:\n        yield 2\n"
BAD = {
    "yield": TRY + "        yield 2\n",
    "yield from": TRY + "        yield from other()\n",
    "answer of a yield": TRY + "        x = (yield 2)\n",
    "deep in the block": TRY + "        if x:\n            with y:\n                yield 2\n",
    "a try inside the finally": TRY + "        try:\n            yield 2\n        except E:\n            pass\n",
    "a finally inside the finally": TRY + "        try:\n            pass\n        finally:\n            yield 2\n",
    "except*": "def flow():\n    try:\n        pass\n    except* E:\n        pass\n    finally:\n        yield 2\n",
    "a method": "class M:\n    def flow(self):\n        try:\n            pass\n        finally:\n            yield 2\n",
    "async": "async " + TRY + "        yield 2\n",
    "the tree of a match": TRY + "        match x:\n            case 1:\n                yield 2\n",
}
CAUGHT = {
    "bare except": EXCEPT.format(""),
    "BaseException": EXCEPT.format(" BaseException"),
    "GeneratorExit": EXCEPT.format(" GeneratorExit"),
    "one of several": EXCEPT.format(" (ValueError, GeneratorExit) as e"),
    "by its module": EXCEPT.format(" builtins.BaseException"),
    "after another": EXCEPT.format(" FlowCancelled:\n        raise\n    except BaseException"),
}
GOOD = {
    "FlowCancelled": EXCEPT.format(" FlowCancelled"),
    "Exception and FlowCancelled": EXCEPT.format(" (FlowCancelled, Exception)"),
    "GeneratorExit dealt with before": EXCEPT.format(" GeneratorExit:\n        raise\n    except BaseException"),
    "no finally": "def flow():\n    try:\n        yield 1\n    except E:\n        yield 2\n        raise\n",
    "finally without yield": "def flow():\n    try:\n        yield 1\n    finally:\n        close()\n",
    "another function in the finally": TRY + "        def inner():\n            yield 2\n",
    "a lambda in the finally": TRY + "        f = lambda: (yield)\n",
    "finally first, yield after it": TRY + "        close()\n    yield 2\n",
}


def lint(*paths: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, LINT, *paths], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("code", BAD.values(), ids=BAD)
def test_a_yield_in_finally_is_named_once_with_its_line(code: str, tmp_path: Path) -> None:
    """However deep it stands, the lint names it and fails."""
    sample = tmp_path / "sample.py"
    sample.write_text(code, encoding="utf-8")
    told = lint(tmp_path)
    line = next(number for number, text in enumerate(code.splitlines(), 1) if "yield" in text)
    assert told.returncode == 1
    assert told.stdout.count("a flow yields in `finally`") == 1
    assert f"{sample}:{line}:" in told.stdout


@pytest.mark.parametrize("code", CAUGHT.values(), ids=CAUGHT)
def test_a_yield_where_close_is_caught_is_named(code: str, tmp_path: Path) -> None:
    """Python raises GeneratorExit there as well, and the generator ignores it."""
    (tmp_path / "sample.py").write_text(code, encoding="utf-8")
    told = lint(tmp_path)
    assert told.returncode == 1
    assert told.stdout.count("where GeneratorExit is caught") == 1


def test_what_the_lint_names_breaks_close_and_what_it_passes_does_not(tmp_path: Path) -> None:
    """Python itself agrees with the lint on every sample that it can run."""
    for code in (*CAUGHT.values(), *(GOOD[name] for name in ("FlowCancelled", "GeneratorExit dealt with before"))):
        namespace: dict[str, Any] = {"FlowCancelled": FlowCancelled, "builtins": builtins}
        exec(code.replace("        pass\n", "        yield 1\n", 1), namespace)
        flow = namespace["flow"]()
        next(flow)
        (tmp_path / "sample.py").write_text(code, encoding="utf-8")
        if lint(tmp_path).returncode == 0:
            flow.close()
        else:
            with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
                flow.close()
            list(flow)


@pytest.mark.parametrize("code", GOOD.values(), ids=GOOD)
def test_what_is_sound_passes(code: str, tmp_path: Path) -> None:
    """A `finally` without yields, and functions defined in one, are fine."""
    (tmp_path / "sample.py").write_text(code, encoding="utf-8")
    assert lint(tmp_path).returncode == 0


def test_without_a_path_it_says_how_it_is_used() -> None:
    """Checking nothing is not success."""
    told = lint()
    assert told.returncode == 2
    assert "FILE_OR_FOLDER" in told.stderr
