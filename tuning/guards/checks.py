"""The guards: each looks at a plan and the facts, and answers a Refusal with its reason, or None."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from detection.model import Lever, make_id
from tuning.guards.caps import capped, caps_of, claim_of
from tuning.guards.clock import clocks_apart
from tuning.guards.facts import GuardFacts, Unreadable
from tuning.guards.stop import effective_mode, stopped
from tuning.knobs import same_knobs
from tuning.model import Change, Knob, Plan, Refusal

MAIN_KNOBS = {
    "batch_size": ("batch_size", "max_num_seqs"),
    "replicas": ("min_replicas", "max_replicas", "replicas"),
    "precision": (),
    "release": (),
    "variant": (),
    "admission": (),
    "breaker": (),
    "restart": (),
}


def refuse(plan: Plan, facts: GuardFacts, guard: str, reason: str, until_s: float | None = None) -> Refusal:
    return Refusal(
        id=make_id(plan.id, "refusal", guard, facts.at_s),
        plan_id=plan.id,
        service=plan.service,
        guard=guard,
        reason=reason,
        at_s=facts.at_s,
        until_s=until_s,
    )


def stop(plan: Plan, facts: GuardFacts) -> Refusal | None:
    found = stopped(
        facts.service,
        plan.chosen.levers,
        facts.safety,
        facts.at_s,
        planned=plan.mode,
        dry_run=plan.dry_run,
        orders=facts.orders,
        changes=plan.chosen.changes,
    )
    if found is None:
        return None
    reason = f"Dry run: {plan.chosen.text()} is planned and not made." if found.name == "dry_run" else found.reason
    return refuse(plan, facts, found.name, reason, found.until_s)


def bounds(plan: Plan, facts: GuardFacts) -> Refusal | None:
    for change in plan.chosen.changes:
        lever = facts.service.levers.get(change.lever)
        if lever is None:
            return refuse(plan, facts, "bounds", f"{plan.service} does not allow the lever {change.lever}.")
        for knob in MAIN_KNOBS.get(change.lever, ()):
            outside = _outside(change, knob, lever.minimum, lever.maximum)
            if outside is not None:
                return refuse(plan, facts, "bounds", outside)
        for knob, name in (("batch_timeout_ms", "timeout_{}_ms"), ("max_num_batched_tokens", "tokens_{}")):
            low, high = lever.options.get(name.format("min")), lever.options.get(name.format("max"))
            if isinstance(low, int | float) and isinstance(high, int | float):
                outside = _outside(change, knob, float(low), float(high))
                if outside is not None:
                    return refuse(plan, facts, "bounds", outside)
        if change.lever == "variant" and (unknown := _unknown_variant(change, lever)):
            return refuse(plan, facts, "bounds", unknown)
        if change.lever == "admission" and (wrong := _no_lower_limit(change, lever)):
            return refuse(plan, facts, "bounds", wrong)
        low, high = change.new.get("min_replicas"), change.new.get("max_replicas")
        if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            return refuse(plan, facts, "bounds", f"min_replicas {low} is above max_replicas {high}.")
    return None


def _unknown_variant(change: Change, lever: Lever) -> str:
    told = lever.options.get("variants")
    names = [str(one.get("name")) for one in told if isinstance(one, dict)] if isinstance(told, list | tuple) else []
    wanted = str(change.new.get("variant"))
    return "" if wanted in names else f"{wanted} is none of the variants in services.yaml ({', '.join(names)})."


def _no_lower_limit(change: Change, lever: Lever) -> str:
    """A limit is only ever lowered, and not below its bound."""
    for knob, value in change.new.items():
        old = change.old.get(knob)
        if not isinstance(value, int | float) or value < lever.minimum:
            return f"{knob} {value} is below its bound of {lever.minimum:g}."
        if isinstance(old, int | float) and 0 < old < value:
            return f"{knob} {value} is above what is in force ({old}): limits are lowered, and given back."
    return ""


def _outside(change: Change, knob: str, low: float, high: float) -> str | None:
    value, old = change.new.get(knob), change.old.get(knob)
    if value is None or (knob == "replicas" and "min_replicas" in change.new) or value == old:
        return None  # a knob that stays where somebody put it is not ours to judge
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        return f"{knob} {value} is outside its bounds {low:g} to {high:g}."
    return None


def clock(plan: Plan, facts: GuardFacts) -> Refusal | None:
    apart = clocks_apart(facts.clock_skew_s, facts.safety.clock_tolerance_s)
    return refuse(plan, facts, "clock", apart) if apart is not None else None


def stale_data(plan: Plan, facts: GuardFacts) -> Refusal | None:
    if facts.stale_s is None:
        return refuse(plan, facts, "stale_data", f"There is no P95 of {plan.service}: no data is no ground to act on.")
    if facts.stale_s > facts.safety.stale_after_s:
        return refuse(
            plan,
            facts,
            "stale_data",
            f"The newest P95 of {plan.service} is {facts.stale_s:.0f} s old (limit "
            f"{facts.safety.stale_after_s:.0f} s): nobody can tell whether the problem still exists.",
        )
    return None


def error_budget(plan: Plan, facts: GuardFacts) -> Refusal | None:
    if facts.error_rate is None or facts.error_rate < facts.safety.error_budget:
        return None
    if plan.chosen.levers in (("release",), ("restart",), ("breaker",)):
        return None  # the version that fails, the replica or the route, is what is taken away
    if plan.chosen.levers in (("variant",), ("admission",)) and plan.diagnosis.curable:
        return None  # what is refused for want of capacity is what a faster variant answers, or is refused at the door
    return refuse(
        plan,
        facts,
        "error_budget",
        f"{facts.error_rate:.0%} of the requests of {plan.service} fail (limit {facts.safety.error_budget:.0%}): a "
        "lever does not cure errors, a person should look.",
    )


def caps(plan: Plan, facts: GuardFacts) -> Refusal | None:
    found = capped(
        claim_of(plan, facts.at_s), caps_of(facts.safety, facts.service, plan.chosen.levers), facts.standing
    )
    return None if found is None else refuse(plan, facts, found.name, found.reason, found.until_s)


def ownership(plan: Plan, facts: GuardFacts) -> Refusal | None:
    """Somebody else's hand: the truth is neither what slotune wrote last nor what the plan was made from."""
    for change in plan.chosen.changes:
        now = facts.settings_now.get(change.lever)
        if now is None or isinstance(now, Unreadable):
            why = now.reason if isinstance(now, Unreadable) else "it was not read"
            return refuse(plan, facts, "unreadable", f"{change.lever} of {plan.service} cannot be read: {why}")
        if not same_knobs(change.old, now.values) and not same_knobs(change.new, now.values):
            return refuse(
                plan,
                facts,
                f"ownership:{change.lever}",
                f"{change.lever} of {plan.service} was {_words(change.old)} when the plan was made and is "
                f"{_words(now.values)} now: somebody else is at it, slotune stands down.",
            )
        written = facts.last_written.get(change.lever)
        if written is None or same_knobs(_settable(written), now.at(written)):
            continue
        if change.lever == "release" and not same_knobs(facts.taken_away.get(change.lever, {}), now.values):
            continue  # another version than the one that was taken away is a release like any other
        since_s = facts.foreign_since_s.get(change.lever, facts.at_s)
        if facts.at_s - since_s >= facts.safety.stand_down_s:
            continue  # long enough: the value is the new normal
        return refuse(
            plan,
            facts,
            f"ownership:{change.lever}",
            f"slotune left {change.lever} of {plan.service} at {_words(written)}, and it is {_words(now.values)} now: "
            "somebody else changed it, slotune stands down.",
            until_s=since_s + facts.safety.stand_down_s,
        )
    return None


