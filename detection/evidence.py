"""What a sweep knows about a signal at the moment at which it looks odd, as numbers: what the re-ranker looks at.

Only the judged column and the look-back before it are used, so that a live sweep and a replay know the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from detection import ensemble, fitting
from detection.baselines import GroupBaseline
from detection.judged import Judged
from detection.methods import Methods
from detection.model import Score
from detection.panel import Floats, signal_of
from detection.settings import DetectionSettings

Evidence = dict[str, float]
"""By name; what is not known is absent, which is not 0."""
_MOST = 1e4
_HOUR_S, _DAY_S = 3600.0, 86_400.0


def with_evidence(
    scores: Sequence[Score],
    judged: Judged,
    group: GroupBaseline,
    column: int,
    settings: DetectionSettings,
    methods: Methods,
    strictness: Floats | None = None,
) -> list[Score]:
    """The scores of one judged column, each with what was known of its series; as they are where nothing learns.

    strictness: what the services' act tier was held against, see scoring.judge.
    """
    if not scores or not (settings.learning.rerank or settings.learning.adapt):
        return list(scores)
    row = {service: i for i, service in enumerate(group.services)}
    column_of = {signal: i for i, signal in enumerate(group.signals)}
    places = [(row[score.service], column_of.get(score.signal or "", -1)) for score in scores]
    asked = [place for place in places if place[1] >= 0]
    known = evidence(judged, group, column, scores[0].at_s, asked, settings, methods)
    for (service, _), told in known.items():
        if strictness is not None and strictness[service] != 1:
            told["strictness"] = _short(float(strictness[service]))
    return [
        score.model_copy(update={"evidence": known.get(place, {})}) for score, place in zip(scores, places, strict=True)
    ]


def evidence(
    judged: Judged,
    group: GroupBaseline,
    column: int,
    at_s: float,
    asked: Iterable[tuple[int, int]],
    settings: DetectionSettings,
    methods: Methods,
) -> dict[tuple[int, int], Evidence]:
    """Of the series asked for, as (service, signal) of the group, at one judged column.

    Scores are in units of the threshold that they are held against, on the side on which the value is; positive is
    further out. Spreads are in units of the series' own usual one.
    """
    wanted = sorted(set(asked))
    if not wanted:
        return {}
    rows = np.array([s * len(group.signals) + j for s, j in wanted])
    known = _of_series(judged, group, column, rows, settings, methods)
    known |= _of_service(judged, group, column, wanted, settings, methods)
    known["step_log10"] = np.full(len(wanted), math.log10(group.step_s))
    known["hour"] = np.full(len(wanted), at_s % _DAY_S / _HOUR_S)
    known["weekday"] = np.full(len(wanted), (at_s // _DAY_S + 3) % 7)
    return {
        key: {name: _short(float(values[i])) for name, values in known.items() if np.isfinite(values[i])}
        for i, key in enumerate(wanted)
    }


def _short(value: float) -> float:
    return float(f"{max(-_MOST, min(_MOST, value)):.4g}")


def _of_series(
    judged: Judged,
    group: GroupBaseline,
    column: int,
    rows: np.ndarray,
    settings: DetectionSettings,
    methods: Methods,
) -> dict[str, Floats]:
    """What is known of each series by itself: arrays of shape (rows,)."""
    view = judged.view
    at = view.first + column
    stats = {name: values[rows] for name, values in view.stats.items() if values.ndim == 1}
    scale, now = stats["level_scale"], view.x[rows, at]
    moved = ensemble.change(view, group.signals, settings)[rows, column]
    side = np.where(np.nan_to_num(moved) < 0, -1.0, 1.0)
    found = {"change": np.abs(moved), "upwards": side}
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        scores = {}
        for name, method in methods.bands.items():
            center, half = (np.broadcast_to(part, view.now.shape)[rows, column] for part in method.band(view))
            scores[name] = side * (now - center) / half
        found |= {f"band_{name}": values for name, values in scores.items()}
        found["agreeing"] = sum((np.nan_to_num(values) > 1 for values in scores.values()), np.zeros(rows.size))
        edge = np.where(side > 0, stats["q99"], stats["q01"])
        found["beyond_week"] = side * (now - edge) / scale
        found["from_median"] = side * (now - stats["q50"]) / scale
        back = view.x[rows, max(0, at - fitting.look_back_points(group.step_s) + 1) : at]
        found |= _of_the_past(back, now, side, stats)
        found["jumpiness"] = stats["jump_scale"] / scale
        found["habit"] = stats["residual_scale"] / scale
        found["tails"] = (stats["q99"] - stats["q01"]) / scale
        found["lean"] = side * (stats["q95"] + stats["q05"] - 2 * stats["q50"]) / scale
        found["days"] = stats["days"]
        for tier in ("warn", "act"):
            found[f"threshold_{tier}"] = group.arrays[f"threshold/{tier}"][rows]
    return found


def _of_the_past(back: Floats, now: Floats, side: Floats, stats: dict[str, Floats]) -> dict[str, Floats]:
    """Of the look-back before the judged value; back: (rows, points)."""
    scale, middle = stats["level_scale"], stats["q50"]
    known = np.isfinite(back)
    count = np.maximum(known.sum(axis=1), 1)
    out = np.where(known, side[:, None] * (back - middle[:, None]) / scale[:, None], 0.0)
    mean = out.sum(axis=1) / count
    spread = np.sqrt(np.where(known, (out - mean[:, None]) ** 2, 0).sum(axis=1) / count)
    here = side * (now - middle) / scale
    return {
        "past_mean": mean,
        "past_spread": spread,
        "past_high": np.max(np.where(known, out, -np.inf), axis=1, initial=-np.inf),
        "past_odd": (out > 2).sum(axis=1) / count,
        "past_step": here - np.where(known[:, -1], out[:, -1], np.nan) if back.shape[1] else np.full(now.shape, np.nan),
        "past_known": known.sum(axis=1) / max(1, back.shape[1]),
    }


def _of_service(
    judged: Judged,
    group: GroupBaseline,
    column: int,
    wanted: list[tuple[int, int]],
    settings: DetectionSettings,
    methods: Methods,
) -> dict[str, Floats]:
    """What is known of the services of the series, and of the signal's place among its others."""
    services, signals = (np.array(part) for part in zip(*wanted, strict=True))
    warn, act = judged.warn[:, :, column], judged.act[:, :, column]
    voting = np.nan_to_num(warn) > 1
    agreed = np.asarray(voting.any(axis=1))
    found = {
        "level_warn": warn[services, signals],
        "level_act": act[services, signals],
        "signals": np.full(len(wanted), float(len(group.signals))),
        "signals_voting": voting.sum(axis=1)[services].astype(float),
        "service_warn": group.arrays["service/warn"][services],
        "trust": np.minimum(1.0, group.history_s[services] / settings.history_s),
    }
    reach = np.nan_to_num(act[services, signals])
    for name, (low, high) in judged.joint.items():
        found[f"joint_{name}"] = low[services, column]
        # a joint detector acts only where a vote agrees
        reach = np.where(agreed[services], np.fmax(reach, np.nan_to_num(high[services, column])), reach)
    found["act_reach"] = reach
    for name, level in judged.own.items():
        found[f"own_{name}"] = np.nan_to_num(level[:, :, column]).max(axis=1)[services]
    if "qps" in group.signals:
        load = ensemble.change(judged.view, group.signals, settings)[:, column].reshape(len(group.services), -1)
        found["load"] = load[services, group.signals.index("qps")]
    for direction in ("up", "down", "both"):
        worse = [float(signal_of(group.signals[j]).worse == direction) for j in signals]
        found[f"worse_{direction}"] = np.array(worse)
    return found
