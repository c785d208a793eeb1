"""Reading GGUF: what the gguf package writes comes back, and no damage does more than raise."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize, quantize
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_gguf import write_gguf

from llmops_sdk.errors import BadRequestError, StoreError, UnsupportedError
from llmops_sdk.local.chat_engine import ChatEngine
from llmops_sdk.local.gguf import read_gguf

KINDS = gguf.GGMLQuantizationType


@pytest.fixture(scope="module")
def head(weights: Path) -> tuple[bytes, int]:
    """A whole file, and where its tensors begin."""
    first = min(tensor.start for tensor in read_gguf(weights).tensors.values())
    return weights.read_bytes(), first


def test_metadata_of_every_type_comes_back(tmp_path: Path) -> None:
    """The scalars, texts and arrays that the format knows."""
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "x")
    writer.add_uint8("u8", 200)
    writer.add_int8("i8", -2)
    writer.add_uint16("u16", 60_000)
    writer.add_int16("i16", -3)
    writer.add_int32("i32", -4)
    writer.add_float32("f32", 0.5)
    writer.add_bool("yes", True)
    writer.add_uint64("u64", 2**63)
    writer.add_int64("i64", -(2**40))
    writer.add_float64("f64", 0.1)
    writer.add_string("text", "naïve 🎉")
    writer.add_array("texts", ["a", "", "é"])
    writer.add_array("numbers", [1, -2, 3])
    writer.add_array("truths", [True, False])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    told = read_gguf(tmp_path / "m.gguf").metadata
    assert (told["u8"], told["i8"], told["u16"], told["i16"], told["i32"]) == (200, -2, 60_000, -3, -4)
    assert (told["f32"], told["yes"], told["u64"], told["i64"], told["f64"]) == (0.5, True, 2**63, -(2**40), 0.1)
    assert (told["text"], told["texts"]) == ("naïve 🎉", ["a", "", "é"])
    assert (list(told["numbers"]), list(told["truths"])) == ([1, -2, 3], [1, 0])


@pytest.mark.parametrize("kind", [KINDS.F32, KINDS.F16, KINDS.BF16, KINDS.Q8_0, KINDS.Q4_0, KINDS.Q4_1, KINDS.Q5_1])
def test_a_tensor_comes_back_as_its_type_can_hold_it(kind: gguf.GGMLQuantizationType, tmp_path: Path) -> None:
    """The shape has its slowest dimension first, and the values are those that the type keeps."""
    values = np.random.default_rng(3).normal(size=(3, 5, 64)).astype(np.float32)
    stored = quantize(values, kind)
    writer = gguf.GGUFWriter(tmp_path / "t.gguf", "x")
    writer.add_tensor("other", np.zeros(7, dtype=np.float32))
    writer.add_tensor("t", stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_gguf(tmp_path / "t.gguf").load("t")
    assert found.shape == (3, 5, 64)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, dequantize(stored, kind).reshape(values.shape))


def test_a_tensor_that_is_not_there_is_named(weights: Path) -> None:
    with pytest.raises(StoreError, match=r"no tensor 'blk\.9\.attn_q'"):
        read_gguf(weights).load("blk.9.attn_q")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "begins with b''"),
        (b"GG", "begins with b'GG'"),
        (b"PK\x03\x04" + b"\0" * 40, "begins with"),
        (b"GGUF" + struct.pack("<I", 1), "version is 1"),
        (b"GGUF" + struct.pack(">I", 3), "version is 50331648"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "promises 1152921504606846976 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63), "metadata entries"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62) + b"\0" * 9, "cut short"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2) + b"\xff\xfe" + b"\0" * 9, "not UTF-8"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 77) + b"\0" * 9, "unknown type 77"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 8, 2**61), "promises 2305843009213693952 strings"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 1) + b"\0" * 9, "array of type 9"),
    ],
)
def test_a_head_that_cannot_be_is_refused_with_the_reason(content: bytes, why: str, tmp_path: Path) -> None:
    """A count is held against the bytes that are left before anything of that size is made."""
    file = tmp_path / "bad.gguf"
    file.write_bytes(content)
    with pytest.raises(StoreError, match=why) as caught:
        read_gguf(file)
    assert str(file) in caught.value.message
    assert "Get the file again" in caught.value.message


def test_what_is_no_readable_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.gguf", Path("nul\0l")):
        with pytest.raises(StoreError, match="cannot be read as GGUF"):
            read_gguf(path)


def tensor_file(tmp_path: Path, *told: tuple[str, tuple[int, ...], int, int], size_bytes: int = 64) -> Path:
    """A file of tensors of (name, dimensions, type, offset) and `size_bytes` of data."""
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(told), 0)]
    for name, dimensions, kind, offset in told:
        parts += [struct.pack("<Q", len(name)), name.encode(), struct.pack("<I", len(dimensions))]
        parts += [struct.pack(f"<{len(dimensions)}QIQ", *dimensions, kind, offset)]
    head = b"".join(parts)
    path = tmp_path / "tensors.gguf"
    path.write_bytes(head + b"\0" * (-len(head) % 32) + b"\0" * size_bytes)
    return path


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ([("a", (4,), 0, 0), ("a", (4,), 0, 32)], "twice"),
        ([("a", (4,), 0, 0), ("b", (16,), 0, 0)], "overlaps with another"),
        ([("a", (17,), 0, 0)], "cut short"),
        ([("a", (2**40, 2**40, 2**40), 0, 0)], "cut short"),
        ([("a", (4,), 0, 2**63)], "cut short"),
        ([("a", (4,), 0, 4)], "begins at offset 4"),
        ([("a", (4, 0), 0, 0)], "dimension of 0"),
        ([("a", (1, 1, 1, 1, 1), 0, 0)], "5 dimensions"),
        ([("a", (), 0, 0)], "0 dimensions"),
        ([("a", (31,), 8, 0)], "blocks of 32"),
        ([("a", (4,), 999, 0)], "unknown type 999"),
        ([("n" * 70_000, (4,), 0, 0)], "70000 characters"),
    ],
)
def test_tensors_that_cannot_lie_in_the_file_are_refused(told: Any, why: str, tmp_path: Path) -> None:
    """Many names for the same bytes would make a small file fill the memory."""
    with pytest.raises(StoreError, match=why):
        read_gguf(tensor_file(tmp_path, *told))


def test_a_file_that_became_shorter_is_noticed(network: Any, tmp_path: Path) -> None:
    """Between reading the head and reading a tensor somebody else may write."""
    path = write_gguf(tmp_path / "t.gguf", network)
    told = read_gguf(path)
    path.write_bytes(path.read_bytes()[:-64])
    last = max(told.tensors.values(), key=lambda tensor: tensor.start)
    with pytest.raises(StoreError, match="became shorter"):
        told.load(last.name)
    path.unlink()
    with pytest.raises(StoreError, match="cannot be read any more"):
        told.load(last.name)


def lengths(size: int) -> Iterator[int]:
    """Where to cut: everywhere near the begin, then at random."""
    yield from range(64)
    yield from random.Random(5).sample(range(64, size), 150)


def test_a_file_cut_anywhere_is_refused(head: tuple[bytes, int], tmp_path: Path) -> None:
    content, _ = head
    file = tmp_path / "cut.gguf"
    for length in lengths(len(content) - 32):
        file.write_bytes(content[:length])
        with pytest.raises(StoreError):
            read_gguf(file)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_raise_or_do_no_harm(head: tuple[bytes, int], tmp_path: Path, data: st.DataObject) -> None:
    """Whatever bytes of a whole file change, loading and a step end well or with an error of ours."""
    content, begin = head
    file = tmp_path / "damaged.gguf"
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, begin - 1) | st.integers(begin, len(content) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    file.write_bytes(damaged)
    with contextlib.suppress(StoreError, UnsupportedError, BadRequestError):
        engine = ChatEngine.load(file)
        engine.step(engine.tokenizer.chat([{"role": "user", "content": "hello"}]), None)
