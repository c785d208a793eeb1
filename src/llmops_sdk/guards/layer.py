"""How checks are run around a call: on what goes in, on what comes out, and on a stream as it comes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from llmops_sdk.guards.sentences import last_boundary

from llmops_sdk.errors import GuardBlockedError, UsageError
from llmops_sdk.flow import Emit, Invoke, tap
from llmops_sdk.tracing import semconv
from llmops_sdk.types import Delta, Verdict

if TYPE_CHECKING:
    from llmops_sdk.guards.check import Check

    from llmops_sdk.flow import Flow
    from llmops_sdk.tracing import RecordedSpan

OnError: TypeAlias = Literal["block", "allow"]
Stage: TypeAlias = Literal["input", "output"]

DEEPEST: Final = 12
"""Nesting of arguments and results down to which texts are looked for; what lies deeper is refused."""

HOLD_CHARS: Final = 2000
"""Most characters of a stream that are held back while no sentence ends."""

OVERLAP_CHARS: Final = 200
"""Characters already let go that are checked again with the next piece, so that nothing hides across the cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """Checks for one direction, and what happens when one of them fails to run."""

    checks: tuple[Check, ...]
    stage: Stage
    on_error: OnError = "block"

    def value(self, value: Any, span: RecordedSpan) -> Flow[Any]:
        """Check every text in a value; the value comes back with redactions made. Raises `GuardBlockedError`."""
        if not self.checks:
            return value
        texts: list[str] = []
        rebuilt(value, lambda text: texts.append(text) or text)  # type: ignore[func-returns-value]  # only collects
        replaced: dict[str, str] = {}
        for text in dict.fromkeys(texts):
            replaced[text] = yield from self.text(text, span)
        if all(old == new for old, new in replaced.items()):
            return value
        return rebuilt(value, lambda text: replaced[text])

    def text(self, text: str, span: RecordedSpan) -> Flow[str]:
        """Check one text, each check on what the one before it left. Raises `GuardBlockedError`."""
        verdicts: list[Verdict] = []
        for check in self.checks:
            verdict = yield from self._verdict(check, text)
            verdicts.append(verdict)
            _record(verdict, self.stage, span)
            if verdict.action == "block":
                raise GuardBlockedError(
                    f"{verdict.check} blocked the {self.stage}: {verdict.reason or 'no reason given'}",
                    verdicts=verdicts,
                    stage=self.stage,
                )
            if verdict.action == "redact" and verdict.text is not None:
                text = verdict.text
        return text

    def _verdict(self, check: Check, text: str) -> Flow[Verdict]:
        try:
            verdict = yield Invoke(check.check, (text,))
        except UsageError:
            raise
        except Exception as error:
            reason = f"the check failed: {type(error).__name__}: {error}"
            return Verdict(check=check.name, action="block" if self.on_error == "block" else "annotate", reason=reason)
        if not isinstance(verdict, Verdict):
            raise UsageError(f"The check {check.name} returned {type(verdict).__name__}; it must return a Verdict.")
        return verdict


class StreamScreen:
    """Holds a text stream back until a sentence ends, and lets it go as the checks leave it."""

    def __init__(self, screen: Screen, span: RecordedSpan) -> None:
        self._screen = screen
        self._span = span
        self._held = ""
        self._passed = ""
        self.text = ""

    def feed(self, text: str) -> Flow[str]:
        """Take the next piece; the answer is what may leave now, often "". Raises `GuardBlockedError`."""
        self._held += text
        cut = last_boundary(self._held)
        if cut == 0 and len(self._held) >= HOLD_CHARS:
            cut = len(self._held) - OVERLAP_CHARS
        if cut == 0:
            return ""
        ready, self._held = self._held[:cut], self._held[cut:]
        return (yield from self._release(ready))

    def finish(self) -> Flow[str]:
        """The rest, once no more comes. Raises `GuardBlockedError`."""
        ready, self._held = self._held, ""
        return (yield from self._release(ready)) if ready else ""

    def _release(self, ready: str) -> Flow[str]:
        """Check a piece together with the end of what has left: what only the two together show is blocked."""
        checked = yield from self._screen.text(ready, self._span)
        before = self._passed[-OVERLAP_CHARS:]
        if before:
            whole = yield from self._screen.text(before + checked, self._span)
            if whole != before + checked:
                checked = whole[len(before) :] if whole.startswith(before) else _covered(whole, before)
        self._passed = (self._passed + checked)[-OVERLAP_CHARS:]
        self.text += checked
        return checked


