"""What the prompts call."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

from . import texts


def clean(text: str, mark: str = '"') -> str:
    """Without spaces around, in quotation marks."""
    # This comment counts for nothing.
    stripped = text.strip()
    return f"{mark}{stripped}{mark}"


@functools.lru_cache(maxsize=8)
def cached(text: str) -> str:
    """In capitals."""
    return text.upper()


def repeated(times: int) -> Callable[[Callable[[str], str]], Callable[[str], str]]:
    """A decorator with an argument."""

    def decorate(function: Callable[[str], str]) -> Callable[[str], str]:
        @functools.wraps(function)
        def wrapper(text: str) -> str:
            for _ in range(times):
                text = function(text)
            return text

        return wrapper

    return decorate


@repeated(times=2)
def starred(text: str) -> str:
    """Between stars."""
    return f"*{text}*"


@contextlib.contextmanager
def bracketed() -> Iterator[str]:
    """Used with `with`."""
    yield "[...]"


@functools.singledispatch
def told(value: object) -> str:
    """A value as text."""
    return f"thing {value}"


@told.register
def _(value: int) -> str:
    return f"number {value}"


def prefixed(prefix: str) -> Callable[[str], str]:
    """A function with a closure variable."""

    def add(text: str) -> str:
        return f"{prefix} {text}"

    return add


def footer() -> str:
    """Two files away."""
    return texts.signature()


def even(number: int) -> bool:
    """Calls `odd`, which calls it."""
    return number == 0 or odd(number - 1)


def odd(number: int) -> bool:
    """Calls `even`, which calls it."""
    return number != 0 and even(number - 1)
