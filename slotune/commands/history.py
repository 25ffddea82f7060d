"""`slotune incidents | show | changes | export`: what slotune did, why, and whether it helped.

Nothing heavy is imported before it is needed: a listing of a million records answers while you look.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from detection.outside_text import printable

if TYPE_CHECKING:
    from tuning.ledger.lines import Line, Reader

LEDGER = typer.Option("", "--ledger", help="The ledger's URL; default: SLOTUNE_LEDGER_URL, else below SLOTUNE_HOME.")
AS_JSON = typer.Option(False, "--json", help="JSON instead of a table.")
DAY_S = 86_400.0
LONGEST = 5_000
"""Characters of one cell: a table is for reading; --json and export have the rest."""


def register(app: typer.Typer) -> None:
    app.command()(incidents)
    app.command()(show)
    app.command()(changes)
    app.command()(export)


def incidents(
    service: str = typer.Option("", "--service", help="Of this service only."),
    days: float = typer.Option(0.0, "--days", help="Of the last so many days only; 0: of all time."),
    limit: int = typer.Option(50, "--limit", min=1, help="At most so many, newest first."),
    as_json: bool = AS_JSON,
    ledger: str = LEDGER,
) -> None:
    """List incidents: what hurt, what was done about it, and whether it helped."""
    from slotune import history

    since_s = time.time() - days * DAY_S if days > 0 else None
    rows = history.incidents(_reader(ledger), service=service or None, since_s=since_s, limit=limit)
    if as_json:
        _print_json(rows)
        return
    names = ("incident", "opened (UTC)", "service", "symptom", "state", "attempts", "what was done", "verdict")
    cells = [
        (
            row["id"],
            utc(row["opened_at_s"]),
            row["service"],
            f"{row['symptom']} ({row['severity']})",
            row["state"],
            row["attempts"],
            row["done"],
            row["verdict"],
        )
        for row in rows
    ]
    _print_table(names, cells, "No incidents.")


def show(
    id: str = typer.Argument(..., help="An incident, a plan or any other record."),
    as_json: bool = AS_JSON,
    ledger: str = LEDGER,
) -> None:
    """Show everything about an incident, a plan or a record, in the order in which it happened."""
    from slotune import history

    lines = history.story(_reader(ledger), id)
    if not lines:
        typer.echo(f"The ledger holds nothing of {clean(id)!r}: slotune incidents lists what there is.", err=True)
        raise typer.Exit(1)
    if as_json:
        _print_json([history.as_json(line) for line in lines])
        return
    cells = [(utc(line.at_s), _step(line), _say(line)) for line in lines]
    _print_table(("when (UTC)", "step", "what"), cells, "")


def changes(
    days: float = typer.Option(30.0, "--days", help="Kept changes of the last so many days; open ones always."),
    as_json: bool = AS_JSON,
    ledger: str = LEDGER,
) -> None:
    """List changes that are in force: open ones, temporary ones, and kept ones with what they cost."""
    from slotune import history

    now_s = time.time()
    rows = history.in_force(_reader(ledger), now_s=now_s, since_s=now_s - days * DAY_S)
    if as_json:
        _print_json(rows)
        return
    cells = [
        (
            row["service"],
            row["change"],
            row["state"],
            utc(row["since_s"]),
            utc(row["expires_at_s"]),
            f"{row['cost_per_hour']:g}" if row["cost_per_hour"] else "",
            f"{row['cost_so_far']:.2f}" if row["cost_per_hour"] else "",
            row["incident_id"],
        )
        for row in rows
    ]
    names = ("service", "change", "state", "since (UTC)", "expires (UTC)", "cost/h", "cost so far", "incident")
    _print_table(names, cells, "No change of slotune's is in force.")


def export(
    to: Path = typer.Option(..., "--to", help="The file to write: .csv or .parquet."),
    days: float = typer.Option(0.0, "--days", help="Of the last so many days only; 0: of all time."),
    ledger: str = LEDGER,
) -> None:
    """Write the ledger's records to a CSV or Parquet file; an existing file is replaced when all is written."""
    from slotune import history

    since_s = time.time() - days * DAY_S if days > 0 else None
    count = history.export(_reader(ledger), to, since_s=since_s)
    typer.echo(f"{count} records written to {to}.")


def _reader(url: str) -> Reader:
    from tuning.ledger.reader import open_reader

    if not url:
        from slotune.places import ledger_url

        url = ledger_url()
    return open_reader(url)


def utc(at_s: object) -> str:
    if not isinstance(at_s, int | float):
        return ""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_s))
    except (OverflowError, ValueError, OSError):
        return str(at_s)


def clean(text: object) -> str:
    """Text from outside, harmless on a terminal: control characters, escape sequences and direction tricks are shown
    as what they are (`\\x1b`)."""
    return printable(text, LONGEST)


def _step(line: Line) -> str:
    return line.kind if line.phase == "result" else f"{line.kind} (intent)"


def _say(line: Line) -> str:
    from slotune import history

    return history.sentence(line.kind, line.phase, line.body)


def _print_json(value: Sequence[Mapping[str, Any]]) -> None:
    typer.echo(json.dumps(list(value), indent=2, allow_nan=False))


def _print_table(names: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    # A pipe has no width: then nothing is cut.
    console = Console(width=None if sys.stdout.isatty() else 240, highlight=False, markup=False, emoji=False)
    if not rows:
        console.print(empty)
        return
    table = Table(box=None, pad_edge=False)
    for index, name in enumerate(names):
        table.add_column(name, overflow="fold", no_wrap=index == 0)
    for row in rows:
        # Text, never markup: what a label or an error body says is shown as it is.
        table.add_row(*(Text(clean(cell)) for cell in row))
    console.print(table)
