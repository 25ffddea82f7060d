"""Which levers of an incident are tried, which failed by a verdict, and which did harm: from the ledger's records."""

from __future__ import annotations

import pytest

from tests.fakes.planning import make_incident
from tuning.model import Record
from tuning.planning.reading import failed_levers, harmful_levers, tried_levers

INCIDENT = make_incident()


def record(kind: str, at_s: float, incident_id: str = INCIDENT.id, **body: object) -> Record:
    return Record(
        id=f"{kind}{at_s}", kind=kind, phase="result", service="ranker", incident_id=incident_id, at_s=at_s, body=body
    )


def plan(at_s: float = 1.0, name: str = "p", incident_id: str = INCIDENT.id, **more: object) -> Record:
    chosen = {"changes": [{"lever": "breaker"}]}
    return record("choose_action", at_s, incident_id, id=name, chosen=chosen, **more)


def verdict(said: str, at_s: float = 2.0, name: str = "p") -> Record:
    return record("verify_p95", at_s, plan_id=name, verdict=said)


UNMADE = record("hold", 2.0, plan_id="p", unmade=True)


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ([], ""),
        ([plan(), verdict("improved")], ""),
        ([plan(), verdict("unchanged")], "tried failed"),
        ([plan(), verdict("inconclusive")], "tried failed"),
        ([plan(), verdict("worse")], "tried failed harmful"),
        ([plan()], "tried"),  # it ended without a verdict: it did not end well, and nobody says it failed
        ([plan(), UNMADE], ""),  # its run died before the call
        ([plan(), UNMADE, plan(3.0, "q"), record("hold", 4.0, plan_id="q", unmade=True)], "tried"),  # forgiven once
        ([plan(), record("guard", 2.0, plan_id="p", guard="freeze")], ""),
        ([plan(dry_run=True), verdict("worse")], ""),
        ([plan(rollback_of="o"), verdict("worse")], ""),
        ([plan(incident_id="another"), verdict("worse")], ""),
        ([plan(), verdict("improved"), plan(3.0, "q"), verdict("unchanged", 4.0, "q")], "tried failed"),
    ],
)
def test_what_is_known_of_a_lever_at_this_incident(records: list[Record], found: str) -> None:
    asked = {"tried": tried_levers, "failed": failed_levers, "harmful": harmful_levers}
    assert " ".join(word for word, of in asked.items() if of(INCIDENT, records) == {"breaker"}) == found
