"""`@prompt`: a function that returns what to ask becomes a function that returns the answer."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypeAlias,
    TypeVar,
    overload,
)

from llmops_sdk.decorators.batch import batched, batched_async
from llmops_sdk.decorators.call import Call, Outcome
from llmops_sdk.decorators.keywords import refuse_unknown
from llmops_sdk.decorators.trace import span_name
from llmops_sdk.decorators.wrapper import Wrapper, check_target, mode_of
from llmops_sdk.errors import DecoratorError
from llmops_sdk.flow import Invoke, Model, Stream, run_async, run_sync
from llmops_sdk.flow.model import streaming_run
from llmops_sdk.flow.run import Run
from llmops_sdk.models.strings import check_model_string
from llmops_sdk.prompts.call import PromptPlan, docstring_of
from llmops_sdk.prompts.version import PromptVersion, VersionTracker
from llmops_sdk.types import Message, Request, Response

if TYPE_CHECKING:
    from llmops_sdk.flow import Flow

P = ParamSpec("P")
Q = ParamSpec("Q")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
Body: TypeAlias = str | Message | Sequence[Message]
OnBatchError: TypeAlias = Literal["raise", "return"]

_FOR_PROVIDER = "What only the provider knows goes into extra={…}."
_TYPES_OF_TYPES = ("typing", "types", "typing_extensions")
"""Where the classes of `list[str]`, `int | None`, `Annotated[…]` and their like are defined."""

PARAMETERS = ("temperature", "top_p", "max_tokens", "stop", "seed")


class _PromptBase(Wrapper):
    """What prompts of both kinds share."""

    def __init__(self, target: Any, plan: PromptPlan, tracker: VersionTracker) -> None:
        super().__init__(target)
        self._plan = plan
        self._tracker = tracker
        self._overrides: Mapping[str, Any] = {}
        self._deadline_s: float | None = None

    @property
    def version(self) -> PromptVersion:
        """The version of this prompt as its code stands now."""
        return self._tracker.current()

    def using(self, *, deadline_s: float | None = None, **overrides: Any) -> Self:
        """The same prompt with another `model` or other parameters. The version stays; the span shows the override.

        `deadline_s` bounds each whole call in seconds, its body, guards, retries and repair included; of a batch each
        input's, of a stream from `.stream(…)` to its end. Then the call raises `DeadlineExceededError`. None leaves it.
        """
        refuse_unknown("prompt", overrides, ("model", *PARAMETERS, "extra", "deadline_s"), _FOR_PROVIDER)
        if isinstance(overrides.get("model"), str):
            check_model_string(overrides["model"])
        extra = overrides.pop("extra", None) or {}
        again = self._copy()
        again._overrides = {**self._overrides, **overrides, **extra}  # noqa: SLF001 - a copy of this very object
        if deadline_s is not None:
            again._deadline_s = _checked_seconds(deadline_s)  # noqa: SLF001 - as above
        return again

    def __reduce__(self) -> tuple[Any, ...]:
        """By name, with the overrides of `using`, which must be picklable themselves."""
        named = self._named(may_differ=frozenset({"_overrides", "_deadline_s"}))
        if named._overrides is self._overrides and named._deadline_s == self._deadline_s:  # noqa: SLF001 - of this class
            return super().__reduce__()
        return _overridden, (named, dict(self._overrides), self._deadline_s)

    def _call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], want: Any, run: Run) -> Call:
        return Call(function=self._target, args=args, kwargs=kwargs, want=want, run=run, overrides=self._overrides)

    def _core(self, call: Call) -> Flow[Outcome]:
        def body() -> Flow[Any]:
            return (yield Invoke(call.function, call.args, call.kwargs))

        ask = call.want != "render"
        answer = yield from self._plan.flow(body(), call.run, call.overrides, self._tracker.current, ask=ask)
        return Outcome(value=answer.value, response=answer.response, request=answer.request)

    def _stream(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Stream[Response]:
        call = self._call(args, kwargs, "stream", streaming_run(self._deadline_s))
        return Stream(_response(self._flow(call)), call.run)


def _overridden(prompt: _PromptBase, overrides: Mapping[str, Any], deadline_s: float | None) -> _PromptBase:
    """A prompt with overrides, out of a pickle."""
    again = prompt._copy()  # noqa: SLF001 - the same class
    again._overrides = overrides  # noqa: SLF001 - as above
    again._deadline_s = deadline_s  # noqa: SLF001 - as above
    return again


def _checked_seconds(deadline_s: Any) -> float:
    if isinstance(deadline_s, bool) or not isinstance(deadline_s, int | float) or not deadline_s > 0:
        raise DecoratorError(f"using(deadline_s=…) is a number of seconds above 0; it is {deadline_s!r}.")
    return float(deadline_s)


def _response(flow: Flow[Outcome]) -> Flow[Response]:
    outcome = yield from flow
    assert outcome.response is not None
    return outcome.response


class Prompt(_PromptBase, Generic[P, R_co]):
    """A decorated prompt function. Calling it asks the model and returns the answer."""

    @overload
    def __get__(self, instance: None, owner: type, /) -> Self: ...
    @overload
    def __get__(
        self: Prompt[Concatenate[Any, Q], T], instance: object, owner: type | None = None, /
    ) -> Prompt[Q, T]: ...
    # the second overload gives `self` a narrower type, which pyright does not compare with the base
    def __get__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, instance: Any, owner: type | None = None, /
    ) -> Any:
        """Bind as a method."""
        return super().__get__(instance, owner)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Ask, and return the answer as the declared output type."""
        return self._ask(args, kwargs, "value").value  # type: ignore[no-any-return]  # the plan gives the output type

    def response(self, /, *args: P.args, **kwargs: P.kwargs) -> Response:
        """Ask, and return the whole response; `parsed` holds the typed answer."""
        response = self._ask(args, kwargs, "response").response
        assert response is not None
        return response

    def stream(self, /, *args: P.args, **kwargs: P.kwargs) -> Stream[Response]:
        """The answer as it comes. Nothing is asked before the first delta is."""
        return self._stream(args, kwargs)

    def render(self, /, *args: P.args, **kwargs: P.kwargs) -> Request:
        """The request that a call would send; nothing is asked."""
        request = self._ask(args, kwargs, "render").request
        assert request is not None
        return request

    @overload
    def batch(
        self,
        inputs: Iterable[Any],
        *,
        concurrency: int = 8,
        on_error: Literal["raise"] = "raise",
        progress: bool = False,
    ) -> list[R_co]: ...
    @overload
    def batch(
        self, inputs: Iterable[Any], *, concurrency: int = 8, on_error: Literal["return"], progress: bool = False
    ) -> list[R_co | Exception]: ...
    def batch(
        self, inputs: Iterable[Any], *, concurrency: int = 8, on_error: OnBatchError = "raise", progress: bool = False
    ) -> Any:
        """Answers to many inputs, in order, at most `concurrency` at a time.

        An input is a tuple of arguments, a dict of keyword arguments, or one argument. With `on_error="return"` an
        error stands in its input's place; else the first one cancels the rest and is raised.
        """
        return batched(self, inputs, concurrency=concurrency, on_error=on_error, progress=progress)

    def _ask(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], want: Any) -> Outcome:
        call = self._call(args, kwargs, want, Run.start(deadline_s=self._deadline_s))
        return run_sync(self._flow(call), call.run)


