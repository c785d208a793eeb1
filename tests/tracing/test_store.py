"""The local store: what is written is read back, whoever writes, and a broken file never breaks a program."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops_sdk import flush, trace, using
from llmops_sdk.errors import StoreError
from llmops_sdk.settings import load_settings, set_settings
from llmops_sdk.tracing import EventRecord, SpanRecord, TraceStore, semconv
from llmops_sdk.tracing.drain import Drain
from llmops_sdk.tracing.store import FILE, row_of


@pytest.fixture
def store(llmops_home: Path) -> TraceStore:
    return TraceStore(llmops_home / FILE)


def span_of(number: int = 1, **fields: object) -> SpanRecord:
    told = {
        "trace_id": "0" * 31 + "a",
        "span_id": f"{number:016x}",
        "name": "s",
        "start_ns": number * 10,
        "end_ns": number * 10 + 5,
        "attributes": {},
        "payload": {},
    }
    return SpanRecord(**(told | fields))  # type: ignore[arg-type]  # each field is given by its name


def test_a_trace_is_read_back_as_it_was_recorded(store: TraceStore) -> None:
    """Tree, attributes, events and payload, through the file."""
    with using(session="s1"), trace.span("outer", colour="red"), trace.span("inner") as inner:
        inner.add_event("happened", {"n": 1})
        inner.set_payload("result", {"a": [1, None]})
    assert flush()
    outside, inside = store.spans(inner.trace_id)
    assert (outside.name, inside.name) == ("outer", "inner")
    assert inside.parent_id == outside.span_id
    assert outside.attributes["colour"] == "red"
    assert [(event.name, event.attributes) for event in inside.events] == [("happened", {"n": 1})]
    assert inside.payload == {"result": {"a": [1, None]}}


texts = st.text(st.characters(codec=None), max_size=30)
facts = st.dictionaries(texts, st.booleans() | st.integers(-(2**63), 2**63) | texts, max_size=3)


@given(
    st.builds(
        SpanRecord,
        trace_id=st.just("a" * 32),
        span_id=st.just("b" * 16),
        name=st.text(max_size=30),
        start_ns=st.integers(0, 2**62),
        end_ns=st.integers(0, 2**62),
        status=st.sampled_from(("unset", "ok", "error")),
        status_message=st.text(max_size=30),
        attributes=facts,
        payload=facts,
        events=st.lists(
            st.builds(EventRecord, name=texts, time_ns=st.integers(0, 2**62), attributes=facts), max_size=2
        ).map(tuple),
    )
)
def test_any_span_survives_the_file(record: SpanRecord) -> None:
    """Control characters, half characters, large numbers and empty names included."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        store = TraceStore(Path(folder) / FILE)
        store.write([row_of(record)])
        assert store.spans("a" * 32) == [record]


def test_the_list_sums_up_each_trace(store: TraceStore) -> None:
    """Newest first, tokens and cost over the model calls alone, errors and blocks counted."""
    call = {
        semconv.GEN_AI_OPERATION_NAME: "chat",
        semconv.GEN_AI_USAGE_INPUT_TOKENS: 5,
        semconv.GEN_AI_USAGE_OUTPUT_TOKENS: 2,
        semconv.LLMOPS_COST_USD: 0.25,
    }
    first = [
        span_of(1, name="root", attributes={semconv.SESSION_ID: "s1"}),
        span_of(2, name="chat", parent_id=f"{1:016x}", attributes=call),
        span_of(3, name="chat", parent_id=f"{1:016x}", attributes=call, status="error"),
    ]
    second = [span_of(9, trace_id="b" * 32, name="guarded", attributes={semconv.LLMOPS_GUARD_ACTION: "block"})]
    store.write([row_of(span) for span in first + second])
    newest, oldest = store.traces()
    assert (newest.name, newest.blocked, newest.input_tokens, newest.cost_usd) == ("guarded", True, None, None)
    assert (oldest.name, oldest.spans, oldest.errors, oldest.session) == ("root", 3, 1, "s1")
    assert (oldest.input_tokens, oldest.output_tokens, oldest.cost_usd) == (10, 4, 0.5)
    assert oldest.duration_s == 25 / 1e9
    assert [summary.name for summary in store.traces(limit=1)] == ["guarded"]
    assert [summary.name for summary in store.traces(errors=True)] == ["root"]
    assert [summary.name for summary in store.traces(session="s1")] == ["root"]


