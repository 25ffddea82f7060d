"""The model planner: assess, diagnose, predict every option, rank, explain; rules where nothing can be predicted.

Each step is a function of values; which engine predicts stands in the service's preset.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from detection.model import Incident
from detection.signals import percentile
from tuning.formats import ms
from tuning.model import LEVER_STEPS, Change, Diagnosis, Interval, Observation, Option, Plan, Record, Refusing
from tuning.planning import admission as ad
from tuning.planning import effects as ef
from tuning.planning import explain, options, ranking
from tuning.planning import passing as ps
from tuning.planning import reading as rd
from tuning.planning import thresholds as th
from tuning.planning import variants as va
from tuning.planning.breaking import LEVER as BREAKER
from tuning.planning.breaking import cut, lease_s
from tuning.planning.causes import CAUSES
from tuning.planning.diagnosis import diagnose
from tuning.planning.forecast import Forecast
from tuning.planning.objectives import broken
from tuning.planning.ports import Candidate, Engine, Knowledge, Predicted, limits_of
from tuning.planning.ranking import Ranked
from tuning.planning.restarting import cure, left_out
from tuning.planning.reverting import way_back
from tuning.planning.rules import Rules
from tuning.planning.settings import PlanningSettings
from tuning.planning.situation import Situation, calm_window

_COSTLY = frozenset({va.LEVER, ad.LEVER})
"""Levers that take something from those who ask: right answers, or an answer at all."""


@dataclass(frozen=True)
class Case:
    """One question to the planner with all that its steps share."""

    incident: Incident
    observation: Observation
    past: Sequence[Record]
    engine: Engine[Any]
    situation: Situation
    diagnosis: Diagnosis
    seen: Sequence[ef.Effect]
    knowledge: Knowledge
    limits: Mapping[str, float]
    changed_s: float
    """When the newest change of a lever was in effect (-inf: none is known)."""


class ModelPlanner:
    """The engine's predictions for every option. Pure: the same arguments give the same plan."""

    name = "model"

    def __init__(self, settings: PlanningSettings, engines: Mapping[str, Engine[Any]]) -> None:
        self._settings, self._engines = settings, engines
        self._rules = Rules(settings)

    def propose(self, incident: Incident, observation: Observation, past: Sequence[Record]) -> Plan:
        """The cheapest option that is predicted to meet the SLO, or a hold; all others with their reasons."""
        if observation.service.kind == "training":
            return self._rules.watched(incident, observation)
        observation = replace(observation, objective=broken(incident, observation, self._settings))
        case = self._case(incident, observation, past)
        if case.diagnosis.cause == "idle_capacity":
            return self._save(case)
        back = way_back(incident, observation, case.diagnosis, past)
        if back is not None:
            return self._plan(case, *back)
        healed = cure(incident, observation, case.diagnosis, past, self._settings, case.situation.now.busy)
        if healed is not None:
            return self._plan(case, *healed)
        if (out := cut(incident, observation, past, self._settings)) is not None:
            plan = self._plan(case, *out)
            leased = lease_s(observation.service.levers.get(BREAKER)) if plan.chosen.changes else None
            return plan.model_copy(update={"lease_s": leased})
        if not case.diagnosis.curable:
            why = explain.uncured(case.diagnosis, case.incident.symptom)
            return self._plan(case, Option(changes=(), reason=why), ())
        if not case.situation.identified:
            if not case.engine.rules_apply or not case.limits:
                reason = f"hold: {explain.unpredictable(case.diagnosis, case.observation.promise.signal)}"
                return self._plan(case, Option(changes=(), reason=reason), _untouched(case.observation))
            return _asking(self._by_rules(case))
        return self._cure(case)

    def spares(self, incident: Incident, observation: Observation, past: Sequence[Record], step: Change) -> str:
        """Asked after a change that was bought in a hurry is proven: with what was measured since, fewer may do.

        What is predicted is by how much P95 grows, which is far surer than P95: the highest one seen lately tells the
        rest.
        """
        case = self._case(incident, observation, past)
        lately = self._settings.verify_window_s
        seen = {name: rd.recent(observation.window, name, lately) for name in case.limits}
        told = bool(seen) and all(values.size for values in seen.values())
        if not case.situation.identified or not told or case.diagnosis.cause in th.NOT_SPARED:
            return ""
        if any(slow > th.DILUTED_REPLICA for slow in case.situation.replica_slow):
            return ""  # P95 is that of the slow replica's share of the requests: one fewer of the others is a cliff
        if case.situation.arrivals is None or case.situation.arrivals.slope > 0 or case.situation.slower_per_min > 0:
            return ""  # the load, or what it costs, still grows: the highest that was seen is the least that is to come
        stay = case.engine.unchanged(observation, case.situation)
        fewer = options.stepped(stay, step)
        peak = _at_peak(observation, case.situation)
        now = case.engine.predict([stay], observation, case.situation, case.knowledge, self._settings)[0]
        then = case.engine.predict([fewer], observation, peak, case.knowledge, self._settings)[0]
        grown = {name: max(1.0, then.shown[name].value / now.shown[name].value) for name in case.limits}
        later = {name: float(seen[name].max()) * grown[name] for name in case.limits}
        worst = max(case.limits, key=lambda name: later[name] / case.limits[name])
        p95, limit = later[worst], case.limits[worst]
        several = int(stay.setting["replicas"]) - int(fewer.setting["replicas"]) > 1
        most_p95, most_load = th.SPARED_AT_ONCE if several else (th.SPARED_P95, th.SPARED_LOAD)
        if p95 > most_p95 * limit or then.load > most_load or then.carries < th.SPARED_CARRIES:
            return ""
        return (
            f"{fewer.setting['replicas']} replicas are predicted to do: busy {then.load:.0%} at the highest load seen, "
            f"with {percentile(worst)} at {ms(p95)} (objective {ms(limit)})."
        )

    def _case(self, incident: Incident, observation: Observation, past: Sequence[Record]) -> Case:
        engine = self._engines[observation.service.engine]
        changed_s = _changed_s(observation, past)
        situation = engine.assess(incident, observation, self._settings, changed_s)
        limits = limits_of(observation.service.slo, engine.objectives)
        diagnosis = diagnose(incident, observation, situation, self._settings)
        refusing = (situation.now.error_rate or 0.0) > observation.service.slo.error_rate
        promised = observation.promise.signal
        if refusing and situation.now.p95_ms is not None and promised in limits:
            # Requests are refused at this P95: what does not bring it well below goes on refusing.
            limits[promised] = min(limits[promised], situation.now.p95_ms)
        seen = ef.effects(past)
        bias, scatter = ef.calibration(seen, observation.service.name, promised)
        return Case(
            incident=incident,
            observation=observation,
            past=past,
            engine=engine,
            situation=situation,
            diagnosis=diagnosis,
            seen=seen,
            knowledge=Knowledge(bias, scatter, ef.measured_gain(past)),
            limits=limits,
            changed_s=changed_s,
        )

    def _by_rules(self, case: Case) -> Plan:
        return self._rules.propose(case.incident, case.observation, case.situation.now, case.diagnosis, case.past)

    def _cure(self, case: Case) -> Plan:
        base = case.engine.unchanged(case.observation, case.situation)
        stay = self._stay(case, base)
        if passing := self._passes(case, stay):
            kept = Ranked(base, stay, ef.Posterior(*th.WORKED_PRIOR, 0, 0), 0.0)
            return self._plan(case, _option(case, kept, passing).model_copy(update={"meets_slo": True}), ())
        case = self._corrected(case, stay) if case.engine.restarts else case
        ranked = [_won_by(item, stay) for item in self._worthwhile(case, base, self._rank(case, base))]
        winner, text = self._winner(case, ranked, stay)
        rejected = [
            _option(
                case,
                item,
                explain.passed_over(item, winner, self._settings, case.limits),
                feasible=not item.barred,
            )
            for item in sorted(ranked, key=lambda item: item.predicted.ratio(case.limits))
            if winner is None or item.candidate is not winner.candidate
        ]
        sick = left_out(case.incident, case.observation, case.diagnosis, case.past, case.situation.now.busy)
        untouched = (*_untouched(case.observation, case.engine.proves_limits(case.observation)), *sick)
        if winner is None:
            does = stay.meets >= th.PASSES_MEETS and stay.ratio(case.limits) <= self._settings.headroom
            chosen = Option(
                changes=(),
                predicted_p95_ms=stay.told(case.observation.promise.signal),
                meets_slo=does,
                reason=explain.does(stay, case.limits) if does else self._nothing(case, ranked),
            )
            return self._plan(case, chosen, (*rejected, *untouched))
        plan = self._plan(case, _option(case, winner, text, stay), (*rejected, *untouched))
        rule = self._by_rules(case).chosen.levers
        other = explain.disagreement(winner.candidate.levers, rule, self._why(case, winner))
        plan = plan.model_copy(update={"reason": f"{text}. {other}".strip() if other else text})
        return self._with_lease(case, plan, winner)

    @staticmethod
    def _nothing(case: Case, ranked: list[Ranked]) -> str:
        lent, now = ad.lent(case.observation, case.past), case.situation.now
        if lent and now.p95_ms is not None and now.p95_ms <= case.observation.promise.limit_ms:
            return explain.refuses(lent, now.error_rate)
        return explain.nothing(case.diagnosis, ranked, case.limits)

    def _winner(self, case: Case, ranked: list[Ranked], stay: Predicted) -> tuple[Ranked | None, str]:
        """What is done, and why. What costs quality comes after all that does not and may do, also after a free try of
        what nobody has seen; and before what is predicted to fail. Requests are refused only where nothing is left."""
        whole = [item for item in ranked if not _COSTLY & set(item.candidate.levers)]
        winner = ranking.best(whole, self._settings, case.limits)
        if winner is None and case.engine.rules_apply:
            grows = not math.isfinite(stay.drain_s)
            winner = ranking.last_resort(whole, grows)
            found = ranking.explore(whole, grows) if winner is None else None
            if found is not None:
                unseen = case.engine.unseen(case.situation)
                return found, explain.exploring(found, case.diagnosis, case.limits, unseen)
        if not ranking.does(winner, self._settings, case.limits):
            lossy = [item for item in ranked if va.LEVER in item.candidate.levers]
            winner = ranking.least_loss(lossy, self._settings, case.limits) or winner
        if winner is None:
            sheds = [item for item in ranked if ad.LEVER in item.candidate.levers]
            winner = ranking.least_refused(sheds, self._settings, case.limits)
        return winner, self._winning(case, winner) if winner is not None else ""

    def _corrected(self, case: Case, stay: Predicted) -> Case:
        """With what the present setting shows of how far the model is off."""
        signal = case.observation.promise.signal
        limit_ms = case.limits.get(signal, math.inf)
        depth = rd.recent(case.observation.window, "queue_depth", self._settings.recent_s)
        found = ps.off(stay, signal, case.situation.now.p95_ms, limit_ms, depth)
        return replace(case, knowledge=replace(case.knowledge, off=found))

    def _worthwhile(self, case: Case, base: Candidate, ranked: list[Ranked]) -> list[Ranked]:
        """What would show the present setting's figures again is barred: no change is made for luck."""
        stay = case.engine.predict([base], case.observation, case.situation, case.knowledge, self._settings)[0]

        def restarts(item: Ranked) -> bool:
            return case.engine.restarts and "batch_size" in item.candidate.levers

        return [
            replace(item, barred=ps.brings_nothing(item.predicted, stay, case.limits, restarts=restarts(item)))
            if item.ends and not item.barred
            else item
            for item in ranked
        ]

    def _why(self, case: Case, item: Ranked) -> str:
        return case.engine.why(item.candidate, item.predicted, case.situation)

    def _winning(self, case: Case, winner: Ranked) -> str:
        text = explain.chosen(
            winner, case.diagnosis, case.limits, self._why(case, winner), case.observation.promise.signal
        )
        if not winner.ends:
            return f"{text}{explain.hardly(winner)}"
        if not winner.drains:
            return f"{text}{explain.late(winner)}"
        if winner.eligible(self._settings, case.limits) or winner.success >= self._settings.confidence:
            return text
        if ranking.probable(winner, self._settings, case.limits):
            return f"{text}; likely enough ({winner.predicted.meets:.0%}) to be tried before anything that costs"
        return f"{text}; not sure ({winner.predicted.meets:.0%}), but the likeliest within bounds"

    def _stay(self, case: Case, base: Candidate) -> Predicted:
        """What holding would bring, with the arrivals that a falling queue tells where it does."""
        turned = case.engine.since_turn(case.observation, case.situation)
        situation = turned if turned is not None else case.situation
        return case.engine.predict([base], case.observation, situation, case.knowledge, self._settings)[0]

    def _passes(self, case: Case, stay: Predicted) -> str:
        """The present setting meets the SLO once the queue has drained, and the queue IS draining, or what broke the
        SLO may be the luck of a few requests: why no change is needed yet, "" where one may be."""
        window, situation = case.observation.window, case.situation
        p95 = rd.recent(window, case.observation.promise.signal, self._settings.recent_s)
        depth = rd.recent(window, "queue_depth", self._settings.recent_s)
        falling = ps.falls(p95)
        emptying = (
            depth.size >= 4
            and float(depth[-1]) < th.PASSES_DEPTH * float(depth.max())
            and bool(depth[-1] < depth[-th.LEVEL_POINTS])
        )
        sound = situation.slow is None or situation.slow < th.PASSES_SLOW
        meets = stay.meets >= th.PASSES_MEETS and stay.ratio(case.limits) <= self._settings.headroom
        window_s = self._settings.rate_window_s
        age_s = case.observation.at_s - case.incident.opened_at_s
        if stay.drain_s >= th.PASSES_DRAIN_S:
            return ""
        if case.engine.restarts:
            limit_ms = case.limits.get(case.observation.promise.signal, 0.0)
            # A queue that takes longer to drain than a rate window lasts is not the luck of a few requests.
            luck = stay.drain_s <= window_s and ps.may_be_luck(p95, limit_ms, age_s, window_s)
            if waits := ps.before_a_restart(stay, case.limits, self._settings, p95, depth, luck):
                return waits
        if not meets:
            return ""
        if (falling or emptying) and sound:
            return explain.drains(stay)
        if ps.just_changed(case.incident.opened_at_s, case.changed_s, case.observation.at_s, window_s):
            return explain.changed(stay, case.limits)
        # P95 rests on a handful of requests of one rate window: a few slow ones in a row break the SLO's rule.
        requests = (situation.now.qps or math.inf) * window_s
        brief = age_s <= th.LUCK_WINDOWS * window_s and not (case.engine.restarts and stay.drain_s > window_s)
        return explain.few(stay, requests, case.limits) if brief and requests < th.LUCK_REQUESTS else ""

    def _rank(self, case: Case, base: Candidate) -> list[Ranked]:
        """All single levers, and pairs where they are cheaper than the best single."""
        ranked = self._judge(case, case.engine.options(case.observation, case.situation), case.situation)
        whole = [item for item in ranked if not _COSTLY & set(item.candidate.levers)]
        sure = [item for item in whole if item.eligible(self._settings, case.limits) and not item.guessed]
        dearest = min((item.candidate.cost_per_hour for item in sure), default=math.inf)
        if dearest <= 0:
            return ranked
        adds = CAUSES[case.diagnosis.cause].pair_adds
        pairs = _pairs(ranked, base, dearest, case.limits)
        allowed = [pair for pair in pairs if adds is None or _added(pair, base) <= adds]
        return ranked + self._judge(case, allowed, case.situation)

    def _judge(self, case: Case, candidates: list[Candidate], situation: Situation) -> list[Ranked]:
        shown = case.engine.predict(candidates, case.observation, situation, case.knowledge, self._settings)
        tried, harmful = (of(case.incident, case.past) for of in (rd.tried_levers, rd.harmful_levers))
        ranked = []
        for candidate, predicted in zip(candidates, shown, strict=True):
            trust = ef.posterior(case.seen, case.observation.service.name, case.diagnosis.cause, candidate.levers)
            reason = ranking.barred(candidate, trust, tried, harmful) or _refuses_too_much(case, candidate, predicted)
            half = bool(reason) and not ranking.barred(candidate, trust, frozenset(), harmful)
            if predicted.unknown and not case.engine.rules_apply:
                reason, half = reason or case.engine.unseen(situation), False
            ranked.append(Ranked(candidate, predicted, trust, self._settings.rate_window_s, reason, half))
        return ranked

    def _save(self, case: Case) -> Plan:
        """One replica fewer, if it was idle for long and the rest carry the highest load of the look-back with room."""
        observation, situation = case.observation, case.situation

        def hold(reason: str) -> Plan:
            return self._plan(case, Option(changes=(), reason=f"hold: {reason}"), _untouched(observation))

        idle_s = observation.at_s - case.incident.opened_at_s
        if variant := va.degraded(observation):
            return hold(f"the variant {variant} serves: the whole one comes back before anything is given back")
        if idle_s < self._settings.saving_patience_s:
            return hold(f"idle for {idle_s:.0f} s only, {self._settings.saving_patience_s:.0f} s are asked for")
        fewer = case.engine.savings(observation, situation)
        if not fewer or not situation.identified:
            return hold("no replica can be given back" if not fewer else "the load or the batch time is not exported")
        item = self._judge(case, fewer[:1], _at_peak(observation, situation))[0]
        if item.barred:
            return hold(item.barred)
        too_busy = item.predicted.load > self._settings.saving_busy
        if too_busy or item.predicted.high_ratio(case.limits) > th.SAVING_P95 * self._settings.headroom:
            shown = item.predicted.shown[item.predicted.worst(case.limits)]
            return hold(
                f"{item.candidate.setting['replicas']} replicas would be busy {item.predicted.load:.0%} with P95 up to "
                f"{ms(shown.high)} at the highest load seen: no room to give one back"
            )
        text = explain.chosen(item, case.diagnosis, case.limits, self._why(case, item))
        return self._plan(case, _option(case, item, text), _untouched(observation))

    def _with_lease(self, case: Case, plan: Plan, winner: Ranked) -> Plan:
        """More replicas, a variant and a limit are lent, with the rate below which the old setting would do."""
        if va.LEVER in winner.candidate.levers:
            lease_s, below_qps = self._settings.lease_s, self._does_again(case)
            price = explain.price(winner.candidate.loss, va.lasted_s(case.past), lease_s, below_qps)
            reason = f"{plan.reason}. {price}"
            return plan.model_copy(update={"lease_s": lease_s, "revert_below_qps": below_qps, "reason": reason})
        if (refusal := plan.chosen.refusal) is not None:
            lease_s, below_qps = self._settings.lease_s, self._does_again(case)
            price = explain.refusal(refusal, va.lasted_s(case.past, ad.LEVER), lease_s, below_qps)
            reason = f"{plan.reason}. {price}"
            return plan.model_copy(update={"lease_s": lease_s, "revert_below_qps": below_qps, "reason": reason})
        if "replicas" not in winner.candidate.levers or winner.candidate.cost_per_hour < 0:
            return plan
        rate = case.situation.arrivals
        carried = case.engine.capacity(case.situation)
        below = th.LEASE_RETURN * (min(carried, rate.qps.value) if rate is not None else carried)
        return plan.model_copy(update={"lease_s": self._settings.lease_s, "revert_below_qps": below})

    def _does_again(self, case: Case) -> float | None:
        """The highest rate of requests (1/s) at which the setting as it is would meet the SLO with headroom, without
        the queue that stands now, or did so in the calm before the incident; None where the load is not known."""
        rate = case.situation.arrivals
        if rate is None:
            return None
        calm = calm_window(case.observation, case.incident.opened_at_s, self._settings)
        seen = (calm, case.observation.history)
        kept = max(va.kept_at_qps(window, case.limits, self._settings.headroom) for window in seen)
        stay = case.engine.unchanged(case.observation, case.situation)
        low, high = 0.0, 1.0
        for _ in range(th.RETURN_STEPS):
            share = (low + high) / 2
            then = replace(case.situation, arrivals=_scaled(rate, share), backlog=0.0)
            found = case.engine.predict([stay], case.observation, then, case.knowledge, self._settings)[0]
            # How sure that is needs no margin on top of the headroom: the step back is looked at, and taken again.
            low, high = (share, high) if found.ratio(case.limits) <= self._settings.headroom else (low, share)
        return max(low * rate.qps.value, kept)

    def _plan(self, case: Case, chosen: Option, rejected: Sequence[Option]) -> Plan:
        incident, observation = case.incident, case.observation
        return Plan(
            id=rd.plan_id(incident),
            incident_id=incident.id,
            service=observation.service.name,
            decided_at_s=observation.at_s,
            mode=rd.mode_of(observation, chosen),
            diagnosis=case.diagnosis,
            chosen=chosen,
            rejected=tuple(rejected),
            settle_s=rd.settle_s(
                observation, chosen, min(th.SETTLE_MAX_S, chosen.effect_delay_s + self._settings.rate_window_s)
            ),
            dry_run=observation.dry_run,
            since_s=observation.since_s,
            tries=observation.tries,
            attempt=incident.attempt,
            reason=chosen.reason,
            objective=observation.promise,
        )


