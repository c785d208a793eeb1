"""A guard that can be walked around is no guard: every entry point of every stacking passes through it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from llmops_sdk import guard, prompt, trace
from llmops_sdk.errors import GuardBlockedError
from llmops_sdk.testing import ScriptedModel
from llmops_sdk.types import Verdict


class NoDragons:
    """Blocks a text that has a dragon in it."""

    name = "no-dragons"

    def check(self, text: str) -> Verdict:
        if "dragon" in text:
            return Verdict(check=self.name, action="block", reason="there is a dragon")
        return Verdict(check=self.name)


class NoDragonsAsync:
    """The same, as a coroutine."""

    name = "no-dragons-async"

    async def check(self, text: str) -> Verdict:
        await asyncio.sleep(0)
        return NoDragons().check(text)


def scripted() -> ScriptedModel:
    return ScriptedModel(["a reply"] * 20)


def plain(model: Any, check: Any, order: tuple[str, ...]) -> Any:
    return stack(ask_sync, model, check, order)


def ask_sync(text: str) -> str:
    return text


async def ask_async(text: str) -> str:
    return text


def stack(function: Any, model: Any, check: Any, order: tuple[str, ...]) -> Any:
    """The decorators in `order`, the innermost first, on `function`."""
    decorators: dict[str, Callable[[Any], Any]] = {
        "guard": guard(check),
        "prompt": prompt(model),
        "trace": trace,
    }
    for name in order:
        function = decorators[name](function)
    return function


SYNC_ENTRIES: dict[str, Callable[[Any, str], Any]] = {
    "call": lambda f, text: f(text),
    "keyword": lambda f, text: f(text=text),
    "response": lambda f, text: f.response(text),
    "stream": lambda f, text: list(f.stream(text)),
    "render": lambda f, text: f.render(text),
    "batch of tuples": lambda f, text: f.batch([("fine",), (text,)]),
    "batch of dicts": lambda f, text: f.batch([{"text": text}]),
    "batch of values": lambda f, text: f.batch([text]),
    "using, call": lambda f, text: f.using(temperature=1)(text),
    "using, response": lambda f, text: f.using(model=scripted()).response(text),
    "using, stream": lambda f, text: list(f.using(temperature=1).stream(text)),
    "using twice": lambda f, text: f.using(temperature=1).using(seed=2)(text),
    "partial": lambda f, text: partial(f, text)(),
}


async def _read(stream: Any) -> list[Any]:
    return [delta async for delta in stream]


ASYNC_ENTRIES: dict[str, Callable[[Any, str], Any]] = {
    "call": lambda f, text: f(text),
    "keyword": lambda f, text: f(text=text),
    "response": lambda f, text: f.response(text),
    "stream": lambda f, text: _read(f.stream(text)),
    "render": lambda f, text: f.render(text),
    "batch of tuples": lambda f, text: f.batch([("fine",), (text,)]),
    "batch of dicts": lambda f, text: f.batch([{"text": text}]),
    "batch of values": lambda f, text: f.batch([text]),
    "using, call": lambda f, text: f.using(temperature=1)(text),
    "using, response": lambda f, text: f.using(model=scripted()).response(text),
    "using, stream": lambda f, text: _read(f.using(temperature=1).stream(text)),
    "using twice": lambda f, text: f.using(temperature=1).using(seed=2)(text),
    "partial": lambda f, text: partial(f, text)(),
}

ORDERS = list(itertools.permutations(["guard", "prompt", "trace"]))


@pytest.mark.parametrize("order", ORDERS, ids=">".join)
@pytest.mark.parametrize("entry", SYNC_ENTRIES)
def test_a_blocked_input_reaches_no_model_by_any_entry_point(order: tuple[str, ...], entry: str) -> None:
    model = scripted()
    decorated = stack(ask_sync, model, NoDragons(), order)
    with pytest.raises(GuardBlockedError, match="there is a dragon"):
        SYNC_ENTRIES[entry](decorated, "here be a dragon")
    assert all("dragon" not in request.text for request in model.requests)
    SYNC_ENTRIES[entry](decorated, "here be sheep")


@pytest.mark.parametrize("check", [NoDragons(), NoDragonsAsync()], ids=["plain check", "async check"])
@pytest.mark.parametrize("order", ORDERS, ids=">".join)
@pytest.mark.parametrize("entry", ASYNC_ENTRIES)
def test_a_blocked_input_reaches_no_model_by_any_async_entry_point(
    order: tuple[str, ...], entry: str, check: Any
) -> None:
    model = scripted()
    decorated = stack(ask_async, model, check, order)

    async def enter(text: str) -> None:
        await ASYNC_ENTRIES[entry](decorated, text)

    with pytest.raises(GuardBlockedError, match="there is a dragon"):
        asyncio.run(enter("here be a dragon"))
    assert all("dragon" not in request.text for request in model.requests)
    asyncio.run(enter("here be sheep"))


def test_nothing_of_the_stack_hands_out_the_unguarded_function() -> None:
    """No public attribute of a guarded prompt, bound or not, is a way past the guard, but `__wrapped__`, which is the
    user's own function and asks nothing.
    """
    decorated = stack(ask_sync, scripted(), NoDragons(), ("prompt", "guard"))
    public = {name for name in dir(decorated) if not name.startswith("_")}
    assert public == {"batch", "render", "response", "stream", "using", "version"}
    assert decorated.__wrapped__ is ask_sync


# Outputs ------------------------------------------------------------------------------------------------------------


class Redact:
    """Replaces the word secret."""

    name = "redact"

    def check(self, text: str) -> Verdict:
        if "secret" not in text:
            return Verdict(check=self.name)
        return Verdict(check=self.name, action="redact", text=text.replace("secret", "[gone]"))


def test_a_blocked_output_leaves_by_no_entry_point() -> None:
    for name, entry in SYNC_ENTRIES.items():
        if name in ("render", "using, response"):
            continue
        decorated = guard(output=[NoDragons()])(prompt(ScriptedModel(["A sheep. A dragon."] * 3))(ask_sync))
        with pytest.raises(GuardBlockedError, match="output"):
            entry(decorated, "go")


def test_a_redacted_output_is_redacted_in_value_response_and_stream() -> None:
    decorated = guard(output=[Redact()])(prompt(ScriptedModel(["the secret word. The end"] * 4))(ask_sync))
    expected = "the [gone] word. The end"
    assert decorated("go") == expected
    assert decorated.response("go").text == expected
    stream = decorated.stream("go")
    assert "".join(delta.text for delta in stream) == expected
    assert stream.response.text == expected
    assert decorated.batch(["go"]) == [expected]


def test_a_stream_lets_no_part_of_a_blocked_sentence_out() -> None:
    decorated = guard(output=[NoDragons()])(
        prompt(ScriptedModel(["One sheep. Then a dra" + "gon came. More."]))(ask_sync)
    )
    stream = decorated.stream("go")
    assert next(stream).text == "One sheep. "
    with pytest.raises(GuardBlockedError):
        next(stream)


def test_what_hides_across_two_sentences_of_a_stream_is_found() -> None:
    class Pair:
        name = "pair"

        def check(self, text: str) -> Verdict:
            hit = "alpha. beta" in text
            return Verdict(check=self.name, action="block" if hit else "pass", reason="pair")

    decorated = guard(output=[Pair()])(prompt(ScriptedModel(["alpha. beta. gamma."]))(ask_sync))
    with pytest.raises(GuardBlockedError):
        list(decorated.stream("go"))


def test_a_redacted_input_is_what_the_body_sees() -> None:
    model = scripted()
    decorated = guard(Redact())(prompt(model)(ask_sync))
    decorated("my secret")
    assert model.requests[0].text == "my [gone]"


def test_texts_inside_containers_dataclasses_and_models_are_checked() -> None:
    from dataclasses import dataclass

    from pydantic import BaseModel

    from llmops_sdk.types import Hit, Message

    @dataclass
    class Note:
        body: str

    class Form(BaseModel):
        body: str

    @guard(Redact())
    def echo(*values: Any) -> tuple[Any, ...]:
        return values

    assert echo(["secret"], {"a": ("secret", 1)}, Note("secret"), Form(body="secret")) == (
        ["[gone]"],
        {"a": ("[gone]", 1)},
        Note("[gone]"),
        Form(body="[gone]"),
    )
    assert echo(Hit(id="1", text="secret", score=1.0))[0].text == "[gone]"
    assert echo(Message.user("secret"))[0].text == "[gone]"
    unchanged = ["fine", {"a": 1}]
    assert echo(unchanged)[0] is unchanged


# Every kind of callable -------------------------------------------------------------------------------------------


class Shop:
    @guard(NoDragons())
    def method(self, text: str) -> str:
        return text

    @guard(NoDragons())
    @classmethod
    def on_class(cls, text: str) -> str:
        return text

    @classmethod
    @guard(NoDragons())
    def on_class_too(cls, text: str) -> str:
        return text

    @guard(NoDragons())
    @staticmethod
    def static(text: str) -> str:
        return text

    @staticmethod
    @guard(NoDragons())
    def static_too(text: str) -> str:
        return text

    @guard(NoDragons())
    async def amethod(self, text: str) -> str:
        return text

    def __call__(self, text: str) -> str:
        return text


@pytest.mark.parametrize("name", ["method", "on_class", "on_class_too", "static", "static_too"])
def test_methods_of_every_kind_are_guarded(name: str) -> None:
    assert getattr(Shop(), name)("sheep") == "sheep"
    with pytest.raises(GuardBlockedError):
        getattr(Shop(), name)("dragon")
    if name != "method":
        with pytest.raises(GuardBlockedError):
            getattr(Shop, name)("dragon")


def test_async_methods_callables_and_partials_are_guarded() -> None:
    with pytest.raises(GuardBlockedError):
        asyncio.run(Shop().amethod("dragon"))
    for target in (Shop(), partial(ask_sync), lambda text: text):
        assert guard(NoDragons())(target)("sheep") == "sheep"
        with pytest.raises(GuardBlockedError):
            guard(NoDragons())(target)("dragon")


@guard(NoDragons(), output=[NoDragons()])
def words(text: str) -> Iterator[str]:
    yield from text.split("|")


@guard(NoDragons(), output=[NoDragons()])
async def awords(text: str) -> AsyncIterator[str]:
    for word in text.split("|"):
        yield word


def test_generators_are_guarded_going_in_and_coming_out() -> None:
    assert "".join(words("a. |b. |c")) == "a. b. c"
    with pytest.raises(GuardBlockedError, match="input"):
        next(words("dragon"))
    told = words("sheep. |dra|gon.")
    assert next(told) == "sheep. "
    with pytest.raises(GuardBlockedError, match="output"):
        next(told)


def test_async_generators_are_guarded_going_in_and_coming_out() -> None:
    async def read(text: str) -> list[str]:
        return [word async for word in awords(text)]

    assert "".join(asyncio.run(read("a. |b. |c"))) == "a. b. c"
    for text in ("dragon", "sheep. |dra|gon."):
        with pytest.raises(GuardBlockedError):
            asyncio.run(read(text))


# Checks that fail ---------------------------------------------------------------------------------------------------


class Broken:
    name = "broken"

    def check(self, text: str) -> Verdict:
        raise OSError("no model file")


def test_a_check_that_fails_blocks_unless_told_otherwise() -> None:
    """The check's own error is the cause; its message, which may hold the text, stays there."""
    with pytest.raises(GuardBlockedError, match=r"the check failed: OSError$") as caught:
        guard(Broken())(ask_sync)("x")
    assert isinstance(caught.value.__cause__, OSError)
    assert guard(Broken(), on_error="allow")(ask_sync)("x") == "x"


def test_the_verdicts_are_on_the_error() -> None:
    with pytest.raises(GuardBlockedError) as caught:
        guard(Redact(), NoDragons())(ask_sync)("a secret dragon")
    assert [(v.check, v.action) for v in caught.value.verdicts] == [("redact", "redact"), ("no-dragons", "block")]
    assert caught.value.stage == "input"
