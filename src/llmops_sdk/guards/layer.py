"""How checks are run around a call: on what goes in, on what comes out, and on a stream as it comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from llmops_sdk.errors import DeadlineExceededError, GuardBlockedError, GuardCheckError, UsageError
from llmops_sdk.flow import Emit, Invoke, tap
from llmops_sdk.guards.sentences import next_boundary
from llmops_sdk.guards.texts import rebuilt, texts_of
from llmops_sdk.tracing import semconv
from llmops_sdk.types import Delta, ToolCallDelta, Verdict

if TYPE_CHECKING:
    from llmops_sdk.flow import Flow
    from llmops_sdk.guards.check import Check
    from llmops_sdk.tracing import RecordedSpan

OnError: TypeAlias = Literal["block", "allow", "raise"]
Stage: TypeAlias = Literal["input", "output"]

HOLD_CHARS: Final = 8000
"""Most characters of a stream that are held back while no sentence ends."""

OVERLAP_CHARS: Final = 200
"""At least so much of what has left is checked again with the next sentence, so that nothing hides across the cut."""

_SEVERITY: Final = ("pass", "annotate", "redact", "block")


class Tally:
    """The verdicts of one direction of a call. The span gets one event a check: its worst verdict, and of how many."""

    def __init__(self, stage: Stage, span: RecordedSpan) -> None:
        self._stage = stage
        self._span = span
        self._worst: dict[str, Verdict] = {}
        self._texts: dict[str, int] = {}

    def add(self, verdict: Verdict) -> None:
        """Count a verdict."""
        worst = self._worst.get(verdict.check)
        if worst is None or _rank(verdict) > _rank(worst):
            self._worst[verdict.check] = verdict
        self._texts[verdict.check] = self._texts.get(verdict.check, 0) + 1

    def record(self) -> None:
        """Put what was counted since the last time on the span."""
        for name, verdict in self._worst.items():
            told: dict[str, Any] = {
                semconv.LLMOPS_GUARD_CHECK: name,
                semconv.LLMOPS_GUARD_ACTION: verdict.action,
                semconv.LLMOPS_GUARD_STAGE: self._stage,
                semconv.LLMOPS_GUARD_SCORE: verdict.score,
                semconv.LLMOPS_GUARD_THRESHOLD: verdict.threshold,
                semconv.LLMOPS_GUARD_REASON: verdict.reason or None,
                semconv.LLMOPS_GUARD_TEXTS: self._texts[name],
            }
            attributes = {key: value for key, value in told.items() if value is not None}
            self._span.add_event(semconv.LLMOPS_GUARD_VERDICT_EVENT, attributes)
        worst = max((v.action for v in self._worst.values()), key=_SEVERITY.index, default="pass")
        if worst != "pass":
            self._span.set_attribute(semconv.LLMOPS_GUARD_ACTION, worst)
        self._worst.clear()
        self._texts.clear()


def _rank(verdict: Verdict) -> tuple[int, float]:
    return _SEVERITY.index(verdict.action), verdict.score if verdict.score is not None else float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """Checks for one direction, and what happens when one of them fails to run."""

    checks: tuple[Check, ...]
    stage: Stage
    on_error: OnError = "block"

    def value(self, value: Any, span: RecordedSpan) -> Flow[Any]:
        """Check every text in a value; the value comes back with redactions made. Raises `GuardError`."""
        if not self.checks:
            return value
        tally = Tally(self.stage, span)
        replaced: dict[str, str] = {}
        try:
            for text in texts_of(value):
                replaced[text] = yield from self.text(text, tally)
        finally:
            tally.record()
        return rebuilt(value, replaced.__getitem__)

    def text(self, text: str, tally: Tally) -> Flow[str]:
        """Check one text, each check on what the one before it left.

        Raises `GuardBlockedError`, or with `on_error="raise"` a `GuardCheckError` for a check that failed to run; the
        check's own error is the cause.
        """
        verdicts: list[Verdict] = []
        for check in self.checks:
            verdict, failure = yield from self._verdict(check, text)
            verdicts.append(verdict)
            tally.add(verdict)
            if failure is not None and self.on_error == "raise":
                raise GuardCheckError(f"{check.name} could not check the {self.stage}: {verdict.reason}") from failure
            if verdict.action == "block":
                raise GuardBlockedError(
                    f"{verdict.check} blocked the {self.stage}: {verdict.reason or 'no reason given'}",
                    verdicts=verdicts,
                    stage=self.stage,
                ) from failure
            if verdict.action == "redact":
                text = verdict.text or ""
        return text

    def _verdict(self, check: Check, text: str) -> Flow[tuple[Verdict, Exception | None]]:
        """The verdict, and the error of a check that failed: of that the verdict names the type only, since a message
        may hold the text.
        """
        try:
            verdict = yield Invoke(check.check, (text,))
        except (UsageError, DeadlineExceededError):
            raise
        except Exception as error:  # whatever a check raises, it has not said that the text is fine
            action: Literal["annotate", "block"] = "annotate" if self.on_error == "allow" else "block"
            return Verdict(check=check.name, action=action, reason=f"the check failed: {type(error).__name__}"), error
        return _understood(check, verdict), None


def _understood(check: Check, verdict: Any) -> Verdict:
    """The verdict, if it is one: a misspelt action would let everything pass. Raises `UsageError`."""
    if not isinstance(verdict, Verdict):
        raise UsageError(f"The check {check.name} returned {type(verdict).__name__}; it must return a Verdict.")
    if verdict.action not in _SEVERITY:
        known = ", ".join(_SEVERITY)
        raise UsageError(f"The check {check.name} returned the action {verdict.action!r}; there are {known}.")
    if verdict.action == "redact" and verdict.text is None:
        raise UsageError(f"The check {check.name} redacts but gives no text; put the replacement into Verdict(text=…).")
    return verdict


class StreamScreen:
    """Holds a text stream back until a sentence ends, and lets each sentence go as the checks leave it.

    What leaves depends on the text, not on how it was cut into pieces: it goes sentence by sentence, each checked alone and
    together with the end of what has left.
    """

    def __init__(self, screen: Screen, tally: Tally) -> None:
        self._screen = screen
        self._tally = tally
        self._held = ""
        self._seen = 0
        self._before: list[tuple[str, str]] = []

    def feed(self, text: str) -> Flow[str]:
        """Take the next piece; the answer is what may leave now, often "". Raises `GuardError`."""
        self._held += text
        left = ""
        while cut := self._next_cut():
            ready, self._held, self._seen = self._held[:cut], self._held[cut:], 0
            left += yield from self._release(ready)
        return left

    def _next_cut(self) -> int:
        cut = next_boundary(self._held, seen=self._seen)
        if 0 < cut <= HOLD_CHARS:
            return cut
        self._seen = len(self._held)
        return HOLD_CHARS if len(self._held) >= HOLD_CHARS else 0

    def finish(self) -> Flow[str]:
        """The rest, once no more comes. Raises `GuardError`."""
        ready, self._held = self._held, ""
        return (yield from self._release(ready)) if ready else ""

    def _release(self, ready: str) -> Flow[str]:
        checked = yield from self._screen.text(ready, self._tally)
        if not self._before:
            self._remember(ready, checked)
            return checked
        raw, left = ("".join(part) for part in zip(*self._before, strict=True))
        whole = yield from self._screen.text(raw + ready, self._tally)
        if whole.startswith(left):
            together = whole[len(left) :]
            if together not in (ready, checked):
                checked = together if checked == ready else (yield from self._screen.text(together, self._tally))
            self._remember(ready, checked)
        else:  # what is to be redacted began in what has left: the rest of it stays
            checked = whole[_common(whole, left) :]
            self._before = [(raw + ready, whole)]
        return checked

    def _remember(self, raw: str, left: str) -> None:
        self._before.append((raw, left))
        spare = sum(len(part) for part, _ in self._before) - OVERLAP_CHARS
        while spare >= len(self._before[0][0]):
            spare -= len(self._before.pop(0)[0])


def _common(one: str, other: str) -> int:
    """The length of the common beginning of two texts."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


