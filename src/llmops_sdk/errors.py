"""Every error that the SDK raises, in one tree.

A message says what happened, the value seen, and the next step. Errors of the user's own code are never wrapped.

    LLMOpsError
    ├── UsageError                    a call, decorator or setting that cannot be right, whatever the world does
    │   ├── DecoratorError            a decorator on something it cannot decorate, or with a wrong keyword
    │   ├── ModelStringError          a model string that does not parse, or names an unknown provider
    │   ├── PromptBodyError           a prompt body that returned what it may not return
    │   └── AsyncFunctionError        a coroutine function met by a synchronous call
    ├── MissingExtraError             a package of an optional extra is not installed
    ├── MissingModelError             weights are not on this machine
    ├── MissingKeyError               no API key
    ├── NetworkBlockedError           the no-network switch is on
    ├── StoreError                    a file of the home is unreadable, foreign or not writable
    ├── GuardError                    a guard could not decide, or decided against
    │   ├── GuardBlockedError         a check blocked
    │   └── GuardCheckError           a check failed to run and `on_error` says raise
    └── ModelError                    a model did not answer
        ├── RetryableError            trying again, or elsewhere, may help
        │   ├── RateLimitedError      carries `retry_after_s`
        │   ├── OverloadedError
        │   ├── RequestTimeoutError
        │   └── ConnectionFailedError
        ├── AuthenticationError
        ├── PermissionDeniedError
        ├── NotFoundError
        ├── BadRequestError
        │   └── ContextTooLongError
        ├── ContentFilteredError
        ├── MalformedResponseError    the provider answered something that is not its protocol
        ├── StreamInterruptedError    failed after the first delta; carries the partial response
        ├── OutputValidationError     the answer does not fit the declared output, after one repair
        ├── UnsupportedError          this model cannot do that kind of request
        ├── DeadlineExceededError     the call's deadline passed
        └── AllModelsFailedError      every candidate of a fallback or race failed; carries their errors

`FlowCancelled` stands apart: it is a BaseException that drivers throw into flows, and never leaves the SDK.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmops_sdk.types import Response, Usage, Verdict


class LLMOpsError(Exception):
    """The root of the tree. Errors can be copied and pickled with all that they carry."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__.copy())


def _rebuild(cls: type[LLMOpsError], args: tuple[Any, ...], state: dict[str, Any]) -> LLMOpsError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def fresh(error: BaseException) -> BaseException:
    """A copy of one of our errors without traceback, for a second raiser; a foreign error is returned as it is."""
    if not isinstance(error, LLMOpsError):
        return error
    again = copy.copy(error)
    again.__cause__ = error.__cause__
    return again


class UsageError(LLMOpsError):
    """The call itself is wrong: mend the code."""


class DecoratorError(UsageError):
    """A decorator was put on something that it cannot decorate, or was given a wrong keyword."""


class ModelStringError(UsageError):
    """A model string does not parse, or names a provider that does not exist."""


class PromptBodyError(UsageError):
    """A prompt body returned something other than `str`, `Message` or `list[Message]`."""


class AsyncFunctionError(UsageError):
    """A coroutine function stands where a synchronous call must run it."""


class MissingExtraError(LLMOpsError):
    """A package of an optional extra is missing; the message has the exact command."""

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(
            f"This needs the package {package!r}, which is not installed. Run: pip install 'llmops-sdk[{extra}]'"
        )
        self.extra = extra
        self.package = package


class MissingModelError(LLMOpsError):
    """The weights are not on this machine; the message has the command or path that brings them."""


class MissingKeyError(LLMOpsError):
    """No API key was given and the environment has none."""


class NetworkBlockedError(LLMOpsError):
    """A request to another host while the no-network switch is on."""


class StoreError(LLMOpsError):
    """A file of the home (store, cache, index) is unreadable, foreign or not writable."""


class GuardError(LLMOpsError):
    """A guard decided against, or could not decide."""


class GuardBlockedError(GuardError):
    """A check blocked. `verdicts` holds every verdict up to and including the blocking one."""

    def __init__(self, message: str, *, verdicts: Sequence[Verdict] = (), stage: str = "input") -> None:
        super().__init__(message)
        self.verdicts = tuple(verdicts)
        self.stage = stage


class GuardCheckError(GuardError):
    """A check could not run; its own error is the cause."""


class ModelError(LLMOpsError):
    """A model did not answer. `status` is the HTTP status where there was one; `raw` what the provider said."""

    def __init__(
        self, message: str, *, status: int | None = None, raw: Any = None, partial: Response | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.raw = raw
        self.partial = partial


class RetryableError(ModelError):
    """Trying again, or another model, may help. `retry_after_s` is the provider's own advice, if it gave one; infinite
    where waiting will not help, as with a spent quota.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.retry_after_s = retry_after_s


class RateLimitedError(RetryableError):
    """Too many requests or tokens."""


class OverloadedError(RetryableError):
    """The provider is overloaded or failed on its side."""


class RequestTimeoutError(RetryableError):
    """The provider did not answer within the model's own timeout."""


class ConnectionFailedError(RetryableError):
    """No connection: name resolution, refusal, TLS, or a connection dropped before the first delta."""


class AuthenticationError(ModelError):
    """The key was refused."""


class PermissionDeniedError(ModelError):
    """The key may not do this."""


class NotFoundError(ModelError):
    """The model or the address does not exist."""


class BadRequestError(ModelError):
    """The provider refused the request as malformed."""


class ContextTooLongError(BadRequestError):
    """The input does not fit the model's context window."""


class ContentFilteredError(ModelError):
    """The provider's own filter refused."""


class MalformedResponseError(ModelError):
    """The answer is not of the provider's protocol."""


class StreamInterruptedError(ModelError):
    """A stream failed after its first delta: nothing retries it. `partial` holds what had arrived."""


class OutputValidationError(ModelError):
    """The answer does not fit the declared output. `text` is the answer as it came."""

    def __init__(self, message: str, *, text: str = "", **context: Any) -> None:
        super().__init__(message, **context)
        self.text = text


class UnsupportedError(ModelError):
    """This model does not do this kind of request."""


class DeadlineExceededError(ModelError):
    """The deadline of the whole call passed."""


class AllModelsFailedError(ModelError):
    """Every candidate failed. `errors` holds one error a candidate, in order of failure."""

    def __init__(self, errors: Sequence[BaseException]) -> None:
        told = "; ".join(f"{type(e).__name__}: {e}" for e in errors) or "there was no candidate"
        super().__init__(f"All {len(errors)} candidates failed: {told}")
        self.errors = tuple(errors)


class FlowCancelled(BaseException):
    """Thrown by a driver into a flow whose caller has gone. A leaf may leave the `usage` it knows of on it."""

    def __init__(self) -> None:
        super().__init__("the caller of this flow has gone")
        self.usage: Usage | None = None
