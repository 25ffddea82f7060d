"""From runs to figures: who resolved what, at which price, and how well the predictions were."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field

from benchmarks.control import minutes
from benchmarks.control.runs import SWEEP_S, Run, alarm_s, cured, over_s, short_s, violation_min
from benchmarks.control.scenarios import END_S, ONSET_S, Scenario
from benchmarks.control.simulator import SimulatedService

LOOK_S = 90.0
BRIEF_S = 120.0
"""What is over by then was over before a change could have done anything."""
FLICKER = 0.1
"""Share of the time after that which may lie over the SLO for "nothing was needed"."""
CALM_FROM_S = 300.0
"""From here on the service is looked at before the onset: what breaks its SLO there is not what was drawn."""
EASED = 0.5
"""Share of what doing nothing leads to (minutes over the SLO, failed requests, P95) down to which something that does
not cure helps."""


@dataclass
class Result:
    """One policy on one scenario and seed. observed: (predicted, low, high, true P95) of each change looked at.

    causes: the true ones. price: replicas added, at the time of judgement. spent: `minutes.spent`.
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
    price: int
    kinds: str = ""
    spent: dict[str, float] = field(default_factory=dict)


def kind_of(kind: str, curable: bool, eased: bool = False) -> str:
    """curable: one option cures it. incurable: none does, or nobody could see that it does ("blind"). needless: it was
    nothing, or is over before a change could do anything. borderline: neither a change nor none is right or wrong by
    itself, because it is now over the SLO and now under it (and the SLO's rule speaks all the same), over by itself in
    the end, was there before what was drawn, shows too late to be mended before it is judged, or is not cured but
    `eased`: an option halves its time over the SLO, or the requests that fail.
    """
    if kind == "blind":
        return "incurable"
    if kind in ("needless", "borderline"):
        return kind
    if curable:
        return "curable"
    return "borderline" if eased else "incurable"


def judge(scenario: Scenario, seed: int, policy: str, run: Run, idle: SimulatedService) -> dict[str, object]:
    """idle: the same scenario and seed with nothing done, the counterfactual for "made it worse" and "not needed"."""
    forward = [action for action in run.actions if not action.undo]
    kind = _kind(scenario, idle)
    return asdict(Result(
        scenario=scenario.name,
        seed=seed,
        policy=policy,
        kind=kind,
        first=_resolved_by(scenario, run, 1),
        second=_resolved_by(scenario, run, 1) or _resolved_by(scenario, run, 2),
        held_right=_held(scenario, run, idle) and (policy != "slotune" or run.cause in scenario.causes),
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
        price=run.service.desired - scenario.replicas,
        spent=minutes.spent(over_s(scenario, run.service), short_s(scenario), run.actions, alarm_s(scenario, idle)),
    ))  # fmt: skip


def _kind(scenario: Scenario, idle: SimulatedService) -> str:
    """What became of it with nothing done: "blind", "broken", "needless" or "borderline" (see `kind_of`)."""
    if scenario.silent:
        return "blind"
    if scenario.incident and not cured(scenario, idle):
        return "broken" if _shows_in_time(scenario, idle) else "borderline"
    late = [t for t in over_s(scenario, idle) if t >= ONSET_S + BRIEF_S]
    over = len(late) * short_s(scenario) / (scenario.judged_s - ONSET_S - BRIEF_S)
    spoke = alarm_s(scenario, idle, ONSET_S + BRIEF_S) is not None
    return "borderline" if over > FLICKER or spoke else "needless"


def _shows_in_time(scenario: Scenario, idle: SimulatedService) -> bool:
    """The SLO's rule speaks because of what was drawn, and early enough for a change to be seen to cure."""
    first = alarm_s(scenario, idle, CALM_FROM_S)
    last = scenario.judged_s - scenario.look_s - scenario.rate_window_s - SWEEP_S
    return first is not None and ONSET_S <= first <= last


def idle_replicas_before(idle: SimulatedService) -> float:
    """Replica seconds before the onset, the same for every policy."""
    return float(sum(second.ready for second in idle.seconds[: int(ONSET_S)]))


def _held(scenario: Scenario, run: Run, idle: SimulatedService) -> bool:
    """Ends with the setting that it began with: nothing was done, or all of it was undone. Or nothing is paid for, and
    what stays keeps P95 at half of what it would be, or less: nobody would take that back."""
    if all(getattr(run.service, knob) == getattr(idle, knob) for knob in ("batch", "timeout_ms", "int8", "desired")):
        return True
    start_s, end_s = scenario.judged_s - scenario.look_s, scenario.judged_s
    eased = run.service.p95_ms(start_s, end_s) <= EASED * idle.p95_ms(start_s, end_s)
    return eased and run.service.desired <= scenario.replicas


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
