"""From requests to steps, and from steps to the knee. Pure; draws come from a seeded generator that is handed in.

Latencies under load come in runs: one slow batch makes a hundred slow requests. So an interval of a P95 resamples
stretches of time, not requests (moving blocks: Künsch, "The jackknife and the bootstrap for general stationary
observations", 1989), and the knee's interval carries these draws through everything that comes after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from detection.model import FloatArray
from slotune.stress.model import LOCAL, OK, Knee, Plan, Raw, Seen, Step, Verdict
from tuning.formats import ms
from tuning.model import Interval

DRAWS = 200
_BLOCKS = 8
_LEVELS = (0.05, 0.95)
FEW_BLOCKS = 1.23
"""What an interval from 8 blocks is short of: sqrt(8 / 7) for the spread, and Student's t of 7 degrees of freedom over
the normal, 1.895 / 1.645."""
LUCK_OF_STEPS = 1.7
"""By how much the knee's interval is wider than its draws: they do not know that the line is only nearly straight, nor
that which rates were tried followed from what was seen. Chosen so that 90 % of 200 tests on development seeds hold the
truth (benchmarks.stress)."""
AROUND = 0.35
"""How far (log) from the knee a step still tells where it is: a straight line holds that far in queues of all kinds."""
_MOST_VALUES = 20_000
LAG_FLOOR_MS, LAG_SHARE = 5.0, 0.1
"""A step is the generator's own limit where the P95 of its lateness is more than this and more than this share of the
P95 that it measured: a timer wakes within 1 ms, and what comes later is a machine that is too busy."""
CPU_MOST = 0.9
"""Or where this process used more of its one core than this: answers are then read late as well."""
_WELL = 0.9
"""Share of requests that have to be answered for the service to be back."""
RISE = 2.0
"""P95 has turned where two lines explain it and it has risen by this factor over its level."""


def p95_draws(values: FloatArray, due_s: FloatArray, rng: np.random.Generator) -> tuple[float, FloatArray]:
    """P95 and DRAWS resampled ones; NaN of nothing."""
    if not values.size:
        return float("nan"), np.full(DRAWS, np.nan)
    stride = max(1, values.size // _MOST_VALUES)
    values, due_s = values[::stride], due_s[::stride]
    edges = np.linspace(due_s.min(), np.nextafter(due_s.max(), np.inf), _BLOCKS + 1)
    block = np.searchsorted(edges, due_s, side="right") - 1
    blocks = [values[block == k] for k in range(_BLOCKS)]
    blocks = [one for one in blocks if one.size]
    chosen = rng.integers(len(blocks), size=(DRAWS, len(blocks)))
    drawn = np.array([np.quantile(np.concatenate([blocks[k] for k in row]), 0.95) for row in chosen])
    return float(np.quantile(values, 0.95)), drawn


def interval(value: float, drawn: FloatArray) -> Interval:
    low, high = _wide(float(np.log(value)), np.log(drawn)) if value > 0 else (0.0, 0.0)
    return Interval(value=value, low=float(np.exp(low)), high=float(np.exp(high)))


def summarise(raw: Raw, plan: Plan, rng: np.random.Generator) -> tuple[Step, Mapping[str, FloatArray]]:
    """A step's figures, and the draws of each objective's P95."""
    seen, length_s = raw.seen, max(raw.seen.due_s[-1] - raw.seen.due_s[0], 1e-9) if raw.seen.sent > 1 else 1e-9
    found = {name: p95_draws(*seen.values(name), rng) for name in plan.limits}
    p95 = {name: interval(*pair) for name, pair in found.items() if np.isfinite(pair[0])}
    whole, _ = seen.values("p95_ms")
    verdict, why = judge(raw, plan, {name: one.value for name, one in p95.items()})
    lags = seen.lag_ms[np.isfinite(seen.lag_ms)]
    step = Step(
        rate_per_s=raw.rate_per_s,
        sent_per_s=raw.sent_per_s,
        answered_per_s=float((seen.status == OK).sum() / length_s) if seen.sent > 1 else 0.0,
        start_s=raw.start_s,
        end_s=raw.end_s,
        requests=seen.sent,
        p50_ms=float(np.median(whole)) if whole.size else float("nan"),
        p99_ms=float(np.quantile(whole, 0.99)) if whole.size else float("nan"),
        p95=p95,
        errors=seen.error_share,
        lag_p95_ms=float(np.quantile(lags, 0.95)) if lags.size else 0.0,
        cpu=raw.cpu,
        verdict=verdict,
        why=why,
    )
    return step, {name: pair[1] for name, pair in found.items()}


def judge(raw: Raw, plan: Plan, p95: Mapping[str, float]) -> tuple[Verdict, str]:
    """What a step says of the service, or that it says nothing of it.

    A generator that comes late makes latencies longer, never shorter: what met its limits has met them, and only what
    did not is in doubt. Failures are the service's own.
    """
    seen = raw.seen
    if raw.stopped == "interrupted":
        return "interrupted", "interrupted before its end"
    if raw.stopped == "errors":
        return "errors", f"{seen.error_share:.1%} of the requests failed"
    local = int((seen.status == LOCAL).sum())
    if local:
        return "generator", f"{local} requests could not be sent: this machine has no more sockets for them"
    over = [f"{ms(p95[name])} of {ms(limit)}" for name, limit in plan.limits.items() if p95.get(name, 0.0) > limit]
    if over or raw.stopped == "stopped":
        if (own := own_limit(raw, p95)) is not None:
            return "generator", own
        if raw.stopped == "stopped":
            return "stopped", f"ended early: P95 beyond {plan.stop_p95:g} times its limit"
        return "broken", "P95 " + ", ".join(over)
    if set(p95) != set(plan.limits):
        return "broken", "no request was answered"
    if seen.error_share > plan.error_rate:
        return "broken", f"{seen.error_share:.1%} of the requests failed ({plan.error_rate:.1%} are promised)"
    return "met", ""


def own_limit(raw: Raw, p95: Mapping[str, float]) -> str | None:
    """Why a long P95 may be the machine's that sends; None where it is not."""
    if raw.cpu > CPU_MOST:
        return f"this process used {raw.cpu:.0%} of its core"
    lags = raw.seen.lag_ms[np.isfinite(raw.seen.lag_ms)]
    lag = float(np.quantile(lags, 0.95)) if lags.size else 0.0
    if lag > LAG_FLOOR_MS and lag > LAG_SHARE * min(p95.values(), default=np.inf):
        return f"requests were sent late (P95 of it {ms(lag)})"
    return None


