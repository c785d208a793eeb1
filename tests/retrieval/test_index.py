"""Documents in, hits out: offsets, changes, filters, batches, cancellation, spans, bad input."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flow_harness import Face, FlowModel
from toy_embedder import ToyEmbedder

from llmops_sdk import Chunker, Index
from llmops_sdk.errors import FlowCancelled, MalformedResponseError, StoreError, UnsupportedError, UsageError
from llmops_sdk.flow import Block, Flow, Run
from llmops_sdk.retrieval import Added, Document
from llmops_sdk.retrieval.intake import BATCH_CHUNKS
from llmops_sdk.testing import ScriptedModel, SpanRecorder
from llmops_sdk.types import EmbedResponse

ANIMALS = [
    ("cat.md", "The cat sleeps on the warm windowsill."),
    ("dog.md", "A dog barks at the postman."),
    ("fish.md", "Goldfish swim in circles around their bowl."),
]


class AsyncIndex:
    """The asynchronous forms of an index, each in an event loop of its own."""

    def __init__(self, index: Index) -> None:
        self.index = index

    def add(self, *args: Any, **kwargs: Any) -> Added:
        return asyncio.run(self.index.aadd(*args, **kwargs))

    def search(self, *args: Any, **kwargs: Any) -> Any:
        return asyncio.run(self.index.asearch(*args, **kwargs))

    def remove(self, source: str) -> bool:
        return asyncio.run(self.index.aremove(source))


@pytest.fixture(params=["sync", "async"])
def form(request: pytest.FixtureRequest) -> Callable[[Index], Any]:
    return AsyncIndex if request.param == "async" else lambda index: index


@pytest.fixture
def embedder() -> ToyEmbedder:
    return ToyEmbedder()


@pytest.fixture
def index(tmp_path: Path, embedder: ToyEmbedder) -> Index:
    return Index(tmp_path / "animals", embedder=embedder)


def test_the_nearest_chunk_comes_first_with_its_source(index: Index, form: Any) -> None:
    """A hit has the text, the document's name and the cosine similarity; the best is first."""
    assert form(index).add(ANIMALS) == Added(written=3, unchanged=0, chunks=3)
    hits = form(index).search("the dog barks", k=2)
    assert [hit.source for hit in hits] == ["dog.md", "cat.md"]
    assert hits[0].text == "A dog barks at the postman."
    assert 1 >= hits[0].score > hits[1].score


def test_the_same_words_have_the_score_one(index: Index) -> None:
    """Scores are cosine similarities, whatever the length of the embedder's vectors."""
    index.add(ANIMALS)
    assert index.search("a dog barks at the postman")[0].score == pytest.approx(1, abs=1e-6)


def test_offsets_are_characters_of_the_document(tmp_path: Path, embedder: ToyEmbedder) -> None:
    """`text[start:end]` is the hit, also where characters are not bytes."""
    text = "Erste Sätze über Bäume. 🌲 Dann ein Satz über Äpfel. 日本語の文です。 Zuletzt ein Satz über Flüsse."
    index = Index(tmp_path / "i", embedder=embedder, chunker=Chunker(size=40, overlap=10))
    index.add([("umlaute.md", text)])
    hits = index.search("Satz über Flüsse", k=10)
    assert len(hits) == len(index) > 2
    assert all(text[hit.start : hit.end] == hit.text for hit in hits)


def test_what_is_unchanged_is_not_embedded_again(index: Index, embedder: ToyEmbedder, form: Any) -> None:
    """A second run over the same documents costs no embedding; one that changed takes the old one's place."""
    form(index).add(ANIMALS)
    embedder.embedded.clear()
    assert form(index).add(ANIMALS) == Added(0, 3, 0)
    assert embedder.embedded == []
    changed = [*ANIMALS[:2], ("fish.md", "Sharks hunt in the open sea.")]
    assert form(index).add(changed) == Added(1, 2, 1)
    assert embedder.embedded == [("Sharks hunt in the open sea.",)]
    assert [hit.text for hit in form(index).search("goldfish bowl", k=9) if hit.source == "fish.md"] == [changed[2][1]]
    assert len(index) == 3


