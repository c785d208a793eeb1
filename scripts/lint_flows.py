"""Our own lint of flows: a `yield` in `finally`, or where GeneratorExit is caught, is an error.

When a generator is collected or closed, Python raises GeneratorExit in it and runs its `finally` blocks; a flow that
yields an effect there, or in a handler that catches GeneratorExit (`except GeneratorExit`, `except BaseException`, a bare
`except`), raises `RuntimeError: generator ignored GeneratorExit` and its clean-up is lost. Clean-up that needs effects
stands in `except FlowCancelled` and `except Exception`.

    python scripts/lint_flows.py FILE_OR_FOLDER…
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def yields(node: ast.AST) -> Iterator[ast.Yield | ast.YieldFrom]:
    """The yields of a piece of code, not those of functions defined in it."""
    if isinstance(node, FUNCTIONS):
        return
    if isinstance(node, ast.Yield | ast.YieldFrom):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from yields(child)


def catches_close(handler: ast.ExceptHandler) -> bool:
    """Whether a handler catches the GeneratorExit that `close()` raises."""
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {getattr(kind, "id", getattr(kind, "attr", None)) for kind in caught}
    return handler.type is None or bool(names & {"GeneratorExit", "BaseException"})


def reached_by_close(block: ast.Try | ast.TryStar) -> Iterator[tuple[str, ast.stmt]]:
    """The statements of a `try` that Python runs when the generator is closed inside of it, and where they stand."""
    handler = next(filter(catches_close, block.handlers), None)  # the first that catches it has it
    if handler is not None:
        yield from (("where GeneratorExit is caught", statement) for statement in handler.body)
    yield from (("in `finally`", statement) for statement in block.finalbody)


def wrong_yields(tree: ast.AST) -> Iterator[tuple[str, ast.Yield | ast.YieldFrom]]:
    """Every yield that breaks `close()`, each once, and where it stands."""
    seen = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Try | ast.TryStar):
            for where, statement in reached_by_close(node):
                for found in yields(statement):
                    if found not in seen:
                        seen.add(found)
                        yield where, found


def complaints(path: Path) -> Iterator[str]:
    """One line for each fault of a file."""
    for where, found in wrong_yields(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        yield (
            f"{path}:{found.lineno}:{found.col_offset + 1}: a flow yields {where}, which breaks close(); "
            f"put it under `except FlowCancelled` or `except Exception`"
        )


def main(arguments: list[str]) -> int:
    """Check the files and folders named."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    files = [
        file
        for name in arguments
        for file in (sorted(Path(name).rglob("*.py")) if Path(name).is_dir() else [Path(name)])
    ]
    told = [complaint for file in files for complaint in complaints(file)]
    print(*told, *([] if told else [f"{len(files)} files, no yield that breaks close()"]), sep="\n")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
