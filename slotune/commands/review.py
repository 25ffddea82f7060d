"""`slotune review`: what the loop achieved in a stretch of time, against targets, and who may be trusted with more."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from detection.errors import ConfigError
from slotune.commands.history import AS_JSON, LEDGER

if TYPE_CHECKING:
    from slotune.views.reading import Reading
    from tuning.report.readiness import Readiness
    from tuning.report.review import Review

DAY_S = 86_400.0


def register(app: typer.Typer) -> None:
    app.command()(review)


def review(
    since: str = typer.Option("", "--from", help="Its beginning, UTC: 2026-11-01 or 2026-11-01T06:00."),
    until: str = typer.Option("", "--to", help="Its end, UTC; default: now."),
    html: Path | None = typer.Option(None, "--html", help="Also write it as one HTML file with its pictures."),
    as_json: bool = AS_JSON,
    ledger: str = LEDGER,
    config: Path | None = typer.Option(None, "--config", help="services.yaml; default: SLOTUNE_CONFIG."),
) -> None:
    """Review a week, or any other time, against targets; and which services may be moved from observe to act."""
    from slotune.views.review import ready, reviewed
    from tuning.report.review_mail import as_html, as_text

    now_s = time.time()
    end_s = moment(until, "--to") if until else now_s
    start_s = moment(since, "--from") if since else end_s - 7 * DAY_S
    if start_s >= end_s:
        raise ConfigError("--from has to lie before --to")
    reading = _reading(ledger, config, now_s)
    seen, modes = reviewed(reading, start_s, end_s), ready(reading)
    if html is not None:
        _write(html, as_html(seen))
    if as_json:
        typer.echo(json.dumps(as_values(seen, modes), indent=2, allow_nan=False))
        return
    typer.echo(as_text(seen).rstrip())
    for line in mode_lines(modes):
        typer.echo(line)


def moment(text: str, option: str) -> float:
    """A day or a time of day in UTC, epoch seconds; ConfigError for anything else."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{option} {text!r} is no time: write 2026-11-01 or 2026-11-01T06:00") from error
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def as_values(seen: Review, modes: dict[str, Readiness]) -> dict[str, Any]:
    """For a program: the review's fields, each figure with whether its target is met, and the exit criteria."""
    figures = [asdict(figure) | {"met": figure.met} for figure in seen.figures]
    services = {name: asdict(one) | {"ready": one.ready} for name, one in sorted(modes.items()) if one.next}
    return asdict(seen) | {"figures": figures, "modes": services}


def mode_lines(modes: dict[str, Readiness]) -> list[str]:
    """The exit criteria of every service that does not act yet, as lines."""
    lines = []
    for name, one in sorted(modes.items()):
        if one.next:
            lines.append(f"\n{name}: {one.mode} -> {one.next}: {'ready' if one.ready else 'not yet'}")
            words = {True: "yes", False: "NO", None: "too few"}
            lines += [f"  {words[c.met]:8}{c.name}: {c.now} (wanted: {c.wanted})" for c in one.criteria]
    return lines


def _reading(ledger: str, config: Path | None, now_s: float) -> Reading:
    from slotune.compose import load_settings, open_ledger
    from slotune.places import ledger_url
    from slotune.views.reading import Reading

    opened = open_ledger(ledger or ledger_url())
    return Reading(opened, opened.get_blob, load_settings(config), now_s)


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error
    typer.echo(f"written: {file}", err=True)
