"""The shape that the single-series detectors share: an expected band, and how far outside of it a value is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from detection.model import FloatArray, MetricWindow, Score
from detection.panel import Floats, Panel, group_windows, signal_of
from detection.ports import Baseline
from detection.series import Arrays, at_slots, last_hour, learn_series

MIN_POINTS = 12


@dataclass(frozen=True)
class View:
    """Series and what was learned about them, seen from column `first` on (what is before is look-back).

    x: (series, T), compressed. stats: of `learn_series`. known_hour: `last_hour` of x where it was computed before.
    """

    x: Floats
    times: FloatArray
    step_s: float
    stats: Arrays
    first: int = 0
    known_hour: Floats | None = None

    @cached_property
    def now(self) -> Floats:
        """The values to judge: (series, T - first)."""
        return self.x[:, self.first :]

    @cached_property
    def hour(self) -> Floats:
        """The level of the hour before each value to judge."""
        return self.whole_hour[:, self.first :]

    @cached_property
    def whole_hour(self) -> Floats:
        """The same for all columns."""
        return last_hour(self.x, self.step_s) if self.known_hour is None else self.known_hour

    @cached_property
    def clock(self) -> tuple[Floats, Floats]:
        """Centre and scale at the same clock time on past days, for each value to judge."""
        times = self.times[self.first :]
        return (
            at_slots(self.stats["clock_center"], times, self.step_s),
            at_slots(self.stats["clock_scale"], times, self.step_s),
        )

    def column(self, name: str) -> Floats:
        """A statistic as a column, to compute with (series, T - first)."""
        return self.stats[name][:, None]


class Band(Protocol):
    """A method: where a value should be, and how far from there is its own nominal threshold."""

    name: str

    def band(self, view: View) -> tuple[Floats, Floats]:
        """Centre and half width, broadcastable to view.now; (value - centre) / half width is the signed score."""
        ...


class BandDetector:
    """A Band as a detection.ports.Detector: learns per series, scores the newest point of each window."""

    def __init__(self, method: Band) -> None:
        self.method = method
        self.name = method.name

    def learn(self, history: Mapping[str, MetricWindow]) -> Baseline:
        """Arrays by "<group>/<statistic>", and which services and signals the rows are."""
        learned: dict[str, object] = {}
        for index, panel in enumerate(group_windows(history)):
            x, log = flat(panel)
            stats = learn_series(x, panel.times, panel.step_s, log)
            learned[str(index)] = {"services": panel.services, "signals": panel.signals, "stats": stats}
        return learned

    def score(self, windows: Mapping[str, MetricWindow], baseline: Baseline, at_s: float) -> Sequence[Score]:
        """One score per service and signal at at_s."""
        rows = {
            (service, signal): (group["stats"], s * len(group["signals"]) + m)
            for group in baseline.values()
            for s, service in enumerate(group["services"])
            for m, signal in enumerate(group["signals"])
        }
        past = {name: window.between(window.span.start_s, at_s) for name, window in windows.items()}
        return [score for panel in group_windows(past) for score in self._panel(panel, rows, at_s)]

    def _panel(self, panel: Panel, rows: Mapping[tuple[str, str], tuple[Arrays, int]], at_s: float) -> Sequence[Score]:
        x, _ = flat(panel)
        scores = []
        for index, key in enumerate((s, m) for s in panel.services for m in panel.signals):
            found = rows.get(key)
            if found is None or found[0]["n"][found[1]] < MIN_POINTS:
                scores.append(self._abstain(key, at_s, "no history to compare with"))
                continue
            stats = {name: values[found[1] : found[1] + 1] for name, values in found[0].items()}
            view = View(x[index : index + 1], panel.times, panel.step_s, stats, max(0, x.shape[1] - 1))
            scores.append(self._one(view, key, at_s))
        return scores

    def _abstain(self, key: tuple[str, str], at_s: float, reason: str) -> Score:
        return Score(service=key[0], detector=self.name, signal=key[1], at_s=at_s, score=None, reason=reason)

    def _one(self, view: View, key: tuple[str, str], at_s: float) -> Score:
        center, half = (float(np.ravel(part)[0]) for part in self.method.band(view))
        value = float(view.now[0, -1])
        if not np.isfinite([value, center, half]).all():
            return self._abstain(
                key, at_s, "no sample to judge" if not np.isfinite(value) else "nothing to compare with"
            )
        signal = signal_of(key[1])
        signed = (value - center) / half
        score = (
            abs(signed) if signal.worse in ("both", "none") else max(0.0, signed if signal.worse == "up" else -signed)
        )
        back = np.expm1 if signal.log else np.asarray
        low, high, seen = (float(back(v)) for v in (center - half, center + half, value))
        return Score(
            service=key[0],
            detector=self.name,
            signal=key[1],
            at_s=at_s,
            score=score,
            observed=seen,
            expected_low=low,
            expected_high=high,
            reason=f"{self.name}: expected {low:.4g} to {high:.4g}",
        )


def flat(panel: Panel) -> tuple[Floats, NDArray[np.bool_]]:
    """A panel as (services * signals, T), compressed, and which rows are log1p."""
    x = panel.compressed().reshape(len(panel.services) * len(panel.signals), -1)
    return x, np.tile(np.array([signal_of(name).log for name in panel.signals], dtype=bool), len(panel.services))
