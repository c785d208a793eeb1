"""`llmops traces`: what the local store holds, as tables for people and JSON for programs."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmops_sdk.tracing import semconv

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
    attributes: Annotated[bool, typer.Option("--attributes", "-a", help="Also all attributes and events.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the spans of one trace, each with what matters most: tokens, cost, and what was decided."""
    spans = _store().spans(trace_id)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(span) for span in spans], indent=2))
    else:
        _show_spans(spans, content=content, attributes=attributes)


def _store() -> TraceStore:
    from llmops_sdk.settings import current_settings, find_home

    home = find_home(current_settings())
    from llmops_sdk.tracing.store import FILE, TraceStore

    return TraceStore(home / FILE)


def _show_list(found: Sequence[TraceSummary]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    for name in ("trace", "started"):
        table.add_column(name, no_wrap=True)
    # of the other columns none is cut
    table.add_column("name", no_wrap=True, overflow="ellipsis", max_width=max(10, console.width - 62))
    for name in ("s", "spans", "tokens", "$"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for summary in found:
        failed = f"{summary.errors} error{'s' if summary.errors > 1 else ''}" if summary.errors else ""
        told = "blocked" if summary.blocked else failed
        table.add_row(
            summary.trace_id[:8],
            _time(summary.start_ns),
            Text(_plain(summary.name)),
            f"{summary.duration_s:.2f}",
            str(summary.spans),
            _tokens(summary.input_tokens, summary.output_tokens),
            "" if summary.cost_usd is None else f"{summary.cost_usd:.4f}",
            Text(told, style="red"),
        )
    console.print(table)


def _show_spans(spans: Sequence[SpanRecord], *, content: bool, attributes: bool) -> None:
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
            branch = branches[span.span_id] = branches.get(span.parent_id, root).add(_title(span))
            if attributes:
                _add_attributes(branch, span)
            if content:
                for slot, value in span.payload.items():
                    branch.add(_pair(slot, value, "green"))
    Console(highlight=False).print(root)


def _title(span: SpanRecord) -> Text:
    """Name, time, what it took, what was decided, and how it failed."""
    from rich.text import Text

    failed = span.status == "error"
    title = Text.assemble((_plain(span.name), "red" if failed else "bold"), f"  {_duration(span.duration_s)}")
    for told in _highlights(span.attributes):
        title.append(f"  {_plain(told)}", style="cyan")
    if failed:
        title.append(f"  {_plain(span.status_message or 'error')}", style="red")
    return title


def _highlights(attributes: Mapping[str, Any]) -> Iterator[str]:
    tokens = _tokens(
        attributes.get(semconv.GEN_AI_USAGE_INPUT_TOKENS), attributes.get(semconv.GEN_AI_USAGE_OUTPUT_TOKENS)
    )
    if tokens:
        yield f"{tokens} tokens"
    for name, told in (
        (semconv.LLMOPS_COST_USD, "${:.6f}"),
        (semconv.GEN_AI_PROMPT_VERSION, "version {}"),
        (semconv.LLMOPS_CACHE_RESULT, "cache {}"),
        (semconv.LLMOPS_GUARD_ACTION, "guard {}"),
        (semconv.LLMOPS_FALLBACK_ANSWERED, "answered by {}"),
        (semconv.LLMOPS_RETRIEVAL_HITS, "{} hits"),
        (semconv.LLMOPS_REPAIR_RESULT, "repair {}"),
    ):
        if name in attributes:
            yield told.format(attributes[name])


def _add_attributes(branch: Tree, span: SpanRecord) -> None:
    from rich.text import Text

    branch.add(_pair("span", span.span_id, "dim"))
    for name, value in sorted(span.attributes.items()):
        branch.add(_pair(name, value, "dim"))
    for event in span.events:
        branch.add(Text(f"{_plain(event.name)} {_told(event.attributes)}", style="dim"))


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
    return dt.datetime.fromtimestamp(start_ns / 1e9).astimezone().strftime("%m-%d %H:%M:%S")


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _tokens(read: int | None, written: int | None) -> str:
    """Tokens in and out; a count that is not known is left open."""
    if read is None and written is None:
        return ""
    return f"{'?' if read is None else read}+{'?' if written is None else written}"
