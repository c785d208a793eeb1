"""Ways around a guard that were tried: copies, pickles, classes, generators, and the order of decorators."""

from __future__ import annotations

import asyncio
import copy
import functools
import pickle
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest

from llmops_sdk import guard, prompt, trace
from llmops_sdk.errors import GuardBlockedError
from llmops_sdk.testing import ScriptedModel
from llmops_sdk.types import Request, Verdict


class NoDragons:
    """Blocks a text that has a dragon in it."""

    name = "no-dragons"

    def check(self, text: str) -> Verdict:
        found = "dragon" in text
        return Verdict(check=self.name, action="block" if found else "pass", reason="there is a dragon")


asked: list[str] = []


def reply(request: Request) -> str:
    asked.append(request.text)
    return "a reply"


MODEL = ScriptedModel([reply] * 10_000)


@pytest.fixture(autouse=True)
def nothing_asked() -> None:
    asked.clear()


@guard(NoDragons())
@prompt(MODEL)
def answer(text: str) -> str:
    return text


@prompt(MODEL)
def bare(text: str) -> str:
    return text


guarded_later = guard(NoDragons())(bare)


class Desk:
    @guard(NoDragons())
    @prompt(MODEL)
    def method(self, text: str) -> str:
        return text

    @guard(NoDragons())
    @prompt(MODEL)
    @classmethod
    def on_class(cls, text: str) -> str:
        return text

    @guard(NoDragons())
    @classmethod
    @prompt(MODEL)
    def between(cls, text: str) -> str:
        return text

    @guard(NoDragons())
    @staticmethod
    @prompt(MODEL)
    def static_between(text: str) -> str:
        return text

    @staticmethod
    @guard(NoDragons())
    @prompt(MODEL)
    def static_inside(text: str) -> str:
        return text


class Child(Desk):
    def method(self, text: str) -> str:  # type: ignore[override]  # an override that calls the guarded one
        return str(super().method(text))


STACKS: dict[str, Callable[[], Any]] = {
    "function": lambda: answer,
    "guarded after the fact": lambda: guarded_later,
    "bound method": lambda: Desk().method,
    "method through the class": lambda: functools.partial(Desk.method, Desk()),
    "class method": lambda: Desk.on_class,
    "class method of an instance": lambda: Desk().on_class,
    "class method of a child": lambda: Child.on_class,
    "guard over classmethod over prompt": lambda: Desk.between,
    "the same of an instance": lambda: Desk().between,
    "guard over staticmethod over prompt": lambda: Desk.static_between,
    "staticmethod over guard": lambda: Desk().static_inside,
    "super()": lambda: Child().method,
    "shallow copy": lambda: copy.copy(answer),
    "deep copy": lambda: copy.deepcopy([answer])[0],
    "deep copy of a bound method": lambda: copy.deepcopy(Desk().method),
    "pickle": lambda: pickle.loads(pickle.dumps(answer)),
    "pickle of a bound method": lambda: pickle.loads(pickle.dumps(Desk().method)),
    "pickle of a class method": lambda: pickle.loads(pickle.dumps(Desk.on_class)),
    "pickle with overrides": lambda: pickle.loads(pickle.dumps(answer.using(seed=1))),
    "traced above": lambda: trace(answer),
    "bound, then traced": lambda: trace(Desk().method),
    "partial": lambda: functools.partial(answer),
    "guarded partial of the bare prompt": lambda: guard(NoDragons())(functools.partial(bare)),
    "guarded lambda over the bare prompt": lambda: guard(NoDragons())(lambda text: bare(text)),
}

ENTRIES: dict[str, Callable[[Any, str], Any]] = {
    "()": lambda f, text: f(text),
    ".response": lambda f, text: f.response(text),
    ".stream": lambda f, text: list(f.stream(text)),
    ".render": lambda f, text: f.render(text),
    ".batch": lambda f, text: f.batch([(text,)]),
    ".using()": lambda f, text: f.using(seed=1)(text),
    ".using().response": lambda f, text: f.using(seed=1).response(text),
    ".using().stream": lambda f, text: list(f.using(model=MODEL).stream(text)),
    ".using().batch": lambda f, text: f.using(model=MODEL).using(seed=1).batch([(text,)]),
    ".using().render": lambda f, text: f.using(seed=1).render(text),
}

PLAIN = {"method through the class", "super()", "partial"}
"""Callables that offer nothing but the call: a partial, a plain method."""
FUNCTIONS = {"guarded partial of the bare prompt", "guarded lambda over the bare prompt"}
"""Guarded plain functions: no prompt, so only the call."""


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("stack", STACKS)
def test_nothing_is_asked_about_dragons(stack: str, entry: str) -> None:
    """Every entry point of every copy, binding and stacking goes through the guard, or does not exist."""
    made = STACKS[stack]()
    if entry != "()" and stack in PLAIN | FUNCTIONS:
        with pytest.raises(AttributeError):
            ENTRIES[entry](made, "sheep")
        return
    with pytest.raises(GuardBlockedError, match="there is a dragon"):
        ENTRIES[entry](made, "a dragon")
    assert asked == []
    ENTRIES[entry](made, "sheep")
    assert asked == ([] if "render" in entry else ["sheep"])


