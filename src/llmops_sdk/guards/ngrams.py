"""Hashed character n-grams of the pieces of a text, computed by numpy, with the places that they came from.

Training and checking both read texts through here, so that a model sees the same features in both.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llmops_sdk.guards.sentences import segments

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

ORDERS: Final = (3, 4, 5)
"""Lengths of the n-grams, in characters."""

BITS: Final = 17
"""There are 2**BITS features."""

_BLOCK_SEGMENTS: Final = 256

_PRIME: Final = 0x01000193
_MIX: Final = 0x9E3779B1

_LOOKALIKES: Final = dict(
    zip(
        "авсеԍһіκӏмпорѕтυѵхуᴢαβеεнιкᴍηоρτνχуԁјԛѡɑɡıƚ",
        "abceghiklmnopstuvxyzabeehikmnoptvxydjqwagil",
        strict=True,
    )
)
_LEET: Final = dict(zip("013457@$", "oieastas", strict=True))
_SPACED: Final = re.compile(r"(?<!\S)(?:\w[ .*_-]){4,200}\w(?!\S)")


class Folded(NamedTuple):
    """A text made plain: code points (uint32 [n]), and for each the index in the text that it came from (int64 [n])."""

    codes: NDArray[np.uint32]
    places: NDArray[np.int64]


class Grams(NamedTuple):
    """The distinct n-grams of each of the S segments of a text.

    `features` (int64 [n]) are feature numbers, ordered by segment; those of segment s are `features[begins[s]:begins[s + 1]]`.
    `cuts` (S + 1) are the positions in the text where segments begin and end.
    """

    features: NDArray[np.int64]
    begins: NDArray[np.int64]
    cuts: list[int]


@lru_cache(maxsize=1)
def _tables() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """For ASCII: each character as it is read, whether it is a letter, and what it stands for between letters."""
    import numpy as np

    plain = np.array([ord(_plain(chr(c))[:1] or " ") for c in range(128)], dtype=np.uint32)
    letter = np.array([chr(c).isalpha() for c in range(128)])
    leet = plain.copy()
    for sign, meant in _LEET.items():
        leet[ord(sign)] = ord(meant)
    return plain, letter, leet


@lru_cache(maxsize=8192)
def _plain(char: str) -> str:
    """One character without case, accents, width and look-alikes; "" for what is not seen."""
    if char.isspace() or (char < " ") or char == "\x7f":
        return " "
    if 0xE0020 <= ord(char) <= 0xE007E:  # tags: unseen, yet models read them as ASCII
        return chr(ord(char) - 0xE0000).lower()
    if unicodedata.category(char) in ("Cf", "Mn", "Me", "Cc"):
        return ""
    decomposed = unicodedata.normalize("NFKD", char).casefold()
    kept = "".join(_LOOKALIKES.get(c, c) for c in decomposed if unicodedata.category(c) not in ("Mn", "Cf"))
    return " " if kept.isspace() else kept


def fold(text: str) -> Folded:
    """A text as one reads it: no case, accents, invisible characters, look-alikes, letters set apart or digits for letters."""
    import numpy as np

    table, letter, leet = _tables()
    places = np.arange(len(text), dtype=np.int64)
    if text.isascii():
        codes = table[np.frombuffer(text.encode("ascii"), dtype=np.uint8)]
    else:
        codes, places = _folded_unicode(text)
    if _SPACED.search(text) is not None:
        codes, places = _joined(text, codes, places)
    space = codes == 32
    keep = np.ones(len(codes), dtype=bool)
    keep[1:] = ~(space[1:] & space[:-1])
    if len(codes) > 3:  # a run of one character says no more than three of it
        same = codes[1:] == codes[:-1]
        keep[3:] &= ~(same[2:] & same[1:-1] & same[:-2])
    codes, places = codes[keep], places[keep]
    low = np.minimum(codes, 127)
    is_letter = letter[low] | (codes > 127)
    inside = np.zeros(len(codes), dtype=bool)
    inside[1:-1] = is_letter[2:] & is_letter[:-2]
    return Folded(np.where(inside & (codes < 128), leet[low], codes).astype(np.uint32), places)


def _folded_unicode(text: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Every character replaced by what `_plain` says, which may be none or several."""
    import numpy as np

    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    distinct, which = np.unique(points, return_inverse=True)
    plain = [_plain(chr(c)) for c in distinct.tolist()]
    lengths = np.array([len(p) for p in plain], dtype=np.int64)
    begins = np.concatenate(([0], np.cumsum(lengths)))
    flat = np.frombuffer("".join(plain).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    counts = lengths[which]
    places = np.repeat(np.arange(len(points), dtype=np.int64), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    within = np.arange(len(places), dtype=np.int64) - first
    return flat[np.repeat(begins[which], counts) + within], places


def _joined(text: str, codes: NDArray[Any], places: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Without the signs between letters that are set apart, as in `i g n o r e`."""
    import numpy as np

    between = np.zeros(len(text) + 1, dtype=bool)
    for match in _SPACED.finditer(text):
        between[match.start() + 1 : match.end() : 2] = True
    keep = ~between[places]
    return codes[keep], places[keep]


def grams(text: str, *, orders: tuple[int, ...] = ORDERS, bits: int = BITS) -> Grams:
    """The n-grams of every segment of a text. Linear in its length but for one sort; never raises."""
    import numpy as np

    cuts = segments(text)
    codes, places = fold(text)
    edges = np.searchsorted(places, np.array(cuts[:-1], dtype=np.int64))
    segment = np.zeros(len(codes), dtype=np.int64)
    np.add.at(segment, edges[1:][edges[1:] < len(codes)], 1)
    segment = np.cumsum(segment)
    keys = []
    for n, value in _rolling(codes, orders):
        whole = segment[: len(value)] == segment[n - 1 :]
        keys.append(((segment[: len(value)] << bits) | _feature(value, n, bits))[whole])
    distinct = _distinct(keys, len(cuts) - 1, bits)
    begins = np.searchsorted(distinct, np.arange(len(cuts), dtype=np.int64) << bits)
    return Grams(distinct & ((1 << bits) - 1), begins, cuts)


def _distinct(keys: list[NDArray[np.int64]], count: int, bits: int) -> NDArray[np.int64]:
    """The distinct keys in order, sorted by blocks of segments so that the time stays linear."""
    import numpy as np

    blocks = []
    for first in range(0, max(count, 1), _BLOCK_SEGMENTS):
        low, high = first << bits, (first + _BLOCK_SEGMENTS) << bits
        parts = [k[np.searchsorted(k, low) : np.searchsorted(k, high)] if count > _BLOCK_SEGMENTS else k for k in keys]
        blocks.append(np.unique(np.concatenate(parts)))
    return np.concatenate(blocks)


def _rolling(codes: NDArray[np.uint32], orders: tuple[int, ...]) -> Iterator[tuple[int, NDArray[np.uint32]]]:
    """For each order n, a hash of the n characters from each position on (uint32 [len - n + 1])."""
    import numpy as np

    value = np.zeros(len(codes), dtype=np.uint32)
    for n in range(1, max(orders) + 1):
        size = max(len(codes) - n + 1, 0)
        value = value[:size] * np.uint32(_PRIME) + codes[n - 1 : n - 1 + size]
        if n in orders:
            yield n, value


def _feature(value: NDArray[np.uint32], salt: int, bits: int) -> NDArray[np.int64]:
    """The feature numbers of hashes: multiplied and shifted, so that the upper bits depend on all."""
    import numpy as np

    mixed = (value ^ np.uint32(salt)) * np.uint32(_MIX)
    mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(_MIX)
    return (mixed >> np.uint32(32 - bits)).astype(np.int64)
