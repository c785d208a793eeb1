"""`using(…)`: what holds for every span and call beneath it. It travels in the OpenTelemetry context."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Never, TypeVar, cast

from opentelemetry import context as otel_context

from llmops_sdk.errors import UsageError
from llmops_sdk.tracing import semconv
from llmops_sdk.tracing.context import attach, detach

if TYPE_CHECKING:
    from contextvars import Token
    from types import TracebackType

    from opentelemetry.context import Context

F = TypeVar("F", bound=Callable[..., Any])

_KEY = otel_context.create_key("llmops-scope")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Who asks, and what the call site overrides.

    Attributes:
        model: overrides the model of every prompt beneath: a model string or a `Model`.
        parameters: sampling parameters that override those of every prompt beneath.
    """

    user: str | None = None
    session: str | None = None
    tenant: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    model: Any = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def attributes(self) -> dict[str, Any]:
        """What the scope adds to every span."""
        told: dict[str, Any] = {}
        if self.user is not None:
            told[semconv.USER_ID] = self.user
        if self.session is not None:
            told[semconv.SESSION_ID] = told[semconv.GEN_AI_CONVERSATION_ID] = self.session
        if self.tenant is not None:
            told[semconv.LLMOPS_TENANT] = self.tenant
        if self.tags:
            told[semconv.LLMOPS_TAGS] = self.tags
        for name, value in self.metadata.items():
            told[f"{semconv.LLMOPS_METADATA}.{name}"] = value
        return told

    def within(self, inner: Scope) -> Scope:
        """`inner` seen inside of this scope: what it says wins, tags, metadata and parameters add up."""
        return Scope(
            user=self.user if inner.user is None else inner.user,
            session=self.session if inner.session is None else inner.session,
            tenant=self.tenant if inner.tenant is None else inner.tenant,
            tags=tuple(dict.fromkeys((*self.tags, *inner.tags))),
            metadata={**self.metadata, **inner.metadata},
            model=self.model if inner.model is None else inner.model,
            parameters={**self.parameters, **inner.parameters},
        )


EMPTY = Scope()


def current_scope(context: Context | None = None) -> Scope:
    """The scope in force in `context`, by default the current one."""
    scope = otel_context.get_value(_KEY, context)
    return scope if isinstance(scope, Scope) else EMPTY


class using:  # noqa: N801 - read as a verb: `with using(user="u1"):`
    """Set user, session, tenant, tags, metadata, model and parameters for everything beneath.

    A context manager (`with` or `async with`) and a decorator of plain, coroutine and generator functions. Scopes nest:
    the inner one wins, and tags, metadata and parameters add up. What only a provider knows goes into `extra`. Raises
    `UsageError` for values of another type and for unknown names, which would else reach a provider.

        with using(user="u1", session="s1", temperature=0):
            answer("…")
    """

    def __init__(
        self,
        *,
        user: str | None = None,
        session: str | None = None,
        tenant: str | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, str | int | float | bool] | None = None,
        model: Any = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        extra: Mapping[str, Any] | None = None,
        **unknown: Never,
    ) -> None:
        for name in unknown:
            raise UsageError(_unknown(name))
        for name, value in (("user", user), ("session", session), ("tenant", tenant)):
            if value is not None and not isinstance(value, str):
                raise UsageError(f"using({name}=…) takes a str; it is {value!r}. Write {name}={str(value)!r}.")
        if isinstance(tags, str) or not all(isinstance(tag, str) for tag in tags):
            raise UsageError(f"using(tags=…) takes a list of str; it is {tags!r}.")
        for name, fact in (metadata or {}).items():
            if not isinstance(name, str) or not isinstance(fact, str | int | float | bool):
                raise UsageError(
                    f"using(metadata=…) takes names with a str, int, float or bool; {name!r} has {type(fact).__name__}."
                )
        given = {
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
            "stop": stop,
            "seed": seed,
        }
        self._scope = Scope(
            user=user,
            session=session,
            tenant=tenant,
            tags=tuple(tags),
            metadata=dict(metadata or {}),
            model=model,
            parameters={name: value for name, value in given.items() if value is not None} | dict(extra or {}),
        )
        self._tokens: list[Token[Context]] = []

    def __enter__(self) -> Scope:
        scope = current_scope().within(self._scope)
        self._tokens.append(attach(otel_context.set_value(_KEY, scope)))
        return scope

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        detach(self._tokens.pop())

    async def __aenter__(self) -> Scope:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: F) -> F:
        """The function with this scope around each of its calls; of a generator, around each of its steps."""
        if inspect.isasyncgenfunction(function):
            return cast("F", self._around_async_generator(function))
        if inspect.iscoroutinefunction(function):
            return cast("F", self._around_coroutine(function))
        if inspect.isgeneratorfunction(function):
            return cast("F", self._around_generator(function))

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return function(*args, **kwargs)

        return cast("F", call)

    def _again(self) -> using:
        """The same scope for one more block: calls may run at once, and each keeps a token of its own."""
        again = object.__new__(type(self))
        again._scope = self._scope
        again._tokens = []
        return again

    def _around_coroutine(self, function: Any) -> Any:
        @functools.wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return await function(*args, **kwargs)

        return call

    def _around_generator(self, function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            items = function(*args, **kwargs)
            step: Callable[[], Any] = functools.partial(next, items)
            while True:
                with self._again():
                    try:
                        item = step()
                    except StopIteration as stop:
                        return stop.value
                try:
                    step = functools.partial(items.send, (yield item))
                except GeneratorExit:
                    with self._again():
                        items.close()
                    raise
                except BaseException as error:  # thrown in by the consumer, for the generator
                    step = functools.partial(items.throw, error)

        return call

    def _around_async_generator(self, function: Any) -> Any:
        @functools.wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            items = function(*args, **kwargs)
            step: Callable[[], Any] = items.__anext__
            while True:
                with self._again():
                    try:
                        item = await step()
                    except StopAsyncIteration:
                        return
                try:
                    step = functools.partial(items.asend, (yield item))
                except GeneratorExit:
                    with self._again():
                        await items.aclose()
                    raise
                except BaseException as error:  # thrown in by the consumer, for the generator
                    step = functools.partial(items.athrow, error)

        return call


def _unknown(name: str) -> str:
    from llmops_sdk.checks import near_name

    known = [parameter for parameter in inspect.signature(using).parameters if parameter != "unknown"]
    near = near_name(name, known, cutoff=0.6)
    hint = (
        f"Did you mean {near}=?" if near else "Facts go into metadata={…}, what only a provider knows into extra={…}."
    )
    return f"using has no keyword {name!r}. {hint}"
