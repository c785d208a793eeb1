"""`llmops traces`: what the local store holds, as tables for people and JSON for programs."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from llmops_sdk.tracing import SpanRecord, TraceStore
    from llmops_sdk.tracing.store import TraceSummary

app = typer.Typer(no_args_is_help=True, help="Look at recorded traces.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_traces(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the newest first.")] = 20,
    errors: Annotated[bool, typer.Option("--errors", help="Only traces with an error.")] = False,
    session: Annotated[str | None, typer.Option("--session", help="Only traces of this session.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the newest traces."""
    found = _store().traces(limit=limit, errors=errors, session=session)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(summary) for summary in found], indent=2))
    elif not found:
        typer.echo("No trace fits.")
    else:
        _show_list(found)


@app.command("show")
def show_trace(
    trace_id: Annotated[str, typer.Argument(help="The id of a trace, or the beginning of it.")],
    content: Annotated[bool, typer.Option("--content", help="Also what was asked and answered.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the spans of one trace."""
    spans = _store().spans(trace_id)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(span) for span in spans], indent=2))
    else:
        _show_spans(spans, content)


def _store() -> TraceStore:
    from llmops_sdk.settings import current_settings, find_home
    from llmops_sdk.tracing.store import FILE, TraceStore

    return TraceStore(find_home(current_settings()) / FILE)


def _show_list(found: Sequence[TraceSummary]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("trace", "started", "name"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for name in ("seconds", "spans", "tokens in", "out", "cost $"):
        table.add_column(name, justify="right")
    table.add_column("")
    for summary in found:
        told = [*(["blocked"] if summary.blocked else []), *([f"{summary.errors} errors"] if summary.errors else [])]
        table.add_row(
            summary.trace_id[:12],
            _time(summary.start_ns),
            Text(_plain(summary.name)),
            f"{summary.duration_s:.3f}",
            str(summary.spans),
            _count(summary.input_tokens),
            _count(summary.output_tokens),
            "" if summary.cost_usd is None else f"{summary.cost_usd:.6f}",
            Text(", ".join(told), style="red"),
        )
    Console(highlight=False).print(table)


def _show_spans(spans: Sequence[SpanRecord], content: bool) -> None:
    from rich.console import Console
    from rich.tree import Tree

    known = {span.span_id for span in spans}
    root = Tree(f"trace {spans[0].trace_id}", highlight=False)
    branches: dict[str, Tree] = {}
    waiting = list(spans)
    while waiting:
        # a parent may have started in the same nanosecond, or after its child by another machine's clock
        ready = [span for span in waiting if span.parent_id not in known or span.parent_id in branches]
        for span in ready or waiting[:1]:
            waiting.remove(span)
            branches[span.span_id] = _branch(branches.get(span.parent_id, root), span, content)
    Console(highlight=False).print(root)


def _branch(parent: Tree, span: SpanRecord, content: bool) -> Tree:
    from rich.text import Text

    style = "red" if span.status == "error" else ""
    line = Text.assemble(
        (_plain(span.name), style or "bold"), f"  {span.duration_s * 1000:.1f} ms  ", (span.span_id, "dim")
    )
    branch = parent.add(line)
    if span.status_message:
        branch.add(Text(_plain(span.status_message), style="red"))
    for name, value in sorted(span.attributes.items()):
        branch.add(_pair(name, value, "dim"))
    for event in span.events:
        branch.add(Text(f"{_plain(event.name)} {_told(event.attributes)}", style="dim"))
    if content:
        for slot, value in span.payload.items():
            branch.add(_pair(slot, value, "green"))
    return branch


def _pair(name: str, value: Any, style: str) -> Text:
    from rich.text import Text

    return Text.assemble((_plain(name), style), " ", _plain(value if isinstance(value, str) else json.dumps(value)))


def _told(attributes: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in attributes.items() if name != "exception.stacktrace"}
    return " ".join(f"{_plain(name)}={_plain(str(value))}" for name, value in shown.items())


def _plain(text: str) -> str:
    """Text of a span on a terminal: what would steer the terminal is shown as an escape."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def _time(start_ns: int) -> str:
    return dt.datetime.fromtimestamp(start_ns / 1e9).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _count(count: int | None) -> str:
    return "" if count is None else str(count)
