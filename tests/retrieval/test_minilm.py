"""The index with the model that users begin with."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llmops_sdk import Index, model, retrieve
from llmops_sdk.retrieval import Added

pytestmark = pytest.mark.weights

DOCUMENTS = [
    ("refunds.md", "The amount is paid back within ten days after the goods have been returned."),
    ("delivery.md", "Parcels leave our warehouse every morning and reach you within three days."),
    ("jobs.md", "We are looking for a carpenter who likes old houses."),
    ("hours.md", "The shop opens at nine and closes at six, on Saturdays at noon."),
]


def test_passages_are_found_by_what_they_mean(tmp_path: Path) -> None:
    """No word of the questions is in the passages."""
    index = Index(tmp_path / "shop", embedder=model("local:minilm"))
    assert index.add(DOCUMENTS) == Added(4, 0, 4)

    @retrieve(index, k=2)
    def passages(question: str) -> str:
        return question

    found = {
        question: passages(question)
        for question in ("When do I get my money?", "Shipping times?", "Do you employ woodworkers?")
    }
    assert [hits[0].source for hits in found.values()] == ["refunds.md", "delivery.md", "jobs.md"]
    assert all(1 > hits[0].score > hits[1].score > 0 for hits in found.values())


def test_the_kept_index_answers_as_before_and_in_every_form(tmp_path: Path) -> None:
    """Another process would see the same hits; so does async code; nothing is embedded again."""
    first = Index(tmp_path / "shop", embedder=model("local:minilm"))
    first.add(DOCUMENTS)
    hits = first.search("opening times", k=4)
    again = Index(tmp_path / "shop", embedder=model("local:minilm"))
    assert asyncio.run(again.aadd(DOCUMENTS)) == Added(0, 4, 0)
    assert again.search("opening times", k=4) == asyncio.run(again.asearch("opening times", k=4)) == hits
    assert hits[0].source == "hours.md"
