"""However a program is started, and wherever it lies, its prompts keep name and hash."""

from __future__ import annotations

import compileall
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from .conftest import copied

TELL = """
import json
from desk.app import Desk, answer
print(json.dumps({p.version.name: [p.version.hash, p.version.signature_hash] for p in (answer, Desk.ask)}))
"""

# A program in two files, one of them started.
PROGRAM = '''
import json
from dataclasses import dataclass

from llmops_sdk import prompt
from llmops_sdk.testing import ScriptedModel

import program_texts


@dataclass
class Style:
    tone: str = "calm"


STYLE = Style()


@prompt(model=ScriptedModel([], name="m"), output=Style)
def answer(question: str) -> str:
    """You answer."""
    return f"{STYLE.tone} {program_texts.greeting()} {question}"


def tell() -> None:
    version = answer.version
    print(json.dumps([version.name, version.hash, version.signature_hash, version.opaque]))


if __name__ == "__main__":
    tell()
'''
TEXTS = """
GREETING = "Hello."


def greeting() -> str:
    return GREETING
"""


def run(*arguments: str | Path, cwd: Path, **environment: str) -> Any:
    """What a fresh Python prints as JSON."""
    told = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"LLMOPS_STORE": "0"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


def program(folder: Path, inside: str = "", name: str = "program") -> Path:
    """The program in a project of its own."""
    place = folder / inside
    place.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text('[project]\nname = "program"\nversion = "1"\n', encoding="utf-8")
    (place / f"{name}.py").write_text(PROGRAM, encoding="utf-8")
    (place / "program_texts.py").write_text(TEXTS, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def imported_program(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Name, hash, signature and opaque names of the program when it is imported."""
    folder = program(tmp_path_factory.mktemp("imported"))
    return run("-c", "import program; program.tell()", cwd=folder)


def test_every_python_gives_the_committed_hashes(base: Mapping[str, Any]) -> None:
    """Whoever changes one changes the version of every prompt of every user."""
    committed = json.loads((Path(__file__).parent / "golden" / "desk.json").read_text(encoding="utf-8"))
    assert {name: version.hash for name, version in base.items()} == committed


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ([], {"PYTHONHASHSEED": "1"}),
        ([], {"PYTHONHASHSEED": "2"}),
        (["-O"], {}),
        (["-OO"], {}),
        (["-B", "-X", "dev", "-X", "utf8"], {}),
    ],
    ids=["hash seed 1", "hash seed 2", "-O", "-OO", "development mode"],
)
def test_how_python_runs_is_no_part_of_a_version(
    options: list[str], environment: dict[str, str], base: Mapping[str, Any], tmp_path: Path
) -> None:
    """Sets have other orders, docstrings are gone, addresses move: the versions stay."""
    folder = copied(tmp_path / "a folder with spaces")
    expected = {version.name: [version.hash, version.signature_hash] for version in base.values()}
    assert run(*options, "-c", TELL, cwd=folder, **environment) == expected


def test_the_working_directory_is_no_part_of_a_version(base: Mapping[str, Any], tmp_path: Path) -> None:
    """Nor is another project that it may be in."""
    folder, other = copied(tmp_path / "one"), tmp_path / "two"
    other.mkdir()
    (other / "pyproject.toml").write_text('[tool.llmops]\nfirst_party = ["pydantic"]\n', encoding="utf-8")
    told = run("-c", TELL, cwd=other, PYTHONPATH=str(folder))
    assert {name: hashes[0] for name, hashes in told.items()} == {v.name: v.hash for v in base.values()}


@pytest.mark.parametrize("start", ["script", "script from elsewhere", "module", "package"])
def test_a_started_file_is_named_as_others_would_import_it(start: str, imported_program: Any, tmp_path: Path) -> None:
    """`python program.py`, `python -m program` and `import program` are one; `__main__` is no name."""
    folder = program(tmp_path / "app", "pkg" if start == "package" else "")
    if start == "package":
        (folder / "pkg" / "__init__.py").touch()
        told = run("-m", "pkg.program", cwd=folder, PYTHONPATH=str(folder / "pkg"))
        assert told == ["pkg.program.answer", *imported_program[1:]]
    elif start == "module":
        assert run("-m", "program", cwd=folder) == imported_program
    elif start == "script":
        assert run("program.py", cwd=folder) == imported_program
    else:
        assert run(folder / "program.py", cwd=tmp_path) == imported_program


def test_a_renamed_file_keeps_its_hash(imported_program: Any, tmp_path: Path) -> None:
    """Only the name is another."""
    folder = program(tmp_path / "app", name="renamed")
    assert run("renamed.py", cwd=folder) == ["renamed.answer", *imported_program[1:]]


def test_a_wheel_and_a_checkout_are_one(imported_program: Any, tmp_path: Path) -> None:
    """What is installed is known by its RECORD: all of its top-level modules are the project's own."""
    site = tmp_path / "environment" / "site-packages"
    program(site)
    (site / "pyproject.toml").unlink()
    info = site / "the_program-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: the-program\nVersion: 1.0\n", encoding="utf-8")
    record = ["program.py", "program_texts.py", *(f"{info.name}/{file}" for file in ("METADATA", "RECORD"))]
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in record), encoding="utf-8")
    tell = "import program; program.tell()"
    assert run("-c", tell, cwd=tmp_path, PYTHONPATH=str(site)) == imported_program
    checkout = program(tmp_path / "checkout", "src")
    assert run("-c", tell, cwd=tmp_path, PYTHONPATH=str(checkout / "src")) == imported_program


