"""The four decorators, thin, over one wrapper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmops_sdk.lazy import bound_lazily

if TYPE_CHECKING:
    from llmops_sdk.decorators.wrapper import Wrapper

__all__ = ["Wrapper"]

__getattr__ = bound_lazily(__name__, {"wrapper": ("Wrapper",)})
