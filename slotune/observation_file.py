"""Observation files: an observation as JSON, for `slotune plan --observation FILE.json` and for examples in reports.

The schema is in docs/planning.md. Pure: text in, values out; anything wrong is a ConfigError that names the path.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from detection.errors import ConfigError
from detection.model import FloatArray, Incident, Lever, MetricWindow, Service, Slo, Span, make_id
from detection.signals import SIGNALS
from tuning.model import Knob, Observation, Setting

_SYMPTOMS = ("latency", "errors", "saturation", "idle", "slow_replica", "absent_data", "traffic")


def _numbers(value: object) -> object:
    """null is a gap; a plain number stands for a constant series."""
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else value


Series = Annotated[list[float | None], BeforeValidator(_numbers), Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Service(_Part):
    name: str
    serving: str = "unknown"
    slo: Slo
    mode: str = "observe"
    levers: dict[str, dict[str, Any]] = {}


class _Incident(_Part):
    symptom: str = "latency"
    onset_s: float | None = None
    reason: str = ""


class _File(_Part):
    service: _Service
    at_s: float = Field(1_700_000_000.0, allow_inf_nan=False)
    step_s: float = Field(gt=0, allow_inf_nan=False)
    signals: dict[str, Series]
    settings: dict[str, dict[str, Knob]] = {}
    unreadable: dict[str, str] = {}
    incident: _Incident | None = None
    replicas: dict[str, dict[str, Series]] = {}
    batch_stats: list[tuple[float, float, float]] = []
    latency_model: dict[str, Any] | None = None


def parse(text: str, where: str = "observation") -> tuple[Incident, Observation]:
    """The incident (a latency incident over the whole window where the file names none) and the observation."""
    try:
        body = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"not JSON: {error.msg} at column {error.colno}", where=f"{where}:{error.lineno}") from error
    if not isinstance(body, dict):
        raise ConfigError("an observation is a JSON object with service, step_s and signals", where=where)
    try:
        file = _File.model_validate(body)
        service = _service(file.service, where)
    except ValidationError as error:
        raise ConfigError(_sentence(error), where=where) from error
    window = _window(file.signals, file, service.name, where)
    observation = Observation(
        service=service,
        window=window,
        at_s=file.at_s,
        settings=_settings(file.settings, service, where),
        unreadable=file.unreadable,
        replicas={name: _window(values, file, service.name, where, name) for name, values in file.replicas.items()},
        latency_model=file.latency_model,
        batch_stats=tuple(file.batch_stats),
    )
    return _incident(file, observation, where), observation


def _service(part: _Service, where: str) -> Service:
    known = {"batch_size", "replicas", "precision", "release", "variant", "admission", "breaker", "restart"}
    for name in sorted(set(part.levers) - known):
        raise ConfigError(f"service.levers.{name}: no lever is called so; known are {', '.join(sorted(known))}",
                          where=where)  # fmt: skip
    levers = {name: Lever(**{"name": name, "actuator": "none", **body}) for name, body in part.levers.items()}
    return Service.model_validate(
        {"name": part.name, "serving": part.serving, "slo": part.slo, "mode": part.mode, "levers": levers}
    )


def _window(
    signals: Mapping[str, list[float | None]], file: _File, service: str, where: str, replica: str | None = None
) -> MetricWindow:
    unknown = sorted(set(signals) - set(SIGNALS))
    if unknown:
        raise ConfigError(f"signals.{unknown[0]}: no such signal; known are {', '.join(sorted(SIGNALS))}", where=where)
    lengths = {len(values) for values in signals.values() if len(values) > 1}
    if len(lengths) > 1:
        sizes = ", ".join(f"{name} {len(values)}" for name, values in sorted(signals.items()))
        raise ConfigError(f"signals: the lists differ in length ({sizes})", where=where)
    points = lengths.pop() if lengths else 12
    span = Span(file.at_s - (points - 1) * file.step_s, file.at_s, file.step_s)
    values: dict[str, FloatArray] = {}
    for name, series in signals.items():
        numbers = np.array([math.nan if v is None else v for v in series], dtype=np.float64)
        values[name] = np.full(points, numbers[0]) if numbers.size == 1 else numbers
    return MetricWindow(service, span, values, "histogram", replica)


def _settings(part: Mapping[str, dict[str, Knob]], service: Service, where: str) -> dict[str, Setting]:
    for lever in sorted(set(part) - set(service.levers)):
        raise ConfigError(f"settings.{lever}: the service has no such lever", where=where)
    return {lever: Setting(lever=lever, values=values) for lever, values in part.items()}


def _incident(file: _File, observation: Observation, where: str) -> Incident:
    part = file.incident or _Incident()
    if part.symptom not in _SYMPTOMS:
        raise ConfigError(f"incident.symptom: {part.symptom!r}; known are {', '.join(_SYMPTOMS)}", where=where)
    onset = part.onset_s if part.onset_s is not None else observation.window.span.start_s
    return Incident(
        id=make_id(observation.service.name, part.symptom, onset),
        service=observation.service.name,
        symptom=part.symptom,
        tier="act",
        severity="critical",
        opened_at_s=onset,
        detected_at_s=observation.at_s,
        signals=("p95_ms",),
        anomalies=(),
        reason=part.reason or "asked by hand",
    )


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    return f"{path}: {first['msg'].lower()}"
