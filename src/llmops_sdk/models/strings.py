"""Model strings: the one place where they are parsed.

    openai:NAME?temperature=0                          OpenAI
    openai+http://host:port/v1#NAME?max_tokens=64      any OpenAI-compatible server; also openai+https://
    local:PATH_OR_ID?threads=2&temperature=0           a model in this process

Names and values may be percent-encoded. What stands after `?` are parameters of `Request`, options of the provider that have
no field there, and `timeout_s` and `max_retries`; API keys are refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode

from llmops_sdk.checks import check_number, check_request_numbers, near_name
from llmops_sdk.codec import EXACT_BELOW
from llmops_sdk.errors import ModelStringError, UsageError
from llmops_sdk.providers.openai_request import OWNED
from llmops_sdk.types import canonical_json

PROVIDERS: Final = ("openai", "openai+http", "openai+https", "local")
LATER: Final = ("anthropic", "google")
"""Providers that have a name already and that this version does not speak yet."""

FORMS: Final = "openai:NAME, openai+http://HOST:PORT/v1#NAME, openai+https://HOST/v1#NAME, local:PATH_OR_ID"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelString:
    """A model string, taken apart.

    Attributes:
        provider: one of `PROVIDERS`.
        name: the model, as its provider calls it.
        base_url: where the server is, for `openai+http` and `openai+https`.
        options: what is about the client or the engine: `timeout_s`, `max_retries`, `threads`; as written.
        parameters: what is about requests, as numbers, booleans and strings.
    """

    provider: str
    name: str
    base_url: str | None
    options: Mapping[str, str]
    parameters: Mapping[str, Any]


def parse(spec: str) -> ModelString:
    """Take a model string apart. Raises `ModelStringError`, which names the forms that there are."""
    if not isinstance(spec, str):
        raise ModelStringError(f"A model string is a str; this is {type(spec).__name__}. There are: {FORMS}.")
    provider, colon, rest = spec.partition(":")
    if not colon or provider not in PROVIDERS:
        raise ModelStringError(_unknown(spec, provider if colon else None))
    if provider in ("openai+http", "openai+https"):
        address, mark, rest = rest.partition("#")
        if not mark or not rest.partition("?")[0]:
            raise ModelStringError(
                f"{_shown(provider, address)} names no model. Write it after #, as in {provider}://HOST:PORT/v1#NAME."
            )
        base_url = f"{provider.removeprefix('openai+')}:{address}"
    else:
        base_url = None
    name, _, query = rest.partition("?")
    options, parameters = _after_question_mark(f"{provider}:{name}", query, of_engine=provider == "local")
    if not name.strip():
        raise ModelStringError(f"{provider}: names no model. There are: {FORMS}.")
    return ModelString(provider=provider, name=unquote(name), base_url=base_url, options=options, parameters=parameters)


def check_model_string(spec: str) -> None:
    """Raise `ModelStringError` for a string that `model(…)` would refuse to take apart.

    Nothing is opened, looked up or read, and no client is imported: a decorator may ask while its module is imported.
    """
    parsed = parse(spec)
    try:
        client_options(parsed)
    except ModelStringError:
        raise
    except UsageError as error:
        raise ModelStringError(f"{parsed.provider}:{parsed.name}: {error.message}") from None


class ClientOptions(NamedTuple):
    """What is about the client of a remote model, and takes no part in its name."""

    timeout_s: float | None
    max_retries: int


def client_options(parsed: ModelString, *, timeout_s: float | None = 60, max_retries: int = 2) -> ClientOptions:
    """The string's options, or what is given for those that it does not have. Raises `UsageError`."""
    stem = f"{parsed.provider}:{parsed.name}"
    timeout_s = _number_of(stem, parsed.options, "timeout_s", float, timeout_s)
    max_retries = _number_of(stem, parsed.options, "max_retries", int, max_retries)
    check_number("timeout_s", timeout_s, above=0)
    check_number("max_retries", max_retries, least=0, whole=True, optional=False)
    check_request_numbers(parsed.parameters)
    return ClientOptions(timeout_s, max_retries)


def identity(stem: str, parameters: Mapping[str, Any]) -> str:
    """A name that two models share only if they answer alike: what is asked, with parameters sorted, in one spelling."""
    told = {name: _spelled(value) for name, value in sorted(parameters.items()) if value is not None}
    return stem + (f"?{urlencode(told, doseq=True)}" if told else "")


