"""Reads GGUF files: every count, length and offset is held against the size of the file before it is used.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Versions 2 and 3, little-endian. Nothing in a file is
executed, and the memory that a head takes is bounded by a small multiple of the file's own size.
"""

from __future__ import annotations

import array
import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmops_sdk.errors import StoreError, UnsupportedError
from llmops_sdk.local.extras import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
MOST_DIMENSIONS: Final = 4
LARGEST_ALIGNMENT: Final = 1 << 16
STRING: Final = 8
ARRAY: Final = 9

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
        with self.path.open("rb") as file:
            file.seek(tensor.start)
            stored = file.read(tensor.size_bytes)
        if len(stored) != tensor.size_bytes:
            raise StoreError(f"{self.path} became shorter while it was read. Load it again.")
        kind = constants.GGMLQuantizationType(tensor.kind)
        if kind is constants.GGMLQuantizationType.F32:
            return np.frombuffer(stored, dtype="<f4").reshape(tensor.shape)
        if kind is constants.GGMLQuantizationType.F16:
            return np.frombuffer(stored, dtype="<f2").astype(np.float32).reshape(tensor.shape)
        rows = np.frombuffer(stored, dtype=np.uint8).reshape(*tensor.shape[:-1], -1)
        try:
            values: NDArray[np.float32] = quants.dequantize(rows, kind)
        except NotImplementedError:
            raise UnsupportedError(
                f"{self.path}: tensor {name} is stored as {kind.name}, which this engine cannot read."
            ) from None
        return values.reshape(tensor.shape).astype(np.float32, copy=False)


def read_gguf(path: Path) -> GGUF:
    """The head of the file at `path`. Raises `StoreError` for what is not a whole GGUF file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            reader = _Reader(path, view)
            return reader.head()
    except (OSError, ValueError) as error:  # an empty file cannot be mapped: ValueError
        raise StoreError(f"{path} cannot be read as GGUF: {error}. Get the file again.") from error


class _Reader:
    """A position in a mapped file."""

    def __init__(self, path: Path, view: mmap.mmap) -> None:
        self.path = path
        self.view = view
        self.size = len(view)
        self.at = 0

    def head(self) -> GGUF:
        if self.view[:4] != MAGIC:
            raise self.broken(f"it begins with {self.view[:4]!r}, not {MAGIC!r}")
        self.at = 4
        version = self.number(4)
        if version not in VERSIONS:
            raise self.broken(f"its version is {version}; this reads little-endian versions 2 and 3")
        tensors = self.count(10, _SMALLEST_TENSOR, "tensors")
        entries = self.count(10, _SMALLEST_ENTRY, "metadata entries")
        metadata: dict[str, Any] = {}
        for _ in range(entries):
            key = self.string()
            if key in metadata:
                raise self.broken(f"the metadata entry {key!r} stands there twice")
            metadata[key] = self.value(self.number(4))
        return GGUF(path=self.path, metadata=metadata, tensors=self.tensors(tensors, metadata))

    def tensors(self, count: int, metadata: dict[str, Any]) -> dict[str, Tensor]:
        sizes = require("gguf.constants", "torch").GGML_QUANT_SIZES
        told = [(self.string(), self.shape(), self.number(4), self.number(10)) for _ in range(count)]
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 8 <= alignment <= LARGEST_ALIGNMENT or alignment % 8:
            raise self.broken(f"its alignment is {alignment!r}")
        begin = -(-self.at // alignment) * alignment
        found: dict[str, Tensor] = {}
        for name, shape, kind, offset in told:
            if name in found:
                raise self.broken(f"the tensor {name!r} stands there twice")
            if kind not in sizes:
                raise self.broken(f"tensor {name!r} is of the unknown type {kind}")
            block, block_bytes = sizes[kind]
            if shape[-1] % block or offset % alignment:
                raise self.broken(
                    f"tensor {name!r} has the shape {shape} at offset {offset}, which its type cannot have"
                )
            size_bytes = math.prod(shape) // block * block_bytes
            if begin + offset + size_bytes > self.size:
                raise self.broken(
                    f"tensor {name!r} would end at byte {begin + offset + size_bytes} of {self.size}: it is cut short"
                )
            found[name] = Tensor(name=name, shape=shape, kind=kind, start=begin + offset, size_bytes=size_bytes)
        return found

    def shape(self) -> tuple[int, ...]:
        dimensions = self.number(4)
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise self.broken(f"a tensor has {dimensions} dimensions")
        shape = tuple(self.number(10) for _ in range(dimensions))
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
        of = self.number(4)
        if of == STRING:
            return [self.string() for _ in range(self.count(10, 8, "strings"))]
        if of not in _SCALARS:
            raise self.broken(f"a metadata entry is an array of type {of}")
        scalar = _SCALARS[of]
        length = self.count(10, scalar.size, "array items")
        return array.array(scalar.format[1:], self.take(length * scalar.size))

    def count(self, kind: int, smallest: int, what: str) -> int:
        """A number of things that each take at least `smallest` bytes of what is left."""
        count: int = self.number(kind)
        if count * smallest > self.size - self.at:
            raise self.broken(f"it promises {count} {what}, and has {self.size - self.at} bytes left")
        return count

    def number(self, kind: int) -> Any:
        scalar = _SCALARS[kind]
        return scalar.unpack(self.take(scalar.size))[0]

    def string(self) -> str:
        raw = self.take(self.number(10))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.broken(f"a string at byte {self.at - len(raw)} is not UTF-8") from None

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > self.size:
            raise self.broken(f"{size} bytes are wanted at byte {self.at}, and it ends at {self.size}: it is cut short")
        taken = self.view[self.at : end]
        self.at = end
        return taken

    def broken(self, why: str) -> StoreError:
        return StoreError(f"{self.path} is not a whole GGUF file: {why}. Get the file again.")
