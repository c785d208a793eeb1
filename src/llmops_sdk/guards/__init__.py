"""Checks of text, for `@guard`: ready-made ones, and the protocol for your own.

Every name is bound at its first use; numpy and the weights are loaded by the first text that is checked.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmops_sdk.guards.check import Check
    from llmops_sdk.guards.injection import Injection
    from llmops_sdk.guards.secrets import Secrets

__all__ = ["Check", "Injection", "Secrets"]

_HOMES = {"Check": "check", "Injection": "injection", "Secrets": "secrets"}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
