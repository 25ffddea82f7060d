"""The baseline job: what is normal for each service, and the thresholds that its alarm budget buys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from detection import ensemble, weekly
from detection.baselines import BaselineSet, GroupBaseline
from detection.calibration import WEEK_S, block_maxima, block_s_of, chance_per_block, conformal_threshold
from detection.methods import Joint, Methods, View
from detection.model import MetricWindow, Service, Tier
from detection.panel import Floats, Panel, group_windows, panel_at, signal_of
from detection.ports import Baseline
from detection.series import median_last, robust_spread
from detection.settings import DetectionSettings

LOOK_BACK_STEPS = 16
CHUNK = 16
FIT_ROWS = 100_000
FEW = 2
NOMINAL_SD = 3.0
"""What a nominal threshold of the votes amounts to, in standard deviations of an ordinary series."""
BY_CHANCE_PER_WEEK, TWICE_PER_WEEK = 1.0 / 13.0, 1.0
"""How many judgements a week of a service of several signals may pass its thresholds if it is ordinary, over all its
signals: one in a quarter of a year; one a week of those that the act tier asks for twice running instead."""
JOINT_NOMINAL, JOINT_ALONE, OWN_NOMINAL = 4.0, 6.0, 7.0
"""Scores that lie within so many standard deviations of the usual are ordinary, whatever the budget would allow.

JOINT_NOMINAL counts where the votes of one signal reach their nominal threshold, JOINT_ALONE where no signal votes, and
in between in proportion: an excursion that many signals share by chance shows in none of them. Fixed on the development
seeds of the healthy weeks and the development half of the labelled servers: with 4 for all, a service of seven signals
warns two to three times in six healthy weeks; with 4.5 for all, recall on the servers falls from 0.87 to 0.74; with
these it stays.
"""
Spans = Mapping[str, Sequence[tuple[float, float]]]


def learn(
    services: Sequence[Service],
    history: Mapping[str, MetricWindow],
    leave_out: Spans,
    settings: DetectionSettings,
    previous: BaselineSet | None = None,
    alarm_since_s: Mapping[str, float] | None = None,
    *,
    methods: Methods,
    weeks: Mapping[str, MetricWindow] | None = None,
) -> BaselineSet:
    """Baselines of all services from their history, for the given detectors.

    weeks: what was before the history, at any step, from which with the history the habits of the week are learned.

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
    before = {name: _without(window, leave_out.get(name, ())) for name, window in (weeks or {}).items()}
    panels = [panel for panel in group_windows(usable) if judged_signals(panel.signals)]
    groups = [_learn_group(panel, before, settings, methods) for panel in panels]
    judged = {name for panel in panels for name in panel.services}
    abstained |= {name: "no history: none of its signals can be judged" for name in usable if name not in judged}
    kept = [part for part in (_keep(group, frozen) for group in (previous.groups if previous else ())) if part]
    return BaselineSet((*groups, *kept), abstained, _spoken(usable, methods, previous))


def _spoken(usable: Mapping[str, MetricWindow], methods: Methods, previous: BaselineSet | None) -> dict[str, Baseline]:
    """What each detector that speaks for itself learned; of services that stand still, what it learned before."""
    before = previous.spoken if previous is not None else {}
    return {name: {**before.get(name, {}), **method.learn(usable)} for name, method in methods.speaking.items()}


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


