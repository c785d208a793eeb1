"""Copies of the project `desk`, edited, loaded and versioned."""

from __future__ import annotations

import contextlib
import importlib
import linecache
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DESK = Path(__file__).parent / "desk"


def copied(folder: Path, name: str = "desk") -> Path:
    """A copy of the project in `folder`; the package may get another name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text('[project]\nname = "desk-app"\nversion = "1"\n', encoding="utf-8")
    shutil.copytree(DESK, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@contextlib.contextmanager
def imported(folder: Path, module: str) -> Iterator[ModuleType]:
    """A module of `folder`, imported with what it imports, and forgotten afterwards."""
    sys.path.insert(0, str(folder))
    before = set(sys.modules)
    importlib.invalidate_caches()
    try:
        yield importlib.import_module(module)
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if file.startswith(str(folder)):
                del sys.modules[name]
        linecache.clearcache()


def versions(folder: Path, module: str = "desk.app") -> dict[str, Any]:
    """The versions of the project's prompts, by qualified name."""
    with imported(folder, module) as app:
        return {"answer": app.answer.version, "Desk.ask": app.Desk.ask.version}


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """The versions of the project as it is."""
    return versions(copied(tmp_path_factory.mktemp("base")))


@pytest.fixture
def module_of(tmp_path: Path) -> Iterator[Callable[..., ModuleType]]:
    """Writes files into a project of their own and imports the first."""
    with contextlib.ExitStack() as stack:

        def make(**texts: str) -> ModuleType:
            for name, text in texts.items():
                (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
            return stack.enter_context(imported(tmp_path, next(iter(texts))))

        (tmp_path / "pyproject.toml").write_text('[project]\nname = "an-app"\nversion = "1"\n', encoding="utf-8")
        yield make
