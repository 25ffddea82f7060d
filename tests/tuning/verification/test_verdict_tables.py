"""What a verdict takes into account and what it does not, as tables that can be read without the code."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detection.model import BucketWindow, FloatArray, MetricWindow, Slo, Span
from tuning.model import Change, Diagnosis, Option, Outcome, Plan
from tuning.ports import Evidence
from tuning.verification.before_after import BeforeAfterVerifier
from tuning.verification.draining import settled
from tuning.verification.guarded import guard_metrics
from tuning.verification.points import from_buckets, history_of, quantile_of
from tuning.verification.settings import VerificationSettings

STEP_S = 10.0
SETTINGS = VerificationSettings()
OBJECTIVE = Slo(p95_ms=100.0)
EDGES_MS = np.array([10.0, 20.0, 40.0, np.inf])


def side(n: int = 24, *, start_s: float = 0.0, slo: Slo | None = None, **signals: object) -> Evidence:
    """One side: each signal a constant or n values."""
    values = {name: np.broadcast_to(np.asarray(v, dtype=float), (n,)) for name, v in signals.items()}
    return Evidence(MetricWindow("ranker", Span(start_s, start_s + STEP_S * (n - 1), STEP_S), values), slo=slo)


def wave(level: float, n: int = 24, swing: float = 0.02) -> FloatArray:
    """A level with a known scatter: up and down by turns."""
    return level * (1 + swing * np.where(np.arange(n) % 2, 1.0, -1.0))


def judge(before: Evidence, after: Evidence, control: tuple[Evidence, Evidence] | None = None) -> Outcome:
    change = Change(lever="batch_size", old={"batch_size": 1}, new={"batch_size": 8})
    plan = Plan(
        id="p", incident_id="i", service="ranker", decided_at_s=0.0, mode="act", diagnosis=Diagnosis(cause="unknown"),
        chosen=Option(changes=(change,)),
    )  # fmt: skip
    return BeforeAfterVerifier(SETTINGS).judge(plan, before, after, control)


def expecting(evidence: Evidence, expected_ms: float | None, unhelped_ms: float | None = None) -> Evidence:
    return Evidence(evidence.window, slo=evidence.slo, expected_p95_ms=expected_ms, unhelped_p95_ms=unhelped_ms)


# Resolved ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "over", "resolved"),
    [
        pytest.param(10, (3, 4), True, id="two of ten, long past"),
        pytest.param(10, (7, 8), None, id="two of the last three: it may be coming back"),
        pytest.param(10, (3, 9), True, id="one of the last three"),
        pytest.param(15, (12, 13, 14), None, id="three of the last five"),
        pytest.param(15, (3, 13, 14), True, id="two of the last five"),
        pytest.param(15, (0, 1, 2), True, id="three of fifteen at the start"),
    ],
)
def test_the_newest_third_has_to_be_mostly_under_the_objective(
    n: int, over: tuple[int, ...], resolved: bool | None
) -> None:
    after = np.where(np.isin(np.arange(n), over), 101.0, 80.0)
    outcome = judge(side(p95_ms=wave(150), slo=OBJECTIVE), side(n, start_s=900, p95_ms=after, slo=OBJECTIVE))
    assert outcome.resolved is resolved


@pytest.mark.parametrize(
    ("objective_ms", "beyond", "resolved"),
    [
        pytest.param(30.0, 0, True, id="19 ms of 30"),
        pytest.param(15.0, 0, False, id="19 ms of 15"),
        pytest.param(30.0, 10, False, id="beyond 40 ms is over 30"),
        pytest.param(100.0, 10, None, id="beyond 40 ms may be 50 and may be 500"),
        pytest.param(100.0, 4, True, id="only one in 25 is beyond the last edge: P95 is not"),
    ],
)
def test_a_p95_beyond_the_histograms_last_edge_meets_no_objective(
    objective_ms: float, beyond: int, resolved: bool | None
) -> None:
    def measured(counts: list[float], start_s: float) -> Evidence:
        table = np.tile(np.array(counts), (24, 1))
        window = side(start_s=start_s).window
        return Evidence(window, BucketWindow("ranker", window.span, EDGES_MS, table), slo=Slo(p95_ms=objective_ms))

    before = measured([0, 0, 100, 0], 0.0)
    after = measured([0, 100 - beyond, 0, beyond], 900.0)
    outcome = judge(before, after)
    assert outcome.method.endswith("buckets")
    assert outcome.resolved is resolved


# What explains a fall of P95 from 200 to 120 ms ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "unhelped", "verdict"),
    [
        pytest.param((None, None), None, "inconclusive", id="40 % less load explains it"),
        pytest.param((200.0, None), None, "inconclusive", id="an expectation of one side compares nothing"),
        pytest.param((None, 200.0), None, "inconclusive", id="nor does the other's"),
        pytest.param((200.0, 190.0), None, "improved", id="the model says that this load makes no such difference"),
        pytest.param((200.0, 120.0), None, "inconclusive", id="the model says that it does"),
        pytest.param((None, None), 300.0, "improved", id="left alone it would have reached 300 ms at this load"),
        pytest.param((None, None), 120.0, "inconclusive", id="left alone it would have been as fast"),
    ],
)
def test_less_load_explains_a_fall_unless_a_model_accounts_for_it(
    expected: tuple[float | None, float | None], unhelped: float | None, verdict: str
) -> None:
    before = side(p95_ms=wave(200), qps=100.0, queue_depth=0.0)
    after = side(start_s=900, p95_ms=wave(120), qps=60.0, queue_depth=0.0)
    assert judge(expecting(before, expected[0]), expecting(after, expected[1], unhelped)).verdict == verdict


@pytest.mark.parametrize(("qps", "verdict"), [(160.0, "inconclusive"), (150.0, "worse"), (60.0, "worse")])
def test_more_load_explains_a_rise_and_less_does_not(qps: float, verdict: str) -> None:
    """A load that grew by more than 54 % (the same distance as a fall by 35 %)."""
    before = side(p95_ms=wave(100), qps=100.0, queue_depth=0.0)
    assert judge(before, side(start_s=900, p95_ms=wave(130), qps=qps, queue_depth=0.0)).verdict == verdict


@pytest.mark.parametrize(("expected_ms", "told"), [(102.6, True), (101.5, False), (97.4, True), (100.0, False)])
def test_the_loads_own_part_is_told_from_two_percent_on(expected_ms: float, told: bool) -> None:
    before, after = side(p95_ms=wave(200)), side(start_s=900, p95_ms=wave(150))
    outcome = judge(expecting(before, 100.0), expecting(after, expected_ms))
    assert ("the load alone would have moved P95" in outcome.reason) is told


@pytest.mark.parametrize("unit", [1.0, 0.001])
def test_a_model_may_expect_less_than_a_millisecond(unit: float) -> None:
    """200 to 110 ms where the load alone leads to 110: nothing of it is the change's, and so in microseconds."""
    before, after = side(p95_ms=wave(200 * unit)), side(start_s=900, p95_ms=wave(110 * unit))
    assert judge(expecting(before, 200 * unit), expecting(after, 110 * unit)).verdict == "inconclusive"