def _asking(plan: Plan) -> Plan:
    """A change whose effect nothing predicts is made by nobody's decision but a person's."""
    if not plan.chosen.changes or plan.mode != "act":
        return plan
    why = "its effect cannot be predicted from what is exported here, so a person is asked"
    reason = f"{plan.reason}; {why}"
    chosen = plan.chosen.model_copy(update={"reason": reason})
    return plan.model_copy(update={"mode": "approve", "chosen": chosen, "reason": reason})


def _option(
    case: Case, item: Ranked, reason: str, stay: Predicted | None = None, *, feasible: bool = True
) -> Option:
    """stay: what holding would bring, for what is refused and answered in time as it is."""
    return Option(
        changes=item.candidate.changes,
        predicted_p95_ms=item.predicted.told(case.observation.promise.signal),
        meets_slo=item.predicted.ratio(case.limits) <= 1,
        cost_per_hour=item.candidate.cost_per_hour,
        quality_loss=item.candidate.loss,
        refusal=_refusal(item, stay) if ad.LEVER in item.candidate.levers else None,
        effect_delay_s=item.candidate.delay_s + (item.predicted.drain_s if item.ends else 0.0),
        risk=item.candidate.risk,
        probability_worked=round(item.success, 3),
        feasible=feasible and item.ends,
        reason=reason,
    )