class DeltaScreen:
    """The screens of a stream of deltas: text, reasoning and refusal each have one; tool calls are held to their end."""

    def __init__(self, screen: Screen, span: RecordedSpan) -> None:
        self._screen = screen
        self._tally = Tally(screen.stage, span)
        self._channels = {name: StreamScreen(screen, self._tally) for name in ("text", "reasoning", "refusal")}
        self._arguments: dict[int, str] = {}

    def feed(self, delta: Delta) -> Flow[Delta | None]:
        """What may leave of a delta now, or None. Raises `GuardError`."""
        for name, channel in self._channels.items():
            if piece := getattr(delta, name):
                delta = _with(delta, name, (yield from channel.feed(piece)))
        if (call := delta.tool_call) is not None and call.arguments_json:
            self._arguments[call.number] = self._arguments.get(call.number, "") + call.arguments_json
            named = call._replace(arguments_json="") if call.id or call.name else None
            delta = delta._replace(tool_call=named)
        return delta if any(delta) else None

    def finish(self) -> Flow[list[Delta]]:
        """The rest, once no more comes. Raises `GuardError`."""
        rest = []
        for name, channel in self._channels.items():
            if piece := (yield from channel.finish()):
                rest.append(_with(Delta(), name, piece))
        held, self._arguments = self._arguments, {}
        for number, arguments in held.items():
            checked = yield from self._screen.text(arguments, self._tally)
            rest.append(Delta(tool_call=ToolCallDelta(number=number, arguments_json=checked)))
        return rest

    def record(self) -> None:
        """Put the verdicts on the span."""
        self._tally.record()


def _with(delta: Delta, name: str, piece: str) -> Delta:
    changed: dict[str, Any] = {name: piece}
    return delta._replace(**changed)


def screened_stream(flow: Flow[Any], screen: Screen, span: RecordedSpan) -> Flow[Any]:
    """A flow whose deltas leave as the checks let them; the end of the stream waits for what is held."""
    gate = DeltaScreen(screen, span)

    def let_go(delta: Delta) -> Flow[None]:
        out = yield from gate.feed(delta)
        if delta.finish_reason is not None:
            yield from flush()
        if out is not None:
            yield Emit(out)

    def flush() -> Flow[None]:
        for rest in (yield from gate.finish()):
            yield Emit(rest)

    try:
        result = yield from tap(flow, let_go)
        yield from flush()
    finally:
        gate.record()
    return result
