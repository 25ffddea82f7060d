"""Latencies in logarithmic bins of 2 %: small to write per second, and windows of them add up to honest percentiles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

STEP = math.log(1.02)


def bin_of(ms: float) -> int:
    return max(0, math.ceil(math.log(max(ms, 0.1) / 0.1) / STEP))


def upper_ms(number: int) -> float:
    return 0.1 * math.exp(number * STEP)


def count(latencies_ms: Iterable[float]) -> dict[int, int]:
    bins: dict[int, int] = {}
    for ms in latencies_ms:
        number = bin_of(ms)
        bins[number] = bins.get(number, 0) + 1
    return bins


def merge(many: Iterable[Mapping[int, int]]) -> dict[int, int]:
    total: dict[int, int] = {}
    for bins in many:
        for number, n in bins.items():
            total[number] = total.get(number, 0) + n
    return total


def quantile_ms(bins: Mapping[int, int], q: float) -> float | None:
    """Nearest-rank quantile, at most 2 % too high; None without a single latency."""
    total = sum(bins.values())
    if not total:
        return None
    rank, seen = math.ceil(q * total), 0
    for number in sorted(bins):
        seen += bins[number]
        if seen >= rank:
            return upper_ms(number)
    return None
