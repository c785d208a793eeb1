"""Imports of packages that only an optional extra brings."""

from __future__ import annotations

import importlib
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
