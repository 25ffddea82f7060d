"""Judging: recent windows against baselines, as scores of one service, signal and detector each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from detection import ensemble, fitting
from detection.baselines import BaselineSet, GroupBaseline
from detection.evidence import with_evidence
from detection.judged import Judged as Judged
from detection.methods import Joint, Methods, View
from detection.model import MetricWindow, Score, Service, Tier
from detection.panel import Floats, Panel, panel_at, signal_of
from detection.series import running_max, running_mean
from detection.settings import DetectionSettings
from detection.signals import Signal

TWICE = 2
_LIMITS = ("warn", "act", "alone", "eased")


def judge_panel(
    panel: Panel, group: GroupBaseline, first: int, settings: DetectionSettings, methods: Methods
) -> Judged:
    """All columns from `first` on; the columns before are look-back. The heart of sweep and backtest alike."""
    known = {n: m for n, m in methods.joint_for(panel.signals).items() if f"joint/{n}/warn" in group.arrays}
    # for a joint detector one judgement is not enough: the ones before are scored, too
    before = max(0, first - max([TWICE, *(method.steps for method in known.values())]) + 1)
    wide = ensemble.view_of(panel, group.part("series"), before)
    view = replace(wide, first=first, known_hour=wide.whole_hour)
    votes = ensemble.votes(wide, panel.signals, list(methods.bands.values()), settings)
    fresh = slice(first - before, None)
    old = (group.history_s >= settings.min_history_s)[:, None]
    levels = [np.where(old[..., None], level[..., fresh], np.nan) for level in vote_levels(group, votes)]
    joint: dict[str, tuple[Floats, Floats]] = {}
    rows = ensemble.joint_features(wide, len(panel.services), before) if known else None
    if rows is not None:
        joint = _joint_levels(panel, group, wide, rows, votes.warn, settings, known)
    joint = {name: (low[:, fresh], high[:, fresh]) for name, (low, high) in joint.items()}
    joint = {name: (np.where(old, low, np.nan), np.where(old, high, np.nan)) for name, (low, high) in joint.items()}
    own = _own_levels(panel, group, view, methods)
    own = {name: np.where(old[..., None], level, np.nan) for name, level in own.items()}
    return Judged(view, levels[0], levels[1], joint, None if rows is None else rows[:, fresh], own)


def vote_levels(group: GroupBaseline, votes: ensemble.Votes) -> tuple[Floats, Floats]:
    """The votes over the thresholds of the warn and the act tier: (services, signals, C) each.

    On a service of several signals what is seen twice running needs less: chance seldom repeats itself.
    """
    shape = (len(group.services), len(group.signals), -1)
    warn = (votes.warn / group.arrays["threshold/warn"][:, None]).reshape(shape)
    act = (votes.act / group.arrays["threshold/act"][:, None]).reshape(shape)
    once, twice = act / group.arrays["service/act"][:, None, None], act / group.arrays["service/twice"][:, None, None]
    warn = warn / group.arrays["service/warn"][:, None, None]
    if len(group.signals) == 1:
        return warn, once
    twice[..., 1:] = np.minimum(twice[..., 1:], twice[..., :-1])
    twice[..., 0] = np.nan
    # what is acted on is a warning, too
    return np.fmax(warn, np.where(twice > 1, twice, np.nan)), np.fmax(once, twice)


def _joint_levels(
    panel: Panel,
    group: GroupBaseline,
    view: View,
    rows: Floats,
    votes: Floats,
    settings: DetectionSettings,
    methods: Mapping[str, Joint],
) -> dict[str, tuple[Floats, Floats]]:
    """By joint detector its scores over the thresholds of both tiers, (services, C) each.

    rows: features, (services, C, features). votes: nominal vote scores of the series, (series, C).
    """
    shape = (len(panel.services), len(panel.signals), -1)
    moved = np.nan_to_num(ensemble.change(view, panel.signals, settings))
    strongest = np.clip(np.nan_to_num(votes).reshape(shape).max(axis=1), 0, 1)
    found = {}
    for name, method in methods.items():
        part = ensemble.part_of(name, method, group.arrays)
        raw = method.running(method.score(rows, part))
        low, high, alone, eased = (group.arrays[f"joint/{name}/{key}"][:, None] for key in _LIMITS)
        # what shows in no single signal has to be stranger than what half shows in one
        low = np.fmax(low, alone - eased * running_max(strongest, method.steps))
        high = np.fmax(low, high)
        # however unusual, it is news only where a signal that carries it has moved by as much as is news all that time
        lasting = np.abs(running_mean(moved, method.steps)).reshape(shape)
        share = method.carried(rows, part, len(panel.signals)).transpose(0, 2, 1)
        share = running_mean(share.reshape(moved.shape), method.steps).reshape(shape)
        news = np.where(share >= share.mean(axis=1, keepdims=True), lasting, 0).max(axis=1)
        found[name] = (np.minimum(raw / low, news), np.minimum(raw / high, news))
    return found


def _own_levels(panel: Panel, group: GroupBaseline, view: View, methods: Methods) -> dict[str, Floats]:
    found: dict[str, Floats] = {}
    for name, chosen in methods.own_for(panel.signals).items():
        if f"own/{name}" not in group.arrays:
            continue
        x = view.x.reshape(*panel.values.shape)[:, chosen].reshape(len(panel.services) * len(chosen), -1)
        learned = {key: values.ravel() for key, values in group.part(name).items()}
        scores = methods.own[name].score(x, panel.step_s, learned) / group.arrays[f"own/{name}"].ravel()[:, None]
        found[name] = scores.reshape(len(panel.services), len(chosen), -1)[:, :, view.first :]
    return found


def judge(
    services: Sequence[Service],
    windows: Mapping[str, MetricWindow],
    baselines: BaselineSet,
    at_s: float,
    settings: DetectionSettings,
    methods: Methods,
    strictness: Mapping[str, float] = MappingProxyType({}),
) -> list[Score]:
    """Scores at at_s that reached a tier, and one abstention with its reason per service that cannot be judged.

    strictness: by service, how many times its threshold the act tier needs; 1 where a service is not named.
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
        judged = judge_panel(panel, part, points - 1, settings, methods)
        held = np.array([strictness.get(name, 1.0) for name in part.services], np.float32)
        judged = judged.against(held) if (held != 1).any() else judged
        found = scores_at(judged, part, 0, at_s, settings, methods)
        scores += with_evidence(found, judged, part, 0, settings, methods, held)
        scores += _too_young(part, at_s, settings)
    if methods.bands:
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
    methods: Methods,
) -> list[Score]:
    """The scores of one judged column that reached a tier, with their explanations."""
    return [
        *_vote_scores(judged, group, column, at_s, settings, methods),
        *_joint_scores(judged, group, column, at_s, methods),
        *_own_scores(judged, group, column, at_s, methods),
    ]