@pytest.mark.parametrize(("swing", "verdict"), [(0.01, "improved"), (0.5, "inconclusive")])
def test_a_fall_by_a_tenth_in_a_scatter_of_a_half_is_nothing(swing: float, verdict: str) -> None:
    before, after = side(p95_ms=wave(200, swing=swing)), side(start_s=900, p95_ms=wave(180, swing=swing))
    assert judge(before, after).verdict == verdict


@pytest.mark.parametrize(("expected_ms", "at_once"), [(80.0, False), (95.0, True), (None, True)])
def test_a_fall_that_the_model_expects_by_itself_is_weighed_and_not_taken_at_once(
    expected_ms: float | None, at_once: bool
) -> None:
    """P95 falls from 500 to 40 ms; the model expects the load alone to lead from 100 to `expected_ms`."""
    before, after = side(p95_ms=wave(500)), side(start_s=900, p95_ms=wave(40))
    outcome = judge(expecting(before, 100.0), expecting(after, expected_ms))
    assert outcome.verdict == "improved"
    assert ("of the best of the last" in outcome.reason) is at_once


# Guard metrics -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("control_fell", "fine"),
    [
        pytest.param(None, False, id="no control: two points of accuracy are lost"),
        pytest.param(0.0, False, id="the unchanged replicas lost nothing"),
        pytest.param(0.02, True, id="they lost as much: it is the traffic"),
    ],
)
def test_what_the_unchanged_replicas_lose_too_is_not_the_changes_doing(control_fell: float | None, fine: bool) -> None:
    before, after = side(accuracy=0.95), side(accuracy=0.93)
    control = None if control_fell is None else (side(accuracy=0.9), side(accuracy=0.9 - control_fell))
    (found,) = guard_metrics(before, after, control, SETTINGS)
    assert found.ok is fine


def test_a_control_that_exports_a_signal_on_one_side_only_takes_nothing_off() -> None:
    before, after = side(accuracy=0.95), side(accuracy=0.93)
    for control in ((side(accuracy=0.9), side()), (side(), side(accuracy=0.88))):
        (found,) = guard_metrics(before, after, control, SETTINGS)
        assert not found.ok


