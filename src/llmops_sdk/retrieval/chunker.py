"""Cuts a text into passages that end where a paragraph, a sentence, a line or at least a word ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from llmops_sdk.errors import UsageError

_BOUNDARIES: Final = (
    re.compile(r"\n[^\S\n]*\n\s*"),  # paragraph
    re.compile(r"(?:(?<=[.!?…])|(?<=[.!?…][\"')\]]))\s+"),  # sentence
    re.compile(r"\n\s*"),
    re.compile(r"\s+"),
)
"""What separates, the best first. A match is white space that belongs to neither side."""


class Chunk(NamedTuple):
    """`text` stands at `start` to `end` (characters) of the text that it was cut from."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunker:
    """Cuts texts into chunks of at most `size` characters, of which each repeats up to `overlap` of the one before.

    `text[chunk.start:chunk.end] == chunk.text`, every character that is not white space is in a chunk, and no chunk
    begins or ends in white space. 800 characters of English are about 200 tokens.
    """

    size: int = 800
    overlap: int = 100

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be right."""
        if self.size < 1:
            raise UsageError(f"Chunker(size=…) is at least 1 character; it is {self.size}.")
        if not 0 <= self.overlap < self.size:
            raise UsageError(f"Chunker(overlap=…) is from 0 to less than size={self.size}; it is {self.overlap}.")

    def chunks(self, text: str) -> list[Chunk]:
        """The chunks of `text`, in order."""
        return [Chunk(start, end, text[start:end]) for start, end in self._spans(text)]

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        start, end, last = _forward(text, 0), 0, len(text.rstrip())
        while start < last:
            if last - start <= self.size:
                yield start, last
                return
            end = self._end(text, start, end)
            yield start, end
            start = self._next_start(text, start, end)

    def _end(self, text: str, start: int, before: int) -> int:
        """Where the chunk from `start` ends: the last boundary of the best kind in the second half of what fits, and
        beyond where the chunk `before` it ended.
        """
        most = start + self.size
        least = max(start + self.size // 2, before) + 1
        for boundary in _BOUNDARIES:
            # one character more is looked at: a boundary may begin just where the chunk is full
            found = [match.start() for match in boundary.finditer(text, least, most + 1)]
            ends = [end for at in found if before < (end := _backward(text, start, at)) <= most]
            if ends:
                return ends[-1]
        return _backward(text, start, most)

    def _next_start(self, text: str, start: int, end: int) -> int:
        """Where the next chunk starts: after the first boundary of the best kind in the overlap, else past the end."""
        following = _forward(text, end)
        # a start from which the chunk could not reach what follows would only repeat
        earliest = max(start + 1, end - self.overlap, following + 1 - self.size)
        for boundary in _BOUNDARIES[1:] if self.overlap else ():
            found = boundary.search(text, earliest, end)
            if found is not None and found.end() < end:
                return found.end()
        return following


def _forward(text: str, at: int) -> int:
    """The first position from `at` that is not white space."""
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _backward(text: str, start: int, end: int) -> int:
    """The end of the last character before `end` that is not white space; `start` itself is not."""
    while end > start + 1 and text[end - 1].isspace():
        end -= 1
    return end
