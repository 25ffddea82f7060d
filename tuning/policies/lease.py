"""Temporary changes: when one is handed back, and the next step on the way. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from detection.model import MetricWindow
from tuning.guards.settings import SafetySettings
from tuning.knobs import same_knobs
from tuning.model import Change, Knob, OpenChange, Setting

LeaseAction = Literal["wait", "hand_back", "renew", "ask_person"]


@dataclass(frozen=True, slots=True)
class LeaseDecision:
    action: LeaseAction
    reason: str


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
    if limit is None:
        return LeaseDecision("hand_back", "The lease has expired.") if expired else LeaseDecision("wait", "On lease.")
    low = limit * (1 - settings.revert_hysteresis)
    if load is not None and load[1] < low and load[2] >= settings.revert_for_s:
        return LeaseDecision(
            "hand_back",
            f"The load stayed below {low:.3g}/s for {load[2]:.0f} s: the old setting carried {limit:.3g}/s.",
        )
    if not expired:
        return LeaseDecision("wait", "On lease.")
    if load is None:
        return LeaseDecision(
            "wait", "The lease has expired, and the load cannot be read: no blind hand-back."
        )
    if load[0] <= limit:
        return LeaseDecision(
            "hand_back", f"The lease has expired; the load ({load[0]:.3g}/s) fits the old setting."
        )
    if renewals >= settings.lease_renewals:
        return LeaseDecision(
            "ask_person", f"Renewed {renewals} times, and the load is still {load[0]:.3g}/s: is this the new normal?"
        )
    return LeaseDecision(
        "renew", f"The load is {load[0]:.3g}/s, and the old setting carried {limit:.3g}/s: the lease is renewed."
    )


def _load(window: MetricWindow, at_s: float, for_s: float) -> tuple[float, float, float] | None:
    """(newest, highest, seconds covered) of the load over the last `for_s`; None without a number."""
    recent = window.between(at_s - for_s, at_s)
    values = recent.values.get("qps")
    if values is None or not np.isfinite(values).any():
        return None
    finite = values[np.isfinite(values)]
    # A gap is no proof of low load: only the seconds that hold a number count, the first point's own step included.
    return float(finite[-1]), float(finite.max()), float(finite.size) * window.span.step_s


def next_step_back(
    change: Change, now: Setting, settings: SafetySettings, *, qps: float | None = None, limit_qps: float | None = None
) -> Change | None:
    """The next change towards the old values; None when they are in force already.

    Replicas go back a few at a time. With `qps` and `limit_qps` (what the old setting carries) the load is re-predicted
    as load * N / (N - 1) per replica before each step, and a step that would not carry it is not taken (None).
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
            target[knob] = max(old, current - settings.replicas_per_step)
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
