"""A leased change, tended by every sweep: left alone, renewed, or handed back in steps, each settled and looked at.

What is due is decided by `tuning.policies.lease` (pure). A step that made P95 worse is taken back; the lease goes on. A
value that a person has set meanwhile is final: the lease ends, and nothing is touched. What keeps a lease from ending
(a lever that cannot be read, a load that cannot be told, a stop) is raised, and so reaches a person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from detection.errors import Temporary
from detection.model import Incident, MetricWindow, Span, make_id
from tuning import attempt as attempts
from tuning import formats
from tuning.attempt import Attempt, value
from tuning.errors import NotApplied
from tuning.guards import Unreadable, last_written, stopped
from tuning.knobs import same_knobs
from tuning.loop import act, call, prove, records, tell
from tuning.loop.observe import look_back, observe, past
from tuning.loop.parts import Parts
from tuning.model import LEVER_STEPS, Change, Knob, OpenChange, Option, Plan, Receipt, Setting
from tuning.orders import to_hand_back
from tuning.policies import lease, timing
from tuning.query import Query
from tuning.report.notice_mail import lease_mail, notice_mail
from tuning.report.words import spoken

_DAY_S = 86_400.0
_POINTS = 2000
"""Points of a series over a lease at most."""


def tend(parts: Parts, change: OpenChange, at_s: float) -> str | None:
    """What was done about a leased change now, in a sentence; None when nothing was.

    Raises a SlotuneError where the lease cannot be tended, or cannot end when it should.
    """
    attempt = attempts.of(parts.ledger, change.plan)
    held = held_now(parts, attempt.plan)
    step = last_step(parts, attempt, held, at_s)
    moved = {c.lever: c for c in attempt.plan.chosen.changes}
    found = {name: lease.found(c, ours(attempt, step, name), held[name].values) for name, c in moved.items()}
    free = _free_half(parts, attempt)
    if later := _later(parts, change.service, held, found):
        attempt = _without(attempt, later)
        if moved.keys() <= later | free:
            reason = f"A later change of slotune's stands in its place ({', '.join(sorted(later))}): the lease ends."
            prove.close(parts, attempt, at_s, "keep", reason)
            return reason
    stands = [s for lever, s in found.items() if lever not in later and (s == "foreign" or lever not in free)]
    if "foreign" not in stands:
        attempt = _without(attempt, free)
    action = lease.TEND[_together(stands), _how(parts, step, at_s)]
    if action == "close":
        return _end(parts, attempt, at_s, stays=[moved[lever] for lever in sorted(free - later)])
    if action == "release":
        return release(parts, attempt, held, at_s)
    if action == "take_back" and step is not None:
        return _take_back(parts, change, attempt, step, at_s)
    return _due(parts, change, attempt, held, at_s) if action == "tend" else None


def held_now(parts: Parts, plan: Plan) -> dict[str, Setting]:
    truth = act.truth(parts, plan)
    unread = {lever: setting.reason for lever, setting in truth.items() if isinstance(setting, Unreadable)}
    if unread:
        told = "; ".join(f"{lever}: {reason}" for lever, reason in unread.items())
        raise Temporary(f"what is on lease cannot be read ({told})")
    return {lever: setting for lever, setting in truth.items() if isinstance(setting, Setting)}


def last_step(parts: Parts, attempt: Attempt, held: Mapping[str, Setting], at_s: float) -> Attempt | None:
    """The newest step back that was made; a step that landed and was not written down is written down now."""
    if not attempt.steps_back:
        return None
    step = attempts.of(parts.ledger, attempt.steps_back[-1])
    if step.receipts or step.undo is not None:
        return step
    change = step.plan.chosen.changes[0]
    if not same_knobs(change.new, held[change.lever].values):
        return None if len(attempt.steps_back) < 2 else attempts.of(parts.ledger, attempt.steps_back[-2])
    record = records.found_record(step.plan, change, at_s, "found in force; written down from the read-back")
    parts.ledger.put(record)
    return step.plus(record)


def ours(attempt: Attempt, step: Attempt | None, lever: str) -> Mapping[str, Knob] | None:
    """What slotune left a lever at; None: what was planned."""
    if step is None or lever not in step.plan.chosen.levers:
        return attempt.left(lever)
    if step.undo is not None:
        return step.undo.left(lever) or step.plan.chosen.changes[0].old
    return step.left(lever)


def _later(parts: Parts, service: str, held: Mapping[str, Setting], found: Mapping[str, lease.Found]) -> frozenset[str]:
    """The levers at which a later change of slotune's stands, kept for good: what it left is no other hand's."""
    foreign = [lever for lever, stand in found.items() if stand == "foreign"]
    if not foreign:
        return frozenset()
    ours = Query(kinds=(*LEVER_STEPS.values(), "roll_back"), services=(service,), phase="result", order="written")
    left = last_written(parts.ledger.find(ours), service)
    return frozenset(lever for lever in foreign if lever in left and same_knobs(left[lever], held[lever].values))


def _free_half(parts: Parts, attempt: Attempt) -> frozenset[str]:
    """The levers of a lease that stay when it ends, since they cost nothing; none where a person asks for all of it."""
    changes = attempt.plan.chosen.changes
    free = frozenset(change.lever for change in changes) - {change.lever for change in lease.lent(changes)}
    if free and to_hand_back(records.orders(parts.ledger, attempt.plan.service), attempt.plan.id) is not None:
        return frozenset()
    return free


def _without(attempt: Attempt, levers: frozenset[str]) -> Attempt:
    """The rest of a temporary change: what is still its own, and goes back when its time is up."""
    chosen = attempt.plan.chosen
    changes = tuple(change for change in chosen.changes if change.lever not in levers)
    rest = attempt.plan.model_copy(update={"chosen": chosen.model_copy(update={"changes": changes})})
    return replace(attempt, plan=rest)


def _together(stands: list[lease.Found]) -> lease.Found:
    if "foreign" in stands:
        return "foreign"
    return "old" if all(stand == "old" for stand in stands) else "ours"


def _how(parts: Parts, step: Attempt | None, at_s: float) -> lease.LastStep:
    """How the last step back did. One that was taken back is none."""
    if step is None or step.undo is not None or step.made_s is None:
        return "none"
    if at_s < prove.look_until_s(parts, step) and not prove.clock_went_back(step, at_s):
        return "settling"
    outcome, _, _ = prove.judged(parts, step, at_s)
    # Slower within the objective is what was to be expected; failing, or answering wrongly, is not.
    harm = not outcome.resolved or any(not guarded.ok for guarded in outcome.guards)
    return "worse" if outcome.verdict == "worse" and harm else "done"


def _end(parts: Parts, attempt: Attempt, at_s: float, stays: Sequence[Change] = ()) -> str:
    """stays: the half of a pair that costs nothing and was not lent."""
    by_us = bool(attempt.steps_back)
    reason = "The temporary change was handed back." if by_us else "The temporary change was set back by somebody."
    if stays:
        reason = f"{reason} What costs nothing stays: {'; '.join(change.text() for change in stays)}."
    if price := _paid(parts, attempt, at_s):
        reason = f"{reason} It cost {price}."
    prove.close(parts, attempt, at_s, "keep", reason)
    if price:
        _tell_paid(parts, attempt, reason, price, at_s)
    return f"handed back{f'; it cost {price}' if price else ''}" if by_us else reason


def _paid(parts: Parts, attempt: Attempt, at_s: float) -> str:
    """What a variant cost while it served, in point-minutes, or what a limit refused; "" for a change that takes
    nothing from those who ask."""
    chosen, since_s = attempt.plan.chosen, attempt.first_made_s
    if (chosen.quality_loss <= 0 and chosen.refusal is None) or since_s is None:
        return ""
    last = attempts.of(parts.ledger, attempt.steps_back[-1]) if attempt.steps_back else None
    until_s = last.made_s if last is not None and last.made_s is not None else at_s
    if chosen.refusal is not None:
        return _refused(parts, attempt.plan, since_s, until_s)
    return formats.point_minutes(chosen.quality_loss, until_s - since_s)


def _refused(parts: Parts, plan: Plan, since_s: float, until_s: float) -> str:
    """What failed or was refused while a limit was in force, as measured; as planned where nothing was."""
    service, minutes = parts.service(plan.service), (until_s - since_s) / 60
    step_s = max(parts.settings.prometheus.step_s, (until_s - since_s) / _POINTS)
    window = parts.source.read([service], ("qps", "error_rate"), Span(since_s, max(since_s, until_s), step_s)).get(
        service.name
    )
    rates, shares = (None if window is None else window.values.get(name) for name in ("qps", "error_rate"))
    if rates is None or shares is None or not (known := np.isfinite(rates) & np.isfinite(shares)).any():
        planned = plan.chosen.refusal.share.value if plan.chosen.refusal is not None else 0.0
        return f"{formats.refused(planned)} for {minutes:.1f} min, as planned (what was refused was not measured)"
    asked = float(rates[known].sum())
    share = float((rates[known] * shares[known]).sum()) / asked if asked > 0 else 0.0
    count = share * float(rates[known].mean()) * (until_s - since_s)
    return f"{formats.refused(share)} for {minutes:.1f} min: about {count:,.0f}"


def _tell_paid(parts: Parts, attempt: Attempt, reason: str, price: str, at_s: float) -> None:
    """People who agreed to worse answers, or to fewer, hear that it is over, and what it came to."""
    plan = attempt.plan
    change = next(change for change in plan.chosen.changes if change.lever in ("variant", "admission"))
    old = next(iter(change.old.items()))
    over = f"{old[1]} serves again" if change.lever == "variant" else spoken(f"{old[0]} is {old[1]} again")
    measured = parts.service(plan.service).levers[change.lever].options.get("quality_of", "")
    title = f"{plan.service}: {over}, {price}"
    lines = [
        spoken(f"{plan.service}: {change.text()} was lent and is over. {reason}"),
        f"Points are of {measured}." if measured else "",
        f"slotune show {plan.id}",
    ]
    url = parts.incident_url(plan.incident_id)
    mail = notice_mail(make_id(plan.id, "paid"), title, lines, at_s, service=plan.service, url=url, tone="good")
    tell.tell_all(parts, mail)


def release(parts: Parts, attempt: Attempt, held: Mapping[str, Setting], at_s: float) -> str:
    plan = attempt.plan
    now = "; ".join(f"{c.lever} is {_words(held[c.lever].values, c)}" for c in plan.chosen.changes)
    reason = f"Somebody else has set it ({now}), and that is final: the lease of {plan.chosen.text()} ends."
    if price := _paid(parts, attempt, at_s):
        reason = f"{reason} Until then it cost {price}."
    prove.close(parts, attempt, at_s, "hold", reason)
    title = f"{plan.service}: a temporary change was taken over by somebody"
    lines = [
        f"{plan.service}: {reason}",
        "slotune leaves the value alone; it is not put back.",
        f"slotune show {plan.id}",
    ]
    url = parts.incident_url(plan.incident_id)
    tell.tell_all(parts, notice_mail(make_id(plan.id, "released"), title, lines, at_s, service=plan.service, url=url))
    return reason


def _words(values: Mapping[str, Knob], change: Change) -> str:
    return ", ".join(f"{knob} {values.get(knob, '?')}" for knob in change.new)


def _take_back(parts: Parts, change: OpenChange, attempt: Attempt, step: Attempt, at_s: float) -> str:
    """The step forward again; a stop forbids it, and then a person has to decide."""
    plan, service = attempt.plan, parts.service(change.service)
    outcome = step.last_verdict()
    reason = f"Handing back made P95 worse: {outcome[0].reason if outcome is not None else ''}"
    said = records.orders(parts.ledger, service.name)
    if (stop := stopped(service, plan.chosen.levers, parts.settings.safety, at_s, orders=said)) is not None:
        raise Temporary(f"{reason} The step is not taken back: {stop.reason}")
    prove.undo(parts, step, at_s)
    reason = reason.replace("made P95 worse", "made P95 worse, so the step was taken back", 1)
    renew(parts, plan, at_s, reason)
    return reason


def _due(parts: Parts, change: OpenChange, attempt: Attempt, held: Mapping[str, Setting], at_s: float) -> str | None:
    plan, service = attempt.plan, parts.service(change.service)
    window = parts.source.read([service], ("qps", "queue_ms", "p95_ms"), look_back(parts, at_s)).get(service.name)
    said = records.orders(parts.ledger, service.name)
    if (wish := to_hand_back(said, plan.id)) is not None:
        # The way back to the old value, on a person's word: neither the load nor a stop is asked.
        why = f"{wish.who} asked for it{': ' if wish.why else ''}{wish.why}."
        return _step_back(parts, attempt, held, None, at_s, why)
    decision = lease.due(change, window, at_s, parts.settings.safety, renewals=attempt.renewals)
    expired = change.expires_at_s is not None and at_s >= change.expires_at_s
    if decision.action == "renew":
        renew(parts, plan, at_s, decision.reason)
        return decision.reason
    if decision.action == "ask_person":
        return _ask(parts, change, at_s, decision.reason)
    if decision.action == "wait" and expired:
        raise Temporary(decision.reason)
    if attempt.renewals and not expired:
        return None  # after a step was taken back, or a lease renewed, nothing is handed back before it ends again
    if any(other.state != "leased" for other in parts.ledger.open_changes(service.name)):
        return None  # one unproven change at a time, and a step back is one
    if (stop := stopped(service, plan.chosen.levers, parts.settings.safety, at_s, orders=said)) is not None:
        if expired:
            raise Temporary(f"{decision.reason} It is not handed back: {stop.reason}")
        return None
    if decision.action == "wait":
        return _spare(parts, attempt, held, at_s)
    return _step_back(parts, attempt, held, window, at_s, decision.reason)


def _spare(parts: Parts, attempt: Attempt, held: Mapping[str, Setting], at_s: float) -> str | None:
    """Replicas that were added in a hurry go back before their lease ends, once what was measured since says that
    fewer do. Whatever else the change moved stays."""
    plan, service = attempt.plan, parts.service(attempt.plan.service)
    added = next((change for change in plan.chosen.changes if change.lever == "replicas"), None)
    if added is None:
        return None
    steps = lease.steps_back(added, held[added.lever], parts.settings.safety)
    incident = value(record, Incident) if (record := parts.ledger.get(plan.incident_id)) is not None else None
    if not steps or incident is None:
        return None
    seen, known = observe(parts, service, at_s), past(parts, service.name, plan.incident_id, at_s)
    for step in steps:
        if reason := parts.planner.spares(incident, seen, known, step):
            return make_step(parts, attempt, step, seen.window, at_s, reason)
    return None


def renew(parts: Parts, plan: Plan, at_s: float, reason: str) -> None:
    body: dict[str, object] = {"plan_id": plan.id, "renewed": True, "reason": reason}
    record = records.noted(plan, make_id(plan.id, "lease", at_s), "keep", body, at_s)
    parts.ledger.update_change(plan.id, "leased", record, expires_at_s=at_s + (plan.lease_s or 3600.0))


def _ask(parts: Parts, change: OpenChange, at_s: float, reason: str) -> str | None:
    """A person is asked by mail, daily; the lease stays as it is until somebody answers with a change of settings."""
    plan, since_s = change.plan, change.expires_at_s if change.expires_at_s is not None else change.opened_at_s
    record_id = make_id(plan.id, "lease", "ask a person", int((at_s - since_s) // _DAY_S))
    if parts.ledger.get(record_id) is not None:
        return None
    tell.tell_all(parts, lease_mail(plan, reason, at_s, parts.incident_url(plan.incident_id)))
    body: dict[str, object] = {"plan_id": plan.id, "renewed": False, "reason": reason}
    parts.ledger.put(records.noted(plan, record_id, "keep", body, at_s))
    return reason


def _step_back(
    parts: Parts,
    attempt: Attempt,
    held: Mapping[str, Setting],
    window: MetricWindow | None,
    at_s: float,
    reason: str,
) -> str | None:
    plan = attempt.plan
    for change in plan.chosen.changes:
        step = lease.next_step_back(
            change,
            held[change.lever],
            parts.settings.safety,
            qps=_newest(window, "qps"),
            limit_qps=plan.revert_below_qps,
        )
        if step is not None:
            return make_step(parts, attempt, step, window, at_s, reason)
    return None


def make_step(
    parts: Parts, attempt: Attempt, step: Change, window: MetricWindow | None, at_s: float, reason: str
) -> str:
    service = parts.service(attempt.plan.service)
    lever = service.levers.get(step.lever)
    back = _plan_of(parts, attempt, step, at_s, reason)
    if lever is not None:
        # A step back waits for itself only, not for what the change was made of (INT8, a queue that drained).
        source = "summary" if window is None else window.percentile_source
        own_s = timing.back_s(parts.settings.verification, lever, step, source)
        back = back.model_copy(update={"settle_s": min(back.settle_s, own_s)})
    parts.ledger.put(records.plan_record(back))
    try:
        applied = parts.actuator(service, step.lever).apply(service, step, key=f"{back.id}:{step.lever}")
    except NotApplied as error:
        if (made := call.another_value(service, step, error, at_s)) is not None:
            receipt = Receipt.of(made, id=_another_id(back.id, step.lever), plan=back)
            parts.ledger.put(records.receipt_record(receipt, back))
        raise
    receipt = Receipt.of(applied, id=attempts.receipt_id(back.id, step.lever), plan=back)
    parts.ledger.put(records.receipt_record(receipt, back))
    return f"handing back: {step.text()}. {reason}"


def _another_id(plan_id: str, lever: str) -> str:
    """Of the receipt of a step of which the endpoint made another value."""
    return make_id(attempts.receipt_id(plan_id, lever), "another value")


def _plan_of(parts: Parts, attempt: Attempt, step: Change, at_s: float, reason: str) -> Plan:
    """A step back as a plan of its own; the same step, tried again, is the same plan, unless the endpoint had made
    another value of it."""
    name = make_id(attempt.plan.id, "hand back", attempt.renewals, *sorted(step.new.items()))
    while parts.ledger.get(_another_id(name, step.lever)) is not None:
        name = make_id(name, "again")
    return attempt.plan.model_copy(
        update={
            "id": name,
            "decided_at_s": at_s,
            "rollback_of": attempt.plan.id,
            "chosen": Option(changes=(step,), reason=reason),
            "rejected": (),
            "lease_s": None,
            "reason": reason,
        }
    )


def _newest(window: MetricWindow | None, signal: str) -> float | None:
    values = window.values.get(signal) if window is not None else None
    finite = values[np.isfinite(values)] if values is not None else np.empty(0)
    return float(finite[-1]) if finite.size else None
