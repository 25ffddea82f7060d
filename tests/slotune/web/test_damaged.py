"""Records whose bodies are not what their kind says: every page and every listing shows the others, and them as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
from fastapi.testclient import TestClient

from slotune import history
from slotune.views.reading import Reading
from slotune.web.app import create_app
from tests.fakes.reports import T0_S, incident, plan
from tests.fakes.world import SERVICES
from tuning.ledger import SqlLedger
from tuning.loop import records
from tuning.model import LEVER_STEPS, STEPS, Record
from tuning.services_yaml import loads

BODIES: tuple[dict[str, object], ...] = (
    {"lever": 5, "after": [1], "changed": "x", "applied": {}, "at_s": "yesterday"},
    {"lever": "batch_size", "before": "8", "after": {"batch_size": {}}},
    {"chosen": {"changes": [{"lever": "batch_size"}, 5, None]}}, {"chosen": 5, "id": None},
    {"chosen": {"changes": 7, "cost_per_hour": "free"}, "diagnosis": [], "rejected": 5},
    {"plan_id": 7, "closed": True, "unmade": True}, {"verdict": "great", "resolved": "no", "effect": {"value": "x"}},
    {"verdict": 5, "p95_before_ms": "fast", "p95_after_ms": []}, {"step": "dance", "next": 3}, {"peers": 5},
    {"what": "pause", "who": 5, "until_s": "never"}, {"symptom": 5, "reason": ["<script>", "\x1b[2J"]},
    {"timeline": [[1, "x"], 5], "events": {}, "slo_p95_ms": "low"}, {"anomalies": [{"signal": 1}, 5]}, {}, {"reason": None},
)  # fmt: skip
KINDS = (*STEPS, "order", "of a newer slotune")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlLedger]:
    made = SqlLedger.open(f"sqlite:///{tmp_path_factory.mktemp('damaged')}/ledger.db")
    made.put(records.incident_record(incident()))
    made.put(records.plan_record(plan()))
    for n, (kind, body) in enumerate((kind, body) for kind in KINDS for body in BODIES):
        for service, parent, about in (("ranker", plan().id, incident().id), ("other", None, f"damaged {n}")):
            phase: Literal["intent", "result"] = "intent" if n % 3 == 0 else "result"
            damaged = Record(id=f"{service} {n}", kind=kind, phase=phase, service=service, parent_id=parent,
                             incident_id=about, at_s=T0_S + n, body=body)  # fmt: skip
            made.put(damaged)
    yield made
    made.close()


def test_every_page_shows_the_others(ledger: SqlLedger) -> None:
    client = TestClient(create_app(lambda: Reading(ledger, ledger.get_blob, loads(SERVICES), T0_S + 900.0)))
    of_each = [f"/incidents/damaged {n}" for n in range(len(KINDS) * len(BODIES)) if KINDS[n // len(BODIES)] == "open_incidents"]
    for path in ("/", "/incidents", "/changes", "/effects", "/review", "/health", "/services/ranker", "/metrics",
                 f"/incidents/{incident().id}", *of_each):  # fmt: skip
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert "<script" not in answer.text and "\x1b" not in answer.text
    assert plan().diagnosis.cause.replace("_", " ") in client.get(f"/incidents/{incident().id}").text


def test_every_listing_shows_the_others(ledger: SqlLedger) -> None:
    rows = {row["id"]: row for row in history.incidents(ledger, service=None, since_s=None, limit=1000)}
    assert rows[incident().id]["attempts"] >= 1
    history.in_force(ledger, now_s=T0_S + 900.0, since_s=0.0)
    said = [history.sentence(line.kind, line.phase, line.body) for line in history.story(ledger, incident().id)]
    assert len(said) == len(KINDS) * len(BODIES) + 2
    assert set(LEVER_STEPS.values()) <= {line.kind for line in history.story(ledger, incident().id)}


def test_a_record_that_makes_no_sense_is_shown_as_it_is() -> None:
    assert history.sentence("keep", "result", {"peers": 5}) == 'cannot be read: {"peers": 5}'
    assert history.sentence("guard", "result", {"guard": "caps", "reason": "full"}) == "refused by caps: full"
