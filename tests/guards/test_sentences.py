"""Sentence ends for streams, and pieces for scanning."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops_sdk.guards.sentences import SEGMENT_CHARS, next_boundary, segments

ARMOUR = "-----BEGIN PRIVATE KEY-----\nMIIE\nAAKC\n-----END PRIVATE KEY-----\n"


def boundaries(text: str) -> list[int]:
    """Every sentence end of a text, as a stream meets them."""
    found: list[int] = []
    while boundary := next_boundary(text, found[-1] if found else 0):
        found.append(boundary)
    return found


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("One. Two! Three?", ["One. ", "Two! "]),
        ('He said "no." Then left.', ['He said "no." ']),
        ("3.14 is pi", []),
        ("see example.com/a.b now", []),
        ("一句。二句！三句", ["一句。", "二句！"]),  # noqa: RUF001 - full width is the case
        ("「はい。」次", ["「はい。」"]),
        ("x = 1\ny = 2\n", ["x = 1\n", "y = 2\n"]),
        ("Wait... what", ["Wait... "]),
        (f"Key:\n{ARMOUR}done", ["Key:\n", ARMOUR]),
        (ARMOUR[:40], []),
        ("", []),
    ],
)
def test_sentences_end_where_a_reader_sees_it(text: str, ends: list[str]) -> None:
    """With their space; not inside numbers, addresses and armoured keys."""
    found = boundaries(text)
    assert [text[a:b] for a, b in itertools.pairwise([0, *found])] == ends


@given(st.text(alphabet="ab.!?… \n。」\"'", max_size=60), st.text(alphabet="ab. \n。", max_size=20))
def test_what_comes_later_moves_no_end(text: str, more: str) -> None:
    """A stream may let a sentence go as soon as its end is there."""
    if boundary := next_boundary(text):
        assert next_boundary(text + more) == boundary


@given(st.text(alphabet="ab.!? \n", max_size=80), st.integers(0, 80))
def test_looking_on_from_where_nothing_was_found_finds_the_same(text: str, cut: int) -> None:
    """Streams do not search again what they have searched."""
    if next_boundary(text[:cut]) == 0:
        assert next_boundary(text, seen=min(cut, len(text))) == next_boundary(text)


@given(st.text(max_size=600) | st.text(alphabet="ab .\n;{}", max_size=900))
def test_segments_cover_a_text_in_order_and_none_is_long(text: str) -> None:
    """Every character is scanned, once."""
    cuts = segments(text)
    assert cuts[0] == 0
    assert cuts[-1] == len(text)
    assert all(0 < b - a <= SEGMENT_CHARS for a, b in itertools.pairwise(cuts))


@pytest.mark.parametrize(
    "text", ["First one.Second one.Third one here.", "void a() { b; c; } int main() { return 0; }"]
)
def test_text_without_spaces_and_code_is_cut_for_scanning(text: str) -> None:
    """A forgotten space, or code on one line, does not make one long piece."""
    assert len(segments(text)) > 2


@pytest.mark.parametrize("piece", [".", ". ", "a", "\n", ' "', "-----BEGIN A-----\n", "。", "a.B", "-----BEGIN ", "{ "])
@pytest.mark.parametrize("function", [segments, boundaries])
def test_hostile_text_costs_linear_time(piece: str, function: object) -> None:
    """Four times the text takes about four times as long."""

    def cpu_s(size: int) -> float:
        text = (piece * size)[:size]
        seen = []
        for _ in range(3):
            begun = time.process_time()
            function(text)  # type: ignore[operator]  # one of the two above
            seen.append(time.process_time() - begun)
        return min(seen)

    assert cpu_s(80_000) < 9 * cpu_s(20_000) + 0.005
