"""From runs to figures: who resolved what, at which price, and how well the predictions were."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.control.runs import Run, cured, over_s, short_s, violation_min
from benchmarks.control.scenarios import END_S, ONSET_S, Scenario
from benchmarks.control.simulator import SimulatedService

LOOK_S = 90.0


@dataclass
class Result:
    """One policy on one scenario and seed. observed: (predicted, low, high, true P95) of each change looked at.

    causes: the true ones. planned_s: when slotune planned first. price: replicas added, at the time of judgement.
    """

    scenario: str
    seed: int
    policy: str
    kind: str
    first: bool
    second: bool
    held_right: bool
    actions: int
    wrong: int
    violation_min: float
    replica_hours: float
    resolve_s: float | None
    cause: str
    cause_right: bool
    observed: list[tuple[float, float, float, float]]
    measured: list[bool]
    texts: list[str]
    causes: list[str]
    planned_s: float | None
    price: int
    kinds: str = ""


def kind_of(kind: str, curable: bool) -> str:
    """curable: one option cures it. incurable: none does, or nobody could see that it does. needless: it is over (or
    was nothing) without any change. blind: nothing can be seen."""
    if kind == "blind":
        return "incurable"
    if kind == "needless":
        return kind
    return "curable" if curable else "incurable"


def judge(scenario: Scenario, seed: int, policy: str, run: Run, idle: SimulatedService) -> dict[str, object]:
    """idle: the same scenario and seed with nothing done, the counterfactual for "made it worse" and "not needed"."""
    forward = [action for action in run.actions if not action.undo]
    needless = not scenario.incident or cured(scenario, idle)
    kind = "blind" if scenario.silent else "needless" if needless else "broken"
    return asdict(Result(
        scenario=scenario.name,
        seed=seed,
        policy=policy,
        kind=kind,
        first=_resolved_by(scenario, run, 1),
        second=_resolved_by(scenario, run, 1) or _resolved_by(scenario, run, 2),
        held_right=_held(run) and (policy != "slotune" or run.cause in scenario.causes),
        actions=len(run.actions),
        wrong=sum(_wrong(scenario, run, k, kind, idle) for k in range(len(forward))),
        violation_min=violation_min(scenario, run.service),
        replica_hours=(run.service.replica_s - idle_replicas_before(idle)) / 3600.0,
        resolve_s=_resolve_s(scenario, run.service),
        cause=run.cause,
        cause_right=run.cause in scenario.causes,
        observed=[pair for _, pair in _observed(run)],
        measured=["precision" not in lever for lever, _ in _observed(run)],
        texts=[f"{a.at_s:.0f}{' undo' if a.undo else ''}: {a.text}" for a in run.actions[:8]],
        causes=list(scenario.causes),
        planned_s=run.planned_s,
        price=run.service.desired - scenario.replicas,
    ))  # fmt: skip


def idle_replicas_before(idle: SimulatedService) -> float:
    """Replica seconds before the onset, the same for every policy."""
    return float(sum(second.ready for second in idle.seconds[: int(ONSET_S)]))


def _held(run: Run) -> bool:
    """Ends with the setting that it began with: nothing was done, or all of it was undone."""
    undone = sum(action.undo for action in run.actions)
    return len(run.actions) == 2 * undone


def _resolved_by(scenario: Scenario, run: Run, count: int) -> bool:
    """P95 is cured when it is judged, after exactly `count` changes (undos not counted)."""
    forward = [action for action in run.actions if not action.undo and action.at_s < scenario.judged_s]
    return len(forward) == count and cured(scenario, run.service)


def _wrong(scenario: Scenario, run: Run, index: int, kind: str, idle: SimulatedService) -> bool:
    """A change that was not needed, or after which P95 was worse than with nothing done at the same time."""
    forward = [action for action in run.actions if not action.undo]
    action = forward[index]
    if kind == "needless":
        return True
    start = action.at_s + action.effect_s
    later = [a.at_s for a in run.actions if a.at_s > action.at_s]
    end = min([start + LOOK_S, *later, END_S])
    if end - start < 15.0:
        return False
    mine, theirs = run.service.p95_ms(start, end), idle.p95_ms(start, end)
    if not math.isfinite(theirs):
        return False
    return not mine <= 1.1 * theirs and not mine <= scenario.slo_ms


def _resolve_s(scenario: Scenario, service: SimulatedService) -> float | None:
    """Seconds from the onset to the last short stretch over the SLO; None when it is not cured when it is judged."""
    if not cured(scenario, service):
        return None
    length = short_s(scenario)
    over = [t for t in over_s(scenario, service) if t < scenario.judged_s]
    # Single late stretches are noise, not an incident that goes on.
    late = [t for t in over if sum(abs(t - u) <= 6 * length for u in over) >= 3]
    return float(late[-1] + length - ONSET_S) if late else 0.0


def _observed(run: Run) -> list[tuple[str, tuple[float, float, float, float]]]:
    """(lever, (predicted, low, high, true P95)) of each change that was looked at for half a minute."""
    found = []
    for k, action in enumerate(run.actions):
        if action.predicted is None:
            continue
        start = math.ceil(action.at_s + action.effect_s)
        end = min([start + LOOK_S, END_S, *(a.at_s for a in run.actions[k + 1 :])])
        if end - start >= 30.0:
            found.append((action.lever, (*action.predicted, run.service.p95_ms(start, end))))
    return found


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
