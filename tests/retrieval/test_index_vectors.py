"""What a search compares with: every vector up to a number, a graph beyond; both against a plain numpy reference."""

from __future__ import annotations

import logging
import multiprocessing
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from toy_embedder import ToyEmbedder

from llmops_sdk import Chunker, Hit, Index
from llmops_sdk.retrieval.graph import FILE
from llmops_sdk.retrieval.vectors import EXACT_UP_TO

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORDS = st.sampled_from([f"word{number}" for number in range(12)])
TEXTS = st.lists(WORDS, max_size=12).map(" ".join)
NAMES = st.sampled_from([f"doc{number}" for number in range(8)])
FACTS = st.sampled_from(["red", "green"])
CHUNKER = Chunker(size=20, overlap=0)


class Reference:
    """Every chunk of every document, compared with numpy in double precision."""

    def __init__(self) -> None:
        self.embedder = ToyEmbedder()
        self.documents: dict[str, tuple[str, str]] = {}

    def unit(self, text: str) -> NDArray[np.float64]:
        vector = self.embedder.vectors((text,))[0].astype(np.float64)
        unit: NDArray[np.float64] = vector / max(float(np.linalg.norm(vector)), 1e-12)
        return unit

    def scores(self, query: str, colour: str | None) -> dict[tuple[str, int], float]:
        asked = self.unit(query)
        return {
            (source, chunk.start): float(self.unit(chunk.text) @ asked)
            for source, (text, fact) in self.documents.items()
            if colour in (None, fact)
            for chunk in CHUNKER.chunks(text)
        }


class Searches(RuleBasedStateMachine):
    """Documents come, change and go in any order; searches of this and of a fresh index agree with the reference."""

    exact_up_to = EXACT_UP_TO

    @initialize(folder=st.uuids())
    def begin(self, folder: object) -> None:
        home = Path(os.environ["LLMOPS_HOME"])
        self.path = home / "machine" / f"{folder}-{len(list(home.glob('machine/*')))}"
        self.index = self.opened()
        self.reference = Reference()

    def opened(self) -> Index:
        return Index(self.path, embedder=ToyEmbedder(), chunker=CHUNKER, exact_up_to=self.exact_up_to)

    @rule(documents=st.dictionaries(NAMES, st.tuples(TEXTS, FACTS), min_size=1, max_size=4))
    def add(self, documents: dict[str, tuple[str, str]]) -> None:
        self.index.add([(name, text, {"colour": colour}) for name, (text, colour) in documents.items()])
        self.reference.documents |= documents

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        assert self.index.remove(name) is (self.reference.documents.pop(name, None) is not None)

    @rule()
    def reopen(self) -> None:
        self.index = self.opened()

    @rule(query=TEXTS.filter(bool), k=st.integers(1, 12), colour=st.none() | FACTS)
    def search(self, query: str, k: int, colour: str | None) -> None:
        where = {} if colour is None else {"colour": colour}
        wanted = self.reference.scores(query, colour)
        for index in (self.index, self.opened()):
            hits = index.search(query, k, where)
            assert len(hits) == min(k, len(wanted))
            self.compare(hits, wanted, colour)

    def compare(self, hits: list[Hit], wanted: dict[tuple[str, int], float], colour: str | None) -> None:
        best = sorted(wanted.values(), reverse=True)[: len(hits)]
        assert [hit.score for hit in hits] == pytest.approx(best, abs=1e-5)
        assert len({(hit.source, hit.start) for hit in hits}) == len(hits)
        for hit in hits:
            assert hit.score == pytest.approx(wanted[hit.source, hit.start], abs=1e-5)
            assert self.reference.documents[hit.source][0][hit.start : hit.end] == hit.text

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "index"):
            texts = [text for text, _ in self.reference.documents.values()]
            assert len(self.index) == sum(len(CHUNKER.chunks(text)) for text in texts)
            assert self.index.sources() == sorted(self.reference.documents)


class GraphSearches(Searches):
    """The same beyond the number up to which all vectors are compared: a graph of so few misses none of them."""

    exact_up_to = 3


SOME = settings(max_examples=25, stateful_step_count=25)


def test_searches_agree_with_the_reference(own_home: Path) -> None:
    """Exact below the number, over any sequence of adding, removing, searching and opening anew."""
    run_state_machine(Searches)


def test_searches_by_graph_agree_with_the_reference(own_home: Path) -> None:
    """The same for a graph, its file, and the way between the two."""
    run_state_machine(GraphSearches)


def run_state_machine(machine: type[Searches]) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(machine, settings=SOME)


# A graph and its file ---------------------------------------------------------------------------------------------------


def opened(path: Path, exact_up_to: int = 100) -> Index:
    return Index(path, embedder=ToyEmbedder(16), exact_up_to=exact_up_to)


