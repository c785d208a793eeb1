"""`model(…)`: from a model string to a model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from llmops_sdk.checks import check_kind, check_request_numbers
from llmops_sdk.errors import ModelStringError, UsageError
from llmops_sdk.models import strings

if TYPE_CHECKING:
    import httpx

    from llmops_sdk.flow import Model
    from llmops_sdk.models.strings import ModelString

OPENAI_BASE_URL: Final = "https://api.openai.com/v1"
KEY_VARIABLE: Final = "OPENAI_API_KEY"
BASE_URL_VARIABLE: Final = "OPENAI_BASE_URL"


def model(
    spec: str,
    *,
    api_key: str | None = None,
    base_url: str | None = None,
    timeout_s: float | None = 60,
    max_retries: int = 2,
    **parameters: Any,
) -> Model:
    """The model that a string names. Nothing is looked up, loaded or asked before its first request.

    Args:
        spec: `openai:NAME`, `openai+http://HOST:PORT/v1#NAME` (or `openai+https://`), `local:PATH_OR_ID`; parameters may
            stand after `?`.
        api_key: the key; without it `openai:` reads OPENAI_API_KEY at each request. It enters no name, span or error.
        base_url: another address for `openai:`; without it OPENAI_BASE_URL, or OpenAI's own.
        timeout_s: bounds each phase of a remote request (connecting, writing, each wait for bytes), in seconds. The
            whole call is bounded by its own `deadline_s`.
        max_retries: how often a remote request is repeated that failed for a reason that may pass.
        parameters: defaults for requests that do not set them; those that are no field of `Request` are sent to the
            provider as they are. They are part of the model's name, and win over those in the string.

    Raises `ModelStringError` for a string that does not parse or a provider that there is not, and `UsageError` for
    arguments that cannot be right. A missing key is a `MissingKeyError` at the first request.
    """
    parsed = strings.parse(spec)
    strings.check_names(f"{parsed.provider}:{parsed.name}", parameters)
    asked = strings.plain_parameters({**parsed.parameters, **parameters})
    check_request_numbers(asked)
    timeout_s, max_retries = strings.client_options(parsed, timeout_s=timeout_s, max_retries=max_retries)
    check_kind("base_url", base_url, str, "an address as text, http://HOST:PORT/v1")
    if api_key is not None and not isinstance(api_key, str):
        raise UsageError(f"api_key must be a str, or None; it is {type(api_key).__name__}.")  # the value is not shown
    if parsed.provider == "local":
        return _local(parsed, asked, api_key, base_url)
    remote = _remote(parsed, asked, api_key, base_url, timeout_s)
    if max_retries == 0:
        return remote
    from llmops_sdk.models.layers.retry import Retried

    return Retried(remote, max_retries=max_retries)


def _local(parsed: ModelString, asked: dict[str, Any], api_key: str | None, base_url: str | None) -> Model:
    for name, value in (("api_key", api_key), ("base_url", base_url)):
        if value is not None:
            raise UsageError(f"local:{parsed.name} runs in this process; it has no {name}. Leave it out.")
    from llmops_sdk.local import open_model

    options = {name: text for name, text in parsed.options.items() if name not in ("timeout_s", "max_retries")}
    return open_model(parsed.name, options, asked)


def _remote(
    parsed: ModelString, asked: dict[str, Any], api_key: str | None, base_url: str | None, timeout_s: float | None
) -> Model:
    from llmops_sdk.models.prices import price_of
    from llmops_sdk.models.transport import shared_transport
    from llmops_sdk.providers.keys import ApiKey
    from llmops_sdk.providers.openai_chat import OpenAIChat

    if parsed.base_url is not None and base_url is not None:
        raise UsageError(f"{parsed.provider}: has its address in the string. Leave base_url out, or write openai:NAME.")
    told = parsed.base_url or base_url or os.environ.get(BASE_URL_VARIABLE, "").strip() or OPENAI_BASE_URL
    address, userinfo = _address(told)
    default = str(address) == OPENAI_BASE_URL
    # A key of OpenAI's goes to OpenAI, or where `openai:` was pointed at; never to a server named by its address.
    variable = KEY_VARIABLE if default or parsed.base_url is None else None
    return OpenAIChat(
        name=strings.identity(_stem(parsed.name, address, default=default), asked),
        model=parsed.name,
        base_url=address,
        transport=shared_transport(),
        api_key=ApiKey(api_key, variable=variable, required=variable is not None),
        userinfo=userinfo,
        price_of=price_of,
        parameters=asked,
        timeout_s=timeout_s,
        limit_field="max_completion_tokens" if default else "max_tokens",
    )


def _stem(name: str, address: httpx.URL, *, default: bool) -> str:
    from urllib.parse import quote

    shown = quote(name, safe="/:~.@")
    return f"openai:{shown}" if default else f"openai+{address}#{shown}"


def _address(told: str) -> tuple[httpx.URL, tuple[str, str] | None]:
    """A base address in one spelling, and its user and password apart. Raises `ModelStringError`."""
    import httpx

    try:
        url = httpx.URL(told.strip())
    except (httpx.InvalidURL, TypeError, ValueError):
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise ModelStringError(f"{_bare(told)!r} is no address of a server. Write it as http://HOST:PORT/v1.")
    if url.query or url.fragment:
        raise ModelStringError(
            f"The address {_bare(told)} ends with ? or #. Give the part before it; parameters stand after the name: "
            f"openai+{url.scheme}://HOST:PORT/v1#NAME?temperature=0."
        )
    userinfo = (url.username, url.password) if url.userinfo else None
    return url.copy_with(username=None, password=None, path=url.path.rstrip("/") or "/"), userinfo


def _bare(told: str) -> str:
    """An address for a message, without what may be secret."""
    scheme, slashes, rest = told.partition("//")
    return f"{scheme}{slashes}{rest.rpartition('@')[2]}".partition("?")[0]
