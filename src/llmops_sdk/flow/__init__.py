"""The heart: one generator serves sync, async and streaming calls. See docs/flow.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmops_sdk.lazy import bound_lazily

if TYPE_CHECKING:
    from llmops_sdk.flow.assembly import Assembly
    from llmops_sdk.flow.drive import BlockingCallWarning, Stream, run_async, run_sync
    from llmops_sdk.flow.effects import (
        END,
        Block,
        ByteSource,
        Effect,
        Emit,
        End,
        Flow,
        Gather,
        Invoke,
        Next,
        Race,
        Send,
        Sleep,
        Source,
        Transport,
        Wait,
    )
    from llmops_sdk.flow.model import Input, Model
    from llmops_sdk.flow.run import Run
    from llmops_sdk.flow.tapping import tap

__all__ = [
    "END",
    "Assembly",
    "Block",
    "BlockingCallWarning",
    "ByteSource",
    "Effect",
    "Emit",
    "End",
    "Flow",
    "Gather",
    "Input",
    "Invoke",
    "Model",
    "Next",
    "Race",
    "Run",
    "Send",
    "Sleep",
    "Source",
    "Stream",
    "Transport",
    "Wait",
    "run_async",
    "run_sync",
    "tap",
]

__getattr__ = bound_lazily(
    __name__,
    {
        "assembly": ("Assembly",),
        "drive": ("BlockingCallWarning", "Stream", "run_async", "run_sync"),
        "effects": (
            "END",
            "Block",
            "ByteSource",
            "Effect",
            "Emit",
            "End",
            "Flow",
            "Gather",
            "Invoke",
            "Next",
            "Race",
            "Send",
            "Sleep",
            "Source",
            "Transport",
            "Wait",
        ),
        "model": ("Input", "Model"),
        "run": ("Run",),
        "tapping": ("tap",),
    },
)
