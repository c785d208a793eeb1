"""What a prompt's version costs: the first computation, one after a rebound name, and the check before every other call.

    python tests/benchmarks/prompt_version.py [--quick] [--json]

With `--json` the last line is one flat object.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from llmops_sdk.prompts.version import VersionTracker

HELPERS_A_FILE = 10


def project(folder: Path, *, helpers: int, constants: int) -> ModuleType:
    """A project of files in which a prompt reaches `helpers` functions, a class a file, and `constants` values."""
    (folder / "pyproject.toml").write_text('[project]\nname = "bench"\nversion = "1"\n')
    name = f"bench_{helpers}_{constants}"
    files = [f"{name}_{number}" for number in range(-(-helpers // HELPERS_A_FILE))]
    for number, file in enumerate(files):
        mine = range(number * HELPERS_A_FILE, min(helpers, (number + 1) * HELPERS_A_FILE))
        (folder / f"{file}.py").write_text("\n\n".join([CLASS.format(number=number), *map(helper, mine)]))
    imports = "".join(
        f"from {file} import {', '.join(f'helper_{n}' for n in range(i * 10, min(helpers, i * 10 + 10)))}\n"
        for i, file in enumerate(files)
    )
    values = "".join(f"CONSTANT_{n} = {{'text': 'constant {n}', 'limits': [1, 2.5, {n}]}}\n" for n in range(constants))
    used = " + ".join(
        [f"helper_{n}(question)" for n in range(helpers)] + [f"str(CONSTANT_{n})" for n in range(constants)]
    )
    (folder / f"{name}.py").write_text(
        f"{imports}{values}\n\ndef ask(question: str) -> str:\n    return {used or '0'}\n"
    )
    return importlib.import_module(name)


CLASS = '''
class Style{number}:
    """How to say it."""

    tone = "kind"

    def say(self, text):
        """In one sentence."""
        return f"{{self.tone}}: {{text}}"
'''


def helper(number: int) -> str:
    """A helper of a common size: a docstring, a loop, a few branches, an f-string, the class of its file."""
    return f'''
def helper_{number}(text, limit={number}):
    """Shorten and mark the text number {number}."""
    # A comment that counts for nothing.
    words = []
    for position, word in enumerate(text.split()):
        if position > limit:
            break
        elif word.isupper():
            words.append(word.title())
        else:
            words.append(f"{{position:>3}} {{word!r}}")
    if not words:
        return ""
    return Style{number // HELPERS_A_FILE}().say(" ".join(words)) + "."
'''


def cpu_ms(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return (time.process_time() - begun) * 1000


COLD = """
import sys, time
from llmops_sdk import model, prompt
module = __import__(sys.argv[1])
ask = prompt(model=model("openai:gpt-5-mini"))(module.ask)
begun = time.process_time()
assert not ask.version.opaque
print((time.process_time() - begun) * 1000)
"""


def cold_ms(folder: Path, module: ModuleType) -> float:
    """The first computation of a process, with the modules that it loads. The model is open: a call needs it anyway."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    told = subprocess.run(
        [sys.executable, "-c", COLD, module.__name__],
        cwd=folder,
        env=environment | {"PYTHONPYCACHEPREFIX": str(folder / "bytecode")},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(told.stdout)


def check_us(tracker: VersionTracker, calls: int) -> float:
    """Microseconds of CPU for one `current()` that finds nothing changed, less the loop around it."""
    tracker.current()
    turns = range(calls)

    def empty() -> None:
        for _ in turns:
            pass

    def full() -> None:
        for _ in turns:
            tracker.current()

    return (cpu_ms(full) - cpu_ms(empty)) / calls * 1000


def rows(folder: Path, rounds: int) -> Iterator[tuple[str, list[float]]]:
    large = project(folder, helpers=50, constants=10)

    def fresh() -> VersionTracker:
        return VersionTracker(large.ask, name=None, declared={})

    yield "first_50_helpers_fresh_process_ms", [cold_ms(folder, large) for _ in range(4)][1:]  # the first compiles
    fresh().current()  # loads the modules of the SDK and reads the lists of installed packages
    yield "first_50_helpers_ms", [cpu_ms(fresh().current) for _ in range(rounds)]
    tracker = fresh()
    tracker.current()
    again = []
    for number in range(rounds):
        large.CONSTANT_0 = {"text": str(number)}  # type: ignore[attr-defined]  # a module made above
        again.append(cpu_ms(tracker.current))
    yield "again_50_helpers_ms", again
    for constants in (0, 10, 100):
        small = project(folder, helpers=0, constants=constants)
        tracker = VersionTracker(small.ask, name=None, declared={})
        yield f"check_{constants}_names_us", [check_us(tracker, 20_000) for _ in range(rounds)]
    tracker = fresh()
    yield "check_50_helpers_us", [check_us(tracker, 20_000) for _ in range(rounds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 rounds instead of 15")
    parser.add_argument("--json", action="store_true", help="one flat JSON object as the last line")
    options = parser.parse_args()
    rounds = 5 if options.quick else 15
    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, folder)
        result = {}
        print(f"Python {platform.python_version()}, {platform.machine()}, medians of {rounds} rounds, CPU time\n")
        print("| what | median | least | most |\n|---|---|---|---|")
        for name, seen in rows(Path(folder), rounds):
            result[name] = round(statistics.median(seen), 3)
            told, unit = name.rpartition("_")[0].replace("_", " "), name.rpartition("_")[2].replace("us", "µs")
            print(f"| {told} | {result[name]} {unit} | {min(seen):.3f} | {max(seen):.3f} |")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
