"""One index, several processes: killed, forked, adding at once, reading while another writes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Literal

import pytest
from toy_embedder import ToyEmbedder

from llmops_sdk import Chunker, Index
from llmops_sdk.retrieval import Added

FORKED = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
SUPPORT = Path(__file__).resolve().parents[1] / "support"
CHUNKS = 12
"""Of each document of `texts`."""


def texts(count: int, writer: str = "w") -> list[tuple[str, str]]:
    """Documents of `CHUNKS` chunks each, with words of their own."""
    return [
        (f"{writer}{number}", "\n\n".join(f"{writer}{number}part{part} word" for part in range(CHUNKS)))
        for number in range(count)
    ]


def opened(path: Path) -> Index:
    return Index(path, embedder=ToyEmbedder(), chunker=Chunker(size=24, overlap=0))


def assert_whole(path: Path) -> int:
    """Every document has all its chunks, and each can be found. Returns how many documents there are."""
    with sqlite3.connect(path / "index.db") as connection:
        query = (
            "SELECT source, count(chunks.id) FROM documents LEFT JOIN chunks ON document = documents.id GROUP BY source"
        )
        counts = dict(connection.execute(query))
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()
    assert set(counts.values()) <= {CHUNKS}
    index = opened(path)
    for source in counts:
        assert index.search(f"{source}part{CHUNKS - 1} word", k=1)[0].source == source
    return len(counts)


ADD_FOR_EVER = """
import itertools, sys
from pathlib import Path
from tests_sharing import opened, texts
index = opened(Path(sys.argv[1]))
for turn in itertools.count():
    index.add(texts(40, f"t{turn}w"))
    print(turn, flush=True)
"""


def test_a_killed_process_leaves_whole_documents(tmp_path: Path) -> None:
    """SIGKILL at three moments of a run that adds: the index opens, holds whole documents, and takes more."""
    path = tmp_path / "i"
    program = ADD_FOR_EVER.replace("tests_sharing", Path(__file__).stem)
    folders = [str(SUPPORT), str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    for pause_s in (0.0, 0.013, 0.031):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(path)], env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            told = process.stdout.readline()
            time.sleep(pause_s)  # wherever it then is: every moment must do
            process.send_signal(signal.SIGKILL)
        assert (told, process.returncode) == ("0\n", -signal.SIGKILL)
        assert assert_whole(path) >= 40
    before = len(opened(path).sources())
    assert opened(path).add(texts(2, "after")) == Added(2, 0, 2 * CHUNKS)
    assert assert_whole(path) == before + 2


def _add(path: Path, writer: str, count: int) -> None:
    index = opened(path)
    for document in texts(count, writer):
        index.add([document])


@FORKED
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_that_add_at_once_lose_nothing(tmp_path: Path, method: Literal["fork", "spawn"]) -> None:
    """Four of them, all starting on a folder that is not there."""
    context: Any = multiprocessing.get_context(method)
    workers = [context.Process(target=_add, args=(tmp_path / "i", f"p{n}w", 8)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert assert_whole(tmp_path / "i") == 4 * 8


def test_searches_go_on_while_another_process_writes(tmp_path: Path) -> None:
    """A writer in the middle of a transaction holds nobody up, and is seen when it has committed, not before."""
    index = opened(tmp_path / "i")
    index.add(texts(3))
    connection = sqlite3.connect(tmp_path / "i" / "index.db", isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM documents")
    connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'generation'")
    assert index.search("w1part0 word", k=1)[0].source == "w1"
    assert opened(tmp_path / "i").search("w1part0 word", k=1)[0].source == "w1"
    connection.execute("COMMIT")
    connection.close()
    assert opened(tmp_path / "i").search("w1part0 word", k=1) == []


@FORKED
def test_what_another_process_adds_is_found_at_once(tmp_path: Path) -> None:
    """An index that has vectors in memory follows the file."""
    index = opened(tmp_path / "i")
    index.add(texts(2))
    assert index.search("x0part3 word", k=1)[0].source != "x0"
    other = multiprocessing.get_context("fork").Process(target=_add, args=(tmp_path / "i", "x", 1))
    other.start()
    other.join()
    assert index.search("x0part3 word", k=1)[0].source == "x0"


def _search_in_child(index: Index, name: str) -> None:
    assert index.search("w1part0 word", k=1)[0].source == "w1"
    index.add(texts(1, name))


@FORKED
def test_a_fork_in_the_middle_of_searches_works_in_parent_and_children(tmp_path: Path) -> None:
    """A child gets no lock, of ours or of SQLite, that a thread of the parent held, and no vectors half made."""
    index = opened(tmp_path / "i")
    index.add(texts(3))
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            index.search("w1part0 word", k=1)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_search_in_child, args=(index, f"child{number}w")) for number in range(8)]
    try:
        for child in children:
            child.start()
        for child in children:
            child.join(60)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert [child.exitcode for child in children] == [0] * 8
    assert index.search("child5w0part1 word", k=1)[0].source == "child5w0"
    assert assert_whole(tmp_path / "i") == 3 + 8
