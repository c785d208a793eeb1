"""The pytest plugin, as a project of our users sees it."""

from __future__ import annotations

import pytest


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project without configuration of its own, run in a process of its own."""
    monkeypatch.delenv("LLMOPS_NETWORK", raising=False)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    return pytester


CONNECT = """
    import socket

    def test_connect():
        socket.create_connection(("192.0.2.1", 9), timeout=0.001)
"""
"""192.0.2.0/24 is reserved for documentation (RFC 5737): nothing answers there."""


def test_the_network_is_open_unless_asked(project: pytest.Pytester) -> None:
    """A project that has not asked keeps its sockets: the connection fails by itself, not by us."""
    project.makepyfile(CONNECT)
    result = project.runpytest_subprocess("-q")
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*NetworkBlockedError*")


@pytest.mark.parametrize("how", ["option", "ini"])
def test_a_closed_network_refuses_and_names_host_and_test(project: pytest.Pytester, how: str) -> None:
    """The message says who tried to reach what, and how to open it."""
    project.makepyfile(CONNECT)
    option = "--llmops-no-network" if how == "option" else "--override-ini=llmops_network=loopback"
    result = project.runpytest_subprocess("-q", option)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*NetworkBlockedError: *test_connect tried to reach 192.0.2.1:9*-o llmops_network=allow*"]
    )


def test_names_are_refused_before_they_are_looked_up(project: pytest.Pytester) -> None:
    """No query reaches a name server, whichever client asks; the host is named as the code named it."""
    project.makepyfile(
        """
        import asyncio, socket, urllib.request
        import httpx, pytest
        from llmops_sdk.errors import NetworkBlockedError

        async def ask():
            async with httpx.AsyncClient() as client:
                await client.get("http://llm.example")

        @pytest.mark.parametrize("reach", [
            lambda: socket.getaddrinfo("llm.example", 80),
            lambda: socket.getaddrinfo(b"llm.example", 80),
            lambda: urllib.request.urlopen("http://llm.example"),
            lambda: httpx.get("http://llm.example"),
            lambda: asyncio.run(ask()),
        ])
        def test_reach(reach):
            with pytest.raises(NetworkBlockedError, match="test_reach.* tried to reach llm.example:80"):
                reach()
        """
    )
    project.runpytest_subprocess("-q", "--llmops-no-network").assert_outcomes(passed=5)


def test_addresses_in_all_forms_are_refused(project: pytest.Pytester) -> None:
    """TCP, UDP, IPv6, and IPv4 within IPv6."""
    project.makepyfile(
        """
        import socket
        import pytest
        from llmops_sdk.errors import NetworkBlockedError

        @pytest.mark.parametrize("family, kind, way, address", [
            (socket.AF_INET, socket.SOCK_STREAM, "connect", ("192.0.2.1", 9)),
            (socket.AF_INET, socket.SOCK_STREAM, "connect_ex", ("192.0.2.1", 9)),
            (socket.AF_INET6, socket.SOCK_STREAM, "connect", ("2001:db8::1", 9)),
            (socket.AF_INET6, socket.SOCK_STREAM, "connect", ("::ffff:192.0.2.1", 9, 0, 0)),
        ])
        def test_tcp(family, kind, way, address):
            with socket.socket(family, kind) as s, pytest.raises(NetworkBlockedError):
                getattr(s, way)(address)

        def test_udp():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s, pytest.raises(NetworkBlockedError):
                s.sendto(b"x", ("192.0.2.1", 9))
        """
    )
    project.runpytest_subprocess("-q", "--llmops-no-network").assert_outcomes(passed=5)


def test_this_machine_stays_reachable(project: pytest.Pytester) -> None:
    """Local servers, Unix sockets and event loops work as before."""
    project.makepyfile(
        """
        import asyncio, socket
        import pytest

        @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "::ffff:127.0.0.1"])
        def test_loopback(host):
            six = ":" in host
            address, family = ("::", socket.AF_INET6) if six else ("127.0.0.1", socket.AF_INET)
            with socket.create_server((address, 0), family=family, dualstack_ipv6=six) as server:
                socket.create_connection((host, server.getsockname()[1])).close()

        def test_unix(tmp_path):
            with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
                server.bind(str(tmp_path / "s"))
                server.listen()
                client.connect(str(tmp_path / "s"))

        def test_asyncio():
            async def reach():
                server = await asyncio.start_server(lambda r, w: w.close(), "localhost", 0)
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
                assert await reader.read() == b""
                writer.close()
                server.close()
            asyncio.run(reach())
        """
    )
    project.runpytest_subprocess("-q", "--llmops-no-network").assert_outcomes(passed=6)


def test_requests_of_the_sdk_are_refused_by_the_setting_too(project: pytest.Pytester) -> None:
    """The setting is in force for models, also in processes that a test starts."""
    project.makepyfile(
        """
        import subprocess, sys
        from llmops_sdk.settings import current_settings

        def test_setting():
            assert current_settings().network == "loopback"
            code = "from llmops_sdk.settings import current_settings; print(current_settings().network)"
            assert subprocess.check_output([sys.executable, "-c", code], text=True) == "loopback\\n"
        """
    )
    project.runpytest_subprocess("-q", "--llmops-no-network").assert_outcomes(passed=1)


def test_what_was_closed_is_opened_after_the_run(project: pytest.Pytester) -> None:
    """A program that calls `pytest.main` has its sockets and settings back afterwards."""
    project.makepyfile(test_it="def test_it(): pass")
    program = project.makepyfile(
        program="""
        import os, socket, sys
        import pytest
        from llmops_sdk.settings import current_settings
        before = (socket.getaddrinfo, socket.socket.connect, socket.socket.connect_ex, socket.socket.sendto)
        assert pytest.main(["-q", "--llmops-no-network", "test_it.py"]) == 0
        assert before == (socket.getaddrinfo, socket.socket.connect, socket.socket.connect_ex, socket.socket.sendto)
        assert "LLMOPS_NETWORK" not in os.environ
        assert current_settings().network == "allow"
        """
    )
    assert project.runpython(program).ret == 0


def test_an_unknown_policy_is_refused(project: pytest.Pytester) -> None:
    """A typing error must not leave the network open."""
    result = project.runpytest_subprocess("--override-ini=llmops_network=closed")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(['*llmops_network must be "allow" or "loopback"; it is \'closed\'*'])


def test_fixtures_serve_an_application(project: pytest.Pytester) -> None:
    """A prompt under test is answered from a script, its spans are seen, and nothing lands in the developer's home."""
    project.makepyfile(
        """
        from llmops_sdk import prompt
        from llmops_sdk.settings import current_settings, find_home

        @prompt("openai:gpt-5-mini")
        def capital(country: str) -> str:
            return f"The capital of {country}?"

        def test_capital(scripted_model, span_recorder, llmops_home):
            model = scripted_model("Paris", name="script")
            assert capital.using(model=model)("France") == "Paris"
            assert model.requests[0].text == "The capital of France?"
            assert span_recorder.by_name("chat script")
            assert find_home(current_settings()) == llmops_home

        def test_recorders_start_empty(span_recorder):
            assert list(span_recorder.spans) == []
        """
    )
    project.runpytest_subprocess("-q", "--llmops-no-network").assert_outcomes(passed=2)
