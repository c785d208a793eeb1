"""`@retrieve`: a function that returns a query gives hits; bare, it records what a function itself found."""

from __future__ import annotations

import asyncio
import inspect
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from toy_embedder import ToyEmbedder

from llmops_sdk import Hit, Index, Query, guard, retrieve, trace
from llmops_sdk.errors import AsyncFunctionError, DecoratorError, GuardBlockedError, UsageError
from llmops_sdk.testing import SpanRecorder
from llmops_sdk.types import Verdict

ANIMALS = [
    ("cat.md", "The cat sleeps on the warm windowsill.", {"legs": 4}),
    ("dog.md", "A dog barks at the postman.", {"legs": 4}),
    ("fish.md", "Goldfish swim in circles around their bowl.", {"legs": 0}),
]
shared = Index(Path("never-made"), embedder=ToyEmbedder())


@retrieve(shared, k=2)
def by_name(question: str) -> str:
    """Passages about a question."""
    return question


@pytest.fixture
def index(tmp_path: Path) -> Index:
    index = Index(tmp_path / "animals", embedder=ToyEmbedder())
    index.add(ANIMALS)
    return index


def sources(hits: list[Hit]) -> list[str]:
    return [hit.source for hit in hits]


def test_the_hits_of_the_query_that_the_function_returns(index: Index) -> None:
    """`k` at most, the best first."""

    @retrieve(index, k=2)
    def passages(question: str, *, prefix: str = "") -> str:
        return prefix + question

    assert sources(passages("the dog barks")) == ["dog.md", "cat.md"]
    assert sources(passages("fish", prefix="gold"))[0] == "fish.md"


async def test_a_coroutine_function_is_awaited(index: Index) -> None:
    """And stays one, for whoever inspects it."""

    @retrieve(index)
    async def passages(question: str) -> str:
        await asyncio.sleep(0)
        return question

    assert inspect.iscoroutinefunction(passages)
    assert sources(await passages("the dog barks"))[0] == "dog.md"


def test_a_query_has_its_own_k_and_filter(index: Index) -> None:
    """What the `Query` says wins over the decorator."""

    @retrieve(index, k=3)
    def passages(question: str, k: int | None, where: Any = ()) -> Query:
        return Query(text=question, k=k, where=where)

    assert len(passages("the cat and the dog", None)) == 3
    assert sources(passages("the cat", 1)) == ["cat.md"]
    assert sources(passages("the cat", None, (("legs", 0),))) == ["fish.md"]
    with pytest.raises(UsageError, match="it is 0"):
        passages("the cat", 0)


def test_methods_bind(index: Index) -> None:
    """Instance, class and static methods, sync and async."""

    class Zoo:
        sign = "dog barks"

        def __init__(self) -> None:
            self.wanted = "goldfish swim"

        @retrieve(index, k=1)
        def mine(self, more: str) -> str:
            return f"{self.wanted} {more}"

        @retrieve(index, k=1)
        async def mine_later(self) -> str:
            return self.wanted

        @retrieve(index, k=1)
        @classmethod
        def ours(cls) -> str:
            return cls.sign

        @retrieve(index, k=1)
        @staticmethod
        def anyones(question: str) -> str:
            return question

    zoo = Zoo()
    assert sources(zoo.mine("in circles")) == ["fish.md"]
    assert sources(asyncio.run(zoo.mine_later())) == ["fish.md"]
    kind: Any = Zoo  # type checkers do not see these two through another decorator
    assert sources(kind.ours()) == sources(kind().ours()) == ["dog.md"]
    assert sources(kind.anyones("cat sleeps")) == ["cat.md"]


def test_a_retriever_looks_like_its_function() -> None:
    """Name, docstring and signature; and it is pickled by its name."""
    assert (by_name.__name__, by_name.__doc__) == ("by_name", "Passages about a question.")
    assert list(inspect.signature(by_name).parameters) == ["question"]
    assert pickle.dumps(by_name)


