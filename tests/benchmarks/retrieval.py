"""What the index finds and what it costs: MiniLM through `Index`, on public retrieval data.

Measures: MRR on Anthropic's documentation questions; nDCG@10 and MAP on CACM; how fast documents are indexed; how long a
search takes, by comparing all vectors and by graph. Baseline in the same run: plain numpy over the same vectors. Documents
are ranked by their best chunk. Nothing is tuned here: chunker and index are as users get them.

The data are public (Anthropic cookbook, MIT; CACM as Anserini ships it, Apache-2.0), in the folder `LLMOPS_BENCH_DATA`,
by default `../shared/data`; a file that is not there is named and passed over.

    python tests/benchmarks/retrieval.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import html
import json
import math
import os
import platform
import re
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

os.environ.setdefault("LLMOPS_STORE", "0")

import numpy as np

from llmops_sdk import Index, Model, model
from llmops_sdk.types import EmbedRequest, EmbedResponse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llmops_sdk.flow import Flow, Run

DATA = Path(os.environ.get("LLMOPS_BENCH_DATA", "../shared/data")) / "retrieval"
DEPTH = 1000
"""Documents that a ranking holds, as trec_eval's."""
TIMED = 200
"""Searches that are timed."""

Relevant = dict[str, int]


class Task(NamedTuple):
    """Documents as (source, text), and queries with the sources that are relevant to each."""

    name: str
    documents: list[tuple[str, str]]
    queries: list[tuple[str, Relevant]]


class Remembering(Model):
    """Embeds each text once, so that several indexes can be made of one set of vectors."""

    def __init__(self, embedder: Model) -> None:
        self.embedder, self.name = embedder, embedder.name
        self.vectors: dict[str, NDArray[np.float32]] = {}
        self.seconds = 0.0

    def flow(self, request: Any, run: Run) -> Flow[EmbedResponse]:
        if not isinstance(request, EmbedRequest):
            return (yield from self.embedder.flow(request, run))  # type: ignore[no-any-return]  # of whatever kind
        fresh = tuple(text for text in dict.fromkeys(request.texts) if text not in self.vectors)
        if fresh:
            begun = time.perf_counter()
            response = yield from self.embedder.flow(EmbedRequest(texts=fresh), run)
            self.seconds += time.perf_counter() - begun
            self.vectors |= zip(fresh, response.vectors, strict=True)
        return EmbedResponse(vectors=np.stack([self.vectors[text] for text in request.texts]), model=self.name)


# The data ---------------------------------------------------------------------------------------------------------------


def there(*names: str) -> bool:
    """Whether these files are there; the first that is not is told."""
    for name in names:
        if not (DATA / name).is_file():
            print(f"skipped: {DATA / name} is not there")
            return False
    return True


