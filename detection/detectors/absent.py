"""Absent data as a finding of its own: a service whose signals all stopped, or that never had any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from detection.model import FloatArray, MetricWindow, Score, Service
from detection.ports import Baseline
from detection.rule import recently
from detection.settings import DetectionSettings


class AbsentData:
    """Fires when no signal of a service has a number for absent_for_s; never reads missing as zero.

    A service that had data and lost it is tier act; one without any series in the whole look-back is tier warn,
    because it may not be deployed yet or its selectors may be wrong.
    """

    name = "absent"
    rule = "absent_data"

    def __init__(self, services: Sequence[Service], settings: DetectionSettings) -> None:
        self._services = tuple(service.name for service in services)
        override = settings.rules.get(self.rule)
        self._enabled = override is None or override.enabled
        self._for_s = settings.absent_for_s if override is None or override.for_s is None else override.for_s
        self._tier = override.tier if override is not None else None

    def learn(self, history: Mapping[str, MetricWindow]) -> Baseline:
        """Nothing."""
        return {}

    def score(self, windows: Mapping[str, MetricWindow], baseline: Baseline, at_s: float) -> Sequence[Score]:
        """A score for every service that is watched: silence over absent_for_s."""
        return [self._one(name, windows.get(name), at_s) for name in self._services] if self._enabled else []

    def may_speak(self, window: MetricWindow, times_s: FloatArray) -> NDArray[np.bool_]:
        """At which of the times nothing was known of late."""
        known = np.any([np.isfinite(series) for series in window.values.values()], axis=0)
        return recently(~known, window.span.times(), times_s, window.span.step_s)

    def _one(self, service: str, window: MetricWindow | None, at_s: float) -> Score:
        newest = newest_sample_s(window, at_s) if window is not None else None
        if newest is None:
            return Score(
                service=service,
                detector=self.name,
                signal=self.rule,
                at_s=at_s,
                score=1.0,
                tier=self._tier or "warn",
                reason="no series at all: not deployed, not scraped, or the selectors match nothing",
                kind="rule",
            )
        silent_s = at_s - newest
        # one missing sample at a coarse step is a gap, not silence
        for_s = max(self._for_s, 1.5 * window.span.step_s) if window is not None else self._for_s
        fires = silent_s > for_s
        return Score(
            service=service,
            detector=self.name,
            signal=self.rule,
            at_s=at_s,
            score=max(1.0, silent_s / for_s) if fires else silent_s / for_s * 0.999,
            tier=(self._tier or "act") if fires else None,
            observed=silent_s,
            expected_high=for_s,
            contributions={"since_s": newest} if fires else {},
            reason=f"no sample of any signal for {silent_s:.0f} s" if fires else "",
            kind="rule",
        )


def newest_sample_s(window: MetricWindow, at_s: float) -> float | None:
    """Time of the newest number of any signal at or before at_s; None when there is none."""
    if window.span.end_s <= at_s + 1e-9 and any(v.size and np.isfinite(v[-1]) for v in window.values.values()):
        return window.span.end_s
    times = window.span.times()
    upto = times <= at_s + 1e-9
    newest = None
    for values in window.values.values():
        finite = np.flatnonzero(np.isfinite(values) & upto)
        if finite.size and (newest is None or times[finite[-1]] > newest):
            newest = float(times[finite[-1]])
    return newest
