"""The baseline job: what is normal for each service, and the thresholds that its alarm budget buys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from detection import ensemble
from detection.baselines import BaselineSet, GroupBaseline
from detection.calibration import block_maxima, block_s_of, chance_per_block, conformal_threshold
from detection.detectors.dynamic import DynamicThreshold
from detection.detectors.fluctuation import SIGNALS as FLUCTUATING
from detection.detectors.fluctuation import Fluctuation
from detection.detectors.local_outlier import LocalOutlier
from detection.model import MetricWindow, Service
from detection.panel import Floats, Panel, group_windows, signal_of
from detection.series import Arrays, last_hour
from detection.settings import DetectionSettings

LOOK_BACK_STEPS = 16
CHUNK = 16
FIT_ROWS = 100_000
FEW = 2
Spans = Mapping[str, Sequence[tuple[float, float]]]


def learn(
    services: Sequence[Service],
    history: Mapping[str, MetricWindow],
    leave_out: Spans,
    settings: DetectionSettings,
    previous: BaselineSet | None = None,
    alarm_since_s: Mapping[str, float] | None = None,
) -> BaselineSet:
    """Baselines of all services from their history.

    leave_out: incidents and deploys by service, as (start_s, end_s). previous, alarm_since_s: a service with an open
    alarm keeps its previous baseline until the alarm is relearn_after_s old; then its new level is accepted, so the
    caller leaves that alarm's span in.
    """
    known = {service.name for service in services}
    frozen = _frozen(previous, alarm_since_s or {}, history, settings)
    usable: dict[str, MetricWindow] = {}
    abstained: dict[str, str] = {}
    for service in sorted(known):
        window = history.get(service)
        if window is None:
            abstained[service] = "no history: no series of this service"
        elif service not in frozen:
            usable[service] = _without(window, leave_out.get(service, ()))
    panels = [panel for panel in group_windows(usable) if judged_signals(panel.signals)]
    groups = [_learn_group(panel, settings) for panel in panels]
    judged = {name for panel in panels for name in panel.services}
    abstained |= {name: "no history: none of its signals can be judged" for name in usable if name not in judged}
    kept = [part for part in (_keep(group, frozen) for group in (previous.groups if previous else ())) if part]
    return BaselineSet((*groups, *kept), abstained, _forecasts(usable, settings, previous))


def _forecasts(
    usable: Mapping[str, MetricWindow], settings: DetectionSettings, previous: BaselineSet | None
) -> Mapping[str, Mapping[str, object]]:
    if not settings.dynamic_series:
        return {}
    learned = DynamicThreshold(settings.dynamic_series, settings.dynamic_method).learn(usable)
    plain = {
        key: {name: part.tolist() if isinstance(part, np.ndarray) else part for name, part in forecast.items()}
        for key, forecast in learned.items()
    }
    return {**(previous.forecasts if previous is not None else {}), **plain}


def look_back_points(step_s: float) -> int:
    """How many points before a judged one are looked at: the last hour, and never fewer than LOOK_BACK_STEPS."""
    return max(LOOK_BACK_STEPS, round(3600 / step_s) + 4)


def _frozen(
    previous: BaselineSet | None,
    alarm_since_s: Mapping[str, float],
    history: Mapping[str, MetricWindow],
    settings: DetectionSettings,
) -> frozenset[str]:
    if previous is None:
        return frozenset()
    held = {name for group in previous.groups for name in group.services}
    now_s = max((window.span.end_s for window in history.values()), default=0.0)
    return frozenset(
        name for name, since_s in alarm_since_s.items() if name in held and now_s - since_s < settings.relearn_after_s
    )


def _keep(group: GroupBaseline, frozen: frozenset[str]) -> GroupBaseline | None:
    rows = [index for index, name in enumerate(group.services) if name in frozen]
    return group.select(rows) if rows else None


def _without(window: MetricWindow, spans: Sequence[tuple[float, float]]) -> MetricWindow:
    if not spans:
        return window
    times = window.span.times()
    out = np.zeros(times.size, dtype=bool)
    for start_s, end_s in spans:
        out |= (times >= start_s) & (times <= end_s)
    return replace(window, values={name: np.where(out, np.nan, series) for name, series in window.values.items()})


def judged_signals(signals: Sequence[str]) -> list[int]:
    """Positions of the signals that may be anomalies (context signals such as the batch size may not)."""
    return [index for index, name in enumerate(signals) if signal_of(name).worse != "none"]


def _learn_group(panel: Panel, settings: DetectionSettings) -> GroupBaseline:
    """Learns chunk by chunk, so that memory does not grow with the number of services beyond their history."""
    keep = judged_signals(panel.signals)
    panel = replace(panel, signals=tuple(panel.signals[k] for k in keep), values=panel.values[:, keep])
    parts: list[dict[str, Floats]] = []
    sample: list[Floats] = []
    strangest: list[Floats] = []
    joint = joint_names(panel.signals, settings)
    block_s = block_s_of(panel.times.size * panel.step_s)
    stride = max(1, -(-panel.times.size * len(panel.services) // FIT_ROWS))
    for first in range(0, len(panel.services), CHUNK):
        chunk = panel.select(range(first, min(first + CHUNK, len(panel.services))))
        hour = last_hour(chunk.compressed().reshape(len(chunk.services) * len(chunk.signals), -1), chunk.step_s)
        stats = ensemble.learn_panel(chunk, hour)
        part = _series_part(chunk, stats, hour, settings) | _fluctuation_part(chunk, stats, settings)
        if joint:
            rows = ensemble.joint_features(chunk, stats, 0, hour)
            part |= _own_joint_part(rows, panel.step_s, block_s, joint, settings)
            if "isolation_forest" in joint:
                sample.append(rows.reshape(-1, rows.shape[2])[first % stride :: stride])
                strangest.append(_strangest(rows, panel.step_s, block_s))
        parts.append(part)
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if strangest:
        arrays |= _forest_part(np.concatenate(sample), np.concatenate(strangest), block_s, settings)
    known = np.isfinite(panel.values).any(axis=1).sum(axis=1) * panel.step_s
    return GroupBaseline(
        panel.services,
        panel.signals,
        panel.step_s,
        np.full(len(panel.services), panel.times[-1]),
        known.astype(np.float64),
        arrays,
    )


def band_names(settings: DetectionSettings) -> list[str]:
    """The single-series detectors that are switched on."""
    return [name for name in sorted(ensemble.BANDS) if name in settings.detectors]


def joint_names(signals: Sequence[str], settings: DetectionSettings) -> list[str]:
    """The joint detectors that are switched on, none where a service has too few signals."""
    if len(signals) < ensemble.MIN_JOINT_SIGNALS:
        return []
    return [name for name in ensemble.JOINT if name in settings.detectors]


def _series_part(panel: Panel, stats: Arrays, hour: Floats, settings: DetectionSettings) -> dict[str, Floats]:
    view = ensemble.view_of(panel, stats, 0, hour)
    votes = ensemble.votes(view, panel.signals, band_names(settings), settings)
    out = {f"series/{name}": values for name, values in stats.items()}
    block_s = block_s_of(panel.times.size * panel.step_s)
    for tier, scores, budget in (
        ("warn", votes.warn, settings.budget.warn_per_week),
        ("act", votes.act, settings.budget.act_per_week),
    ):
        top = block_maxima(scores, panel.step_s, block_s)
        threshold = conformal_threshold(top, chance_per_block(budget, block_s))
        out[f"threshold/{tier}"] = np.fmax(threshold, np.float32(1))
        out[f"service/{tier}"] = _service_factor(scores, out[f"threshold/{tier}"], panel, budget, block_s, settings)
    return out


def _service_factor(
    scores: Floats, threshold: Floats, panel: Panel, budget: float, block_s: float, settings: DetectionSettings
) -> Floats:
    """By how much a service's thresholds rise so that all its signals together keep to the budget: (services,)."""
    services = len(panel.services)
    if len(panel.signals) == 1:
        return np.ones(services, np.float32)
    worst = (scores / threshold[:, None]).reshape(services, len(panel.signals), -1)
    top = block_maxima(np.nan_to_num(worst, nan=0.0).max(axis=1), panel.step_s, block_s)
    share = ensemble.SHARES["votes"] if joint_names(panel.signals, settings) else 1.0
    factor = conformal_threshold(top, chance_per_block(budget * share, block_s))
    return np.fmax(factor, np.float32(1))


