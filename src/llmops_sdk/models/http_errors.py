"""From httpx's errors to ours."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator

import httpx

from llmops_sdk.errors import (
    ConnectionFailedError,
    DeadlineExceededError,
    LLMOpsError,
    MalformedResponseError,
    RequestTimeoutError,
    UsageError,
)
from llmops_sdk.settings import is_loopback


def translated(error: Exception, request: httpx.Request, deadline_s: float | None) -> LLMOpsError:
    """Our error for one of httpx's. Its text names the server, and nothing of headers or content."""
    where = f"{request.url.scheme}://{request.url.netloc.decode('ascii', 'replace')}"
    if deadline_s is not None and time.monotonic() >= deadline_s - 0.001:
        return DeadlineExceededError(f"The deadline of the call passed while {where} was asked. Give it more time.")
    if isinstance(error, httpx.TimeoutException):
        phase = type(error).__name__.removesuffix("Timeout").lower()
        seconds = request.extensions["timeout"][phase]
        return RequestTimeoutError(
            f"{where} took longer than {seconds:g} s ({phase}){_by_way_of(request.url)}. Raise timeout_s, or try again."
        )
    if isinstance(error, httpx.DecodingError):
        return MalformedResponseError(f"{where} sent a body that is not encoded as it says: {error}.")
    if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol | httpx.InvalidURL):
        return UsageError(f"The request to {where} cannot be sent: its address or a header is not valid HTTP.")
    way = _by_way_of(request.url)
    if isinstance(error, httpx.ConnectError | httpx.ProxyError):
        return ConnectionFailedError(f"{where} cannot be reached{way}: {_reason(error)}. {_advice(error, way)}")
    return ConnectionFailedError(f"The connection to {where} broke{way}: {_reason(error)}. Try again.")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: Exception) -> str:
    """What the first error says that says anything: for a reset connection httpx says nothing."""
    return next((told for cause in _chain(error) if (told := str(cause).rstrip(". "))), type(error).__name__)


def _advice(error: Exception, way: str) -> str:
    """The next step, which depends on how far the connection came."""
    causes = tuple(_chain(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return "Its certificate is not trusted here: point SSL_CERT_FILE at the authority that signed it."
    if isinstance(error, httpx.ProxyError):
        return "The proxy refused. Mend or unset the variable, or add the host to NO_PROXY."
    if way:
        return "Is the proxy running? Mend or unset the variable, or add the host to NO_PROXY."
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return "Its name could not be looked up: check its spelling, and that this machine has a network."
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return "It does not speak TLS as it should: is the address an http:// one?"
    return "Is it running?"


def _by_way_of(url: httpx.URL) -> str:
    """The proxy of the environment that a request goes through, for a message: the variable and the address, without
    user and password; "" where there is none.
    """
    from urllib.request import getproxies, proxy_bypass

    if is_loopback(url.host) or proxy_bypass(url.host):
        return ""
    proxies = getproxies()
    kind = url.scheme if url.scheme in proxies else "all"
    if kind not in proxies:
        return ""
    scheme, slashes, rest = proxies[kind].rpartition("://")
    return f" through the proxy of the environment ({kind.upper()}_PROXY, {scheme}{slashes}{rest.rpartition('@')[2]})"


@contextlib.contextmanager
def usable_proxies() -> Iterator[None]:
    """Around the making of a client, which reads the proxies of the environment: `UsageError` for one that cannot be.

    The address is not shown: it may hold a password.
    """
    try:
        yield
    except (ValueError, httpx.InvalidURL):
        told = "A proxy of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) is no address of a proxy."
        raise UsageError(f"{told} Write it as http://HOST:PORT, or unset it.") from None
    except ImportError:
        told = "A proxy of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) speaks SOCKS"
        raise UsageError(f"{told}, which needs one more package. Run: pip install 'httpx[socks]'") from None


def hidden(error: Exception) -> Exception | None:
    """The cause to show: httpx quotes a header that is not valid HTTP, which may be the key."""
    return None if isinstance(error, httpx.LocalProtocolError) else error
