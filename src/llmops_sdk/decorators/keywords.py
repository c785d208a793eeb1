"""What is said to a keyword that a decorator does not have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmops_sdk.errors import DecoratorError


def refuse_unknown(decorator: str, given: Iterable[str], known: Sequence[str], otherwise: str = "") -> None:
    """Raise `DecoratorError` for the first keyword that is not known: what may have been meant, else `otherwise`."""
    for keyword in given:
        if keyword not in known:
            raise DecoratorError(
                f"@{decorator} has no keyword {keyword!r}. {_meant(keyword, known) or otherwise}".rstrip()
            )


def _meant(keyword: str, known: Sequence[str]) -> str:
    from llmops_sdk.checks import near_name

    near = near_name(keyword, known, cutoff=0.6) or (known[0] if len(known) == 1 else None)
    return f"Did you mean {near}=?" if near else ""


MISSPELT_NAMES = frozenset({"nam", "nme", "nae", "ame", "anme", "nmae", "naem", "Name", "NAME"})
"""Slips for `name` where any keyword is an attribute. No substitutions: `game` and `names` are words of their own."""