def fluctuating(signals: Sequence[str], settings: DetectionSettings) -> list[int]:
    """Positions of the signals whose fluctuation is watched."""
    if "fluctuation" not in settings.detectors:
        return []
    return [index for index, name in enumerate(signals) if name in FLUCTUATING]


def _fluctuation_part(panel: Panel, stats: Arrays, settings: DetectionSettings) -> dict[str, Floats]:
    chosen = fluctuating(panel.signals, settings)
    if not chosen:
        return {}
    s, m = len(panel.services), len(panel.signals)
    x = panel.compressed()[:, chosen].reshape(s * len(chosen), -1)
    method = Fluctuation()
    spread = method.spread(x, panel.step_s)
    learned = method.fit(spread, stats["least"].reshape(s, m)[:, chosen].ravel())
    scores = method.score(spread, learned, settings.fluctuation_ratio)
    block_s = block_s_of(panel.times.size * panel.step_s)
    top = block_maxima(scores, panel.step_s, block_s)
    budget = settings.budget.warn_per_week * ensemble.SHARES["fluctuation"] / len(chosen)
    threshold = np.fmax(conformal_threshold(top, chance_per_block(budget, block_s)), 1)
    shape = (s, len(chosen))
    return {
        "fluctuation/usual": learned["usual"].reshape(shape),
        "fluctuation/warn": threshold.reshape(shape).astype(np.float32),
    }