@pytest.mark.parametrize(("requests", "fine"), [(200, True), (4000, False)])
def test_an_error_more_among_few_requests_is_chance(requests: int, fine: bool) -> None:
    """1 % and 3 % of failures: of 200 requests the difference's error is 1.4 points, of 4,000 it is 0.3."""
    before, after = (side(12, error_rate=share, qps=requests / 120) for share in (0.01, 0.03))
    assert guard_metrics(before, after, None, SETTINGS)[0].ok is fine


@pytest.mark.parametrize(
    ("points", "fine"),
    [
        pytest.param([0.0, 1900.0], False, id="two points of the queue are enough: it grew by 17/s, 87 were asked for"),
        pytest.param([0.0, 1000.0], True, id="it grew by 9/s: 70 of 79 are served"),
        pytest.param([1900.0], True, id="one point tells no growth: the queue's wait does"),
    ],
)
def test_what_was_asked_for_is_what_was_served_and_what_the_queue_grew_by(points: list[float], fine: bool) -> None:
    depth = np.full(12, np.nan)
    depth[[0, 11][: len(points)]] = points
    before = expecting(side(12, qps=100.0), 100.0)
    after = expecting(side(12, qps=69.0, queue_depth=depth), 90.0)
    assert next(g for g in guard_metrics(before, after, None, SETTINGS) if g.signal == "qps").ok is fine


# A queue that drains ------------------------------------------------------------------------------------------------


def drained_s(queue: list[float]) -> float:
    """60 s is what was planned; P95 is a rate over 20 s."""
    times = np.arange(len(queue)) * 10.0
    return settled(times, np.asarray(queue), settle_s=60.0, rate_window_s=20.0, floor=2.0, bound_s=900.0).settle_s


@pytest.mark.parametrize(
    ("queue", "expected_s"),
    [
        pytest.param([100, 80, 60, 40, 20, 0], 70.0, id="six points are enough: empty after 50 s"),
        pytest.param([100, 80, 60, 40, 20], 60.0, id="five are not"),
        pytest.param([100, 90, 80, 70, 60, 50], 115.0, id="45 more to go at 1/s, and the window"),
        pytest.param([100, 100, 102, 108, 92, 104, 96, 100], 60.0, id="noise is no fall"),
        pytest.param([100, 100, 100, 100, 97, 87, 93, 84], 340.0, id="a fall of 10 in a scatter of 3.5"),
        pytest.param([100, 100, 100, 100, 98, 84, 93, 86], 60.0, id="a fall of 8 in a scatter of 4.7 is none"),
    ],
)
def test_how_long_a_queue_is_waited_for(queue: list[float], expected_s: float) -> None:
    assert drained_s(queue) == pytest.approx(expected_s, abs=12.0)


# Points ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "points"), [([60.0, 60, 60], 3), ([60.0, 60, 0], None), ([60.0, 60, 0, 60], 3)])
def test_a_histogram_needs_three_points(steps: list[float], points: int | None) -> None:
    counts = np.zeros((len(steps), 4))
    counts[:, 1] = steps
    found = from_buckets(BucketWindow("ranker", Span(0.0, STEP_S * (len(steps) - 1), STEP_S), EDGES_MS, counts), 40.0)
    assert (None if found is None else found.n) == points


def test_half_a_request_is_one() -> None:
    """Rates count parts of requests."""
    assert quantile_of(EDGES_MS, np.array([0.5, 0.0, 0.0, 0.0]), 0.5) == 5.0


@pytest.mark.parametrize(
    ("step_s", "known"),
    [
        pytest.param(10.0, True, id="the same step"),
        pytest.param(5.0, True, id="half of it"),
        pytest.param(20.0, False, id="coarser than the look"),
        pytest.param(15.0, False, id="half as much again is closest to nothing"),
        pytest.param(9.92, True, id="0.8 % off"),
        pytest.param(9.88, False, id="1.2 % off"),
        pytest.param(4.955, True, id="two of these are 0.9 % off"),
    ],
)
def test_a_history_has_the_looks_step_or_a_part_of_it(step_s: float, known: bool) -> None:
    history = MetricWindow("ranker", Span(-step_s * 120, 0.0, step_s), {"p95_ms": np.full(121, 50.0)})
    found = history_of(Evidence(side(p95_ms=50.0).window, history=history))
    assert (found is not None) is known
    if found is not None:
        assert math.log(50.0) == pytest.approx(float(np.nanmean(found)))
