"""The comparison of the Airflow campaign can fail, and its steps are those of the product."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.airflow_campaign import SHARED_AT, STEPS, TARGETS, WATCH_EVERY_S, points, services_of, settings_text
from tests.faults.airflow_truth import compare, rollback_limit_s
from tests.faults.fleet import CURE, HARM, FleetService, Landing
from tuning.ledger import SqlLedger
from tuning.services_yaml import loads


def service(*landings: tuple[float, int, int]) -> FleetService:
    """A service that was harmed by what landed, seconds ago."""
    found = FleetService("harm-00", HARM)
    now_s = time.time()
    found.landings += [Landing(now_s - ago_s, old, new) for ago_s, old, new in landings]
    found._world.batch_size = landings[-1][2] if landings else 1
    return found


@pytest.mark.faults
def test_the_comparison_would_notice(tmp_path: Path) -> None:
    ledger = SqlLedger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    limit_s = rollback_limit_s(loads(settings_text(services_of([CURE, HARM]))), WATCH_EVERY_S)
    found = compare(service((900, 1, 8), (100, 8, 1), (50, 1, 8)), ledger, limit_s, [])
    assert found.orphan and len(found.lost) == 3 and found.over_time
    down = [(time.time() - 890, time.time() - 110)]
    assert not compare(service((900, 1, 8), (100, 8, 1)), ledger, limit_s, down).over_time, "nobody was there"
    assert compare(service(), ledger, limit_s, []).wrong() == []


def test_every_point_names_a_step_and_a_part_that_exist() -> None:
    steps = {(body, step) for bodies in STEPS.values() for body, names in bodies for step in names}
    assert {(body, step) for places in SHARED_AT.values() for body, step, _ in places} <= steps
    assert len({point.text() for point in points()}) == len(points()) >= 60
    assert {point.target for point in points()} == set(TARGETS)
