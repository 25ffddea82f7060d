"""The figures that slotune is judged by, each with its bootstrap interval over incidents.

Every figure is a ratio of two sums over incidents; a resample draws incidents with replacement, all policies' rows of
an incident together, so that a comparison with another policy stays a comparison on the same incidents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.control.score import Result

RESAMPLES = 4000
LEVEL = 0.95
"""Share of the resamples inside an interval."""

Rows = dict[str, Result]
"""One incident: its row by policy."""


def by_incident(results: Sequence[Result]) -> list[Rows]:
    found: dict[tuple[str, int], Rows] = {}
    for row in results:
        found.setdefault((row.scenario, row.seed), {})[row.policy] = row
    return list(found.values())


def headline(results: Sequence[Result], seed: int = 1) -> dict[str, dict[str, float | int | None]]:
    """value, low, high (95 % bootstrap) and how many incidents, changes or minutes the figure rests on."""
    incidents = by_incident(results)
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(incidents), size=(RESAMPLES, len(incidents))) if incidents else np.empty((0, 0), int)
    policies = {policy for rows in incidents for policy in rows}
    answer = {}
    for name, (needs, part) in FIGURES.items():
        if not policies.issuperset(needs):
            continue
        sums = np.array([part(rows) for rows in incidents], dtype=float)
        answer[name] = _figure(sums, picks, share=name not in RATIOS)
    return answer


def _figure(sums: np.ndarray, picks: np.ndarray, *, share: bool) -> dict[str, float | int | None]:
    """sums: (incidents, 2), numerators and denominators. share: the figure lies between 0 and 1.

    None or all of n cases resample to themselves, which is no certainty: the exact binomial bound (Clopper and Pearson
    1934) stands in there.
    """
    above, below = sums.sum(axis=0)
    if below <= 0:
        return {"value": None, "low": None, "high": None, "of": 0}
    again = sums[picks].sum(axis=1)
    good = again[:, 1] > 0
    ratios = again[good, 0] / again[good, 1]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    if share and above == 0:
        high = 1 - tail ** (1 / below)
    elif share and above == below:
        low = tail ** (1 / below)
    return {
        "value": round(float(above / below), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "of": round(float(below), 1),
    }


Part = Callable[[Rows], tuple[float, float]]


def _of(kind: str, good: Callable[[Result], bool]) -> Part:
    def part(rows: Rows) -> tuple[float, float]:
        mine = rows["slotune"]
        return (float(good(mine)), 1.0) if mine.kind == kind else (0.0, 0.0)

    return part


def _against(policy: str, value: Callable[[Result], float], kinds: Sequence[str]) -> Part:
    def part(rows: Rows) -> tuple[float, float]:
        mine, other = rows["slotune"], rows[policy]
        return (value(mine), value(other)) if mine.kind in kinds else (0.0, 0.0)

    return part


def _wrong(rows: Rows) -> tuple[float, float]:
    return float(rows["slotune"].wrong), float(rows["slotune"].actions)


def _cause(rows: Rows) -> tuple[float, float]:
    mine = rows["slotune"]
    return (float(mine.cause_right), 1.0) if mine.kind in ("curable", "incurable") else (0.0, 0.0)


def _covered(rows: Rows) -> tuple[float, float]:
    seen = [p for p in rows["slotune"].observed if math.isfinite(p[3])]
    return float(sum(low <= found <= high for _, low, high, found in seen)), float(len(seen))


def _near(rows: Rows) -> tuple[float, float]:
    seen = [p for p in rows["slotune"].observed if math.isfinite(p[3])]
    return float(sum(abs(found / predicted - 1) <= 0.2 for predicted, _, _, found in seen)), float(len(seen))


def _untouched(rows: Rows) -> tuple[float, float]:
    mine = rows["slotune"]
    return (float(mine.actions == 0), 1.0) if mine.kind == "needless" else (0.0, 0.0)


def _added(rows: Rows) -> tuple[float, float]:
    """Replica-hours on top of those of the service as it stands, which every policy has."""
    least = rows["nothing"].replica_hours
    return rows["slotune"].replica_hours - least, rows["hpa"].replica_hours - least


def _paid(rows: Rows) -> tuple[float, float]:
    """Replicas added where the cheapest option that cures adds none."""
    mine, best = rows["slotune"], rows["oracle"]
    free = mine.kind == "curable" and best.price <= 0
    return (float(mine.price > 0), 1.0) if free else (0.0, 0.0)


_ALL = ("curable", "incurable", "needless", "borderline")
RATIOS = (
    "violation_min_of_hpa", "violation_min_of_ladder", "violation_min_of_oracle", "replica_hours_of_hpa",
    "replica_hours_of_oracle", "replica_hours_added_of_hpa",
)  # fmt: skip
"""Figures that compare with another policy; all others are shares."""
FIGURES: dict[str, tuple[tuple[str, ...], Part]] = {
    "first_change": (("slotune",), _of("curable", lambda r: r.first)),
    "within_two": (("slotune",), _of("curable", lambda r: r.second)),
    "resolved": (("slotune",), _of("curable", lambda r: r.resolve_s is not None)),
    "hold_right": (("slotune",), _of("incurable", lambda r: r.held_right)),
    "left_alone_where_needless": (("slotune",), _untouched),
    "cause_right": (("slotune",), _cause),
    "wrong": (("slotune",), _wrong),
    "violation_min_of_hpa": (("slotune", "hpa"), _against("hpa", lambda r: r.violation_min, ("curable",))),
    "violation_min_of_ladder": (("slotune", "ladder"), _against("ladder", lambda r: r.violation_min, ("curable",))),
    "violation_min_of_oracle": (("slotune", "oracle"), _against("oracle", lambda r: r.violation_min, ("curable",))),
    "replica_hours_of_hpa": (("slotune", "hpa"), _against("hpa", lambda r: r.replica_hours, _ALL)),
    "replica_hours_of_oracle": (("slotune", "oracle"), _against("oracle", lambda r: r.replica_hours, _ALL)),
    "replica_hours_added_of_hpa": (("slotune", "hpa", "nothing"), _added),
    "paid_where_free_cures": (("slotune", "oracle"), _paid),
    "interval_covers": (("slotune",), _covered),
    "within_20_percent": (("slotune",), _near),
}
"""By name: the policies whose rows it needs, and an incident's share of the two sums."""


def text(figures: dict[str, dict[str, float | int | None]]) -> str:
    """One figure a line."""
    lines = [f"{'figure':28s}  value   {LEVEL:.0%} interval        of"]
    for name, found in figures.items():
        if found["value"] is None:
            lines.append(f"{name:28s}      -")
        else:
            lines.append(
                f"{name:28s} {found['value']:6.3f}   {found['low']:6.3f} .. {found['high']:6.3f} {found['of']:>9}"
            )
    return "\n".join(lines)
