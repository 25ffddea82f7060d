"""A ledger as a fleet leaves it behind: whole stories of incidents, and what is open at the end of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from detection.model import Incident
from tests.fakes.reports import incident as incident_of
from tests.fakes.reports import plan as plan_of
from tuning.ledger import SqlLedger
from tuning.loop import records as lines
from tuning.model import OpenChange, Plan, Receipt

EVERY_S = 60.0
SERVICES = 1000
BUSY = 1
"""The service that holds again and again: one in eight incidents is its own."""
OPEN_INCIDENTS, UNPROVEN, LEASED = 20, 3, 50
CURED = (
    ("open_incidents", "result"),
    ("choose_action", "result"),
    ("adjust_batch_size", "intent"),
    ("adjust_batch_size", "result"),
    ("verify_p95", "result"),
    ("keep", "result"),
    ("email_report", "intent"),
    ("email_report", "result"),
    ("open_incidents", "closed"),
)
HELD = (
    ("open_incidents", "result"),
    ("choose_action", "result"),
    ("guard", "result"),
    ("hold", "result"),
    ("email_report", "intent"),
    ("email_report", "result"),
    ("open_incidents", "closed"),
)
INSERT = (
    "INSERT INTO records (id, kind, phase, service, parent_id, incident_id, at_s, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


def service_name(number: int) -> str:
    return f"service-{number:04d}"


def rows(count: int, start_s: float) -> Iterator[tuple[object, ...]]:
    """Whole stories of SERVICES services, `count` records and a few more, in the order in which they happened.

    Three incidents in four are cured by a change, every fourth is held, and half of those belong to one service.
    """
    written = incident = 0
    while written < count:
        story: Sequence[tuple[str, str]] = HELD if incident % 4 == 3 else CURED
        service = service_name(BUSY if incident % 8 == 7 else incident % SERVICES)
        incident_id, at_s = f"incident-{incident:08d}", start_s + EVERY_S * incident
        for step, (kind, phase) in enumerate(story):
            name, parent = _name(incident_id, kind, phase)
            body = json.dumps(_body(kind, phase, incident_id, service, at_s + step))
            shown = "result" if phase == "closed" else phase
            yield (name, kind, shown, service, parent, incident_id, at_s + step, body)
        written += len(story)
        incident += 1


def _name(incident_id: str, kind: str, phase: str) -> tuple[str, str | None]:
    """A record's id and its parent's, as the loop makes them."""
    plan = f"{incident_id}:plan"
    if kind == "open_incidents":
        return (f"{incident_id}:closed", incident_id) if phase == "closed" else (incident_id, None)
    if kind == "choose_action":
        return plan, incident_id
    if kind == "email_report":
        report = f"{incident_id}:report"
        return (f"{report}:sent", report) if phase == "result" else (report, plan)
    return f"{plan}:{kind}:{phase}", plan


def _body(kind: str, phase: str, incident_id: str, service: str, at_s: float) -> dict[str, object]:
    """About as large as the real ones: a report carries its timeline."""
    change = {"lever": "batch_size", "old": {"batch_size": 1}, "new": {"batch_size": 8}}
    if phase == "closed":
        return {"closed": True, "reason": "no anomaly seen any more"}
    if kind == "open_incidents":
        return {"id": incident_id, "service": service, "symptom": "latency", "severity": "critical", "tier": "act",
                "opened_at_s": at_s, "detected_at_s": at_s, "signals": ["p95_ms"], "anomalies": [],
                "reason": "P95 is 512 ms, its objective is 150 ms."}  # fmt: skip
    if kind == "verify_p95":
        return {"verdict": "improved", "resolved": True, "p95_before_ms": 512.0, "p95_after_ms": 61.0}
    if kind == "keep":
        return {"step": "keep", "next": "done", "reason": "P95 fell and is under its objective."}
    if kind == "guard":
        return {"guard": "stale_data", "reason": "The newest P95 is 400 s old (limit 180 s)."}
    if kind == "email_report" and phase == "intent":
        return {"timeline": [[at_s + i, 100.0 + i] for i in range(40)], "chosen": {"changes": [change]}}
    if phase == "result" and kind == "adjust_batch_size":
        moved = {"before": change["old"], "after": change["new"]}
        return {"lever": "batch_size", **moved, "applied": True, "changed": True, "at_s": at_s}
    return {"id": incident_id, "chosen": {"changes": [change]}, "rejected": [{"reason": "x" * 80}] * 6, "reason": "r"}


def build(path: Path, count: int, now_s: float) -> float:
    """The ledger at `path`, its last story a little before `now_s`; when (epoch seconds) that ends."""
    incidents = 8 * count // (6 * len(CURED) + 2 * len(HELD)) + 2
    ledger = SqlLedger.open(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        connection.executemany(INSERT, rows(count, now_s - EVERY_S * incidents))
        (end_s,) = connection.execute("SELECT max(at_s) FROM records").fetchone()
    connection.close()
    open_ends(ledger, float(end_s))
    ledger.close()
    return float(end_s)


def open_ends(ledger: SqlLedger, end_s: float) -> None:
    """What is not over yet: incidents without a change, changes without a verdict, and leases."""
    for number in range(OPEN_INCIDENTS):
        ledger.put(lines.incident_record(_incident(f"open-{number}", 900 + number, end_s)))
    for number in range(UNPROVEN + LEASED):
        service = 100 + number
        incident = _incident(f"changed-{number}", service, end_s)
        plan = plan_of(
            id=f"plan-{number}", incident_id=incident.id, service=incident.service, decided_at_s=end_s, lease_s=86_400.0
        )
        ledger.put(lines.incident_record(incident))
        ledger.put(lines.closing_record(incident, end_s, "cured"))
        _claim(ledger, plan, end_s)
        if number >= UNPROVEN:
            leased = lines.hold_record(plan, "leased", end_s).model_copy(update={"id": f"{plan.id}:leased"})
            ledger.update_change(plan.id, "leased", leased, expires_at_s=end_s + 86_400.0)


def _incident(name: str, service: int, end_s: float) -> Incident:
    return incident_of(id=name, service=service_name(service), opened_at_s=end_s - 60.0, detected_at_s=end_s - 30.0)


def _claim(ledger: SqlLedger, plan: Plan, at_s: float) -> None:
    ledger.put(lines.plan_record(plan))
    change = OpenChange(
        plan_id=plan.id, service=plan.service, incident_id=plan.incident_id, state="intended", plan=plan,
        opened_at_s=at_s,
    )  # fmt: skip
    ledger.open_change(change, lines.intent_record(plan, at_s))
    receipt = Receipt(
        id=f"{plan.id}:receipt", plan_id=plan.id, service=plan.service, lever="batch_size", before={"batch_size": 1},
        after={"batch_size": 8}, applied=True, changed=True, at_s=at_s,
    )  # fmt: skip
    ledger.update_change(plan.id, "made", lines.receipt_record(receipt, plan))
