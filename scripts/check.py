"""Every check of the repository, in order, with a table at the end.

    python scripts/check.py                 all of them
    python scripts/check.py lint tests      some of them, by name
    python scripts/check.py --list          their names

A check that fails does not stop the others. The last line counts tests of all Python versions and the other checks;
the exit status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
OTHER_PYTHONS = ("3.12", "3.13", "3.14")

# What needs torch, the weights, or tools that only the main environment has.
NOT_CORE = ("tests/local", "tests/examples", "tests/typing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a check went: counts of tests where it runs tests, else one for itself."""

    name: str
    passed: int
    failed: int
    seconds: float
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A named step; `run` gives (passed, failed, note)."""

    name: str
    run: Callable[[], tuple[int, int, str]]


def call(*command: str | Path, env: dict[str, str] | None = None, cwd: Path = ROOT) -> tuple[int, str]:
    """Run a command, show its output as it comes, and return its exit status and output."""
    words = [str(word) for word in command]
    shown = " ".join(word.replace(str(ROOT) + os.sep, "") for word in words)
    print(f"$ {shown}", flush=True)
    environment = {**os.environ, **(env or {})}
    with subprocess.Popen(
        words,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return process.returncode, "".join(lines)


def tool(*command: str | Path) -> Callable[[], tuple[int, int, str]]:
    """A check that passes when a command run in this environment exits with 0."""

    def run() -> tuple[int, int, str]:
        status, _ = call(PYTHON, *command)
        return (1, 0, "") if status == 0 else (0, 1, f"exit status {status}")

    return run


def counted(status: int, output: str) -> tuple[int, int, str]:
    """What pytest's last line says; a run that broke off counts as a failure."""
    words = dict.fromkeys(("passed", "failed", "error", "errors", "skipped", "deselected"), 0)
    summary = [line for line in output.splitlines() if re.search(r"\d+ (passed|failed|errors?)\b.* in [\d.]+s", line)]
    for number, word in re.findall(r"(\d+) (\w+)", summary[-1] if summary else ""):
        if word in words:
            words[word] = int(number)
    failed = words["failed"] + words["error"] + words["errors"]
    note = ", ".join(f"{words[word]} {word}" for word in ("skipped", "deselected") if words[word])
    return words["passed"], failed or int(status != 0), note


def tests() -> tuple[int, int, str]:
    """The whole suite with branch coverage, subprocesses included."""
    status, output = call(PYTHON, "-m", "coverage", "run", "-m", "pytest", "-q")
    passed, failed, note = counted(status, output)
    call(PYTHON, "-m", "coverage", "combine", "--quiet")
    covered, report = call(PYTHON, "-m", "coverage", "report", "--skip-covered", "--sort=cover")
    total = re.search(r"^TOTAL.*?([\d.]+)%", report, re.MULTILINE)
    note = ", ".join(filter(None, [note, f"coverage {total[1]} %" if total else "no coverage"]))
    return passed, failed + int(covered != 0), note


def docs() -> tuple[int, int, str]:
    """The site builds without a warning, and no page of it fetches anything from another host."""
    status, _ = call(PYTHON, "-m", "mkdocs", "build", "--strict", "--site-dir", "site")
    foreign = sorted(
        {
            f"{page.relative_to(ROOT / 'site')}: {address}"
            for page in (ROOT / "site").rglob("*.html")
            for address in re.findall(
                r'<(?:script|img|link)[^>]+(?:src|href)="(https?://[^"]+)"', page.read_text(encoding="utf-8")
            )
            if 'rel="canonical"' not in address
        }
    )
    print(*foreign, sep="\n")
    return (0, 1, "see above") if status or foreign else (1, 0, "")