def test_changed_metadata_or_another_chunker_are_changes(tmp_path: Path, embedder: ToyEmbedder) -> None:
    """What a document is stored as depends on all three."""
    Index(tmp_path / "i", embedder=embedder).add([("a", "one two. three four.")])
    index = Index(tmp_path / "i", embedder=embedder)
    assert index.add([("a", "one two. three four.", {"year": 2024})]) == Added(1, 0, 1)
    assert index.search("one")[0].metadata == (("year", 2024),)
    finer = Index(tmp_path / "i", embedder=embedder, chunker=Chunker(size=12, overlap=0))
    assert finer.add([("a", "one two. three four.", {"year": 2024})]) == Added(1, 0, 2)


def test_an_index_is_kept(index: Index, form: Any) -> None:
    """Another `Index` on the folder finds what was added, at once."""
    index.add(ANIMALS)
    again = Index(index.path, embedder=ToyEmbedder())
    assert [hit.source for hit in form(again).search("goldfish", k=1)] == ["fish.md"]
    assert again.sources() == ["cat.md", "dog.md", "fish.md"]


def test_removing_takes_a_document_out(index: Index, form: Any) -> None:
    """Its chunks are not found any more; a source that is not there is told by False."""
    assert form(index).remove("cat.md") is False
    index.add(ANIMALS)
    assert index.search("cat")[0].source == "cat.md"
    assert form(index).remove("cat.md") is True
    assert form(index).remove("cat.md") is False
    assert {hit.source for hit in form(index).search("cat", k=9)} == {"dog.md", "fish.md"}
    assert (len(index), index.sources()) == (2, ["dog.md", "fish.md"])


