"""What imports cost: CPU of fresh processes, against what they stand on in the same run.

python tests/benchmarks/import_cost.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from typing import Any

BARE = "pass"
OTEL = "from opentelemetry.sdk import trace"
BELOW = "import pydantic, httpx; from opentelemetry.sdk import trace"

# (what is imported, the baseline, the limit: milliseconds over it, or times it)
ROWS: tuple[tuple[str, str, str], ...] = (
    (BARE, BARE, ""),
    ("import llmops_sdk", BARE, "+20 ms"),
    (OTEL, BARE, ""),
    ("from llmops_sdk import trace", OTEL, "1.2x"),
    (BELOW, BARE, ""),
    ("from llmops_sdk import prompt, model", BELOW, "1.2x"),
    ("from llmops_sdk import trace, prompt, model, retrieve, guard", BELOW, ""),
    ("import llmops_sdk.pytest_plugin", "import pytest", ""),
    ("import pytest", BARE, ""),
)


def cpu_ms(statement: str) -> float:
    """CPU of a fresh interpreter that runs one statement, user and system, in milliseconds."""
    # Installed packages have their bytecode; ours must be let write its own.
    unwanted = ("COVERAGE", "COV_", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    with subprocess.Popen([sys.executable, "-c", statement], env=environment) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{statement!r} failed")
    return (usage.ru_utime + usage.ru_stime) * 1000


def measure(rounds: int) -> list[dict[str, Any]]:
    """One row a statement; the statements take turns, so that a busy moment hits them alike."""
    statements = [statement for statement, _, _ in ROWS]
    seen: dict[str, list[float]] = {statement: [] for statement in statements}
    for turn in range(rounds + 1):
        for statement in statements:
            cost = cpu_ms(statement)
            if turn:  # the first turn writes bytecode
                seen[statement].append(cost)
    medians = {statement: statistics.median(costs) for statement, costs in seen.items()}
    return [
        {
            "import": statement,
            "cpu_ms": round(medians[statement], 1),
            "spread_ms": round(max(seen[statement]) - min(seen[statement]), 1),
            "baseline": baseline,
            "over_ms": round(medians[statement] - medians[baseline], 1),
            "ratio": round(medians[statement] / medians[baseline], 2),
            "limit": limit,
        }
        for statement, baseline, limit in ROWS
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 15")
    parser.add_argument("--json", action="store_true", help="also print one JSON object, as the last line")
    options = parser.parse_args()
    rounds = 3 if options.quick else 15
    rows = measure(rounds)
    packages = ("opentelemetry-sdk", "pydantic", "httpx")
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}; {versions}; medians of {rounds} rounds\n")
    print("| import | CPU ms | spread | baseline | over it | ratio | limit |\n|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| `{row['import']}` | {row['cpu_ms']} | {row['spread_ms']} | `{row['baseline']}` "
            f"| {row['over_ms']} | {row['ratio']} | {row['limit']} |"
        )
    if options.json:
        told = {f"{row['import']} / {key}": row[key] for row in rows for key in ("cpu_ms", "over_ms", "ratio")}
        print(json.dumps(told))


if __name__ == "__main__":
    main()
