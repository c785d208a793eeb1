"""Tiny weights, for what any weights show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tiny_gguf import tiny_network, write_gguf

from llmops_sdk.local import open_model

if TYPE_CHECKING:
    from llmops_sdk.flow import Model


@pytest.fixture(scope="session")
def network() -> Any:
    return tiny_network()


@pytest.fixture(scope="session")
def weights(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole GGUF file of 200 kB."""
    return write_gguf(tmp_path_factory.mktemp("weights") / "tiny.gguf", network)


@pytest.fixture
def tiny(weights: Path) -> Model:
    """Answers nonsense, at once."""
    return open_model(str(weights), {}, {})
