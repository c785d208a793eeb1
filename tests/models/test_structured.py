"""Structured output: schemas for providers, and values out of answers."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from llmops_sdk.errors import OutputValidationError, UsageError
from llmops_sdk.models.structured import output_schema, parse_output
from llmops_sdk.providers.openai_request import fits_strict


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    x: int = Field(3, description="a number")


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class City(BaseModel):
    name: str
    colour: Colour = Field(Colour.RED, description="of its flag")
    inner: Inner = Field(Inner(x=3), description="more")
    founded: dt.date | None = None
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    others: list[Inner] = []


class Node(BaseModel):
    value: int
    children: list[Node] = []


@dataclasses.dataclass
class Plain:
    a: int
    b: str = "x"


STRICT: list[Any] = [City, Node, Plain, list[City], int, Inner | None, Cat | Dog, Literal["a", "b"], Annotated[int, {}]]
LOOSE: list[Any] = [dict[str, int], tuple[int, str]]


@pytest.mark.parametrize("output", STRICT + LOOSE, ids=str)
def test_every_schema_has_a_closed_object_at_its_root_or_is_a_dictionary(output: Any) -> None:
    """Providers take no other root; the name has only the letters that they allow."""
    schema = output_schema(output)
    told = json.loads(schema.schema_json)
    assert told["type"] == "object"
    assert schema.name.replace("_", "").replace("-", "").isalnum()
    assert len(schema.name) <= 64


@pytest.mark.parametrize("output", STRICT, ids=str)
def test_what_strict_modes_can_say_is_said_for_them(output: Any) -> None:
    """All objects closed, all properties required, no keyword that OpenAI's strict mode refuses."""
    assert fits_strict(json.loads(output_schema(output).schema_json))


@pytest.mark.parametrize("output", LOOSE, ids=str)
def test_what_strict_modes_cannot_say_stays_guidance(output: Any) -> None:
    """An open dictionary or a tuple is not forced into a schema that means something else."""
    assert not fits_strict(json.loads(output_schema(output).schema_json))


def test_a_described_reference_keeps_its_description() -> None:
    """OpenAI refuses keywords beside `$ref`; the description is what tells the model what to write."""
    told = json.loads(output_schema(City).schema_json)["properties"]["colour"]
    assert told == {"anyOf": [{"$ref": "#/$defs/Colour"}], "description": "of its flag"}


@pytest.mark.parametrize("output", [Callable[[], int], object()], ids=["callable", "an object"])
def test_a_type_without_a_schema_is_refused(output: Any) -> None:
    """The user is told what can be an output type."""
    with pytest.raises(UsageError, match="cannot be an output type"):
        output_schema(output)


@pytest.mark.parametrize(
    "text",
    [
        '{"x": 4}',
        ' \n{"x": 4}\n',
        '```json\n{"x": 4}\n```',
        'Here you are:\n```\n{"x": 4}\n```\nAnything else?',
        'Sure! {"x": 4} is it.',
        'I thought {not json} and then {"x": 4}.',
        'First [1, 2], but really {"x": 4}',
    ],
)
def test_json_is_found_alone_in_fences_and_amid_prose(text: str) -> None:
    """Models that are not held to a schema wrap their JSON in words."""
    assert parse_output(Inner, text) == Inner(x=4)


def test_a_wrapped_root_is_unwrapped_and_an_unwrapped_one_is_taken_as_it_is() -> None:
    """A provider follows the schema with the object around; a small model may leave it out."""
    assert parse_output(list[int], '{"value": [1, 2]}') == [1, 2]
    assert parse_output(list[int], "[1, 2]") == [1, 2]
    assert parse_output(int, '{"value": 7}') == 7
    assert parse_output(dict[str, int], '{"value": 1}') == {"value": 1}


@pytest.mark.parametrize(
    ("output", "text", "told"),
    [
        (Inner, "", "The answer is empty"),
        (Inner, "no idea", "holds no JSON value; JSON for Inner was wanted"),
        (Inner, '{"x": "sesame"}', r"x: should be a valid integer.* \(it is a string\)"),
        (
            City,
            '{"pet": {"kind": "sesame"}}',
            r"name: field required; pet: none of the declared alternatives: 'cat', 'dog'",
        ),
        (list[int], '{"value": ["a","b","c","d","e","f","g"]}', "and 2 more"),
        (Inner, "[" * 100_000, "no JSON value"),
        (Inner, "{" * 100_000, "no JSON value"),
        (Inner, '{"x": __import__("os").system("true")}', "no JSON value"),
    ],
)
def test_an_answer_that_does_not_fit_says_where_and_why(output: Any, text: str, told: str) -> None:
    """The reasons can be sent back to the model; the answer itself is on the error, not in its message."""
    with pytest.raises(OutputValidationError, match=told) as caught:
        parse_output(output, text)
    assert caught.value.text == text
    assert "sesame" not in str(caught.value)
    assert caught.value.__cause__ is None


@given(st.recursive(st.integers() | st.text() | st.booleans() | st.none(), lambda s: st.lists(s), max_leaves=10))
def test_every_json_value_comes_back_through_a_fence(value: Any) -> None:
    """Whatever the strings within hold."""
    assert parse_output(Any, f"Here:\n```json\n{json.dumps(value)}\n```\n") == value


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """No text of a model's raises anything else."""
    try:
        parse_output(City, text)
    except OutputValidationError:
        return