def test_the_span_has_what_was_asked_and_found(index: Index) -> None:
    """One retrieval span, beneath the caller's."""

    @retrieve(index, k=2)
    def passages(question: str) -> Query:
        return Query(text=question, where=(("legs", 4),))

    with SpanRecorder() as recorder, trace.span("request") as request:
        hits = passages("the dog")
    (span,) = recorder.by_name("retrieval animals")
    assert (span.parent_id, span.status) == (request.span_id, "unset")
    assert span.attributes["gen_ai.operation.name"] == "retrieval"
    assert (span.attributes["llmops.retrieval.k"], span.attributes["llmops.retrieval.hits"]) == (2, 2)
    assert span.attributes["llmops.retrieval.scores"] == [hit.score for hit in hits]
    assert span.payload["arguments"] == {"query": "the dog", "k": 2, "where": {"legs": 4}}
    assert [document["source"] for document in span.payload["documents"]] == sources(hits)
    assert "the dog" not in str(span.attributes)


def test_guards_and_traces_stack_on_both_sides(index: Index) -> None:
    """A check of what is asked, and one of what is found."""

    class NoDogs:
        name = "no dogs"

        def check(self, text: str) -> Verdict:
            return Verdict(check=self.name, action="block" if "dog" in text else "pass", reason="a dog")

    @guard(NoDogs())
    @trace
    @retrieve(index, k=1)
    def asked(question: str) -> str:
        return question

    @retrieve(index, k=1)
    @guard(output=[NoDogs()])
    @trace
    def query(question: str) -> str:
        return question

    for passages in (asked, query):
        assert sources(passages("cat sleeps")) == ["cat.md"]
        with pytest.raises(GuardBlockedError):
            passages("the dog")


def test_the_users_exception_passes_unchanged(index: Index) -> None:
    """Nothing is searched for."""
    error = LookupError("mine")

    @retrieve(index)
    def passages() -> str:
        raise error

    with pytest.raises(LookupError) as caught, SpanRecorder() as recorder:
        passages()
    assert caught.value is error
    assert recorder.by_name("retrieval animals") == []


@pytest.mark.parametrize("wrong", [None, 7, ["q"], b"q"])
def test_a_body_that_returns_no_query_is_told(index: Index, wrong: Any) -> None:
    """By the name of the function and the type seen."""

    @retrieve(index)
    def passages() -> Any:
        return wrong

    loose: Any = passages
    with pytest.raises(UsageError, match=rf"passages returned {type(wrong).__name__}.*a str or a Query"):
        loose()


def test_wrong_uses_are_refused(index: Index) -> None:
    """Each message says what to write instead."""

    def function(question: str) -> str:
        return question

    def generator() -> Iterator[str]:
        yield "q"

    loose: Any = retrieve
    uses: tuple[tuple[Callable[[], Any], str], ...] = (
        (lambda: loose(), "stands bare on a function"),
        (lambda: loose(k=3), "stands bare on a function"),
        (lambda: loose("index"), "this is str"),
        (lambda: loose(index)("q"), "this is str"),
        (lambda: loose(index)(Query), "is a class"),
        (lambda: loose(index, k=0), "k is 0"),
        (lambda: loose(index, top_k=3), r"no keyword 'top_k'. Did you mean k=\?"),
        (lambda: loose(index, k="3"), "k is '3'"),
        (lambda: loose(index)(generator), "generator yields"),
        (lambda: loose(index)(loose(index)(function)), "is a retriever already"),
    )
    for use, told in uses:
        with pytest.raises(DecoratorError, match=told):
            use()


def test_a_coroutine_function_in_disguise_is_refused(index: Index) -> None:
    """A plain function that returns a coroutine cannot be awaited by a synchronous retriever."""

    async def later() -> str:
        return "q"

    passages: Any = retrieve(index)(lambda: later())
    with pytest.raises(AsyncFunctionError):
        passages()


