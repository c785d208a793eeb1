"""What goes into an index."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from llmops_sdk.errors import UsageError
from llmops_sdk.types import canonical_json

Fact: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text to search in. `source` names it, once in an index; `metadata` are plain values that searches filter by."""

    text: str
    source: str
    metadata: Mapping[str, Fact] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Any) -> Document:
        """A document from a `Document`, a text, `(source, text)` or `(source, text, metadata)`.

        A text alone is named after its content. Raises `UsageError` for anything else.
        """
        match given:
            case Document():
                return given
            case str():
                return cls(
                    text=given, source=f"text:{hashlib.sha256(given.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
                )
            case (str(source), str(text)):
                return cls(text=text, source=source)
            case (str(source), str(text), Mapping() as metadata):
                return cls(text=text, source=source, metadata=metadata)
        raise UsageError(
            f"An index takes Document(text=…, source=…), a str, (source, text) or (source, text, metadata); "
            f"this is {type(given).__name__}."
        )

    def facts(self) -> tuple[tuple[str, Fact], ...]:
        """The metadata, sorted by name. Raises `UsageError` for a value that is not plain."""
        for name, value in self.metadata.items():
            if not isinstance(name, str) or not isinstance(value, str | int | float | bool | None):
                raise UsageError(
                    f"{self.source}: metadata {name!r} is {type(value).__name__}; it holds str, int, float, bool or None."
                )
        return tuple(sorted(self.metadata.items()))

    def digest(self, made_by: str) -> str:
        """Changes whenever the text, the metadata or the way they are cut (`made_by`) does."""
        told = canonical_json([self.source, self.text, self.facts(), made_by])
        try:
            return hashlib.sha256(told.encode()).hexdigest()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"{self.source!r} holds half a character, which cannot be stored: {error}. "
                f'Decode it anew, or replace it: text.encode("utf-8", "replace").decode().'
            ) from None


def comparable(value: Fact) -> str:
    """A value as text that is equal where values are: 1 and 1.0 are, True and 1 are not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return canonical_json(value)
