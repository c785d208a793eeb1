"""Reads GGUF files: every count, length and offset is held against the size of the file before it is used.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Versions 2 and 3, little-endian. Nothing in a file is
executed, and the memory that a head takes is bounded by a small multiple of the file's own size.
"""

from __future__ import annotations

import array
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from llmops_sdk.errors import StoreError, UnsupportedError
from llmops_sdk.local.extras import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
MOST_DIMENSIONS: Final = 4
LARGEST_ALIGNMENT: Final = 1 << 16
LONGEST_NAME: Final = 1 << 16
STRING: Final = 8
ARRAY: Final = 9
COUNT: Final = 10
UINT32: Final = 4

_SCALARS: Final = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_SMALLEST_ENTRY: Final = 8 + 4 + 1
"""Bytes: an empty key, a type, a one-byte value."""
_SMALLEST_TENSOR: Final = 8 + 4 + 8 + 4 + 8
"""Bytes: an empty name, the number of dimensions, one dimension, a type, an offset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """Where a tensor lies. `shape` has the slowest dimension first, as numpy writes it."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GGUF:
    """The head of a GGUF file: what it says of itself, and where its tensors lie."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]

    def load(self, name: str) -> NDArray[np.float32]:
        """A tensor as float32, dequantized. Raises `StoreError` where the file has none of that name."""
        import numpy as np

        quants = require("gguf.quants", "torch")
        constants = require("gguf.constants", "torch")
        tensor = self.tensors.get(name)
        if tensor is None:
            raise StoreError(f"{self.path} has no tensor {name!r}: it is incomplete, or of another architecture.")
        kind = constants.GGMLQuantizationType(tensor.kind)
        rows = np.frombuffer(self._stored(tensor), dtype=np.uint8).reshape(*tensor.shape[:-1], -1)
        try:
            with np.errstate(all="ignore"):  # a damaged scale may be no number; whoever runs the network looks at that
                values: NDArray[np.float32] = quants.dequantize(rows, kind)
        except NotImplementedError:
            raise UnsupportedError(
                f"{self.path}: tensor {name} is stored as {kind.name}, which this engine cannot read."
            ) from None
        return values.reshape(tensor.shape).astype(np.float32, copy=False)

    def _stored(self, tensor: Tensor) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(tensor.start)
                stored = file.read(tensor.size_bytes)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read any more: {error}. Load it again.") from error
        if len(stored) != tensor.size_bytes:
            raise StoreError(f"{self.path} became shorter while it was read. Load it again.")
        return stored


def read_gguf(path: Path) -> GGUF:
    """The head of the file at `path`. Raises `StoreError` for what is not a whole GGUF file."""
    try:
        with path.open("rb") as file:
            return _Reader(path, file).head()
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
        raise StoreError(f"{path} cannot be read as GGUF: {error}. Get the file again.") from error


class _Reader:
    """A position in a file. It is read, not mapped: a mapped file that becomes shorter kills its process."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.file = file
        self.size = os.fstat(file.fileno()).st_size
        self.at = 0

    def head(self) -> GGUF:
        if (begins := self.take(min(4, self.size))) != MAGIC:
            raise self.broken(f"it begins with {begins!r}, not {MAGIC!r}")
        version = self.number(UINT32)
        if version not in VERSIONS:
            raise self.broken(f"its version is {version}; this reads little-endian versions 2 and 3")
        tensors = self.count(_SMALLEST_TENSOR, "tensors")
        entries = self.count(_SMALLEST_ENTRY, "metadata entries")
        metadata: dict[str, Any] = {}
        for _ in range(entries):
            key = self.name()
            if key in metadata:
                raise self.broken(f"the metadata entry {key!r} stands there twice")
            metadata[key] = self.value(self.number(UINT32))
        return GGUF(path=self.path, metadata=metadata, tensors=self.tensors(tensors, metadata))

    def tensors(self, count: int, metadata: dict[str, Any]) -> dict[str, Tensor]:
        told = [(self.name(), self.shape(), self.number(UINT32), self.number(COUNT)) for _ in range(count)]
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 8 <= alignment <= LARGEST_ALIGNMENT or alignment % 8:
            raise self.broken(f"its alignment is {alignment!r}")
        begin = -(-self.at // alignment) * alignment
        left = self.size - begin
        found: dict[str, Tensor] = {}
        for name, shape, kind, offset in told:
            if name in found:
                raise self.broken(f"the tensor {name!r} stands there twice")
            if offset % alignment:
                raise self.broken(f"tensor {name!r} begins at offset {offset}, and the alignment is {alignment}")
            tensor = self.tensor(name, shape, kind, begin + offset)
            left -= tensor.size_bytes
            if left < 0:
                raise self.broken(f"tensor {name!r} overlaps with another: together they are larger than the file")
            found[name] = tensor
        return found

    def tensor(self, name: str, shape: tuple[int, ...], kind: int, start: int) -> Tensor:
        sizes = require("gguf.constants", "torch").GGML_QUANT_SIZES
        if kind not in sizes:
            raise self.broken(f"tensor {name!r} is of the unknown type {kind}")
        block, block_bytes = sizes[kind]
        if shape[-1] % block:
            raise self.broken(f"tensor {name!r} has rows of {shape[-1]}, and its type comes in blocks of {block}")
        size_bytes = math.prod(shape) // block * block_bytes
        if start + size_bytes > self.size:
            raise self.broken(f"tensor {name!r} would end at byte {start + size_bytes} of {self.size}: it is cut short")
        return Tensor(name=name, shape=shape, kind=kind, start=start, size_bytes=size_bytes)

    def shape(self) -> tuple[int, ...]:
        dimensions = self.number(UINT32)
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise self.broken(f"a tensor has {dimensions} dimensions")
        shape = tuple(self.number(COUNT) for _ in range(dimensions))
        if 0 in shape:
            raise self.broken("a tensor has a dimension of 0")
        return shape[::-1]

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.number(kind)
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            raise self.broken(f"a metadata entry is of the unknown type {kind}")
        of = self.number(UINT32)
        if of == STRING:
            return [self.string() for _ in range(self.count(8, "strings"))]
        if of not in _SCALARS:
            raise self.broken(f"a metadata entry is an array of type {of}")
        scalar = _SCALARS[of]
        length = self.count(scalar.size, "array items")
        code = "B" if scalar.format == "<?" else scalar.format[1:]  # arrays know no truth values
        return array.array(code, self.take(length * scalar.size))

    def count(self, smallest: int, what: str) -> int:
        """A number of things that each take at least `smallest` bytes of what is left."""
        count: int = self.number(COUNT)
        if count * smallest > self.size - self.at:
            raise self.broken(f"it promises {count} {what}, and has {self.size - self.at} bytes left")
        return count

    def number(self, kind: int) -> Any:
        scalar = _SCALARS[kind]
        return scalar.unpack(self.take(scalar.size))[0]

    def name(self) -> str:
        name = self.string()
        if len(name) > LONGEST_NAME:
            raise self.broken(f"a name has {len(name)} characters; it begins with {name[:40]!r}")
        return name

    def string(self) -> str:
        raw = self.take(self.number(COUNT))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.broken(f"a string at byte {self.at - len(raw)} is not UTF-8") from None

    def take(self, size: int) -> bytes:
        taken = self.file.read(size) if size <= self.size - self.at else b""
        if len(taken) != size:
            raise self.broken(f"{size} bytes are wanted at byte {self.at}, and it ends at {self.size}: it is cut short")
        self.at += size
        return taken

    def broken(self, why: str) -> StoreError:
        return StoreError(f"{self.path} is not a whole GGUF file: {why}. Get the file again.")
