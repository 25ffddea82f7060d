"""The figures of one policy, and the table of all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from benchmarks.control.score import Result


def figures(results: Sequence[Result]) -> dict[str, object]:
    """The figures of one policy, as in the table."""
    curable = [r for r in results if r.kind == "curable"]
    incurable = [r for r in results if r.kind == "incurable"]
    actions = sum(r.actions for r in results)
    times = [r.resolve_s for r in curable if r.resolve_s is not None]
    pairs = [p for r in results for p in r.observed if math.isfinite(p[3])]
    answer: dict[str, object] = {
        "first_change_resolved": _share([r.first for r in curable]),
        "within_two_resolved": _share([r.second for r in curable]),
        "resolved": _share([r.resolve_s is not None for r in curable]),
        "hold_correct": _share([r.held_right for r in incurable]),
        "wrong_actions": round(sum(r.wrong for r in results) / actions, 4) if actions else 0.0,
        "actions": actions,
        "slo_violation_min": round(sum(r.violation_min for r in results), 1),
        "slo_violation_min_curable": round(sum(r.violation_min for r in curable), 1),
        "replica_hours": round(sum(r.replica_hours for r in results), 2),
        "time_to_resolve_s": {
            "p50": round(float(np.quantile(times, 0.5)), 1) if times else None,
            "p90": round(float(np.quantile(times, 0.9)), 1) if times else None,
        },
    }
    known = [p for r in results for p, m in zip(r.observed, r.measured, strict=True) if m and math.isfinite(p[3])]
    if pairs:
        answer["predictions"] = _accuracy(pairs)
    if known:
        answer["predictions_without_int8"] = _accuracy(known)
    return answer


def _accuracy(pairs: Sequence[tuple[float, float, float, float]]) -> dict[str, object]:
    ratio = np.array([observed / predicted for predicted, _, _, observed in pairs])
    return {
        "changes": len(pairs),
        "within_20_percent": _share([bool(0.8 <= r <= 1.2) for r in ratio]),
        "interval_covers": _share([low <= observed <= high for _, low, high, observed in pairs]),
        "median_observed_over_predicted": round(float(np.median(ratio)), 3),
    }


def _share(values: Sequence[bool]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None


def table(policies: dict[str, dict[str, object]]) -> str:
    """The figures as text, one policy a line."""
    lines = [f"{'policy':10s}    1st    <=2   hold  wrong  viol.min  repl.h  p50 s  p90 s"]
    shares = ("first_change_resolved", "within_two_resolved", "hold_correct", "wrong_actions")
    for name, f in policies.items():
        times = f["time_to_resolve_s"]
        assert isinstance(times, dict)
        cells = " ".join(f"{_percent(f[key]):>6s}" for key in shares)
        p50, p90 = ("-" if times[key] is None else times[key] for key in ("p50", "p90"))
        lines.append(f"{name:10s} {cells} {f['slo_violation_min']:>9} {f['replica_hours']:>7} {p50:>6} {p90:>6}")
    return "\n".join(lines)


def _percent(value: object) -> str:
    return "-" if not isinstance(value, (int, float)) else f"{100 * value:.1f}%"