def test_a_trace_is_found_by_the_beginning_of_its_id(store: TraceStore) -> None:
    """As git does; what fits none or several is said."""
    store.write([row_of(span_of(trace_id="ab" * 16)), row_of(span_of(trace_id="ac" * 16))])
    assert store.spans("AB")[0].trace_id == "ab" * 16
    with pytest.raises(StoreError, match="More than one trace begins with 'a'"):
        store.spans("a")
    with pytest.raises(StoreError, match="There is no trace 'f'"):
        store.spans("f")


def test_the_home_is_private_and_out_of_git(store: TraceStore) -> None:
    """What was asked and answered is for the owner of the account alone."""
    store.write([row_of(span_of())])
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert (store.path.parent / ".gitignore").read_text(encoding="utf-8") == "*\n"


def test_threads_write_one_store(store: TraceStore) -> None:
    """No span is lost or written twice."""

    def work() -> None:
        for _ in range(50):
            with trace.span("s"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert flush()
    assert len(store.traces(limit=1000)) == 200


def test_a_new_store_is_begun_by_many_at_once(tmp_path: Path) -> None:
    """Whoever comes while another makes the tables waits, and no span is lost."""
    for number in range(30):
        store, together = TraceStore(tmp_path / str(number) / FILE), threading.Barrier(4)

        def begin(one: int, store: TraceStore = store, together: threading.Barrier = together) -> None:
            together.wait()
            store.write([row_of(span_of(trace_id=f"{one:032x}"))])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(begin, range(4)))
        assert len(store.traces()) == 4


