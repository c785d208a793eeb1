"""What the guards find, and what they cost, beside baselines in the same run.

`Injection` with the shipped weights beside a list of regular expressions, on the labelled prompts and on ordinary texts of
LLMOPS_BENCH_DATA (../shared/data by default). The shipped weights were trained on these sources: the rates that tell of
unseen ones stand in docs/model_cards/injection.md. `Secrets` beside its own patterns tried one by one without literals.

    python tests/benchmarks/guards.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from llmops_sdk.guards import Injection
from llmops_sdk.guards.sentences import segments
from llmops_sdk.tracing.secrets import RULES, find_secrets

DATA = Path(os.environ.get("LLMOPS_BENCH_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))

KEYWORDS = re.compile(
    r"(?i)\b(?:ignore|disregard|forget|override|bypass)\b.{0,40}\b(?:instructions?|prompts?|rules|directions|guidelines)\b"
    r"|forget\s+everything|system\s+prompt"
    r"|you\s+are\s+now\b|act\s+as\b|pretend\s+(?:to\s+be|you)|do\s+anything\s+now|jailbreak|developer\s+mode"
    r"|without\s+(?:any\s+)?(?:restrictions|filters)|new\s+instructions"
)
"""What small guard libraries look for."""

OTHERS = ("llm_guard", "rebuff", "guardrails")


def rows(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / path).read_text(encoding="utf-8").split("\n") if line.strip()]


def load(most: int) -> dict[str, tuple[bool, list[str]]]:
    """Whether a source holds attacks, and at most so many of its texts."""
    chance = random.Random(11)

    def some(texts: list[str]) -> list[str]:
        distinct = list(dict.fromkeys(texts))
        return chance.sample(distinct, min(most, len(distinct)))

    found: dict[str, tuple[bool, list[str]]] = {}
    labelled = rows("injection/prompts.jsonl")
    for source in dict.fromkeys(row["source"] for row in labelled):
        mine = [row for row in labelled if row["source"] == source]
        found[source] = (mine[0]["label"] == 1, some([row["text"] for row in mine]))
    contexts = [row["context"] for row in rows("retrieval/xquad_en.jsonl")]
    mails = [row["context"] for row in rows("injection/bipia_train_email.jsonl")]
    for name, documents in (("xquad-contexts", contexts), ("bipia-email", mails)):
        found[name] = (False, some(documents))
        for attack in ("giskard", "bipia-train-text", "bipia-train-code"):
            brief = [text for text in found[attack][1] if len(text) <= 600]
            found[f"{attack} in {name}"] = (True, [planted(d, brief, chance) for d in found[name][1]])
    found["banking77"] = (False, some([row["text"] for row in rows("cache/banking77_train.jsonl")]))
    found["clinc150"] = (False, some([row["text"] for row in rows("cache/clinc150_small_train.jsonl")]))
    asked = [row["user_query"] for row in rows("groundedness/halueval_general_half.jsonl")]
    found["halueval-questions"] = (False, some(asked))
    return found


def planted(document: str, attacks: list[str], chance: random.Random) -> str:
    place = chance.choice(segments(document))
    return f"{document[:place].rstrip()}\n{chance.choice(attacks)} {document[place:]}".strip()


def elapsed_us(work: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median and interquartile range of the time that `work` takes, in microseconds."""
    work()
    seen = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        seen.append((time.perf_counter() - begun) * 1e6)
    low, middle, high = statistics.quantiles(seen, n=4)
    return middle, high - low


def one_by_one(text: str) -> int:
    """The baseline of `find_secrets`: every pattern searched over the whole text."""
    return sum(1 for pattern in PATTERNS for _ in pattern.finditer(text))


PATTERNS = [re.compile(rule.pattern) for rule in RULES]


def rates(most: int) -> dict[str, float]:
    check, result = Injection(), {}
    print("| source | holds attacks | texts | Injection flags | regular expressions flag |\n|---|---|---:|---:|---:|")
    for name, (attacks, texts) in load(most).items():
        ours = statistics.fmean(check.check(text).action == "block" for text in texts)
        theirs = statistics.fmean(KEYWORDS.search(text) is not None for text in texts)
        print(f"| {name} | {'yes' if attacks else 'no'} | {len(texts)} | {ours:.1%} | {theirs:.1%} |")
        key = re.sub(r"\W+", "_", name)
        result[f"injection_{key}"], result[f"keywords_{key}"] = round(ours, 4), round(theirs, 4)
    return result


def costs(rounds: int) -> dict[str, float]:
    prose = "\n".join(row["context"] for row in rows("retrieval/xquad_en.jsonl")[::5])
    check, result = Injection(), {}
    cases: dict[str, tuple[Callable[[str], object], Callable[[str], object]]] = {
        "injection": (check.check, KEYWORDS.search),
        "secrets": (find_secrets, one_by_one),
    }
    print("\n| text | what | median µs | spread (IQR) µs | baseline µs |\n|---|---|---:|---:|---:|")
    for size in (500, 5_000, 1_000_000):
        text = (prose * (size // len(prose) + 1))[:size]
        times = rounds if size < 100_000 else 3
        for name, (ours, baseline) in cases.items():
            middle, spread = elapsed_us(lambda ours=ours, text=text: ours(text), times)  # type: ignore[misc]  # defaults bind the loop's values
            other, _ = elapsed_us(lambda baseline=baseline, text=text: baseline(text), times)  # type: ignore[misc]  # as above
            print(f"| {size} characters | {name} | {middle:.0f} | {spread:.0f} | {other:.0f} |")
            result[f"{name}_{size}_us"], result[f"{name}_baseline_{size}_us"] = round(middle, 1), round(other, 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}, {os.cpu_count()} cores\n")
    for package in OTHERS:
        if importlib.util.find_spec(package) is None:
            print(f"{package}: not installed, not compared")
    print()
    result = rates(most=100 if options.quick else 1000)
    result |= costs(rounds=50 if options.quick else 300)
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