def anthropic_docs(quick: bool) -> Task | None:
    if not there("anthropic_docs_chunks.jsonl", "anthropic_docs_questions.jsonl"):
        return None
    lines = (DATA / "anthropic_docs_chunks.jsonl").read_text(encoding="utf-8").splitlines()
    chunks = [json.loads(line) for line in lines][:: 24 if quick else 1]
    lines = (DATA / "anthropic_docs_questions.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line) for line in lines]
    # several chunks may stand under one link, which is what a question names
    documents = [(f"{chunk['chunk_link']} {at}", chunk["text"]) for at, chunk in enumerate(chunks)]
    links = {chunk["chunk_link"] for chunk in chunks}
    queries = [(q["question"], dict.fromkeys(q["correct_chunks"], 1)) for q in questions]
    return Task("anthropic_docs", documents, [query for query in queries if not quick or links & set(query[1])])


def cacm(quick: bool) -> Task | None:
    if not there("cacm_docs.tar.gz", "cacm_topics.txt", "cacm_qrels.txt"):
        return None
    documents = []
    with tarfile.open(DATA / "cacm_docs.tar.gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                documents.append((Path(member.name).stem, cacm_text(file.read().decode("utf-8", "replace"))))
    documents = sorted(documents)[:: 32 if quick else 1]
    relevant: dict[str, Relevant] = {}
    for line in (DATA / "cacm_qrels.txt").read_text(encoding="utf-8").splitlines():
        topic, _, source, grade = line.split()
        relevant.setdefault(topic, {})[source] = int(grade)
    topics = re.findall(
        r"<DOCNO>\s*(\d+)\s*</DOCNO>(.*?)</DOC>", (DATA / "cacm_topics.txt").read_text(encoding="utf-8"), re.DOTALL
    )
    queries = [(" ".join(text.split()), relevant[topic]) for topic, text in topics if topic in relevant]
    held = {source for source, _ in documents}
    return Task("cacm", documents, [query for query in queries if held & set(query[1])])


def cacm_text(page: str) -> str:
    """Title, abstract, authors and keywords: all but the tables of numbers at the end."""
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    return re.sub(r"(\n\d+\t\d+\t\d+)+\s*$", "", text.rstrip()).strip()


# Measures ---------------------------------------------------------------------------------------------------------------


def ranking(index: Index, query: str) -> list[str]:
    """Sources by their best chunk."""
    hits = index.search(query, k=len(index))
    return list(dict.fromkeys(hit.source.partition(" ")[0] for hit in hits))[:DEPTH]


def reciprocal_rank(ranked: Sequence[str], relevant: Relevant, most: int) -> float:
    return next((1.0 / place for place, source in enumerate(ranked[:most], 1) if relevant.get(source)), 0.0)


def ndcg(ranked: Sequence[str], relevant: Relevant, most: int = 10) -> float:
    """Järvelin and Kekäläinen 2002, with the grade as gain."""

    def dcg(grades: Sequence[int]) -> float:
        return sum(grade / math.log2(place + 1) for place, grade in enumerate(grades[:most], 1))

    best = dcg(sorted(relevant.values(), reverse=True))
    return dcg([relevant.get(source, 0) for source in ranked]) / best if best else 0.0


def average_precision(ranked: Sequence[str], relevant: Relevant) -> float:
    found, total = 0, 0.0
    for place, source in enumerate(ranked, 1):
        if relevant.get(source):
            found += 1
            total += found / place
    return total / max(sum(grade > 0 for grade in relevant.values()), 1)


def quality(task: Task, index: Index) -> dict[str, float]:
    ranked = [(ranking(index, query), relevant) for query, relevant in task.queries]
    measures: dict[str, Callable[[list[str], Relevant], float]] = {
        "mrr_at_3": lambda found, relevant: reciprocal_rank(found, relevant, 3),
        "mrr_at_10": lambda found, relevant: reciprocal_rank(found, relevant, 10),
        "ndcg_at_10": ndcg,
        "map": average_precision,
    }
    return {
        f"{task.name}_{name}": round(statistics.fmean(measure(*one) for one in ranked), 4)
        for name, measure in measures.items()
    }


def median_ms(work: Callable[[str], Any], queries: Sequence[str]) -> float:
    seen = []
    for at in range(TIMED):
        begun = time.perf_counter()
        work(queries[at % len(queries)])
        seen.append(time.perf_counter() - begun)
    return round(statistics.median(seen) * 1e3, 3)


def cost(tasks: Sequence[Task], embedder: Remembering, folder: Path) -> dict[str, float]:
    """All documents in one index, compared one and all, and by graph; against numpy over the same vectors."""
    documents = [(f"{task.name} {source}", text) for task in tasks for source, text in task.documents]
    queries = [query for task in tasks for query, _ in task.queries]
    exact = Index(folder / "exact", embedder=embedder)
    graph = Index(folder / "graph", embedder=embedder, exact_up_to=0)
    seconds = {}
    for name, index in (("exact", exact), ("graph", graph)):
        begun, before = time.perf_counter(), embedder.seconds
        chunks = index.add(documents).chunks
        seconds[name] = time.perf_counter() - begun - (embedder.seconds - before)
    texts = {hit.id: hit.text for hit in exact.search(queries[0], k=chunks)}
    ids = sorted(texts, key=int)
    vectors = np.stack([embedder.vectors[texts[at]] for at in ids])

    def brute(query: str) -> set[str]:
        scores = vectors @ embedder.vectors[query]
        return {ids[at] for at in np.argpartition(-scores, 10)[:10]}

    def found(index: Index, query: str) -> set[str]:
        return {hit.id for hit in index.search(query, k=10)}

    rows = {at: row for row, at in enumerate(ids)}

    def right(index: Index, query: str) -> int:
        """Hits that are as near as numpy's tenth: equal texts are equally near, and either may be given."""
        scores = vectors @ embedder.vectors[query]
        tenth = np.partition(scores, -10)[-10]
        return sum(bool(scores[rows[at]] >= tenth - 1e-6) for at in found(index, query))

    def recall(index: Index) -> float:
        return round(statistics.fmean(right(index, query) / 10 for query in queries), 4)

    return {
        "chunks": chunks,
        "storing_chunks_per_s": round(chunks / seconds["exact"], 1),
        "storing_with_graph_chunks_per_s": round(chunks / seconds["graph"], 1),
        "recall_at_10_exact": recall(exact),
        "recall_at_10_graph": recall(graph),
        "search_numpy_ms": median_ms(brute, queries),
        "search_exact_ms": median_ms(lambda query: exact.search(query, k=10), queries),
        "search_graph_ms": median_ms(lambda query: graph.search(query, k=10), queries),
    }


PUBLISHED = {
    "anthropic_docs_mrr_at_3": "MRR: .737 the cookbook's basic retrieval, .690 BM25",
    "anthropic_docs_mrr_at_10": "MRR: .737 the cookbook's basic retrieval, .690 BM25",
    "cacm_ndcg_at_10": ".465 BM25",
    "cacm_map": ".3123 BM25",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a subset of the documents: figures of another task")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    tasks = [task for task in (anthropic_docs(options.quick), cacm(options.quick)) if task is not None]
    if not tasks:
        raise SystemExit(f"No data: set LLMOPS_BENCH_DATA to the folder that holds {DATA.name}/.")
    embedder = Remembering(model("local:minilm"))
    embedder.embed(["loaded before anything is timed"])
    result: dict[str, Any] = {"subset": options.quick}
    with tempfile.TemporaryDirectory() as folder:
        embedder.seconds, known = 0.0, len(embedder.vectors)
        for task in tasks:
            index = Index(Path(folder) / task.name, embedder=embedder)
            index.add(task.documents, progress=not options.json)
            result |= {f"{task.name}_documents": len(task.documents), f"{task.name}_queries": len(task.queries)}
            result |= {f"{task.name}_chunks": len(index)}
            if "embedded_chunks_per_s" not in result:
                result["embedded_chunks_per_s"] = round((len(embedder.vectors) - known) / embedder.seconds, 1)
            result |= quality(task, index)
        result |= cost(tasks, embedder, Path(folder))
    subset = ", A SUBSET of the documents: not comparable with published figures" if options.quick else ""
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs, {embedder.name}{subset}")
    print("| what | measured | published |\n|---|---|---|")
    for name, value in result.items():
        print(f"| {name.replace('_', ' ')} | {value} | {'' if options.quick else PUBLISHED.get(name, '')} |")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
