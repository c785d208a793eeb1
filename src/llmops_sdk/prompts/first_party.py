"""Whose code a module is, and what it is called however it was started."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
import sysconfig
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

from llmops_sdk.settings import current_settings

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_OURS = frozenset({"llmops_sdk", "llmops_kernels", "llmops_langchain", "llmops_llamaindex"})


class FirstParty:
    """The code that belongs to the project of one prompt.

    That is every top-level module of its distribution where it is installed, else whatever lies under its project root:
    the nearest ancestor of its file with `pyproject.toml` or `.git`, else the folder that holds its top-level package or
    script. `first_party` in `[tool.llmops]` of that root and in the settings adds modules by name.
    """

    def __init__(self, function: FunctionType) -> None:
        filename = function.__code__.co_filename
        self._owned: dict[str, bool] = {"__main__": True}
        names = set(current_settings().first_party)
        installed = _installed_modules(function.__module__ or "", filename)
        if installed is not None:
            self.root: Path | None = None
            names |= installed
        else:
            self.root = _project_root(filename, function.__module__ or "")
            names |= _declared(self.root)
        self._names = frozenset(names)

    def owns(self, module: str | None, filename: str | None = None) -> bool:
        """Whether the module of that name is the project's own. `filename` serves where the module is not imported."""
        if not module:
            return False
        if module not in self._owned:
            self._owned[module] = self._decide(module, filename)
        return self._owned[module]

    def _decide(self, module: str, filename: str | None) -> bool:
        top = module.partition(".")[0]
        if top in _OURS or top == "builtins":
            return False
        if top in self._names:
            return True
        place = getattr(sys.modules.get(module), "__file__", None) or filename or _place_of(top)
        if self.root is None or place is None or not Path(place).is_absolute():
            return False
        return _is_project_file(place, self.root)


def _place_of(top: str) -> str | None:
    """Where a top-level module lies that may not be imported yet; nothing is imported to find out."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # a module made by hand has no spec
        return None
    if spec is None or spec.has_location:
        return spec.origin if spec is not None else None
    return next(iter(spec.submodule_search_locations or ()), None)


def _is_project_file(filename: str, root: Path) -> bool:
    path = Path(os.path.realpath(filename))
    if not path.is_relative_to(root):
        return False
    inside = path.relative_to(root).parts
    # A virtual environment often lies inside of the project.
    standard = Path(os.path.realpath(sysconfig.get_path("stdlib")))
    return not _INSTALLED.intersection(inside) and not (
        path.is_relative_to(standard) and not root.is_relative_to(standard)
    )


def module_name(module_globals: Mapping[str, Any], filename: str) -> str:
    """The name under which another module would import this one: `__main__` is resolved.

    `python app.py`, `python -m app` and `import app` give "app". A notebook gives its own name where it tells it, else
    "__main__".
    """
    name = str(module_globals.get("__name__", ""))
    if name != "__main__":
        return name
    spec = module_globals.get("__spec__")
    if spec is not None and getattr(spec, "origin", None) == filename:
        return str(spec.name)
    path = Path(filename)
    if path.is_absolute() and path.exists() and not filename.endswith(".ipynb"):
        return ".".join((*_packages(path), path.stem))
    notebook = module_globals.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME", "")
    return Path(str(notebook)).stem or name


def _packages(path: Path) -> list[str]:
    """The packages that hold the file, outermost first."""
    found: list[str] = []
    for folder in path.parents:
        if not (folder / "__init__.py").exists():
            break
        found.insert(0, folder.name)
    return found


def _project_root(filename: str, module: str) -> Path:
    path = Path(os.path.realpath(filename))
    if not Path(filename).is_absolute() or not path.exists() or "ipykernel_" in filename:
        # Notebook cells and interactive input belong to where they are run.
        path = Path(os.path.realpath(Path.cwd())) / "cell"
    for folder in path.parents:
        if (folder / "pyproject.toml").exists() or (folder / ".git").exists():
            return folder
    depth = len(_packages(path)) or (module.count(".") if module != "__main__" else 0)
    return path.parents[min(depth, len(path.parents) - 1)]


def _declared(root: Path) -> frozenset[str]:
    """`first_party` of the root's own pyproject.toml; the working directory may be another project's."""
    try:
        table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        names = table.get("tool", {}).get("llmops", {}).get("first_party", ())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, AttributeError):
        return frozenset()
    return frozenset([names] if isinstance(names, str) else map(str, names))


def _site_folder(filename: str) -> Path | None:
    path = Path(filename)
    return next((folder for folder in path.parents if folder.name in _INSTALLED), None)


def _installed_modules(module: str, filename: str) -> frozenset[str] | None:
    """The top-level modules of the distribution that a file was installed with; None for a file that is not installed."""
    site = _site_folder(filename)
    if site is None:
        return None
    top = Path(filename).relative_to(site).parts[0].removesuffix(".py")
    folder = distribution_of(str(site), top)
    return _top_level(_read(folder / "RECORD")) if folder else frozenset({top, module.partition(".")[0]} - {"__main__"})


def environment(modules: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """(distribution, version) of those top-level modules that are installed packages, sorted."""
    found: set[tuple[str, str]] = set()
    for module in modules:
        place = getattr(sys.modules.get(module), "__file__", None)
        site = _site_folder(place) if place else None
        folder = distribution_of(str(site), module) if site is not None else None
        if folder is not None:
            # The headers alone: importlib.metadata would load a mail parser, for tens of milliseconds.
            headers = dict(re.findall(r"^(Name|Version): *(.+?) *$", _read(folder / "METADATA"), re.MULTILINE))
            name, _, version = folder.stem.partition("-")
            found.add((headers.get("Name", name), headers.get("Version", version)))
    return tuple(sorted(found))


# What is installed does not change under a running process, and reading every RECORD of a large environment takes long.
@functools.lru_cache(maxsize=256)
def distribution_of(site: str, top: str) -> Path | None:
    """The `.dist-info` in the folder `site` of the distribution that holds the top-level module `top`.

    A distribution of the same name is tried first.
    """
    like = _plain(top)
    folders = sorted(Path(site).glob("*.dist-info"), key=lambda f: (_plain(f.name.partition("-")[0]) != like, f.name))
    pattern = re.compile(rf"^{re.escape(top)}(/|\.[^,/]*(py|so|pyd|pth),)", re.MULTILINE)
    return next((folder for folder in folders if pattern.search(_read(folder / "RECORD"))), None)


def _top_level(record: str) -> frozenset[str]:
    """The top-level modules in a RECORD: packages, and modules beside them."""
    found = set()
    for line in record.splitlines():
        first, slash, _ = line.partition("/")
        first = first if slash else line.partition(",")[0].partition(".")[0]
        if first.isidentifier() and first != "__pycache__" and (slash or ".py" in line or ".so" in line):
            found.add(first)
    return frozenset(found)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")
