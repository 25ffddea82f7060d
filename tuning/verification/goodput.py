"""Goodput: answers within the objective per second, which is what counts under overload. Pure.

A queue that stands makes P95 say "over" whether one request in ten is late or all of them are; what a degraded service
is for is the requests that are answered in time.
"""

from __future__ import annotations

import math

import numpy as np

from detection.model import FloatArray
from tuning.model import Guarded
from tuning.ports import Evidence

Z95 = 1.645
"""Standard normal quantile of 95 %."""
SIGNAL = "goodput"


def share_within(side: Evidence) -> float | None:
    """The share (0..1) of the answers that came within the judged objective; None where nothing tells.

    From the histogram, linearly within the bucket that holds the limit; else from the median and P95 of each step, as
    if latency were lognormal, weighted by the requests.
    """
    judged = side.judged
    if judged is None:
        return None
    if side.buckets is not None and np.nansum(side.buckets.counts) > 0:
        return _of_buckets(side.buckets.upper_ms, side.buckets.counts, judged.limit_ms)
    median, p95, qps = (side.window.values.get(name) for name in ("p50_ms", judged.signal, "qps"))
    if judged.signal != "p95_ms" or median is None or p95 is None or qps is None:
        return None
    known = np.isfinite(median) & np.isfinite(p95) & np.isfinite(qps) & (median > 0)
    if not known.any() or not qps[known].sum() > 0:
        return None
    shares = [_lognormal(m, max(p, m), judged.limit_ms) for m, p in zip(median[known], p95[known], strict=True)]
    return float(np.average(shares, weights=qps[known]))


def _of_buckets(upper_ms: FloatArray, counts: FloatArray, limit_ms: float) -> float:
    total = np.nansum(counts, axis=0)
    lower = np.concatenate(([0.0], upper_ms[:-1]))
    width = np.where(np.isfinite(upper_ms), upper_ms - lower, np.inf)
    part = np.clip((limit_ms - lower) / np.maximum(width, 1e-9), 0.0, 1.0)
    return float((total * part).sum() / total.sum())


def _lognormal(median_ms: float, p95_ms: float, limit_ms: float) -> float:
    sd = math.log(p95_ms / median_ms) / Z95
    if sd < 1e-6:
        return float(limit_ms >= p95_ms)
    return 0.5 * (1 + math.erf(math.log(limit_ms / median_ms) / sd / math.sqrt(2)))


def goodput(side: Evidence) -> float | None:
    """Answers within the objective per second; None where nothing tells.

    What is refused is no answer, however fast: a rate of requests is taken as of all that came, and the histogram,
    which holds answers, tells how many were answered. Where it holds what failed as well, that is taken off as if it
    had been in time.
    """
    share, rates = share_within(side), side.window.values.get("qps")
    known = rates[np.isfinite(rates)] if rates is not None else np.empty(0)
    if share is None or not known.size:
        return None
    asked, failed = float(known.mean()), _failed(side)
    answered = _answered(side)
    if answered is None:
        return share * asked * (1 - failed)
    counts_failed = answered > asked * (1 - failed / 2)
    return max(0.0, share * answered - (failed * asked if counts_failed else 0.0))


def _failed(side: Evidence) -> float:
    """The share of the requests that failed, 0..1; 0 where nobody counts them."""
    shares = side.window.values.get("error_rate")
    known = shares[np.isfinite(shares)] if shares is not None else np.empty(0)
    return float(np.clip(known.mean(), 0.0, 1.0)) if known.size else 0.0


def _answered(side: Evidence) -> float | None:
    """Answers per second by the histogram; None without one."""
    if side.buckets is None:
        return None
    seen = np.isfinite(side.buckets.counts).all(axis=1)
    seconds = float(seen.sum()) * side.buckets.span.step_s
    return float(side.buckets.counts[seen].sum()) / seconds if seconds > 0 else None


def compared(before: Evidence, after: Evidence, allowed_drop: float) -> Guarded | None:
    """Goodput before and after. Fewer answers in time AND a smaller share of them is a loss; fewer with as large a
    share means that less was asked for."""
    old, new = goodput(before), goodput(after)
    shares = share_within(before), share_within(after)
    if old is None or new is None or shares[0] is None or shares[1] is None:
        return None
    ok = not (new < (1 - allowed_drop) * old and shares[1] < shares[0])
    text = f"{old:.3g}/s in time before ({shares[0]:.0%} of the answers), {new:.3g}/s after ({shares[1]:.0%})"
    return Guarded(signal=SIGNAL, before=old, after=new, ok=ok, reason=text)


def rose(found: Guarded | None, by: float) -> str:
    """What to say where more answers come in time by at least that share; "" where not."""
    if found is None or found.before is None or found.after is None or not found.ok:
        return ""
    return f"goodput rose: {found.reason}" if found.after > (1 + by) * found.before and found.after > 0 else ""
