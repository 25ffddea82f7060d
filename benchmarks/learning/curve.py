"""Recall over false alarms of any score of the judgements, by the definitions of the labelled cases' score.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.learning.heard import Heard

MERGE_S = 1800.0
DAY_S = 86_400.0
STEPS = 150


@dataclass(frozen=True)
class Count:
    """events, hit: labelled events and those with a flag. false_alarms: runs of flags that touch none. days: quiet."""

    events: int
    hit: int
    false_alarms: int
    days: float

    @property
    def recall(self) -> float:
        return self.hit / max(1, self.events)

    @property
    def false_alarms_per_day(self) -> float:
        return self.false_alarms / max(self.days, 1e-9)


def counted(series: Sequence[Heard], flags: Mapping[str, np.ndarray]) -> Count:
    """flags: by series the flagged epoch seconds."""
    events = hit = false = 0
    days = 0.0
    for one in series:
        scored = one.stamps[one.stamps >= one.begins_s]
        inside = np.zeros(scored.size, bool)
        for start, end in one.windows:
            inside |= (scored >= start) & (scored <= end)
        days += float((~inside).sum()) * one.step_s / DAY_S
        events += len(one.windows)
        on = scored[np.isin(scored, np.rint(flags.get(one.name, np.empty(0))))]
        hit += sum(bool(((on >= start) & (on <= end)).any()) for start, end in one.windows)
        false += sum(
            not any(start <= last and first <= end for start, end in one.windows)
            for first, last in _runs(on, max(MERGE_S, 3 * one.step_s))
        )
    return Count(events, hit, false, days)


def _runs(on: np.ndarray, gap_s: float) -> list[tuple[float, float]]:
    """Flags no further apart than the gap are one alarm: (first, last)."""
    if not on.size:
        return []
    cut = np.flatnonzero(np.diff(on) > gap_s)
    firsts, lasts = on[np.r_[0, cut + 1]], on[np.r_[cut, on.size - 1]]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def curve(series: Sequence[Heard], scores: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> list[Count]:
    """One Count per threshold, from few alarms to many. scores: by series (epoch seconds, score) of its judgements."""
    known = np.concatenate([score for _, score in scores.values()])
    limits = np.unique(np.quantile(known, np.linspace(0, 1, STEPS)))[::-1]
    return [counted(series, {name: at[score >= limit] for name, (at, score) in scores.items()}) for limit in limits]
