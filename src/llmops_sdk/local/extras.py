"""Packages that only an optional extra brings."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from llmops_sdk.errors import MissingExtraError


def require(module: str, extra: str) -> Any:
    """The module of that name. Raises `MissingExtraError` with the install command where its package is missing."""
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingExtraError(extra, package) from None


@contextlib.contextmanager
def without_progress_bars() -> Iterator[None]:
    """Inside, transformers draws no bars into the user's terminal: a load here takes a second or two."""
    told = require("transformers.utils.logging", "torch")
    drawn = told.is_progress_bar_enabled()
    told.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            told.enable_progress_bar()
