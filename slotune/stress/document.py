"""A stress test as JSON: the same figures as on the page; what is not known is null."""

from __future__ import annotations

import math
from dataclasses import asdict

from slotune.stress.model import Found, Step
from slotune.stress.words import summary


def document(found: Found) -> dict[str, object]:
    """{"format": 1, "summary", "service", "address", "knee", "turn", "steps", "recoveries", ...}; times in epoch s."""
    return {
        "format": 1,
        "summary": summary(found),
        "service": found.service or None,
        "address": found.address,
        "protocol": found.protocol,
        "began_s": found.began_s,
        "ended_s": found.ended_s,
        "ended": found.ended,
        "limits_ms": dict(found.plan.limits),
        "bound_per_s": found.plan.bound_per_s,
        "other_per_s": found.plan.other_per_s,
        "knee": asdict(found.knee),
        "turn_per_s": found.turn.model_dump() if found.turn is not None else None,
        "steps": [_step(step) for step in found.steps],
        "recoveries": [asdict(one) for one in found.recoveries],
        "saturated": [asdict(one) for one in found.saturated],
        "not_exported": list(found.untold),
        "blind": found.blind or None,
        "failures": dict(found.failures),
        "notes": list(found.notes),
        "learned": found.learned or None,
    }


def _step(step: Step) -> dict[str, object]:
    body = asdict(step) | {"p95": {name: one.model_dump() for name, one in step.p95.items()}}
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in body.items()}  # fmt: skip
