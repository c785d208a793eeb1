"""The real transport: httpx, with one pool of connections for the process and one for each event loop.

Clients are made at their first use and anew in a forked child. A loop's client is closed when the loop shuts its
asynchronous generators down, as `asyncio.run` does at its end.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import httpx

from llmops_sdk.errors import NetworkBlockedError
from llmops_sdk.models.bodies import AsyncBody, SyncBody
from llmops_sdk.models.http_errors import hidden, translated, usable_proxies
from llmops_sdk.settings import current_settings, is_loopback

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import AsyncGenerator

# How many calls run at once is for limiters to say, not for a pool: a waiting call would count as a slow one.
_LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=5.0)


class HttpTransport:
    """`flow.Transport` over httpx. Threads and event loops share one; redirects are not followed.

    With the setting `network="loopback"` a request to another host raises `NetworkBlockedError` before its name is looked
    up. Proxies of the environment (`HTTPS_PROXY`, `ALL_PROXY`, …) are used for other hosts, and never for this machine,
    so that while the network is closed nothing passes through one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None
        self._clients: dict[bool, httpx.Client] = {}  # by whether they are for this machine
        self._loops: dict[tuple[asyncio.AbstractEventLoop, bool], tuple[httpx.AsyncClient, AsyncGenerator[None]]] = {}
        self._orphans: list[object] = []

    def send(
        self, request: httpx.Request, *, stream: bool, timeout_s: float | None, deadline_s: float | None
    ) -> httpx.Response | SyncBody:
        """The whole response, or with `stream` its head and a source of its body; blocks."""
        refuse_foreign(request.url)
        request.extensions["timeout"] = Timeouts(timeout_s, deadline_s)
        client = self._sync_client(is_loopback(request.url.host))
        try:
            if not stream and deadline_s is None:
                return client.send(request)
            response = client.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise translated(error, request, deadline_s) from hidden(error)
        body = SyncBody(response, deadline_s)
        return body if stream else body.whole()

    async def asend(
        self, request: httpx.Request, *, stream: bool, timeout_s: float | None, deadline_s: float | None
    ) -> httpx.Response | AsyncBody:
        """The same on the running event loop; `deadline_s` is what the driver keeps."""
        refuse_foreign(request.url)
        request.extensions["timeout"] = Timeouts(timeout_s, deadline_s)
        client = await self._async_client(is_loopback(request.url.host))
        try:
            response = await client.send(request, stream=stream)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise translated(error, request, deadline_s) from hidden(error)
        return AsyncBody(response, deadline_s) if stream else response

    def close(self) -> None:
        """Close the connections of synchronous calls; a later call opens new ones."""
        with self._lock:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    def forget_parent(self) -> None:
        """Called in a forked child: the parent's connections are the parent's, and are neither used nor closed here."""
        self._orphans += [self._clients, self._loops]
        self._lock, self._clients, self._loops = threading.Lock(), {}, {}

    def _sync_client(self, here: bool) -> httpx.Client:
        client = self._clients.get(here)
        if client is None:
            with self._lock:
                client = self._clients.get(here)
                if client is None:
                    with usable_proxies():
                        client = httpx.Client(verify=self._tls_context(), limits=_LIMITS, trust_env=not here)
                    self._clients[here] = client
        return client

    async def _async_client(self, here: bool) -> httpx.AsyncClient:
        import asyncio

        key = asyncio.get_running_loop(), here
        kept = self._loops.get(key)
        if kept is not None:
            return kept[0]
        with self._lock:
            for closed in [other for other in self._loops if other[0].is_closed()]:
                del self._loops[closed]
            with usable_proxies():
                client = httpx.AsyncClient(verify=self._tls_context(), limits=_LIMITS, trust_env=not here)
            keeper = self._until_shutdown(key, client)
            self._loops[key] = client, keeper
        await anext(keeper)
        return client

    async def _until_shutdown(
        self, key: tuple[asyncio.AbstractEventLoop, bool], client: httpx.AsyncClient
    ) -> AsyncGenerator[None]:
        """Closes the client of a loop when that loop shuts its asynchronous generators down."""
        try:
            yield
        finally:
            self._loops.pop(key, None)
            await client.aclose()

    def _tls_context(self) -> ssl.SSLContext:
        """One for all clients: making it reads every root certificate."""
        if self._tls is None:
            self._tls = httpx.create_ssl_context()
        return self._tls


class Timeouts(dict[str, Any]):
    """Seconds for each phase of a request, read by httpcore as the phase begins: never more than the deadline leaves."""

    def __init__(self, timeout_s: float | None, deadline_s: float | None) -> None:
        super().__init__(dict.fromkeys(("connect", "read", "write", "pool"), timeout_s))
        self.deadline_s = deadline_s

    def get(self, phase: str, default: Any = None) -> Any:
        """What the phase may take from now on; None is for ever."""
        own = super().get(phase, default)
        if self.deadline_s is None:
            return own
        left = max(self.deadline_s - time.monotonic(), 0.001)
        return left if own is None else min(own, left)


def refuse_foreign(url: httpx.URL) -> None:
    """Raise `NetworkBlockedError` for another host while the network is closed."""
    if current_settings().network == "loopback" and not is_loopback(url.host):
        raise NetworkBlockedError(
            f'A request to {url.host} was refused: the network is closed (network = "loopback"). Use ScriptedModel or a '
            f"server on this machine, or open it: LLMOPS_NETWORK=allow."
        )


class _Process:
    """The transport of this process."""

    transport: HttpTransport | None = None


def shared_transport() -> HttpTransport:
    """The one transport that all models of this process share, so that they share connections."""
    if _Process.transport is None:
        _Process.transport = HttpTransport()
    return _Process.transport


def _after_fork() -> None:
    if _Process.transport is not None:
        _Process.transport.forget_parent()


def _at_exit() -> None:
    if _Process.transport is not None:
        _Process.transport.close()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
