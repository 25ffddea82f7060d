"""The effect ledger: what each lever did for each cause, read from the ledger's own records. Pure functions.

"It worked" is a Bernoulli trial per (service, cause, lever) with a Beta prior; the mean of the posterior weights the
next choice. Predicted against observed P95 gives the bias and the scatter of the predictions themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuning.model import LEVER_STEPS, Record
from tuning.planning import thresholds as th
from tuning.planning.reading import levers_of


@dataclass(frozen=True)
class Effect:
    """One change and what came of it. predicted_ms, low_ms, high_ms, observed_ms: P95 of `signal`; None: not known."""

    plan_id: str
    service: str
    cause: str
    levers: tuple[str, ...]
    at_s: float
    verdict: str
    resolved: bool | None
    predicted_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    observed_ms: float | None = None
    signal: str = "p95_ms"

    @property
    def worked(self) -> bool | None:
        """None: the data could not tell."""
        if self.verdict == "inconclusive":
            return None
        return self.verdict == "improved" and self.resolved is not False


@dataclass(frozen=True)
class Posterior:
    """Beta(a, b) of "it worked", with the counts behind it."""

    a: float
    b: float
    worked: int
    tries: int

    @property
    def mean(self) -> float:
        return self.a / (self.a + self.b)

    @property
    def weight(self) -> float:
        """Mean over the prior's mean, at most 1: a lever without a history is not punished for it."""
        return min(1.0, self.mean / (th.WORKED_PRIOR[0] / sum(th.WORKED_PRIOR)))

    def text(self) -> str:
        return f"worked {self.worked} of {self.tries} times" if self.tries else "not tried before"


def effects(past: Iterable[Record]) -> tuple[Effect, ...]:
    """Every plan that has an outcome, oldest first. Undos and records that cannot be read are left out."""
    records = sorted(past, key=lambda record: record.at_s)
    plans = {record.body.get("id"): record for record in records if record.kind == "choose_action"}
    found: dict[str, Effect] = {}
    for record in records:
        plan = plans.get(record.body.get("plan_id")) if record.kind == "verify_p95" else None
        if plan is not None and not plan.body.get("rollback_of"):
            effect = _effect(plan, record)
            if effect.levers:
                found[effect.plan_id] = effect
    return tuple(found.values())


def _effect(plan: Record, outcome: Record) -> Effect:
    chosen, diagnosis = _mapping(plan.body.get("chosen")), _mapping(plan.body.get("diagnosis"))
    predicted = _mapping(chosen.get("predicted_p95_ms"))
    resolved = outcome.body.get("resolved")
    return Effect(
        plan_id=str(plan.body.get("id")),
        service=plan.service,
        cause=str(diagnosis.get("cause", "unknown")),
        levers=levers_of(plan.body),
        at_s=outcome.at_s,
        verdict=str(outcome.body.get("verdict", "inconclusive")),
        resolved=resolved if isinstance(resolved, bool) else None,
        predicted_ms=_number(predicted.get("value")),
        low_ms=_number(predicted.get("low")),
        high_ms=_number(predicted.get("high")),
        observed_ms=_number(outcome.body.get("p95_after_ms")),
        signal=str(_mapping(plan.body.get("objective")).get("signal", "p95_ms")),
    )


def posterior(seen: Sequence[Effect], service: str, cause: str, levers: tuple[str, ...]) -> Posterior:
    """Of "these levers, together, worked for this cause on this service"; what is old fades by 2 % per later trial."""
    a, b = th.WORKED_PRIOR
    worked = tries = 0
    for effect in seen:
        result = effect.worked
        if (effect.service, effect.cause, effect.levers) != (service, cause, levers) or result is None:
            continue
        a, b = (
            th.WORKED_PRIOR[0] + (a - th.WORKED_PRIOR[0]) * th.FADE,
            th.WORKED_PRIOR[1] + (b - th.WORKED_PRIOR[1]) * th.FADE,
        )
        a, b = (a + 1, b) if result else (a, b + 1)
        worked, tries = worked + result, tries + 1
    return Posterior(a, b, worked, tries)


def calibration(seen: Sequence[Effect], service: str, signal: str = "p95_ms") -> tuple[float, float]:
    """(log bias, log scatter) of observed over predicted P95 on this service, shrunk to (0, SCATTER) by six trials.

    signal: whose P95: what is known of one promise says nothing about another.
    """
    logs = [
        math.log(effect.observed_ms / effect.predicted_ms)
        for effect in seen[-th.TRIALS :]
        if (effect.service, effect.signal) == (service, signal)
        and effect.observed_ms
        and effect.predicted_ms
        and effect.worked is not None
    ]
    # One wild trial (the load changed meanwhile) must not move the rest.
    logs = [max(-th.WILD, min(th.WILD, value)) for value in logs]
    bias = sum(logs) / (len(logs) + th.SCATTER_WEIGHT)
    total = th.SCATTER_WEIGHT * th.SCATTER**2 + sum((value - bias) ** 2 for value in logs)
    return bias, math.sqrt(total / (len(logs) + th.SCATTER_WEIGHT))


def measured_gain(past: Iterable[Record]) -> float | None:
    """The speed-up that the precision gate measured, from the newest receipt that carries one."""
    for record in sorted(past, key=lambda record: record.at_s, reverse=True):
        if record.kind != LEVER_STEPS["precision"]:
            continue
        value = _number(_mapping(record.body.get("evidence")).get("speedup"))
        if value is not None:
            return value
    return None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) and value > 0 else None