def _covered(whole: str, before: str) -> str:
    """What may leave of a redacted text whose beginning has left already: all after the common beginning."""
    common = 0
    for old, new in zip(before, whole, strict=False):
        if old != new:
            break
        common += 1
    return whole[common:]


def screened_stream(flow: Flow[Any], screen: Screen, span: RecordedSpan) -> Flow[Any]:
    """A flow whose text deltas pass through a `StreamScreen`; other deltas pass as they are."""
    gate = StreamScreen(screen, span)

    def let_go(delta: Delta) -> Flow[None]:
        if delta.text:
            ready = yield from gate.feed(delta.text)
            if ready:
                yield Emit(delta._replace(text=ready))
            elif any(delta[1:]):
                yield Emit(delta._replace(text=""))
            return
        if delta.finish_reason is not None and (ready := (yield from gate.finish())):
            yield Emit(Delta(text=ready))
        yield Emit(delta)

    result = yield from tap(flow, let_go)
    ready = yield from gate.finish()
    if ready:
        yield Emit(Delta(text=ready))
    return result


def _record(verdict: Verdict, stage: Stage, span: RecordedSpan) -> None:
    told: dict[str, Any] = {
        semconv.LLMOPS_GUARD_CHECK: verdict.check,
        semconv.LLMOPS_GUARD_ACTION: verdict.action,
        "llmops.guard.stage": stage,
        "llmops.guard.score": verdict.score,
        "llmops.guard.threshold": verdict.threshold,
        "llmops.guard.reason": verdict.reason or None,
    }
    span.add_event("llmops.guard.verdict", {name: value for name, value in told.items() if value is not None})
    if verdict.action != "pass":
        span.set_attribute(semconv.LLMOPS_GUARD_ACTION, verdict.action)


def rebuilt(value: Any, change: Any, depth: int = 0) -> Any:
    """`value` with `change` applied to every text in it: containers, dataclasses and pydantic models are followed.

    What holds no changed text comes back as the same object. Raises `GuardBlockedError` below `DEEPEST` levels.
    """
    if isinstance(value, str):
        changed = change(value)
        return value if changed == value else changed
    if value is None or isinstance(value, bool | int | float | complex | bytes | bytearray | type):
        return value
    if depth >= DEEPEST:
        raise GuardBlockedError(
            f"An argument is nested deeper than {DEEPEST} levels and cannot be checked. Flatten it."
        )
    if isinstance(value, Mapping):
        pairs = {rebuilt(k, change, depth + 1): rebuilt(v, change, depth + 1) for k, v in value.items()}
        return value if pairs == value else pairs
    if isinstance(value, list | tuple | set | frozenset):
        items = [rebuilt(item, change, depth + 1) for item in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return _rebuilt_object(value, change, depth)


def _rebuilt_object(value: Any, change: Any, depth: int) -> Any:
    if dataclasses.is_dataclass(value):
        names: Sequence[str] = [f.name for f in dataclasses.fields(value) if f.init]
    elif hasattr(type(value), "model_fields"):
        names = list(type(value).model_fields)
    else:
        return value
    changed = {}
    for name in names:
        old = getattr(value, name)
        new = rebuilt(old, change, depth + 1)
        if new is not old:
            changed[name] = new
    if not changed:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **changed)
    return value.model_copy(update=changed)
