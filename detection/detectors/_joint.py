"""The joint detectors as detection.ports.Detector: features of whole services in, one score a service out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from detection.calibration import block_maxima, block_s_of, conformal_threshold
from detection.detectors._band import flat
from detection.detectors._features import features
from detection.model import MetricWindow, Score
from detection.panel import Floats, Panel, group_windows
from detection.ports import Baseline
from detection.series import Arrays, learn_series

MIN_SIGNALS = 3
MIN_POINTS = 12
CHANCE = 1 / 28


class Joint(Protocol):
    """A method over feature rows of shape (services, T, features)."""

    name: str

    def fit(self, rows: Floats) -> dict[str, Floats]:
        """What is normal."""
        ...

    def score(self, rows: Floats, arrays: Arrays) -> Floats:
        """Raw scores (services, T), higher is stranger."""
        ...


class JointDetector:
    """A Joint as a Detector, calibrated to about one block in 28."""

    def __init__(self, method: Joint) -> None:
        self.method = method
        self.name = method.name

    def learn(self, history: Mapping[str, MetricWindow]) -> Baseline:
        """Per group of services with the same signals: statistics, the fitted method, a threshold per service."""
        return {str(i): self._group(panel) for i, panel in enumerate(group_windows(history))}

    def _group(self, panel: Panel) -> dict[str, object]:
        learned: dict[str, object] = {"services": panel.services, "signals": panel.signals}
        if len(panel.signals) < MIN_SIGNALS or panel.times.size < MIN_POINTS:
            return learned
        x, log = flat(panel)
        stats = learn_series(x, panel.times, panel.step_s, log)
        rows = features(panel.compressed(), panel.times, panel.step_s, stats)
        arrays = self.method.fit(rows)
        top = block_maxima(self.method.score(rows, arrays), panel.step_s, block_s_of(panel.times.size * panel.step_s))
        return learned | {"stats": stats, "arrays": arrays, "threshold": conformal_threshold(top, CHANCE)}

    def score(self, windows: Mapping[str, MetricWindow], baseline: Baseline, at_s: float) -> Sequence[Score]:
        """One score per service at at_s."""
        groups = {service: group for group in baseline.values() for service in group["services"]}
        return [
            self._one(window.between(window.span.start_s, at_s), groups.get(name), at_s)
            for name, window in windows.items()
        ]

    def _one(self, window: MetricWindow, group: Mapping[str, object] | None, at_s: float) -> Score:
        base = {"service": window.service, "detector": self.name, "signal": None, "at_s": at_s}
        if group is None or "arrays" not in group:
            few = group is not None and len(tuple(group["signals"])) < MIN_SIGNALS  # type: ignore[arg-type]
            return Score(**base, score=None, reason="too few signals" if few else "no history to compare with")
        services, signals = list(group["services"]), list(group["signals"])  # type: ignore[call-overload]
        s = services.index(window.service)
        empty = np.full(window.span.points, np.nan)
        values = np.stack([window.values.get(name, empty) for name in signals])[None].astype(np.float32)
        if values.shape[2] == 0 or not np.isfinite(values[0, :, -1]).any():
            return Score(**base, score=None, reason="no sample to judge")
        panel = Panel((window.service,), tuple(signals), window.span.step_s, window.span.times(), values)
        m = len(signals)
        stats = {k: v[s * m : (s + 1) * m] for k, v in group["stats"].items()}  # type: ignore[attr-defined]
        rows = features(panel.compressed(), panel.times, panel.step_s, stats, values.shape[2] - 1)
        arrays = {k: v if self.name == "isolation_forest" else v[s : s + 1] for k, v in group["arrays"].items()}  # type: ignore[attr-defined]
        threshold = float(group["threshold"][s])  # type: ignore[index]
        return Score(**base, score=float(self.method.score(rows, arrays)[0, -1]) / max(threshold, 1e-9))
