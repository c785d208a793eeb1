"""What a call through `model(…)` costs over raw httpx: CPU time of this process, against the same server on loopback.

The server is a process of its own. Baselines in the same run, in turns: an `httpx.Client` (or `AsyncClient`) that sends the
same JSON and reads the answer with `json.loads`; for streams one that reads the same events line by line.

    python tests/benchmarks/http_cost.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import socketserver
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("LLMOPS_STORE", "0")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import httpx
from http_server import completion, words

from llmops_sdk import model

DELTAS = 200
WHOLE = json.dumps(completion("Paris is the capital of France. " * 8)).encode()
EVENTS = b"".join(words(*(f" word{n}" for n in range(DELTAS))))


class Handler(socketserver.StreamRequestHandler):
    """Answers as fast as Python can, so that waiting does not blur the measurement."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        while request := self.rfile.readline():
            length = 0
            while (line := self.rfile.readline()).strip():
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            streams = b'"stream":true' in self.rfile.read(length)
            body, kind = (EVENTS, b"text/event-stream") if streams else (WHOLE, b"application/json")
            head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (kind, len(body))
            assert request
            self.wfile.write(head + body)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64


def serve(port: Any) -> None:
    with Server(("127.0.0.1", 0), Handler) as server:
        port.send(server.server_address[1])
        server.serve_forever()


def cpu_us(work: Callable[[], Any], count: int) -> float:
    """Microseconds of this process's CPU for one of `count` calls that `work` makes."""
    begun = time.process_time()
    work()
    return (time.process_time() - begun) / count * 1e6


def cases(url: str, loop: asyncio.AbstractEventLoop) -> dict[str, Callable[[int], None]]:
    """What is measured, each as a function of the number of calls; a baseline stands before what it is one of."""
    ours = model(f"openai+{url}/v1#m", max_tokens=64)
    client, aclient = httpx.Client(), httpx.AsyncClient()
    address = f"{url}/v1/chat/completions"
    asked = {"model": "m", "messages": [{"role": "user", "content": "q"}], "max_tokens": 64}
    streaming = json.dumps(asked | {"stream": True}, separators=(",", ":"))

    def raw_call(count: int) -> None:
        for _ in range(count):
            client.post(address, json=asked).json()

    def call(count: int) -> None:
        for _ in range(count):
            ours.complete("q")

    def raw_acall(count: int) -> None:
        async def run() -> None:
            for _ in range(count):
                (await aclient.post(address, json=asked)).json()

        loop.run_until_complete(run())

    def acall(count: int) -> None:
        async def run() -> None:
            for _ in range(count):
                await ours.acomplete("q")

        loop.run_until_complete(run())

    def raw_stream(count: int) -> None:
        for _ in range(count):
            with client.stream("POST", address, content=streaming) as response:
                for line in response.iter_lines():
                    if line.startswith("data: {"):
                        json.loads(line[6:])

    def stream(count: int) -> None:
        for _ in range(count):
            for _ in ours.stream("q"):
                pass

    return {
        "raw httpx call": raw_call,
        "call": call,
        "raw httpx async call": raw_acall,
        "async call": acall,
        f"raw httpx stream of {DELTAS} deltas": raw_stream,
        f"stream of {DELTAS} deltas": stream,
    }


def measure(url: str, calls: int, rounds: int) -> list[dict[str, Any]]:
    """Medians, with the baseline of each; the cases take turns, so that a busy moment hits them alike."""
    loop = asyncio.new_event_loop()
    todo = cases(url, loop)
    seen: dict[str, list[float]] = {name: [] for name in todo}
    for turn in range(rounds + 1):
        for name, case in todo.items():
            count = max(1, calls // 10) if "stream" in name else calls
            cost = cpu_us(lambda case=case, count=count: case(count), count)  # type: ignore[misc]  # mypy: lambda defaults
            if turn:  # the first turn connects and loads what is lazy
                seen[name].append(cost)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    names = list(todo)
    medians = {name: statistics.median(costs) for name, costs in seen.items()}
    return [
        {
            "case": name,
            "cpu_us": round(medians[name], 1),
            "spread_us": round(max(seen[name]) - min(seen[name]), 1),
            "ratio": round(medians[name] / medians[names[place - place % 2]], 2),
        }
        for place, name in enumerate(names)
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds of 50 calls instead of 11 of 300")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    rounds, calls = (3, 50) if options.quick else (11, 300)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(sender,), daemon=True)
    server.start()
    rows = measure(f"http://127.0.0.1:{receiver.recv()}", calls, rounds)
    server.terminate()
    server.join()
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    versions = f"httpx {version('httpx')}"
    if options.json:
        print(json.dumps({"machine": machine, "versions": versions, "rounds": rounds, "calls": calls, "rows": rows}))
        return
    print(f"{machine}; {versions}; medians of {rounds} rounds of {calls} calls, CPU of the calling process\n")
    print("| what | CPU µs | spread | times raw httpx |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['case']} | {row['cpu_us']} | {row['spread_us']} | {row['ratio']} |")


if __name__ == "__main__":
    main()
