"""What changes the version of a prompt, and what does not: one row an edit of the project `desk`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .conftest import copied, versions


class Edit(NamedTuple):
    """A text of one file and what it becomes."""

    name: str
    file: str
    before: str
    after: str


# (edit, the prompts whose version it changes)
CHANGES: tuple[tuple[Edit, set[str]], ...] = tuple(
    (Edit(*row[:4]), {"answer"} if len(row) == 4 else set(row[4:]))
    for row in (
        # The function itself.
        ("docstring", "app.py", "You are a kind clerk.", "You are a clerk."),
        ("a line of the docstring", "app.py", "    Answer from the leaflet.\n", "    Answer from memory.\n"),
        (
            "an indented line of the docstring",
            "app.py",
            "    Answer from the leaflet.\n",
            "      Answer from the leaflet.\n",
        ),
        ("literal", "app.py", 'helpers.clean("x")', 'helpers.clean("y")'),
        ("operator", "app.py", "*sorted(TAGS)", "*list(TAGS)"),
        ("order of statements", "app.py", "str(PRICE), PLACE.name", "PLACE.name, str(PRICE)"),
        ("format specification", "app.py", "{STYLE.words:>3}", "{STYLE.words:>4}"),
        ("conversion", "app.py", "{STYLE.tone} ", "{STYLE.tone!r} "),
        ("text between fields", "app.py", "{STYLE.tone} {", "{STYLE.tone}  {"),
        ("parameter", "app.py", "*, limit: int = COUNT", "*, limit: int = COUNT, more: int = 0"),
        ("annotation of a parameter", "app.py", "question: str, visitor", "question: object, visitor"),
        ("default that is a constant", "app.py", "COUNT = 3", "COUNT = 4"),
        ("default that is a literal", "app.py", "limit: int = COUNT", "limit: int = 4"),
        ("import in the body", "app.py", "from .late import advise", "from .helpers import clean as advise"),
        # What the decorator is given.
        ("temperature by name", "app.py", "TEMPERATURE = 0.2", "TEMPERATURE = 0.3"),
        ("temperature left out", "app.py", "temperature=TEMPERATURE, output=Answer", "output=Answer"),
        ("another parameter", "app.py", "output=Answer)", "output=Answer, max_tokens=9)"),
        ("a parameter of the provider", "app.py", "output=Answer)", 'output=Answer, extra={"logit_bias": {"7": 1}})'),
        ("stop", "app.py", "output=Answer)", 'output=Answer, stop=["."])'),
        ("output left out", "app.py", ", output=Answer", ""),
        ("another output", "app.py", "output=Answer", "output=list[Answer]"),
        ("system text", "app.py", "output=Answer)", 'output=Answer, system="You are rude.")'),
        ("model", "app.py", 'name="desk-model"', 'name="other-model"', "answer", "Desk.ask"),
        # The output.
        (
            "field added",
            "app.py",
            "    sources: list[Source] = []",
            "    sources: list[Source] = []\n    note: str = ''",
        ),
        ("field renamed", "app.py", "    certainty:", "    confidence:"),
        ("type of a field", "app.py", "    page: int = 1", "    page: str = '1'"),
        ("default of a field", "app.py", "    page: int = 1", "    page: int = 2"),
        ("description of a field", "app.py", "the answer", "the whole answer"),
        ("constraint of a field", "app.py", "max_length=200", "max_length=300"),
        ("literal type of a field", "app.py", 'Literal["sure", "unsure"]', 'Literal["sure", "no idea"]'),
        ("order of fields", "app.py", "    title: str\n    page: int = 1", "    page: int = 1\n    title: str"),
        ("docstring of the output", "app.py", "What the clerk says.", "What is said."),
        (
            "name of the output",
            "app.py",
            "class Source(BaseModel)",
            "Item = 0\n\n\nclass Source(BaseModel, title='Item')",
        ),
        # Constants.
        ("constant of another file", "texts.py", '"Hello."', '"Hi."'),
        ("constant through a module", "texts.py", '"9 to 5"', '"9 to 6"'),
        ("constant of a late import", "late.py", '"Be brief."', '"Be long."'),
        ("constant two files away", "texts.py", 'FOOTER = "The desk"', 'FOOTER = "The counter"'),
        ("value inside of a dict", "app.py", '"be exact"', '"be quick"'),
        ("key of a dict", "app.py", '"first":', '"begin":'),
        ("value deep inside", "app.py", "(1, 2.5, None)", "(1, 2.5, 0)"),
        ("int and float of one value", "app.py", "(1, 2.5, None)", "(1.0, 2.5, None)"),
        ("int and bool of one value", "app.py", "(1, 2.5, None)", "(True, 2.5, None)"),
        ("tuple and list", "app.py", "(1, 2.5, None)", "[1, 2.5, None]"),
        ("order of a list", "app.py", '["be polite", "be exact"]', '["be exact", "be polite"]'),
        ("element of a set", "app.py", '"refunds"}', '"rebates"}'),
        ("pattern", "app.py", r'r"\s+"', r'r"\s"'),
        ("flag of a pattern", "app.py", "re.IGNORECASE", "re.DOTALL"),
        ("decimal", "app.py", 'Decimal("1.10")', 'Decimal("1.1")'),
        ("path", "app.py", '"leaflet.txt"', '"flyer.txt"'),
        ("value of a dataclass", "app.py", 'Style(tone="calm"', 'Style(tone="loud"'),
        ("default of a dataclass", "app.py", "    words: int = 40", "    words: int = 50"),
        ("list in a dataclass", "app.py", '["jargon"]', '["slang"]'),
        ("value of a pydantic model", "app.py", 'name="Nuts and Bolts"', 'name="Bolts"'),
        ("default of a pydantic model", "app.py", '"Bonn"', '"Kiel"'),
        ("value of a named tuple", "app.py", "floor=2", "floor=3"),
        ("attribute of an object", "app.py", 'Clerk("Ada")', 'Clerk("Bob")'),
        ("value of an enum", "texts.py", 'CALM = "calm"', 'CALM = "quiet"'),
        ("argument of a partial", "app.py", 'mark="\'"', 'mark="`"'),
        ("closure variable", "app.py", 'prefixed("Question:")', 'prefixed("Q:")'),
        # Helpers.
        ("body of a helper", "helpers.py", "text.strip()", "text.rstrip()"),
        ("docstring of a helper", "helpers.py", "Without spaces around, in", "In"),
        ("default of a helper", "helpers.py", "mark: str = '\"'", "mark: str = '|'"),
        ("helper two files away", "texts.py", "Yours, ", "Sincerely, "),
        ("helper imported in the body", "late.py", 'f"{ADVICE} {text}"', 'f"{text} {ADVICE}"'),
        ("body under lru_cache", "helpers.py", "text.upper()", "text.lower()"),
        ("body under an own decorator", "helpers.py", 'f"*{text}*"', 'f"_{text}_"'),
        ("body of an own decorator", "helpers.py", "text = function(text)", "text = function(text + text)"),
        ("argument of an own decorator", "helpers.py", "@repeated(times=2)", "@repeated(times=3)"),
        ("own decorator taken off", "helpers.py", "@repeated(times=2)\n", ""),
        ("context manager", "helpers.py", 'yield "[...]"', 'yield "[cut]"'),
        ("registered implementation", "helpers.py", 'f"number {value}"', 'f"no. {value}"'),
        ("one of two that call each other", "helpers.py", "number != 0 and even", "number == 1 or even"),
        ("lambda", "app.py", 'text + "!"', 'text + "?"'),
        ("method of a class of an object", "app.py", "{self.name} greets", "{self.name} welcomes"),
        # Methods.
        ("class attribute", "app.py", '"Welcome."', '"Come in."', "Desk.ask"),
        ("inherited class attribute", "app.py", '"Goodbye."', '"Bye."', "Desk.ask"),
        ("method of self", "app.py", '"Regards,"', '"Yours,"', "Desk.ask"),
        ("method of super", "app.py", '"- the desk"', '"- us"', "Desk.ask"),
        ("docstring of a method", "app.py", "You are a clerk at a desk.", "You are at a desk.", "Desk.ask"),
        (
            "inherited attribute overridden",
            "app.py",
            "    notice =",
            '    closing = "See you."\n    notice =',
            "Desk.ask",
        ),
    )
)

REMAINS: tuple[Edit, ...] = tuple(
    Edit(*row)
    for row in (
        ("comment in the body", "app.py", "    # This comment counts for nothing.\n    with", "    with"),
        (
            "comment in a helper",
            "helpers.py",
            "    # This comment counts for nothing.\n",
            "    # Nor does this one.\n\n",
        ),
        ("lines above", "app.py", "class Source(", "PAGES = 7\n\n\nclass Source("),
        (
            "blank lines",
            "app.py",
            '    return "\\n".join(lines)\n\n\nclass Base',
            '\n\n    return "\\n".join(lines)\n\nclass Base',
        ),
        ("quotes", "app.py", 'helpers.clean("x")', "helpers.clean('x')"),
        (
            "line breaks",
            "app.py",
            "    lines = [GREETING, texts",
            "    lines = [\n            GREETING,\n        texts",
        ),
        ("parentheses", "app.py", "lines += [shout(question),", "lines += [(shout)((question)),"),
        ("spelling of a number", "app.py", "COUNT = 3", "COUNT = 0x3"),
        ("spelling of a text", "texts.py", '"Hello."', '"Hel" "lo\\x2e"'),
        (
            "indentation of a docstring",
            "app.py",
            "    Answer from the leaflet.\n    Say",
            "        Answer from the leaflet.\n        Say",
        ),
        ("trailing comma", "helpers.py", "mark: str = '\"')", "mark: str = '\"',)"),
        ("annotation of a helper", "helpers.py", "def clean(text: str, mark: str", "def clean(text: object, mark"),
        ("result of a helper", "helpers.py", "def footer() -> str:", "def footer():"),
        ("annotation in a body", "helpers.py", "    stripped = text", "    stripped: str = text"),
        ("annotation written as a string", "app.py", "question: str, visitor", 'question: "str", visitor'),
        ("order of imports", "app.py", "import functools\nimport json", "import json\nimport functools"),
        ("order of imported names", "app.py", "import GREETING, Mood", "import Mood, GREETING"),
        ("import that nobody uses", "app.py", "import json\n", "import json\nimport random\n"),
        ("order of a set", "app.py", '{"returns", "repairs", "refunds"}', '{"refunds", "repairs", "returns"}'),
        ("unrelated constant", "app.py", '"no prompt reads this"', '"anything"'),
        ("unrelated function", "texts.py", '"unrelated"', '"changed"'),
        ("unrelated method", "app.py", 'return "never"', 'return "ever"'),
        ("unrelated class attribute", "app.py", "No method of a prompt reads this.", "Changed."),
        ("what an instance holds", "app.py", "        self.city = city\n", "        self.city = city.title()\n"),
        ("module docstring", "app.py", '"""The prompts."""', '"""Prompts of a desk."""'),
        ("constant equal but computed", "app.py", "COUNT = 3", "COUNT = 1 + 2"),
        (
            "order of keywords",
            "app.py",
            "temperature=TEMPERATURE, output=Answer",
            "output=Answer, temperature=TEMPERATURE",
        ),
        ("trace above", "app.py", "@prompt(model=model, temp", "@trace\n@prompt(model=model, temp"),
        ("trace below", "app.py", "output=Answer)\n", "output=Answer)\n@trace\n"),
        ("trace taken off", "app.py", "    @trace\n", ""),
        ("name", "app.py", "output=Answer)", 'output=Answer, name="my-prompt")'),
        ("own name", "app.py", "def answer(", "def reply("),
        ("model in a variable", "app.py", "@prompt(model=model, temp", "@prompt(model, temp"),
        ("size of a cache", "helpers.py", "maxsize=8", "maxsize=9"),
        ("empty stop", "app.py", "output=Answer)", "output=Answer, stop=[], extra={})"),
        (
            "import under type checking",
            "app.py",
            "from . import helpers",
            "if False:\n    import random\nfrom . import helpers",
        ),
    )
)


def edited(folder: Path, edit: Edit) -> dict[str, Any]:
    """The versions after one edit."""
    path = copied(folder) / "desk" / edit.file
    text = path.read_text(encoding="utf-8")
    assert edit.before in text, "the edit does nothing"
    text = text.replace(edit.before, edit.after, 1)
    path.write_text(text + ("answer = reply\n" if "def reply(" in text else ""), encoding="utf-8")
    return versions(folder)


@pytest.mark.parametrize(("edit", "expected"), CHANGES, ids=[edit.name for edit, _ in CHANGES])
def test_an_edit_of_what_is_asked_gives_a_new_version(
    edit: Edit, expected: set[str], base: Mapping[str, Any], tmp_path: Path
) -> None:
    """What determines the request is in the hash, and only in the hashes of the prompts that it is a part of."""
    after = edited(tmp_path, edit)
    assert {name for name, version in after.items() if version.hash != base[name].hash} == expected


@pytest.mark.parametrize("edit", REMAINS, ids=[edit.name for edit in REMAINS])
def test_any_other_edit_leaves_the_version(edit: Edit, base: Mapping[str, Any], tmp_path: Path) -> None:
    """What does not determine the request is not in the hash."""
    after = edited(tmp_path, edit)
    assert {name: version.hash for name, version in after.items()} == {n: v.hash for n, v in base.items()}


SIGNATURE: tuple[tuple[Edit, bool], ...] = tuple(
    (Edit(*row[:4]), bool(row[4]))
    for row in (
        ("parameter", "app.py", "*, limit: int = COUNT", "*, limit: int = COUNT, more: int = 0", True),
        ("annotation", "app.py", "question: str, visitor", "question: object, visitor", True),
        ("default that is new", "app.py", "question: str, visitor", "question: str = '', visitor", True),
        ("field of the output", "app.py", "    page: int = 1", "    page: str = '1'", True),
        (
            "field of a parameter's type",
            "app.py",
            '    """Who asks."""\n\n    name: str',
            '    """Who asks."""\n\n    age: int',
            True,
        ),
        ("body", "app.py", 'helpers.clean("x")', 'helpers.clean("y")', False),
        ("docstring", "app.py", "You are a kind clerk.", "You are a clerk.", False),
        ("value of a default", "app.py", "COUNT = 3", "COUNT = 4", False),
        ("temperature", "app.py", "TEMPERATURE = 0.2", "TEMPERATURE = 0.3", False),
        ("helper", "helpers.py", "text.strip()", "text.rstrip()", False),
    )
)


@pytest.mark.parametrize(("edit", "changes"), SIGNATURE, ids=[edit.name for edit, _ in SIGNATURE])
def test_the_signature_is_what_callers_see(edit: Edit, changes: bool, base: Mapping[str, Any], tmp_path: Path) -> None:
    """Versions of one signature can stand in for each other: parameters, their annotations and the output are in it."""
    after = edited(tmp_path, edit)
    assert (after["answer"].signature_hash != base["answer"].signature_hash) is changes
    assert after["answer"].hash != base["answer"].hash


def test_a_renamed_package_keeps_its_versions(base: Mapping[str, Any], tmp_path: Path) -> None:
    """Where code stands is no part of what it says."""
    after = versions(copied(tmp_path / "elsewhere", "counter"), "counter.app")
    assert {n: v.hash for n, v in after.items()} == {n: v.hash for n, v in base.items()}
    assert after["answer"].name == "counter.app.answer"
