"""`llmops …`: one file a group of commands; what is heavy is imported when a command runs."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from llmops_sdk import __version__
from llmops_sdk.errors import LLMOpsError, UsageError


def main() -> NoReturn:
    """Run the command line. Exit status: 0, 1 for what went wrong, 2 for a wrong command line or setting.

    `LLMOPS_DEBUG=1` shows the traceback of an error.
    """
    try:
        build_app()()
    except LLMOpsError as error:
        if os.environ.get("LLMOPS_DEBUG") == "1":
            raise
        sys.stderr.write(f"llmops: {error}\n")
        sys.exit(2 if isinstance(error, UsageError) else 1)
    sys.exit(0)


def build_app() -> typer.Typer:
    """All the commands."""
    from llmops_sdk.cli import doctor, models, traces

    app = typer.Typer(name="llmops", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(_options)
    app.command("doctor")(doctor.doctor)
    app.add_typer(models.app, name="models")
    app.add_typer(traces.app, name="traces")
    return app


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Traces, models and the state of this installation."""
