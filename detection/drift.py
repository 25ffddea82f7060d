"""Drift as information: does today's distribution differ from the past days' more than those differ from each other?

KS and PSI assume independent samples; on real, uneventful days their textbook limits fire on 67 % and 36 % of days.
So both are measured day against other days, and the limit is what the service's own past days show, leave-one-out.
Drift re-fits the baselines and adds a line to the report; it never changes anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detection.model import FloatArray, MetricWindow

DAY_S = 86_400.0
BINS = 10
FLOOR = 1e-3
MIN_DAYS = 4
MIN_POINTS = 96
PSI_LIMIT = 0.25
KS_LIMIT = 0.2
MARGIN = 1.5


@dataclass(frozen=True, slots=True)
class Drift:
    """One signal of one service compared over whole days. psi_limit, ks_limit: from its own past days.

    drifted: both measures beyond their limits on the two newest days. reason: a line for the report, or why nothing
    can be said.
    """

    service: str
    signal: str
    psi: float | None
    ks: float | None
    psi_limit: float | None
    ks_limit: float | None
    drifted: bool
    reason: str


def psi(reference: FloatArray, current: FloatArray) -> float:
    """Population stability index over ten quantile bins of the reference; shares floored at 0.001."""
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]))
    a = np.bincount(np.searchsorted(edges, reference), minlength=edges.size + 1) / reference.size
    b = np.bincount(np.searchsorted(edges, current), minlength=edges.size + 1) / current.size
    a, b = np.maximum(a, FLOOR), np.maximum(b, FLOOR)
    return float(np.sum((b - a) * np.log(b / a)))


def ks(reference: FloatArray, current: FloatArray) -> float:
    """Kolmogorov-Smirnov distance: the largest gap between the two distribution functions, 0..1."""
    both = np.sort(np.concatenate([reference, current]))
    a = np.searchsorted(np.sort(reference), both, side="right") / reference.size
    b = np.searchsorted(np.sort(current), both, side="right") / current.size
    return float(np.abs(a - b).max())


def whole_days(window: MetricWindow, signal: str) -> list[FloatArray]:
    """The known values of each whole day that ends at the window's end, oldest first."""
    values = window.values[signal]
    size = round(DAY_S / window.span.step_s)
    days = values.size // size
    if days == 0:
        return []
    cut = values[values.size - days * size :].reshape(days, size)
    return [day[np.isfinite(day)] for day in cut]


def check_drift(window: MetricWindow, signal: str) -> Drift:
    """Compares the two newest whole days with those before; see the module for how limits are found."""
    days = [day for day in whole_days(window, signal) if day.size >= MIN_POINTS]
    if len(days) < MIN_DAYS + 2:
        reason = f"{len(days)} whole days of {signal} with enough points, {MIN_DAYS + 2} are needed"
        return Drift(window.service, signal, None, None, None, None, False, reason)
    past, newest = days[:-2], days[-2:]
    loo = [(np.concatenate(past[:i] + past[i + 1 :]), day) for i, day in enumerate(past)]
    psi_limit = max(PSI_LIMIT, MARGIN * max(psi(reference, day) for reference, day in loo))
    ks_limit = max(KS_LIMIT, MARGIN * max(ks(reference, day) for reference, day in loo))
    reference = np.concatenate(past)
    psis, gaps = [psi(reference, day) for day in newest], [ks(reference, day) for day in newest]
    drifted = min(psis) > psi_limit and min(gaps) > min(ks_limit, 0.99)
    reason = (
        f"{signal} has drifted: PSI {psis[-1]:.2f} (its own days reach {psi_limit:.2f}), KS {gaps[-1]:.2f}"
        if drifted
        else f"{signal}: no drift beyond what its own days show"
    )
    return Drift(window.service, signal, psis[-1], gaps[-1], psi_limit, ks_limit, drifted, reason)
