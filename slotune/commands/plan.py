"""`slotune plan`: diagnosis, every option, and the choice, for one service. Changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detection.errors import ConfigError
from detection.model import Incident, make_id
from tuning.formats import ms, points, refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tuning.model import Observation, Option, Plan, Record
    from tuning.planning.settings import PlanningSettings


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("plan")(plan)


def plan(
    service: Annotated[str | None, typer.Option("--service", help="A service of services.yaml, as it is now.")] = None,
    observation: Annotated[
        Path | None, typer.Option("--observation", help="An observation as JSON (schema in docs/planning.md).")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="services.yaml (default: SLOTUNE_CONFIG).")] = None,
    planner: Annotated[
        str | None, typer.Option("--planner", help="model, playbook, or a learned one: ppo, evolved.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole plan as JSON on stdout.")] = False,
) -> None:
    """Shows what would be done about one service, and why: diagnosis, options with predictions, choice."""
    from tuning import planning

    if (service is None) == (observation is None):
        raise ConfigError("name one of --service NAME and --observation FILE.json")
    if observation is not None:
        from slotune.observation_file import parse

        incident, seen = parse(_text(observation), str(observation))
        past: Sequence[Record] = ()
        settings = _settings(config) if config is not None else None
    else:
        from slotune import compose

        found, seen, past = compose.observe(config, service or "")
        incident = found if found is not None else _asked(seen)
        settings = _settings(config)
    if settings is None:
        from tuning.planning.settings import PlanningSettings

        settings = PlanningSettings(planner="model")
    made = planning.get(planner or settings.planner)(settings).propose(incident, seen, past)
    made = made.model_copy(update={"dry_run": True})
    typer.echo(json.dumps(made.model_dump(mode="json"), indent=2) if as_json else render(made))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not text in UTF-8", where=str(path)) from error


def _settings(config: Path | None) -> PlanningSettings:
    from slotune import compose

    return compose.load_settings(config).planning


def _asked(observation: Observation) -> Incident:
    """No incident is open: the question alone, over the last ten minutes."""
    onset = max(observation.window.span.start_s, observation.at_s - 600.0)
    return Incident(
        id=make_id(observation.service.name, "asked", observation.at_s),
        service=observation.service.name,
        symptom="latency",
        tier="warn",
        severity="info",
        opened_at_s=onset,
        detected_at_s=observation.at_s,
        signals=(),
        anomalies=(),
        reason="asked by hand, no incident is open",
    )


def render(made: Plan) -> str:
    """The plan as text: diagnosis, a table of the options, the choice."""
    diagnosis = made.diagnosis
    lines = [f"{made.service}: {diagnosis.cause.replace('_', ' ')}"]
    lines += [f"  - {text}" for text in diagnosis.evidence]
    split = [
        f"{name} {ms(value)}"
        for name, value in (
            ("queue", diagnosis.queue_ms),
            ("batch wait", diagnosis.batch_wait_ms),
            ("service", diagnosis.service_ms),
        )
        if value is not None
    ]
    lines.append(f"  mean latency: {', '.join(split) if split else 'split unknown'}")
    weighed = [made.chosen, *made.rejected]
    rows = [_row(option, option is made.chosen) for option in weighed if option.changes or option is made.chosen]
    widths = [max(len(row[k]) for row in [_HEAD, *rows]) for k in range(len(_HEAD) - 1)]
    lines.append("")
    for row in [_HEAD, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    lines += [f"  {option.reason}" for option in weighed if not option.changes and option is not made.chosen]
    lines += ["", f"choice: {made.chosen.text()}", f"  {made.reason or made.chosen.reason}"]
    if made.chosen.changes:
        lines.append(f"  looked at after {made.settle_s:.0f} s; mode {made.mode}; nothing was changed by this command")
    return "\n".join(lines)


_HEAD = ("", "option", "P95 ms", "90 %", "cost/h", "shows after", "why")


def _quality(option: Option) -> str:
    if option.refusal is not None:
        return refused(option.refusal.share.value)
    return points(option.quality_loss) if option.quality_loss else "0"


def _row(option: Option, chosen: bool) -> tuple[str, ...]:
    p95 = option.predicted_p95_ms
    return (
        "*" if chosen else " ",
        option.text(),
        f"{p95.value:.0f}" if p95 else "?",
        f"{p95.low:.0f}-{p95.high:.0f}" if p95 else "",
        f"{option.cost_per_hour:+.2f}" if option.cost_per_hour else _quality(option),
        f"{option.effect_delay_s:.0f} s",
        "chosen" if chosen else option.reason,
    )
