"""`slotune compare A B`: two versions, replicas or times of a service, each signal with interval and verdict."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detection.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detection.model import MetricWindow, Service
    from detection.ports import MetricsSource
    from tuning.settings import Settings
    from tuning.verification.comparison import Comparison

_SAME_STEP = 0.01


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("compare")(compare)


def compare(
    a: Annotated[str, typer.Argument(help="version=6, -2h/-1h, both with a comma, or recording.csv")],
    b: Annotated[str, typer.Argument(help="The other side; what is better or worse is said of this one.")],
    service: Annotated[str | None, typer.Option("--service", help="A service of services.yaml.")] = None,
    last: Annotated[str, typer.Option("--last", help="How far back, where a side names no time.")] = "1h",
    config: Annotated[Path | None, typer.Option("--config", help="services.yaml (default: SLOTUNE_CONFIG).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The table as JSON.")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Writes the table with plots into this file.")] = None,
) -> None:
    """Compare two sides of a service: latency, throughput, errors, answers, GPU, cost of requests and tokens.

    Sides are label matchers (version=6 against version=7, one replica against another), times, or recordings.
    """
    from slotune.commands.backtest import seconds
    from slotune.comparison import sides as named
    from tuning import cost
    from tuning.verification.comparison import compare as compared
    from tuning.verification.settings import VerificationSettings

    now_s, last_s = time.time(), seconds(last, "--last")
    wanted = [named.parse(text, now_s) for text in (a, b)]
    if wanted[0] == wanted[1]:
        raise ConfigError(f"both sides are {a!r}: there is nothing to compare")
    settings, chosen = _service(service, config, recorded=all(side.file for side in wanted))
    step_s = 60.0 if settings is None else max(settings.prometheus.step_s, settings.prometheus.rate_window_s)
    sides: list[MetricWindow] = []
    notes: list[str] = []
    for side in wanted:
        window, said = named.read(
            side, chosen, lambda: _source(settings), now_s=now_s, last_s=last_s, step_s=step_s
        )
        sides.append(window)
        notes += said
    steps = [side.span.step_s for side in sides]
    if abs(steps[0] - steps[1]) > _SAME_STEP * steps[0]:
        raise ConfigError(f"the sides have points every {steps[0]:g} s and every {steps[1]:g} s: give them one step")
    verification = VerificationSettings() if settings is None else settings.verification
    costs = cost.beside(chosen, sides[0], sides[1]) if chosen is not None else ()
    found = compared(sides[0], sides[1], verification, costs=costs)
    found = dataclasses.replace(found, notes=(*found.notes, *dict.fromkeys(notes)))
    if html is not None:
        _write(html, found, (a, b), service or "", sides)
    if as_json:
        typer.echo(json.dumps({"a": a, "b": b, "verdict": found.verdict, **dataclasses.asdict(found)}, indent=2))
    else:
        from slotune.comparison.words import render

        typer.echo(render(found, a, b))


def _service(name: str | None, config: Path | None, *, recorded: bool) -> tuple[Settings | None, Service | None]:
    from slotune import compose

    if name is None and recorded:
        return None, None
    settings = compose.load_settings(config)
    known = {service.name: service for service in settings.service_values()}
    if name is None:
        raise ConfigError(f"say which --service of services.yaml is compared: {', '.join(known)}")
    if name not in known:
        raise ConfigError(f"there is no service {name!r} in services.yaml; it has: {', '.join(known)}")
    return settings, known[name]


def _source(settings: Settings | None) -> MetricsSource:
    from slotune import compose

    return compose.metrics_source(settings or compose.load_settings(), compose.environment_connections())


def _write(file: Path, found: Comparison, names: tuple[str, str], service: str, sides: Sequence[MetricWindow]) -> None:
    from slotune.comparison.page import page

    try:
        file.write_text(page(found, names, service, sides), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror or error}", where=str(file)) from error
    typer.echo(f"Written: {file}", err=True)