def _refusal(item: Ranked, stay: Predicted | None) -> Refusing | None:
    share, in_time = item.predicted.refused, item.predicted.in_time_per_s
    if share is None or in_time is None or stay is None or stay.refused is None:
        return None
    return Refusing(
        share=share,
        share_now=stay.refused.value,
        in_time_per_s=in_time,
        in_time_now_per_s=stay.in_time_per_s or 0.0,
    )


def _won_by(item: Ranked, stay: Predicted) -> Ranked:
    """A limit is barred unless clearly more is answered in time with it than as it is."""
    if item.barred or ad.LEVER not in item.candidate.levers:
        return item
    with_it, as_it_is = item.predicted.in_time_per_s or 0.0, stay.in_time_per_s or 0.0
    return item if with_it > th.LIMIT_WINS * as_it_is else replace(item, barred=explain.wins_little(with_it, as_it_is))


def _refuses_too_much(case: Case, candidate: Candidate, predicted: Predicted) -> str:
    """Why a limit may not be set: it refuses more than the lever allows; "" where it does not."""
    if ad.LEVER not in candidate.levers or predicted.refused is None:
        return ""
    most = ad.most_refused(case.observation.service.levers.get(ad.LEVER))
    share = predicted.refused.value
    return "" if share <= most else f"it would refuse {share:.0%} of the requests, and max_refused is {most:.0%}"