class AsyncPrompt(_PromptBase, Generic[P, R_co]):
    """A decorated `async def` prompt function: the same, awaited."""

    @overload
    def __get__(self, instance: None, owner: type, /) -> Self: ...
    @overload
    def __get__(
        self: AsyncPrompt[Concatenate[Any, Q], T], instance: object, owner: type | None = None, /
    ) -> AsyncPrompt[Q, T]: ...
    # the second overload gives `self` a narrower type, which pyright does not compare with the base
    def __get__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, instance: Any, owner: type | None = None, /
    ) -> Any:
        """Bind as a method."""
        return super().__get__(instance, owner)

    async def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Ask, and return the answer as the declared output type."""
        return (await self._ask(args, kwargs, "value")).value  # type: ignore[no-any-return]  # as in Prompt

    async def response(self, /, *args: P.args, **kwargs: P.kwargs) -> Response:
        """Ask, and return the whole response; `parsed` holds the typed answer."""
        response = (await self._ask(args, kwargs, "response")).response
        assert response is not None
        return response

    def stream(self, /, *args: P.args, **kwargs: P.kwargs) -> Stream[Response]:
        """The answer as it comes, for `async for`. Nothing is asked before the first delta is."""
        return self._stream(args, kwargs)

    async def render(self, /, *args: P.args, **kwargs: P.kwargs) -> Request:
        """The request that a call would send; nothing is asked."""
        request = (await self._ask(args, kwargs, "render")).request
        assert request is not None
        return request

    @overload
    def batch(
        self,
        inputs: Iterable[Any],
        *,
        concurrency: int = 8,
        on_error: Literal["raise"] = "raise",
        progress: bool = False,
    ) -> Awaitable[list[R_co]]: ...
    @overload
    def batch(
        self, inputs: Iterable[Any], *, concurrency: int = 8, on_error: Literal["return"], progress: bool = False
    ) -> Awaitable[list[R_co | Exception]]: ...
    def batch(
        self, inputs: Iterable[Any], *, concurrency: int = 8, on_error: OnBatchError = "raise", progress: bool = False
    ) -> Any:
        """Answers to many inputs, in order, at most `concurrency` at a time; see `Prompt.batch`."""
        return batched_async(self, inputs, concurrency=concurrency, on_error=on_error, progress=progress)

    async def _ask(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], want: Any) -> Outcome:
        call = self._call(args, kwargs, want, Run.start(deadline_s=self._deadline_s))
        return await run_async(self._flow(call), call.run)


class PromptDecorator(Protocol[R_co]):
    """What `@prompt(…)` puts on a function."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, Body]], /) -> AsyncPrompt[P, R_co]: ...
    @overload
    def __call__(self, function: Callable[P, Body], /) -> Prompt[P, R_co]: ...


