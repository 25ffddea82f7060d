"""`POST /alerts`: whom it lets in, and what it answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from slotune.commands import serve
from slotune.compose import open_ledger
from slotune.places import ledger_url
from slotune.web.alerts_in import MOST_BYTES
from slotune.web.app import create_app
from slotune.web.guards import with_token
from tests.tuning.test_alerts import alert, alertmanager

TOKEN = "the-sender's-token"
CONFIG = "services:\n  - {name: ranker, serving: triton, selectors: {m: r}, slo: {p95: 1s}}\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    (tmp_path / "services.yaml").write_text(CONFIG)
    monkeypatch.setenv("SLOTUNE_CONFIG", str(tmp_path / "services.yaml"))
    monkeypatch.setenv("SLOTUNE_HOME", str(tmp_path))
    monkeypatch.delenv("SLOTUNE_LEDGER_URL", raising=False)
    return TestClient(create_app(serve.reading, write=serve.write, take=serve.take, may_alert=with_token(TOKEN)))


def post(client: TestClient, body: bytes, token: str = TOKEN):
    return client.post("/alerts", content=body, headers={"authorization": f"Bearer {token}"})


def test_it_is_taken_once_and_the_page_shows_its_incident(place: TestClient) -> None:
    first, second = post(place, alertmanager(alert())), post(place, alertmanager(alert()))
    assert (first.status_code, first.json()["news"]) == (200, 1) and (second.status_code, second.json()["news"]) == (200, 0)
    (incident,) = first.json()["incidents"]
    text = place.get(f"/incidents/{incident}").text
    assert "Alert SlowAnswers: p95 is 2 s" in text
    assert place.get("/").status_code == place.get("/metrics").status_code == place.get("/services/ranker").status_code == 200
    open_ledger(ledger_url())


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"not json", 400, "no JSON"),
        (alertmanager(alert(service="nobody")), 422, "'nobody'"),
        (b" " * (MOST_BYTES + 1), 413, "larger than"),
    ],
)
def test_what_is_wrong_is_a_sentence_with_its_status(place: TestClient, body, status, says) -> None:
    answer = post(place, body)
    assert answer.status_code == status and says in answer.json()["said"]


def test_part_of_it_is_taken_and_the_rest_named(place: TestClient) -> None:
    answer = post(place, alertmanager(alert(), alert(service="nobody")))
    assert answer.status_code == 200 and answer.json()["news"] == 1 and "'nobody'" in answer.json()["ignored"][0]


def test_without_the_token_nothing_is_taken(place: TestClient) -> None:
    assert place.post("/alerts", content=alertmanager(alert())).status_code == 401
    assert post(place, alertmanager(alert()), "another").status_code == 401
    closed = TestClient(create_app(serve.reading))
    answer = post(closed, alertmanager(alert()))
    assert answer.status_code == 403 and "SLOTUNE_TOKEN" in json.dumps(answer.json())
