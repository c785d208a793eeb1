"""The golden table of normal forms: `python check.py` checks it with any Python, `python check.py --write` makes it anew.

A case is a title, a definition, and its normal form. It needs nothing but the standard library, so a bare interpreter of
each supported version can hold it.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).with_name("normal_forms.txt")


class Case(NamedTuple):
    """One definition and what its normal form is said to be."""

    title: str
    source: str
    form: str


def cases() -> list[Case]:
    """The table."""
    blocks = re.split(r"^=== (.+)\n", TABLE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = []
    for title, block in zip(blocks[::2], blocks[1::2], strict=True):
        source, _, form = block.partition("\n--- ")
        found.append(Case(title, source, form.rstrip("\n")))
    return found


def form_of(case: Case) -> str:
    """The normal form as this Python sees it, in ASCII and on one line; the title says what it is made with."""
    from llmops_sdk.prompts.normal_form import normal_form

    node = ast.parse(case.source).body[-1]
    form = normal_form(node, annotations="with annotations" in case.title, fields="without fields" not in case.title)
    return form.encode("unicode_escape").decode("ascii")


def main() -> int:
    sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "src"))
    told = [(case, form_of(case)) for case in cases()]
    if "--write" in sys.argv:
        TABLE.write_text("".join(f"=== {c.title}\n{c.source}\n--- {form}\n" for c, form in told), encoding="utf-8")
    wrong = [case.title for case, form in told if form != case.form]
    print(f"Python {sys.version.split()[0]}: {len(told)} forms, {len(wrong)} differ {wrong or ''}")
    return bool(wrong) and "--write" not in sys.argv


if __name__ == "__main__":
    sys.exit(main())
