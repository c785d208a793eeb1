"""`Injection`: finds instructions that are aimed at the model: jailbreaks, overrides, and orders planted in documents.

Two logistic models over hashed character n-grams look at every window of a text. The first knows the words of an attack.
The second knows a request to an assistant when it sees one; a request is no harm in a prompt, so this one only counts where
it stands out from the rest of a longer text. Trained and measured by `scripts/train_injection.py`; the rates stand in
docs/model_cards/injection.md.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llmops_sdk.errors import UsageError
from llmops_sdk.types import Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmops_sdk.guards.ngrams import Grams

WINDOWS: Final = (1, 2, 4, 8)
"""Sizes of the windows that are scored, in segments."""

PLANTED_WINDOWS: Final = (1, 2)
PLANTED_SEGMENTS: Final = 4
"""Fewest segments of a text in which a request can stand out."""

_FEWEST_GRAMS: Final = 8
_ENCODED: Final = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{24,}={0,2}")
_MOST_ENCODED: Final = 16


class Weights(NamedTuple):
    """`direct` and `planted`: float32 [2**bits]. Offsets are taken off a score, so that 0 is the threshold.

    The direct model has one for each size of window, since a long window of ordinary text scores higher than a short one.
    """

    direct: NDArray[np.float32]
    planted: NDArray[np.float32]
    direct_offsets: tuple[float, ...]
    planted_offset: float
    bits: int


class Worst(NamedTuple):
    """The worst window of a text: its score (log-odds above the threshold), its place, and which model said so."""

    score: float
    start: int
    end: int
    kind: str


@cache
def load_weights() -> Weights:
    """The committed weights, read once."""
    import numpy as np

    folder = resources.files("llmops_sdk.guards")
    facts = json.loads(folder.joinpath("injection.json").read_text(encoding="utf-8"))
    with resources.as_file(folder.joinpath("injection.npy")) as path:
        stored = np.load(path, allow_pickle=False).astype(np.float32)
    return Weights(stored[0], stored[1], tuple(facts["direct_offsets"]), facts["planted_offset"], facts["bits"])


class Injection:
    """Blocks texts that try to give the model orders. The score is that of the worst window, from 0 to 1.

    `threshold` is 0.5 by default, set at the false-positive rate that the model card states; a higher one blocks less. Texts
    are read without case, accents, invisible characters, look-alike letters and spacing between letters, and Base64 in them
    is read as well. Never raises on a str; linear in its length. Raises `UsageError` for a threshold outside of (0, 1].
    """

    name = "injection"

    def __init__(self, threshold: float | None = None) -> None:
        if threshold is not None and not 0.0 < threshold <= 1.0:
            raise UsageError(f"Injection(threshold=…) lies above 0 and is at most 1; it is {threshold!r}.")
        self.threshold = 0.5 if threshold is None else float(threshold)

    def check(self, text: str) -> Verdict:
        """Score every window; `start` and `end` are the place of the worst one in `text`."""
        worst = _with_encoded(text, load_weights())
        score = 1.0 / (1.0 + math.exp(-min(max(worst.score, -30.0), 30.0)))
        blocked = score >= self.threshold
        return Verdict(
            check=self.name,
            action="block" if blocked else "pass",
            score=round(score, 4),
            threshold=self.threshold,
            reason=_REASONS[worst.kind] if blocked else "",
            start=worst.start,
            end=worst.end,
        )

    def __repr__(self) -> str:
        return f"Injection(threshold={self.threshold})"


_REASONS: Final = {
    "direct": "it reads like an attempt to override the model's instructions",
    "planted": "a request to an assistant stands out from the text around it",
    "encoded": "it holds encoded text that reads like an attempt to override the model's instructions",
}


def _with_encoded(text: str, weights: Weights) -> Worst:
    worst = worst_window(text, weights)
    for match in list(_ENCODED.finditer(text))[:_MOST_ENCODED]:
        inner = _decoded(match[0])
        if inner and (found := worst_window(inner, weights)).score > max(worst.score, 0.0):
            worst = Worst(found.score, match.start(), match.end(), "encoded")
    return worst


def _decoded(token: str) -> str:
    """The text that a Base64 token stands for, or "" where it stands for none."""
    try:
        raw = base64.b64decode(token[: len(token) // 4 * 4])
        inner = raw.decode("ascii")
    except (binascii.Error, ValueError):
        return ""
    return inner if " " in inner and inner.replace("\n", " ").isprintable() else ""


def worst_window(text: str, weights: Weights) -> Worst:
    """The window with the highest score of either model."""
    from llmops_sdk.guards.ngrams import grams

    read = grams(text, bits=weights.bits)
    if len(read.features) == 0:
        return Worst(-30.0, 0, len(text), "direct")
    score, first, size, kind = judge(read, weights)
    start, end = read.cuts[first], read.cuts[first + size]
    piece = text[start:end]
    if piece.strip():
        start, end = end - len(piece.lstrip()), start + len(piece.rstrip())
    return Worst(score, start, end, kind)


def judge(read: Grams, weights: Weights) -> tuple[float, int, int, str]:
    """Score, first segment, size and model of the worst window of a text that has n-grams."""
    score, first, size = best_window(segment_sums(read, weights.direct), WINDOWS, weights.direct_offsets)
    direct = (score, first, size, "direct")
    if len(read.cuts) <= PLANTED_SEGMENTS:
        return direct
    sums = segment_sums(read, weights.planted)
    at = usual(sums) + weights.planted_offset
    return max(direct, (*best_window(sums, PLANTED_WINDOWS, (at,) * len(PLANTED_WINDOWS)), "planted"))


class Sums(NamedTuple):
    """Running totals over the segments of a text (float64 [S + 1]): of weights, and of n-grams."""

    weights: NDArray[Any]
    grams: NDArray[Any]

    def windows(self, size: int) -> NDArray[Any]:
        """The score of every window of `size` segments: its weights over the root of its n-grams (float64 [S - size + 1])."""
        import numpy as np

        count = self.grams[size:] - self.grams[:-size]
        scores: NDArray[Any] = (self.weights[size:] - self.weights[:-size]) / np.sqrt(np.maximum(count, _FEWEST_GRAMS))
        return scores


def segment_sums(read: Grams, weights: NDArray[np.float32]) -> Sums:
    """Totals of the weights of a text's n-grams. A window is then two look-ups, whatever its size."""
    import numpy as np

    running = np.concatenate(([0.0], np.cumsum(weights[read.features], dtype=np.float64)))
    return Sums(running[read.begins], read.begins.astype(np.float64))


def best_window(sums: Sums, sizes: tuple[int, ...], offsets: tuple[float, ...]) -> tuple[float, int, int]:
    """Score above its offset, first segment and size of the best window; one that is longer than the text is all of it."""
    total = len(sums.grams) - 1
    best = (-math.inf, 0, total)
    for size, offset in zip(sizes, offsets, strict=True):
        scores = sums.windows(min(size, total))
        first = int(scores.argmax())
        if scores[first] - offset > best[0]:
            best = (float(scores[first] - offset), first, min(size, total))
        if size >= total:
            break
    return best


def usual(sums: Sums) -> float:
    """What the segments of this text score as a rule: the median, against which a window stands out or does not."""
    import numpy as np

    return float(np.median(sums.windows(1)))
