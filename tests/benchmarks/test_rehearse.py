"""What the benchmark of rehearsals counts."""

from __future__ import annotations

import pytest

from benchmarks.rehearse import cost
from benchmarks.rehearse.__main__ import Row, figures


def row(live: float, forecast: float, low: float, high: float, *, changed: bool = True, how: str = "cured") -> Row:
    return Row("x", 16.0, live, forecast, low, high, changed, True, (how,), 0.1, 5.0)


def test_only_what_can_be_told_and_was_changed_is_held_against_the_intervals():
    rows = [
        row(2.0, 2.2, 1.5, 3.0),
        row(4.0, 8.0, 6.0, 9.0),
        row(3.0, 9.0, 8.0, 10.0, how="cannot tell"),
        row(10.0, 10.0, 10.0, 10.0, changed=False, how="held"),
        row(0.0, 0.0, 0.0, 0.25),
    ]
    found = figures(rows, dropped=1)
    assert (found["incidents"], found["no_ground"], found["cannot_tell"], found["changed"]) == (5, 1, 1, 3)
    assert found["coverage_changed"] == pytest.approx(2 / 3)
    assert found["median_error"] == pytest.approx(0.1)
    assert found["median_error_changed"] == pytest.approx(0.55)
    assert found["over_20_percent_changed"] == pytest.approx(0.5)


def test_what_it_costs_is_measured_over_all_processes_and_goes_on_from_what_is_kept(tmp_path):
    first = cost.measure(0.1, 2, 2, tmp_path)
    assert (first.services, first.signals, first.jobs, first.kept) == (2, 12, 2, 0)
    assert first.cpu_s > 0 and first.rss_mb >= first.pss_mb > 50
    again = cost.measure(0.1, 2, 2, tmp_path)
    assert again.kept == 2 and again.incidents == first.incidents and again.cpu_s < first.cpu_s
