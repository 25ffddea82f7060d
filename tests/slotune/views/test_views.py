"""What the views say of a story whose end is known, and of a ledger without any."""

from __future__ import annotations

import dataclasses
import json

import pytest

from slotune.views import changes, effects, fleet, health, incidents
from slotune.views.latest import latest
from slotune.views.memory import Memory
from slotune.views.outcomes import outcomes
from slotune.views.reading import Reading
from tests.slotune.story import NASTY
from tests.tuning.loop.test_coverage import verdicts
from tuning.ledger import SqlLedger
from tuning.loop.window_store import DIGEST
from tuning.services_yaml import loads


@pytest.fixture
def empty(tmp_path) -> Reading:
    ledger = SqlLedger.open(f"sqlite:///{tmp_path / 'l.sqlite'}")
    settings = loads("services:\n  - {name: a, serving: triton, selectors: {m: a}, slo: {p95: 100ms}}\n")
    return Reading(ledger, ledger.get_blob, settings, 1_800_000_000.0)


def test_an_empty_ledger_says_so_everywhere(empty):
    seen = fleet.fleet(empty)
    assert [(r.name, r.state, r.p95_ms, r.incident_id, r.change) for r in seen.rows] == [("a", "no_data", None, None, None)]
    assert seen.at_s is None and incidents.rows(empty) == [] and incidents.page(empty, "x") is None
    assert changes.in_force(empty) == [] and effects.effects(empty) == [] and outcomes(empty).resolve_s == ()
    state = health.health(empty)
    assert not state.alive and state.problems == ("No sweep has been recorded yet: is the DAG watch_services switched on?",)


def test_the_fleet_shows_the_worst_first_with_the_last_sweeps_numbers(told):
    rows = {row.name: row for row in fleet.fleet(told).rows}
    assert next(iter(rows)) == "silent" and rows["silent"].state == "no_data"
    ranker = rows["ranker"]
    assert ranker.state == "ok" and 0 < ranker.p95_ms < ranker.slo_p95_ms == 150 and ranker.qps == pytest.approx(180, abs=1)
    known = [v for v in ranker.trend if v is not None]
    assert max(known) > 1000 and known[-1] < 150  # the peak of the surge is not thinned away
    assert rows["silent"].incident_id is not None and ranker.incident_id is None


@pytest.mark.parametrize(
    ("p95_ms", "error_rate", "state"),
    [(149.0, 0.0, "at_risk"), (127.4, 0.0, "ok"), (127.6, 0.0, "at_risk"), (150.0, 0.0, "at_risk"), (150.1, 0.0, "broken"),
     (20.0, 0.011, "broken"), (20.0, 0.01, "ok"), (None, 0.0, "no_data"), (None, 0.5, "broken")],
)  # fmt: skip
def test_the_state_of_a_service_by_its_slo(told, p95_ms, error_rate, state):
    values = {"error_rate": error_rate} | ({} if p95_ms is None else {"p95_ms": p95_ms})
    body = {"at_s": 1.0, "services": {"ranker": {"values": values, "trend": [], "percentile_source": "histogram"}}}
    reading = dataclasses.replace(told, blob={DIGEST: json.dumps(body).encode()}.get)
    assert {row.name: row.state for row in fleet.fleet(reading).rows}["ranker"] == state


def test_a_service_that_cannot_be_read_is_named_with_the_reason(told):
    body = {"at_s": told.now_s, "services": {}, "unreadable": {"ranker": "Prometheus answered 422"}}
    reading = dataclasses.replace(told, blob={DIGEST: json.dumps(body).encode()}.get)
    rows = {row.name: row for row in fleet.fleet(reading).rows}
    assert (rows["ranker"].state, rows["ranker"].why) == ("unreadable", "Prometheus answered 422")
    assert "ranker cannot be read: Prometheus answered 422" in health.health(reading).problems


def test_a_service_that_is_scaled_to_zero_is_no_trouble(told):
    body = {"at_s": told.now_s, "services": {}, "unreadable": {}, "asleep": ["ranker", "silent"]}
    reading = dataclasses.replace(told, blob={DIGEST: json.dumps(body).encode()}.get)
    assert {row.state for row in fleet.fleet(reading).rows} == {"asleep"}
    assert health.health(reading).problems == ()


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b'{"services": {"a": {}}}', b'{"services": 3}'])
def test_a_damaged_store_is_no_sweep(told, data):
    assert latest(dataclasses.replace(told, blob={DIGEST: data}.get)).services == {}


def test_the_story_of_an_incident(told):
    row = next(r for r in incidents.rows(told) if r.service == "ranker")
    page = incidents.page(told, row.id)
    assert (page.row.state, page.row.verdict, page.slo_p95_ms) == ("closed", "improved, resolved", 150)
    (attempt,) = page.attempts
    assert attempt.cause == "load surge" and attempt.resolved and attempt.verdict == "improved"
    assert attempt.after_ms < 150 < attempt.before_ms and attempt.effect.startswith("-")
    assert [o.chosen for o in attempt.options] == [True] + [False] * (len(attempt.options) - 1)
    assert all(o.reason for o in attempt.options)
    kinds = [step.kind for step in page.steps]
    order = ["open_incidents", "choose_action", "adjust_batch_size", "verify_p95", "keep", "email_report"]
    assert [kinds.index(k) for k in order] == sorted(kinds.index(k) for k in order)
    assert len(page.timeline) > 10 and {label for _, label in page.events} >= {"onset", "detected"}


def test_effects_and_outcomes_count_the_verdict(told):
    (row,) = effects.effects(told)
    assert (row.lever, row.cause, row.judged, row.worked, row.rolled_back) == ("batch_size", "load surge", 1, 1, 0)
    assert row.ratio < 0.1 and row.predicted == 1
    seen = outcomes(told)
    assert seen.attempts == {("ranker", "batch_size", "improved"): 1} and seen.incidents == {"ranker": 1}
    assert seen.false_alarms == {} and len(seen.resolve_s) == 1 and 10 < seen.resolve_s[0] < 300
    assert seen.violation_s["ranker"] == pytest.approx(seen.resolve_s[0], abs=60)


def test_the_loop_is_called_dead_after_three_missed_sweeps(told):
    every_s, swept_s = told.settings.schedule.watch_every_s, latest(told).at_s
    at = lambda s: health.health(dataclasses.replace(told, now_s=swept_s + s))  # noqa: E731
    assert at(3 * every_s).alive and not at(3 * every_s + 1).alive
    assert "No series of silent" in at(0).problems[0]


def test_texts_from_outside_stay_what_they_are(told):
    assert next(r for r in incidents.rows(told) if r.id == "nasty").reason == NASTY


def test_a_lever_that_is_held_back_says_why_on_its_service(told, tmp_path):
    assert effects.held_back(told, "ranker") == [] and [row.worked for row in effects.of_service(told, "ranker")] == [1]
    ledger = SqlLedger.open(f"sqlite:///{tmp_path / 'l.sqlite'}")
    verdicts(ledger, told.now_s, 6, 12)
    seen = dataclasses.replace(told, reader=ledger, blob=ledger.get_blob, memory=Memory())
    (said,) = effects.held_back(seen, "ranker")
    assert said.startswith("batch size: 6 of the last 18") and "too narrow" in said
    assert effects.of_service(seen, "silent") == []
