"""Services whose weekends differ: healthy weeks are no news, a fault on a weekday is, and so is a day like no other.

Made up, like benchmarks.detection.recordings: the load has a daily curve, autocorrelated noise and a weekend of its
own in one of several shapes; in a `whole` service latency, queue and busyness follow the load.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.detection.recordings import STEP_S, ar1
from detection.backtest.replay import Replay
from detection.model import FloatArray, MetricWindow, Service, Slo, Span
from detection.settings import DetectionSettings

DAY_S = 86_400.0
WEEK_S = 7 * DAY_S
MONDAY_S = 1_699_228_800.0
SHAPES = ("step", "ramp", "shifted", "flat")
DEV_SEEDS = (1, 2)
REPORT_SEEDS = (11, 12, 13)
WEEKS = 8
HISTORY_WEEKS = 2
LIFT = 1.6
FAULT = 1.4
FAULT_S = 4 * 3600.0
LEARN_EVERY_S = 24 * 3600.0
KINDS = ("load", "whole")


@dataclass(frozen=True)
class Weeks:
    """One recording: when each stretch is, in epoch seconds."""

    name: str
    window: MetricWindow
    fault_s: tuple[float, float]
    odd_day_s: tuple[float, float]


def make(seed: int, shape: str, *, whole: bool) -> Weeks:
    """Eight weeks from a Monday on; in the last one a fault on Wednesday and a Friday that is like a weekend."""
    rng = np.random.default_rng(seed)
    n = int(WEEKS * WEEK_S / STEP_S)
    span = Span(MONDAY_S, MONDAY_S + (n - 1) * STEP_S, STEP_S)
    t = span.times()
    swing, phase = rng.uniform(0.1, 0.4), rng.uniform(0, 2 * np.pi)
    last = MONDAY_S + (WEEKS - 1) * WEEK_S
    begins_s = last + 2 * DAY_S + float(rng.uniform(8, 16)) * 3600
    fault_s = (begins_s, begins_s + FAULT_S)
    odd_s = (last + 4 * DAY_S, last + 5 * DAY_S)
    weekend = _weekend(t, 3 * 3600.0 if shape == "ramp" else 0.0)
    weekend = np.maximum(weekend, (t >= odd_s[0]) & (t < odd_s[1]))
    day = 1 + swing * np.sin(2 * np.pi * t / DAY_S + phase)
    other = {"shifted": 1 + swing * np.sin(2 * np.pi * (t / DAY_S - 0.15) + phase), "flat": np.ones(n)}.get(shape, day)
    load = day * (1 - weekend) + LIFT * other * weekend
    load = load * np.exp(ar1(rng, n, 0.8, rng.uniform(0.03, 0.07)))
    in_fault = (t >= fault_s[0]) & (t < fault_s[1])
    peak = float(10 ** rng.uniform(1.5, 3))
    values = {"qps": peak * load * np.where(in_fault, FAULT, 1.0)}
    if whole:
        values |= _rest(rng, load, np.where(in_fault, FAULT, 1.0))
    kind = "whole" if whole else "load"
    name = f"{shape}-{kind}-{seed}"
    return Weeks(name, MetricWindow(name, span, values, "histogram"), fault_s, odd_s)


def _weekend(t: FloatArray, ramp_s: float) -> FloatArray:
    """1 on Saturday and Sunday, 0 else; over ramp_s on either side in between."""
    into = (t - MONDAY_S) % WEEK_S
    if ramp_s == 0:
        return (into >= 5 * DAY_S).astype(float)
    edge = np.minimum(np.abs(into - 5 * DAY_S), np.minimum(into, WEEK_S - into)) / ramp_s
    inside = into >= 5 * DAY_S
    out: FloatArray = np.where(inside, 0.5 + np.clip(edge, 0, 1) / 2, 0.5 - np.clip(edge, 0, 1) / 2)
    return out


def _rest(rng: np.random.Generator, load: FloatArray, fault: FloatArray) -> dict[str, FloatArray]:
    n = load.size
    compute = np.exp(ar1(rng, n, 0.7, 0.03)) * rng.uniform(4, 20) * fault
    rho = np.clip(rng.uniform(0.2, 0.3) * load, 0.01, 0.93)
    queue = compute * rho / (1 - rho) * np.exp(ar1(rng, n, 0.5, 0.1))
    p95 = (compute + queue) * 2.2 * np.exp(ar1(rng, n, 0.4, 0.05))
    return {
        "p95_ms": p95,
        "mean_ms": compute + queue,
        "queue_ms": queue,
        "batch_ms": compute,
        "gpu_util": np.clip(rho * np.exp(ar1(rng, n, 0.4, 0.03)), 0, 1),
        "error_rate": np.abs(ar1(rng, n, 0.3, 0.0008)),
    }


def measure(
    seeds: tuple[int, ...], settings: DetectionSettings, kinds: tuple[str, ...] = KINDS
) -> dict[str, dict[str, float]]:
    """By kind of service: incidents and flagged share of the healthy weeks, share of fault and odd day flagged.

    The first HISTORY_WEEKS are only history; the worst service counts where it says `most` or `least`.
    """
    return {
        kind: _summed(
            [judged(make(seed, shape, whole=kind == "whole"), settings) for seed in seeds for shape in SHAPES]
        )
        for kind in kinds
    }


def judged(case: Weeks, settings: DetectionSettings) -> dict[str, float]:
    """One recording replayed after its first two weeks: what was opened and flagged, by stretch."""
    service = Service(name=case.name, serving="recorded", slo=Slo(p95_ms=1e9, error_rate=1.0))
    replay = Replay([service], {case.name: case.window}, settings, LEARN_EVERY_S)
    replay.done_s = MONDAY_S + HISTORY_WEEKS * WEEK_S - STEP_S
    for _ in replay.run():
        pass
    verdict = replay.verdicts[case.name]
    at, warn, act = (np.array(part) for part in (verdict.times, verdict.warn, verdict.act))
    healthy = at < case.fault_s[0]
    fault = (at >= case.fault_s[0]) & (at < case.fault_s[1])
    odd = (at >= case.odd_day_s[0]) & (at < case.odd_day_s[1])
    opened = [incident for incident in replay.incidents.values() if incident.detected_at_s < case.fault_s[0]]
    return {
        "act_incidents": sum(incident.tier == "act" for incident in opened),
        "warnings": sum(incident.tier == "warn" for incident in opened),
        "healthy_flagged": float(warn[healthy].mean()),
        "healthy_acted": float(act[healthy].mean()),
        "fault_flagged": float(warn[fault].mean()),
        "odd_day_flagged": float(warn[odd].mean()),
    }


def _summed(found: list[dict[str, float]]) -> dict[str, float]:
    column = {key: np.array([one[key] for one in found]) for key in found[0]}
    return {
        "services": len(found),
        "act_incidents_most": int(column["act_incidents"].max()),
        "warnings_mean": round(float(column["warnings"].mean()), 3),
        "warnings_most": int(column["warnings"].max()),
        "services_with_more_than_one_warning": int((column["warnings"] > 1).sum()),
        "healthy_flagged": round(float(column["healthy_flagged"].mean()), 4),
        "fault_flagged_mean": round(float(column["fault_flagged"].mean()), 3),
        "fault_flagged_least": round(float(column["fault_flagged"].min()), 3),
        "odd_day_flagged_mean": round(float(column["odd_day_flagged"].mean()), 3),
    }