def service_level(judged: Judged, tier: Tier = "warn") -> Floats:
    """The largest score of each service over its signals and the joint detectors, in units of the tier's threshold:
    (services, C). A joint detector reaches the act tier only as far as a vote agrees."""
    votes = np.nan_to_num(judged.warn, nan=-1).max(axis=1)
    top = votes if tier == "warn" else np.nan_to_num(judged.act, nan=-1).max(axis=1)
    for warn, act in judged.joint.values():
        top = np.fmax(top, warn if tier == "warn" else np.fmin(act, votes))
    for level in judged.own.values() if tier == "warn" else ():
        top = np.fmax(top, np.nan_to_num(level, nan=-1).max(axis=1))
    out: Floats = np.where(top < 0, np.nan, top).astype(np.float32)
    return out


def telling(judged: Judged) -> NDArray[np.bool_]:
    """Columns at which some service has a score that opens or keeps an anomaly: (C,)."""
    return np.asarray((np.nan_to_num(service_level(judged)) > 1).any(axis=0))


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
    judged: Judged, group: GroupBaseline, column: int, at_s: float, settings: DetectionSettings, methods: Methods
) -> list[Score]:
    warn, act = judged.warn[:, :, column], judged.act[:, :, column]
    hits = np.argwhere((warn > 1) | (act > 1))
    if not hits.size:
        return []
    view, out = judged.view, []
    bands = {
        name: [np.broadcast_to(part, view.now.shape)[:, column] for part in method.band(view)]
        for name, method in methods.bands.items()
    }
    for s, j in hits:
        row, signal = int(s) * len(group.signals) + int(j), signal_of(group.signals[j])
        value = float(view.now[row, column])
        low, high, voted = expected(value, {n: (float(c[row]), float(h[row])) for n, (c, h) in bands.items()})
        seen, low, high = np.array([value, low, high], np.float32)
        if view.habit is not None:
            seen, low, high = view.habit.at(row, view.first + column).into(np.array([seen, low, high]))
        seen, low, high = (_plain(signal, float(number)) for number in (seen, low, high))
        sure = trust(group, s, settings)
        note = "" if sure >= 1 else f" (baseline rests on {sure:.0%} of the wanted history)"
        out.append(
            Score(
                service=group.services[s],
                detector="votes",
                signal=signal.name,
                at_s=at_s,
                score=float(np.fmax(warn[s, j], act[s, j])),
                tier="act" if act[s, j] > 1 else "warn",
                observed=seen,
                expected_low=low,
                expected_high=high,
                contributions={f"vote:{name}": times for name, times in voted.items()},
                reason=f"{signal.title} is {seen:.4g}, expected {low:.4g} to {high:.4g}{note}",
            )
        )
    return out


