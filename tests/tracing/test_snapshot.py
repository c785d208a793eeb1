"""Any value as JSON, bounded, without running anybody's code."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections import namedtuple
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from llmops_sdk.tracing.snapshot import DEEPEST, MOST_CHARS, MOST_ITEMS, snapshot


def taken(value: Any) -> Any:
    return snapshot(value, lambda text: text)


class Colour(enum.Enum):
    RED = "r"


class Size(int):
    pass


class Model(BaseModel):
    a: int
    b: list[str]


@dataclasses.dataclass
class Data:
    x: int
    hidden: str = dataclasses.field(default="h", repr=False)


@dataclasses.dataclass(slots=True)
class Slotted:
    x: int


class Lazy:
    @property
    def value(self) -> NoReturn:
        raise AssertionError("a property was run")


Point = namedtuple("Point", "x y")  # noqa: PYI024 - the untyped form is what is tested


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ("x", "x"),
        (b"abc", "<3 bytes>"),
        (Colour.RED, "r"),
        (Size(3), 3),
        ((1, [2, {3}]), [1, [2, [3]]]),
        ({1: "a", None: "b", (1, 2): "c"}, {"1": "a", "None": "b", "<tuple>": "c"}),
        (Model(a=1, b=["x"]), {"a": 1, "b": ["x"]}),
        (Data(1), {"x": 1}),
        (Slotted(1), {"x": 1}),
        (Point(1, 2), {"x": 1, "y": 2}),
        (ValueError("no"), {"error": "ValueError", "message": "no"}),
        (np.zeros((2, 3), dtype=np.float32), "<ndarray float32 [2, 3]>"),
        (np.float64(1.5), 1.5),
        (Lazy(), "<Lazy>"),
        (Lazy, "<type>"),
        (len, "<builtin_function_or_method>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_told_plainly(value: Any, told: Any) -> None:
    """As JSON, and what is no data by its class."""
    assert taken(value) == told


def test_long_texts_and_lists_are_cut_and_their_size_is_said() -> None:
    """A recorder must not double the memory of its program."""
    assert taken("x" * (MOST_CHARS + 5)).endswith(f"… [{MOST_CHARS + 5} characters]")
    assert taken(list(range(MOST_ITEMS + 1)))[-1] == f"… [{MOST_ITEMS + 1} items]"
    assert taken({n: n for n in range(MOST_ITEMS + 1)})["…"] == f"[{MOST_ITEMS + 1} entries]"


def test_what_holds_itself_ends() -> None:
    """Depth is bounded."""
    loop: list[Any] = []
    loop.append(loop)
    told, depth = taken(loop), 0
    while isinstance(told, list):
        told, depth = told[0], depth + 1
    assert (told, depth) == ("<list>", DEEPEST)


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
    max_leaves=20,
)


@given(nested)
def test_every_snapshot_is_json(value: Any) -> None:
    """Whatever went in, what comes out can be stored."""
    json.dumps(taken(value), allow_nan=False)


@given(st.text(min_size=1))
def test_every_text_passes_the_redaction(text: str) -> None:
    """In lists, in dicts, as keys, in fields of objects and messages of errors."""

    class Holder(BaseModel):
        field: str

    told = snapshot([text, {text: text}, Holder(field=text), ValueError(text)], lambda _: "#")
    assert told == ["#", {"#": "#"}, {"field": "#"}, {"error": "ValueError", "message": "#"}]
