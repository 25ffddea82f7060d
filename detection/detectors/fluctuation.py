"""Latency fluctuation: a service whose P95 is fine but jumps about more than it used to."""

from __future__ import annotations

import numpy as np

from detection.methods import OwnSeries
from detection.panel import Floats
from detection.series import Arrays, last_hour, median_last


class Fluctuation(OwnSeries):
    """Mean step between neighbouring points over the last hour, against what it usually is.

    On the log1p scale, so it is relative: a service that is twice as slow and calm does not fluctuate. The median of
    the hour's thirds makes one step up or down (a level shift) no fluctuation. ratio: how many times as much as usual
    is its threshold.
    """

    name = "fluctuation"
    symptom = "fluctuation"
    share = 0.05
    signals = ("p50_ms", "p95_ms", "p99_ms", "mean_ms", "batch_ms", "queue_ms")

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio

    def spread(self, x: Floats, step_s: float) -> Floats:
        """Mean absolute step over the last hour at each point: shape of x, (series, T)."""
        steps = np.abs(np.diff(x, axis=1, prepend=np.float32(np.nan)))
        shifted = np.concatenate([steps, steps[:, -1:]], axis=1)
        return last_hour(shifted, step_s)[:, 1:]

    def fit(self, x: Floats, step_s: float, least: Floats) -> dict[str, Floats]:
        """The usual spread of each series, never less than 1 % of its level: shape (series,)."""
        return {"usual": np.fmax(median_last(self.spread(x, step_s)), least)}

    def score(self, x: Floats, step_s: float, arrays: Arrays) -> Floats:
        """Spread over `ratio` times the usual one: (series, T), NaN where it is not known."""
        out: Floats = self.spread(x, step_s) / (np.float32(self._ratio) * arrays["usual"][:, None])
        return out

    def reason(self, title: str, score: float) -> str:
        """How many times as much as usual."""
        return f"{title} fluctuates {score * self._ratio:.1f} times as much as usual over the last hour"
