"""Chunks cover a text exactly, within their size, and end where something ends."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops_sdk.errors import UsageError
from llmops_sdk.retrieval import Chunk, Chunker

TEXTS = st.one_of(
    st.text(alphabet="ab .!?\n\t\"')", max_size=400),
    st.text(max_size=300),
    st.lists(st.sampled_from(["A sentence ends here.", "word", "\n\n", "\n", " ", "x" * 40, "日本語。"])).map("".join),
)
SIZES = st.integers(1, 60).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1)))


@given(TEXTS, SIZES)
def test_chunks_stand_where_they_say_and_cover_the_text(text: str, sizes: tuple[int, int]) -> None:
    """Offsets are exact, sizes hold, both ends grow, nothing but white space is left out."""
    size, overlap = sizes
    chunks = Chunker(size=size, overlap=overlap).chunks(text)
    covered: set[int] = set()
    for chunk in chunks:
        assert text[chunk.start : chunk.end] == chunk.text
        assert 0 < len(chunk.text) <= size
        assert chunk.text == chunk.text.strip()
        covered |= set(range(chunk.start, chunk.end))
    for before, after in itertools.pairwise(chunks):
        assert before.start < after.start
        assert before.end < after.end
        assert before.end - after.start <= overlap
    assert all(at in covered for at, character in enumerate(text) if not character.isspace())


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("One two three.\n\nFour five six. Seven eight nine.", "One two three."),
        ("One two three. Four five six seven eight.", "One two three."),
        ('He said "go." Then he left the room.', 'He said "go."'),
        ("one two three four\nfive six seven", "one two three four"),
        ("one two three four five six seven", "one two three four"),
        ("x" * 50, "x" * 20),
    ],
)
def test_a_chunk_ends_at_the_best_boundary_that_fits(text: str, first: str) -> None:
    """Paragraph before sentence before line before word before a cut."""
    assert Chunker(size=20, overlap=0).chunks(text)[0].text == first


def test_overlap_repeats_whole_words() -> None:
    """The next chunk begins at a word of the one before."""
    assert Chunker(size=20, overlap=10).chunks("one two three four five six seven") == [
        Chunk(0, 18, "one two three four"),
        Chunk(14, 33, "four five six seven"),
    ]


@pytest.mark.parametrize("sizes", [(0, 0), (10, 10), (10, -1)])
def test_sizes_that_cannot_be_right_are_refused(sizes: tuple[int, int]) -> None:
    """The message has the value seen."""
    with pytest.raises(UsageError, match=str(sizes[1] if sizes[0] else 0)):
        Chunker(size=sizes[0], overlap=sizes[1])
