"""`Check`: what `@guard` runs on a text."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from llmops_sdk.types import Verdict


@runtime_checkable
class Check(Protocol):
    """Looks at one text and decides. `Injection` and `Secrets` are two; any object of this shape is another.

    `check` may be a coroutine function; a synchronous call then raises `AsyncFunctionError`. It may be called from
    several threads at once. What it raises is held against the text, as `@guard(on_error=…)` says.
    """

    @property
    def name(self) -> str:
        """The name on verdicts and spans."""
        ...

    def check(self, text: str, /) -> Verdict | Awaitable[Verdict]:
        """Decide about `text`. With the action "redact", `Verdict.text` takes the text's place."""
        ...
