"""Replays recorded traffic of OpenAI-compatible chat completions through the parser, and counts what comes out.

The recordings are VCR cassettes in the folder `wire` of the development data (LLMOPS_BENCH_DATA, by default
../shared/data). Each recorded request and response is checked against what the recording itself says: text, tool calls,
usage, how it ended. Streams are fed whole and byte by byte, which must give the same deltas.

    python tests/benchmarks/recorded_chat.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("LLMOPS_STORE", "0")

from llmops_sdk.errors import ModelError
from llmops_sdk.flow import Assembly
from llmops_sdk.providers.keys import ApiKey
from llmops_sdk.providers.openai_errors import Refusals
from llmops_sdk.providers.openai_response import ChatStream, read_response
from llmops_sdk.types import Delta, Response, Text, ToolCall

REFUSALS = Refusals("recorded", ApiKey())


class Exchange(NamedTuple):
    """One recorded request to a chat completions address, and its response."""

    cassette: str
    host: str
    status: int
    headers: dict[str, str]
    body: bytes


def exchanges(folder: Path) -> Iterator[Exchange]:
    """Every recorded exchange with an address that ends with /chat/completions."""
    import yaml  # type: ignore[import-untyped]  # transformers brings it, without its types

    for path in sorted(folder.rglob("*.yaml")):
        told = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
        for entry in told.get("interactions", []):
            address = entry["request"]["uri"].partition("?")[0]
            if address.endswith("/chat/completions"):
                yield Exchange(
                    f"{path.parent.name}/{path.stem}",
                    address.split("/")[2],
                    entry["response"]["status"]["code"],
                    {name.lower(): str(values[0]) for name, values in entry["response"]["headers"].items()},
                    _body(entry["response"]),
                )


def _body(response: dict[str, Any]) -> bytes:
    """The body as it left the server, decompressed where the recording kept it compressed."""
    if "parsed_body" in response:
        return json.dumps(response["parsed_body"]).encode()
    told = response["body"]
    content = told.get("string", b"") if isinstance(told, dict) else told
    raw: bytes = content.encode() if isinstance(content, str) else content
    if raw[:2] == b"\x1f\x8b":
        return gzip.decompress(raw)
    headers = {name.lower(): values for name, values in response["headers"].items()}
    if headers.get("content-encoding") == ["deflate"] and raw[:1] not in (b"{", b"d"):
        return zlib.decompress(raw)
    return raw


def replay(exchange: Exchange) -> tuple[str, list[str]]:
    """The kind of an exchange, and what is wrong with how it was read."""
    if not 200 <= exchange.status < 300:
        error = REFUSALS.of_status(exchange.status, exchange.headers, exchange.body)
        return f"error {exchange.status} {type(error).__name__}", [] if error.raw else ["no payload"]
    if exchange.body.lstrip().startswith((b"data:", b":", b"event:")):
        return "stream", streamed(exchange.body)
    try:
        response = read_response(exchange.body, REFUSALS)
    except ModelError as error:
        refused = not is_completion(exchange.body)
        return ("no completion, refused", []) if refused else ("whole", [f"{type(error).__name__}: {error}"])
    return "whole", differences(response, json.loads(exchange.body))


def is_completion(body: bytes) -> bool:
    """Whether a body has a message to read."""
    try:
        return isinstance(json.loads(body)["choices"][0]["message"], dict)
    except (ValueError, LookupError, TypeError):
        return False


def streamed(body: bytes) -> list[str]:
    """Read as one chunk and byte by byte, and held against the events in the body."""
    try:
        at_once, bytewise = read([body]), read([body[i : i + 1] for i in range(len(body))])
    except ModelError as error:
        return [f"{type(error).__name__}: {error}"]
    assembly = Assembly()
    for delta in at_once:
        assembly.add(delta)
    events = [json.loads(line[5:]) for line in body.splitlines() if line.startswith(b"data:") and b"[DONE]" not in line]
    choices = [choice for event in events for choice in event.get("choices") or [] if choice["index"] == 0]
    text = "".join(c["delta"]["content"] for c in choices if isinstance(c["delta"].get("content"), str))
    arguments = "".join(
        call["function"].get("arguments") or "" for c in choices for call in c["delta"].get("tool_calls") or []
    )
    response = assembly.response()
    wrong = [] if at_once == bytewise else ["cut bytes give other deltas"]
    wrong += [] if response.text == text else ["text"]
    called = "".join(c.arguments_json for c in response.message.tool_calls)
    wrong += [] if called.replace("{}", "") == arguments.replace("{}", "") else ["arguments"]
    usages = [event["usage"] for event in events if event.get("usage")]
    wrong += [] if not usages or response.usage.output_tokens == usages[-1]["completion_tokens"] else ["usage"]
    return wrong


def read(chunks: list[bytes]) -> list[Delta]:
    """The deltas of a stream that came in these chunks."""
    stream = ChatStream(REFUSALS)
    deltas = [delta for chunk in chunks for delta in stream.feed(chunk)]
    return [*deltas, *stream.finish()]


def differences(response: Response, told: dict[str, Any]) -> list[str]:
    """What a whole response says otherwise than its JSON."""
    choice = told["choices"][0]
    message, usage = choice["message"], told.get("usage") or {}
    content = message.get("content")
    wrong = []
    if isinstance(content, str) and response.text != content:
        wrong.append("text")
    calls = [part for part in response.message.parts if isinstance(part, ToolCall)]
    if [call.name for call in calls] != [call["function"]["name"] for call in message.get("tool_calls") or []]:
        wrong.append("tool calls")
    if (response.usage.input_tokens, response.usage.output_tokens) != (
        usage.get("prompt_tokens"),
        usage.get("completion_tokens"),
    ):
        wrong.append("usage")
    if isinstance(content, list) and not any(isinstance(part, Text) for part in response.message.parts):
        wrong.append("parts")
    return wrong + ([f"finish {choice['finish_reason']}"] if response.finish_reason == "other" else [])


def main() -> int:
    """Print the counts; the exit status is 1 if anything was read wrongly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="accepted like in the other benchmarks; changes nothing")
    parser.add_argument("--json", action="store_true", help="also print one JSON object, as the last line")
    options = parser.parse_args()
    folder = os.environ.get("LLMOPS_BENCH_DATA", "../shared/data")
    if not (Path(folder) / "wire").is_dir():
        print(
            f"{folder} has no recorded traffic (wire/): nothing was replayed. LLMOPS_BENCH_DATA names another folder."
        )
        return 0
    counts: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    for exchange in exchanges(Path(folder) / "wire"):
        kind, differs = replay(exchange)
        counts[exchange.host, kind] += 1
        wrong += [f"{exchange.cassette} ({exchange.host}, {kind}): {what}" for what in differs]
    print("| server | what | recordings |\n|---|---|---|")
    for (host, kind), number in sorted(counts.items()):
        print(f"| {host} | {kind} | {number} |")
    print(f"\n{sum(counts.values())} replayed, {len(wrong)} read wrongly")
    print(*wrong, sep="\n")
    if options.json:
        told = {f"{host} / {kind}": number for (host, kind), number in sorted(counts.items())}
        print(json.dumps({"replayed": sum(counts.values()), "wrong": len(wrong), **told}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