def test_an_index_that_is_not_there_yet_finds_nothing_and_says_so(
    index: Index, embedder: ToyEmbedder, form: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """No hits, no embedding in vain, nothing written; the log has the folder."""
    with caplog.at_level(logging.WARNING, logger="llmops_sdk"):
        assert form(index).search("anything") == []
    assert str(index.path) in caplog.text
    assert embedder.embedded == []
    assert not index.path.exists()
    assert (len(index), index.sources(), bool(index)) == (0, [], True)


def test_an_index_of_nothing_is_an_index(index: Index, form: Any, caplog: pytest.LogCaptureFixture) -> None:
    """After the first `add`, however empty, finding nothing is no reason for a warning."""
    assert form(index).add([]) == Added(0, 0, 0)
    assert form(index).search("anything") == []
    assert caplog.text == ""


def test_documents_without_words_are_known_and_never_found(index: Index, embedder: ToyEmbedder) -> None:
    """Empty and blank documents have no chunks, and are not looked at twice."""
    blank = [("empty", ""), ("blank", " \n\t \u2003"), ("full", "word")]
    assert index.add(blank) == Added(3, 0, 1)
    assert index.add(blank) == Added(0, 3, 0)
    assert embedder.embedded == [("word",)]
    assert [hit.source for hit in index.search("word", k=9)] == ["full"]


def test_a_text_alone_is_named_after_its_content(index: Index) -> None:
    """The same text is the same document."""
    assert index.add(["some text", "some text", "other text"]) == Added(2, 1, 2)
    assert index.add(["other text"]) == Added(0, 1, 0)
    assert all(hit.source.startswith("text:") for hit in index.search("text"))


def test_two_documents_of_one_name_are_refused(index: Index) -> None:
    """One would silently take the place of the other."""
    with pytest.raises(UsageError, match=r"named 'README\.md' and differ"):
        index.add([("README.md", "of the first folder"), ("README.md", "of the second folder")])
    assert index.add([("a", "same"), ("a", "same")]) == Added(1, 1, 1)


def test_large_documents_are_embedded_in_parts(tmp_path: Path, embedder: ToyEmbedder) -> None:
    """No request for vectors is larger than a batch, and a document is stored whole."""
    index = Index(tmp_path / "i", embedder=embedder, chunker=Chunker(size=20, overlap=0))
    text = " ".join(f"word{number} and more" for number in range(500))
    added = index.add([("book", text)])
    assert added.chunks == len(index) > 2 * BATCH_CHUNKS
    assert max(map(len, embedder.embedded)) == BATCH_CHUNKS
    assert index.search("word321", k=1)[0].text.startswith("word321")


def test_where_limits_a_search_to_documents_of_these_facts(index: Index, form: Any) -> None:
    """All of them must hold; numbers are equal by value, and truth is no number."""
    index.add(
        [
            ("a", "shared words one", {"lang": "en", "year": 2024, "draft": False}),
            ("b", "shared words two", {"lang": "en", "year": 2025, "draft": True}),
            ("c", "shared words three", {"lang": "de", "year": 2025.0, "draft": None}),
            ("d", "shared words four"),
        ]
    )

    def found(where: Any) -> list[str]:
        return sorted(hit.source for hit in form(index).search("shared words", k=9, where=where))

    assert found({"lang": "en"}) == ["a", "b"]
    assert found({"year": 2025}) == ["b", "c"]
    assert found((("lang", "en"), ("year", 2025.0))) == ["b"]
    assert found({"draft": None}) == ["c"]
    assert found({"draft": 0}) == []
    assert found({"draft": False}) == ["a"]
    assert found({"nowhere": 1}) == []
    assert found({"lang": "x' OR '1'='1"}) == []
    assert found(()) == ["a", "b", "c", "d"]


def test_where_has_the_scores_of_a_plain_search(index: Index) -> None:
    """A filter takes hits away and changes nothing else."""
    index.add([(source, text, {"kept": source != "dog.md"}) for source, text in ANIMALS])
    plain = [hit for hit in index.search("the cat and the dog", k=9) if hit.source != "dog.md"]
    assert index.search("the cat and the dog", k=9, where={"kept": True}) == plain


def test_equals_keep_the_order_in_which_they_were_added(index: Index) -> None:
    """A search is the same each time."""
    index.add([(f"{number:02}", "the very same words") for number in range(30)])
    assert [hit.source for hit in index.search("same words", k=5)] == ["00", "01", "02", "03", "04"]


def test_the_home_holds_an_index_without_a_path(own_home: Path) -> None:
    """`<home>/indexes/<name>`."""
    index = Index(embedder=ToyEmbedder(), name="handbook")
    index.add(["text"])
    assert index.path == own_home / "indexes" / "handbook"
    assert (index.path / "index.db").is_file()
    assert Index(embedder=ToyEmbedder()).path == own_home / "indexes" / "default"


def test_an_error_keeps_what_was_stored_before_it(index: Index) -> None:
    """The user's own exception passes through; earlier batches are there, and the next run goes on from them."""

    def documents() -> Iterator[tuple[str, str]]:
        for number in range(3 * BATCH_CHUNKS):
            if number == 2 * BATCH_CHUNKS + 7:
                raise LookupError("no more")
            yield f"{number}", f"text number {number}"

    with pytest.raises(LookupError, match="no more"):
        index.add(documents())
    assert len(index) == 2 * BATCH_CHUNKS
    rest = [(f"{number}", f"text number {number}") for number in range(3 * BATCH_CHUNKS)]
    assert index.add(rest) == Added(BATCH_CHUNKS, 2 * BATCH_CHUNKS, BATCH_CHUNKS)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_cancelled_add_keeps_what_was_stored(kind: str, tmp_path: Path) -> None:
    """Ctrl-C or a cancelled task: whole batches are kept, none is half there, and adding again goes on."""
    embedder, begun, go_on = ToyEmbedder(), threading.Event(), threading.Event()

    def hanging(request: Any, run: Run) -> Flow[EmbedResponse]:
        if len(embedder.embedded) == 2:
            begun.set()
            try:
                yield Block(lambda: go_on.wait(10))
            except FlowCancelled:
                go_on.set()
                raise
        return (yield from embedder.flow(request, run))

    documents = [(f"{number}", f"text number {number}") for number in range(4 * BATCH_CHUNKS)]
    index = Index(tmp_path / "i", embedder=FlowModel(hanging, name="toy"))
    flow = index._adding(documents, None, Run.start())
    Face(kind).interrupt(flow, begun)
    assert begun.is_set()
    assert len(index) == 2 * BATCH_CHUNKS
    with SpanRecorder() as recorder:
        again = Index(tmp_path / "i", embedder=embedder)
        assert again.add(documents) == Added(2 * BATCH_CHUNKS, 2 * BATCH_CHUNKS, 2 * BATCH_CHUNKS)
    assert recorder.by_name("index i")[0].attributes["llmops.index.unchanged"] == 2 * BATCH_CHUNKS


def test_a_search_is_a_retrieval_span(index: Index, form: Any) -> None:
    """GenAI names where there are any; what was asked and found is in the payload; the embedding is a child."""
    index.add(ANIMALS)
    with SpanRecorder() as recorder:
        hits = form(index).search("the dog", k=2, where={})
    span, embedding = recorder.by_name("retrieval animals")[0], recorder.by_name("embeddings toy")[0]
    assert span.attributes["gen_ai.operation.name"] == "retrieval"
    assert span.attributes["gen_ai.data_source.id"] == "animals"
    assert span.attributes["openinference.span.kind"] == "RETRIEVER"
    assert (span.attributes["llmops.retrieval.k"], span.attributes["llmops.retrieval.hits"]) == (2, 2)
    assert span.attributes["llmops.retrieval.scores"] == [hit.score for hit in hits]
    assert span.payload["arguments"] == {"query": "the dog", "k": 2, "where": {}}
    assert [document["text"] for document in span.payload["documents"]] == [hit.text for hit in hits]
    assert (embedding.parent_id, embedding.trace_id) == (span.span_id, span.trace_id)


def test_adding_is_a_span_with_its_counts(index: Index) -> None:
    """What was embedded hangs beneath it."""
    index.add(ANIMALS[:1])
    with SpanRecorder() as recorder:
        index.add(ANIMALS)
    span = recorder.by_name("index animals")[0]
    counts = {name: value for name, value in span.attributes.items() if name.startswith("llmops.index.")}
    assert counts == {"llmops.index.written": 2, "llmops.index.unchanged": 1, "llmops.index.chunks": 2}
    assert recorder.by_name("embeddings toy")[0].parent_id == span.span_id


def test_progress_is_shown_on_stderr_when_asked_for(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    """A bar with counts; none where stderr is no terminal."""
    index.add(ANIMALS, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Indexing animals" in shown.err
    assert "3/3" in shown.err
    index.add([("owl", "An owl hoots.")])
    assert capsys.readouterr().err == ""


def test_an_index_belongs_to_its_embedder(index: Index) -> None:
    """Vectors of two models cannot be compared, whoever adds or searches; nothing is embedded before that is told."""
    index.add(ANIMALS)
    other = ToyEmbedder(name="other")
    foreign = Index(index.path, embedder=other)
    for use in (lambda: foreign.search("cat"), lambda: foreign.add([("x", "new")])):
        with pytest.raises(StoreError, match="made by the embedder 'toy', and is asked by 'other'"):
            use()
    assert other.embedded == []
    grown = Index(index.path, embedder=ToyEmbedder(dimension=7))
    for use in (lambda: grown.search("cat"), lambda: grown.add([("x", "new")])):
        with pytest.raises(StoreError, match=r"vectors of 64 numbers.*now gives 7"):
            use()


@pytest.mark.parametrize(
    ("vectors", "told"),
    [
        (np.zeros((2, 4), np.float32), r"given 1 texts.*shape \(2, 4\)"),
        (np.zeros(4, np.float32), r"shape \(4,\)"),
        (np.array([[1, np.nan]], np.float32), "not finite"),
    ],
    ids=["too many", "flat", "not a number"],
)
def test_vectors_that_cannot_be_right_are_refused(vectors: Any, told: str, tmp_path: Path) -> None:
    """They never reach the index."""

    def wrong(request: Any, run: Run) -> Flow[EmbedResponse]:
        yield Block(lambda: None)
        return EmbedResponse(vectors=vectors)

    index = Index(tmp_path / "i", embedder=FlowModel(wrong, name="broken"))
    with pytest.raises(MalformedResponseError, match=told):
        index.add([("a", "text")])
    assert index.sources() == []


def test_a_model_that_does_not_embed_says_so(tmp_path: Path) -> None:
    """The leaf's own error."""
    with pytest.raises(UnsupportedError, match="answers chat requests"):
        Index(tmp_path / "i", embedder=ScriptedModel(["hi"])).add(["text"])


@pytest.mark.parametrize(
    ("documents", "told"),
    [
        ("a text", "this is str.*goes into a list"),
        ({"a.md": "text"}, "dict.items"),
        (Document(source="a", text="b"), "this is Document"),
        (7, "this is int"),
        ([7], "this is int"),
        ([("a", b"bytes")], "this is tuple of str, bytes"),
        ([(Path("a"), "text")], "this is tuple of PosixPath, str"),
        ([("", "text")], "a source that names it"),
        ([("a", "text", {"tags": ["x"]})], "'tags' is list"),
        ([("a", "text", {1: "x"})], "Names are str"),
        ([("a", "text", {"x": float("nan")})], "cannot be written as JSON"),
        ([("a", "half \ud83d")], "half a character"),
        ([("half \ud83d", "a")], "half a character"),
        ([("a", "text", {"x": "\ud83d"})], "half a character"),
    ],
)
def test_what_is_no_document_is_refused(documents: Any, told: str, index: Index) -> None:
    """The message says what was given, and nothing is stored of it."""
    with pytest.raises(UsageError, match=told):
        index.add(documents)
    assert index.sources() == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"query": "  "}, "a query"),
        ({"query": None}, "it is None"),
        ({"query": "half \ud83d"}, "half a character"),
        ({"query": "q", "k": 0}, "at least 1; it is 0"),
        ({"query": "q", "k": "5"}, "it is '5'"),
        ({"query": "q", "where": {"tags": ["x"]}}, "'tags' is list"),
        ({"query": "q", "where": {"x": "\ud83d"}}, "half a character"),
    ],
)
def test_a_search_that_cannot_be_right_is_refused(arguments: Any, told: str, index: Index, form: Any) -> None:
    """The message has the value seen."""
    with pytest.raises(UsageError, match=told):
        form(index).search(**arguments)


