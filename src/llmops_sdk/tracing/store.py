"""The local trace store: one SQLite file in the home, written by the app and read by whoever looks at its traces.

Nothing that is read from it is executed. The file is readable by its owner only.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from llmops_sdk.errors import StoreError
from llmops_sdk.settings import make_file, make_folder
from llmops_sdk.tracing import semconv
from llmops_sdk.tracing.forking import unforked
from llmops_sdk.tracing.record import EventRecord, SpanRecord

FILE: Final = "traces.db"
FORMAT: Final = 1
"""`PRAGMA user_version` of what this version writes."""
BUSY_S: Final = 5.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS spans (
    trace_id TEXT NOT NULL,
    span_id TEXT NOT NULL,
    parent_id TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    start_ns INTEGER NOT NULL,
    end_ns INTEGER NOT NULL,
    status TEXT NOT NULL,
    status_message TEXT NOT NULL,
    attributes TEXT NOT NULL,
    events TEXT NOT NULL,
    links TEXT NOT NULL,
    payload TEXT NOT NULL,
    service TEXT NOT NULL,
    scope TEXT NOT NULL,
    PRIMARY KEY (trace_id, span_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS spans_by_start ON spans (start_ns);
"""


class Row(NamedTuple):
    """A span as the table holds it; attributes, events, links and payload are JSON."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    status: str
    status_message: str
    attributes: str
    events: str
    links: str
    payload: str
    service: str
    scope: str


def row_of(record: SpanRecord) -> Row:
    """A span on its way into the table."""
    return Row(
        trace_id=record.trace_id,
        span_id=record.span_id,
        parent_id=record.parent_id,
        name=_storable(record.name),
        kind=record.kind,
        start_ns=record.start_ns,
        end_ns=record.end_ns,
        status=record.status,
        status_message=_storable(record.status_message),
        attributes=_json(record.attributes),
        events=_json([{"name": e.name, "time_ns": e.time_ns, "attributes": e.attributes} for e in record.events]),
        links=_json(record.links),
        payload=_json(record.payload),
        service=_storable(record.service),
        scope=record.scope,
    )


def _json(value: Any) -> str:
    return json.dumps(
        value, ensure_ascii=True, separators=(",", ":"), default=lambda other: f"<{type(other).__name__}>"
    )


def _storable(text: str) -> str:
    """Half a character cannot be stored as UTF-8; it is shown as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSummary:
    """One trace at a glance. Tokens and cost are sums over its model calls; None where no call said."""

    trace_id: str
    name: str
    start_ns: int
    duration_s: float
    spans: int
    errors: int
    blocked: bool
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    session: str | None
    service: str


class TraceStore:
    """The store at `path`. Raises `StoreError` for a file that is damaged, foreign, newer or not accessible.

    A connection lives for one operation, so that threads and forked processes need no care. `busy_s`: how long a file that
    somebody else holds is waited for.
    """

    def __init__(self, path: Path, *, busy_s: float = BUSY_S) -> None:
        self.path = path
        self.busy_s = busy_s

    def write(self, rows: Sequence[Row]) -> None:
        """Store spans in one transaction; one that is there already is replaced."""
        marks = ",".join("?" * len(Row._fields))
        with self._writing() as connection, connection:
            connection.executemany(f"INSERT OR REPLACE INTO spans VALUES ({marks})", rows)  # noqa: S608 - marks only

    def traces(self, *, limit: int = 20, errors: bool = False, session: str | None = None) -> list[TraceSummary]:
        """The newest traces, the newest first; only those with errors, or of one session, where asked."""
        found: list[TraceSummary] = []
        with self._reading() as connection:
            ids = connection.execute("SELECT trace_id, max(start_ns) FROM spans GROUP BY trace_id ORDER BY 2 DESC")
            for trace_id, _ in ids:
                summary = _summary(_records(connection, trace_id))
                if (errors and not summary.errors) or (session is not None and summary.session != session):
                    continue
                found.append(summary)
                if len(found) >= limit:
                    break
        return found

    def spans(self, trace_id: str) -> list[SpanRecord]:
        """The spans of a trace in the order of their start; the trace may be named by the beginning of its id.

        Raises `StoreError` where no trace, or more than one, begins so.
        """
        with self._reading() as connection:
            bounds = (trace_id.lower(), trace_id.lower() + "g")
            matching = connection.execute(
                "SELECT DISTINCT trace_id FROM spans WHERE trace_id >= ? AND trace_id < ? LIMIT 2", bounds
            ).fetchall()
            if len(matching) != 1:
                told = "There is no trace" if not matching else "More than one trace begins with"
                raise StoreError(f"{told} {trace_id!r} in {self.path}. `llmops traces list` shows what there is.")
            return _records(connection, matching[0][0])

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._told("written"), unforked():
            make_folder(self.path.parent)
            make_file(self.path)
            with contextlib.closing(sqlite3.connect(self.path, timeout=self.busy_s)) as connection:
                use_log(connection, self.busy_s)
                connection.execute("PRAGMA synchronous = NORMAL")
                version = self._version(connection)
                if version == 0:
                    connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;")
                yield connection

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._told("read"), unforked():
            if not self.path.exists():
                raise StoreError(
                    f"There is no trace store at {self.path} yet. Run a program that is decorated with @trace."
                )
            # a reader of a log needs a file of its own beside it, which a folder that is not writable cannot have
            how = "mode=ro" if os.access(self.path.parent, os.W_OK) else "mode=ro&immutable=1"
            address = f"{self.path.absolute().as_uri()}?{how}"
            with contextlib.closing(sqlite3.connect(address, uri=True, timeout=self.busy_s)) as connection:
                if self._version(connection) == 0:
                    raise StoreError(f"{self.path} holds no traces: it is empty, or not a trace store.")
                yield connection

    def _version(self, connection: sqlite3.Connection) -> int:
        connection.execute("BEGIN")  # one state of the file: another process may be making the tables
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        connection.rollback()
        if version > FORMAT:
            raise StoreError(
                f"{self.path} was written by a newer version (format {version}; this one writes {FORMAT}). Upgrade "
                f"llmops-sdk, or set LLMOPS_HOME to another folder."
            )
        if version == 0 and tables:
            raise StoreError(f"{self.path} is another program's database. Set LLMOPS_HOME to another folder.")
        return version

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"The trace store {self.path} cannot be {what}: {error}. Check that the folder is yours and has room; if "
                f"the file is damaged, move it away."
            ) from error


