"""What type checkers see. mypy and pyright check this file with the rest; at run time it only proves that it imports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, assert_type

from pydantic import BaseModel

from llmops_sdk import Delta, Hit, Message, Model, Request, Response, Stream, guard, prompt, retrieve, trace
from llmops_sdk.decorators.prompt import AsyncPrompt, Prompt
from llmops_sdk.prompts.version import PromptVersion
from llmops_sdk.types import Verdict

if TYPE_CHECKING:
    from llmops_sdk.decorators.retrieve import AsyncRetriever, Retriever
    from llmops_sdk.retrieval import Index


class City(BaseModel):
    name: str


class Check:
    name = "check"

    def check(self, text: str) -> Verdict:
        return Verdict(check=self.name)


@prompt("local:smollm2")
def text(question: str, k: int = 1) -> str:
    return question * k


@prompt("local:smollm2", output=City)
def city(question: str) -> list[Message]:
    return [Message.user(question)]


@prompt("local:smollm2", output=list[City])
async def cities(question: str) -> str:
    return question


@guard(Check(), output=[Check()])
@trace
@prompt("local:smollm2", output=City)
def stacked(question: str) -> str:
    return question


class Desk:
    @prompt("local:smollm2", output=City)
    def answer(self, question: str, *, loud: bool = False) -> str:
        return question

    @prompt("local:smollm2")
    async def later(self, question: str) -> str:
        return question

    @prompt("local:smollm2", output=City)
    @staticmethod
    def static(question: str) -> str:
        return question

    @trace
    def plain(self, x: int) -> str:
        return str(x)


@trace(name="add", colour="blue")
def add(a: int, b: int) -> int:
    return a + b


@guard(Check(), on_error="raise")
async def wait(a: int) -> str:
    return str(a)


@trace
def numbers(most: int) -> Iterator[int]:
    yield from range(most)


@trace
async def anumbers(most: int) -> AsyncIterator[int]:
    for number in range(most):
        yield number


@retrieve
def found(query: str) -> list[Hit]:
    return []


def retrievers(index: Index) -> None:
    @retrieve(index, k=3)
    def passages(question: str) -> str:
        return question

    @retrieve(index)
    async def apassages(question: str) -> str:
        return question

    assert_type(passages("q"), list[Hit])
    assert_type(passages(question="q"), list[Hit])
    kept: list[Retriever[[str]]] = [passages]
    akept: list[AsyncRetriever[[str]]] = [apassages]
    assert len(kept) == len(akept)


def prompts() -> None:
    assert_type(text("q"), str)
    assert_type(city("q"), City)
    assert_type(city.response("q"), Response)
    assert_type(city.stream("q"), Stream[Response])
    assert_type(city.render("q"), Request)
    assert_type(city.version, PromptVersion)
    assert_type(city.batch(["q"]), list[City])
    assert_type(city.batch(["q"], on_error="return"), list[City | Exception])
    assert_type(stacked("q"), City)
    assert_type(Desk().answer("q", loud=True), City)
    assert_type(Desk.static("q"), City)
    assert_type(city.using(deadline_s=5, seed=1)("q"), City)
    assert_type(Desk().answer.response("q"), Response)
    for delta in text.stream("q"):
        assert_type(delta, Delta)


async def async_prompts() -> None:
    assert_type(await cities("q"), list[City])
    assert_type(await cities.response("q"), Response)
    assert_type(await cities.batch(["q"]), list[list[City]])
    assert_type(await Desk().later("q"), str)
    async for delta in cities.stream("q"):
        assert_type(delta, Delta)


def functions() -> None:
    assert_type(add(1, 2), int)
    assert_type(found("q"), list[Hit])
    assert_type(Desk().plain(1), str)
    assert_type(numbers(3), Iterator[int])
    assert_type(anumbers(3), AsyncIterator[int])
    kept: Callable[[int, int], int] = add
    assert kept is add


def models(model: Model) -> None:
    assert_type(model.complete("q"), Response)
    assert_type(model.stream("q"), Stream[Response])


def test_the_declared_objects_are_of_the_declared_classes() -> None:
    checked: list[tuple[Any, type]] = [
        (text, Prompt),
        (city, Prompt),
        (cities, AsyncPrompt),
        (stacked, Prompt),
        (Desk().answer, Prompt),
        (Desk().later, AsyncPrompt),
    ]
    assert all(isinstance(value, kind) for value, kind in checked)
