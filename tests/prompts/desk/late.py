"""Imported inside of a body only."""

from __future__ import annotations

ADVICE = "Be brief."


def advise(text: str) -> str:
    """The advice, then the text."""
    return f"{ADVICE} {text}"
