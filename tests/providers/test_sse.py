"""Server-sent events, cut anywhere."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops_sdk.providers.sse import Event, EventDecoder


def decoded(*chunks: bytes) -> list[Event]:
    decoder = EventDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)] + decoder.finish()


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"data: a\n\n", [Event("a")]),
        (b"data:a\r\n\r\ndata:  b\r\n\r\n", [Event("a"), Event(" b")]),
        (b"data: a\rdata: b\r\r", [Event("a\nb")]),
        (b": keep-alive\n\ndata: a\n\n: more\n", [Event("a")]),
        (b"event: ping\ndata: a\nid: 3\nretry: 10\n\n", [Event("a", "ping")]),
        (b"event: nothing\n\ndata: a\n\n", [Event("a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [Event("a")]),
        (b"data\n\n", [Event("")]),
        (b"data: a\n\ndata: unfinished", [Event("a"), Event("unfinished")]),
        ("data: é☃\n\n".encode(), [Event("é☃")]),
        (b"data: \xff\n\n", [Event("\ufffd")]),
        (b"data: a\x0bb\xe2\x80\xa8c\n\n", [Event("a\x0bb\u2028c")]),
        (b"", []),
        (b"\n\n\n", []),
    ],
)
def test_each_kind_of_line_is_read_as_the_standard_says(body: bytes, events: list[Event]) -> None:
    """At once, and byte by byte."""
    assert decoded(body) == events
    assert decoded(*(body[i : i + 1] for i in range(len(body)))) == events


LINES = st.sampled_from(
    [
        "data: a",
        "data:é☃",
        "data: ",
        "data",
        ": c",
        ":",
        "event: e",
        "id: 1",
        "",
        "",
        "retry: x",
        "unknown: y",
        "data: a:b",
    ]
)


@given(st.lists(st.tuples(LINES, st.sampled_from(["\n", "\r\n", "\r"])), max_size=20), st.data())
def test_where_a_stream_is_cut_changes_nothing(lines: list[tuple[str, str]], data: st.DataObject) -> None:
    """A network may deliver any bytes together: between CR and LF, and within a letter."""
    body = "".join(line + end for line, end in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=12)))
    chunks = [body[a:b] for a, b in pairwise([0, *cuts, len(body)])]
    assert decoded(*chunks) == decoded(body)
