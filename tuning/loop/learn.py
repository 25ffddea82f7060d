"""learn_baselines: what is normal, learned from the history that holds no incident, no deploy and no change of ours."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from detection import own_signals, pipeline
from detection.drift import Drift, check_drift
from detection.model import MetricWindow, Span, Value
from tuning.loop.examples import learn_ranker
from tuning.loop.inputs import check_inputs
from tuning.loop.observe import history_key
from tuning.loop.open_incidents import open_incidents_of
from tuning.loop.parts import Parts
from tuning.loop.watch import BASELINES, stored_baselines
from tuning.loop.window_store import pack
from tuning.model import LEVER_STEPS
from tuning.planning.situation import HISTORY_SIGNALS
from tuning.ports import Ledger
from tuning.query import Query
from tuning.stressed import STRESS, stressed

_log = logging.getLogger(__name__)
_MARGIN_S = 600.0
DRIFT = "drift"
_DRIFT_SIGNALS = ("qps", "rows_per_batch", "accuracy", "agreement")


class Learned(Value):
    """What travels to the log: how many services have baselines, why the others have none, what labels taught."""

    at_s: float
    services: int
    abstained: dict[str, str] = {}
    drift: tuple[str, ...] = ()
    labels: str = ""


def learn_baselines(parts: Parts, at_s: float) -> Learned:
    """Learn from the last `detection.history`; the result replaces the stored baselines."""
    settings = parts.settings.detection
    services = tuple(parts.services.values())
    step_s = settings.history_step_s
    end_s = at_s // step_s * step_s
    span = Span(end_s - settings.history_s // step_s * step_s, end_s, step_s)
    needed = pipeline.signals_needed(services, settings)
    seen = parts.source.read(services, tuple(dict.fromkeys((*needed, *HISTORY_SIGNALS, *_DRIFT_SIGNALS))), span)
    history = {name: _only(window, needed) for name, window in seen.items()}
    out = left_out(parts, at_s)
    previous = stored_baselines(parts.ledger)
    before = pipeline.weeks_span(span, settings)
    learned = pipeline.learn(
        services,
        history,
        out,
        settings,
        previous=previous,
        alarm_since_s=_alarms(parts, at_s),
        weeks=parts.source.read(services, needed, before) if before else None,
    )
    parts.ledger.put_blob(BASELINES, learned.to_bytes(), at_s=at_s)
    known = {name for group in learned.groups for name in group.services}
    _keep_for_planning(parts, seen, out, at_s)
    drift = drifted(seen, own_signals.names(services))
    checked = check_inputs(parts, at_s)
    figures: list[dict[str, object]] = [{**asdict(figure), "at_s": end_s} for figure in drift]
    figures += [one.drift for one in checked.values() if one.drift is not None]
    parts.ledger.put_blob(DRIFT, json.dumps(figures).encode(), at_s=at_s)
    lines = tuple(f"{figure['service']}: {figure['reason']}" for figure in figures)
    lines += tuple(f"{name}: {text}" for name, one in checked.items() for text in one.odd if one.drift is None)
    labels = learn_ranker(parts, at_s)
    return Learned(at_s=at_s, services=len(known), abstained=dict(learned.abstained), drift=lines, labels=labels)


def _only(window: MetricWindow, signals: Sequence[str]) -> MetricWindow:
    return replace(window, values={name: window.values[name] for name in signals if name in window.values})


def _keep_for_planning(
    parts: Parts, seen: Mapping[str, MetricWindow], out: Mapping[str, list[tuple[float, float]]], at_s: float
) -> None:
    """What planners look at, per service, with gaps where it was not normal: a baseline and last week's traffic."""
    for name, window in seen.items():
        times, kept = window.span.times(), _only(window, HISTORY_SIGNALS)
        odd = np.zeros(times.size, dtype=bool)
        for start_s, end_s in out.get(name, ()):
            odd |= (times >= start_s) & (times <= end_s)
        values = {signal: np.where(odd, np.nan, series) for signal, series in kept.values.items()}
        if values:
            body = pack({name: replace(kept, values=values)}, {}, at_s)
            parts.ledger.put_blob(history_key(name), body, at_s=at_s)


def drift_figures(ledger: Ledger) -> tuple[dict[str, Any], ...]:
    """What the last learn_baselines found drifted: detection.drift.Drift's fields with "at_s"; () before the first."""
    stored = ledger.get_blob(DRIFT)
    try:
        figures = json.loads(stored) if stored else []
    except ValueError as error:
        _log.warning("the drift that learn_baselines stored cannot be read and is passed over: %s", error)
        return ()
    return tuple(figure for figure in figures if isinstance(figure, dict))


def drifted(history: Mapping[str, MetricWindow], own: Sequence[str] = ()) -> tuple[Drift, ...]:
    """Signals whose last two days are unlike their own past days: information for people and for calibration data.
    own: names of signals that services define."""
    found = [
        check_drift(window, signal)
        for _, window in sorted(history.items())
        for signal in (*_DRIFT_SIGNALS, *own)
        if signal in window.values
    ]
    return tuple(drift for drift in found if drift.drifted)


def left_out(parts: Parts, at_s: float) -> dict[str, list[tuple[float, float]]]:
    """(start_s, end_s) by service: closed incidents, open ones younger than `relearn_after`, slotune's changes, and
    stress tests."""
    settings = parts.settings.detection
    since_s = at_s - max(settings.history_s, settings.weekly_history_s)
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    opened: dict[str, tuple[str, float]] = {}
    for record in reversed(parts.ledger.find(Query(kinds=("open_incidents",), since_s=since_s))):
        incident_id = record.incident_id or record.id
        if record.body.get("closed"):
            service, start_s = opened.pop(incident_id, (record.service, record.at_s))
            spans[service].append((start_s, record.at_s))
        else:
            start = record.body.get("opened_at_s")
            opened.setdefault(incident_id, (record.service, float(start) if isinstance(start, float) else record.at_s))
    for service, start_s in opened.values():
        if at_s - start_s < settings.relearn_after_s:
            spans[service].append((start_s, at_s))
    for record in parts.ledger.find(Query(kinds=tuple(LEVER_STEPS.values()), phase="result", since_s=since_s)):
        if record.body.get("changed"):
            spans[record.service].append((record.at_s - _MARGIN_S, record.at_s + _MARGIN_S))
    for service, tests in stressed(parts.ledger.find(Query(kinds=(STRESS,), since_s=since_s))).items():
        spans[service] += tests
    return dict(spans)


def _alarms(parts: Parts, at_s: float) -> dict[str, float]:
    """Since when each service has an open act-tier incident."""
    since: dict[str, float] = {}
    for incident in open_incidents_of(parts.ledger, at_s):
        if incident.tier == "act":
            since[incident.service] = min(incident.opened_at_s, since.get(incident.service, incident.opened_at_s))
    return since
