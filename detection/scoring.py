"""Judging: recent windows against baselines, as scores of one service, signal and detector each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection import ensemble, fitting
from detection.baselines import BaselineSet, GroupBaseline
from detection.detectors._band import View
from detection.detectors.fluctuation import Fluctuation
from detection.detectors.local_outlier import LocalOutlier
from detection.model import MetricWindow, Score, Service, Tier
from detection.panel import Floats, Panel, panel_at, signal_of
from detection.settings import DetectionSettings

CONFIRM = 1.5


@dataclass(frozen=True)
class Judged:
    """Scores over judged columns in units of the calibrated thresholds: a tier is reached above 1.

    warn, act: (services, signals, C). joint: by detector, (warn, act) each (services, C). rows: joint features.
    spread: (services, fluctuating signals, C).
    """

    view: View
    warn: Floats
    act: Floats
    joint: Mapping[str, tuple[Floats, Floats]]
    rows: Floats | None
    spread: Floats | None = None


def judge_panel(panel: Panel, group: GroupBaseline, first: int, settings: DetectionSettings) -> Judged:
    """All columns from `first` on; the columns before are look-back. The heart of sweep and backtest alike."""
    stats = group.part("series")
    view = ensemble.view_of(panel, stats, first)
    votes = ensemble.votes(view, panel.signals, fitting.band_names(settings), settings)
    shape = (len(panel.services), len(panel.signals), -1)
    warn = (votes.warn / group.arrays["threshold/warn"][:, None]).reshape(shape)
    act = (votes.act / group.arrays["threshold/act"][:, None]).reshape(shape)
    warn = warn / group.arrays["service/warn"][:, None, None]
    act = act / group.arrays["service/act"][:, None, None]
    joint: dict[str, tuple[Floats, Floats]] = {}
    rows: Floats | None = None
    names = [n for n in fitting.joint_names(panel.signals, settings) if f"joint/{n}/warn" in group.arrays]
    if names:
        # one judgement is not enough: the ones before are scored, too
        before = max(0, first - ensemble.RUNNING + 1)
        rows = ensemble.joint_features(panel, stats, before, view.whole_hour)
        for name in names:
            raw = _running(name, ensemble.score_joint(name, rows, group.arrays))[:, first - before :]
            low, high = (group.arrays[f"joint/{name}/{tier}"][:, None] for tier in ("warn", "act"))
            joint[name] = (raw / low, raw / high)
        rows = rows[:, first - before :]
    enough = (group.history_s >= settings.min_history_s)[:, None, None]
    joint = {
        name: (np.where(enough[:, 0], low, np.nan), np.where(enough[:, 0], high, np.nan))
        for name, (low, high) in joint.items()
    }
    spread = _spread(panel, group, first, settings)
    spread = np.where(enough, spread, np.nan) if spread is not None else None
    return Judged(view, np.where(enough, warn, np.nan), np.where(enough, act, np.nan), joint, rows, spread)


def _running(name: str, raw: Floats) -> Floats:
    """The PCA residual as the mean of three judgements, the forest as the smaller of two."""
    if name == "pca_residual":
        return ensemble.running_mean(raw)
    out: Floats = np.minimum(raw, np.concatenate([raw[:, :1], raw[:, :-1]], axis=1))
    return out


def _spread(panel: Panel, group: GroupBaseline, first: int, settings: DetectionSettings) -> Floats | None:
    chosen = fitting.fluctuating(panel.signals, settings)
    if not chosen or "fluctuation/usual" not in group.arrays:
        return None
    x = panel.compressed()[:, chosen].reshape(len(panel.services) * len(chosen), -1)
    usual = {"usual": group.arrays["fluctuation/usual"].ravel()}
    method = Fluctuation()
    scores = method.score(method.spread(x, panel.step_s), usual, settings.fluctuation_ratio)
    scores = scores / group.arrays["fluctuation/warn"].ravel()[:, None]
    out: Floats = scores.reshape(len(panel.services), len(chosen), -1)[:, :, first:]
    return out


def judge(
    services: Sequence[Service],
    windows: Mapping[str, MetricWindow],
    baselines: BaselineSet,
    at_s: float,
    settings: DetectionSettings,
    standing: Collection[str] | None = None,
) -> list[Score]:
    """Scores at at_s that reached a tier, and one abstention with its reason per service that cannot be judged.

    standing: services with an open anomaly, of which also what may hold it is told; None: of all services.
    """
    scores: list[Score] = []
    covered: set[str] = set()
    watched = {service.name for service in services}
    for group in baselines.groups:
        rows = [i for i, name in enumerate(group.services) if name in watched and name in windows]
        if not rows:
            continue
        part = group if len(rows) == len(group.services) else group.select(rows)
        covered |= set(part.services)
        points = fitting.look_back_points(part.step_s) + 1
        panel = panel_at(windows, part.services, part.signals, part.step_s, at_s, points)
        judged = judge_panel(panel, part, points - 1, settings)
        scores += scores_at(judged, part, 0, at_s, settings, standing)
        scores += _too_young(part, at_s, settings)
    if fitting.band_names(settings):
        for name in sorted(watched & set(windows) - covered):
            reason = baselines.abstained.get(name, "no baseline has been learned yet")
            scores.append(Score(service=name, detector="votes", signal=None, at_s=at_s, score=None, reason=reason))
    return scores


def scores_at(
    judged: Judged,
    group: GroupBaseline,
    column: int,
    at_s: float,
    settings: DetectionSettings,
    standing: Collection[str] | None = None,
) -> list[Score]:
    """The scores of one judged column that reached a tier, with their explanations, and those that hold what stands."""
    return [
        *_vote_scores(judged, group, column, at_s, settings),
        *_joint_scores(judged, group, column, at_s, standing),
        *_spread_scores(judged, group, column, at_s, settings),
    ]


def service_level(judged: Judged, tier: Tier = "warn") -> Floats:
    """The largest score of each service over its signals and the joint detectors, in units of the tier's threshold:
    (services, C). A joint detector reaches the act tier only as far as a vote agrees."""
    votes = np.nan_to_num(judged.warn, nan=-1).max(axis=1)
    top = votes if tier == "warn" else np.nan_to_num(judged.act, nan=-1).max(axis=1)
    for warn, act in judged.joint.values():
        top = np.fmax(top, warn if tier == "warn" else np.fmin(act, votes))
    if judged.spread is not None and tier == "warn":
        top = np.fmax(top, np.nan_to_num(judged.spread, nan=-1).max(axis=1))
    out: Floats = np.where(top < 0, np.nan, top).astype(np.float32)
    return out


def telling(judged: Judged) -> NDArray[np.bool_]:
    """Columns at which some service has a score that opens or holds an anomaly: (C,)."""
    out = np.nan_to_num(service_level(judged)) > 1
    for warn, _ in judged.joint.values():
        out |= np.nan_to_num(warn) > ensemble.HOLD
    return np.asarray(out.any(axis=0))


def _too_young(group: GroupBaseline, at_s: float, settings: DetectionSettings) -> list[Score]:
    return [
        Score(
            service=group.services[i],
            detector="votes",
            signal=None,
            at_s=at_s,
            score=None,
            reason=f"only {group.history_s[i] / 60:.0f} min of history, {settings.min_history_s / 60:.0f} are needed",
        )
        for i in np.flatnonzero(group.history_s < settings.min_history_s)
    ]


def trust(group: GroupBaseline, index: int, settings: DetectionSettings) -> float:
    """How much of the wanted history a service's baseline rests on, 0..1."""
    return float(min(1.0, group.history_s[index] / settings.history_s))


