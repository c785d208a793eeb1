"""`@guard`: checks on what goes into a function and on what comes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Never, TypeVar

from llmops_sdk.decorators.call import rebuilt
from llmops_sdk.decorators.function import decorated
from llmops_sdk.decorators.keywords import refuse_unknown
from llmops_sdk.decorators.stepping import HELD
from llmops_sdk.decorators.trace import end, span_name
from llmops_sdk.errors import DecoratorError
from llmops_sdk.guards.layer import OnError, Screen, StreamScreen, Tally, screened_stream
from llmops_sdk.tracing import semconv, start_span
from llmops_sdk.types import Delta

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from llmops_sdk.decorators.call import Call, Inner, Outcome
    from llmops_sdk.flow import Flow, Run
    from llmops_sdk.guards.check import Check
    from llmops_sdk.tracing import RecordedSpan

F = TypeVar("F", bound="Callable[..., Any]")


class GuardLayer:
    """Input checks, the call, output checks, under one span that holds every verdict."""

    def __init__(self, inputs: tuple[Check, ...], outputs: tuple[Check, ...], on_error: OnError) -> None:
        self.inputs = Screen(checks=inputs, stage="input", on_error=on_error)
        self.outputs = Screen(checks=outputs, stage="output", on_error=on_error)

    def around(self, call: Call, inner: Inner) -> Flow[Outcome]:
        """Check, call, check. Raises `GuardError`."""
        with call.run.span(f"guard {span_name(call.function)}", attributes=_ATTRIBUTES) as span:
            call = yield from self.checked_call(call, span)
            if call.want == "render":
                return (yield from inner(call))
            flow = inner(call)
            if call.want == "stream" and self.outputs.checks:
                outcome: Outcome = yield from screened_stream(flow, self.outputs, span)
            else:
                outcome = yield from flow
            return (yield from self._checked_outcome(outcome, span))

    def checked_call(self, call: Call, span: RecordedSpan) -> Flow[Call]:
        """The call with what the checks left of its arguments. Raises `GuardError`."""
        arguments = call.arguments()
        values = list(arguments.values())
        checked = yield from self.inputs.value(values, span)
        return call if checked is values else rebuilt(call, dict(zip(arguments, checked, strict=True)))

    def _checked_outcome(self, outcome: Outcome, span: RecordedSpan) -> Flow[Outcome]:
        """Value and message are checked as one, since they mostly hold the same text."""
        message = None if outcome.response is None else outcome.response.message
        value, message = yield from self.outputs.value((outcome.value, message), span)
        if outcome.response is None:
            return dataclasses.replace(outcome, value=value)
        response = dataclasses.replace(outcome.response, message=message, parsed=value)
        return dataclasses.replace(outcome, value=value, response=response)

    def passage(self, call: Call) -> GuardPassage:
        """Check the arguments before the first item, and the text of the items as it comes."""
        return GuardPassage(self, call)


class GuardPassage:
    """One iteration of a guarded generator.

    With output checks, text (str or `Delta` items) is held until a sentence ends; other items are checked one by one.
    """

    run: Run
    context: Context

    def __init__(self, layer: GuardLayer, call: Call) -> None:
        self._layer = layer
        self.run = call.run
        self._kind: type = str

    def begin(self, call: Call) -> Flow[Call]:
        """Open the span and check the arguments. Raises `GuardError`."""
        self._span = start_span(f"guard {span_name(call.function)}", attributes=_ATTRIBUTES)
        self.context = self._span.otel_context
        self.run = dataclasses.replace(self.run, parent=self.context)
        self._tally = Tally("output", self._span)
        self._gate = StreamScreen(self._layer.outputs, self._tally)
        return self._layer.checked_call(call, self._span)

    def each(self, item: Any) -> Flow[Any] | None:
        """What may leave for an item. Raises `GuardError`."""
        if not self._layer.outputs.checks:
            return None
        if isinstance(item, str | Delta):
            self._kind = type(item)
            return self._text(item)
        return self._layer.outputs.value(item, self._span)

    def _text(self, item: str | Delta) -> Flow[Any]:
        if not isinstance(item, Delta):
            return (yield from self._gate.feed(item)) or HELD
        ready = yield from self._gate.feed(item.text)
        rest = yield from self._layer.outputs.value(item._replace(text=""), self._span)
        return rest._replace(text=ready) if ready or any(rest) else HELD

    def last(self) -> Flow[Any]:
        """The text still held."""
        rest = yield from self._gate.finish()
        if not rest:
            return HELD
        return Delta(text=rest) if issubclass(self._kind, Delta) else rest

    def returned(self, value: Any) -> Flow[Any]:
        """Check what the generator returns, which `yield from` hands to its reader. Raises `GuardError`."""
        return self._layer.outputs.value(value, self._span)

    def end(self, error: BaseException | None, result: Any) -> None:
        """Put the verdicts on the span and end it."""
        self._tally.record()
        end(self._span, error)


_ATTRIBUTES = {semconv.OPENINFERENCE_SPAN_KIND: "GUARDRAIL"}


def guard(
    *checks: Check, output: Iterable[Check] = (), on_error: OnError = "block", **unknown: Never
) -> Callable[[F], F]:
    """Run `checks` on every text among the arguments, and `output` on every text of the result, before anybody sees it.

    A check that blocks raises `GuardBlockedError`; one that redacts changes the text. What a check cannot decide,
    because it raised, is blocked; `on_error="allow"` lets it pass and says so on the span, and `on_error="raise"` raises
    `GuardCheckError`. Either error has the check's own as its cause. Streams are held until a sentence ends. The
    decorated function keeps its type. Raises `DecoratorError` for a wrong use.
    """
    refuse_unknown(
        "guard", unknown, ("output", "on_error"), "What is checked on the way in comes first: @guard(check)."
    )
    inputs, outputs = _checks("guard", checks), _checks("guard(output=…)", output)
    if on_error not in ("block", "allow", "raise"):
        raise DecoratorError(f'@guard(on_error=…) is "block", "allow" or "raise"; it is {on_error!r}.')
    if not inputs and not outputs:
        raise DecoratorError("@guard needs at least one check: @guard(Injection()) or @guard(output=[Secrets()]).")
    layer = GuardLayer(inputs, outputs, on_error)
    return lambda target: decorated("guard", target, layer)


def _checks(where: str, checks: Iterable[Any]) -> tuple[Check, ...]:
    if not isinstance(checks, Iterable):
        raise DecoratorError(f"@{where} takes a list of checks; it is {type(checks).__name__}. Write [{checks!r}].")
    for check in (found := tuple(checks)):
        if isinstance(check, type):
            raise DecoratorError(f"@{where} takes checks, not classes: write {check.__name__}().")
        if not callable(getattr(check, "check", None)) or not isinstance(getattr(check, "name", None), str):
            raise DecoratorError(
                f"@{where} takes checks, objects with a name and a method check(text) that returns a Verdict; "
                f"this is {type(check).__name__}. If you meant to decorate with it, write @guard(Injection())."
            )
    return found
