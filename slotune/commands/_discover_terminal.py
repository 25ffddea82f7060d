"""`slotune discover` on a terminal: what was found as a table, and the few questions before it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from rich.markup import escape
from rich.prompt import Confirm, Prompt
from rich.table import Table

from detection.errors import ConfigError
from slotune.commands.backtest import seconds
from slotune.discovery import SloProposal
from slotune.discovery_file import NO_SLO_MS, Entry
from tuning.formats import ms

if TYPE_CHECKING:
    from rich.console import Console

_ALL, _EACH, _NONE = "all", "one by one", "none"


def show(entries: Sequence[Entry], console: Console) -> None:
    """One row for each service: what it is, how much of it can be read, and what it would promise."""
    table = Table(title="Services that were found", title_justify="left")
    for column in ("Service", "Serving", "Signals", "P95 now", "Proposed SLO", "What is missing switches off"):
        table.add_column(column, overflow="fold")
    for entry in entries:
        of = len(entry.found) + len(entry.missing)
        now = next((value for signal, value, _ in entry.found if signal == "p95_ms"), "no P95")
        promise = ms(entry.slo.p95_ms) if entry.slo is not None else "too little history"
        without = "; ".join(dict.fromkeys(text for _, text in entry.missing)) or "nothing"
        cells = (entry.name, entry.preset, f"{len(entry.found)} of {of}", now, promise, without)
        table.add_row(*map(escape, cells))
    console.print(table)


def choose(entries: Sequence[Entry], console: Console, answers: TextIO | None = None) -> list[Entry]:
    """Those that a person wants in the file, each with the P95 that it shall promise. answers: where they are read
    from; None: the terminal."""
    which = Prompt.ask(
        "Watch which of them?", choices=[_ALL, _EACH, _NONE], default=_ALL, console=console, stream=answers
    )
    if which == _NONE:
        return []
    taken = []
    for entry in entries:
        if which == _EACH and not Confirm.ask(
            f"Watch [bold]{escape(entry.name)}[/bold]?", default=True, console=console, stream=answers
        ):
            continue
        if which == _EACH or entry.slo is None:
            entry = replace(entry, slo=_promise(entry, console, answers))
        taken.append(entry)
    return taken


def _promise(entry: Entry, console: Console, answers: TextIO | None) -> SloProposal | None:
    """What a person promises; the proposal as it is where they agree, None where they leave a guess a guess."""
    proposed = entry.slo.p95_ms if entry.slo is not None else NO_SLO_MS
    why = escape(entry.slo.reason) if entry.slo is not None else "a guess: there is too little history"
    console.print(f"  {escape(entry.name)}: {ms(proposed)} ({why})")
    while True:
        said = Prompt.ask("  Its P95 in ms", default=f"{proposed:g}", console=console, stream=answers).strip()
        if said in ("", f"{proposed:g}"):
            return entry.slo
        found = _milliseconds(said)
        if found is not None:
            return SloProposal(found, f"Chosen when it was discovered; what was proposed: {ms(proposed)}")
        console.print(f"  {escape(said[:40])} is no time: write milliseconds (250), or 250ms, 1.5s.")


def _milliseconds(said: str) -> float | None:
    """What a person wrote as a time; None where it is none that an SLO can have."""
    plain = said.removesuffix("ms").strip()
    try:
        found = float(plain) if plain.replace(".", "", 1).isdigit() else 1000.0 * seconds(said)
    except ConfigError:
        return None
    return found if 0.0 < found <= 86_400_000.0 else None
