"""A run that a person started: it joins the incident that is open, and takes the value that was asked for.

What does not fit the service is refused before anything is planned, so that a slip costs no attempt.
"""

from __future__ import annotations

import json

from detection.errors import Permanent
from detection.model import Incident, Lever, make_id
from tuning.attempt import value as read_value
from tuning.loop import records
from tuning.loop.open_incidents import open_incidents_of
from tuning.loop.parts import Parts
from tuning.model import Change, Observation, Option, Plan, Setting
from tuning.planning import reading as rd
from tuning.query import Query

WITH_A_VALUE = ("batch_size", "replicas")
"""Levers whose setting is one number."""


def incident(parts: Parts, service_name: str, run: str, at_s: float) -> tuple[Incident, int]:
    """The service's open incident with the number of its next attempt, or one of its own with the first.

    A task that is run again gets what it got the first time. Raises ConfigError for an unknown service.
    """
    service = parts.service(service_name)
    kept = parts.ledger.get_blob(_key(run))
    if kept is not None:
        found = json.loads(kept)
        return records.load(parts.ledger, str(found["incident"]), Incident), int(found["attempt"])
    open_ = [one for one in open_incidents_of(parts.ledger, at_s) if one.service == service.name and one.tier == "act"]
    if open_:
        joined, attempt = open_[-1], _attempts(parts, open_[-1]) + 1
    else:
        joined, attempt = _own(parts, service.name, run, at_s), 1
    body = {"incident": joined.id, "attempt": attempt}
    parts.ledger.put_blob(_key(run), json.dumps(body).encode(), at_s=at_s)
    return joined, attempt


def _key(run: str) -> str:
    return f"by_hand/{make_id(run)}"


def _attempts(parts: Parts, incident: Incident) -> int:
    rows = parts.ledger.find(Query(kinds=("choose_action",), incident_ids=(incident.id,)))
    return max((plan.attempt for row in rows if (plan := read_value(row, Plan)) is not None), default=0)


def _own(parts: Parts, service: str, run: str, at_s: float) -> Incident:
    made = Incident(
        id=make_id("by hand", service, run),
        service=service,
        symptom="by_hand",
        tier="act",
        severity="info",
        opened_at_s=at_s,
        detected_at_s=at_s,
        signals=(),
        anomalies=(),
        reason="Started by hand.",
    )
    parts.ledger.put(records.incident_record(made))
    parts.ledger.put(records.closing_record(made, at_s, "started by hand: nothing to watch for"))
    return made


def check_value(lever: Lever, value: int) -> None:
    """Raises Permanent, with the bounds, for a value that a person may not ask for."""
    if lever.name not in WITH_A_VALUE:
        raise Permanent(f"the lever {lever.name} takes no value: leave it empty, or choose {' or '.join(WITH_A_VALUE)}")
    if not lever.minimum <= value <= lever.maximum:
        raise Permanent(
            f"{lever.name} {value} is outside its bounds of {lever.minimum:g} to {lever.maximum:g} in services.yaml: "
            "start the run again with a value within them"
        )


def with_value(plan: Plan, observation: Observation, lever: Lever, value: int, least_settle_s: float) -> Plan:
    """The plan with the value that a person asked for in place of the planner's choice, predicted where it was weighed.

    Raises Permanent where the lever cannot be read, or stands at that value already.
    """
    setting = observation.settings.get(lever.name)
    if setting is None:
        why = observation.unreadable.get(lever.name, "it cannot be read")
        raise Permanent(f"{lever.name} of {plan.service} cannot be set by hand now: {why}")
    change = _change(lever.name, setting, value)
    if change.old == change.new:
        raise Permanent(f"{lever.name} of {plan.service} is {value} already: nothing is to be changed")
    weighed = [option for option in (plan.chosen, *plan.rejected) if option.changes == (change,)]
    asked = weighed[0] if weighed else Option(changes=(change,))
    others = [option for option in (plan.chosen, *plan.rejected) if option is not asked and option.changes]
    reason = f"{change.text()} was asked for by hand"
    chosen = asked.model_copy(update={"reason": reason, "effect_delay_s": lever.effect_delay_s, "feasible": True})
    return plan.model_copy(
        update={
            "chosen": chosen,
            "rejected": tuple(others),
            "mode": rd.mode_of(observation, chosen),
            "settle_s": max(plan.settle_s, least_settle_s),
            "lease_s": None,
            "revert_below_qps": None,
            "reason": f"{reason}; the planner: {plan.reason or plan.chosen.reason}",
        }
    )


def _change(lever: str, setting: Setting, value: int) -> Change:
    return rd.batch_change(setting, value) if lever == "batch_size" else rd.replica_change(setting, value)