def _pairs(ranked: list[Ranked], base: Candidate, dearest: float, limits: Mapping[str, float]) -> list[Candidate]:
    """Pairs of different levers, each with the better halves only, cheaper than the best single."""
    usable = [item for item in ranked if not item.barred or item.half]

    def of(lever: str) -> list[Ranked]:
        return [item for item in usable if item.candidate.levers == (lever,)]

    batches = sorted(of("batch_size"), key=lambda item: (item.predicted.load, item.predicted.ratio(limits)))
    batches = batches[: th.PAIR_BATCHES]
    replicas, precision = of("replicas"), of("precision")
    found = [
        options.pair(one.candidate, other.candidate, base)
        for first, second in ((batches, replicas), (batches, precision), (precision, replicas))
        for one in first
        for other in second
    ]
    return sorted((c for c in found if c.cost_per_hour < dearest), key=lambda c: c.cost_per_hour)[: th.PAIRS]


def _added(candidate: Candidate, base: Candidate) -> int:
    """Replicas more than run now."""
    return int(candidate.setting.get("replicas", 0)) - int(base.setting.get("replicas", 0))


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


def _untouched(observation: Observation, limits: bool = True) -> tuple[Option, ...]:
    """Levers that could not be weighed, or have no way up left, with the reason. limits: whether the effect of a limit
    of what is taken in would be told and proven."""
    found = []
    for name, lever in sorted(observation.service.levers.items()):
        why = observation.unreadable.get(name) or (rd.no_int8(lever) if name == "precision" else "")
        why = why or rd.at_bound(name, lever, observation.settings.get(name))
        why = why or (va.untold(observation, lambda _: None) if name == va.LEVER else "")
        why = why or (ad.untold(observation, limits) if name == ad.LEVER else "")
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
    highest = max((float(sorted(p)[int(th.PEAK * (p.size - 1))]) for p in peaks if p.size), default=0.0)
    rate = situation.arrivals.qps
    grow = max(1.0, highest / rate.value) if rate.value else 1.0
    return replace(situation, arrivals=_scaled(situation.arrivals, grow))


def _scaled(forecast: Forecast, by: float) -> Forecast:
    rate = forecast.qps
    return replace(
        forecast, qps=Interval(value=rate.value * by, low=rate.low * by, high=rate.high * by, level=rate.level)
    )
