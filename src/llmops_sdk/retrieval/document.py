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

    def __post_init__(self) -> None:
        """Refuse what is no text."""
        if not isinstance(self.text, str) or not isinstance(self.source, str) or not self.source:
            raise UsageError(
                f"A Document has a text and a source that names it, both str; these are {type(self.text).__name__} and "
                f"{self.source!r}. Decode bytes, and name a file by str(path)."
            )

    @classmethod
    def of(cls, given: Any) -> Document:
        """A document from a `Document`, a text, `(source, text)` or `(source, text, metadata)`.

        A text alone is named after its content. Raises `UsageError` for anything else.
        """
        match given:
            case Document():
                return given
            case str():
                named = hashlib.sha256(given.encode("utf-8", "surrogatepass")).hexdigest()[:16]
                return cls(text=given, source=f"text:{named}")
            case (str(source), str(text)):
                return cls(text=text, source=source)
            case (str(source), str(text), Mapping() as metadata):
                return cls(text=text, source=source, metadata=metadata)
        told = type(given).__name__
        if isinstance(given, tuple | list):
            told += f" of {', '.join(type(part).__name__ for part in given[:5]) or 'nothing'}"
        raise UsageError(
            f"An index takes Document(text=…, source=…), a str, (source, text) or (source, text, metadata); this is {told}."
        )

    def facts(self) -> tuple[tuple[str, Fact], ...]:
        """The metadata, sorted by name. Raises `UsageError` for a value that is not plain."""
        for name, value in self.metadata.items():
            check_fact(name, value, f"The metadata of {self.source!r}")
        return tuple(sorted(self.metadata.items()))

    def digest(self, made_by: str) -> str:
        """Changes whenever the text, the metadata or the way they are cut (`made_by`) does."""
        told = canonical_json([self.source, self.text, self.facts(), made_by])
        check_whole(told, f"{self.source!r}")
        return hashlib.sha256(told.encode()).hexdigest()


def check_fact(name: Any, value: Any, what: str) -> None:
    """Raise `UsageError` for a name or value that metadata cannot hold."""
    if not isinstance(name, str) or not isinstance(value, str | int | float | bool | None):
        raise UsageError(
            f"{what}: {name!r} is {type(value).__name__}. Names are str, and values are str, int, float, bool or None."
        )


def check_whole(text: str, what: str) -> None:
    """Raise `UsageError` for text that has no UTF-8 form: half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{what} holds half a character, which cannot be stored: {error.reason}. "
            f'Decode it anew, or replace it: text.encode("utf-8", "replace").decode().'
        ) from None


def comparable(value: Fact) -> str:
    """A value as text that is equal where values are: 1 and 1.0 are, True and 1 are not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return canonical_json(value)
