"""`render`: hits as the text of a prompt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmops_sdk.types import Hit


def render(hits: Iterable[Hit]) -> str:
    """The hits as numbered passages, each under a line with its number and source, so that a model can cite `[1]`.

    Every line of a passage begins with `> `, and a source is one line: whatever a document holds, it cannot end its
    passage or begin another. What it says is still read by the model; to look for instructions in it, put a guard on it.
    No hits give an empty text.
    """
    return "\n\n".join(_passage(number, hit) for number, hit in enumerate(hits, start=1))


def _passage(number: int, hit: Hit) -> str:
    source = " ".join("".join(c if c.isprintable() else " " for c in hit.source).split())
    quoted = [f"> {line}".rstrip() for line in hit.text.splitlines()]
    return "\n".join([f"[{number}] {source}".rstrip(), *quoted])