def _own_joint_part(
    rows: Floats, step_s: float, block_s: float, names: Sequence[str], settings: DetectionSettings
) -> dict[str, Floats]:
    """The joint detectors that are fitted to each service by itself."""
    arrays: dict[str, Floats] = {}
    if "pca_residual" in names:
        arrays = ensemble.fit_joint(rows, ["pca_residual"], settings.seed)
        scores = ensemble.running_mean(ensemble.score_joint("pca_residual", rows, arrays))
        arrays |= _joint_thresholds("pca_residual", block_maxima(scores, step_s, block_s), block_s, settings)
    if "local_outlier" in settings.detectors:
        arrays |= {f"local_outlier/{name}": values for name, values in LocalOutlier().fit(rows).items()}
    return arrays


def _forest_part(sample: Floats, strangest: Floats, block_s: float, settings: DetectionSettings) -> dict[str, Floats]:
    """The shared forest, calibrated for each service on the strangest rows of its blocks."""
    arrays = ensemble.fit_joint(sample[None], ["isolation_forest"], settings.seed)
    services, blocks, few, width = strangest.shape
    scores = ensemble.score_joint("isolation_forest", strangest.reshape(services, blocks * few, width), arrays)
    top: Floats = scores.reshape(services, blocks, few).max(axis=2)
    return arrays | _joint_thresholds("isolation_forest", top, block_s, settings)


def _joint_thresholds(name: str, top: Floats, block_s: float, settings: DetectionSettings) -> dict[str, Floats]:
    found = {}
    for tier, budget in (("warn", settings.budget.warn_per_week), ("act", settings.budget.act_per_week)):
        threshold = conformal_threshold(top, chance_per_block(budget * ensemble.SHARES[name], block_s))
        found[f"joint/{name}/{tier}"] = np.where(np.isfinite(threshold), threshold, np.inf).astype(np.float32)
    return found


def _strangest(rows: Floats, step_s: float, block_s: float) -> Floats:
    """The rows of each block that are furthest from normal: (services, blocks, few, features).

    The forest is dear to ask; what it calls strangest is among these.
    """
    energy = (np.minimum(np.abs(rows), 8) ** 2).sum(axis=2)
    services, points = energy.shape
    size = max(1, min(points, round(block_s / step_s)))
    blocks = max(1, points // size)
    few = min(FEW, size)
    tail = energy[:, points - blocks * size :].reshape(services, blocks, size)
    chosen = np.argpartition(tail, size - few, axis=2)[:, :, size - few :] + (
        points - blocks * size + size * np.arange(blocks)[None, :, None]
    )
    picked = np.take_along_axis(rows, chosen.reshape(services, -1)[:, :, None], axis=1)
    return picked.reshape(services, blocks, few, rows.shape[2])
