"""Constants, two files away from the prompts."""

from __future__ import annotations

from enum import Enum

GREETING = "Hello."
OPENING_HOURS = "9 to 5"
FOOTER = "The desk"


class Mood(Enum):
    """How a clerk is."""

    CALM = "calm"
    BUSY = "in a hurry"


def signature() -> str:
    """Who wrote it."""
    return f"Yours, {FOOTER}"


def unrelated() -> str:
    """Nothing calls this."""
    return "unrelated"
