"""What happens between a prompt body's return value and the typed answer."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmops_sdk.checks import written_as_message
from llmops_sdk.errors import OutputValidationError, PromptBodyError, UsageError
from llmops_sdk.flow import Model
from llmops_sdk.tracing import semconv
from llmops_sdk.types import Message, Request, Response

if TYPE_CHECKING:
    from llmops_sdk.flow import Flow, Run
    from llmops_sdk.prompts.version import PromptVersion
    from llmops_sdk.types import OutputSchema


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a prompt call came to. `response` is None where only the request was wanted."""

    request: Request
    response: Response | None = None
    value: Any = None


class PromptPlan:
    """A prompt as declared: everything but its body.

    Args:
        name: how errors and spans call it.
        model: a model, a model string, or None for the scope's or the settings' model.
        parameters: parameters of `Request` that the decorator set.
        output: the declared output type, or None for text.
        system: the system text, or None.
    """

    def __init__(
        self, *, name: str, model: str | Model | None, parameters: Mapping[str, Any], output: Any, system: str | None
    ) -> None:
        self.name = name
        self.model = model
        self.parameters = dict(parameters)
        self.output = output
        self.system = system
        self._schema: OutputSchema | None = None
        self._opened: dict[str, Model] = {}

    def request(self, body: object, overrides: Mapping[str, Any]) -> Request:
        """The request that a body's return value stands for. Raises `PromptBodyError`."""
        parameters = self.parameters | {name: value for name, value in overrides.items() if name != "model"}
        request = Request(messages=self._messages(body)).using(**parameters)
        if self.output is None:
            return request
        if self._schema is None:
            from llmops_sdk.models.structured import output_schema

            self._schema = output_schema(self.output)
        return dataclasses.replace(request, output=self._schema)

    def _messages(self, body: object) -> tuple[Message, ...]:
        if isinstance(body, str):
            turns: tuple[Message, ...] = (Message.user(body),)
        elif isinstance(body, Message):
            turns = (body,)
        elif isinstance(body, Sequence) and body and all(isinstance(turn, Message) for turn in body):
            turns = tuple(body)
        else:
            told = "an empty list" if isinstance(body, Sequence) and not body else type(body).__name__
            raise PromptBodyError(
                f"The body of the prompt {self.name} returned {told}; it must return a str, a Message or a list of them."
                f"{written_as_message(body)}"
            )
        return (Message.system(self.system), *turns) if self.system else turns

    def open(self, overrides: Mapping[str, Any], run: Run) -> Model:
        """The model to ask: the call's, else the scope's, else the settings', else the decorator's."""
        for wanted in (overrides.get("model"), run.scope.model, run.settings.model, self.model):
            if wanted is None:
                continue
            if isinstance(wanted, Model):
                return wanted
            if wanted not in self._opened:
                from llmops_sdk.models import model

                self._opened[wanted] = model(wanted)
            return self._opened[wanted]
        raise UsageError(
            f'The prompt {self.name} has no model. Write @prompt(model="openai:gpt-5-mini"), or set one for the '
            f"process (LLMOPS_MODEL, [tool.llmops] model) or the scope (using(model=…))."
        )

    def flow(
        self,
        body: Flow[Any],
        run: Run,
        overrides: Mapping[str, Any],
        version: Callable[[], PromptVersion],
        *,
        ask: bool,
    ) -> Flow[Answer]:
        """Body, request, model, typed value; with `ask` false, the request is all."""
        overrides = dict(run.scope.parameters) | dict(overrides)
        with run.span(f"prompt {self.name}", attributes=self._attributes(overrides, run, version())) as span:
            request = self.request((yield from body), overrides)
            if not ask:
                return Answer(request=request)
            model = self.open(overrides, run)
            response: Response = yield from model.flow(request, run)
            if not response.trace_id:
                response = dataclasses.replace(response, trace_id=span.trace_id, span_id=span.span_id)
            if self.output is None:
                return Answer(request=request, response=response, value=response.text)
            response = yield from self._parsed(model, request, response, run)
            return Answer(request=request, response=response, value=response.parsed)

    def _attributes(self, overrides: Mapping[str, Any], run: Run, version: PromptVersion) -> dict[str, Any]:
        told: dict[str, Any] = {
            semconv.OPENINFERENCE_SPAN_KIND: "PROMPT",
            semconv.GEN_AI_PROMPT_NAME: version.name,
            semconv.GEN_AI_PROMPT_VERSION: version.hash[:12],
            semconv.LLMOPS_PROMPT_HASH: version.hash,
        }
        changed = dict(overrides) | ({"model": run.scope.model} if run.scope.model and "model" not in overrides else {})
        for name, value in changed.items():
            told[f"{semconv.LLMOPS_PROMPT_OVERRIDE}.{name}"] = value.name if isinstance(value, Model) else str(value)
        return told

    def _parsed(self, model: Model, request: Request, response: Response, run: Run) -> Flow[Response]:
        """The response with its typed value; an answer that does not fit is sent back once, with what is wrong."""
        from llmops_sdk.models.structured import parse_output

        try:
            return dataclasses.replace(response, parsed=parse_output(self.output, response.text))
        except OutputValidationError as error:
            wrong = error
        with run.span(f"repair {self.name}", attributes={semconv.LLMOPS_REPAIR_REASON: str(wrong)}) as span:
            turns = (
                *request.messages,
                Message.assistant(response.text),
                Message.user(f"That answer cannot be used: {wrong.message} Answer again, with nothing but the JSON."),
            )
            again: Response = yield from model.flow(dataclasses.replace(request, messages=turns), run.quiet())
            try:
                parsed = parse_output(self.output, again.text)
            except OutputValidationError as error:
                span.set_attribute(semconv.LLMOPS_REPAIR_RESULT, "failed")
                error.partial = again
                raise
            span.set_attribute(semconv.LLMOPS_REPAIR_RESULT, "mended")
        usage = response.usage + again.usage
        cost = None if response.cost_usd is None or again.cost_usd is None else response.cost_usd + again.cost_usd
        return dataclasses.replace(again, parsed=parsed, usage=usage, cost_usd=cost, cached=False)


def docstring_of(function: Any) -> str | None:
    """The docstring, cleaned; read from the source where Python runs without docstrings (-OO)."""
    inner = inspect.unwrap(function)
    inner = inner.__func__ if isinstance(inner, classmethod | staticmethod) else inner
    if inner.__doc__:
        return inspect.cleandoc(inner.__doc__)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inner)))
    except (OSError, TypeError, SyntaxError):
        return None
    node = tree.body[0]
    return ast.get_docstring(node) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else None
