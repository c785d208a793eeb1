"""Many calls of one prompt: bounded, in order, with progress where it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from llmops_sdk.errors import UsageError
from llmops_sdk.flow import Gather, run_async, run_sync
from llmops_sdk.flow.run import Run

if TYPE_CHECKING:
    from llmops_sdk.decorators.call import Outcome
    from llmops_sdk.decorators.prompt import AsyncPrompt, Prompt
    from llmops_sdk.flow import Flow


def batched(
    prompt: Prompt[..., Any], inputs: Iterable[Any], *, concurrency: int, on_error: str, progress: bool
) -> list[Any]:
    """The values of all calls, in order."""
    run = Run.start()
    with _Progress(progress) as told:
        return run_sync(_gathered(prompt, inputs, run, concurrency, on_error, told), run)


async def batched_async(
    prompt: AsyncPrompt[..., Any], inputs: Iterable[Any], *, concurrency: int, on_error: str, progress: bool
) -> list[Any]:
    """The values of all calls, in order."""
    run = Run.start()
    with _Progress(progress) as told:
        return await run_async(_gathered(prompt, inputs, run, concurrency, on_error, told), run)


def _gathered(prompt: Any, inputs: Iterable[Any], run: Run, limit: int, on_error: str, told: _Progress) -> Flow[Any]:
    if on_error not in ("raise", "return"):
        raise UsageError(f'on_error is "raise" or "return"; it is {on_error!r}.')
    if limit < 1:
        raise UsageError(f"concurrency is at least 1; it is {limit}.")
    if isinstance(inputs, str | bytes | Mapping) or not isinstance(inputs, Iterable):
        raise UsageError(f"batch takes a list of inputs; it was given {_shortened(inputs)}. For one input, write [it].")
    each_s = prompt._deadline_s  # noqa: SLF001 - its own

    def one(given: Any) -> Flow[Any]:
        args, kwargs = _arguments(given)
        call = prompt._call(args, kwargs, "value", run.within(each_s))  # noqa: SLF001 - its own
        outcome: Outcome = yield from prompt._flow(call)  # noqa: SLF001 - its own
        told.advance()
        return outcome.value

    flows = [one(given) for given in inputs]
    told.expect(len(flows))
    return (yield Gather(flows, limit, return_errors=on_error == "return", each_s=each_s))


def _shortened(inputs: Any) -> str:
    return f"{type(inputs).__name__} {str(inputs)[:60]!r}"


def _arguments(given: Any) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    if isinstance(given, tuple):
        return given, {}
    if isinstance(given, Mapping):
        return (), given
    return (given,), {}


class _Progress:
    """A bar on standard error, or nothing."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._lock = threading.Lock()
        self._tick: Callable[[int | None], None] = lambda total: None

    def __enter__(self) -> Self:
        if self._wanted:
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._bar.start()
            task = self._bar.add_task("calls", total=None)
            self._tick = lambda total: self._bar.advance(task) if total is None else self._bar.update(task, total=total)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._wanted:
            self._bar.stop()

    def expect(self, total: int) -> None:
        self._tick(total)

    def advance(self) -> None:
        with self._lock:
            self._tick(None)
