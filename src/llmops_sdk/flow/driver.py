"""What the two drivers share: stepping a flow, and the state that belongs to one flow being driven."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from llmops_sdk.errors import DeadlineExceededError, FlowCancelled, UsageError
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

_SLACK_S: Final = 0.01
"""A `DeadlineExceededError` this near to the flow's own deadline is its own, and not that of a call made inside it:
clocks of event loops and transports are that exact.
"""


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
        "performing",
        "result",
        "run",
        "sources",
        "spans",
    )

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
        self.performing = False
        self.late = False
        self.lost: Usage | None = None

    def caller(self) -> object:
        """The thread or task that steps this flow."""
        raise NotImplementedError

    def resume(self, value: Any, error: BaseException | None) -> Effect | _Returned:
        """Step the flow to its next effect, or to its end with the answer in `result`. Its exceptions pass through."""
        if error is not None and isinstance(error, DeadlineExceededError) and self.out_of_time(_SLACK_S):
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
                    if _is_running(frame):
                        raise self.busy() from None
                    self.frames.pop()
                    value, error = None, _as_it_was(raised, error)
                    if error is raised and not self.frames:
                        raise
                else:
                    if type(effect) is not Race:
                        return effect
                    self.frames.append(expand(effect))
                    value = error = None
                if error is not None and not self.frames:
                    raise error  # out here, where it gets no context of ours
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

    def out_of_time(self, slack_s: float = 0.0) -> bool:
        """Whether the deadline has passed, or does within `slack_s`."""
        return self.deadline_s is not None and self.deadline_s - time.monotonic() <= slack_s

    def too_late(self) -> DeadlineExceededError:
        """The error of a passed deadline."""
        return DeadlineExceededError("The deadline of the call passed. Give it more time, or a faster model.")

    def grant_closing_time(self) -> None:
        """Once a deadline has passed, or the caller has gone, the flow has the closing time to clean up: once."""
        if not self.late:
            self.late = True
            self.deadline_s = time.monotonic() + self.run.settings.close_timeout_s

    def busy(self) -> UsageError:
        """The error of a second reader, who would take the answers that the flow expects for the first one."""
        return UsageError(
            "This stream is being read at this moment, by another thread or task or by what the call itself runs. "
            "Let one read and close it; to end it from elsewhere, cancel that task."
        )

    def check_idle(self) -> None:
        """Raise `UsageError` while somebody else is stepping the flow or performing its effect."""
        if self.performing or (self.frames and _is_running(self.frames[-1])):
            raise self.busy()

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
            except (FlowCancelled, Exception):
                pass


def _is_running(frame: Flow[Any]) -> bool:
    """Whether another thread, or code that the flow itself called, stands inside of it."""
    return bool(getattr(frame, "gi_running", False))


def _as_it_was(raised: BaseException, thrown: BaseException | None) -> BaseException:
    """The exception to raise. Python turns a StopIteration thrown into a generator into a RuntimeError; user code that
    raised one gets its own back.
    """
    if isinstance(raised, RuntimeError) and isinstance(thrown, StopIteration) and raised.__cause__ is thrown:
        return thrown
    return raised