def _vote_scores(
    judged: Judged, group: GroupBaseline, column: int, at_s: float, settings: DetectionSettings
) -> list[Score]:
    warn, act = judged.warn[:, :, column], judged.act[:, :, column]
    hits = np.argwhere((warn > 1) | (act > 1))
    if not hits.size:
        return []
    names = fitting.band_names(settings)
    bands = {name: ensemble.BANDS[name].band(judged.view) for name in names}
    m = len(group.signals)
    out = []
    for s, j in hits:
        row = int(s * m + j)
        tier: Tier = "act" if act[s, j] > 1 else "warn"
        out.append(
            _vote_score(
                judged.view,
                bands,
                (row, column),
                group,
                int(s),
                int(j),
                tier,
                float(np.fmax(warn[s, j], act[s, j])),
                at_s,
                settings,
            )
        )
    return out


def _vote_score(
    view: View,
    bands: Mapping[str, tuple[Floats, Floats]],
    place: tuple[int, int],
    group: GroupBaseline,
    s: int,
    j: int,
    tier: Tier,
    score: float,
    at_s: float,
    settings: DetectionSettings,
) -> Score:
    signal = signal_of(group.signals[j])
    value = float(view.now[place])
    lows, highs, voted = [], [], {}
    for name, (center, half) in bands.items():
        c, h = (float(np.broadcast_to(part, view.now.shape)[place]) for part in (center, half))
        if not np.isfinite([c, h]).all():
            continue
        if abs(value - c) > h:
            voted[f"vote:{name}"] = abs(value - c) / h
        lows.append(c - h)
        highs.append(c + h)
    back = (lambda v: float(np.expm1(v))) if signal.log else float
    low, high, seen = back(float(np.median(lows))), back(float(np.median(highs))), back(value)
    sure = trust(group, s, settings)
    note = "" if sure >= 1 else f" (baseline rests on {sure:.0%} of the wanted history)"
    return Score(
        service=group.services[s],
        detector="votes",
        signal=signal.name,
        at_s=at_s,
        score=score,
        tier=tier,
        observed=seen,
        expected_low=low,
        expected_high=high,
        contributions=voted,
        reason=f"{signal.title} is {seen:.4g}, expected {low:.4g} to {high:.4g}{note}",
    )


