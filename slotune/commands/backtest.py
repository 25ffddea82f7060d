"""`slotune backtest`: try the detectors on one's own history before switching anything on."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from detection.errors import ConfigError
from detection.model import Slo, Tier
from detection.settings import BudgetSettings, DetectionSettings

if TYPE_CHECKING:
    import pandas as pd

    from detection.backtest.recorded import Recording
    from detection.backtest.run import Plan

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds(text: str, where: str = "duration") -> float:
    """ "30s", "5m", "1h", "7d" or a plain number of seconds. ConfigError for anything else."""
    unit = _UNITS.get(text[-1:])
    try:
        value = float(text[:-1]) * unit if unit is not None else float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e10:
        raise ConfigError(f"{text!r} is not a duration such as 30s, 5m, 1h or 7d", where=where)
    return value


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("backtest")(backtest)


def backtest(
    out: Annotated[Path, typer.Option("--out", help="Folder for flags.csv, summary.json and plots.")],
    recorded: Annotated[
        Path | None, typer.Option("--recorded", help="CSV of series,timestamp,value, or a folder: one CSV a service.")
    ] = None,
    prometheus: Annotated[str | None, typer.Option("--prometheus", help="Address of a Prometheus server.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="services.yaml (needed with --prometheus).")] = None,
    start: Annotated[str | None, typer.Option("--start", help="Start of the range, ISO 8601.")] = None,
    end: Annotated[str | None, typer.Option("--end", help="End of the range, ISO 8601.")] = None,
    tier: Annotated[str, typer.Option("--tier", help="Which alarms count: warn or act.")] = "act",
    labels: Annotated[Path | None, typer.Option("--labels", help="CSV of series,start,end[,onset].")] = None,
    resolution: Annotated[
        list[str] | None, typer.Option("--resolution", help="e.g. 1m; may be repeated. Default: the data's own.")
    ] = None,
    learn_every: Annotated[str, typer.Option("--learn-every", help="How often baselines are learned.")] = "6h",
    act_per_week: Annotated[float | None, typer.Option(help="Alarm budget of the act tier.")] = None,
    warn_per_week: Annotated[float | None, typer.Option(help="Alarm budget of the warn tier.")] = None,
    slo_p95_ms: Annotated[float | None, typer.Option(help="Judge p95_ms by this objective, too.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do not go on from an interrupted run.")] = False,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw the services with most alarms.")] = True,
) -> None:
    """Replay recorded history through exactly the code that runs live, and count the alarms."""
    from detection.backtest import recorded as recorded_
    from detection.backtest import report
    from detection.backtest.run import Plan

    chosen = _tier(tier)
    if (recorded is None) == (prometheus is None):
        raise ConfigError("give either --recorded PATH or --prometheus ADDRESS")
    marks = report.read_labels(labels) if labels is not None else None
    slo = Slo(p95_ms=slo_p95_ms) if slo_p95_ms is not None else None
    steps: list[float | None] = [seconds(text, "--resolution") for text in resolution or []]
    plan = Plan(_settings(act_per_week, warn_per_week), seconds(learn_every, "--learn-every"), slo)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("cannot be made a folder", where=str(out)) from error
    for step_s in steps or [None]:
        place = out if len(steps) < 2 or step_s is None else out / f"{step_s:g}s"
        place.mkdir(exist_ok=True)
        if recorded is not None:
            recordings = recorded_.load(recorded, step_s)
        else:
            recordings = _from_prometheus(prometheus or "", config, start, end, step_s or 60.0)
        if fresh:
            shutil.rmtree(place / "parts", ignore_errors=True)
        _one_resolution(recordings, plan, chosen, marks, place, plots)


def _tier(text: str) -> Tier:
    if text == "warn":
        return "warn"
    if text == "act":
        return "act"
    raise ConfigError(f"{text!r} is not a tier; known: act, warn", where="--tier")


def _settings(act: float | None, warn: float | None) -> DetectionSettings:
    usual = BudgetSettings()
    act = usual.act_per_week if act is None else act
    warn = max(usual.warn_per_week, act) if warn is None else warn
    try:
        return DetectionSettings(budget=BudgetSettings(act_per_week=act, warn_per_week=warn))
    except ValueError as error:
        raise ConfigError(f"the alarm budget is not usable: {error}") from error


def _from_prometheus(
    url: str, config: Path | None, start: str | None, end: str | None, step_s: float
) -> list[Recording]:
    from detection.backtest.recorded import from_window
    from detection.model import Span
    from detection.pipeline import signals_needed
    from detection.sources.prometheus import PrometheusSource
    from tuning import services_yaml

    if config is None or start is None or end is None:
        raise ConfigError("--prometheus needs --config services.yaml, --start and --end")
    first_s, last_s = _moment(start, "--start"), _moment(end, "--end")
    if first_s >= last_s:
        raise ConfigError("--start must be before --end")
    settings = services_yaml.load(config)
    services = [service.to_service() for service in settings.services]
    source = PrometheusSource(url, rate_window_s=max(settings.prometheus.rate_window_s, step_s), timeout_s=60)
    span = Span(first_s, first_s + step_s * ((last_s - first_s) // step_s), step_s)
    windows = source.read(services, signals_needed(services), span)
    if not windows:
        raise ConfigError("Prometheus has no series of any of these services in this range", where=str(config))
    return [from_window(window) for window in windows.values()]


def _moment(text: str, where: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is not an ISO 8601 time such as 2026-11-01T00:00:00", where=where) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _one_resolution(
    recordings: Sequence[Recording], plan: Plan, tier: Tier, labels: pd.DataFrame | None, out: Path, draw: bool
) -> None:
    from detection.backtest import report
    from detection.backtest.run import replay_all

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("replaying", total=1.0)

        def tell(name: str, done: float, total: float) -> None:
            bar.update(task, description=name[-40:], completed=done, total=total)

        outcomes = replay_all(recordings, plan, out / "parts", tell)
    found = report.summary(outcomes, tier, labels)
    report.write(out, outcomes, tier, found)
    if draw:
        from detection.backtest.plots import draw_worst

        draw_worst(recordings, outcomes, tier, out)
    _print(found, out)


def _print(found: dict[str, Any], out: Path) -> None:
    table = Table(show_header=False, box=None)
    for key, value in found.items():
        if not isinstance(value, dict):
            table.add_row(key.replace("_", " "), _shown(key, value))
    worst = sorted(found["by_service"].items(), key=lambda item: -item[1]["alarms"])[:5]
    most = [f"{n} ({item['alarms']}, {item['flagged_share']:.2%} flagged)" for n, item in worst if item["alarms"]]
    table.add_row("most alarms", ", ".join(most))
    Console().print(table)
    Console().print(f"written to {out}")


def _shown(key: str, value: object) -> str:
    if isinstance(value, float) and key.endswith("share"):
        return f"{value:.2%}"
    return "-" if value is None else str(value)
