"""What the flow costs: CPU per call and per delta, through no layer and through six.

Baselines in the same run: a plain function call, and a plain generator that yields the same deltas.

    python tests/benchmarks/flow_cost.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("LLMOPS_STORE", "0")

from llmops_sdk.flow import Emit, Flow, Model, Run
from llmops_sdk.types import Delta, Request, Response

RESPONSE = Response.of("done")
DELTA = Delta(text="word")


class Leaf(Model):
    name = "leaf"

    def __init__(self, deltas: int) -> None:
        self.deltas = deltas

    def flow(self, request: Any, run: Run) -> Flow[Response]:
        if run.streaming:
            for _ in range(self.deltas):
                yield Emit(DELTA)
        return RESPONSE


class Layer(Model):
    def __init__(self, model: Model) -> None:
        self.model, self.name = model, model.name

    def flow(self, request: Any, run: Run) -> Flow[Any]:
        return (yield from self.model.flow(request, run))


def layered(deltas: int, layers: int) -> Model:
    model: Model = Leaf(deltas)
    for _ in range(layers):
        model = Layer(model)
    return model


def plain(deltas: int) -> Iterator[Delta]:
    for _ in range(deltas):
        yield DELTA


async def read(model: Model) -> None:
    async for _ in model.astream(REQUEST):
        pass


REQUEST = Request.of("q")


def cpu_us(work: Callable[[], Any], count: int) -> float:
    """Microseconds of CPU for one of `count` things that `work` does."""
    begun = time.process_time()
    work()
    return (time.process_time() - begun) / count * 1e6


def measure(calls: int, deltas: int, rounds: int) -> dict[str, float]:
    none, six = layered(deltas, 0), layered(deltas, 6)
    loop = asyncio.new_event_loop()

    def repeat(model: Model) -> None:
        for _ in range(calls):
            model.complete(REQUEST)

    async def arepeat(model: Model) -> None:
        for _ in range(calls):
            await model.acomplete(REQUEST)

    cases: dict[str, Callable[[], float]] = {
        "plain_generator_delta_us": lambda: cpu_us(lambda: list(plain(deltas)), deltas),
        "sync_call_us": lambda: cpu_us(lambda: repeat(none), calls),
        "sync_call_six_layers_us": lambda: cpu_us(lambda: repeat(six), calls),
        "async_call_us": lambda: cpu_us(lambda: loop.run_until_complete(arepeat(none)), calls),
        "async_call_six_layers_us": lambda: cpu_us(lambda: loop.run_until_complete(arepeat(six)), calls),
        "sync_delta_us": lambda: cpu_us(lambda: list(none.stream(REQUEST)), deltas),
        "sync_delta_six_layers_us": lambda: cpu_us(lambda: list(six.stream(REQUEST)), deltas),
        "async_delta_us": lambda: cpu_us(lambda: loop.run_until_complete(read(none)), deltas),
        "async_delta_six_layers_us": lambda: cpu_us(lambda: loop.run_until_complete(read(six)), deltas),
    }
    seen: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            seen[name].append(case())
    loop.close()
    return {name: round(statistics.median(values), 3) for name, values in seen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rounds = 5 if options.quick else 15
    result = measure(calls=2000, deltas=20_000, rounds=rounds)
    print(f"Python {platform.python_version()}, {platform.machine()}, medians of {rounds} rounds, CPU time")
    print("| what | µs |\n|---|---|")
    for name, value in result.items():
        print(f"| {name.removesuffix('_us').replace('_', ' ')} | {value:.2f} |")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
