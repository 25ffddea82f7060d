"""Reports for the tests of mails: complete values, no shortcuts."""

from __future__ import annotations

from typing import Any

from detection.model import Incident
from tuning.model import (
    Change,
    Decision,
    Diagnosis,
    Guarded,
    Interval,
    Option,
    Outcome,
    Plan,
    Receipt,
    Refusal,
    Report,
)

T0_S = 1_790_000_000.0


def incident(**kwargs: object) -> Incident:
    base: dict[str, Any] = {
        "id": "incident1", "service": "ranker", "symptom": "latency", "tier": "act", "severity": "critical",
        "opened_at_s": T0_S, "detected_at_s": T0_S + 25, "signals": ("p95_ms",), "anomalies": (),
        "reason": "P95 4310 ms is over the SLO of 150 ms",
    }  # fmt: skip
    return Incident(**{**base, **kwargs})


def plan(**kwargs: object) -> Plan:
    change = Change(lever="batch_size", old={"batch_size": 1}, new={"batch_size": 8})
    dearer = Change(lever="replicas", old={"min_replicas": 1}, new={"min_replicas": 2})
    base: dict[str, Any] = {
        "id": "plan1", "incident_id": "incident1", "service": "ranker", "decided_at_s": T0_S + 30, "mode": "act",
        "diagnosis": Diagnosis(cause="load surge", evidence=("QPS went from 48 to 160.",), queue_share=0.99),
        "chosen": Option(changes=(change,), predicted_p95_ms=Interval(value=41, low=30, high=58)),
        "rejected": (Option(changes=(dearer,), cost_per_hour=1.2, reason="dearer"),),
        "reason": "Every batch is full.",
    }  # fmt: skip
    return Plan(**{**base, **kwargs})


def report(**kwargs: object) -> Report:
    """A resolved incident."""
    receipt = Receipt(
        id="receipt1", plan_id="plan1", service="ranker", lever="batch_size", before={"batch_size": 1},
        after={"batch_size": 8}, applied=True, changed=True, at_s=T0_S + 33,
    )  # fmt: skip
    outcome = Outcome(
        id="outcome1", plan_id="plan1", service="ranker", verdict="improved", resolved=True, at_s=T0_S + 95,
        p95_before_ms=4310, p95_after_ms=38, effect=Interval(value=0.009, low=0.007, high=0.012),
        guards=(Guarded(signal="error_rate", before=0, after=0, ok=True, reason="0 % before and after"),),
        reason="every point lies under the SLO",
    )  # fmt: skip
    base: dict[str, Any] = {
        "id": "report1", "incident": incident(), "plan": plan(), "receipts": (receipt,), "outcome": outcome,
        "decision": Decision(step="keep", next="done", reason="P95 is under its objective."),
        "links": {"This run in Airflow": "http://127.0.0.1:8080/dags/tune_service"}, "at_s": T0_S + 100,
        "slo_p95_ms": 150.0, "timeline": tuple((T0_S + t, 30.0 + t) for t in range(0, 100, 2)),
        "events": ((T0_S, "onset"), (T0_S + 33, "batch_size 1 → 8")),
    }  # fmt: skip
    return Report(**{**base, **kwargs})


def held(reason: str = "no lever cures errors") -> Report:
    hold = plan(chosen=Option(changes=()), rejected=(), reason=reason)
    return report(plan=hold, receipts=(), outcome=None, decision=None)


def refused() -> Report:
    refusal = Refusal(
        id="refusal1", plan_id="plan1", service="ranker", guard="mode", reason="ranker is in mode observe", at_s=T0_S
    )
    return report(receipts=(), outcome=None, decision=None, refusal=refusal)
