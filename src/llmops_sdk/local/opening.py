"""From the parts of a `local:` model string to a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from llmops_sdk.errors import ModelStringError
from llmops_sdk.local.chat import LocalChat
from llmops_sdk.local.embed import LocalEmbedder
from llmops_sdk.local.process import DEFAULT_THREADS
from llmops_sdk.local.weights import kind_of
from llmops_sdk.settings import current_settings

if TYPE_CHECKING:
    from llmops_sdk.flow import Model


def open_model(name: str, options: Mapping[str, str], parameters: Mapping[str, Any]) -> Model:
    """The model of `local:NAME?options`; nothing is loaded before its first request.

    Args:
        name: a packaged name such as `smollm2`, a path, or a path in `<home>/models`.
        options: of the engine: `threads`, how many threads compute (1); all other options are refused.
        parameters: of `Request`, for requests that do not set them.

    Raises `ModelStringError`.
    """
    if not name:
        raise ModelStringError("A local model has a name or a path: local:smollm2, or local:/path/to/model.gguf.")
    unknown = sorted(set(options) - {"threads"})
    if unknown:
        raise ModelStringError(f"local:{name} has no option {unknown[0]!r}. There is: threads.")
    threads = _threads(name, options.get("threads"))
    if kind_of(name, current_settings()) == "chat":
        return LocalChat(weights=name, name=_identity(name, parameters), parameters=parameters, threads=threads)
    if parameters:
        raise ModelStringError(f"local:{name} embeds; it has no parameter {min(parameters)!r}.")
    return LocalEmbedder(weights=name, name=_identity(name, {}), threads=threads)


def _threads(name: str, told: str | None) -> int:
    if told is None:
        return DEFAULT_THREADS
    if not told.isascii() or not told.isdigit() or not 1 <= int(told) <= 1024:
        raise ModelStringError(f"local:{name}?threads= takes a number from 1 to 1024; it is {told!r}.")
    return int(told)


def _identity(name: str, parameters: Mapping[str, Any]) -> str:
    """The model string without what cannot change an answer, in one spelling."""
    told = {key: value for key, value in sorted(parameters.items()) if value is not None}
    return f"local:{quote(name, safe='/:~.')}" + (f"?{urlencode(told, doseq=True)}" if told else "")
