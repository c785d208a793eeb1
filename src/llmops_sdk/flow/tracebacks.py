"""Tracebacks that lead from the call to the user's own code, without the dozen frames of layers and drivers between."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from llmops_sdk.errors import LLMOpsError

if TYPE_CHECKING:
    from types import TracebackType

_CALLERS: Final = {
    ("llmops_sdk.flow.sync_driver", "_invoke"),
    ("llmops_sdk.flow.async_driver", "_invoke"),
    ("llmops_sdk.flow.threads", "_call"),
}
"""Where user functions are called, by module and name: the async driver is not imported for this."""


def shorten(error: BaseException) -> None:
    """Take the SDK's frames out of the traceback of an error of user code: those after the first, up to where a driver
    called the user's function. Frames of others stay, such as those of a model of the user's own.

    Nothing is taken from our own errors, from errors that did not come out of a user's function, whose origin is then in
    the SDK, and where the environment has `LLMOPS_DEBUG=1`.
    """
    first = error.__traceback__
    if first is None or isinstance(error, LLMOpsError) or os.environ.get("LLMOPS_DEBUG") == "1":
        return
    body = _body(first)
    if body is None:
        return
    kept, entry = first, first.tb_next
    while entry is not None and entry is not body:
        if not _is_ours(entry):
            kept.tb_next = entry
            kept = entry
        entry = entry.tb_next
    kept.tb_next = body


def _body(first: TracebackType) -> TracebackType | None:
    """The entry of the user's function, if that is where the error came from."""
    entry = first
    while (inner := entry.tb_next) is not None:
        caller = (_module(entry), entry.tb_frame.f_code.co_name)
        if caller in _CALLERS and not _is_ours(inner):
            return inner
        entry = inner
    return None


def _module(entry: TracebackType) -> str:
    return str(entry.tb_frame.f_globals.get("__name__"))


def _is_ours(entry: TracebackType) -> bool:
    return _module(entry).startswith("llmops_sdk.")