def expected(value: float, bands: Mapping[str, tuple[float, float]]) -> tuple[float, float, dict[str, float]]:
    """Median lower and upper edge of the bands (centre, half width), and by how many half widths each is exceeded.

    Bands that are not known are left out; NaN edges where none is known.
    """
    known = {name: band for name, band in bands.items() if np.isfinite(band).all()}
    if not known:
        return float("nan"), float("nan"), {}
    voted = {name: abs(value - c) / h for name, (c, h) in known.items() if abs(value - c) > h}
    low = float(np.median([c - h for c, h in known.values()]))
    high = float(np.median([c + h for c, h in known.values()]))
    return low, high, voted


def _plain(signal: Signal, value: float) -> float:
    return float(np.expm1(value)) if signal.log else value


def _joint_scores(judged: Judged, group: GroupBaseline, column: int, at_s: float, methods: Methods) -> list[Score]:
    out = []
    for name, (warn, act) in judged.joint.items():
        for s in np.flatnonzero(warn[:, column] > 1):
            assert judged.rows is not None  # noqa: S101 - set wherever joint is
            row, arrays = judged.rows[s, column], group.select([int(s)]).arrays
            method = methods.joints[name]
            shares = ensemble.contributions(method, row, ensemble.part_of(name, method, arrays), group.signals)
            agreed = bool((judged.warn[s, :, column] > 1).any()) or _confirmed(row, arrays, methods.joints)
            told = ", ".join(f"{signal} ({share:.0%})" for signal, share in list(shares.items())[:3])
            out.append(
                Score(
                    service=group.services[s],
                    detector=name,
                    signal=next(iter(shares), group.signals[0]),
                    at_s=at_s,
                    score=float(warn[s, column]),
                    tier="act" if act[s, column] > 1 and agreed else "warn",
                    contributions=shares,
                    reason=f"{name}: unusual together, mostly {told}",
                    kind="joint",
                )
            )
    return out


def _confirmed(row: Floats, arrays: Mapping[str, Floats], joints: Mapping[str, Joint]) -> bool:
    """Whether a joint detector that opens nothing by itself calls a row strange. row: (features,)."""
    asked = {name: method for name, method in joints.items() if np.isfinite(method.confirms_above)}
    parts: Iterable[tuple[Joint, dict[str, Floats]]] = (
        (method, ensemble.part_of(name, method, arrays)) for name, method in asked.items()
    )
    return any(part and method.score(row[None, None], part)[0, 0] > method.confirms_above for method, part in parts)


def _own_scores(judged: Judged, group: GroupBaseline, column: int, at_s: float, methods: Methods) -> list[Score]:
    found = []
    chosen = methods.own_for(group.signals)
    for name, level in judged.own.items():
        method = methods.own[name]
        for s, j in np.argwhere(np.nan_to_num(level[:, :, column]) > 1):
            signal = signal_of(group.signals[chosen[name][j]])
            score = float(level[s, j, column])
            found.append(
                Score(
                    service=group.services[s],
                    detector=name,
                    signal=signal.name,
                    at_s=at_s,
                    score=score,
                    tier="warn",
                    reason=method.reason(signal.title, score * float(group.arrays[f"own/{name}"][s, j])),
                    kind="own",
                    symptom=method.symptom,
                )
            )
    return found
