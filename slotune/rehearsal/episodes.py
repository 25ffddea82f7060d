"""From a rehearsal's ledger to its incidents: what was decided and what came of it, by the fold of an attempt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from detection.model import make_id
from slotune.rehearsal.result import Happened, How, Made
from tuning.attempt import Attempt, fold, value
from tuning.model import Plan, Record


@dataclass(frozen=True)
class Episode:
    """One act-tier incident. opened_s: its onset. closed_s: None: open at the end. attempts: oldest first."""

    id: str
    service: str
    symptom: str
    opened_s: float
    closed_s: float | None
    attempts: tuple[Attempt, ...]

    @property
    def how(self) -> How:
        """What came of it, by the loop's own verdicts."""
        kept = [a for a in self.attempts if a.final_decision is not None and a.final_decision.step == "keep"]
        won = [o for a in kept for o in a.outcomes.values() if o.verdict == "improved"]
        if any(outcome.resolved for outcome in won):
            return "cured"
        if won:
            return "eased"
        changed = [a for a in self.attempts if a.receipts_changed]
        if changed:
            return "not cured" if changed[-1].final_decision is not None else "under way"
        return "held" if self.attempts else "passed"

    @property
    def cause(self) -> str:
        return self.attempts[0].plan.diagnosis.cause if self.attempts else ""

    @property
    def reason(self) -> str:
        """Why it ended so, as the last attempt says."""
        if not self.attempts:
            return ""
        last = self.attempts[-1]
        outcomes = sorted(last.outcomes.values(), key=lambda outcome: outcome.at_s)
        if outcomes:
            return outcomes[-1].reason
        if last.refusal is not None:
            return last.refusal.reason
        return last.plan.reason or last.plan.chosen.reason

    @property
    def changes(self) -> tuple[str, ...]:
        return tuple(change.text() for a in self.attempts if a.receipts_changed for change in a.plan.chosen.changes)

    def made(self, end_s: float) -> tuple[Made, ...]:
        """What was set, as the caps over all services count it; what has no verdict yet is unproven until `end_s`."""
        found = []
        for attempt in self.attempts:
            if (at_s := attempt.first_made_s) is not None:
                final = max((o.at_s for o in attempt.outcomes.values()), default=end_s)
                until_s = end_s if attempt.final_decision is None else final
                found.append(Made(at_s, max(at_s, until_s), len(attempt.plan.chosen.levers), proves=True))
            if attempt.undo is not None and (undone_s := attempt.undo.first_made_s) is not None:
                found.append(Made(undone_s, undone_s, len(attempt.plan.chosen.levers), proves=False))
            for plan in attempt.steps_back:
                found.append(Made(plan.decided_at_s, plan.decided_at_s, len(plan.chosen.levers), proves=False))
        return tuple(sorted(found, key=lambda one: one.at_s))

    @property
    def steps(self) -> tuple[Happened, ...]:
        """Changes, verdicts, holds and undos, in their order."""
        found = []
        for attempt in self.attempts:
            plan = attempt.plan
            if attempt.first_made_s is not None:
                found.append(Happened(attempt.first_made_s, plan.chosen.text()))
            elif not attempt.outcomes:
                found.append(Happened(plan.decided_at_s, "holds"))
            for outcome in attempt.outcomes.values():
                resolved = ", resolved" if outcome.resolved else ""
                found.append(Happened(outcome.at_s, outcome.verdict + resolved))
            if attempt.undo is not None and attempt.undo.first_made_s is not None:
                found.append(Happened(attempt.undo.first_made_s, "undone"))
            found += [Happened(step.decided_at_s, step.chosen.text()) for step in attempt.steps_back]
        return tuple(sorted(found, key=lambda step: step.at_s))


def episodes(records: Sequence[Record]) -> list[Episode]:
    """The act-tier incidents, in the order in which they were opened."""
    mine: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        mine[record.incident_id or record.id].append(record)
    found = []
    for key, rows in mine.items():
        opened = [r for r in rows if r.kind == "open_incidents" and r.body.get("tier") == "act"]
        if not opened:
            continue
        onset = opened[0].body.get("opened_at_s")
        plans = [p for r in rows if r.kind == "choose_action" and (p := value(r, Plan)) is not None]
        about = _by_parent(rows)
        ordered = sorted(plans, key=lambda p: (p.attempt, p.decided_at_s))
        attempts = tuple(fold(plan, _family(plan, rows, about)) for plan in ordered)
        closed = [r.at_s for r in rows if r.kind == "open_incidents" and r.body.get("closed")]
        onset_s = float(onset) if isinstance(onset, (int, float)) else opened[0].at_s
        symptom = str(opened[0].body.get("symptom", ""))
        found.append(Episode(key, opened[0].service, symptom, onset_s, closed[-1] if closed else None, attempts))
    return sorted(found, key=lambda episode: (episode.opened_s, episode.id))


def _by_parent(rows: Sequence[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = defaultdict(list)
    for row in rows:
        found[row.parent_id or ""].append(row)
    return found


def _family(plan: Plan, rows: Sequence[Record], about: dict[str, list[Record]]) -> list[Record]:
    """What is known of one attempt among all that is known of its incident: its plan, the plan that undoes it, what
    follows from either, and the incident's end."""
    ids = (plan.id, make_id(plan.id, "inverse"))
    own = [row for row in rows if row.id in ids or row.id == f"{plan.incident_id}:closed"]
    follow = [row for one in ids for row in about.get(one, ())]
    return list({row.id: row for row in (*own, *follow)}.values())
