"""Which values are captured, which are named opaque, and which are credentials."""

from __future__ import annotations

import collections
import contextvars
import datetime as dt
import threading
import uuid
import zoneinfo
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydantic
import pytest

from llmops_sdk.prompts.version import PromptVersion, VersionTracker


def version_of(function: Callable[..., Any]) -> PromptVersion:
    return VersionTracker(function, name=None, declared={}).current()


class Raises:
    """Raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        raise RuntimeError("hash")

    def __len__(self) -> int:
        raise RuntimeError("len")

    def __repr__(self) -> str:
        raise RuntimeError("repr")


class Slotted:
    """Holds what no declared field names."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 1


class Looping(str):
    """Refers to itself."""

    __slots__ = ("itself",)


CYCLE: list[Any] = [1]
CYCLE.append(CYCLE)
DEEP: Any = 0
for _ in range(5000):
    DEEP = [DEEP]

OPAQUE_VALUES: dict[str, Any] = {
    "an object": object(),
    "an object with slots": Slotted(),
    "an object that raises": Raises(),
    "a lock": threading.Lock(),
    "an iterator": iter(()),
    "a large list": list(range(30_000)),
    "a large array": np.zeros(3_000_000),
    "an array of objects": np.array([object()], dtype=object),
    "something nested thousands deep": DEEP,
    "a set that nothing orders": {lambda: 1, lambda: 2},
    "a secret": pydantic.SecretStr("hidden"),
    "a credential": "sk-proj-Ab3dEf6hIj9lMn2pQr5tUv8x",
}


@pytest.mark.parametrize("name", OPAQUE_VALUES)
def test_what_cannot_be_captured_is_named_and_the_rest_is_captured(name: str) -> None:
    """No repr, no address, no guess: the value counts for nothing, and the version says so."""
    value, tone = OPAQUE_VALUES[name], "calm"

    def ask() -> str:
        return f"{value} {tone}"

    version = version_of(ask)
    stem = f"{__name__}.{ask.__qualname__}"
    assert any(told.startswith(f"{stem}.value") for told in version.opaque), version
    assert version.captured == (f"{stem}.tone",)


def test_an_opaque_value_counts_for_nothing() -> None:
    """Two processes that hold other objects there have one version."""

    def hash_with(value: object) -> str:
        def ask() -> str:
            return str(value)

        return version_of(ask).hash

    assert hash_with(object()) == hash_with(object())
    assert hash_with(Slotted()) != hash_with(object()), "the code of its class does count"


CAPTURED_VALUES: dict[str, tuple[Any, Any]] = {
    "arrays": (np.arange(6), np.arange(6).reshape(2, 3)),
    "types of arrays": (np.zeros(2, np.float32), np.zeros(2, np.float64)),
    "cycles": (CYCLE, [1, [1]]),
    "subclasses of str": (Looping("a"), "a"),
    "namespaces": (SimpleNamespace(a=1), SimpleNamespace(a=2)),
    "slices": (slice(1, 2), slice(1, 3)),
    "frozen sets": (frozenset({1, "a"}), {1, "a"}),
    "bytes": (b"a", bytearray(b"a")),
    "builtins": (len, max),
    "dates": (dt.date(2024, 2, 29), dt.date(2024, 3, 1)),
    "time zones": (zoneinfo.ZoneInfo("Europe/Berlin"), dt.UTC),
    "identifiers": (uuid.UUID(int=1), uuid.UUID(int=2)),
    "ranges": (range(2), range(3)),
    "default dicts": (collections.defaultdict(list, a=[1]), {"a": [1]}),
    "queues": (collections.deque([1, 2]), [1, 2]),
    "counters": (collections.Counter("aab"), collections.Counter("abb")),
    "context variables": (contextvars.ContextVar("one"), contextvars.ContextVar("two")),
    "bound methods of builtins": ("a".join, "b".join),
    "methods of types": (str.upper, str.lower),
}


@pytest.mark.parametrize("name", CAPTURED_VALUES)
def test_values_of_many_kinds_are_captured(name: str) -> None:
    """Different values give different versions, equal ones equal versions, and nothing is opaque."""

    def hash_with(value: Any) -> str:
        def ask() -> str:
            return str(value)

        version = version_of(ask)
        assert not version.opaque
        return version.hash

    one, other = CAPTURED_VALUES[name]
    assert hash_with(one) == hash_with(one)
    assert hash_with(one) != hash_with(other)


@pytest.mark.parametrize(
    ("key", "secret"),
    [("api_key", True), ("password", True), ("client_secret", True), ("access_token", True), ("max_tokens", False)],
)
def test_credentials_are_known_by_the_names_that_hold_them(key: str, secret: bool) -> None:
    """A key that is rotated gives no new version, and no hash of it leaves the process."""

    def hash_with(text: str) -> tuple[str, tuple[str, ...]]:
        settings = {key: text}

        def ask() -> str:
            return str(settings)

        version = version_of(ask)
        return version.hash, version.opaque

    (one, opaque), (other, _) = hash_with("swordfish-1"), hash_with("swordfish-2")
    assert (one == other) is secret
    assert bool(opaque) is secret
    assert not any("swordfish" in name for name in opaque)


def test_keys_of_dicts_are_shown_only_where_they_read_like_names() -> None:
    """A dict may be keyed by what nobody should read."""
    table = {"plain": object(), "s3cr3t value": object()}

    def ask() -> str:
        return str(table)

    told = version_of(ask).opaque
    assert [name.rpartition(".table")[2] for name in told] == ["['plain']", "[…]"]
