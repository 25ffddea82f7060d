"""What requests and tokens cost: the price of a replica's hour times the replicas, over what they answered. Pure.

Three things are needed: the price (`cost_per_hour`), the signal `replicas`, and `qps` (or the generated tokens). Where
one is missing the cost is not known, which is not 0.
"""

from __future__ import annotations

import numpy as np

from detection.model import FloatArray, MetricWindow, Service
from detection.signals import Signal
from tuning import formats
from tuning.model import Cost

PER_1000 = Signal("cost_per_1000", "per 1,000 requests", "up", "cost", log=True)
PER_1M_TOKENS = Signal("cost_per_1m_tokens", "per 1M tokens", "up", "cost of tokens", log=True)
NEEDED = ("replicas", "qps", "generation_tokens_per_s")
"""The signals that a cost is made of."""
_ANSWERS = ((PER_1000, "qps", 3.6), (PER_1M_TOKENS, "generation_tokens_per_s", 3.6e-3))
"""What is counted, and the thousands (millions) of it that one a second makes in an hour."""
_SAME_LOAD = 0.1
"""A load that moved by more than this share explains a cost per request by itself."""


def price_of(service: Service) -> float:
    """What a replica costs an hour; 0.0 where nobody said."""
    lever = service.levers.get("replicas")
    return service.cost_per_hour or (lever.cost_per_hour if lever is not None else 0.0)


def cost_of(window: MetricWindow, price: float) -> Cost | None:
    """The mean cost of a window; None where the price or the replicas are not known."""
    replicas, rate = _mean(window, "replicas"), _mean(window, "qps")
    if price <= 0 or replicas is None:
        return None
    return of_numbers(price * replicas, rate, _mean(window, "generation_tokens_per_s"))


def of_numbers(per_hour: float, qps: float | None, tokens_per_s: float | None) -> Cost:
    return Cost(
        per_hour=per_hour,
        qps=qps,
        per_1000=per_hour / (3.6 * qps) if qps else None,
        per_1m_tokens=per_hour / (3.6e-3 * tokens_per_s) if tokens_per_s else None,
    )


def beside(service: Service, a: MetricWindow, b: MetricWindow) -> tuple[tuple[Signal, FloatArray, FloatArray], ...]:
    """The costs of two sides, point by point, as far as both are known: for `verification.comparison.compare`."""
    price, found = price_of(service), []
    for signal, answers, thousands in _ANSWERS:
        sides = [_series(side, price, answers, thousands) for side in (a, b)]
        if sides[0] is not None and sides[1] is not None:
            found.append((signal, sides[0], sides[1]))
    return tuple(found)


def _series(window: MetricWindow, price: float, answers: str, thousands: float) -> FloatArray | None:
    replicas, rate = window.values.get("replicas"), window.values.get(answers)
    if price <= 0 or replicas is None or rate is None or not np.isfinite(rate).any():
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(rate > 0, replicas * price / (thousands * rate), np.nan)
    return np.asarray(found, dtype=np.float64)


def _mean(window: MetricWindow, signal: str) -> float | None:
    values = window.values.get(signal)
    finite = values[np.isfinite(values)] if values is not None else np.empty(0)
    return float(finite.mean()) if finite.size else None


def moved(before: Cost | None, after: Cost | None) -> str:
    """Before and after in one line, for people: "0.42 → 0.31 per 1,000 requests; 3.10 an hour saved"; "" where neither
    is known. A load that is another one is said: it changes the cost of a request without any change."""
    parts = []
    for field, unit in (("per_1000", "1,000 requests"), ("per_1m_tokens", "1M generated tokens")):
        old, new = (getattr(side, field) if side is not None else None for side in (before, after))
        if old is not None or new is not None:
            parts.append(f"{_money(old)} → {_money(new)} per {unit}")
    if before is not None and after is not None:
        parts.append(_difference(before.per_hour - after.per_hour))
        if before.qps and after.qps and abs(after.qps / before.qps - 1) > _SAME_LOAD:
            parts.append(f"the load moved as well, from {before.qps:.3g} to {after.qps:.3g} requests/s")
    return "; ".join(parts)


def now(cost: Cost) -> str:
    """One cost in one line: "0.42 per 1,000 requests, 6.00 an hour"."""
    parts = [f"{_money(cost.per_1000)} per 1,000 requests"] if cost.per_1000 is not None else []
    parts += [f"{_money(cost.per_1m_tokens)} per 1M generated tokens"] if cost.per_1m_tokens is not None else []
    return ", ".join([*parts, f"{formats.money(cost.per_hour)} an hour"])


def _money(value: float | None) -> str:
    return "not known" if value is None else formats.money(value)


def _difference(saved: float) -> str:
    if abs(saved) < formats.LEAST_MONEY:
        return "as much an hour as before"
    return f"{formats.money(abs(saved))} an hour {'saved' if saved > 0 else 'more'}"