def find_python(version: str) -> str | None:
    """A command that starts this version of Python: on PATH, or one that pyenv keeps."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [
        shutil.which(f"python{version}"),
        *map(str, sorted(kept.glob(f"{version}.*/bin/python{version}"), reverse=True)),
    ]
    for command in filter(None, found):
        probe = subprocess.run(
            [command, "-c", "import sys, venv, ensurepip; print(*sys.version_info[:2], sep='.')"],
            capture_output=True,
            text=True,
            check=False,
        )
        if probe.stdout.strip() == version:
            return command
    return None


def core(version: str) -> Callable[[], tuple[int, int, str]]:
    """The tests that need neither torch nor weights, under another Python, if it is here."""

    def run() -> tuple[int, int, str]:
        command = find_python(version)
        if command is None:
            return 0, 0, f"Python {version} is not on this machine: not tested"
        home = ROOT / f".venv-{version}"
        stamp = home / ".made"
        newest = max((ROOT / name).stat().st_mtime for name in ("pyproject.toml", "constraints.txt"))
        if not stamp.exists() or stamp.stat().st_mtime < newest:
            print(f"Making {home.name} …", flush=True)
            pip = (home / "bin/python", "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", "install")
            steps = (
                (command, "-m", "venv", home),
                (*pip, "--upgrade", "pip>=25.1"),
                (*pip, "-c", "constraints.txt", "-e", ".", "--group", "test"),
            )
            for step in steps:
                status, _ = call(*step)
                if status:
                    return 0, 1, "the environment could not be made"
            stamp.touch()
        ignored = [f"--ignore={folder}" for folder in NOT_CORE]
        return counted(*call(home / "bin/python", "-m", "pytest", "-q", "-m", "not weights", *ignored))

    return run


def wheel() -> tuple[int, int, str]:
    """The wheel builds, installs into a new environment without development tools, and works there."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        pip = ("-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet")
        status, _ = call(PYTHON, *pip, "wheel", "--no-deps", "--wheel-dir", here, ROOT)
        built = list(here.glob("*.whl"))
        if status or len(built) != 1:
            return 0, 1, "no wheel"
        inside = here / "venv/bin/python"
        call(PYTHON, "-m", "venv", here / "venv")
        status, _ = call(inside, *pip, "install", "-c", ROOT / "constraints.txt", built[0])
        if status == 0:
            status, _ = call(inside, "-I", ROOT / "scripts/smoke.py", cwd=here, env={"LLMOPS_HOME": str(here / "home")})
        return (1, 0, built[0].name) if status == 0 else (0, 1, "the installed wheel does not work")


CHECKS = (
    Check(name="lint", run=tool("-m", "ruff", "check")),
    Check(name="format", run=tool("-m", "ruff", "format", "--check")),
    Check(name="flows", run=tool("scripts/lint_flows.py", "src", "examples")),
    Check(name="imports", run=tool("-c", "from importlinter.cli import lint_imports_command as run; run()")),
    Check(name="mypy", run=tool("-m", "mypy")),
    Check(name="pyright", run=tool("-m", "pyright", "--pythonpath", PYTHON)),
    Check(name="docs", run=docs),
    Check(name="tests", run=tests),
    *(Check(name=f"core-{version}", run=core(version)) for version in OTHER_PYTHONS),
    Check(name="wheel", run=wheel),
)


def run_checks(checks: Sequence[Check]) -> Iterator[Result]:
    """The results, as they come."""
    for check in checks:
        print(f"\n== {check.name}", flush=True)
        began = time.perf_counter()
        passed, failed, note = check.run()
        yield Result(name=check.name, passed=passed, failed=failed, seconds=time.perf_counter() - began, note=note)


def main() -> int:
    """Run what was asked for; the number that goes to the shell."""
    parser = argparse.ArgumentParser(description="Every check of the repository.")
    parser.add_argument("names", nargs="*", help="checks to run; all by default")
    parser.add_argument("--list", action="store_true", help="print the names of the checks")
    arguments = parser.parse_args()
    known = {check.name: check for check in CHECKS}
    if arguments.list:
        print(*known, sep="\n")
        return 0
    if unknown := [name for name in arguments.names if name not in known]:
        parser.error(f"no check {', '.join(unknown)}; there are {', '.join(known)}")
    results = list(run_checks([known[name] for name in arguments.names or known]))
    print(f"\n{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores\n")
    for result in results:
        verdict = "FAILED" if result.failed else "passed" if result.passed else "absent"
        counts = f"{result.passed} passed, {result.failed} failed"
        print(f"{result.name:<10} {verdict}  {result.seconds:7.1f} s  {counts:<24} {result.note}".rstrip())
    print(f"{'total':<10}         {sum(result.seconds for result in results):7.1f} s\n")
    failed = sum(result.failed for result in results)
    print(f"{sum(result.passed for result in results)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
