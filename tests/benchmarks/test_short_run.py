"""Twelve drawn incidents through slotune's own loop: what the planner promises, small enough for every test run.

A minute of work. One of the nine that can be cured may take a second change: the bounds notice a planner that has
become worse, not a bad day.
"""

from __future__ import annotations

import pytest

from benchmarks.control import headline
from benchmarks.control.cases import Case
from benchmarks.control.cells import Cells
from benchmarks.control.judge import one
from benchmarks.control.score import Result

INCIDENTS = (4, 8, 9, 16, 20, 23, 24, 25, 28, 32, 45, 52)
"""One of each kind of trouble, of the stream that planners are tuned on."""
POLICIES = ("slotune", "nothing", "oracle")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[Result]:
    folder = tmp_path_factory.mktemp("cells")
    cells = Cells("ground", folder), Cells("loop", folder)
    return [Result(**row) for number in INCIDENTS for row in one(Case("dev", number), POLICIES, *cells)]


@pytest.mark.proving
def test_most_incidents_end_with_one_change_and_few_changes_are_wrong(results):
    figures = headline.headline(results)
    told = "\n".join(f"{r.scenario} [{r.kinds}] {r.kind}: {r.cause}: {'; '.join(r.texts)}" for r in results)
    assert len({r.scenario for r in results}) == len(INCIDENTS)
    assert figures["first_change"]["of"] >= 8, told
    assert figures["first_change"]["value"] >= 0.85, told
    assert figures["wrong"]["value"] == 0.0, told


@pytest.mark.proving
def test_less_time_is_spent_over_the_slo_than_with_nothing_done(results):
    minutes = {p: sum(r.violation_min for r in results if r.policy == p and r.kind == "curable") for p in POLICIES}
    assert minutes["slotune"] <= 0.25 * minutes["nothing"], minutes


@pytest.mark.proving
def test_what_nothing_cures_is_left_alone_or_put_back(results):
    left = [r for r in results if r.policy == "slotune" and r.kind in ("incurable", "needless")]
    assert left
    assert all(r.actions == 0 or r.held_right for r in left), [(r.scenario, r.texts) for r in left]
