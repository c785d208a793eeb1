"""Checks of text, for `@guard`: ready-made ones, and the protocol for your own.

Every name is bound at its first use; numpy and the weights are loaded by the first text that is checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmops_sdk.lazy import bound_lazily

if TYPE_CHECKING:
    from llmops_sdk.guards.check import Check
    from llmops_sdk.guards.injection import Injection
    from llmops_sdk.guards.secrets import Secrets

__all__ = ["Check", "Injection", "Secrets"]

__getattr__ = bound_lazily(__name__, {"check": ("Check",), "injection": ("Injection",), "secrets": ("Secrets",)})
