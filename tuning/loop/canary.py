"""A change that is made on one replica first: the stage between the intent and the change of the whole service.

    <plan>:canary   intent: which replica, beside which peers      before it is touched
    receipt         of that replica
    verify_p95      that replica against its peers, and what follows from it
    <plan>:all      intent: the others follow                      before they are touched
    receipt         of the whole service; settle and verify_p95 go on as for any change

A step that is run again finds its records. A change that is left between the two stages is put back whole.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from detection.errors import SlotuneError
from detection.model import MetricWindow, Objective, Service, Span
from tuning.loop.observe import REPLICA_SIGNALS, look_back
from tuning.loop.parts import Parts
from tuning.model import LEVER_STEPS, Canary, Plan, Record
from tuning.policies import canary
from tuning.ports import Evidence, PerReplica

_log = logging.getLogger(__name__)


def choice_of(parts: Parts, service: Service, plan: Plan, at_s: float) -> canary.Choice | str:
    """The replica that a plan would change first now, or why all would be changed at once ("": nothing to say)."""
    if len(plan.chosen.changes) != 1:
        return ""
    lever = plan.chosen.changes[0].lever
    actuator = parts.actuator(service, lever)
    if not isinstance(actuator, PerReplica) or not service.levers[lever].options.get("canary", True):
        return ""
    endpoints = actuator.replicas(service)
    if len(endpoints) < 2:
        return ""
    try:
        windows = parts.source.read_replicas([service], REPLICA_SIGNALS, look_back(parts, at_s)).get(service.name, {})
    except SlotuneError as error:
        return str(error)
    return canary.choose(endpoints, windows, (plan.objective or service.slo.main).signal)


def foretold(parts: Parts, plan: Plan, at_s: float) -> str:
    """For a person who is asked: whether the change would begin on one replica, in a sentence."""
    try:
        choice = choice_of(parts, parts.service(plan.service), plan, at_s)
    except SlotuneError as error:
        return f"Whether one replica comes first cannot be told now: {error}"
    if not isinstance(choice, canary.Choice):
        return f"All replicas are changed at once: {choice}." if choice else ""
    beside = f"{len(choice.peers)} unchanged one{'s' if len(choice.peers) > 1 else ''}"
    return (
        f"One replica first: as things stand {choice.replica} is changed alone and compared with {beside}; the others "
        "follow only if it does better."
    )


def begin(parts: Parts, service: Service, plan: Plan, lever: str, at_s: float) -> tuple[Record | None, str]:
    """Choose the replica; its intent for the ledger, or None with the reason where all are changed at once."""
    choice = choice_of(parts, service, plan, at_s)
    if isinstance(choice, str):
        return None, f"no replica first: {choice}" if choice else ""
    first = Canary(
        plan_id=plan.id,
        service=service.name,
        lever=lever,
        replica=choice.replica,
        label=choice.label,
        peers=choice.peers,
        at_s=at_s,
    )
    _log.info("%s %s: %s first", LEVER_STEPS[lever], service.name, choice.replica)
    return _intent(plan, lever, "canary", at_s, first.model_dump(mode="json")), ""


def follow(plan: Plan, lever: str, at_s: float, reason: str) -> Record:
    """The intent that the others follow."""
    return _intent(plan, lever, "all", at_s, {"plan_id": plan.id, "reason": reason})


def _intent(plan: Plan, lever: str, name: str, at_s: float, body: dict[str, object]) -> Record:
    return Record(
        id=f"{plan.id}:{name}",
        kind=LEVER_STEPS[lever],
        phase="intent",
        service=plan.service,
        parent_id=plan.id,
        incident_id=plan.incident_id,
        at_s=at_s,
        body=body,
    )


def sides(
    parts: Parts, service: Service, first: Canary, span: Span, objective: Objective | None = None
) -> tuple[Evidence, Evidence]:
    """What the first replica and its peers showed over a span. objective: what they are judged by."""
    signals = (*REPLICA_SIGNALS, "p50_ms", "queue_ms", "accuracy", "agreement")
    found = parts.source.read_replicas([service], signals, span).get(service.name, {})
    own = found.get(first.label) or MetricWindow(service.name, span, {})
    peers = canary.pooled(service.name, span, [found[label] for label in first.peers if label in found])
    own_side = Evidence(window=own, slo=service.slo, objective=objective)
    return own_side, replace(own_side, window=peers)
