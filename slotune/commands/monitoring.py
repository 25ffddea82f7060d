"""`slotune rules | dashboards`: what Prometheus should alert on and Grafana should show, as files."""

from __future__ import annotations

from pathlib import Path

import typer

from detection.errors import ConfigError

OUT = typer.Option(..., "--out", help="Where to write: a folder that is made, or a file for the rules.")


def register(app: typer.Typer) -> None:
    app.command()(rules)
    app.command()(dashboards)


def rules(
    out: Path = OUT,
    objective: float = typer.Option(0.99, help="Share of time in which P95 has to be under its SLO."),
    open_for: str = typer.Option("30m", help="How long an incident may be open before somebody is called."),
    config: Path | None = typer.Option(None, "--config", help="services.yaml; default: SLOTUNE_CONFIG."),
) -> None:
    """Write Prometheus rules: SLO burn rates, a dead loop, unreadable services, waiting approvals, overdue leases."""
    from slotune.compose import load_settings
    from slotune.monitoring.rules import rules as made

    if not 0 < objective < 1:
        raise ConfigError(f"--objective {objective:g}: write a share of time between 0 and 1, such as 0.99")
    file = out / "slotune.rules.yml" if out.is_dir() or not out.suffix else out
    _write(file, made(load_settings(config), objective=objective, open_for=open_for))


def dashboards(
    out: Path = OUT,
    config: Path | None = typer.Option(None, "--config", help="services.yaml, for signals of your own; default: none."),
) -> None:
    """Write Grafana dashboards (home, model, inference, resources, data) that fit every configured service.

    With --config also the signals that services define, on the page of their class; those of business on one of theirs.
    """
    from detection import own_signals
    from slotune.compose import load_settings
    from slotune.monitoring.dashboards import as_text
    from slotune.monitoring.dashboards import dashboards as made

    services = load_settings(config).service_values() if config is not None else ()
    own = {name: signal for service in services for name, signal in own_signals.table(service).items()}
    for name, body in made(list(own.values())).items():
        _write(out / name, as_text(body))


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error
    typer.echo(f"written: {file}")
