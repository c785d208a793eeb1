"""The bodies of streamed responses, as sources."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import AsyncGenerator, Generator
from typing import cast

import httpx

from llmops_sdk.flow.effects import END, End
from llmops_sdk.models.http_errors import hidden, translated


class SyncBody:
    """A `ByteSource` that is read by blocking. Leaving it before its end closes the connection."""

    def __init__(self, response: httpx.Response, deadline_s: float | None) -> None:
        self._response = response
        self._deadline_s = deadline_s
        self._chunks = cast("Generator[bytes]", response.iter_bytes())  # httpx declares less than it returns
        self._alarm = None if deadline_s is None else _cut_at(response, deadline_s)

    @property
    def status_code(self) -> int:
        return self._response.status_code

    @property
    def headers(self) -> httpx.Headers:
        return self._response.headers

    def next(self) -> bytes | End:
        """The next bytes as they came, decompressed, or `END`."""
        try:
            chunk = next(self._chunks, END)
        except httpx.HTTPError as error:
            self.close()
            raise translated(error, self._response.request, self._deadline_s) from hidden(error)
        except BaseException:
            self.close()
            raise
        if chunk is END:
            self.close()
        return chunk

    def whole(self) -> httpx.Response:
        """The response with its body read."""
        try:
            self._response.read()
        except httpx.HTTPError as error:
            raise translated(error, self._response.request, self._deadline_s) from hidden(error)
        finally:
            self.close()
        return self._response

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else close it."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._chunks.close()
        self._response.close()

    async def anext(self) -> bytes | End:
        """A connection of the sync client is not read on an event loop."""
        raise RuntimeError("This body belongs to a synchronous call; read it with next().")

    async def aclose(self) -> None:
        """As `close`."""
        self.close()


class AsyncBody:
    """A `ByteSource` that is read on the event loop that its connection belongs to."""

    def __init__(self, response: httpx.Response, deadline_s: float | None) -> None:
        self._response = response
        self._deadline_s = deadline_s
        self._chunks = cast("AsyncGenerator[bytes]", response.aiter_bytes())  # httpx declares less than it returns

    @property
    def status_code(self) -> int:
        return self._response.status_code

    @property
    def headers(self) -> httpx.Headers:
        return self._response.headers

    async def anext(self) -> bytes | End:
        """The next bytes as they came, decompressed, or `END`."""
        try:
            return await anext(self._chunks, END)
        except httpx.HTTPError as error:
            raise translated(error, self._response.request, self._deadline_s) from hidden(error)

    async def aclose(self) -> None:
        """Give the connection back if the body was read to its end, else close it."""
        await self._response.aclose()
        await self._chunks.aclose()

    def next(self) -> bytes | End:
        """A connection of an event loop is not read outside of it."""
        raise RuntimeError("This body belongs to an event loop; read it with anext().")

    def close(self) -> None:
        """As `next`."""
        raise RuntimeError("This body belongs to an event loop; close it with aclose().")


def _cut_at(response: httpx.Response, deadline_s: float) -> threading.Timer | None:
    """Shut the connection's socket at the deadline: httpcore fixes the timeout of all reads as a body begins, so that a
    server which sends a little now and then would be read past it.
    """
    stream = response.extensions.get("network_stream")
    connected = None if stream is None else stream.get_extra_info("socket")
    if connected is None:
        return None
    alarm = threading.Timer(max(deadline_s - time.monotonic(), 0.0), _shut, (connected,))
    alarm.daemon = True
    alarm.start()
    return alarm


def _shut(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has been closed meanwhile
        socket.socket.shutdown(connected, socket.SHUT_RDWR)
