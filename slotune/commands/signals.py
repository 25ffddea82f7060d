"""`slotune signals`: what one service's signals are asked with, what they show now, and what rests on each."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detection.errors import ConfigError
from detection.model import Span
from detection.outside_text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slotune.signal_table import SignalRow

POINTS = 20


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("signals")(signals)


def signals(
    service: Annotated[str, typer.Option("--service", help="A service of services.yaml.")],
    config: Annotated[Path | None, typer.Option("--config", help="services.yaml (default: SLOTUNE_CONFIG).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The rows as JSON.")] = False,
) -> None:
    """Each signal of a service: found or missing, its value now, its query and metrics, what depends on it.

    Exit 1 where Prometheus shows nothing of the service, or it cannot be read.
    """
    from slotune import compose
    from slotune.signal_table import rows

    settings = compose.load_settings(config)
    known = {found.name: found for found in settings.service_values()}
    if service not in known:
        has = ", ".join(known)
        raise ConfigError(f"there is no service {printable(service, 80)!r} in services.yaml; it has: {has}")
    source = compose.metrics_source(settings, compose.environment_connections())
    now_s, step_s = time.time(), settings.prometheus.step_s
    chosen = known[service]
    table = rows(chosen, None, settings.prometheus.rate_window_s)
    reading = source.read([chosen], tuple(row.signal for row in table), Span(now_s - POINTS * step_s, now_s, step_s))
    window = reading.get(service)
    table = rows(chosen, window, settings.prometheus.rate_window_s)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(row) for row in table], indent=2))
    else:
        typer.echo(render(service, table))
    if service in reading.unreadable:
        raise ConfigError(f"{service} cannot be read: {reading.unreadable[service]}")
    if not any(row.found for row in table):
        raise typer.Exit(1)


def render(service: str, table: Sequence[SignalRow]) -> str:
    """The rows for people: what is found, then what is missing and what that switches off."""
    found, missing = [row for row in table if row.found], [row for row in table if not row.found]
    lines = [f"{service}: {len(found)} of {len(table)} signals found"]
    for row in found:
        lines += ["", f"found    {row.signal} ({row.title}): {row.value or 'a gap now'}", *_more(row)]
    for row in missing:
        why = f" ({printable(row.reason, 200)})" if row.reason else ""
        lines += ["", f"missing  {row.signal} ({row.title}){why}: {row.without}", *_more(row)]
    return "\n".join(lines)


def _more(row: SignalRow) -> list[str]:
    lines = [f"         from {', '.join(row.metrics)}", f"         {row.query}"]
    if row.causes:
        lines.append(f"         needed to tell: {', '.join(cause.replace('_', ' ') for cause in row.causes)}")
    return lines
