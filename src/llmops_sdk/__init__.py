"""LLMOps for the functions you already have: `@prompt`, `@retrieve`, `@guard` and `@trace`.

Every name here is bound at its first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # importing typing would be most of what importing this costs

if TYPE_CHECKING:
    from typing import Any

    from llmops_sdk.decorators.guard import guard
    from llmops_sdk.decorators.prompt import prompt
    from llmops_sdk.decorators.retrieve import retrieve
    from llmops_sdk.decorators.trace import trace
    from llmops_sdk.flow import Model, Stream
    from llmops_sdk.models import model
    from llmops_sdk.models.layers.cached import Cached
    from llmops_sdk.models.layers.exact_cache import ExactCache
    from llmops_sdk.models.layers.fallback import Fallback
    from llmops_sdk.retrieval import Chunker, Index, render
    from llmops_sdk.tracing import configure, current_span, flush, using
    from llmops_sdk.types import Delta, Hit, Message, Query, Request, Response, Usage

__version__ = "0.1.0"

__all__ = [
    "Cached",
    "Chunker",
    "Delta",
    "ExactCache",
    "Fallback",
    "Hit",
    "Index",
    "Message",
    "Model",
    "Query",
    "Request",
    "Response",
    "Stream",
    "Usage",
    "configure",
    "current_span",
    "flush",
    "guard",
    "model",
    "prompt",
    "render",
    "retrieve",
    "trace",
    "using",
]

_HOMES = {
    "decorators.guard": ("guard",),
    "decorators.prompt": ("prompt",),
    "decorators.retrieve": ("retrieve",),
    "decorators.trace": ("trace",),
    "flow": ("Model", "Stream"),
    "models": ("model",),
    "models.layers.cached": ("Cached",),
    "models.layers.exact_cache": ("ExactCache",),
    "models.layers.fallback": ("Fallback",),
    "retrieval": ("Chunker", "Index", "render"),
    "tracing": ("configure", "current_span", "flush", "using"),
    "types": ("Delta", "Hit", "Message", "Query", "Request", "Response", "Usage"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
