"""Checks of what callers pass: each raises `UsageError` with the name, the value and what it may be."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from llmops_sdk.errors import UsageError

SLIP: Final = 0.85
"""How alike a name must be to a known one to be taken for a slip: `top_k` and `min_tokens` are not, `temprature` is."""


def near_name(word: str, known: Iterable[str], cutoff: float = SLIP) -> str | None:
    """The known name that `word` is nearly, or None. Case and hyphens do not count."""
    import difflib

    found = difflib.get_close_matches(word.lower().replace("-", "_"), list(known), n=1, cutoff=cutoff)
    return found[0] if found else None


def check_number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    whole: bool = False,
    optional: bool = True,
) -> None:
    """Raise unless `value` is a finite number in its range, or None where it is `optional`."""
    if value is None and optional:
        return
    if (
        isinstance(value, int if whole else int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (above is None or value > above)
        and (least is None or value >= least)
        and (most is None or value <= most)
    ):
        return
    kind = "a whole number" if whole else "a number"
    bounds = [f"above {above:g}"] if above is not None else []
    if least is not None:
        bounds.append(f"from {least:g} to {most:g}" if most is not None else f"of {least:g} or more")
    told = " ".join((kind, *bounds)) + (", or None" if optional else "")
    raise UsageError(f"{name} must be {told}; it is {shown(value)}.")


def check_kind(name: str, value: object, kind: type[Any], what: str, *, optional: bool = True) -> None:
    """Raise unless `value` is of `kind`, which `what` tells in words, or None where it is `optional`."""
    if isinstance(value, kind) or (value is None and optional):
        return
    raise UsageError(f"{name} must be {what}{', or None' if optional else ''}; it is {shown(value)}.")


def check_items(name: str, value: object, kind: type[Any]) -> None:
    """Raise unless `value` is a tuple of `kind`."""
    if isinstance(value, tuple) and all(isinstance(item, kind) for item in value):
        return
    raise UsageError(f"{name} must be a tuple of {kind.__name__}; it is {shown(value)}.{written_as_message(value)}")


def as_tuple(value: Any) -> Any:
    """Several as a tuple, a single string as one of them, None as none; what is neither stays as it is, for a check."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else value


def extra_of(text: str) -> dict[str, Any]:
    """The JSON object that `extra_json` holds."""
    try:
        told = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise UsageError(f"extra_json must be a JSON object as text; it is {shown(text)}.")
    return told


def written_as_message(content: object) -> str:
    """What to write for messages that are dicts, as a sentence for an error; "" where `content` holds none."""
    turns = content if isinstance(content, list | tuple) else [content]
    said = next((turn for turn in turns if isinstance(turn, Mapping)), None)
    if said is None:
        return ""
    role = said.get("role")
    method = role if role in ("system", "assistant") else "user"
    return f' Messages are no dicts: for {shown(dict(said))} write Message.{method}("…").'


_NUMBERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "temperature": {"least": 0},
    "top_p": {"least": 0, "most": 1},
    "max_tokens": {"least": 1, "whole": True},
    "seed": {"whole": True},
}


def check_request_numbers(values: Mapping[str, Any]) -> None:
    """Raise for a number of a request that no model takes. Other names are passed over."""
    for name, rule in _NUMBERS.items():
        if values.get(name) is not None:
            check_number(name, values[name], **rule)


def shown(value: object) -> str:
    """A value for a message: its beginning, and its type where that does not show."""
    text = repr(value)
    text = text if len(text) <= 60 else text[:60] + "…"
    return text if isinstance(value, str | int | float | dict | list | tuple | None) else f"a {type(value).__name__}"
