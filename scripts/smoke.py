"""What an installed copy must do, with nothing of the repository beside it."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import subprocess
import sys
from pathlib import Path

import llmops_sdk
from llmops_sdk import prompt
from llmops_sdk.testing import ScriptedModel

assert importlib.metadata.version("llmops-sdk") == llmops_sdk.__version__
assert (importlib.resources.files("llmops_sdk") / "py.typed").is_file()
assert not any(name in sys.modules for name in ("torch", "transformers", "pytest"))


@prompt(model=ScriptedModel(["Paris"]))
def capital(country: str) -> str:
    """Answer in one word."""
    return f"What is the capital of {country}?"


assert capital("France") == "Paris"

command = Path(sys.executable).with_name("llmops")
for arguments in (["--version"], ["--help"], ["doctor"]):
    subprocess.run([command, *arguments], check=True)
print("The installed copy works.")
