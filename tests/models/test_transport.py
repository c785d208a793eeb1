"""The transport against a real server: threads, loops, processes, deadlines, errors, cut connections."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import multiprocessing
import socket
import struct
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from flow_harness import Face
from http_server import PATIENCE_S, Answer, Server, serving, streamed

from llmops_sdk.errors import (
    ConnectionFailedError,
    DeadlineExceededError,
    LLMOpsError,
    MalformedResponseError,
    NetworkBlockedError,
    RequestTimeoutError,
    UsageError,
)
from llmops_sdk.flow import END, Flow, Next, Send
from llmops_sdk.models.http_errors import translated
from llmops_sdk.models.transport import HttpTransport
from llmops_sdk.settings import Settings, is_loopback, set_settings


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    return Face(request.param)


@pytest.fixture
def transport() -> Iterator[HttpTransport]:
    transport = HttpTransport()
    yield transport
    transport.close()


def post(url: str) -> httpx.Request:
    return httpx.Request("POST", url, content=b"{}")


def whole(transport: HttpTransport, url: str, timeout_s: float | None = PATIENCE_S) -> Flow[httpx.Response]:
    response: httpx.Response = yield Send(post(url), stream=False, transport=transport, timeout_s=timeout_s)
    return response


def pieces(transport: HttpTransport, url: str, timeout_s: float | None = PATIENCE_S) -> Flow[list[bytes]]:
    source = yield Send(post(url), stream=True, transport=transport, timeout_s=timeout_s)
    found = [source.status_code, source.headers["content-type"]]
    while (chunk := (yield Next(source))) is not END:
        found.append(chunk)
    return found


TEXT = Answer(headers={"Content-Type": "text/plain"}, chunks=(b"hello",))


def test_a_response_comes_whole_or_as_a_source(face: Face, transport: HttpTransport) -> None:
    """Both ways of `Send`, on both drivers, over connections that are used again."""
    with serving(TEXT) as server:
        assert face.run(whole(transport, server.url)).text == "hello"
        assert face.run(pieces(transport, server.url)) == [200, "text/plain", b"hello"]


def test_a_connection_serves_again_once_its_body_was_read(transport: HttpTransport) -> None:
    """Streamed or not: opening a connection anew costs a handshake."""
    with serving(TEXT) as server:
        sync = Face("sync")
        for flow in (whole, pieces, whole):
            sync.run(flow(transport, server.url))
        assert server.connections == 1

        async def twice() -> None:
            for _ in range(2):
                await transport.asend(post(server.url), stream=False, timeout_s=None, deadline_s=None)

        asyncio.run(twice())
        assert server.connections == 2


def test_compressed_bodies_come_decompressed(face: Face, transport: HttpTransport) -> None:
    """As the client that is asked for them would see them."""
    packed = gzip.compress(b"hello" * 100)
    headers = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
    with serving(Answer(headers=headers, chunks=(packed,))) as server:
        assert b"".join(face.run(pieces(transport, server.url))[2:]) == b"hello" * 100


def test_redirects_are_not_followed(face: Face, transport: HttpTransport) -> None:
    """A key must not travel to where a server points."""
    with serving(Answer(status=307, headers={"Location": "/elsewhere"})) as server:
        assert face.run(whole(transport, server.url)).status_code == 307
        assert len(server.asked) == 1


# Threads, loops, processes ------------------------------------------------------------------------------------------


def test_one_transport_serves_three_event_loops_four_threads_and_a_sync_caller(transport: HttpTransport) -> None:
    """Connections belong to a loop; what a closed loop leaves behind is closed with it, without a warning."""
    with serving(TEXT) as server:
        for _ in range(3):
            assert Face("async").run(pieces(transport, server.url))[2] == b"hello"
        with ThreadPoolExecutor(4) as pool:
            runs = [pool.submit(Face(k).run, whole(transport, server.url)) for k in ("sync", "async") * 2]
            assert [run.result().text for run in runs] == ["hello"] * 4
        assert transport._loops == {}
        gc.collect()


def test_a_loop_that_closed_without_shutting_down_is_forgotten(transport: HttpTransport) -> None:
    """Its client is dropped when the next loop comes."""
    with serving(TEXT) as server:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(transport.asend(post(server.url), stream=False, timeout_s=1, deadline_s=None))
        key = (loop, True)
        (client, _) = transport._loops[key]
        loop.run_until_complete(client.aclose())
        loop.close()
        assert list(transport._loops) == [key]
        Face("async").run(whole(transport, server.url))
        assert transport._loops == {}


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_opens_connections_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that write into one connection would mix their requests."""
    from llmops_sdk.models import transport as room

    ours = HttpTransport()
    monkeypatch.setattr(room._Process, "transport", ours)
    with serving(TEXT) as server:
        parent = Face("sync")
        parent.run(whole(ours, server.url))
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()

        def ask() -> None:
            queue.put([Face(kind).run(whole(ours, server.url)).text for kind in ("sync", "async")])

        child = context.Process(target=ask)
        child.start()
        child.join(20)
        assert child.exitcode == 0
        assert queue.get() == ["hello", "hello"]
        parent.run(whole(ours, server.url))
        ports = [asked.port for asked in server.asked]
        assert ports[0] == ports[3]
        assert len(set(ports)) == 3
        queue.close()
    ours.close()


