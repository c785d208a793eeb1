"""Bad files and folders: each is a StoreError that says what to do, none brings the process down."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from toy_embedder import ToyEmbedder

from llmops_sdk import Index
from llmops_sdk.errors import StoreError
from llmops_sdk.retrieval.store import Store

DOCUMENTS = [(f"d{number}", f"word{number} and some more text", {"even": number % 2 == 0}) for number in range(60)]


def opened(path: Path) -> Index:
    return Index(path, embedder=ToyEmbedder())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The folder of an index with documents."""
    index = opened(tmp_path / "i")
    index.add(DOCUMENTS)
    return index.path


USES: dict[str, Callable[[Index], object]] = {
    "search": lambda index: index.search("word1"),
    "add": lambda index: index.add([("new", "text")]),
    "remove": lambda index: index.remove("d1"),
    "len": len,
    "sources": lambda index: index.sources(),
    "filter": lambda index: index.search("word1", where={"even": True}),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_file_that_is_no_database_is_damaged(path: Path, use: Callable[[Index], object]) -> None:
    """The message has the file and the way out, and the file stays as it is."""
    (path / "index.db").write_bytes(b"these are not the bytes of a database" * 100)
    for left in ("index.db-wal", "index.db-shm"):
        (path / left).unlink(missing_ok=True)
    with pytest.raises(StoreError, match=r"index\.db is damaged: file is not a database\. Delete index\.db") as caught:
        use(opened(path))
    assert str(path) in str(caught.value)
    assert (path / "index.db").read_bytes().startswith(b"these are not")


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_another_programs_database_is_left_alone(tmp_path: Path, use: Callable[[Index], object]) -> None:
    """It is no index, and nothing is written into it."""
    with sqlite3.connect(tmp_path / "index.db") as connection:
        connection.execute("CREATE TABLE accounts (name TEXT)")
    connection.close()
    before = (tmp_path / "index.db").read_bytes()
    with pytest.raises(StoreError, match=r"is no index of this version: its format is None.*another path"):
        use(opened(tmp_path))
    assert (tmp_path / "index.db").read_bytes() == before


def test_an_index_of_another_version_says_so(path: Path) -> None:
    """Nothing is guessed about a format that is not known."""
    with sqlite3.connect(path / "index.db") as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE name = 'format'")
    connection.close()
    with pytest.raises(StoreError, match="its format is '99', not '1'"):
        opened(path).search("word1")


def test_an_empty_file_is_an_index_yet_to_be_made(tmp_path: Path) -> None:
    """So a writer that was killed at its first moment leaves it."""
    (tmp_path / "index.db").touch()
    assert opened(tmp_path).search("word1") == []
    opened(tmp_path).add(DOCUMENTS)
    assert len(opened(tmp_path)) == 60


@pytest.mark.parametrize("seed", range(30))
def test_flipped_bytes_are_an_error_or_an_answer(path: Path, seed: int) -> None:
    """Whatever byte is damaged: a search answers or raises StoreError, and a truncated file is damaged."""
    file, dice = path / "index.db", random.Random(seed)
    stored = bytearray(file.read_bytes())
    for _ in range(20):
        stored[dice.randrange(len(stored))] ^= 1 << dice.randrange(8)
    file.write_bytes(stored if seed % 3 else stored[: dice.randrange(100, len(stored))])
    for use in USES.values():
        with contextlib.suppress(StoreError):
            use(opened(path))


def test_a_message_that_is_no_text_is_damage(path: Path) -> None:
    """SQLite quotes what it cannot parse, byte by byte."""
    stored = (path / "index.db").read_bytes()
    assert stored.count(b"CREATE TABLE facts") == 1
    (path / "index.db").write_bytes(stored.replace(b"CREATE TABLE facts", b"CREATE T\xc1BLE facts"))
    with pytest.raises(StoreError, match="is damaged"):
        opened(path).search("word1")


@pytest.mark.parametrize(
    "change", ["documents SET source = 7", "chunks SET start = NULL", "documents SET metadata = '{'"]
)
def test_a_chunk_of_other_types_is_damage(path: Path, change: str) -> None:
    """A hit has the types that it says it has."""
    with sqlite3.connect(path / "index.db") as connection:
        connection.executescript(
            "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = "
            "replace(replace(sql, 'source TEXT', 'source'), 'start INTEGER NOT NULL', 'start');"
        )
    connection.close()
    with sqlite3.connect(path / "index.db") as connection:
        connection.execute(f"UPDATE {change} WHERE id = 2")
    connection.close()
    with pytest.raises(StoreError, match="is damaged"):
        opened(path).search("word1 and some more text", k=60)


def test_a_missing_vector_is_damage(path: Path) -> None:
    """A vector of another size cannot be compared, and is not."""
    with sqlite3.connect(path / "index.db") as connection:
        connection.execute("UPDATE chunks SET vector = x'00000000' WHERE id = 3")
    connection.close()
    with pytest.raises(StoreError, match="vectors are missing or not of 64 numbers"):
        opened(path).search("word1")


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_embedded(tmp_path: Path) -> None:
    """Here a file stands in its way."""
    (tmp_path / "file").touch()
    embedder = ToyEmbedder()
    index = Index(tmp_path / "file" / "i", embedder=embedder)
    with pytest.raises(StoreError, match=r"cannot be made: .*Give the index another path"):
        index.add(["text"])
    assert embedder.embedded == []
    assert index.search("word1") == []


def test_a_folder_in_place_of_the_file_cannot_be_read(tmp_path: Path) -> None:
    """The message names the file."""
    (tmp_path / "index.db").mkdir()
    for use in USES.values():
        with pytest.raises(StoreError, match=r"index\.db cannot be read or written: unable to open"):
            use(opened(tmp_path))


@pytest.fixture
def shipped() -> Iterator[Path]:
    """The folder of an index that is readable by everybody and writable by nobody."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "i"
        opened(path).add(DOCUMENTS)
        assert sorted(file.name for file in path.iterdir()) == ["index.db"]
        Path(folder).chmod(0o755)
        (path / "index.db").chmod(0o444)
        path.chmod(0o555)
        yield path
        path.chmod(0o755)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_an_index_that_was_shipped_read_only_can_be_searched(shipped: Path) -> None:
    """In an image, say. Adding to it is refused with advice. (Root may write anywhere, so it is left for a child.)"""
    reading, writing = os.pipe()
    opened(shipped)  # whatever is imported is imported before rights are given up
    child = os.fork()
    if child == 0:
        told = ""
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            index = opened(shipped)
            told = f"{index.search('word7 and some more text', k=1)[0].source} {len(index)} "
            index.add([("new", "text")])
        except StoreError as error:
            told += str(error)
        except BaseException as error:
            told += repr(error)
        finally:
            os.write(writing, told.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    assert told.startswith("d7 60 ")
    assert "cannot be read or written: attempt to write a readonly database" in told
    assert sorted(file.name for file in shipped.iterdir()) == ["index.db"]


def test_a_locked_index_is_waited_for_and_then_told(path: Path) -> None:
    """Another writer that does not end; meanwhile the index is searched."""
    connection = sqlite3.connect(path / "index.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        with (
            pytest.raises(StoreError, match=r"has been locked by another process for 0\.2 s"),
            Store(path, busy_s=0.2).writing(),
        ):
            raise AssertionError("the lock was not seen")
        assert opened(path).search("word1 and some more text", k=1)[0].source == "d1"
    finally:
        connection.close()


def test_an_index_can_be_moved(path: Path, tmp_path: Path) -> None:
    """It holds no path of its own; characters that mean something in an address do not matter."""
    moved = tmp_path / "ünder #1?mode=ro & 100%"
    shutil.move(path, moved)
    assert opened(moved).search("word7 and some more text", k=1)[0].source == "d7"


def test_using_an_index_loads_no_graph_library(path: Path) -> None:
    """A small index needs numpy and SQLite alone."""
    code = (
        "import sys\nsys.path[:0] = sys.argv[2:]\nfrom llmops_sdk import Index\nfrom toy_embedder import ToyEmbedder\n"
        "assert len(Index(sys.argv[1], embedder=ToyEmbedder()).search('word1', k=3)) == 3\n"
        "assert 'usearch' not in sys.modules and 'rich' not in sys.modules"
    )
    support = str(Path(__file__).resolve().parents[1] / "support")
    ended = subprocess.run(
        [sys.executable, "-c", code, str(path), support], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
