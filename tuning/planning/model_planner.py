"""The model planner: diagnose, predict every option, rank, explain; by the rules where nothing can be predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from detection.model import Incident
from tuning.formats import ms
from tuning.model import LEVER_STEPS, Diagnosis, Observation, Option, Plan, Record
from tuning.planning import effects as ef
from tuning.planning import explain, options, ranking
from tuning.planning import latency_model as lm
from tuning.planning import reading as rd
from tuning.planning.diagnosis import diagnose
from tuning.planning.forecast import Forecast
from tuning.planning.options import Candidate
from tuning.planning.predict import UNMEASURED_SD, Knowledge, Predicted, capacity_now, int8_gain, predict
from tuning.planning.ranking import Ranked
from tuning.planning.rules import Rules, hold_reason
from tuning.planning.settings import PlanningSettings
from tuning.planning.situation import Situation, assess, draining_arrivals

_CANDIDATES = 28
_SETTLE_MAX_S = 600.0


class ModelPlanner:
    """The latency model with a what-if over every option. Pure: the same arguments give the same plan."""

    name = "model"

    def __init__(self, settings: PlanningSettings) -> None:
        self._settings = settings
        self._rules = Rules(settings)

    def propose(self, incident: Incident, observation: Observation, past: Sequence[Record]) -> Plan:
        """The cheapest option that is predicted to meet the SLO, or a hold; all others with their reasons."""
        situation = assess(incident, observation, self._settings, _changed_s(observation, past))
        diagnosis = diagnose(incident, observation, situation, self._settings)
        if diagnosis.cause == "idle_capacity":
            return self._save(incident, observation, situation, diagnosis, past)
        if not diagnosis.curable:
            option = Option(changes=(), reason=hold_reason(diagnosis))
            return self._plan(incident, observation, diagnosis, option, ())
        if not situation.identified:
            plan = self._rules.propose(incident, observation, past)
            if diagnosis.cause == "unknown" or plan.diagnosis.cause == "unknown":
                plan = plan.model_copy(update={"diagnosis": diagnosis})
            return plan
        return self._cure(incident, observation, situation, diagnosis, past)

    def _cure(
        self,
        incident: Incident,
        observation: Observation,
        situation: Situation,
        diagnosis: Diagnosis,
        past: Sequence[Record],
    ) -> Plan:
        slo = observation.service.slo.p95_ms
        seen, tried = ef.effects(past), rd.tried_levers(incident, past)
        knowledge = _knowledge(observation, situation, seen, past)
        base = options.unchanged(observation, situation)
        stay = predict([base], observation, situation, knowledge, self._settings)[0]
        over = draining_arrivals(observation.window, capacity_now(situation)) if situation.slow_sd < 0.2 else None
        if over is not None:
            calm = replace(situation, arrivals=Forecast(over, "since the queue turned"))
            stay = predict([base], observation, calm, knowledge, self._settings)[0]
        if self._passes(observation, situation, stay, slo):
            reason = f"hold: the queue drains by itself in about {stay.drain_s:.0f} s at the present load"
            option = _option(Ranked(base, stay, ef.Posterior(*ef.PRIOR, 0, 0), 0.0), slo, reason)
            return self._plan(incident, observation, diagnosis, option, ())
        ranked = self._rank(observation, situation, diagnosis, knowledge, base, seen, tried)
        winner = ranking.best(ranked, self._settings, slo)
        text = explain.chosen(winner, diagnosis, situation, slo) if winner is not None else ""
        if winner is None:
            winner = ranking.explore(ranked, not math.isfinite(stay.drain_s), situation.model.unknown_beyond)
            text = explain.exploring(winner, diagnosis, situation, slo) if winner is not None else ""
        elif winner.success < self._settings.confidence:
            text += f"; not sure ({winner.predicted.meets:.0%}), but the likeliest within bounds"
        rejected = [
            _option(item, slo, ranking.why_not(item, winner, self._settings, slo), feasible=not item.barred)
            for item in sorted(ranked, key=lambda item: item.predicted.p95_ms.value)
            if item is not winner
        ]
        untouched = _untouched(observation)
        if winner is None:
            chosen = Option(
                changes=(),
                predicted_p95_ms=stay.p95_ms,
                meets_slo=False,
                reason=explain.nothing(diagnosis, ranked, slo),
            )
            return self._plan(incident, observation, diagnosis, chosen, (*rejected, *untouched))
        rule = self._rules.propose(incident, observation, past).chosen.levers
        other = explain.disagreement(winner, situation, rule)
        plan = self._plan(incident, observation, diagnosis, _option(winner, slo, text), (*rejected, *untouched))
        return self._with_lease(plan, winner, situation).model_copy(
            update={"reason": f"{text}. {other}".strip() if other else text}
        )

    def _passes(self, observation: Observation, situation: Situation, stay: Predicted, slo: float) -> bool:
        """The present setting meets the SLO once the queue has drained, and the queue IS draining: no change needed."""
        p95 = rd.recent(observation.window, "p95_ms", self._settings.recent_s)
        depth = rd.recent(observation.window, "queue_depth", self._settings.recent_s)
        falling = p95.size >= 4 and float(p95[-1]) < 0.7 * float(p95.max()) and bool(p95[-1] <= p95[-2])
        emptying = depth.size >= 4 and float(depth[-1]) < 0.9 * float(depth.max()) and bool(depth[-1] < depth[-3])
        sound = situation.slow is None or situation.slow < 1.1
        meets = stay.meets >= 0.9 and stay.p95_ms.value <= self._settings.headroom * slo
        return (falling or emptying) and sound and meets and stay.drain_s < 120

    def _rank(
        self,
        observation: Observation,
        situation: Situation,
        diagnosis: Diagnosis,
        knowledge: Knowledge,
        base: Candidate,
        seen: Sequence[ef.Effect],
        tried: frozenset[str],
    ) -> list[Ranked]:
        singles = options.singles(observation, situation)
        ranked = self._judge(singles, observation, situation, diagnosis, knowledge, seen, tried)
        slo = observation.service.slo.p95_ms
        sure = [item for item in ranked if item.eligible(self._settings, slo) and not item.unproven]
        dearest = min((item.candidate.cost_per_hour for item in sure), default=math.inf)
        if dearest <= 0:
            return ranked
        pairs = _pairs(ranked, base, dearest)
        return ranked + self._judge(pairs, observation, situation, diagnosis, knowledge, seen, tried)

    def _judge(
        self,
        candidates: list[Candidate],
        observation: Observation,
        situation: Situation,
        diagnosis: Diagnosis,
        knowledge: Knowledge,
        seen: Sequence[ef.Effect],
        tried: frozenset[str],
    ) -> list[Ranked]:
        shown = predict(candidates, observation, situation, knowledge, self._settings) if candidates else []
        ranked = []
        for candidate, predicted in zip(candidates, shown, strict=True):
            trust = ef.posterior(seen, observation.service.name, diagnosis.cause, candidate.levers)
            reason = ranking.barred(candidate, trust, tried)
            unproven = candidate.faster and knowledge.speedup_sd >= UNMEASURED_SD
            ranked.append(Ranked(candidate, predicted, trust, self._settings.rate_window_s, reason, unproven))
        return ranked

    def _save(
        self,
        incident: Incident,
        observation: Observation,
        situation: Situation,
        diagnosis: Diagnosis,
        past: Sequence[Record],
    ) -> Plan:
        """One replica fewer, if it was idle for long and the rest carry the highest load of the look-back with room."""
        slo = observation.service.slo.p95_ms

        def hold(reason: str) -> Plan:
            option = Option(changes=(), reason=f"hold: {reason}")
            return self._plan(incident, observation, diagnosis, option, _untouched(observation))

        idle_s = observation.at_s - incident.opened_at_s
        if idle_s < self._settings.saving_patience_s:
            return hold(f"idle for {idle_s:.0f} s only, {self._settings.saving_patience_s:.0f} s are asked for")
        fewer = options.savings(observation, situation)
        if not fewer or not situation.identified:
            return hold("no replica can be given back" if not fewer else "the load or the batch time is not exported")
        busiest = _at_peak(observation, situation)
        seen, tried = ef.effects(past), rd.tried_levers(incident, past)
        knowledge = _knowledge(observation, situation, seen, past)
        item = self._judge(fewer, observation, busiest, diagnosis, knowledge, seen, tried)[0]
        reach = 0.5 * self._settings.headroom * slo
        if item.barred:
            return hold(item.barred)
        if item.predicted.load > self._settings.saving_busy or item.predicted.p95_ms.high > reach:
            return hold(
                f"{item.candidate.replicas} replicas would be busy {item.predicted.load:.0%} with P95 up to "
                f"{ms(item.predicted.p95_ms.high)} at the highest load seen: no room to give one back"
            )
        text = explain.chosen(item, diagnosis, situation, slo)
        return self._plan(incident, observation, diagnosis, _option(item, slo, text), _untouched(observation))

    def _with_lease(self, plan: Plan, winner: Ranked, situation: Situation) -> Plan:
        """More replicas are lent: with the rate below which the old setting would do again (70 % of its capacity)."""
        if "replicas" not in winner.candidate.levers or winner.candidate.cost_per_hour < 0:
            return plan
        below = 0.7 * capacity_now(situation)
        return plan.model_copy(update={"lease_s": self._settings.lease_s, "revert_below_qps": below})

    def _plan(
        self,
        incident: Incident,
        observation: Observation,
        diagnosis: Diagnosis,
        chosen: Option,
        rejected: Sequence[Option],
    ) -> Plan:
        settle = chosen.effect_delay_s + self._settings.rate_window_s
        return Plan(
            id=rd.plan_id(incident, observation),
            incident_id=incident.id,
            service=observation.service.name,
            decided_at_s=observation.at_s,
            mode=rd.mode_of(observation, chosen),
            diagnosis=diagnosis,
            chosen=chosen,
            rejected=tuple(rejected),
            settle_s=min(_SETTLE_MAX_S, settle),
            attempt=incident.attempt,
            reason=chosen.reason,
        )


def _option(item: Ranked, slo_ms: float, reason: str, *, feasible: bool = True) -> Option:
    drain = item.predicted.drain_s if math.isfinite(item.predicted.drain_s) else 0.0
    return Option(
        changes=item.candidate.changes,
        predicted_p95_ms=item.predicted.p95_ms,
        meets_slo=item.predicted.p95_ms.value <= slo_ms,
        cost_per_hour=item.candidate.cost_per_hour,
        effect_delay_s=item.candidate.delay_s + drain,
        risk=item.candidate.risk,
        probability_worked=round(item.success, 3),
        feasible=feasible and math.isfinite(item.predicted.drain_s),
        reason=reason,
    )


def _pairs(ranked: list[Ranked], base: Candidate, dearest: float) -> list[Candidate]:
    """Pairs of different levers, each with the better halves only, cheaper than the best single."""
    usable = [item for item in ranked if not item.barred]
    batches = [item for item in usable if item.candidate.levers == ("batch_size",)]
    batches = sorted(batches, key=lambda item: (item.predicted.load, item.predicted.p95_ms.value))[:3]
    replicas = [item for item in usable if item.candidate.levers == ("replicas",)]
    precision = [item for item in usable if item.candidate.levers == ("precision",)]
    found = [
        options.pair(one.candidate, other.candidate, base)
        for first, second in ((batches, replicas), (batches, precision), (precision, replicas))
        for one in first
        for other in second
    ]
    return sorted((c for c in found if c.cost_per_hour < dearest), key=lambda c: c.cost_per_hour)[:_CANDIDATES]


def _knowledge(
    observation: Observation, situation: Situation, seen: Sequence[ef.Effect], past: Sequence[Record]
) -> Knowledge:
    bias, scatter = ef.calibration(seen, observation.service.name)
    lever = observation.service.levers.get("precision")
    gain, gain_sd = int8_gain(lever, _measured_gain(past), _learned_gain(situation))
    return Knowledge(bias, scatter, gain, gain_sd)


def _learned_gain(situation: Situation) -> float | None:
    """FP32 over INT8 batch time at the present batch, where this version was served in INT8 before."""
    int8 = situation.learned.get(lm.key(situation.version, "int8"))
    if int8 is None or not int8.known or situation.precision == "int8":
        return None
    rows = float(situation.now.batch_size or 1)
    kept = situation.learned.get(situation.model_key, situation.model)
    return kept.predict(rows)[0] / int8.predict(rows)[0]


def _measured_gain(past: Sequence[Record]) -> float | None:
    """The speed-up that the precision gate measured, from the newest receipt that carries one."""
    for record in sorted(past, key=lambda record: record.at_s, reverse=True):
        if record.kind != LEVER_STEPS["precision"]:
            continue
        evidence = record.body.get("evidence")
        value = evidence.get("speedup") if isinstance(evidence, dict) else None
        if isinstance(value, (int, float)) and value > 0:
            return float(value)
    return None


def _changed_s(observation: Observation, past: Sequence[Record]) -> float:
    """When the newest change of a lever of this service was in effect; -inf when there is none in the ledger."""
    kinds = {*LEVER_STEPS.values(), "roll_back"}
    levers = observation.service.levers
    moved = [-math.inf]
    for record in past:
        if record.kind in kinds and record.phase == "result" and record.body.get("changed"):
            lever = levers.get(str(record.body.get("lever")))
            moved.append(record.at_s + (lever.effect_delay_s if lever is not None else 0.0))
    return max(moved)


def _untouched(observation: Observation) -> tuple[Option, ...]:
    """Levers that could not be weighed, or have no way up left, with the reason."""
    found = []
    for name, lever in sorted(observation.service.levers.items()):
        why = observation.unreadable.get(name) or (rd.no_int8(lever) if name == "precision" else "")
        why = why or rd.at_bound(name, lever, observation.settings.get(name))
        if name not in observation.settings or why:
            reason = f"{name}: {why or 'the present setting could not be read'}"
            found.append(Option(changes=(), feasible=False, reason=reason))
    return tuple(found)


def _at_peak(observation: Observation, situation: Situation) -> Situation:
    """The situation under the highest rate of the look-back and the history (95th percentile)."""
    peaks = [rd.recent(w, "qps", math.inf if w is None else w.span.end_s - w.span.start_s)
             for w in (observation.window, observation.history)]  # fmt: skip
    if situation.arrivals is None:
        return situation
    highest = max((float(sorted(p)[int(0.95 * (p.size - 1))]) for p in peaks if p.size), default=0.0)
    rate = situation.arrivals.qps
    grow = max(1.0, highest / rate.value) if rate.value else 1.0
    scaled = rate.model_copy(update={"value": rate.value * grow, "low": rate.low * grow, "high": rate.high * grow})
    return replace(situation, arrivals=replace(situation.arrivals, qps=scaled))
