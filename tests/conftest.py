"""Every test has a home of its own; the network is closed by `llmops_network` in pyproject.toml."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

pytest_plugins = ["pytester"]

# Machines of continuous integration stall: a slow example is no fault.
hypothesis.settings.register_profile("house", deadline=None, print_blob=True)
hypothesis.settings.load_profile("house")


@pytest.fixture(autouse=True)
def own_home(llmops_home: Path) -> Path:
    """An empty home, so that no test sees what another, or the developer, has stored."""
    return llmops_home
