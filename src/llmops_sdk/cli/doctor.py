"""`llmops doctor`: what of this installation works, and how to mend the rest."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

import typer

from llmops_sdk import __version__
from llmops_sdk.errors import LLMOpsError
from llmops_sdk.settings import Settings, current_settings, find_home

State: TypeAlias = Literal["ok", "absent", "broken"]

DISTRIBUTION: Final = "llmops-sdk"
TESTED: Final = ((3, 11), (3, 12), (3, 13))
OTHER_HOME: Final = "Upgrade llmops-sdk, or set LLMOPS_HOME to another folder."
MOVE_AWAY: Final = "Move the file away; a new one is made at the next call."
KEYS: Final = ("OPENAI_API_KEY",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at. "absent" is no fault: what is optional is not there. `advice` says how to change it."""

    name: str
    state: State
    detail: str
    advice: str = ""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say what works here: Python, packages, weights, home, store, OpenTelemetry, network, keys. Exit 1 if not all."""
    findings = list(examine())
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _show(findings)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)


def examine() -> Iterator[Finding]:
    """All findings, in the order in which they are shown."""
    yield _python()
    yield _platform()
    yield from _packages()
    yield from _weights()
    try:
        settings = current_settings()
    except LLMOpsError as error:
        yield Finding(name="settings", state="broken", detail=str(error))
        return
    home = find_home(settings)
    yield _home(home, settings)
    if settings.store:
        yield _store(home)
    yield _network(settings)
    yield _opentelemetry(settings)
    yield from _keys()


def _show(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    styles = {"ok": "green", "absent": "dim", "broken": "bold red"}
    table = Table("", "state", Column("what", overflow="fold"), box=None, pad_edge=False)
    for finding in findings:
        # Text, not str: a pair of brackets in a path or command is no markup
        table.add_row(finding.name, Text(finding.state, style=styles[finding.state]), Text(finding.detail))
        if finding.advice:
            table.add_row("", "", Text(finding.advice, style="yellow" if finding.state == "broken" else "dim"))
    Console(highlight=False).print(table)


def _python() -> Finding:
    version = sys.version_info[:2]
    detail = f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}"
    if version < TESTED[0]:
        return Finding(name="python", state="broken", detail=detail, advice="Install Python 3.11 or newer.")
    tested = version in TESTED and platform.python_implementation() == "CPython"
    return Finding(name="python", state="ok", detail=detail + (", tested" if tested else ", meant to work, not tested"))


def _platform() -> Finding:
    levels = {"Linux": "tested", "Darwin": "meant to work, not tested", "Windows": "not tested, and not claimed"}
    level = levels.get(platform.system(), "unknown")
    return Finding(name="platform", state="ok", detail=f"{platform.platform()}: {level}")


def _requirements() -> Iterator[tuple[str, str]]:
    """(package, extra or "") for everything that the installed distribution can ask for."""
    for line in importlib.metadata.requires(DISTRIBUTION) or ():
        package = re.match(r"[\w.-]+", line)
        extra = re.search(r"extra == ['\"]([\w-]+)", line)
        if package and not (extra and extra[1] == "all"):
            yield package[0], extra[1] if extra else ""


def version_of(package: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[Finding]:
    """One finding for what is always needed, one for each extra."""
    if version_of(DISTRIBUTION) is None:
        detail = f"{DISTRIBUTION} {__version__} runs from a folder that pip has not installed"
        yield Finding(name="packages", state="broken", detail=detail, advice=f"pip install {DISTRIBUTION}")
        return
    needed: dict[str, dict[str, str | None]] = {}
    for package, extra in _requirements():
        needed.setdefault(extra, {})[package] = version_of(package)
    for extra, versions in sorted(needed.items()):
        missing = sorted(package for package, version in versions.items() if version is None)
        detail = ", ".join(f"{package} {version}" for package, version in sorted(versions.items()) if version)
        if not extra:
            detail = f"{DISTRIBUTION} {__version__}; {detail}"
        if missing:
            detail = f"missing {', '.join(missing)}" + (f"; here {detail}" if detail else "")
        command = f"pip install '{DISTRIBUTION}[{extra}]'" if extra else f"pip install --force-reinstall {DISTRIBUTION}"
        yield Finding(
            name=f"extra {extra}" if extra else "packages",
            state="ok" if not missing else "absent" if extra else "broken",
            detail=detail,
            advice=command if missing else "",
        )


def _weights() -> Iterator[Finding]:
    from llmops_sdk.local.weights import PACKAGED, find_packaged

    for weights in PACKAGED:
        path = find_packaged(weights)
        yield Finding(
            name=f"weights {weights.name}",
            state="absent" if path is None else "ok",
            detail=weights.what if path is None else f"{weights.what}, {path}",
            advice=f"llmops models get {weights.name}" if path is None else "",
        )


def _home(home: Path, settings: Settings) -> Finding:
    """The home can be written, or could be made."""
    if not settings.store:
        return Finding(name="home", state="ok", detail=f"{home}; the store is turned off (store=False)")
    try:
        place = next(folder for folder in (home, *home.parents) if folder.exists())
        if not place.is_dir():
            raise NotADirectoryError(f"{place} is a file")
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        advice = "Set LLMOPS_HOME to a folder that you can write to; until then nothing is stored."
        return Finding(name="home", state="broken", detail=f"{home}: not writable ({error})", advice=advice)
    return Finding(name="home", state="ok", detail=f"{home}" + ("" if home.exists() else " (made at the first call)"))


def _store(home: Path) -> Finding:
    """The trace store can be read, and every page of it is sound."""
    from llmops_sdk.tracing.store import BUSY_S, FILE, FORMAT

    path = home / FILE
    try:
        if not path.exists():
            return Finding(name="store", state="absent", detail=f"{path} (made at the first call)")
        how = "mode=ro" if os.access(home, os.W_OK) else "mode=ro&immutable=1"  # as in tracing/store.py
        address = f"{path.absolute().as_uri()}?{how}"
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=BUSY_S)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != FORMAT:
                detail = f"{path} is of format {version}; this version writes {FORMAT}"
                return Finding(name="store", state="broken", detail=detail, advice=OTHER_HOME)
            told = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if told != "ok":
                return Finding(name="store", state="broken", detail=f"{path} is damaged: {told}", advice=MOVE_AWAY)
            spans, traces = connection.execute("SELECT count(*), count(DISTINCT trace_id) FROM spans").fetchone()
    except PermissionError as error:
        return Finding(name="store", state="broken", detail=f"{path} cannot be read: {error}", advice=OTHER_HOME)
    except sqlite3.Error as error:
        return Finding(name="store", state="broken", detail=f"{path} cannot be read: {error}", advice=MOVE_AWAY)
    size = sum(file.stat().st_size for file in (path, path.with_name(f"{FILE}-wal")) if file.exists())
    return Finding(name="store", state="ok", detail=f"{path}: {spans} spans of {traces} traces, {size_text(size)}")


def size_text(size_bytes: int) -> str:
    """A size as people read it."""
    return f"{size_bytes / 1e6:.0f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB"


def _network(settings: Settings) -> Finding:
    told = {"allow": "open", "loopback": "closed: only this machine is reached (network = loopback)"}
    return Finding(name="network", state="ok", detail=told[settings.network])


def _opentelemetry(settings: Settings) -> Finding:
    """Where spans go besides the store; what may hold a key is named without its value."""
    variables = {name: value for name, value in sorted(os.environ.items()) if name.startswith("OTEL_")}
    told = [f"message content: {settings.capture}"]
    if settings.otlp:
        told.append(f"otlp={_without_user(settings.otlp)}")
    for name, value in variables.items():
        secret = "HEADERS" in name or "KEY" in name
        told.append(f"{name}={'(set)' if secret else _without_user(value)}")
    return Finding(name="opentelemetry", state="ok", detail="; ".join(told))


def _without_user(value: str) -> str:
    """The value without the user, password and query of an address: keys are passed in each of them."""
    return re.sub(r"(://[^?\s]*\?)\S+", r"\1…", re.sub(r"//[^/@\s]+@", "//…@", value))


def _keys() -> Iterator[Finding]:
    for name in KEYS:
        there = bool(os.environ.get(name))
        yield Finding(name=name, state="ok" if there else "absent", detail="set" if there else "not set")
