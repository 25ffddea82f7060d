"""What really happened at one service's control endpoint against what the ledger says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.faults.campaign import proven
from tests.faults.fleet import FleetService, Landing
from tuning.ledger import SqlLedger
from tuning.model import LEVER_STEPS, Record
from tuning.policies.timing import worst_case_rollback_s
from tuning.query import Query
from tuning.settings import Settings


@dataclass
class Finding:
    """All lists empty: the story ended as it must. harmful_s: how long a harmful change was in force, downtime of
    Airflow's parts left out; None where no change did harm."""

    service: str
    orphan: list[str] = field(default_factory=list)
    double: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    over_time: list[str] = field(default_factory=list)
    landings: int = 0
    end: str = ""
    harmful_s: float | None = None

    def wrong(self) -> list[str]:
        return [*self.orphan, *self.double, *self.unproven, *self.lost, *self.over_time]


def compare(
    service: FleetService,
    ledger: SqlLedger,
    limit_s: float,
    down_s: Sequence[tuple[float, float]],
) -> Finding:
    """limit_s: how long a harmful change may be in force. down_s: the times in which a part of Airflow was away: nobody can roll back then."""
    finding = Finding(service.name, landings=len(service.landings))
    records = list(ledger.find(Query(services=(service.name,))))
    changes = [r for r in records if r.kind in LEVER_STEPS.values() and r.phase == "intent"]
    backs = [r for r in records if r.kind == "roll_back" and r.phase == "intent"]
    used: set[str] = set()
    for landing in service.landings:
        _explain(finding, landing, backs if landing.new == 1 else changes, used)
    for plan_id in used:
        if not any(r.phase == "result" and r.parent_id == plan_id and r.body.get("changed") for r in records):
            finding.lost.append(f"{service.name}: plan {plan_id} took effect, and no receipt says so")
    for change in ledger.open_changes(service.name):
        finding.unproven.append(f"{service.name}: plan {change.plan_id} is still {change.state}")
    for back in backs:
        if not any(r.kind == "verify_p95" and r.parent_id == back.id for r in records) and back.id in used:
            finding.unproven.append(f"{service.name}: the roll-back {back.id} was never verified")
    _check_end(finding, service, changes, records)
    _check_reports(finding, service, records)
    _check_time(finding, service, limit_s, down_s)
    return finding


def _explain(finding: Finding, landing: Landing, intents: Sequence[Record], used: set[str]) -> None:
    """Each value that took effect needs an intent of its own that was written before it."""
    fitting = {_plan_id(r): r for r in intents if _new(r) == landing.new and r.at_s <= landing.at_s}
    fresh = [plan_id for plan_id in fitting if plan_id not in used]
    text = f"{finding.service}: batch_size {landing.old} -> {landing.new}"
    if fresh:
        used.add(min(fresh, key=lambda plan_id: fitting[plan_id].at_s))
    elif fitting:
        finding.double.append(f"{text} took effect more than once for {sorted(fitting)}")
    else:
        finding.lost.append(f"{text} without an intent in the ledger")


def _plan_id(record: Record) -> str:
    return str(record.body["id"])


def _new(record: Record) -> object:
    return record.body["chosen"]["changes"][0]["new"]["batch_size"]  # type: ignore[index]


def _check_end(finding: Finding, service: FleetService, changes: Sequence[Record], records: Sequence[Record]) -> None:
    if service.batch_size == 1:
        finding.end = "old setting"
        return
    finding.end = "new setting, kept"
    ours = [_plan_id(r) for r in changes if _new(r) == service.batch_size]
    kept = [r for r in records if r.kind == "keep" and r.parent_id in ours and "step" in r.body]
    if not kept:
        finding.orphan.append(f"{service.name}: batch_size {service.batch_size} is in force and was never kept")
        return
    verdicts = [r for r in records if r.kind == "verify_p95" and r.parent_id == kept[-1].parent_id]
    newest = max(verdicts, key=lambda r: r.at_s, default=None)
    if newest is None or not proven(newest):
        finding.unproven.append(f"{service.name}: batch_size {service.batch_size} was kept without a proof")


def _check_reports(finding: Finding, service: FleetService, records: Sequence[Record]) -> None:
    """A plan that nobody is told of is a lost record too: every attempt has its report, handed over."""
    for plan in (r for r in records if r.kind == "choose_action"):
        if plan.parent_id is None or plan.body.get("id") != plan.id or _superseded(plan, records):
            continue
        reports = [r for r in records if r.kind == "email_report" and r.phase == "intent" and r.parent_id == plan.id]
        if not reports:
            finding.lost.append(f"{service.name}: no report of plan {plan.id}")
        elif not any(r.kind == "email_report" and r.parent_id == reports[0].id for r in records):
            finding.lost.append(f"{service.name}: the report of plan {plan.id} was never handed over")


def _superseded(plan: Record, records: Sequence[Record]) -> bool:
    """A person edited it: the edited plan has the report."""
    same = [r for r in records if r.kind == "choose_action" and r.incident_id == plan.incident_id]
    return any(r.id != plan.id and r.body.get("attempt") == plan.body.get("attempt") for r in same)


def rollback_limit_s(settings: Settings, watch_every_s: float) -> float:
    """The worst case that `slotune check` states for these settings (every service of the campaign has the same)."""
    lever = settings.service_values()[0].levers["batch_size"]
    return worst_case_rollback_s(settings.verification, settings.safety, lever, watch_every_s=watch_every_s)


def _check_time(finding: Finding, service: FleetService, limit_s: float, down_s: Sequence[tuple[float, float]]) -> None:
    """A change that harms is in force for no longer than the worst case that is stated."""
    if service.story.batch_hurts <= 1.0:
        return
    for landing, after in zip(service.landings, service.landings[1:], strict=False):
        if landing.new == 1:
            continue
        length_s = after.at_s - landing.at_s - _overlap_s(landing.at_s, after.at_s, down_s)
        finding.harmful_s = max(length_s, finding.harmful_s or 0.0)
        if length_s > limit_s:
            finding.over_time.append(
                f"{service.name}: a harmful change was in force for {length_s:.0f} s (limit {limit_s:.0f} s)"
            )


def _overlap_s(start_s: float, end_s: float, spans: Sequence[tuple[float, float]]) -> float:
    """Seconds of [start_s, end_s] covered by the spans, which may overlap each other."""
    total, at = 0.0, start_s
    for a, b in sorted(spans):
        low, high = max(a, at), min(b, end_s)
        if high > low:
            total += high - low
            at = high
    return total