def knee(steps: Sequence[Step], drawn: Sequence[Mapping[str, FloatArray]], plan: Plan) -> Knee:
    """Where the worst objective crosses its limit: where a straight line through log P95 against log rate, of the steps
    around, passes it. One step's P95 is noisy, its neighbours know more together.

    The neighbours are those around where the monotone series (pool adjacent violators) crosses; where they are fewer
    than three, that crossing is the knee, and its interval holds the rates on both sides. Steps that say nothing of the
    service are left out.
    """
    usable = [k for k, step in enumerate(steps) if step.verdict in ("met", "broken", "stopped", "errors")]
    usable.sort(key=lambda k: steps[k].rate_per_s)
    held = [steps[k].rate_per_s for k in usable if steps[k].verdict == "met"]
    # What broke once and was met when it was tried again, or at a higher rate, was chance.
    over = [rate for k in usable if steps[k].verdict != "met" and (rate := steps[k].rate_per_s) > max(held, default=0)]
    if not over:
        return Knee(None, max(held, default=0.0), None)
    under = [rate for rate in held if rate < min(over)]
    if not under:
        return Knee(None, 0.0, min(over))
    rates = np.log([steps[k].rate_per_s for k in usable])
    weights = np.array([max(1, steps[k].requests) for k in usable], dtype=float)
    level = np.array([_ratio(steps[k], {n: i.value for n, i in steps[k].p95.items()}, plan) for k in usable])
    near = crossing(rates, monotone(level, weights))
    near = float(np.log(max(under))) if near is None else near
    value = crossing_of_line(rates, level, weights, near)
    draws = [
        np.array([_ratio(steps[k], {n: d[draw] for n, d in drawn[k].items()}, plan) for k in usable])
        for draw in range(DRAWS)
    ]
    again = [crossing_of_line(rates, ratio, weights, near) for ratio in draws]
    sure = value is not None and sum(one is not None for one in again) > DRAWS / 2
    if not sure:
        again = [crossing(rates, monotone(ratio, weights)) for ratio in draws]
    centre = value if value is not None and sure else near
    low, high = _wide(centre, np.array([one for one in again if one is not None]), LUCK_OF_STEPS)
    if not sure:
        low, high = min(low, float(np.log(max(under)))), max(high, float(np.log(min(over))))
    return Knee(float(np.exp(centre)), float(np.exp(low)), float(np.exp(high)))


def _wide(centre: float, again: FloatArray, more: float = 1.0) -> tuple[float, float]:
    """The draws' interval around a centre, widened for the few blocks that each P95 was resampled from, and by `more`.
    """
    if not again.size:
        return centre, centre
    low, high = np.quantile(again, _LEVELS)
    factor = more * FEW_BLOCKS
    return centre + factor * min(float(low) - centre, 0.0), centre + factor * max(float(high) - centre, 0.0)