def plain_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters without those that are None, and whole floats as integers: 0 and 0.0 ask for the same."""
    return {name: _whole(value) for name, value in parameters.items() if value is not None}


def check_names(stem: str, names: Mapping[str, Any], options: Sequence[str] = ()) -> None:
    """Refuse names that can only be slips. Raises `ModelStringError`.

    A name that is neither a field of `Request` nor close to one is an option of the provider, and passes, as do `options`.
    """
    known = (*_TYPES, *options)
    for name in names:
        if name.lower().replace("-", "_") in _CREDENTIALS or name.lower().endswith("api_key"):
            raise ModelStringError(
                f"{stem} is given {name!r} as a parameter. Keys never stand in model strings or parameters: they would be "
                f"part of names and cache keys. Set OPENAI_API_KEY, or pass model(…, api_key=…)."
            )
        if name in _PER_REQUEST:
            raise ModelStringError(f"{name!r} belongs to a request, not to {stem}. Pass it with the call.")
        if name in OWNED:
            raise ModelStringError(f"{name!r} is no parameter of {stem}: the request says it itself. {OWNED[name]}")
        if name not in known and (near := near_name(name, known)):
            raise ModelStringError(f"{stem} has no parameter {name!r}. Did you mean {near!r}?")


def _after_question_mark(stem: str, query: str, *, of_engine: bool) -> tuple[dict[str, str], dict[str, Any]]:
    """Options and parameters out of what stands after the question mark."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ModelStringError(f"The part of {stem} after ? must read name=value&name=value.") from None
    known = (*_OPTIONS, "threads") if of_engine else _OPTIONS
    check_names(stem, dict(pairs), known)
    options: dict[str, str] = {}
    parameters: dict[str, Any] = {}
    for name, text in pairs:
        if name == "stop":
            parameters["stop"] = (*parameters.get("stop", ()), text)
        elif name in options or name in parameters:
            raise ModelStringError(f"{stem} says {name!r} twice.")
        elif name in known:
            options[name] = text
        else:
            parameters[name] = _typed(stem, name, text)
    return options, parameters


def _typed(stem: str, name: str, text: str) -> Any:
    """A value as its field has it; of a provider's own option, as JSON reads it."""
    read = _TYPES.get(name, _scalar)
    try:
        return _whole(read(text))
    except ValueError:
        kind = "a whole number" if read is int else "a number"
        raise ModelStringError(f"{stem}?{name}= takes {kind}; it is {text!r}.") from None


def _number_of(stem: str, options: Mapping[str, str], name: str, read: Callable[[str], Any], default: Any) -> Any:
    """An option of the client as a number. Raises `ModelStringError`."""
    if name not in options:
        return default
    try:
        return read(options[name])
    except ValueError:
        raise ModelStringError(f"{stem}?{name}= takes a number; it is {options[name]!r}.") from None


def _scalar(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _finite(text: str) -> float:
    value = float(text)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("not finite")
    return value


_TYPES: Final[Mapping[str, Callable[[str], Any]]] = {
    "temperature": _finite,
    "top_p": _finite,
    "max_tokens": int,
    "seed": int,
    "stop": str,
    "tool_choice": str,
}
_CREDENTIALS: Final = frozenset({"key", "apikey", "api_key", "authorization", "token", "access_token", "password"})
_PER_REQUEST: Final = frozenset({"messages", "tools", "output", "extra_json"})
_OPTIONS: Final = ("timeout_s", "max_retries")


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < EXACT_BELOW else value


def _spelled(value: Any) -> Any:
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return list(value)
    return value if isinstance(value, str) else canonical_json(_whole(value))


def _unknown(spec: str, provider: str | None) -> str:
    """What is wrong with a string that no provider answers to. Only its beginning is shown: the rest may be anything."""
    if provider is None:
        advice = f"Did you mean openai:{spec}?" if spec.startswith(("gpt-", "o1", "o3", "o4", "chatgpt-")) else ""
        return f"The model string {spec[:60]!r} has no provider. {advice} There are: {FORMS}.".replace("  ", " ")
    if provider in LATER:
        return f"This version does not know {provider}: models yet. There are: {FORMS}."
    if provider in ("http", "https"):
        return (
            f"{provider}: is no provider. For an OpenAI-compatible server write openai+{provider}://HOST:PORT/v1#NAME."
        )
    near = near_name(provider, (*PROVIDERS, *LATER), 0.6)
    advice = f" Did you mean {near}:?" if near else ""
    return f"There is no model provider {provider[:40]!r}.{advice} There are: {FORMS}."


def _shown(provider: str, address: str) -> str:
    """An address for a message, without userinfo and options."""
    scheme, slashes, rest = address.partition("//")
    return f"{provider}:{scheme}{slashes}{rest.rpartition('@')[2].partition('?')[0]}"