def _joint_scores(
    judged: Judged, group: GroupBaseline, column: int, at_s: float, standing: Collection[str] | None
) -> list[Score]:
    out = []
    for name, (warn, act) in judged.joint.items():
        for s in np.flatnonzero(warn[:, column] > ensemble.HOLD):
            if warn[s, column] <= 1:  # opens nothing, and holds what stands
                if standing is not None and group.services[s] not in standing:
                    continue
                score = float(warn[s, column])
                out.append(Score(service=group.services[s], detector=name, signal=None, at_s=at_s, score=score))
                continue
            assert judged.rows is not None  # noqa: S101 - set wherever joint is
            arrays = group.select([int(s)]).arrays
            shares = ensemble.contributions(name, judged.rows[s, column], arrays, group.signals)
            lead = next(iter(shares), group.signals[0])
            voted = bool((judged.warn[s, :, column] > 1).any()) or _confirmed(judged.rows[s, column], arrays)
            tier: Tier = "act" if act[s, column] > 1 and voted else "warn"
            out.append(
                Score(
                    service=group.services[s],
                    detector=name,
                    signal=lead,
                    at_s=at_s,
                    score=float(warn[s, column]),
                    tier=tier,
                    contributions=shares,
                    reason=f"{name}: unusual together, mostly "
                    + ", ".join(f"{signal} ({share:.0%})" for signal, share in list(shares.items())[:3]),
                )
            )
    return out


def _confirmed(row: Floats, arrays: Mapping[str, Floats]) -> bool:
    part = {key.removeprefix("local_outlier/"): v for key, v in arrays.items() if key.startswith("local_outlier/")}
    return bool(part) and bool(LocalOutlier().score(row[None, None], part)[0, 0] > CONFIRM)


def _spread_scores(
    judged: Judged, group: GroupBaseline, column: int, at_s: float, settings: DetectionSettings
) -> list[Score]:
    if judged.spread is None:
        return []
    chosen = fitting.fluctuating(group.signals, settings)
    found = []
    for s, j in np.argwhere(np.nan_to_num(judged.spread[:, :, column]) > 1):
        signal = signal_of(group.signals[chosen[j]])
        score = float(judged.spread[s, j, column])
        times = score * float(group.arrays["fluctuation/warn"][s, j]) * settings.fluctuation_ratio
        found.append(
            Score(
                service=group.services[s],
                detector="fluctuation",
                signal=signal.name,
                at_s=at_s,
                score=score,
                tier="warn",
                reason=f"{signal.title} fluctuates {times:.1f} times as much as usual over the last hour",
            )
        )
    return found
