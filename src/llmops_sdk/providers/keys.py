"""API keys: read at the request that needs them, and shown nowhere."""

from __future__ import annotations

import os
import re
from typing import Final

from llmops_sdk.errors import MissingKeyError, UsageError

HIDDEN: Final = "[key]"
_ECHO: Final = re.compile(r"\b(?:sk|pk|gsk|xai)[-_][\w*.-]{4,}")


class ApiKey:
    """A key that was given, or the environment variable that has it.

    Args:
        given: the key itself, or None.
        variable: the environment variable to read where none was given, or None.
        required: whether a request without a key makes no sense.
    """

    __slots__ = ("_given", "_required", "_variable")

    def __init__(self, given: str | None = None, *, variable: str | None = None, required: bool = False) -> None:
        self._given = given
        self._variable = variable
        self._required = required

    def read(self) -> str | None:
        """The key, or None where none is needed. Raises `MissingKeyError`, and `UsageError` for what is no key."""
        key = self._given
        if key is None and self._variable is not None:
            key = os.environ.get(self._variable)
        key = (key or "").strip()
        if not key:
            if not self._required:
                return None
            raise MissingKeyError(f"There is no API key. {self.advice}")
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UsageError(
                f"The API key ({self.source}) has a space, a line break or a letter outside ASCII within: it was "
                f"copied with something else. It is not shown here."
            )
        return key

    @property
    def source(self) -> str:
        """Where the key comes from, for messages."""
        return "api_key=" if self._given is not None else self._variable or "none was given"

    @property
    def advice(self) -> str:
        """How to give a key, for messages."""
        where = f"Set the environment variable {self._variable}, or pass" if self._variable else "Pass"
        return f"{where} model(…, api_key=…)."

    def hide(self, text: str) -> str:
        """A text of the server's without this key, and without what servers echo of keys."""
        key = (self._given or (os.environ.get(self._variable, "") if self._variable else "")).strip()
        if key:
            text = text.replace(key, HIDDEN)
        return _ECHO.sub(HIDDEN, text)

    def __repr__(self) -> str:
        return f"<ApiKey from {self.source}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise UsageError(
            "An API key is not pickled. Pickle the model string, and open it with model(…) where it is used."
        )
