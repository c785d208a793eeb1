"""Notices that a name or closure variable stands for another object than it did, cheaply enough to ask before every call."""

from __future__ import annotations

from collections.abc import Mapping
from types import CellType

from llmops_sdk.prompts.resolve import EMPTY, Watched, contents


class Watch:
    """What a `Resolver` has seen, for comparison with what is there now; by identity, so no code of the user's runs.

    Args:
        names: what names held, see `Resolver.names`.
        cells: what closure variables held, see `Resolver.cells`.
    """

    __slots__ = ("_absent", "_cells", "_empty", "_names")

    def __init__(self, names: Mapping[int, Watched], cells: Mapping[int, tuple[CellType, object]]) -> None:
        every = [(w.namespace, name, value) for w in names.values() for name, value in w.seen.items()]
        self._names = tuple((space, name, value) for space, name, value in every if value is not EMPTY)
        self._absent = tuple((space, name) for space, name, value in every if value is EMPTY)
        self._cells = tuple((cell, value) for cell, value in cells.values() if value is not EMPTY)
        self._empty = tuple(cell for cell, value in cells.values() if value is EMPTY)

    def holds(self) -> bool:
        """Whether everything stands for what it did."""
        try:
            # A plain loop: with several modules it beats itemgetter and map, which pay for each of them.
            for space, name, value in self._names:
                if space[name] is not value:
                    return False
            for cell, value in self._cells:
                if cell.cell_contents is not value:
                    return False
        except (KeyError, ValueError):  # a name was deleted, a cell emptied
            return False
        for space, name in self._absent:
            if name in space:
                return False
        return not self._empty or all(contents(cell) is EMPTY for cell in self._empty)