def test_code_without_source_is_named_opaque(imported_program: Any, tmp_path: Path) -> None:
    """A program that ships only bytecode has a version of its own, which says what it does not cover."""
    folder = program(tmp_path / "app")
    compileall.compile_dir(folder, quiet=1, legacy=True)
    (folder / "program.py").unlink()
    name, told, _, opaque = run("-c", "import program; program.tell()", cwd=folder)
    assert name == imported_program[0]
    assert told != imported_program[1]
    assert "program.answer" in opaque


# What a notebook's kernel does with a cell: its text is put where tracebacks look for it, and it runs in `__main__`.
KERNEL = """
import json, linecache, pathlib, sys
main = vars(sys.modules["__main__"])
for number, cell in enumerate(pathlib.Path("cells.txt").read_text().split("# ---\\n")):
    name = f"/nowhere/ipykernel_77/{number}.py"
    linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
    exec(compile(cell, name, "exec"), main)
"""


def test_a_cell_of_a_notebook_has_the_version_of_the_same_code_in_a_file(imported_program: Any, tmp_path: Path) -> None:
    """Its name is that of the notebook, where the kernel tells it, else `__main__`."""
    folder = program(tmp_path / "app")
    cells = PROGRAM.replace("@dataclass\n", "# ---\n@dataclass\n").replace("@prompt", "# ---\n@prompt")
    (folder / "cells.txt").write_text(cells, encoding="utf-8")
    name, *rest = run("-c", KERNEL, cwd=folder, JPY_SESSION_NAME=str(folder / "analysis.ipynb"))
    assert (name, rest) == ("analysis.answer", imported_program[1:])
    name, *rest = run("-c", KERNEL, cwd=folder, JPY_SESSION_NAME="")
    assert (name, rest) == ("__main__.answer", imported_program[1:])


LIBRARY = (
    "from llmops_sdk import prompt\nfrom llmops_sdk.testing import ScriptedModel\nimport our_texts\n"
    """

@prompt(model=ScriptedModel([], name="m"))
def ask(q: str) -> str:
    return our_texts.GREETING + q


print(__import__("json").dumps([ask.version.hash, ask.version.captured]))
"""
)


@pytest.mark.parametrize("said", ["nowhere", "pyproject", "environment"])
def test_a_library_that_lies_elsewhere_is_first_party_where_it_is_said(said: str, tmp_path: Path) -> None:
    """`[tool.llmops] first_party` beside the prompt, or the setting where no pyproject.toml is shipped."""
    app, library = tmp_path / "app", tmp_path / "library"
    app.mkdir()
    library.mkdir()
    table = '[tool.llmops]\nfirst_party = ["our_texts"]\n' if said == "pyproject" else ""
    (app / "pyproject.toml").write_text(table, encoding="utf-8")
    (app / "main.py").write_text(LIBRARY, encoding="utf-8")
    given = {"LLMOPS_FIRST_PARTY": "our_texts"} if said == "environment" else {}
    seen = []
    for greeting in ("Hello.", "Good day."):
        (library / "our_texts.py").write_text(f"GREETING = {greeting!r}\n", encoding="utf-8")
        seen.append(run("main.py", cwd=app, PYTHONPATH=str(library), **given))
    captured = [] if said == "nowhere" else ["our_texts.GREETING"]
    assert [told[1] for told in seen] == [captured, captured]
    assert (seen[0][0] == seen[1][0]) is (said == "nowhere")