def documents(count: int, first: int = 0) -> list[tuple[str, str]]:
    return [(f"d{number}", f"alpha{number} beta{number}") for number in range(first, first + count)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The folder of an index with a graph."""
    opened(tmp_path / "i").add(documents(400))
    return tmp_path / "i"


def found(path: Path, number: int) -> str:
    return opened(path).search(f"alpha{number} beta{number}", k=1)[0].source


def test_a_large_index_keeps_a_graph_and_a_small_one_needs_none(path: Path, tmp_path: Path) -> None:
    """The file appears where it is worth it."""
    assert (path / FILE).is_file()
    opened(tmp_path / "small").add(documents(100))
    assert not (tmp_path / "small" / FILE).exists()
    assert not list(path.glob("*.tmp"))


def test_the_graph_is_written_again_when_enough_has_changed(path: Path) -> None:
    """A document more costs no rewriting of the file, and is found all the same; a tenth more does."""
    before = (path / FILE).read_bytes()
    opened(path).add(documents(2, first=400))
    assert (path / FILE).read_bytes() == before
    assert found(path, 401) == "d401"
    opened(path).add(documents(40, first=402))
    assert (path / FILE).read_bytes() != before
    assert found(path, 441) == "d441"
    kept = (path / FILE).read_bytes()
    index = opened(path)
    for number in range(40):
        index.remove(f"d{number}")
    assert (path / FILE).read_bytes() != kept
    assert found(path, 7) != "d7"


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "foreign", "older"])
def test_a_graph_file_that_is_not_the_one_kept_is_never_loaded(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The library trusts what it loads, so the file is checked before; the graph is made anew from the store."""
    file = path / FILE
    stored = file.read_bytes()
    middle = len(stored) // 2
    changed = {
        "cut": stored[:middle],
        "flipped": stored[:middle] + bytes([stored[middle] ^ 1]) + stored[middle + 1 :],
        "foreign": b"something else",
        "older": stored,
    }
    if damage == "older":
        opened(path).add(documents(100, first=400))
    file.unlink()
    if damage != "gone":
        file.write_bytes(changed[damage])
    with caplog.at_level(logging.INFO, logger="llmops_sdk"):
        assert found(path, 321) == "d321"
    assert ("is not the one that was last kept" in caplog.text) == (damage != "gone")
    opened(path).add([])
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="llmops_sdk"):
        assert found(path, 321) == "d321"
    assert caplog.text == "", "adding, be it nothing, mends the file"
    assert file.stat().st_size > middle


def test_a_graph_that_cannot_be_written_costs_time_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says it; what was added is there."""
    (tmp_path / "i" / f"{FILE}.tmp").mkdir(parents=True)
    with caplog.at_level(logging.WARNING, logger="llmops_sdk"):
        opened(tmp_path / "i").add(documents(200))
    assert "could not be written" in caplog.text
    assert found(tmp_path / "i", 123) == "d123"


def test_an_index_that_shrinks_is_exact_again(path: Path) -> None:
    """The way back from the graph."""
    index = opened(path, exact_up_to=380)
    assert index.search("alpha7 beta7", k=1)[0].source == "d7"
    for number in range(370, 400):
        index.remove(f"d{number}")
    assert index.search("alpha7 beta7", k=1)[0].source == "d7"
    assert {hit.source for hit in index.search("alpha", k=500)} == {f"d{number}" for number in range(370)}


def test_a_folder_that_was_deleted_and_made_anew_is_another_index(path: Path) -> None:
    """Vectors in memory are of the index that they were read from, whatever its numbers."""
    index, other = opened(path), opened(path)
    assert index.search("alpha7 beta7", k=1)[0].source == "d7"
    for file in path.iterdir():
        file.unlink()
    other.add([(f"n{number}", f"gamma{number}") for number in range(400)])
    assert index.search("gamma7", k=1)[0].source == "n7"


def _add(path: Path, first: int) -> None:
    index = opened(path)
    for begin in range(first, first + 120, 30):
        index.add(documents(30, first=begin))


def test_processes_that_keep_a_graph_at_once_keep_a_right_one(tmp_path: Path) -> None:
    """The file and what the store knows of it are changed together."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add, args=(tmp_path / "i", 1000 * n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    index = opened(tmp_path / "i")
    assert len(index) == 360
    assert all(found(tmp_path / "i", number) == f"d{number}" for number in (0, 119, 1000, 1119, 2000, 2119))


def test_beyond_twenty_thousand_vectors_a_graph_finds_nearly_all(tmp_path: Path) -> None:
    """At the number that users get: exact at it, and beyond it nearly all of the ten nearest, with exact scores."""
    embedder = ToyEmbedder(24)
    index = Index(tmp_path / "i", embedder=embedder, chunker=Chunker(size=1, overlap=0))
    letters = "".join(chr(0x4E00 + number) for number in range(EXACT_UP_TO))
    index.add([("book", letters)])
    assert (len(index), (index.path / FILE).exists()) == (EXACT_UP_TO, False)
    vectors = embedder.vectors(tuple(letters))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def recall() -> float:
        """Share of the ten nearest that ten queries of two words find."""
        right = 0
        for number in range(10):
            query = f"{letters[number]} {letters[500 + number]}"
            asked = embedder.vectors((query,))[0]
            scores = vectors @ (asked / np.linalg.norm(asked))
            hits = index.search(query, k=10)
            assert [hit.score for hit in hits] == pytest.approx([scores[hit.start] for hit in hits], abs=1e-5)
            right += len({hit.start for hit in hits} & set(np.argsort(-scores)[:10].tolist()))
        return right / 100

    assert recall() == 1
    index.add([("more", "x")])
    assert (index.path / FILE).is_file()
    assert recall() > 0.9
