"""What the two drivers share: stepping a flow, and the state that belongs to one flow being driven."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar, Final

from llmops_sdk.errors import DeadlineExceededError, FlowCancelled
from llmops_sdk.flow.effects import Race, expand
from llmops_sdk.flow.run import Run, stepping

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from llmops_sdk.flow.effects import Effect, Flow, Source
    from llmops_sdk.tracing import RecordedSpan
    from llmops_sdk.types import Usage


class _Returned:
    """The type of `RETURNED`."""

    __slots__ = ()


RETURNED: Final = _Returned()


class Driver:
    """One flow being driven: its frames, open spans, open sources and the time that it has.

    The two subclasses perform effects, one blocking, one awaiting; everything else is here.
    """

    __slots__ = (
        "completed",
        "deadline_s",
        "ended",
        "frames",
        "late",
        "lost",
        "parent",
        "result",
        "run",
        "sources",
        "spans",
    )

    holds_thread: ClassVar[bool]
    """Whether the flow keeps a thread until it ends."""

    def __init__(self, flow: Flow[Any], run: Run, parent: Context | None = None) -> None:
        self.frames: list[Flow[Any]] = [flow]
        self.run = run
        self.parent = run.parent if parent is None else parent
        self.deadline_s = run.deadline_s
        self.spans: list[RecordedSpan] = []
        self.sources: list[Source] = []
        self.result: Any = None
        self.ended = False
        self.completed = False
        self.late = False
        self.lost: Usage | None = None

    def resume(self, value: Any, error: BaseException | None) -> Effect | _Returned:
        """Step the flow to its next effect, or to its end with the answer in `result`. Its exceptions pass through."""
        if error is not None and isinstance(error, DeadlineExceededError):
            self.grant_closing_time()
        outer, stepping.driver = stepping.driver, self
        try:
            while True:
                frame = self.frames[-1]
                try:
                    effect = frame.send(value) if error is None else frame.throw(error)
                except StopIteration as stop:
                    self.frames.pop()
                    value, error = stop.value, None
                    if not self.frames:
                        self.result, self.completed = value, True
                        return RETURNED
                except BaseException as raised:
                    self.frames.pop()
                    if not self.frames:
                        raise _as_it_was(raised, error)  # noqa: B904 - the user's own error, with its own cause
                    value, error = None, raised
                else:
                    if type(effect) is not Race:
                        return effect
                    self.frames.append(expand(effect))
                    value = error = None
        finally:
            stepping.driver = outer
            error = None  # an exception that refers to this frame must not be kept alive by it

    @property
    def context(self) -> Context | None:
        """The context that must be current while an effect is performed; None is the caller's own."""
        return self.spans[-1].otel_context if self.spans else self.parent

    def remaining_s(self) -> float | None:
        """Seconds until the deadline. Raises `DeadlineExceededError` when there are none."""
        if self.deadline_s is None:
            return None
        left = self.deadline_s - time.monotonic()
        if left <= 0:
            raise self.too_late()
        return left

    def too_late(self) -> DeadlineExceededError:
        """The error of a passed deadline."""
        return DeadlineExceededError("The deadline of the call passed. Give it more time, or a faster model.")

    def grant_closing_time(self) -> None:
        """Once a deadline has passed, or the caller has gone, the flow has the closing time to clean up: once."""
        if not self.late:
            self.late = True
            self.deadline_s = time.monotonic() + self.run.settings.close_timeout_s

    def start_closing(self) -> FlowCancelled:
        """The signal to throw into the flow, which from now on has the closing time."""
        self.grant_closing_time()
        return FlowCancelled()

    def abandon(self) -> None:
        """Close the flow without performing anything more: the last resort. A flow's own errors here have no reader."""
        self.ended = True
        while self.frames:
            frame = self.frames.pop()
            try:
                frame.close()
            except Exception:
                pass


def _as_it_was(raised: BaseException, thrown: BaseException | None) -> BaseException:
    """The exception to raise. Python turns a StopIteration thrown into a generator into a RuntimeError; user code that
    raised one gets its own back.
    """
    if isinstance(raised, RuntimeError) and isinstance(thrown, StopIteration) and raised.__cause__ is thrown:
        return thrown
    return raised
