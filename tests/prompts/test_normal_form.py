"""The normal form of code: equal for what reads alike, on every Python."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops_sdk.prompts.normal_form import clean_docstring, constant_form, normal_form

SOURCE = Path(__file__).resolve().parents[2] / "src" / "llmops_sdk"


def golden() -> ModuleType:
    """The script that any interpreter can run."""
    spec = importlib.util.spec_from_file_location("golden_check", Path(__file__).parent / "golden" / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["golden_check"] = module
    spec.loader.exec_module(module)
    return module


GOLDEN = golden()


@pytest.mark.parametrize("case", GOLDEN.cases(), ids=[case.title for case in GOLDEN.cases()])
def test_the_golden_table_holds(case: object) -> None:
    """Every supported Python gives the committed text; a change of it gives every prompt of every user a new version."""
    assert GOLDEN.form_of(case) == case.form  # type: ignore[attr-defined]  # a Case of a module loaded by its path


def _body(source: str) -> str:
    return normal_form(ast.parse(source).body[0])


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_what_unparse_writes_has_the_form_of_what_was_parsed(file: Path) -> None:
    """Another formatting of real code, made by Python itself, changes nothing; docstrings of classes and functions included."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            assert _body(ast.unparse(node)) == normal_form(node), node.name


CONSTANTS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(), st.just(...)
)


@given(CONSTANTS, CONSTANTS)
def test_constants_of_another_type_or_value_have_another_form(one: object, other: object) -> None:
    """1, 1.0 and True are three; 0.0 and -0.0 are two."""
    same = type(one) is type(other) and repr(one) == repr(other)
    assert (constant_form(one) == constant_form(other)) is same


@given(st.lists(st.text()), st.lists(st.text()))
def test_lists_of_texts_never_run_into_each_other(one: list[str], other: list[str]) -> None:
    """No text can imitate the end of another."""
    forms = ["".join(map(constant_form, texts)) for texts in (one, other)]
    assert (forms[0] == forms[1]) is (one == other)


@given(st.text(alphabet="ab \n\t"), st.integers(0, 8))
def test_a_docstring_keeps_its_form_when_it_is_indented(text: str, margin: int) -> None:
    """Moving a function into a class changes nothing."""
    first, *rest = text.expandtabs().split("\n")
    moved = "\n".join([first, *(" " * margin + line if line.strip() else line for line in rest)])
    lines = [line.rstrip() for line in clean_docstring(moved).split("\n")]
    assert lines == [line.rstrip() for line in clean_docstring(text).split("\n")]
