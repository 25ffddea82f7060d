"""Pairs of windows with a known truth, judged by the verifier that production uses."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy import signal, stats

from detection.model import FloatArray, MetricWindow, Slo, Span
from tuning.model import Change, Diagnosis, Option, Plan
from tuning.ports import Evidence
from tuning.verification import get
from tuning.verification.settings import VerificationSettings

STEP_S = 15.0
HISTORY_POINTS = 960
GAP_POINTS = 5
"""Points between the two sides: the settle time."""

PLAN = Plan(
    id="benchmark",
    incident_id="benchmark",
    service="benchmark",
    decided_at_s=0.0,
    mode="act",
    diagnosis=Diagnosis(cause="unknown"),
    chosen=Option(changes=(Change(lever="batch_size", old={"batch_size": 1}, new={"batch_size": 8}),)),
)


@dataclass(frozen=True)
class Case:
    """One row: noise "ar1" (phi) or "rolling" (mean over `window` steps), `sigma` of log P95, and the true effect."""

    phi: float = 0.0
    sigma: float = 0.1
    effect: float = 1.0
    points: int = 15
    history: bool = True
    noise: str = "ar1"
    window: int = 4
    tail: str = "normal"


def series(case: Case, rng: np.random.Generator) -> FloatArray:
    """log P95 around 0, marginal standard deviation `sigma`: history, before, gap, after."""
    n = HISTORY_POINTS * case.history + 2 * case.points + GAP_POINTS
    shocks = rng.standard_t(4, n + 200) / math.sqrt(2) if case.tail == "t4" else rng.normal(size=n + 200)
    if case.noise == "rolling":
        rolled = np.convolve(shocks, np.ones(case.window) / math.sqrt(case.window), mode="valid")
        return np.asarray(rolled[-n:] * case.sigma)
    scaled = shocks * math.sqrt(1 - case.phi**2)
    # the first 200 points let the process forget its start
    return np.asarray(signal.lfilter([1.0], [1.0, -case.phi], scaled)[-n:] * case.sigma)


def pair(case: Case, rng: np.random.Generator) -> tuple[Evidence, Evidence]:
    x = series(case, rng)
    start = x.size - 2 * case.points - GAP_POINTS
    before, after = x[start : start + case.points], x[-case.points :] + math.log(case.effect)
    slo = Slo(p95_ms=100.0)
    history = _window(x[:start], -start * STEP_S) if case.history else None
    offset = (case.points + GAP_POINTS) * STEP_S
    return Evidence(_window(before, 0.0), history=history, slo=slo), Evidence(_window(after, offset), slo=slo)


def _window(logs: FloatArray, start_s: float) -> MetricWindow:
    return MetricWindow(
        "benchmark", Span(start_s, start_s + STEP_S * (logs.size - 1), STEP_S), {"p95_ms": 100.0 * np.exp(logs)}
    )


def mann_whitney_calls(before: FloatArray, after: FloatArray) -> bool:
    """Whether the plain test says "different" at 98 % (normal approximation; the points have no ties)."""
    n, m = before.size, after.size
    u = stats.rankdata(np.concatenate([before, after]))[:n].sum() - n * (n + 1) / 2
    return bool(abs(u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12) > 2.326)


def judge_many(case: Case, pairs: int, seed: int) -> dict[str, float]:
    """Shares of each verdict, and of false ones by a plain Mann-Whitney test at 98 % on the same pairs."""
    verifier = get("before_after")(VerificationSettings())
    rng = np.random.default_rng([seed, *map(ord, repr(case))])
    verdicts: Counter[str] = Counter()
    plain = 0
    for _ in range(pairs):
        before, after = pair(case, rng)
        verdicts[verifier.judge(PLAN, before, after).verdict] += 1
        plain += mann_whitney_calls(before.window.values["p95_ms"], after.window.values["p95_ms"])
    shares = {verdict: verdicts[verdict] / pairs for verdict in ("improved", "unchanged", "worse", "inconclusive")}
    return {**shares, "called": shares["improved"] + shares["worse"], "plain_mann_whitney_called": plain / pairs}
