"""Latency fluctuation: a service whose P95 is fine but jumps about more than it used to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from detection.detectors._band import flat
from detection.model import MetricWindow, Score
from detection.panel import Floats, group_windows
from detection.ports import Baseline
from detection.series import Arrays, floor_scale, last_hour, median_last

SIGNALS = ("p50_ms", "p95_ms", "p99_ms", "mean_ms", "batch_ms", "queue_ms")


class Fluctuation:
    """Mean step between neighbouring points over the last hour, against what it usually is.

    On the log1p scale, so it is relative: a service that is twice as slow and calm does not fluctuate. The median of
    the hour's thirds makes one step up or down (a level shift) no fluctuation.
    """

    name = "fluctuation"

    def spread(self, x: Floats, step_s: float) -> Floats:
        """Mean absolute step over the last hour at each point: shape of x, (series, T)."""
        steps = np.abs(np.diff(x, axis=1, prepend=np.float32(np.nan)))
        shifted = np.concatenate([steps, steps[:, -1:]], axis=1)
        return last_hour(shifted, step_s)[:, 1:]

    def fit(self, spread: Floats, least: Floats) -> dict[str, Floats]:
        """The usual spread of each series, never less than 1 % of its level: shape (series,)."""
        return {"usual": np.fmax(median_last(spread), least)}

    def score(self, spread: Floats, arrays: Arrays, ratio: float) -> Floats:
        """Spread over `ratio` times the usual one: (series, T), NaN where it is not known."""
        out: Floats = spread / (np.float32(ratio) * arrays["usual"][:, None])
        return out


class FluctuationDetector:
    """Fluctuation as a detection.ports.Detector, on the latency signals of each window."""

    name = "fluctuation"

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio

    def learn(self, history: Mapping[str, MetricWindow]) -> Baseline:
        """The usual spread by "service/signal"."""
        learned: dict[str, float] = {}
        for panel in group_windows(history, SIGNALS):
            x, log = flat(panel)
            spread = Fluctuation().spread(x, panel.step_s)
            usual = Fluctuation().fit(spread, floor_scale(median_last(x), log))["usual"]
            keys = [f"{service}/{signal}" for service in panel.services for signal in panel.signals]
            learned |= {key: float(value) for key, value in zip(keys, usual, strict=True) if np.isfinite(value)}
        return learned

    def score(self, windows: Mapping[str, MetricWindow], baseline: Baseline, at_s: float) -> Sequence[Score]:
        """One score for each latency signal."""
        past = {name: window.between(window.span.start_s, at_s) for name, window in windows.items()}
        found = []
        for panel in group_windows(past, SIGNALS):
            spread = Fluctuation().spread(flat(panel)[0], panel.step_s)[:, -1]
            keys = [(service, signal) for service in panel.services for signal in panel.signals]
            found += [self._one(key, float(value), baseline, at_s) for key, value in zip(keys, spread, strict=True)]
        return found

    def _one(self, key: tuple[str, str], spread: float, baseline: Baseline, at_s: float) -> Score:
        usual = baseline.get(f"{key[0]}/{key[1]}")
        known = usual is not None and np.isfinite(spread)
        reason = (
            "" if known else ("no history to compare with" if usual is None else "too few samples in the last hour")
        )
        score = spread / (self._ratio * usual) if usual is not None and known else None
        return Score(service=key[0], detector=self.name, signal=key[1], at_s=at_s, score=score, reason=reason)
