"""Where sentences end: for streams, which are let go sentence by sentence, and for scanning a text piece by piece.

All functions are linear in the length of the text: what a pattern matches is bounded.
"""

from __future__ import annotations

import re
from typing import Final

_STOP: Final = re.compile(r"""[.!?…][.!?…"'”’»)\]]{0,4}\s|[。！？｡．][”’」』）]?|\n""")  # noqa: RUF001 - they are meant
"""A sentence end, up to and with the first space after it, so that what comes later moves no end that was seen."""

_STOP_CHARS: Final = 8
"""No sentence end takes more characters than that."""

_CUT: Final = re.compile(_STOP.pattern + r"|(?<=[a-z][a-z])[.!?](?=[A-Z])|[;{}](?=\s)")
"""For scanning also where the space was forgotten, and where code has its statements."""

_ARMOUR: Final = re.compile(r"-----(BEGIN|END) [^\n-]{1,80}-----")

SEGMENT_CHARS: Final = 240
"""Longest piece of `segments`: what runs on without an end is cut here."""

_SHORT_CHARS: Final = 16
"""A piece shorter than this (a heading's number, one word a line) is read together with the next."""


def next_boundary(text: str, start: int = 0, *, seen: int = 0) -> int:
    """The position after the first sentence end behind `start`, or 0 if none; `seen` is up to where there is none.

    It depends on nothing after that position. An armoured block (`-----BEGIN … -----END …-----`) is one sentence, so
    that a key leaves a stream whole or not at all.
    """
    stop = _STOP.search(text, max(start, seen - _STOP_CHARS))
    if stop is None:
        return 0
    if text.find("-----BEGIN ", start, stop.end()) < 0:
        return stop.end()
    return _after_armour(text, start, stop.end())


def _after_armour(text: str, start: int, end: int) -> int:
    """The first sentence end that stands outside of armour: `end`, or one behind the END line."""
    opened = False
    position = start
    while True:
        mark = _ARMOUR.search(text, position, end)
        if mark is not None:
            opened, position = mark[1] == "BEGIN", mark.end()
            continue
        if not opened:
            return end
        closing = text.find("-----END ", position)
        stop = _STOP.search(text, max(closing, end)) if closing >= 0 else None
        if stop is None:
            return 0
        end = stop.end()


def segments(text: str) -> list[int]:
    """Where a text is cut for scanning: positions from 0 to its length, at sentence ends, at most `SEGMENT_CHARS` apart.

    An empty text gives [0].
    """
    cuts = [0]
    for match in _CUT.finditer(text):
        _cut_long(text, cuts, match.end())
        if match.end() - cuts[-1] >= _SHORT_CHARS:
            cuts.append(match.end())
    _cut_long(text, cuts, len(text))
    if cuts[-1] < len(text):
        cuts.append(len(text))
    return cuts


def _cut_long(text: str, cuts: list[int], end: int) -> None:
    """Cut what lies before `end` into pieces that are not too long, between words where there are any."""
    while end - cuts[-1] > SEGMENT_CHARS:
        space = text.rfind(" ", cuts[-1] + SEGMENT_CHARS // 2, cuts[-1] + SEGMENT_CHARS)
        cuts.append(space + 1 if space > 0 else cuts[-1] + SEGMENT_CHARS)
