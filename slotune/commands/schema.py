"""`slotune schema`: the JSON schema of services.yaml, for editors and for checks outside of slotune."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from detection.errors import ConfigError


def register(app: typer.Typer) -> None:
    @app.command()
    def schema(to: Path | None = typer.Option(None, "--to", help="A file to write; default: print it.")) -> None:
        """Print the JSON schema of services.yaml: editors complete and check it while you write."""
        from slotune.schema import services_schema

        text = json.dumps(services_schema(), indent=2, sort_keys=False) + "\n"
        if to is None:
            typer.echo(text, nl=False)
            return
        try:
            to.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", where=str(to)) from error