# Bare -----------------------------------------------------------------------------------------------------------------

FOUND = [Hit(id="1", text="one", score=0.5), Hit(id="2", text="two", score=0.25)]


def recorded(span: Any) -> tuple[Any, Any, Any, Any]:
    return (
        span.attributes["gen_ai.operation.name"],
        span.attributes["llmops.retrieval.hits"],
        span.attributes.get("llmops.retrieval.scores"),
        [document["text"] if isinstance(document, dict) else document for document in span.payload["documents"]],
    )


def test_bare_it_records_what_a_function_found() -> None:
    """The function and its result stay as they are."""

    @retrieve
    def search(question: str, most: int = 2) -> list[Hit]:
        return FOUND

    with SpanRecorder() as recorder:
        assert search("q", most=1) is FOUND
    (span,) = recorder.spans
    assert recorded(span) == ("retrieval", 2, [0.5, 0.25], ["one", "two"])
    assert span.payload["arguments"] == {"question": "q", "most": 1}
    assert span.name.startswith("retrieval ")
    assert span.name.endswith("search")


def test_bare_it_records_async_functions_and_generators() -> None:
    """Each item leaves as it comes, and the span has them all at the end."""

    @retrieve
    async def later() -> list[Hit]:
        return FOUND

    @retrieve
    def one_by_one() -> Iterator[Hit]:
        yield from FOUND

    @retrieve
    async def one_by_one_later() -> AsyncIterator[Hit]:
        for hit in FOUND:
            yield hit

    async def read() -> list[Hit]:
        return [hit async for hit in one_by_one_later()]

    with SpanRecorder() as recorder:
        assert asyncio.run(later()) == list(one_by_one()) == asyncio.run(read()) == FOUND
    assert [recorded(span) for span in recorder.spans] == [("retrieval", 2, [0.5, 0.25], ["one", "two"])] * 3


def test_bare_it_records_what_came_before_the_end() -> None:
    """A generator that is closed early, and one that fails."""

    @retrieve
    def search(fail: bool) -> Iterator[Hit]:
        yield FOUND[0]
        if fail:
            raise LookupError("gone")
        yield FOUND[1]

    with SpanRecorder() as recorder:
        closed = search(False)
        next(closed)
        closed.close()  # type: ignore[attr-defined]  # a generator, whatever it is annotated as
        with pytest.raises(LookupError):
            list(search(True))
    early, failed = recorder.spans
    assert recorded(early) == recorded(failed) == ("retrieval", 1, [0.5], ["one"])
    assert early.attributes["llmops.closed_early"] is True
    assert (early.status, failed.status, failed.attributes["error.type"]) == ("unset", "error", "LookupError")


@pytest.mark.parametrize(
    ("found", "documents"),
    [(None, []), ([], []), (("a", "b"), ["a", "b"]), ("one text", ["one text"]), ({"ids": [1]}, [{"ids": [1]}])],
    ids=["nothing", "none", "tuple", "text", "mapping"],
)
def test_bare_it_takes_what_other_stores_return(found: Any, documents: list[Any]) -> None:
    """No scores where there are none."""

    @retrieve
    def search() -> Any:
        return found

    with SpanRecorder() as recorder:
        assert search() is found
    (span,) = recorder.spans
    assert span.attributes["llmops.retrieval.hits"] == len(documents)
    assert "llmops.retrieval.scores" not in span.attributes
    assert span.payload["documents"] == documents


def test_bare_on_a_method_and_an_error() -> None:
    """The span has the error, the caller the exception."""

    class Store:
        @retrieve
        def search(self, question: str) -> list[Hit]:
            raise LookupError(question)

    with SpanRecorder() as recorder, pytest.raises(LookupError):
        Store().search("q")
    (span,) = recorder.spans
    assert (span.status, span.attributes["error.type"]) == ("error", "LookupError")
