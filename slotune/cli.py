"""The command line: `slotune check`, `slotune plan`, `slotune incidents` and the others.

Exit status: 0 fine, 1 the command ran and the answer is no, 2 wrong input or configuration. A person sees a sentence;
SLOTUNE_DEBUG=1 shows where it came from.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from detection.errors import SlotuneError
from slotune import commands


def build_app(arguments: Sequence[str] = ()) -> typer.Typer:
    app = typer.Typer(
        name="slotune",
        help="Keeps AI inference services inside their latency objective.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )

    @app.callback()
    def group(
        version: bool = typer.Option(False, "--version", callback=_say_version, is_eager=True, help="The version."),
    ) -> None:
        """Keeps AI inference services inside their latency objective."""

    commands.register(app, arguments)
    return app


def _say_version(asked: bool) -> None:
    if asked:
        import importlib.metadata

        typer.echo(f"slotune {importlib.metadata.version('slotune')}")
        raise typer.Exit


def main() -> None:
    try:
        build_app(sys.argv[1:])()
    except SlotuneError as error:
        if os.environ.get("SLOTUNE_DEBUG"):
            raise
        print(str(error), file=sys.stderr)  # noqa: T201 - the one place where an error meets a person
        sys.exit(2)
    except BrokenPipeError:
        # The reader went away (`slotune incidents | head`): not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
