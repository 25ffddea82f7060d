"""Hostile services in a fleet, in the short form; `python -m tests.faults --hostile` plays an hour over fifty services."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.hostile import HOSTILE, INTERVAL_S, play_hostile

GOOD, MINUTES = 4, 9.0


@pytest.mark.timeout(240)
def test_a_fleet_with_hostile_services_is_looked_after_in_time_and_every_one_of_them_is_named(tmp_path: Path) -> None:
    found = play_hostile(tmp_path, good=GOOD, minutes=MINUTES)
    assert found.wrong(GOOD, MINUTES) == []
    assert max(found.took_s) > 0, "some sweep had to wait for a hostile endpoint"
    assert found.mails_sent >= len(HOSTILE)


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_it_would_notice_calls_that_hold_a_sweep_up(tmp_path: Path) -> None:
    found = play_hostile(tmp_path, good=1, minutes=7.0, natures=("drips later",), deadline_s=4.2)
    assert max(found.late_s) > INTERVAL_S
    assert any("late" in text for text in found.wrong(1, 7.0, ("drips later",)))


def test_it_would_notice_a_service_that_nobody_looks_at_or_names(tmp_path: Path) -> None:
    found = play_hostile(tmp_path, good=1, minutes=2.0, natures=("partial",))
    found.seen_s.clear()
    found.texts.clear()
    assert found.wrong(1, 4.0, ("partial",)) == ["bad-partial is named nowhere", "good-00 was not looked at for 240 s"]
