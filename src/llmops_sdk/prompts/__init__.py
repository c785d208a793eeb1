"""Prompts: what a version of one covers, and what happens between a prompt's body and its answer."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmops_sdk.prompts.version import PromptVersion, VersionTracker

__all__ = ["PromptVersion", "VersionTracker"]

_HOME_OF = {"PromptVersion": "version", "VersionTracker": "version"}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
