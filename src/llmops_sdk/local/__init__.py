"""Models in this process: `local:` model strings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmops_sdk.lazy import bound_lazily

if TYPE_CHECKING:
    from llmops_sdk.local.opening import open_model

__all__ = ["open_model"]

__getattr__ = bound_lazily(__name__, {"opening": ("open_model",)})
