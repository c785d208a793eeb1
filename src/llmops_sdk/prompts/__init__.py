"""Prompts: what a version of one covers, and what happens between a prompt's body and its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmops_sdk.lazy import bound_lazily

if TYPE_CHECKING:
    from llmops_sdk.prompts.version import PromptVersion, VersionTracker

__all__ = ["PromptVersion", "VersionTracker"]

__getattr__ = bound_lazily(__name__, {"version": ("PromptVersion", "VersionTracker")})