def crossing_of_line(rates: FloatArray, ratio: FloatArray, weights: FloatArray, near: float) -> float | None:
    """Where the weighted least-squares line through the points around `near` passes 0; None where they are fewer than
    three, where it does not rise, or where it passes beyond them."""
    around = np.abs(rates - near) <= AROUND
    if around.sum() < 3:
        return None
    x, y, w = rates[around] - near, ratio[around], weights[around]
    x_mean, y_mean = float(np.average(x, weights=w)), float(np.average(y, weights=w))
    slope = float((w * (x - x_mean) * (y - y_mean)).sum() / (w * (x - x_mean) ** 2).sum())
    if slope <= 0:
        return None
    at = x_mean - y_mean / slope
    return near + at if abs(at) <= AROUND else None


def _ratio(step: Step, p95: Mapping[str, float], plan: Plan) -> float:
    """log of the worst objective over its limit, at most that of stop_p95: beyond it, it tells how long a step was; a
    step that was broken by its errors lies there as well."""
    most = float(np.log(plan.stop_p95))
    ratios = [float(np.log(p95[name] / limit)) for name, limit in plan.limits.items() if p95.get(name, 0.0) > 0]
    if step.verdict == "errors" or step.errors > plan.error_rate:
        return most
    return min(max((one for one in ratios if np.isfinite(one)), default=most), most)


def monotone(values: FloatArray, weights: FloatArray) -> FloatArray:
    """The nearest series that never falls (weighted least squares, pool adjacent violators)."""
    level: list[float] = []
    mass: list[float] = []
    count: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        level.append(value)
        mass.append(weight)
        count.append(1)
        while len(level) > 1 and level[-2] > level[-1]:
            both = mass[-2] + mass[-1]
            level[-2] = (level[-2] * mass[-2] + level[-1] * mass[-1]) / both
            mass[-2], count[-2] = both, count[-2] + count[-1]
            del level[-1], mass[-1], count[-1]
    return np.repeat(level, count)


def crossing(rates: FloatArray, ratio: FloatArray) -> float | None:
    """Where a series that never falls passes 0, linear between its points; None where it does not."""
    over = np.flatnonzero(ratio > 0)
    if not over.size or over[0] == 0:
        return None
    k = int(over[0])
    share = -ratio[k - 1] / (ratio[k] - ratio[k - 1])
    return float(rates[k - 1] + share * (rates[k] - rates[k - 1]))


def turn(steps: Sequence[Step], drawn: Sequence[Mapping[str, FloatArray]], objective: str) -> Interval | None:
    """Where P95 leaves its level: the joint of two lines through log P95 against log rate (least squares), with the
    draws' interval; None where it never rises by RISE, or from fewer than four rates."""
    usable = [
        k for k, step in enumerate(steps) if step.verdict in ("met", "broken", "stopped") and objective in step.p95
    ]
    usable.sort(key=lambda k: steps[k].rate_per_s)
    if len(usable) < 4:
        return None
    rates = np.log([steps[k].rate_per_s for k in usable])
    level = np.log([steps[k].p95[objective].value for k in usable])
    if level[-1] - level[:2].min() < np.log(RISE):
        return None
    joint = _joint(rates, level)
    again = np.exp([_joint(rates, np.log([drawn[k][objective][d] for k in usable])) for d in range(DRAWS)])
    return interval(float(np.exp(joint)), again)


def _joint(rates: FloatArray, level: FloatArray) -> float:
    """The place of the joint that leaves the least squares, among 60 between the second rate and the last."""
    best, place = np.inf, float(rates[-1])
    for at in np.linspace(rates[0], rates[-1], 62)[1:-1]:
        hinge = np.maximum(rates - at, 0.0)
        basis = np.column_stack([np.ones_like(rates), rates - rates[0], hinge])
        fit, *_ = np.linalg.lstsq(basis, level, rcond=None)
        misfit = float(((basis @ fit - level) ** 2).sum())
        if fit[2] > 0 and misfit < best:
            best, place = misfit, float(at)
    return place


def back_after(seen: Seen, limits: Mapping[str, float], end_s: float, window_s: float) -> float | None:
    """Seconds from `end_s` (monotonic, when the load ended) to the first moment from which on a window of requests
    meets every limit; None while there is none. Looks every quarter of a second."""
    if not seen.sent:
        return None
    for start in np.arange(end_s, seen.due_s[-1] - window_s + 1e-9, 0.25):
        inside = (seen.due_s >= start) & (seen.due_s < start + window_s)
        if not inside.any() or float((seen.status[inside] == OK).mean()) < _WELL:
            continue
        if all(_p95_within(seen, name, start, window_s) <= limit for name, limit in limits.items()):
            return float(start - end_s)
    return None


def _p95_within(seen: Seen, name: str, start: float, window_s: float) -> float:
    values, due = seen.values(name)
    values = values[(due >= start) & (due < start + window_s)]
    return float(np.quantile(values, 0.95)) if values.size else float("inf")