@overload
def prompt(
    model: str | Model | None = None,
    *,
    output: None = None,
    system: str | None = None,
    name: str | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
    stop: str | Sequence[str] | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> PromptDecorator[str]: ...
@overload
def prompt(
    model: str | Model | None = None,
    *,
    output: type[T],
    system: str | None = None,
    name: str | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
    stop: str | Sequence[str] | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> PromptDecorator[T]: ...
@overload
def prompt(
    model: str | Model | None = None,
    *,
    output: Any,
    system: str | None = None,
    name: str | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
    stop: str | Sequence[str] | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
) -> PromptDecorator[Any]: ...
def prompt(model: str | Model | None = None, **declared: Any) -> Any:  # noqa: D417 - they stand in the overloads
    """Make a prompt of a function whose body returns what to ask: a str, a `Message` or a list of `Message`.

    Args:
        model: a model or model string; without one, the scope's or the settings'.
        output: the type of the answer, anything that pydantic validates; the answer is validated, and repaired once.
        system: the system message; the function's docstring by default.
        name: the prompt's name; `module.qualname` by default.
        temperature, top_p, max_tokens, stop, seed: parameters of the request.
        extra: further parameters, as the provider names them.

    Raises `DecoratorError` where it cannot be right: on a class or generator, with an unknown keyword, without a return
    annotation; `ModelStringError` for a model string that does not parse.
    """
    refuse_unknown("prompt", declared, ("model", "output", "system", "name", *PARAMETERS, "extra"), _FOR_PROVIDER)
    if isinstance(model, str):
        check_model_string(model)
    if model is not None and not isinstance(model, str | Model):
        if callable(model):
            raise DecoratorError('Write @prompt(…) with parentheses, for example @prompt(model="openai:gpt-5-mini").')
        raise DecoratorError(f"model= is a model or a model string; it is {type(model).__name__}.")
    if not _is_a_type(output := declared.get("output")):
        raise DecoratorError(
            f"output= is the type of the answer, such as int, list[str] or a pydantic model; it is {output!r}."
        )
    return lambda target: _decorated(target, model, declared)


def _decorated(target: Any, model: str | Model | None, declared: Mapping[str, Any]) -> Any:
    _check(target)
    parameters = {name: declared[name] for name in PARAMETERS if declared.get(name) is not None}
    system = declared.get("system")
    plan = PromptPlan(
        name=declared.get("name") or span_name(_shown(target)),
        model=model,
        parameters=parameters | dict(declared.get("extra") or {}),
        output=None if declared.get("output") is str else declared.get("output"),
        system=system if system is not None else docstring_of(_shown(target)),
    )
    versioned = {
        "model": model,
        "parameters": plan.parameters,
        "output": plan.output,
        "system": system,
    }
    tracker = VersionTracker(_shown(target), name=declared.get("name"), declared=versioned)
    kind = AsyncPrompt if mode_of(target) == "async" else Prompt
    return kind(target, plan, tracker)


def _shown(target: Any) -> Any:
    return target.__func__ if isinstance(target, classmethod | staticmethod) else target


def _check(target: Any) -> None:
    """Raise `DecoratorError` for a function that cannot be a prompt."""
    check_target("prompt", target)
    name = span_name(_shown(target))
    if isinstance(target, _PromptBase):
        raise DecoratorError(f"{name} is a prompt already; put one @prompt on it.")
    if mode_of(target) in ("generator", "async_generator"):
        raise DecoratorError(f"{name} yields; a prompt body returns what to ask. To stream the answer use .stream(…).")
    returns = _return_annotation(target if callable(target) else target.__func__)
    if returns is inspect.Signature.empty:
        raise DecoratorError(
            f"{name} has no return annotation. Annotate what its body returns: -> str, -> Message or -> list[Message]; "
            f"the type of the answer goes into @prompt(output=…)."
        )
    if returns in (None, "None") or (isinstance(returns, type) and not issubclass(returns, str | Message | Sequence)):
        told = returns.__name__ if isinstance(returns, type) else "None"
        raise DecoratorError(
            f"{name} is annotated to return {told}. Annotate what its body returns, -> str, -> Message or "
            f"-> list[Message], and write @prompt(output={told}) for the type of the answer."
        )


def _is_a_type(output: Any) -> bool:
    """Whether `output` may be one; what pydantic makes of it shows at the first call, since importing pydantic costs."""
    return output is None or isinstance(output, type) or type(output).__module__ in _TYPES_OF_TYPES


def _return_annotation(function: Any) -> Any:
    """The return annotation, resolved where that is possible yet; a name that is defined later stays a string, and where
    there is no signature it is "".
    """
    try:
        return inspect.signature(function, eval_str=True).return_annotation
    except (NameError, AttributeError, TypeError, SyntaxError, ValueError):
        pass
    try:
        return inspect.signature(function).return_annotation
    except (TypeError, ValueError):
        return ""