def approval(plan: Plan, facts: GuardFacts) -> Refusal | None:
    needed = effective_mode(facts.service, plan.chosen.levers, plan.mode) == "approve"
    if needed and not facts.approved:
        return refuse(plan, facts, "approval", f"{plan.chosen.text()} of {plan.service} needs a person's yes.")
    return None


def _settable(knobs: Mapping[str, Knob]) -> dict[str, Knob]:
    return {name: value for name, value in knobs.items() if name != "replicas" or "min_replicas" not in knobs}


def _words(knobs: Mapping[str, Knob]) -> str:
    return ", ".join(f"{name} {value}" for name, value in knobs.items())


GUARDS: tuple[Callable[[Plan, GuardFacts], Refusal | None], ...] = (
    stop,
    bounds,
    clock,
    stale_data,
    error_budget,
    caps,
    ownership,
    approval,
)
ROLLBACK_GUARDS: tuple[Callable[[Plan, GuardFacts], Refusal | None], ...] = (ownership,)
"""A roll-back makes the system safe again: nothing holds it up, except that the knob is not ours any more."""


def guard(plan: Plan, facts: GuardFacts) -> Refusal | None:
    """The first guard's no, None when all agree. A plan that holds needs nobody's leave."""
    if not plan.chosen.changes:
        return None
    for check in ROLLBACK_GUARDS if plan.rollback_of else GUARDS:
        refusal = check(plan, facts)
        if refusal is not None:
            return refusal
    return None
