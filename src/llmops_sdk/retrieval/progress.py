"""A bar on stderr, or none."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Protocol, Self


class Bar(Protocol):
    """What is told of progress."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    def advance(self, steps: int) -> None:
        """So many more are done."""
        ...


class NoBar:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing was begun."""

    def advance(self, steps: int) -> None:
        """Say nothing."""


class RichBar:
    """A bar with the time that is left. `total` is None where it is not known."""

    def __init__(self, what: str, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
        self._task = self._progress.add_task(what, total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, steps: int) -> None:
        """So many more are done."""
        self._progress.advance(self._task, steps)


def bar_for(wanted: bool | None, what: str, total: int | None) -> Bar:
    """A bar where one is wanted; None wants one where stderr is a terminal."""
    shown = sys.stderr.isatty() if wanted is None else wanted
    return RichBar(what, total) if shown else NoBar()
