"""The overloads of the proving ground: drawn by seed alone, and judged by what was really answered in time."""

from __future__ import annotations

from benchmarks.degrade.__main__ import summary
from benchmarks.degrade.cases import ONSET_S, overload, rate_of
from benchmarks.degrade.run import run


def test_cases_follow_from_their_seed_and_are_three_times_what_is_carried():
    cases = [overload(seed) for seed in range(40)]
    assert cases == [overload(seed) for seed in range(40)]
    assert {case.sheds for case in cases} == {True, False}
    for case in cases:
        assert case.overload >= 3.0 and list(case.quality) == sorted(case.quality, reverse=True)
        assert rate_of(case, ONSET_S - 1) < case.capacity_qps() < 2.5 * case.capacity_qps() < rate_of(case, ONSET_S)
        assert rate_of(case, case.over_s) < case.capacity_qps()


def test_where_requests_are_refused_more_are_answered_in_time_and_the_whole_model_returns():
    found = run(overload(1))
    assert found.sheds and 2.5 < found.ratio < 4.0
    assert found.switches[0][1] != "full" and found.switches[-1][1] == "full" and found.back_s is not None
    assert abs(found.told - found.lost) <= 0.03 * found.lost, "the review tells what was lost"
    told = summary([found])
    assert told["at_least_2.5"] == told["whole_model_back"] == told["cases"] == 1
