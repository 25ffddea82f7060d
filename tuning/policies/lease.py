"""Temporary changes: when one is handed back, and the next step on the way. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from detection.model import MetricWindow
from tuning.guards.settings import SafetySettings
from tuning.knobs import same_knobs
from tuning.model import Change, Knob, OpenChange, Setting
from tuning.policies.tables import ANY, table

LeaseAction = Literal["wait", "hand_back", "renew", "ask_person"]


@dataclass(frozen=True, slots=True)
class LeaseDecision:
    action: LeaseAction
    reason: str


_LOADS = ("unasked", "unreadable", "low", "fits", "high")
_BOOL = (True, False)
_ON_LEASE: tuple[LeaseAction, str] = ("wait", "On lease.")
# (load, expired, renewed often enough) -> (action, reason)
DUE: Mapping[tuple[Hashable, ...], tuple[LeaseAction, str]] = table(
    (_LOADS, _BOOL, _BOOL),
    [
        (("unasked", True, ANY), ("hand_back", "The lease has expired.")),
        ((frozenset({"unasked", "unreadable", "fits", "high"}), False, ANY), _ON_LEASE),
        (
            ("low", ANY, ANY),
            ("hand_back", "The load stayed below {low:.3g}/s for {seen:.0f} s: the old setting carried {limit:.3g}/s."),
        ),
        (
            ("unreadable", True, ANY),
            ("wait", "The lease has expired, and the load cannot be read: no blind hand-back."),
        ),
        (("fits", True, ANY), ("hand_back", "The lease has expired; the load ({load:.3g}/s) fits the old setting.")),
        (
            ("high", True, False),
            ("renew", "The load is {load:.3g}/s, and the old setting carried {limit:.3g}/s: the lease is renewed."),
        ),
        (
            ("high", True, True),
            ("ask_person", "Renewed {renewals} times, and the load is still {load:.3g}/s: is this the new normal?"),
        ),
    ],
)


def due(
    change: OpenChange, window: MetricWindow | None, at_s: float, settings: SafetySettings, *, renewals: int = 0
) -> LeaseDecision:
    """What to do about a leased change now. window: the service's recent signals (None: could not be read).

    Handed back early once the load has stayed below what the old setting carried, with hysteresis. At its expiry it
    is tested for removal: handed back unless the load is still above that, then renewed, but not for ever.
    """
    if change.state != "leased":
        return LeaseDecision("wait", "Not on lease.")
    limit = change.plan.revert_below_qps
    expired = change.expires_at_s is not None and at_s >= change.expires_at_s
    load = None if window is None else _load(window, at_s, settings.revert_for_s)
    low = (limit or 0.0) * (1 - settings.revert_hysteresis)
    if limit is None or load is None:
        state = "unasked" if limit is None else "unreadable"
    elif load[1] < low and load[2] >= settings.revert_for_s:
        state = "low"
    else:
        state = "fits" if load[0] <= limit else "high"
    action, reason = DUE[state, expired, renewals >= settings.lease_renewals]
    newest, _, seen = load or (0.0, 0.0, 0.0)
    return LeaseDecision(action, reason.format(load=newest, low=low, limit=limit or 0.0, seen=seen, renewals=renewals))


TendAction = Literal["wait", "close", "release", "take_back", "tend"]
Found = Literal["old", "ours", "foreign", "unknown"]
LastStep = Literal["none", "settling", "worse", "done"]
_FOUND = ("old", "ours", "foreign", "unknown")
_STEPS = ("none", "settling", "worse", "done")
# (where the system stands, how the last step back did). A person's value is final: the lease ends, nothing is touched.
TEND: Mapping[tuple[Hashable, ...], TendAction] = table(
    (_FOUND, _STEPS),
    [
        (("unknown", ANY), "wait"),
        (("foreign", ANY), "release"),
        (("old", "none"), "close"),
        (("old", "done"), "close"),
        (("old", "settling"), "wait"),
        (("old", "worse"), "take_back"),
        (("ours", "settling"), "wait"),
        (("ours", "worse"), "take_back"),
        (("ours", "none"), "tend"),
        (("ours", "done"), "tend"),
    ],
)


_PAID = frozenset({"replicas", "variant", "admission", "breaker"})
"""Levers that take something as long as they are in force: money, right answers, or an answer at all."""


def lent(changes: Sequence[Change]) -> tuple[Change, ...]:
    """Of the changes of a lease those that go back when it ends: what is paid for. The free half of a pair was proven
    with it and stays; where nothing of a lease is paid for, all of it was meant for a while."""
    return tuple(change for change in changes if change.lever in _PAID) or tuple(changes)


def found(change: Change, ours: Mapping[str, Knob] | None, now: Mapping[str, Knob]) -> Found:
    """Where a lever of a lease stands. ours: what slotune left it at last (None: not known, the plan's new value)."""
    if same_knobs(change.old, now):
        return "old"
    if same_knobs(ours if ours is not None else change.new, now):
        return "ours"
    return "foreign"


def covered(lease: OpenChange, others: Iterable[OpenChange]) -> bool:
    """Whether a newer open change stands on a lever of this lease. What was put on top comes off first: until then
    the lease is neither handed back nor given up, for the values that stand there are not its own."""
    levers = set(lease.plan.chosen.levers)
    near = [o for o in others if o.service == lease.service and o.plan_id != lease.plan_id]
    above, below = _reached(lease, near, _begins_where), _reached(lease, near, lambda a, b: _begins_where(b, a))
    for other in near:
        if not levers & set(other.plan.chosen.levers):
            continue
        over, under = other.plan_id in above, other.plan_id in below
        if over != under:
            if over:
                return True
        elif (other.opened_at_s, other.plan_id) > (lease.opened_at_s, lease.plan_id):
            return True
    return False


def _reached(
    lease: OpenChange, others: Sequence[OpenChange], follows: Callable[[OpenChange, OpenChange], bool]
) -> set[str]:
    """The ids of the changes that are reached from a lease, one following the other. Values tell which of two lies on
    top, also through a third between them; times only where values do not: a clock that stepped back between two
    changes makes the newer one look older."""
    found: set[str] = set()
    edge = [lease]
    while edge:
        last = edge.pop()
        step = [o for o in others if o.plan_id not in found and follows(o, last)]
        found |= {o.plan_id for o in step}
        edge += step
    return found - {lease.plan_id}


def _begins_where(other: OpenChange, lease: OpenChange) -> bool:
    """Whether the other change began where this one ended, on a lever of both."""
    ours = {change.lever: change for change in lease.plan.chosen.changes}
    return any(one.lever in ours and same_knobs(one.old, ours[one.lever].new) for one in other.plan.chosen.changes)


def _load(window: MetricWindow, at_s: float, for_s: float) -> tuple[float, float, float] | None:
    """(newest, highest, seconds covered) of the load over the last `for_s`; None without a number."""
    recent = window.between(at_s - for_s, at_s)
    values = recent.values.get("qps")
    if values is None or not np.isfinite(values).any():
        return None
    finite = values[np.isfinite(values)]
    # A gap is no proof of low load: only the seconds that hold a number count, the first point's own step included.
    return float(finite[-1]), float(finite.max()), float(finite.size) * window.span.step_s


def steps_back(change: Change, now: Setting, settings: SafetySettings) -> list[Change]:
    """The steps towards the old number of replicas that may be weighed, the largest first: all of the way where that
    leaves half of what serves, then half as many each, down to `safety.replicas_per_step`. Each is absolute."""
    main = "min_replicas" if "min_replicas" in change.old else "replicas"
    old, current = change.old.get(main), now.values.get(main)
    if not isinstance(old, int | float) or not isinstance(current, int | float) or current <= old:
        step = next_step_back(change, now, settings)
        return [] if step is None else [step]
    least = settings.replicas_per_step
    at_once = max(least, min(int(current - old), int(current) // 2))
    sizes = [at_once]
    while sizes[-1] > least:
        sizes.append(max(least, sizes[-1] // 2))
    return [step for size in sizes if (step := next_step_back(change, now, settings, at_once=size)) is not None]


def next_step_back(
    change: Change,
    now: Setting,
    settings: SafetySettings,
    *,
    qps: float | None = None,
    limit_qps: float | None = None,
    at_once: int | None = None,
) -> Change | None:
    """The next change towards the old values; None when they are in force already.

    Replicas go back a few at a time (at_once; default: `safety.replicas_per_step`). With `qps` and `limit_qps` (what
    the old setting carries) the load is re-predicted as load * N / (N - 1) per replica before each step, and a step
    that would not carry it is not taken (None).
    """
    if same_knobs(change.old, now.values):
        return None
    if change.lever != "replicas":
        return Change(lever=change.lever, old={k: now.values.get(k, v) for k, v in change.new.items()}, new=change.old)
    target: dict[str, Knob] = {}
    for knob, old in change.old.items():
        current = now.values.get(knob)
        if knob == "replicas" and "min_replicas" in change.old:
            continue
        if isinstance(current, str) or isinstance(old, str) or current is None:
            target[knob] = old
        elif current > old:
            target[knob] = max(old, current - (at_once or settings.replicas_per_step))
        else:
            target[knob] = old
    _keep_order(target, now)
    main = "min_replicas" if "min_replicas" in target else "replicas"
    if qps is not None and limit_qps is not None and not _carries(change, main, target, qps, limit_qps):
        return None
    return Change(lever=change.lever, old={k: now.values[k] for k in target if k in now.values}, new=target)


def _keep_order(target: dict[str, Knob], now: Setting) -> None:
    """The upper bound comes down only as far as the lower one has."""
    low, high = target.get("min_replicas"), target.get("max_replicas")
    if isinstance(low, int | float) and isinstance(high, int | float) and high < low:
        target["max_replicas"] = low


def _carries(change: Change, main: str, target: dict[str, Knob], qps: float, limit_qps: float) -> bool:
    old, new = change.old.get(main), target.get(main)
    if not isinstance(old, int | float) or not isinstance(new, int | float) or old <= 0:
        return True
    per_replica = limit_qps / old
    return qps <= math.fsum([per_replica * new])
