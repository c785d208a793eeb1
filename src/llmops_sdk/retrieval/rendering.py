"""`render`: hits as the text of a prompt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmops_sdk.types import Hit


def render(hits: Iterable[Hit]) -> str:
    """The hits as numbered passages, each with its source, for a prompt.

    A line names each passage, so that a model can cite `[1]`; a line of text that imitates one is indented.
    """
    blocks = []
    for number, hit in enumerate(hits, start=1):
        text = "\n".join(f" {line}" if line.startswith("[") else line for line in hit.text.splitlines())
        blocks.append(f"[{number}] {hit.source}\n{text}" if hit.source else f"[{number}]\n{text}")
    return "\n\n".join(blocks)