# Deadlines and timeouts ---------------------------------------------------------------------------------------------


def test_a_server_that_does_not_answer_is_a_timeout(face: Face, transport: HttpTransport) -> None:
    """The model's own timeout, whole or streamed."""
    never = threading.Event()
    with serving(Answer(before=never)) as server:
        for flow in (whole, pieces):
            with pytest.raises(RequestTimeoutError, match=r"longer than 0.05 s \(read\)"):
                face.run(flow(transport, server.url, timeout_s=0.05))
        never.set()


def test_a_body_that_drips_is_cut_at_the_deadline(face: Face, transport: HttpTransport) -> None:
    """Each wait is short and the timeout long: only the deadline of the whole call ends it."""
    stop = threading.Event()

    def drops() -> Iterator[bytes]:
        while not stop.wait(0.01):
            yield b"drop"

    def drip(asked: Any) -> Answer:
        return Answer(headers={"Content-Type": "text/plain"}, chunks=drops(), length=False)

    with serving(drip) as server:
        for flow in (whole, pieces):
            with pytest.raises(DeadlineExceededError):
                face.run(flow(transport, server.url), deadline_s=0.15)
        stop.set()


def test_a_body_that_falls_silent_is_cut_at_the_deadline(face: Face, transport: HttpTransport) -> None:
    """The wait for the next bytes began long before."""
    silence = threading.Event()
    with serving(streamed(b"one", silence, b"two")) as server:
        with pytest.raises(DeadlineExceededError):
            face.run(pieces(transport, server.url), deadline_s=0.1)
        silence.set()


def test_a_deadline_that_is_kept_leaves_the_connection_usable(face: Face, transport: HttpTransport) -> None:
    """The guard of a finished call cuts nothing."""
    with serving(TEXT) as server:

        def twice() -> Flow[list[Any]]:
            return [(yield from pieces(transport, server.url)), (yield from pieces(transport, server.url))]

        assert face.run(twice(), deadline_s=PATIENCE_S) == [[200, "text/plain", b"hello"]] * 2
        assert server.connections == 1


# Failures -----------------------------------------------------------------------------------------------------------


def refused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def test_a_refused_connection_says_whom_it_could_not_reach(face: Face, transport: HttpTransport) -> None:
    """Address and reason, and nothing of what was to be sent."""
    url = f"http://127.0.0.1:{refused_port()}/v1"
    with pytest.raises(ConnectionFailedError, match=r"http://127.0.0.1:\d+ cannot be reached: .*Is it running"):
        face.run(whole(transport, url))


@pytest.mark.parametrize("flow", [whole, pieces])
def test_a_connection_that_is_cut_is_a_failed_connection(face: Face, transport: HttpTransport, flow: Any) -> None:
    """Before the head, or amid the body."""
    with serving(streamed(b"half", cut=True)) as server, pytest.raises(ConnectionFailedError, match="broke"):
        face.run(flow(transport, server.url))


def test_a_body_that_is_not_encoded_as_it_says_is_malformed(face: Face, transport: HttpTransport) -> None:
    """Trying again would not help."""
    headers = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
    with serving(Answer(headers=headers, chunks=(b"no gzip",))) as server, pytest.raises(MalformedResponseError):
        face.run(pieces(transport, server.url))


def test_an_illegal_header_is_not_quoted(face: Face, transport: HttpTransport) -> None:
    """HTTP clients quote it in their error, and it may be the key."""

    def flow(url: str) -> Flow[Any]:
        request = httpx.Request("POST", url, headers={"Authorization": "Bearer sesame\n"})
        return (yield Send(request, stream=False, transport=transport))

    with serving(TEXT) as server, pytest.raises(UsageError, match="not valid HTTP") as caught:
        face.run(flow(server.url))
    error: BaseException | None = caught.value
    assert "sesame" not in str(error)
    assert error is not None
    assert error.__cause__ is None
    assert error.__suppress_context__