def _learn_group(
    panel: Panel, weeks: Mapping[str, MetricWindow], settings: DetectionSettings, methods: Methods
) -> GroupBaseline:
    """Learns chunk by chunk, so that memory does not grow with the number of services beyond their history."""
    keep = judged_signals(panel.signals)
    panel = replace(panel, signals=tuple(panel.signals[k] for k in keep), values=panel.values[:, keep])
    job = _Job(methods, panel.signals, panel.step_s, block_s_of(panel.times.size * panel.step_s), settings)
    parts: list[dict[str, Floats]] = []
    sample: list[Floats] = []
    strangest: list[Floats] = []
    stride = max(1, -(-panel.times.size * len(panel.services) // FIT_ROWS))
    for first in range(0, len(panel.services), CHUNK):
        chunk = panel.select(range(first, min(first + CHUNK, len(panel.services))))
        view = ensemble.learn_panel(chunk, _week_table(chunk, weeks, settings), methods.defined)
        part = _series_part(chunk, view, job) | _own_part(chunk, view, job)
        if job.joints:
            rows = ensemble.joint_features(view, len(chunk.services), 0)
            part |= _joint_part(rows, job)
            if any(method.pooled for method in job.joints.values()):
                sample.append(rows.reshape(-1, rows.shape[2])[first % stride :: stride])
                strangest.append(_strangest(rows, job.step_s, job.block_s))
        parts.append(part)
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if not arrays.get("series/week_offset", np.zeros(1)).any():
        # most services have no such habits: nothing is kept and nothing is computed for them
        arrays = {name: values for name, values in arrays.items() if not name.startswith("series/week_")}
    if strangest:
        arrays |= _pooled_part(np.concatenate(sample), np.concatenate(strangest), job)
    known = np.isfinite(panel.values).any(axis=1).sum(axis=1) * panel.step_s
    return GroupBaseline(
        panel.services,
        panel.signals,
        panel.step_s,
        np.full(len(panel.services), panel.times[-1]),
        known.astype(np.float64),
        arrays,
    )


@dataclass(frozen=True)
class _Job:
    """What all steps of learning one group share. block_s: length of the blocks that it is calibrated on."""

    methods: Methods
    signals: tuple[str, ...]
    step_s: float
    block_s: float
    settings: DetectionSettings

    @property
    def joints(self) -> dict[str, Joint]:
        return self.methods.joint_for(self.signals)

    def threshold(self, scores: Floats, per_week: float) -> Floats:
        """What scores (rows, T) may reach per_week times a week: (rows,)."""
        return self.of_maxima(block_maxima(scores, self.step_s, self.block_s), per_week)

    def of_maxima(self, top: Floats, per_week: float) -> Floats:
        return conformal_threshold(top, chance_per_block(per_week, self.block_s))

    def budget(self, tier: Tier, name: str | None = None) -> float:
        """Alarms a week: of the tier in all, or the share of one detector."""
        whole = self.settings.budget.act_per_week if tier == "act" else self.settings.budget.warn_per_week
        return whole if name is None else whole * self.methods.share(name, self.signals)


def _week_table(panel: Panel, weeks: Mapping[str, MetricWindow], settings: DetectionSettings) -> Floats | None:
    """Weeks by slots of the series of a panel (see detection.weekly); None where two weeks are not there."""
    slot_s, end_s = weekly.slot_s_of(panel.step_s), float(panel.times[-1])
    count = int(settings.weekly_history_s // weekly.WEEK_S)
    first_s = min([float(panel.times[0]), *(weeks[s].span.start_s for s in panel.services if s in weeks)])
    if count < 2 or end_s - first_s < weekly.WEEK_S + slot_s:
        return None
    x = panel.compressed().reshape(len(panel.services) * len(panel.signals), -1)
    table = weekly.week_table(x, panel.times, end_s, count, slot_s)
    last_s = (float(panel.times[0]) - panel.step_s) // slot_s * slot_s
    points = max(1, round((last_s - end_s + count * weekly.WEEK_S) / slot_s))
    old = panel_at(weeks, panel.services, panel.signals, slot_s, last_s, points)
    before = weekly.week_table(old.compressed().reshape(x.shape[0], -1), old.times, end_s, count, slot_s)
    return np.where(np.isfinite(table), table, before)


def _series_part(panel: Panel, view: View, job: _Job) -> dict[str, Floats]:
    votes = ensemble.votes(view, panel.signals, list(job.methods.bands.values()), job.settings)
    out = {f"series/{name}": values for name, values in view.stats.items()}
    scores_of: dict[Tier, Floats] = {"warn": votes.warn, "act": votes.act}
    for tier, scores in scores_of.items():
        out[f"threshold/{tier}"] = np.fmax(job.threshold(scores, job.budget(tier)), np.float32(1))
        factor = _service_factor(scores, out[f"threshold/{tier}"], panel, tier, job)
        out[f"service/{tier}"] = np.fmax(factor, _least(panel, job, BY_CHANCE_PER_WEEK))
        if tier == "act":
            out["service/twice"] = np.fmax(factor, _least(panel, job, TWICE_PER_WEEK))
    return out


def _least(panel: Panel, job: _Job, per_week: float) -> np.float32:
    several = len(panel.signals) > 1
    return np.float32(nominal_factor(len(panel.signals), job.step_s, per_week) if several else 1.0)


def _service_factor(scores: Floats, threshold: Floats, panel: Panel, tier: Tier, job: _Job) -> Floats:
    """By how much a service's thresholds rise so that all its signals together keep to the budget: (services,)."""
    services = len(panel.services)
    if len(panel.signals) == 1:
        return np.ones(services, np.float32)
    worst = (scores / threshold[:, None]).reshape(services, len(panel.signals), -1)
    return job.threshold(np.nan_to_num(worst, nan=0.0).max(axis=1), job.budget(tier, "votes"))


def nominal_factor(signals: int, step_s: float, per_week: float = BY_CHANCE_PER_WEEK) -> float:
    """By how much a service's thresholds rise at least, because so many signals are looked at so often.

    A nominal threshold is three standard deviations, which some of thousands of ordinary values a week pass by chance:
    the factor leads to where they are per_week for all of a service's signals together.
    """
    judgements = signals * WEEK_S / step_s
    return max(1.0, NormalDist().inv_cdf(1 - per_week / judgements) / NOMINAL_SD)


def _own_part(panel: Panel, view: View, job: _Job) -> dict[str, Floats]:
    """The detectors that watch series in a way of their own: what is usual, and a threshold per series."""
    found: dict[str, Floats] = {}
    services, signals = len(panel.services), len(panel.signals)
    for name, chosen in job.methods.own_for(panel.signals).items():
        method = job.methods.own[name]
        x = view.x.reshape(services, signals, -1)[:, chosen].reshape(services * len(chosen), -1)
        learned = method.fit(x, panel.step_s, view.stats["least"].reshape(services, signals)[:, chosen].ravel())
        scores = method.score(x, panel.step_s, learned)
        threshold = np.fmax(job.threshold(scores, job.budget("warn", name) / len(chosen)), 1)
        threshold = np.fmax(threshold, ordinary(scores, OWN_NOMINAL))
        parts = {**{f"{name}/{key}": values for key, values in learned.items()}, f"own/{name}": threshold}
        found |= {key: values.reshape(services, len(chosen)).astype(np.float32) for key, values in parts.items()}
    return found


def _joint_part(rows: Floats, job: _Job) -> dict[str, Floats]:
    """The joint detectors that are fitted to each service by itself."""
    arrays: dict[str, Floats] = {}
    for name, method in job.joints.items():
        if method.pooled:
            continue
        learned = method.fit(rows)
        arrays |= {ensemble.joint_prefix(name, method) + key: values for key, values in learned.items()}
        if method.share:
            scores = method.running(method.score(rows, learned))
            top = block_maxima(scores, job.step_s, job.block_s)
            least, alone = ordinary(scores, JOINT_NOMINAL), ordinary(scores, JOINT_ALONE)
            arrays |= _joint_thresholds(name, top, job, least, alone)
    return arrays


def _pooled_part(sample: Floats, strangest: Floats, job: _Job) -> dict[str, Floats]:
    """The joint detectors that all services share, calibrated for each on the strangest rows of its blocks."""
    arrays: dict[str, Floats] = {}
    services, blocks, few, width = strangest.shape
    for name, method in job.joints.items():
        if not method.pooled:
            continue
        learned = method.fit(sample[None])
        arrays |= {ensemble.joint_prefix(name, method) + key: values for key, values in learned.items()}
        scores = method.score(strangest.reshape(services, blocks * few, width), learned)
        if method.share:
            arrays |= _joint_thresholds(name, scores.reshape(services, blocks, few).max(axis=2), job)
    return arrays


def ordinary(scores: Floats, deviations: float) -> Floats:
    """Up to where scores (rows, T) are ordinary, whatever the budget allows: (rows,), NaN for rows without scores."""
    out: Floats = median_last(scores) + np.float32(deviations) * robust_spread(scores)
    return out


def _joint_thresholds(
    name: str, top: Floats, job: _Job, least: Floats | float = 0.0, alone: Floats | float = 0.0
) -> dict[str, Floats]:
    """Of both tiers, from the block maxima (rows, blocks), and not below `least`: (rows,).

    alone: where no signal votes, the warn tier is not below it either; `eased` is by how much less where one does.
    """
    wide = np.zeros(top.shape[0], np.float32)
    found = {f"joint/{name}/alone": wide + alone, f"joint/{name}/eased": wide + (alone - least)}
    found = {key: np.nan_to_num(values).astype(np.float32) for key, values in found.items()}
    tiers: tuple[Tier, ...] = ("warn", "act")
    for tier in tiers:
        threshold = job.of_maxima(top, job.budget(tier, name))
        wanted = np.where(np.isfinite(threshold), np.fmax(threshold, least), np.inf)
        found[f"joint/{name}/{tier}"] = wanted.astype(np.float32)
    return found


def _strangest(rows: Floats, step_s: float, block_s: float) -> Floats:
    """The rows of each block that are furthest from normal: (services, blocks, few, features).

    A forest is dear to ask; what it calls strangest is among these.
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