def _child(name: str) -> None:
    with trace.span(name):
        pass
    assert flush()


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_processes_write_one_store(store: TraceStore, start: str, llmops_home: Path) -> None:
    """A child writes its own spans, and none of those that its parent had not yet written."""
    with trace.span("before"):
        pass
    context: Any = multiprocessing.get_context(start)
    children = [context.Process(target=_child, args=(f"child {n}",)) for n in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    with trace.span("after"):
        pass
    assert flush()
    assert sorted(summary.name for summary in store.traces()) == ["after", "before", "child 0", "child 1"]


# Files that cannot be used ----------------------------------------------------------------------------------------------


def said_once(caplog: pytest.LogCaptureFixture) -> str:
    """The one line of the log."""
    (record,) = [record for record in caplog.records if record.name == "llmops_sdk"]
    return record.getMessage()


def trace_three_times() -> None:
    for _ in range(3):
        with trace.span("s"):
            pass
        flush()


def test_a_home_that_cannot_be_made_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The program goes on; the line names the place and what to do."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    set_settings(load_settings(home=tmp_path / "file" / "home"))
    with caplog.at_level(logging.WARNING, "llmops_sdk"):
        trace_three_times()
    assert "cannot be written" in (told := said_once(caplog))
    assert str(tmp_path / "file" / "home") in told
    assert "not stored" in told


def test_a_damaged_store_is_said_once_and_left_as_it_is(store: TraceStore, caplog: pytest.LogCaptureFixture) -> None:
    """Bad input never loses data: the file is not deleted, emptied or moved."""
    store.path.parent.mkdir()
    damaged = b"SQLite format 3\x00" + os.urandom(5000)
    store.path.write_bytes(damaged)
    with caplog.at_level(logging.WARNING, "llmops_sdk"):
        trace_three_times()
    assert "if the file is damaged, move it away" in said_once(caplog)
    assert store.path.read_bytes() == damaged
    with pytest.raises(StoreError, match="cannot be read"):
        store.traces()


def test_another_programs_database_is_left_alone(store: TraceStore, caplog: pytest.LogCaptureFixture) -> None:
    """Neither read nor written."""
    store.path.parent.mkdir()
    connection = sqlite3.connect(store.path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with caplog.at_level(logging.WARNING, "llmops_sdk"):
        trace_three_times()
    assert "another program's database" in said_once(caplog)
    with pytest.raises(StoreError, match="another program's database"):
        store.traces()


def test_a_store_of_a_newer_version_is_not_touched(store: TraceStore) -> None:
    """The error says to upgrade."""
    store.write([row_of(span_of())])
    connection = sqlite3.connect(store.path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    for use in (store.traces, lambda: store.write([row_of(span_of())])):
        with pytest.raises(StoreError, match=r"newer version .*Upgrade"):
            use()


def test_reading_before_anything_was_recorded_says_what_to_do(store: TraceStore) -> None:
    """And makes no file."""
    with pytest.raises(StoreError, match="no trace store at"):
        store.traces()
    assert not store.path.parent.exists()


def test_without_a_store_nothing_is_written(llmops_home: Path) -> None:
    """`store=False`: no file, no thread, no complaint."""
    set_settings(load_settings(store=False))
    trace_three_times()
    assert not llmops_home.exists()


# The queue --------------------------------------------------------------------------------------------------------------


def test_a_full_queue_drops_and_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Memory is bounded; what was lost is said."""
    drain = Drain(TraceStore(tmp_path / "home" / FILE), queue_bytes=2000, block=False)
    with caplog.at_level(logging.WARNING, "llmops_sdk"):
        for number in range(100):
            drain.take(span_of(number))
    assert drain.flush(10)
    stored = len(drain.store.spans("0" * 31 + "a"))
    assert drain.dropped > 0
    assert stored + drain.dropped == 100
    assert "queue_bytes" in said_once(caplog)


def test_a_full_queue_waits_where_asked(tmp_path: Path) -> None:
    """`on_full="block"`: slower, and complete."""
    drain = Drain(TraceStore(tmp_path / "home" / FILE), queue_bytes=2000, block=True)
    for number in range(100):
        drain.take(span_of(number))
    assert drain.flush(10)
    assert drain.dropped == 0
    assert len(drain.store.spans("0" * 31 + "a")) == 100


def test_one_span_larger_than_the_queue_is_kept(tmp_path: Path) -> None:
    """A bound that nothing fits into would store nothing for ever."""
    drain = Drain(TraceStore(tmp_path / "home" / FILE), queue_bytes=10, block=False)
    drain.take(span_of(1, payload={"result": "x" * 1000}))
    assert drain.flush(10)
    assert drain.dropped == 0


def test_a_store_in_a_folder_that_cannot_be_written_is_read(store: TraceStore, tmp_path: Path) -> None:
    """One that was copied from elsewhere, or belongs to a colleague."""
    store.write([row_of(span_of())])
    folder = tmp_path / "shipped"
    folder.mkdir()
    connection = sqlite3.connect(store.path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    (folder / FILE).write_bytes(store.path.read_bytes())
    (folder / FILE).chmod(0o400)
    folder.chmod(0o500)
    try:
        assert len(TraceStore(folder / FILE).traces()) == 1
    finally:
        folder.chmod(0o700)


def test_an_error_that_is_passed_on_is_one_error(store: TraceStore) -> None:
    """Three spans end with it, and one failed."""
    root, middle, leaf = (f"{n:016x}" for n in (1, 2, 3))
    spans = [
        span_of(1, status="error"),
        span_of(2, parent_id=root, status="error"),
        span_of(3, parent_id=middle, status="error"),
        span_of(4, parent_id=root, status="error"),
    ]
    assert spans[2].span_id == leaf
    store.write([row_of(span) for span in spans])
    assert store.traces()[0].errors == 2


def test_a_store_that_is_held_for_long_is_written_when_it_is_free(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another process that holds the file costs time, and no span."""
    path = tmp_path / "home" / FILE
    TraceStore(path).write([row_of(span_of(1))])
    holder = sqlite3.connect(path)
    holder.execute("BEGIN IMMEDIATE")
    drain = Drain(TraceStore(path, busy_s=0.05), queue_bytes=10_000, block=False)
    with caplog.at_level(logging.WARNING, "llmops_sdk"):
        drain.take(span_of(2))
        assert not drain.flush(0.3)
        drain.take(span_of(3))
        assert not drain.flush(0.3)
    assert "Spans wait until it is free" in said_once(caplog)
    holder.rollback()
    holder.close()
    assert drain.flush(10)
    assert [span.span_id[-1] for span in TraceStore(path).spans("0" * 31 + "a")] == ["1", "2", "3"]
