"""The rules of the playbook, which need no prediction: batch first, then replicas, then INT8, each where it can help.

Shared by the planners: `playbook` is these rules, `model` falls back to them where nothing can be predicted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from detection.model import Incident
from tuning.formats import points
from tuning.model import Change, Diagnosis, Observation, Option, Plan, Record
from tuning.planning import admission as ad
from tuning.planning import explain, training
from tuning.planning import reading as rd
from tuning.planning import thresholds as th
from tuning.planning import variants as va
from tuning.planning.causes import CAUSES
from tuning.planning.facts import batches_full, queue_stands
from tuning.planning.reading import Reading
from tuning.planning.settings import PlanningSettings

_Weigh = Callable[[Observation, Reading, Diagnosis], tuple[Change | None, str]]


class Rules:
    """Rules over the queue/service split. Pure: the same arguments give the same plan."""

    def __init__(self, settings: PlanningSettings) -> None:
        self._settings = settings

    def propose(
        self, incident: Incident, observation: Observation, now: Reading, diagnosis: Diagnosis, past: Sequence[Record]
    ) -> Plan:
        """One lever, or a hold with its reason; every lever that was not chosen is listed with why."""
        options = self._options(incident, observation, now, diagnosis, past)
        chosen = next((option for option in options if option.feasible), None)
        rejected = tuple(option for option in options if option is not chosen)
        if chosen is None:
            chosen = Option(changes=(), reason=_hold_reason(diagnosis, rejected))
        return self.plan(incident, observation, now, diagnosis, chosen, _passed_over(rejected, chosen))

    def _options(
        self,
        incident: Incident,
        observation: Observation,
        now: Reading,
        diagnosis: Diagnosis,
        past: Sequence[Record],
    ) -> list[Option]:
        tried = rd.tried_levers(incident, past)
        options = []
        for name, weigh in self._ways():
            if name not in observation.service.levers:
                continue
            change, reason = weigh(observation, now, diagnosis)
            if name in tried:
                change, reason = None, f"{name} was tried for this incident and did not help"
            elif not diagnosis.curable or name not in CAUSES[diagnosis.cause].levers:
                change, reason = None, f"{name} cannot cure {diagnosis.cause.replace('_', ' ')}"
            options.append(self._option(observation, name, change, reason))
        return options

    def _ways(self) -> tuple[tuple[str, _Weigh], ...]:
        """The levers in the order of the playbook; what costs quality, or refuses requests, comes last."""
        return (
            ("batch_size", self._batch),
            ("replicas", self._replicas),
            ("precision", self._precision),
            ("variant", self._variant),
            ("admission", self._admission),
        )

    def _option(self, observation: Observation, name: str, change: Change | None, reason: str) -> Option:
        lever = observation.service.levers[name]
        setting = observation.settings.get(name)
        idle = Change(lever=name, old=dict(setting.values), new=dict(setting.values)) if setting else None
        changes = (change,) if change is not None else ((idle,) if idle is not None else ())
        return Option(
            changes=changes,
            cost_per_hour=lever.cost_per_hour if change is not None else 0.0,
            quality_loss=va.lost_by(lever, change) if change is not None else 0.0,
            effect_delay_s=lever.effect_delay_s,
            feasible=change is not None,
            reason=reason,
        )

    def _batch(self, observation: Observation, now: Reading, diagnosis: Diagnosis) -> tuple[Change | None, str]:
        setting, lever = observation.settings.get("batch_size"), observation.service.levers["batch_size"]
        if setting is None or now.batch_size is None:
            return None, _unreadable(observation, "batch_size")
        if setting.useless:
            return None, setting.useless
        bound = int(lever.maximum)
        if not queue_stands(now, self._settings):
            return None, "no queue stands, so a larger batch would only add waiting"
        if not batches_full(now, self._settings):
            return None, f"batches are not full ({_text(now.rows_per_batch)} of {now.batch_size} rows)"
        if now.batch_size >= bound:
            return None, f"the batch size is at its bound of {bound}"
        size = min(bound, now.batch_size * self._settings.batch_factor)
        return rd.batch_change(setting, size), (
            f"batches are full ({_text(now.rows_per_batch)} of {now.batch_size} rows) while requests queue for "
            f"{_text(now.queue_ms)} ms: {size} rows share the fixed cost of a batch"
        )

    def _replicas(self, observation: Observation, now: Reading, diagnosis: Diagnosis) -> tuple[Change | None, str]:
        setting, lever = observation.settings.get("replicas"), observation.service.levers["replicas"]
        if setting is None:
            return None, _unreadable(observation, "replicas")
        _, high = rd.replica_bounds(lever, setting)
        asked = rd.first(rd.number(setting, "min_replicas"), rd.number(setting, "replicas")) or 1
        current = max(int(asked), now.replicas or 0)
        if not queue_stands(now, self._settings):
            return None, "no queue stands, and replicas shrink nothing but the queue"
        if current >= high:
            return None, f"replicas are at their bound of {high}"
        count = min(high, max(current + 1, math.ceil(current * self._settings.replica_factor)))
        return rd.replica_change(setting, count), f"a queue stands and {count} replicas divide it"

    def _precision(self, observation: Observation, now: Reading, diagnosis: Diagnosis) -> tuple[Change | None, str]:
        setting = observation.settings.get("precision")
        if setting is None:
            return None, _unreadable(observation, "precision")
        if setting.values.get("precision") == "int8":
            return None, "the model is already served in INT8"
        missing = rd.no_int8(observation.service.levers["precision"])
        if missing:
            return None, missing
        change = Change(lever="precision", old=dict(setting.values), new={"precision": "int8"})
        return change, "the other levers are at their bounds, and INT8 shortens the service time itself"

    def _variant(self, observation: Observation, now: Reading, diagnosis: Diagnosis) -> tuple[Change | None, str]:
        setting, lever = observation.settings.get(va.LEVER), observation.service.levers[va.LEVER]
        if setting is None:
            return None, _unreadable(observation, va.LEVER)
        if setting.useless:
            return None, setting.useless
        lower = va.below(observation)
        if not lower:
            return None, rd.at_bound(va.LEVER, lever, setting) or "there is no variant below the one that serves"
        change = va.change(observation, lower[0].name)
        price = points(va.lost_by(lever, change))
        return change, f"nothing else is left, and {lower[0].name} answers faster, for {price} of quality"

    def _admission(self, observation: Observation, now: Reading, diagnosis: Diagnosis) -> tuple[Change | None, str]:
        setting = observation.settings.get(ad.LEVER)
        if setting is None:
            return None, _unreadable(observation, ad.LEVER)
        return None, setting.useless or "how many requests a lower limit would refuse cannot be predicted"

    def watched(self, incident: Incident, observation: Observation) -> Plan:
        """The plan about a training job: what is wrong with it, and a hold."""
        diagnosis = training.diagnosed(incident, observation, self._settings)
        now = rd.read_now(observation, self._settings)
        return self.plan(incident, observation, now, diagnosis, training.held(diagnosis), ())

    def plan(
        self,
        incident: Incident,
        observation: Observation,
        now: Reading,
        diagnosis: Diagnosis,
        chosen: Option,
        rejected: tuple[Option, ...],
    ) -> Plan:
        """The plan around a chosen option."""
        delay = rd.effect_delay_s(observation.service.levers, chosen)
        leased = bool({"replicas", va.LEVER} & set(chosen.levers))
        return Plan(
            id=rd.plan_id(incident),
            incident_id=incident.id,
            service=observation.service.name,
            decided_at_s=observation.at_s,
            mode=rd.mode_of(observation, chosen),
            diagnosis=diagnosis,
            chosen=chosen,
            rejected=rejected,
            settle_s=rd.settle_s(observation, chosen, self._settings.rate_window_s + delay),
            dry_run=observation.dry_run,
            since_s=observation.since_s,
            tries=observation.tries,
            lease_s=self._settings.lease_s if leased else None,
            revert_below_qps=th.PLAYBOOK_RETURN * now.qps if leased and now.qps else None,
            attempt=incident.attempt,
            reason=chosen.reason,
            objective=observation.promise,
        )


def _passed_over(rejected: tuple[Option, ...], chosen: Option) -> tuple[Option, ...]:
    """Options that would do as well but come later in the playbook say so."""
    return tuple(
        option.model_copy(update={"reason": f"not needed: {chosen.text()} comes first in the playbook"})
        if option.feasible
        else option
        for option in rejected
    )


def _hold_reason(diagnosis: Diagnosis, rejected: tuple[Option, ...]) -> str:
    if not diagnosis.curable:
        return explain.uncured(diagnosis)
    reasons = "; ".join(dict.fromkeys(option.reason for option in rejected)) or "the service has no lever"
    return f"hold: {reasons}"


def _unreadable(observation: Observation, lever: str) -> str:
    why = observation.unreadable.get(lever)
    return f"the present {lever} could not be read" + (f": {why}" if why else "")


def _text(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}"