def test_a_source_belongs_to_the_driver_that_opened_it(transport: HttpTransport) -> None:
    """A mix-up says so instead of hanging."""
    with serving(TEXT) as server:
        body = transport.send(post(server.url), stream=True, timeout_s=1, deadline_s=None)
        with pytest.raises(RuntimeError, match="synchronous"):
            asyncio.run(body.anext())  # type: ignore[union-attr]  # with stream=True it is a source
        body.close()

        async def misread() -> None:
            body = await transport.asend(post(server.url), stream=True, timeout_s=1, deadline_s=None)
            for wrong in (body.next, body.close):  # type: ignore[union-attr]  # with stream=True it is a source
                with pytest.raises(RuntimeError, match="event loop"):
                    wrong()
            await body.aclose()

        asyncio.run(misread())


@pytest.mark.parametrize("flow", [whole, pieces])
def test_a_reset_connection_says_why_it_broke(face: Face, transport: HttpTransport, flow: Any) -> None:
    """HTTP clients raise an error without a word for it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def reset() -> None:
            met, _ = listening.accept()
            asked = b""
            while not asked.endswith(b"{}"):  # a reset amid the request would be met in writing, and swallowed
                asked += met.recv(65536)
            met.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            met.close()

        resetting = threading.Thread(target=reset)
        resetting.start()
        with pytest.raises(ConnectionFailedError, match=r"broke: .*reset by peer\. Try again\.$"):
            face.run(flow(transport, f"http://127.0.0.1:{listening.getsockname()[1]}/v1"))
        resetting.join()


def test_a_server_without_tls_is_not_called_down(face: Face, transport: HttpTransport) -> None:
    """It runs: the address is wrong."""
    with serving(TEXT) as server, pytest.raises(ConnectionFailedError, match=r"is the address an http:// one\?$"):
        face.run(whole(transport, server.url.replace("http:", "https:")))


def test_a_name_that_cannot_be_looked_up_is_not_called_down() -> None:
    """The resolver's own error, which this asks for by a service that there is not: no name leaves this machine."""
    request = post("https://api.example.invalid/v1")
    with pytest.raises(socket.gaierror) as cause:
        socket.getaddrinfo("127.0.0.1", "no-such-service")
    failed = httpx.ConnectError(str(cause.value))
    failed.__cause__ = cause.value
    told = str(translated(failed, request, None))
    assert "could not be looked up: check its spelling" in told
    assert "Is it running" not in told


# Proxies ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without proxies, to put one in."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.fixture(params=["allow", "loopback"])
def network(request: pytest.FixtureRequest) -> Iterator[str]:
    before = set_settings(Settings(network=request.param))
    yield request.param
    set_settings(before)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_what_is_for_this_machine_goes_through_no_proxy(
    face: Face, transport: HttpTransport, no_proxies: pytest.MonkeyPatch, network: str, variable: str
) -> None:
    """A closed network stays closed where the environment names a proxy, from the first request on."""
    with serving(TEXT) as proxy, serving(TEXT) as server:
        no_proxies.setenv(variable, proxy.url)
        assert face.run(whole(transport, server.url)).text == "hello"
        assert (len(server.asked), len(proxy.asked)) == (1, 0)


def test_a_network_that_closes_later_refuses_what_a_proxy_served_before(
    face: Face, transport: HttpTransport, no_proxies: pytest.MonkeyPatch
) -> None:
    """The setting is read at each request; open, other hosts are reached through the proxy."""
    with serving(TEXT) as proxy:
        no_proxies.setenv("HTTP_PROXY", proxy.url)
        before = set_settings(Settings(network="allow"))
        try:
            assert face.run(whole(transport, "http://api.example.invalid/v1")).text == "hello"
            set_settings(Settings(network="loopback"))
            with pytest.raises(NetworkBlockedError):
                face.run(whole(transport, "http://api.example.invalid/v1"))
        finally:
            set_settings(before)
        assert len(proxy.asked) == 1


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_a_dead_proxy_is_named_without_its_password(
    face: Face, transport: HttpTransport, no_proxies: pytest.MonkeyPatch, variable: str
) -> None:
    """Who reads that the provider cannot be reached would look in the wrong place."""
    address = f"127.0.0.1:{refused_port()}"
    no_proxies.setenv(variable, f"http://joe:sesame@{address}")
    before = set_settings(Settings(network="allow"))
    try:
        told = rf"through the proxy of the environment \({variable}, http://{address}\): .*Is the proxy running\?"
        with pytest.raises(ConnectionFailedError, match=told) as caught:
            face.run(whole(transport, "http://api.example.invalid/v1"))
    finally:
        set_settings(before)
    shown = "".join(traceback.format_exception(caught.value))
    assert "sesame" not in shown
    assert "joe" not in shown