def test_a_guard_that_the_pickled_name_does_not_have_is_not_lost() -> None:
    """`guarded_later` is named `bare` inside; unpickled by that name it would be the unguarded prompt."""
    with pytest.raises(pickle.PicklingError, match="other decorators"):
        pickle.dumps(guarded_later)
    with pytest.raises(pickle.PicklingError, match="other decorators"):
        pickle.dumps(guarded_later.using(seed=1))


def test_what_is_wrapped_is_the_users_function_and_asks_nothing() -> None:
    """Unbound, bound, stacked in any order, and behind overrides."""
    for made in (
        answer,
        guarded_later,
        answer.using(seed=1),
        Desk().method,
        Desk.on_class,
        Desk.between,
        trace(answer),
    ):
        inner = made.__wrapped__
        while True:
            assert not hasattr(inner, "stream")
            assert not hasattr(inner, "response")
            if not hasattr(inner, "__wrapped__"):
                break
            inner = inner.__wrapped__
    assert answer.__wrapped__("a dragon") == Desk().method.__wrapped__("a dragon") == "a dragon"
    assert asked == []


class AsyncDesk:
    @guard(NoDragons())
    @prompt(MODEL)
    async def ask(self, text: str) -> str:
        return text


ASYNC_STACKS: dict[str, Callable[[], Any]] = {
    "bound method": lambda: AsyncDesk().ask,
    "deep copy": lambda: copy.deepcopy(AsyncDesk().ask),
    "pickle": lambda: pickle.loads(pickle.dumps(AsyncDesk().ask)),
    "pickle with overrides": lambda: pickle.loads(pickle.dumps(AsyncDesk().ask.using(seed=1))),
    "traced above": lambda: trace(AsyncDesk().ask),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("stack", ASYNC_STACKS)
def test_nothing_is_asked_about_dragons_asynchronously(stack: str, entry: str) -> None:
    """The same for prompts that are coroutine functions."""

    async def read(stream: Any) -> list[Any]:
        return [delta async for delta in stream]

    async def enter(text: str) -> None:
        made = ASYNC_STACKS[stack]()
        if "stream" in entry:
            await read((made.using(model=MODEL) if "using" in entry else made).stream(text))
        else:
            await ENTRIES[entry](made, text)

    with pytest.raises(GuardBlockedError, match="there is a dragon"):
        asyncio.run(enter("a dragon"))
    assert asked == []
    asyncio.run(enter("sheep"))
    assert asked == ([] if "render" in entry else ["sheep"])


# Generators ---------------------------------------------------------------------------------------------------------


@guard(NoDragons(), output=[NoDragons()])
def telling(text: str) -> Generator[str, Any, str]:
    yield from text.split("|")
    return "a dragon came back"


@guard(output=[NoDragons()])
async def atelling(text: str) -> AsyncIterator[str]:
    for word in text.split("|"):
        yield word


def test_what_a_generator_returns_is_checked_like_what_it_yields() -> None:
    """`yield from` hands it to its reader."""

    def reader() -> Iterator[str]:
        told = yield from telling("sheep. ")
        yield told

    reading = reader()
    assert next(reading) == "sheep. "
    with pytest.raises(GuardBlockedError, match="output"):
        next(reading)


def test_text_that_was_held_when_the_reader_left_never_comes_out() -> None:
    """Closed early, the unfinished sentence is dropped, not let go unchecked."""
    generator = telling("One sheep. |Then a dra|gon. |More.")
    assert next(generator) == "One sheep. "
    generator.close()
    assert list(generator) == []

    async def main() -> list[str]:
        agenerator: Any = atelling("One sheep. |Then a dra|gon. |More.")
        first = await anext(agenerator)
        await agenerator.aclose()
        return [first, *[word async for word in agenerator]]

    assert asyncio.run(main()) == ["One sheep. "]


def test_a_reader_that_goes_on_after_a_block_gets_nothing_more() -> None:
    generator = telling("a dragon. |sheep. ")
    with pytest.raises(GuardBlockedError):
        next(generator)
    assert list(generator) == []


def test_a_stream_that_goes_on_after_a_block_gives_nothing_more() -> None:
    made = guard(output=[NoDragons()])(prompt(ScriptedModel(["One sheep. A dragon. More sheep."]))(plain))
    stream = made.stream("q")
    assert next(stream).text == "One sheep. "
    with pytest.raises(GuardBlockedError):
        next(stream)
    assert list(stream) == []


def plain(text: str) -> str:
    return text