def test_constructor_arguments_that_cannot_be_right_are_refused() -> None:
    """No model, or a name that would leave the home."""
    with pytest.raises(UsageError, match=r"such as model\('local:minilm'\); this is str"):
        Index(embedder="local:minilm")  # type: ignore[arg-type]  # what is refused
    for name in ("../x", "a/b", ".."):
        with pytest.raises(UsageError, match="name of a folder"):
            Index(embedder=ToyEmbedder(), name=name)


def test_many_threads_add_and_search_one_index(index: Index) -> None:
    """Every document arrives, and every search sees whole ones."""
    index.add(ANIMALS)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                index.add([(f"{number}-{turn}", f"thread{number} turn{turn}")])
                assert index.search(f"thread{number} turn{turn}", k=1)[0].source == f"{number}-{turn}"
                assert index.search(ANIMALS[2][1], k=1)[0].source == "fish.md"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(index) == 3 + 6 * 5


async def test_many_tasks_search_one_index(index: Index) -> None:
    """Searches of one event loop do not wait for each other's embeddings in its thread."""
    await index.aadd(ANIMALS)
    found = await asyncio.gather(*(index.asearch(text, k=1) for _, text in ANIMALS * 20))
    assert [hits[0].source for hits in found] == [source for source, _ in ANIMALS * 20]
