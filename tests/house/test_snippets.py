"""What README and docs show is executed: the Python blocks of a page, in order, in one namespace, without a network.

A page whose blocks define tests is run by pytest. A block that cannot run here stands after a comment that says why:
`<!-- no-run: needs a key -->`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmops_sdk.cli import build_app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?:<!-- no-run: (?P<why>.+) -->\n+)?```(?P<language>[\w-]*)[^\n]*\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


def blocks(page: Path, *languages: str) -> list[re.Match[str]]:
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [block for block in found if block["language"] in languages]


def program(page: Path) -> str:
    """The page as one program: its blocks stand on the lines where they stand in the page."""
    text = page.read_text(encoding="utf-8")
    lines = [""] * (text.count("\n") + 1)
    for block in blocks(page, "python"):
        if block["why"] is None:
            first = text.count("\n", 0, block.start("code"))
            code = block["code"].splitlines()
            lines[first : first + len(code)] = code
    return "\n".join(lines)


def pages_with_python() -> list[object]:
    """Pages whose program asks a local model need its weights."""
    return [
        pytest.param(
            page, id=str(page.relative_to(ROOT)), marks=[pytest.mark.weights] if "local:" in program(page) else []
        )
        for page in PAGES
        if program(page).strip()
    ]


@pytest.mark.parametrize("page", pages_with_python())
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """Copying a page's blocks into a file gives a program that works."""
    code = program(page)
    file = tmp_path / "test_page.py"
    file.write_text(code, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "an-app"\nversion = "1"\n', encoding="utf-8")
    runner = (
        ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
        if re.search(r"^(async )?def test_", code, re.MULTILINE)
        else []
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    environment |= {"LLMOPS_HOME": str(tmp_path / "home"), "LLMOPS_NETWORK": "loopback"}
    told = subprocess.run(
        [sys.executable, *runner, file], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, f"{page.relative_to(ROOT)}\n{told.stdout}\n{told.stderr}"


def commands() -> list[tuple[str, ...]]:
    """Every `llmops …` command of the pages, without its options and arguments."""
    found = set()
    for page in PAGES:
        for block in blocks(page, "console", "bash", "sh"):
            for line in re.findall(r"^(?:\$ )?(?:\.venv/bin/)?llmops((?: [a-z]+)+)", block["code"], re.MULTILINE):
                found.add(tuple(line.split()[:2]) if line.split()[0] in ("traces", "models") else (line.split()[0],))
    return sorted(found)


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_the_commands_of_the_pages_exist(command: tuple[str, ...]) -> None:
    """No page names a command that the command line does not know."""
    result = CliRunner().invoke(build_app(), [*command, "--help"])
    assert result.exit_code == 0, result.output


def test_the_pages_show_something() -> None:
    """The two tests above would pass on an empty manual."""
    assert len(pages_with_python()) > 5
    assert ("traces", "list") in commands()
