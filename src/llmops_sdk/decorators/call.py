"""What travels through the layers of a decorated function: the call on its way in, and the outcome on its way out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from llmops_sdk.decorators.stepping import Passage
    from llmops_sdk.flow import Flow, Run
    from llmops_sdk.types import Request, Response

_POSITIONAL: Final = "*"
"""Stands for the positional arguments where their names are not known; no parameter can have this name."""

Want: TypeAlias = Literal["value", "response", "stream", "render"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a decorated function on its way through the layers."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    run: Run
    want: Want = "value"
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """The arguments by parameter name; as they were given where they do not fit the signature, or there is none."""
        try:
            bound = inspect.signature(self.function).bind(*self.args, **self.kwargs)
        except (TypeError, ValueError):
            return {_POSITIONAL: self.args, **self.kwargs}
        return dict(bound.arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a call came to: the value for its caller, and for a prompt the request and response behind it."""

    value: Any = None
    response: Response | None = None
    request: Request | None = None


Inner: TypeAlias = "Callable[[Call], Flow[Outcome]]"


class Layer(Protocol):
    """What a decorator does around a call. `around` serves functions, `passage` generators."""

    def around(self, call: Call, inner: Inner) -> Flow[Outcome]:
        """The call as a flow, with `inner` in the middle."""
        ...

    def passage(self, call: Call) -> Passage:
        """What this layer does to one iteration of a generator."""
        ...


def rebuilt(call: Call, arguments: Mapping[str, Any]) -> Call:
    """The same call with other values for its arguments, by parameter name."""
    try:
        bound = inspect.signature(call.function).bind(*call.args, **call.kwargs)
    except (TypeError, ValueError):
        kwargs = {name: value for name, value in arguments.items() if name != _POSITIONAL}
        return replace(call, args=tuple(arguments[_POSITIONAL]), kwargs=kwargs)
    bound.arguments.update(arguments)
    return replace(call, args=bound.args, kwargs=bound.kwargs)