def is_busy(error: StoreError) -> bool:
    """Whether the store was only held by somebody else, for longer than it was waited for."""
    cause = error.__cause__
    return isinstance(cause, sqlite3.OperationalError) and cause.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def use_log(connection: sqlite3.Connection, busy_s: float) -> None:
    """Write ahead to a log. SQLite itself does not wait for whoever is turning the same new file to it."""
    until = time.monotonic() + busy_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.005)


def _records(connection: sqlite3.Connection, trace_id: str) -> list[SpanRecord]:
    columns = ", ".join(Row._fields)
    query = f"SELECT {columns} FROM spans WHERE trace_id = ? ORDER BY start_ns, end_ns DESC"  # noqa: S608 - our names
    return [_record(Row(*row)) for row in connection.execute(query, (trace_id,))]


def _record(row: Row) -> SpanRecord:
    return SpanRecord(
        **{
            **row._asdict(),
            "attributes": json.loads(row.attributes),
            "events": tuple(EventRecord(**event) for event in json.loads(row.events)),
            "links": tuple((trace, span, attributes) for trace, span, attributes in json.loads(row.links)),
            "payload": json.loads(row.payload),
        }
    )


def _summary(spans: Sequence[SpanRecord]) -> TraceSummary:
    """A trace from its spans: named after its root, or after its first span where the root is missing."""
    known = {span.span_id for span in spans}
    root = next((span for span in spans if span.parent_id not in known), spans[0])
    calls = [span for span in spans if semconv.GEN_AI_OPERATION_NAME in span.attributes]
    start, end = min(span.start_ns for span in spans), max(span.end_ns for span in spans)
    return TraceSummary(
        trace_id=root.trace_id,
        name=root.name,
        start_ns=start,
        duration_s=(end - start) / 1e9,
        spans=len(spans),
        errors=_failures(spans),
        blocked=any(span.attributes.get(semconv.LLMOPS_GUARD_ACTION) == "block" for span in spans),
        input_tokens=_sum(calls, semconv.GEN_AI_USAGE_INPUT_TOKENS),
        output_tokens=_sum(calls, semconv.GEN_AI_USAGE_OUTPUT_TOKENS),
        cost_usd=_sum(calls, semconv.LLMOPS_COST_USD),
        session=next((s.attributes[semconv.SESSION_ID] for s in spans if semconv.SESSION_ID in s.attributes), None),
        service=root.service,
    )


def _failures(spans: Sequence[SpanRecord]) -> int:
    """Errors where they happened: a span that only let one of its children's pass is not counted again."""
    failed = [span for span in spans if span.status == "error"]
    passed_on = {span.parent_id for span in failed}
    return sum(span.span_id not in passed_on for span in failed)


def _sum(spans: Sequence[SpanRecord], name: str) -> Any:
    known = [span.attributes[name] for span in spans if isinstance(span.attributes.get(name), int | float)]
    return sum(known) if known else None
