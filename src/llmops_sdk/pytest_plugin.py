"""The pytest plugin: fixtures for applications built on the SDK, and the no-network switch.

It is loaded in every pytest run where the SDK is installed, so it imports nothing but pytest and the standard library
until a fixture or the switch is used.

Fixtures: `scripted_model`, `span_recorder`, `llmops_home`. Switch: `--llmops-no-network`, or in the configuration file

    [tool.pytest.ini_options]
    llmops_network = "loopback"
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from llmops_sdk.testing import Reply, ScriptedModel, SpanRecorder

_VARIABLE = "LLMOPS_NETWORK"


class MakeScriptedModel(Protocol):
    """The type of the fixture `scripted_model`."""

    def __call__(self, *replies: Reply, name: str = "scripted") -> ScriptedModel:
        """A model that answers with `replies`, in order."""
        ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the switch."""
    told = "refuse every connection that would leave this machine"
    parser.getgroup("llmops").addoption("--llmops-no-network", action="store_true", default=False, help=told)
    parser.addini("llmops_network", help=f'"loopback": {told}; "allow" (the default)', default="allow")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Close the network for this run, where it is asked for, before any test module is imported."""
    policy = "loopback" if config.getoption("--llmops-no-network") else str(config.getini("llmops_network"))
    if policy not in ("allow", "loopback"):
        raise pytest.UsageError(f'llmops_network must be "allow" or "loopback"; it is {policy!r}.')
    if policy == "loopback":
        closed = contextlib.ExitStack()
        closed.enter_context(_setting_closed())
        closed.enter_context(_sockets_closed())
        config.add_cleanup(closed.close)


@pytest.fixture
def scripted_model() -> MakeScriptedModel:
    """Make models that answer from a script: `scripted_model("Paris", RateLimitedError("slow down"))`."""
    from llmops_sdk.testing import ScriptedModel

    def make(*replies: Reply, name: str = "scripted") -> ScriptedModel:
        return ScriptedModel(replies, name=name)

    return make


@pytest.fixture
def span_recorder() -> Iterator[SpanRecorder]:
    """The spans that ended during the test: `.spans`, and `.by_name("…")`."""
    from llmops_sdk.testing import SpanRecorder

    with SpanRecorder() as recorder:
        yield recorder


@pytest.fixture
def llmops_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home of the test's own, for traces, caches and indexes."""
    from llmops_sdk.settings import set_settings

    home = tmp_path / ".llmops"
    monkeypatch.setenv("LLMOPS_HOME", str(home))
    before = set_settings(None)
    yield home
    set_settings(before)


@contextlib.contextmanager
def _setting_closed() -> Iterator[None]:
    """`LLMOPS_NETWORK=loopback`, for this process and those that it starts."""
    from llmops_sdk.settings import set_settings

    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "loopback"
    settings = set_settings(None)
    try:
        yield
    finally:
        set_settings(settings)
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before


@contextlib.contextmanager
def _sockets_closed() -> Iterator[None]:
    """The standard library's sockets refuse to look up or reach other hosts, whichever client uses them.

    Code that opens sockets below Python (gRPC, database drivers in C) is not stopped.
    """
    before = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex", "sendto")}
    look_up = socket.getaddrinfo

    def checked(name: str) -> Any:
        def method(self: socket.socket, *args: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                _refuse_foreign(str(args[-1][0]), args[-1][1])
            return before[name](self, *args)

        return method

    def checked_look_up(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        name = _written(host)
        if name and not _is_address(name):
            _refuse_foreign(name, port)
        return look_up(host, port, *args, **kwargs)

    for name in before:
        setattr(socket.socket, name, checked(name))
    socket.getaddrinfo = checked_look_up
    try:
        yield
    finally:
        socket.getaddrinfo = look_up
        for name, method in before.items():
            setattr(socket.socket, name, method)


def _written(host: Any) -> str:
    return host.decode("idna") if isinstance(host, bytes | bytearray) else str(host or "")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _refuse_foreign(host: str, port: object) -> None:
    """Raise `NetworkBlockedError` for a host that is not this one."""
    from llmops_sdk.settings import is_loopback

    if is_loopback(host):
        return
    from llmops_sdk.errors import NetworkBlockedError

    test = os.environ.get("PYTEST_CURRENT_TEST", "outside of a test").rpartition(" (")
    raise NetworkBlockedError(
        f"{test[0] or test[2]} tried to reach {host}:{port}; the network is closed (llmops_network = loopback). "
        f"Use ScriptedModel or a local server, or open it for this run: pytest -o llmops_network=allow"
    )
