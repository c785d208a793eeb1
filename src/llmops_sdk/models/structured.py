"""Structured output: from a declared type to the schema that a provider is given, and from an answer to a value."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from llmops_sdk.errors import OutputValidationError, UsageError
from llmops_sdk.types import OutputSchema, canonical_json

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

WRAPPED: Final = "value"
"""The one property of the object that stands around a schema whose root is no object, which providers ask for."""

_MOST_REASONS: Final = 5
_MOST_CANDIDATES: Final = 64
_FENCE: Final = re.compile(r"^```[\w+-]*[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_DECODER: Final = json.JSONDecoder()


def output_schema(output: Any) -> OutputSchema:
    """The JSON Schema of a type as providers take it.

    Objects are closed and all of their properties required, so that the providers' strict modes apply; a root that is no
    object is wrapped into one. What JSON Schema can say of a type and strict modes cannot (open dictionaries, tuples of
    fixed length) stays as it is. Raises `UsageError` for a type that has no JSON Schema.
    """
    schema = _provider_ready(_declared(output).schema)
    return OutputSchema(name=_safe_name(output), schema_json=canonical_json(schema))


def parse_output(output: Any, text: str) -> Any:
    """The value of type `output` in an answer: JSON, alone, in a code fence or amid prose.

    Raises `OutputValidationError`, whose message says what is wrong in words that a model can act on. It names places and
    types, never the answer's content, which is on its `text`.
    """
    declared = _declared(output)
    failed: ValidationError | None = None
    for candidate in _candidates(text):
        for document in _unwrapped(candidate) if declared.wrapped else (candidate,):
            try:
                return declared.adapter.validate_json(document)
            except ValidationError as error:
                failed = failed or error
    if failed is None:
        told = "is empty" if not text.strip() else "holds no JSON value"
        raise OutputValidationError(f"The answer {told}; JSON for {_shown(output)} was wanted.", text=text)
    raise OutputValidationError(
        f"The answer does not fit {_shown(output)}: {'; '.join(_reasons(failed))}.", text=text
    ) from None  # pydantic's own message quotes the answer


# Schemas ------------------------------------------------------------------------------------------------------------


class _Declared(NamedTuple):
    """What pydantic makes of an output type: what validates it, and its schema as pydantic writes it."""

    adapter: TypeAdapter[Any]
    schema: dict[str, Any]

    @property
    def wrapped(self) -> bool:
        return _root(self.schema).get("type") != "object"


def _declared(output: Any) -> _Declared:
    try:
        return _kept(output)
    except TypeError:  # a type with an unhashable part, such as Annotated[int, {}]
        return _declare(output)


@functools.lru_cache(maxsize=256)
def _kept(output: Any) -> _Declared:
    return _declare(output)


def _declare(output: Any) -> _Declared:
    try:
        adapter = TypeAdapter(output)
        return _Declared(adapter, adapter.json_schema())
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        raise UsageError(
            f"{_shown(output)} cannot be an output type: {_first_line(error)}. Use pydantic models, dataclasses, "
            f"TypedDicts, and lists, dicts and unions of them."
        ) from error


def _root(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of the root itself, where it is given by reference (a recursive model)."""
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    inner = schema.get("$defs", {}).get(name)
    return inner if isinstance(inner, dict) else schema


def _provider_ready(schema: dict[str, Any]) -> dict[str, Any]:
    definitions = schema.get("$defs", {})
    root: dict[str, Any] = _closed({name: value for name, value in _root(schema).items() if name != "$defs"})
    if root.get("type") != "object":
        root = {
            "type": "object",
            "properties": {WRAPPED: root},
            "required": [WRAPPED],
            "additionalProperties": False,
        }
    if definitions:
        root["$defs"] = {name: _closed(inner) for name, inner in definitions.items()}
    return root


def _closed(schema: Any) -> Any:
    """A schema in the dialect of strict modes, where it can be said in it."""
    if not isinstance(schema, dict):
        return schema
    # Defaults are of no use: every property is asked for. A discriminator repeats what the alternatives say.
    told = {name: value for name, value in schema.items() if name not in ("default", "discriminator")}
    if "oneOf" in told:
        told["anyOf"] = told.pop("oneOf")
    if len(told.get("allOf", ())) == 1:
        told["anyOf"] = told.pop("allOf")
    if "$ref" in told and len(told) > 1:
        told["anyOf"] = [{"$ref": told.pop("$ref")}]
    for name in ("anyOf", "allOf", "prefixItems"):
        if name in told:
            told[name] = [_closed(inner) for inner in told[name]]
    for name in ("items", "additionalProperties"):
        if name in told:
            told[name] = _closed(told[name])
    if "properties" in told:
        told["properties"] = {name: _closed(inner) for name, inner in told["properties"].items()}
        told["required"] = list(told["properties"])
        told.setdefault("additionalProperties", False)
    elif told.get("type") == "object" and not {"additionalProperties", "patternProperties"} & set(told):
        told |= {"properties": {}, "required": [], "additionalProperties": False}
    return told


def _safe_name(output: Any) -> str:
    """A name of letters, digits, _ and -, at most 64 long, as providers ask for."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", _shown(output)).strip("_")[:64] or "output"


def _shown(output: Any) -> str:
    if isinstance(output, type) and not getattr(output, "__args__", None):
        return output.__name__
    return re.sub(r"\b[A-Za-z_][\w]*\.|<locals>\.", "", str(output))


# Answers ------------------------------------------------------------------------------------------------------------


def _candidates(text: str) -> Iterator[str]:
    """The JSON documents that an answer may mean, the likeliest first."""
    bare = text.strip()
    if _is_json(bare):
        yield bare
        return
    for fenced in _FENCE.findall(text):
        if _is_json(fenced.strip()):
            yield fenced.strip()
    yield from _embedded(bare)


def _embedded(text: str) -> Iterator[str]:
    """Objects and arrays amid prose, outermost first. Their number is bounded: a hostile text could hold many."""
    position = 0
    for _ in range(_MOST_CANDIDATES):
        found = re.compile(r"[{\[]").search(text, position)
        if found is None:
            return
        try:
            _, end = _DECODER.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            position = found.end()
        else:
            yield text[found.start() : end]
            position = end


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _unwrapped(document: str) -> Iterator[str]:
    """The document without the object around it; then as it is, since not every model follows the schema."""
    loaded = json.loads(document)
    if isinstance(loaded, dict) and set(loaded) == {WRAPPED}:
        yield json.dumps(loaded[WRAPPED])
    yield document


def _reasons(error: ValidationError) -> list[str]:
    """Where and how a document does not fit, in a few short clauses."""
    details = error.errors(include_url=False)
    told = [_reason(detail) for detail in details[:_MOST_REASONS]]
    more = len(details) - len(told)
    return [*told, f"and {more} more"] if more > 0 else told


def _reason(detail: ErrorDetails) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(".")
    said = detail["msg"].removeprefix("Input ").removeprefix("Value error, ")
    if detail["type"] == "union_tag_invalid":  # the one message that quotes the answer
        said = f"none of the declared alternatives: {detail.get('ctx', {}).get('expected_tags', '')}"
    seen = "" if detail["type"] in ("missing", "json_invalid") else f" (it is {_kind(detail['input'])})"
    return f"{place or 'the value'}: {said[:1].lower()}{said[1:]}{seen}"


def _kind(value: Any) -> str:
    """What JSON calls the type of a value."""
    if value is None:
        return "null"
    kinds = ((bool, "a boolean"), (int | float, "a number"), (str, "a string"), (dict, "an object"))
    return next((told for kind, told in kinds if isinstance(value, kind)), "an array")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")
