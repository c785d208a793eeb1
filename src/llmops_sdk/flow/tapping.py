"""`tap`: the one helper that steps an inner flow, for layers that must see or hold its deltas."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from llmops_sdk.errors import FlowCancelled
from llmops_sdk.flow.effects import Emit, Race, expand

if TYPE_CHECKING:
    from llmops_sdk.flow.effects import Flow
    from llmops_sdk.types import Delta

R = TypeVar("R")
OnEmit: TypeAlias = "Callable[[Delta], Flow[None] | None]"


def tap(flow: Flow[R], on_emit: OnEmit) -> Flow[R]:
    """Run `flow` and show each of its deltas to `on_emit` before it leaves.

    `on_emit` returns None to let the delta pass as it is, or a flow that stands in its place: it may emit other deltas,
    none, or wait for a check. If it raises, the inner flow is cancelled, cleans up, and the error goes on. Everything
    else, send, throw and close, is forwarded.
    """
    frames: list[Flow[Any]] = [flow]
    value: Any = None
    error: BaseException | None = None
    try:
        while True:
            try:
                effect = frames[-1].send(value) if error is None else frames[-1].throw(error)
            except StopIteration as stop:
                frames.pop()
                value, error = stop.value, None
                if not frames:
                    return value  # type: ignore[no-any-return]  # the outermost frame is `flow`, which returns R
                continue
            except BaseException as raised:
                frames.pop()
                if not frames:
                    raise
                value, error = None, raised
                continue
            value = error = None
            if type(effect) is Race:
                frames.append(expand(effect))
                continue
            try:
                instead = on_emit(effect.delta) if type(effect) is Emit else None
                if instead is None:
                    value = yield effect
                else:
                    yield from instead
            except GeneratorExit:
                raise
            except FlowCancelled as signal:
                error = signal
            except BaseException as raised:
                if type(effect) is not Emit:
                    error = raised
                    continue
                yield from _cancel(frames)
                raise
    finally:
        error = None  # its traceback holds this frame
        for frame in reversed(frames):
            frame.close()


def _cancel(frames: list[Flow[Any]]) -> Flow[None]:
    """Cancel the inner frames, performing what they do to clean up and dropping what they emit."""
    value: Any = None
    error: BaseException | None = FlowCancelled()
    try:
        while frames:
            try:
                effect = frames[-1].send(value) if error is None else frames[-1].throw(error)
            except StopIteration as stop:
                frames.pop()
                value, error = stop.value, None
                continue
            except (FlowCancelled, Exception) as raised:
                frames.pop()
                value, error = None, raised
                continue
            value = error = None
            if type(effect) is Emit:
                continue
            try:
                value = yield effect
            except (FlowCancelled, Exception) as raised:
                error = raised
    finally:
        error = None  # its traceback holds this frame