def test_a_proxy_that_refuses_is_not_called_down(
    face: Face, transport: HttpTransport, no_proxies: pytest.MonkeyPatch
) -> None:
    """It runs, and wants a user and a password: it says so to CONNECT."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        no_proxies.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listening.getsockname()[1]}")

        def refuse() -> None:
            met, _ = listening.accept()
            with met:
                asked = b""
                while b"\r\n\r\n" not in asked:
                    asked += met.recv(65536)
                met.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

        refusing = threading.Thread(target=refuse)
        refusing.start()
        before = set_settings(Settings(network="allow"))
        try:
            with pytest.raises(ConnectionFailedError, match=r"HTTPS_PROXY, .*: 407 .*\. The proxy refused"):
                face.run(whole(transport, "https://api.example.invalid/v1"))
        finally:
            set_settings(before)
        refusing.join()


def test_a_proxy_that_cannot_be_is_told_without_its_password(
    face: Face, transport: HttpTransport, no_proxies: pytest.MonkeyPatch
) -> None:
    """HTTP clients quote its address in an error of their own."""
    no_proxies.setenv("HTTP_PROXY", "gopher://joe:sesame@127.0.0.1:1")
    before = set_settings(Settings(network="allow"))
    try:
        with pytest.raises(UsageError, match=r"HTTP_PROXY.*is no address of a proxy") as caught:
            face.run(whole(transport, "http://api.example.invalid/v1"))
    finally:
        set_settings(before)
    assert "sesame" not in "".join(traceback.format_exception(caught.value))


# Cancellation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", [whole, pieces])
def test_a_cancelled_call_closes_its_connection(face: Face, transport: HttpTransport, flow: Any) -> None:
    """The server sees the client go, and stops working for it."""
    begun = threading.Event()

    def hang(asked: Any) -> Answer:
        begun.set()
        return Answer(headers={"Content-Type": "text/plain"}, chunks=(b"some",), length=False, hang=True)

    with serving(hang) as server:
        face.interrupt(flow(transport, server.url, None), begun)
        assert server.asked[0].gone.wait(PATIENCE_S)


def test_a_hundred_and_fifty_calls_run_at_once_on_one_loop(transport: HttpTransport) -> None:
    """No pool makes the hundred-and-first wait: how many run at once is for limiters to say."""
    gate = threading.Barrier(150, timeout=PATIENCE_S)

    def together(asked: Any) -> Answer:
        gate.wait()
        return TEXT

    async def ask(server: Server) -> list[Any]:
        sends = [transport.asend(post(server.url), stream=False, timeout_s=None, deadline_s=None) for _ in range(150)]
        return await asyncio.gather(*sends)

    with serving(together) as server:
        assert {response.status_code for response in asyncio.run(ask(server))} == {200}


# The no-network switch ----------------------------------------------------------------------------------------------


def test_another_host_is_refused_before_its_name_is_looked_up(face: Face, transport: HttpTransport) -> None:
    """The setting holds without pytest's own switch, for every model."""
    before = set_settings(Settings(network="loopback"))
    try:
        with pytest.raises(NetworkBlockedError, match=r"api\.example\.invalid was refused.*LLMOPS_NETWORK=allow"):
            face.run(whole(transport, "https://api.example.invalid/v1"))
    finally:
        set_settings(before)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        *(
            (host, True)
            for host in ("localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]")
        ),
        *((host, True) for host in ("0.0.0.0", "::ffff:127.0.0.1", "fe80::1%lo") if host != "fe80::1%lo"),
        *((host, False) for host in ("example.com", "localhost.example.com", "10.0.0.1", "8.8.8.8", "fe80::1%lo", "")),
    ],
)
def test_what_counts_as_this_machine(host: str, here: bool) -> None:
    """Loopback and unspecified addresses, localhost and what is below it; no other name is trusted."""
    assert is_loopback(host) is here


def test_closing_twice_and_using_again(transport: HttpTransport) -> None:
    """`close` is what the end of the process calls; a later call opens anew."""
    with serving(TEXT) as server:
        for _ in range(2):
            assert Face("sync").run(whole(transport, server.url)).text == "hello"
            transport.close()
            transport.close()
        assert server.connections == 2


def test_errors_of_the_transport_are_ours(transport: HttpTransport) -> None:
    """Nothing of httpx's comes through: a layer above decides by our tree."""
    with serving(Answer(cut=True, headers={"Content-Type": "text/plain"}, length=False)) as server:
        with contextlib.suppress(LLMOpsError):
            Face("sync").run(whole(transport, server.url))
        server.answers = [TEXT]
        assert Face("sync").run(whole(transport, server.url)).text == "hello"
