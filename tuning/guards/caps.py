"""The guards that count: how many changes may stand unproven, and how often a service may be changed.

They are asked twice. Early, beside the other guards, so that a refusal costs nothing; and once more inside the
transaction that claims the service, where nobody can come between the counting and the claim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from detection.model import Service
from tuning.caps import HOUR_S, Caps, Claim, MadeChange, Standing, Unproven
from tuning.guards.settings import SafetySettings
from tuning.guards.stop import Stop
from tuning.model import LEVER_STEPS, OpenChange, Plan, Record


def one_open_change(claim: Claim, standing: Standing, again_s: float = 600.0) -> Stop | None:
    """One unproven change of a service at a time: of two nobody could tell which one helped."""
    for other in standing.unproven:
        if other.service == claim.service and other.plan_id != claim.plan_id:
            return Stop(
                "one_open_change",
                f"{claim.service} has an open change ({other.what or f'plan {other.plan_id}'}, not proven yet): one at "
                "a time.",
                claim.at_s + again_s,
            )
    return None


def services_at_once(claim: Claim, caps: Caps, standing: Standing) -> Stop | None:
    busy = {other.service for other in standing.unproven if other.service != claim.service}
    if len(busy) < caps.services_at_once:
        return None
    return Stop(
        "services_at_once",
        f"{len(busy)} other services have an unproven change ({', '.join(sorted(busy)[:5])}), and "
        f"{caps.services_at_once} at once are allowed.",
        claim.at_s + caps.again_s,
    )


def cool_down(claim: Claim, caps: Caps, standing: Standing) -> Stop | None:
    for lever in claim.levers:
        wait_s = caps.cool_down_s.get(lever, 0.0)
        last_s = max((m.at_s for m in _others(claim, standing) if (m.service, m.lever) == (claim.service, lever)),
                     default=None)  # fmt: skip
        if last_s is not None and _age_s(claim, last_s) < wait_s:
            return Stop(
                "cool_down",
                f"{lever} of {claim.service} was changed {_age_s(claim, last_s):.0f} s ago, and its cool-down is "
                f"{wait_s:.0f} s.",
                min(last_s, claim.at_s) + wait_s,
            )
    return None


def changes_per_hour(claim: Claim, caps: Caps, standing: Standing) -> Stop | None:
    recent = [made for made in _others(claim, standing) if _age_s(claim, made.at_s) < HOUR_S]
    own = [made for made in recent if made.service == claim.service]
    limits = (
        (own, caps.changes_per_hour, f"{claim.service} was"),
        (recent, caps.changes_per_hour_total, "all services together were"),
    )
    for found, limit, who in limits:
        if len(found) + len(claim.levers) > limit:
            return Stop(
                "changes_per_hour",
                f"In the last hour {who} changed {len(found)} times, and {limit} are allowed.",
                min((min(made.at_s, claim.at_s) for made in found), default=claim.at_s) + HOUR_S,
            )
    return None


CAPS: tuple[Callable[[Claim, Caps, Standing], Stop | None], ...] = (
    services_at_once,
    cool_down,
    changes_per_hour,
)


def capped(claim: Claim, caps: Caps, standing: Standing) -> Stop | None:
    """The first cap that this claim would break; None when there is room for it."""
    taken = one_open_change(claim, standing, caps.again_s)
    return taken or next((stop for cap in CAPS if (stop := cap(claim, caps, standing)) is not None), None)


def _others(claim: Claim, standing: Standing) -> list[MadeChange]:
    """A step that is run again meets its own change."""
    return [made for made in standing.made if not made.plan_id or made.plan_id != claim.plan_id]


def _age_s(claim: Claim, at_s: float) -> float:
    """A change from after "now" was made before the clock stepped back: it is as young as can be."""
    return max(0.0, claim.at_s - at_s)


def unproven_of(change: OpenChange) -> Unproven:
    chosen = change.plan.chosen
    return Unproven(change.plan_id, change.service, chosen.levers, change.opened_at_s, chosen.text())


def standing_of(unproven: Iterable[Unproven], receipts: Iterable[Record]) -> Standing:
    """From the unproven changes and the results of the lever steps, in any order.

    A change that was claimed and whose receipt is missing counts as made: it may have been. A receipt that changed
    nothing does not count, and a change that was made on one replica first is one change, as old as its last step.
    """
    steps = {step: lever for lever, step in LEVER_STEPS.items()}
    unproven = tuple(unproven)
    found: dict[tuple[str, str], MadeChange] = {}
    told = set()
    for record in sorted(receipts, key=lambda r: r.at_s):
        if record.kind not in steps or record.phase != "result":
            continue
        key = (record.parent_id or record.id, steps[record.kind])
        told.add(key)
        if record.body.get("changed"):
            found[key] = MadeChange(record.service, key[1], record.at_s, key[0])
    for one in unproven:
        for lever in one.levers:
            if (one.plan_id, lever) not in told:
                found[one.plan_id, lever] = MadeChange(one.service, lever, one.at_s, one.plan_id)
    return Standing(unproven, tuple(found.values()))


def caps_of(safety: SafetySettings, service: Service, levers: Iterable[str]) -> Caps:
    """The limits of a claim on these levers: a lever's own cool-down goes before the one for all."""
    own = {name: lever.cool_down_s for name, lever in service.levers.items() if lever.cool_down_s is not None}
    return Caps(
        services_at_once=safety.services_at_once,
        changes_per_hour=safety.changes_per_hour,
        changes_per_hour_total=safety.changes_per_hour_total,
        cool_down_s={name: own.get(name, safety.cool_down_s) for name in levers},
        again_s=safety.hold_again_s,
    )


def claim_of(plan: Plan, at_s: float) -> Claim:
    return Claim(plan.id, plan.service, plan.chosen.levers, at_s)
