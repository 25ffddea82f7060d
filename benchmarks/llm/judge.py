"""From runs to figures: which first changes cured, which holds were right, how long objectives were broken, at what
price in GPU-hours, and how well the predictions were."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from benchmarks.llm.loop import slotune
from benchmarks.llm.policies import POLICIES, Run, cured, nothing, oracle, violation_min
from benchmarks.llm.scenarios import END_S, OBJECTIVES, ONSET_S, STRETCH_S, Scenario, draw
from benchmarks.llm.source import exported_p95_ms

LATE_S, LOOK_S = 60.0, 90.0
FLICKER = 0.1
"""Share of the time after two minutes in which an objective may be broken where nothing was needed."""
PUBLISHED = ("dynamo", "hpa", "keda", "wva")


@dataclass
class Result:
    """One policy on one incident. kind: curable, incurable, needless; borderline: neither a change nor none is wrong.

    observed: (objective, predicted, low, high, P95 as the server's histogram read it) of each change that was seen.
    """

    scenario: str
    trouble: str
    policy: str
    kind: str
    first: bool
    held: bool
    actions: int
    wrong: int
    violation_min: float
    gpu_hours: float
    cause: str
    cause_right: bool
    observed: list[tuple[str, float, float, float, float]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    reason: str = ""


def one(stream: str, number: int, names: Sequence[str]) -> list[dict[str, object]]:
    """The rows of an incident, in the order of `names`."""
    scenario = draw(stream, number)
    start = scenario.begin(1000 + number)
    idle = nothing(scenario, start.twin())
    runs = {name: POLICIES[name](scenario, start.twin()) for name in names if name in POLICIES}
    runs["slotune"] = slotune(scenario, start.twin())
    at_s = runs["slotune"].planned_s or ONSET_S + LATE_S
    runs["oracle"], curable = oracle(scenario, start.twin(), at_s)
    kind = _kind(scenario, idle, curable)
    return [asdict(_result(scenario, name, runs[name], idle, kind)) for name in names]


def _kind(scenario: Scenario, idle: Run, curable: bool) -> str:
    after = (END_S - ONSET_S - 120.0) / 60.0
    late = violation_min(scenario, idle.world) - violation_min(scenario, idle.world, ONSET_S + 120.0)
    if scenario.errors or not cured(scenario, idle.world):
        return "curable" if curable else "incurable"
    return "borderline" if late > FLICKER * after else "needless"


def _result(scenario: Scenario, name: str, run: Run, idle: Run, kind: str) -> Result:
    forward = [action for action in run.actions if not action.undo]
    undone = len(run.actions) - len(forward)
    before = sum(second.ready for second in idle.world.seconds[: int(ONSET_S)])
    return Result(
        scenario=scenario.name,
        trouble=scenario.kind,
        policy=name,
        kind=kind,
        first=len(forward) == 1 and cured(scenario, run.world),
        held=len(run.actions) == 2 * undone,
        actions=len(forward),
        wrong=sum(_wrong(scenario, run, k, kind, idle) for k in range(len(forward))),
        violation_min=violation_min(scenario, run.world),
        gpu_hours=(run.world.replica_s - before) / 3600.0 * scenario.profile.gpus,
        cause=run.cause,
        cause_right=run.cause in scenario.causes,
        observed=observed(run),
        texts=[f"{a.at_s:.0f}{' undo' if a.undo else ''}: {a.text}" for a in run.actions[:6]],
        reason=run.reasons[0] if run.reasons else "",
    )


def _wrong(scenario: Scenario, run: Run, index: int, kind: str, idle: Run) -> bool:
    """A change that was not needed, or after which an objective was further from its limit than with nothing done."""
    if kind == "needless":
        return True
    action = [action for action in run.actions if not action.undo][index]
    start = action.at_s + action.effect_s
    end = min([start + LOOK_S, END_S, *(a.at_s for a in run.actions if a.at_s > action.at_s)])
    if end - start < STRETCH_S:
        return False

    def worst(of: Run) -> float:
        return max(of.world.p95_ms(name, start, end) / scenario.limits[name] for name in OBJECTIVES)

    mine, theirs = worst(run), worst(idle)
    return math.isfinite(theirs) and not mine <= 1.1 * theirs and not mine <= 1.0


def observed(run: Run) -> list[tuple[str, float, float, float, float]]:
    """What was predicted of each change beside what came, when the loop looked: what is predicted is the time after the
    queue, which the loop waits for as well."""
    found = []
    for k, action in enumerate(run.actions):
        start = math.ceil(action.at_s + max(action.effect_s, action.settled_s))
        end = min([start + LOOK_S, END_S, *(a.at_s for a in run.actions[k + 1 :])])
        if end - start >= STRETCH_S:
            found += [(name, *shown, exported_p95_ms(run.world, name, start, end))
                      for name, shown in action.predicted.items()]  # fmt: skip
    return found


def figures(rows: Sequence[Result]) -> dict[str, object]:
    """What is asked of slotune, and each policy's minutes and GPU-hours."""
    by = {name: [row for row in rows if row.policy == name] for name in dict.fromkeys(row.policy for row in rows)}
    mine = by["slotune"]
    curable = [row for row in mine if row.kind == "curable"]
    held = [row for row in mine if row.kind in ("incurable", "needless")]
    actions = sum(row.actions for row in mine)
    minutes = {name: _minutes(found) for name, found in by.items()}
    hours = {name: round(sum(row.gpu_hours for row in found), 2) for name, found in by.items()}
    best = min((name for name in PUBLISHED if name in minutes), key=lambda name: minutes[name], default=None)
    seen = [pair for row in mine for pair in row.observed if math.isfinite(pair[4])]
    return {
        "incidents": len(mine),
        "kinds": {kind: sum(row.kind == kind for row in mine) for kind in sorted({row.kind for row in mine})},
        "first_change_right": _share([row.first for row in curable]),
        "hold_right": _share([row.held for row in held]),
        "cause_right": _share([row.cause_right for row in mine if row.kind in ("curable", "incurable")]),
        "wrong": round(sum(row.wrong for row in mine) / actions, 4) if actions else 0.0,
        "changes": actions,
        "best_published": best,
        "violation_min_of_best_published": _ratio(minutes, best),
        "gpu_hours_of_best_published": _ratio(hours, best),
        "interval_covers": _share([low <= true <= high for _, _, low, high, true in seen]),
        "within_25_percent": _share([abs(value / true - 1) <= 0.25 for _, value, _, _, true in seen]),
        "predictions": len(seen),
        "violation_min_curable": minutes,
        "gpu_hours": hours,
        "wrong_by_policy": {name: _wrongs(found) for name, found in by.items()},
    }


def _ratio(of: dict[str, float], best: str | None) -> float | None:
    """slotune's share of the best published policy's, None where that has none."""
    return round(of["slotune"] / of[best], 4) if best is not None and of[best] else None


def _minutes(rows: Sequence[Result]) -> float:
    return round(sum(row.violation_min for row in rows if row.kind == "curable"), 1)


def _wrongs(rows: Sequence[Result]) -> float:
    actions = sum(row.actions for row in rows)
    return round(sum(row.wrong for row in rows) / actions, 4) if actions else 0.0


def _share(values: Sequence[bool]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None
