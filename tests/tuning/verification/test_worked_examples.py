"""The verdict's numbers, each just below and just above: worked examples that can be checked by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from detection.model import BucketWindow, FloatArray, MetricWindow, Slo, Span
from tuning.model import Change, Diagnosis, Option, Outcome, Plan
from tuning.ports import Evidence
from tuning.verification.autocorrelation import Side
from tuning.verification.before_after import BeforeAfterVerifier
from tuning.verification.draining import settled
from tuning.verification.guarded import guard_metrics, requests_of, vanished
from tuning.verification.points import (
    Points,
    both_sides,
    from_buckets,
    from_series,
    history_of,
    last_edge_ms,
    quantile_of,
    quantile_variance,
)
from tuning.verification.separation import separated
from tuning.verification.settings import VerificationSettings

STEP_S = 10.0
SETTINGS = VerificationSettings()


def side(n: int = 12, *, start_s: float = 0.0, step_s: float = STEP_S, slo: Slo | None = None, **signals) -> Evidence:
    """One side: each signal a constant or n values."""
    values = {name: np.broadcast_to(np.asarray(v, dtype=float), (n,)) for name, v in signals.items()}
    window = MetricWindow("ranker", Span(start_s, start_s + step_s * (n - 1), step_s), values)
    return Evidence(window, slo=slo)


def wave(level: float, n: int = 12, swing: float = 0.02) -> FloatArray:
    """A level with a known scatter: up and down by turns."""
    return level * (1 + swing * np.where(np.arange(n) % 2, 1.0, -1.0))


def judge(before: Evidence, after: Evidence) -> Outcome:
    change = Change(lever="batch_size", old={"batch_size": 1}, new={"batch_size": 8})
    plan = Plan(
        id="p", incident_id="i", service="ranker", decided_at_s=0.0, mode="act", diagnosis=Diagnosis(cause="unknown"),
        chosen=Option(changes=(change,)),
    )  # fmt: skip
    return BeforeAfterVerifier(SETTINGS).judge(plan, before, after)


# Guard metrics: (signal, before, after, fine)
@pytest.mark.parametrize(
    ("signal", "before", "after", "fine"),
    [
        ("error_rate", 0.001, 0.0055, True),  # 0.45 points more, half a point is allowed
        ("error_rate", 0.001, 0.0070, False),
        ("qps", 100.0, 81.0, True),  # a fifth may go
        ("qps", 100.0, 79.0, False),
        ("accuracy", 0.90, 0.891, True),  # a point may go
        ("accuracy", 0.90, 0.889, False),
        ("agreement", 0.90, 0.891, True),
        ("agreement", 0.90, 0.889, False),
    ],
)
def test_how_much_a_guard_metric_may_lose(signal, before, after, fine):
    found = guard_metrics(side(**{signal: before}), side(start_s=300, **{signal: after}), None, SETTINGS)
    assert [(g.signal, g.ok) for g in found] == [(signal, fine)]
    assert bool(found[0].reason) is not fine


def test_a_loss_within_twice_its_noise_is_none():
    """Errors by turns 0 and 4 %: a rise of one point is within two standard errors (1 % each), two points are not."""
    shaky = np.where(np.arange(12) % 2, 0.04, 0.0)
    for rise, fine in ((0.01, True), (0.05, False)):
        found = guard_metrics(side(error_rate=shaky), side(error_rate=shaky + rise), None, SETTINGS)
        assert found[0].ok is fine


def test_few_requests_make_a_share_of_failures_uncertain():
    """40 requests a side: one failure more is 2.5 %, and its binomial error is as large."""
    before = side(error_rate=0.0, qps=40 / 120)
    assert guard_metrics(before, side(error_rate=0.025, qps=40 / 120), None, SETTINGS)[0].ok
    many = side(error_rate=0.0, qps=4000 / 120)
    assert not guard_metrics(many, side(error_rate=0.025, qps=4000 / 120), None, SETTINGS)[0].ok


@pytest.mark.parametrize(("served", "grown", "fine"), [(70.0, 0.0, True), (70.0, 1870.0, True), (70.0, 2035.0, False)])
def test_served_less_because_less_was_asked_for(served, grown, fine):
    """Asked for: 70/s and what the queue grew by in 110 s. 70 of 87 are four fifths, 70 of 88.5 are fewer."""
    before = side(qps=100.0, queue_depth=0.0)
    after = side(qps=served, queue_depth=np.linspace(0.0, grown, 12))
    assert next(g for g in guard_metrics(before, after, None, SETTINGS) if g.signal == "qps").ok is fine


@pytest.mark.parametrize(("queue_ms", "fine"), [(21.0, True), (23.0, False)])
def test_without_the_queues_length_its_wait_tells(queue_ms, fine):
    """A tenth more wait is still none, where the model has an expectation."""
    before, after = side(qps=100.0, queue_ms=20.0), side(qps=70.0, queue_ms=queue_ms)
    before = Evidence(before.window, expected_p95_ms=100.0)
    after = Evidence(after.window, expected_p95_ms=60.0)
    assert guard_metrics(before, after, None, SETTINGS)[0].ok is fine


@pytest.mark.parametrize(("agreement", "fine"), [(0.98, True), (0.979, False)])
def test_shadowed_answers_have_a_bound_and_no_before(agreement, fine):
    after = Evidence(side(agreement=agreement).window, min_agreement=0.98)
    assert guard_metrics(side(), after, None, SETTINGS)[0].ok is fine


def test_requests_are_counted_by_the_rate_where_no_histogram_is():
    assert requests_of(side(12, qps=2.0)) == 240.0
    assert requests_of(side(12)) is None


# The verdict -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "verdict"),
    [(0.90, "improved"), (0.96, "unchanged"), (1.0, "unchanged"), (1.04, "unchanged"), (1.10, "worse")],
)
def test_less_than_five_percent_is_no_effect(after, verdict):
    assert judge(side(24, p95_ms=wave(200, 24)), side(24, start_s=900, p95_ms=wave(200 * after, 24))).verdict == verdict


@pytest.mark.parametrize(("qps", "verdict"), [(66.0, "improved"), (64.0, "inconclusive")])
def test_a_load_that_fell_by_more_than_a_third_explains_a_fall(qps, verdict):
    """35 % are allowed; served throughput may fall so far as the queue says that less was asked for."""
    before = side(24, p95_ms=wave(200, 24), qps=100.0, queue_depth=0.0)
    assert judge(before, side(24, start_s=900, p95_ms=wave(120, 24), qps=qps, queue_depth=0.0)).verdict == verdict


@pytest.mark.parametrize(("over", "resolved"), [(0, True), (4, True), (5, None), (16, None), (17, False)])
def test_resolved_is_four_fifths_of_the_points_and_the_level(over, resolved):
    """24 points after, `over` of them just over the objective of 100 ms at the start of the look. While the newest
    third lies under it, a longer look may still show it resolved."""
    after = np.where(np.arange(24) < over, 104.0, 90.0)
    outcome = judge(side(24, p95_ms=wave(150, 24), slo=Slo(p95_ms=100)), side(24, p95_ms=after, slo=Slo(p95_ms=100)))
    assert outcome.resolved is resolved


@pytest.mark.parametrize(("qps", "told"), [(0.82, "requests"), (0.84, "")])
def test_a_hundred_requests_are_the_least(qps, told):
    """12 points of 10 s: 0.84/s are 100.8 requests, 0.82/s are 98.4."""
    outcome = judge(side(p95_ms=wave(200), qps=qps), side(start_s=300, p95_ms=wave(150), qps=qps))
    assert ("requests before" in outcome.reason) is bool(told)


@pytest.mark.parametrize(("points", "few"), [(7, True), (8, False)])
def test_eight_points_are_the_least(points, few):
    outcome = judge(side(p95_ms=wave(200)), side(points, start_s=300, p95_ms=wave(150, points)))
    assert ("P95 points after" in outcome.reason) is few


@pytest.mark.parametrize(("expected", "verdict"), [(190.0, "improved"), (110.0, "inconclusive")])
def test_what_the_load_alone_would_have_done_is_taken_off(expected, verdict):
    """P95 fell from 200 to 110; with an expectation of 110 at the new load nothing of it is the change's."""
    before, after = side(24, p95_ms=wave(200, 24)), side(24, start_s=900, p95_ms=wave(110, 24))
    outcome = judge(Evidence(before.window, expected_p95_ms=200.0), Evidence(after.window, expected_p95_ms=expected))
    assert outcome.verdict == verdict


# Far apart --------------------------------------------------------------------------------------------------------


def points(*values: float, top_ms: float | None = None) -> Points:
    logs = np.log(np.asarray(values, dtype=float))
    return Points(Side(logs), np.arange(logs.size) * STEP_S, "series", top_ms)


@pytest.mark.parametrize(("worst", "apart"), [(149.0, True), (151.0, False)])
def test_far_apart_is_half_of_the_best_before(worst, apart):
    """Before: the later half is 300 to 500. After: the last eight, of which `worst` is the largest."""
    found = separated(points(100, 100, 100, 300, 400, 500), points(900, *[100] * 7, worst), 8, 0.9)
    assert (found is not None) is apart
    if found is not None:
        assert (found.value, found.low, found.high) == pytest.approx((100 / 400, 100 / 500, 149 / 300))


def test_far_apart_needs_three_points_before_and_nothing_cut_off():
    after = points(*[100] * 8)
    assert separated(points(300, 400), after, 8, 0.9) is None
    assert separated(points(300, 400, 500), after, 8, 0.9) is not None
    assert separated(points(300, 400, 500), points(*[100] * 7), 8, 0.9) is None
    assert separated(points(300, 400, 500), points(*[100] * 8, top_ms=100.0), 8, 0.9) is None


# A queue that drains ------------------------------------------------------------------------------------------------


def drain(queue: list[float], *, settle_s: float = 30.0, floor: float = 2.0, bound_s: float = 900.0) -> float:
    times = np.arange(len(queue)) * 10.0
    found = settled(times, np.asarray(queue), settle_s=settle_s, rate_window_s=20.0, floor=floor, bound_s=bound_s)
    assert bool(found.reason) is (found.settle_s > settle_s)
    return found.settle_s


@pytest.mark.parametrize(
    ("queue", "expected_s"),
    [
        ([100, 80, 60, 40, 20, 0, 0, 0], 70.0),  # empty at 50 s, and the rate window behind it
        ([100, 80, 60, 40, 20, 4, 4, 4], 70.0),  # a twentieth of its peak is none
        ([100, 80, 60, 40, 20, 6, 0, 0], 80.0),
        ([100, 90, 80, 70, 60, 50, 40, 30], 115.0),  # 25 more at 1/s, then the window
        ([100, 100, 100, 100, 100, 100, 100, 100], 30.0),  # it does not fall: nothing to wait for
        ([100, 100, 100, 100, 100, 100, 99, 98.5], 30.0),  # by less than a fiftieth
        ([2, 2, 1, 0, 2, 1, 0, 0], 30.0),  # no queue
        ([100, 80, 60, 40, 20], 30.0),  # too few points to tell
    ],
)
def test_how_long_a_queue_takes(queue, expected_s):
    assert drain(queue) == pytest.approx(expected_s, abs=1.0)


def test_the_wait_has_a_bound():
    assert drain([100, 90, 80, 70, 60, 50, 40, 30], bound_s=90.0) == 90.0
    assert drain([100, 90, 80, 70, 60, 50, 40, 30], bound_s=30.0) == 30.0


# Points from a histogram -------------------------------------------------------------------------------------------

EDGES_MS = np.array([10.0, 20.0, 40.0, np.inf])


@pytest.mark.parametrize(
    ("counts", "p", "expected_ms"),
    [
        ([10, 0, 0, 0], 0.5, 5.0),
        ([10, 10, 0, 0], 0.75, 15.0),
        ([0, 0, 20, 0], 0.95, 39.0),
        ([0, 0, 1, 19], 0.95, 40.0),  # beyond the last edge: at least that
        ([0, 0, 0, 0], 0.5, math.nan),
    ],
)
def test_a_quantile_by_hand(counts, p, expected_ms):
    assert quantile_of(EDGES_MS, np.array(counts, dtype=float), p) == pytest.approx(expected_ms, nan_ok=True)


def test_the_error_of_a_quantile_by_hand():
    """100 requests even over 0..10 ms: the median's rank is uncertain by 5 points, 4.5 to 5.5 ms."""
    counts = np.array([100.0, 0.0, 0.0, 0.0])
    assert quantile_variance(EDGES_MS, counts, 0.5) == pytest.approx((0.5 * math.log(5.5 / 4.5)) ** 2)
    assert quantile_variance(EDGES_MS, counts * 0, 0.5) == math.inf


@pytest.mark.parametrize(
    ("steps", "per_step", "expected"),
    [(12, 40, 12), (12, 39, 6), (12, 20, 6), (13, 20, 6), (5, 20, None), (6, 20, 3), (12, 0, None)],
)
def test_steps_are_joined_until_each_point_rests_on_forty_requests(steps, per_step, expected):
    counts = np.zeros((steps, 4))
    counts[:, 1] = per_step
    found = from_buckets(BucketWindow("ranker", Span(0.0, 10.0 * (steps - 1), 10.0), EDGES_MS, counts), 40.0)
    assert (found.n if found else None) == expected
    if found:
        assert found.times_s[-1] == 10.0 * (steps - 1)
        assert not found.censored


def test_a_step_with_less_than_half_of_its_requests_is_no_point():
    counts = np.zeros((8, 4))
    counts[:, 1] = [60, 60, 60, 60, 60, 60, 19, 21]
    found = from_buckets(BucketWindow("ranker", Span(0.0, 70.0, 10.0), EDGES_MS, counts), 40.0)
    assert found is not None
    assert np.isfinite(found.side.points).tolist() == [True] * 6 + [False, True]


@pytest.mark.parametrize(
    ("length", "step_s", "known"), [(30, 10.0, 30), (29, 10.0, None), (60, 5.0, 30), (90, 20.0, None)]
)
def test_a_history_is_thinned_to_the_step_of_the_look(length, step_s, known):
    history = MetricWindow("ranker", Span(-step_s * (length - 1), 0.0, step_s), {"p95_ms": np.full(length, 50.0)})
    found = history_of(Evidence(side(p95_ms=50.0).window, history=history))
    assert (None if found is None else found.size) == known


@pytest.mark.parametrize(("slo", "resolved"), [(None, None), (Slo(p95_ms=100), True), (Slo(p95_ms=20), False)])
def test_far_apart_is_resolved_only_against_an_objective(slo, resolved):
    before = side(p95_ms=np.linspace(500, 900, 12), slo=slo)
    outcome = judge(before, side(start_s=300, p95_ms=wave(40), slo=slo))
    assert (outcome.verdict, outcome.resolved) == ("improved", resolved)
    assert "of the best of the last" in outcome.reason


def swing(level: float, by: float, n: int = 12) -> FloatArray:
    return level + by * np.where(np.arange(n) % 2, 1.0, -1.0)


# 12 points that swing by d: the standard error of the difference of two such means is 0.74 d.
@pytest.mark.parametrize(
    ("signal", "before", "after", "fine"),
    [
        ("error_rate", swing(0.05, 0.02), swing(0.078, 0.02), True),  # 1.9 standard errors
        ("error_rate", swing(0.05, 0.02), swing(0.085, 0.02), False),  # 2.4
        ("qps", swing(100.0, 27.0), swing(70.0, 27.0), True),  # 1.5
        ("qps", swing(100.0, 16.0), swing(70.0, 16.0), False),  # 2.5
        ("accuracy", swing(0.9, 0.02), swing(0.872, 0.02), True),
        ("accuracy", swing(0.9, 0.02), swing(0.865, 0.02), False),
    ],
)
def test_a_loss_counts_beyond_twice_its_standard_error(signal, before, after, fine):
    found = guard_metrics(side(**{signal: before}), side(**{signal: after}), None, SETTINGS)
    assert [g.ok for g in found] == [fine]


@pytest.mark.parametrize(("rise", "fine"), [(0.075, True), (0.085, False)])
def test_two_points_have_the_scatter_of_two_points(rise, fine):
    """0 and 4 % a side: the standard error is 4 points."""
    before, after = (side(2, error_rate=np.array([0.0, 0.04]) + more) for more in (0.0, rise))
    assert guard_metrics(before, after, None, SETTINGS)[0].ok is fine


@pytest.mark.parametrize(
    ("values", "fine"),
    [([0.95, 0.99], True), ([0.97], False), (swing(0.97, 0.008), False), (swing(0.97, 0.012), True)],
)
def test_shadowed_answers_may_scatter_around_their_bound(values, fine):
    after = side(len(values), agreement=values)
    assert guard_metrics(side(), Evidence(after.window, min_agreement=0.98), None, SETTINGS)[0].ok is fine


@pytest.mark.parametrize("signal", ["error_rate", "qps", "accuracy"])
def test_what_one_side_alone_exports_guards_nothing(signal):
    assert guard_metrics(side(**{signal: 0.5}), side(), None, SETTINGS) == ()
    assert guard_metrics(side(), side(**{signal: 0.5}), None, SETTINGS) == ()


@pytest.mark.parametrize("signal", ["error_rate", "qps", "accuracy", "agreement"])
@pytest.mark.parametrize(("known", "left", "lost"), [(12, 0, True), (12, 5, True), (12, 6, False), (6, 2, True), (5, 0, False)])
def test_a_guard_that_is_no_longer_measured_proves_nothing(signal, known, left, lost):
    """Of 12 steps: half of them make a signal measured, and half of what was measured has to be left."""
    before, after = (np.where(np.arange(12) < n, 0.5, np.nan) for n in (known, left))
    said = vanished(side(**{signal: before}), side(**{signal: after}))
    assert said == (f"{signal} was measured before the change and not after it" if lost else "")


def test_a_win_whose_guards_are_gone_is_no_win():
    before = side(24, p95_ms=wave(800, 24), qps=100.0, error_rate=0.0)
    after = {"start_s": 900.0, "p95_ms": wave(80, 24)}
    assert judge(before, side(24, **after, qps=100.0, error_rate=0.0)).verdict == "improved"
    gone = judge(before, side(24, **after))
    assert (gone.verdict, gone.resolved) == ("inconclusive", None)
    assert gone.reason.startswith("error_rate and qps were measured before the change and not after it")
    errors = judge(before, side(24, **after, qps=100.0, error_rate=np.full(24, np.nan)))
    assert (errors.verdict, errors.resolved) == ("inconclusive", None)


def histogram(counts: list[float], edges_ms: FloatArray = EDGES_MS, steps: int = 12) -> BucketWindow:
    return BucketWindow("ranker", Span(0.0, 10.0 * (steps - 1), 10.0), edges_ms, np.tile(np.array(counts), (steps, 1)))


def test_a_latency_under_a_millisecond_is_one():
    found = from_buckets(histogram([100.0, 0.0, 0.0], np.array([0.2, 0.4, np.inf])), 40.0)
    assert found is not None and found.n == 12
    assert np.exp(found.side.points) == pytest.approx(0.19)
    assert from_series(side(p95_ms=0.2).window).n == 12


@pytest.mark.parametrize(("counts", "censored"), [([0, 0, 90, 10], True), ([0, 0, 96, 4], False)])
def test_beyond_the_last_edge_a_point_is_cut_off(counts, censored):
    found = from_buckets(histogram([float(c) for c in counts]), 40.0)
    assert found is not None and found.censored is censored


TOP_MS = float(EDGES_MS[-2])
TOP = histogram([0.0, 0.0, 0.0, 100.0])
FULL = np.full(12, TOP_MS)


@pytest.mark.parametrize(
    ("before", "after", "slo", "verdict", "resolved"),
    [
        (FULL, FULL, 5.0, "inconclusive", None),  # an objective beyond the buckets: nobody knows
        (FULL, FULL, 0.5, "inconclusive", False),  # one within them is not met
        (FULL, wave(0.1 * TOP_MS), 0.5, "improved", True),  # it fell by at least that much
        (FULL, wave(0.98 * TOP_MS, swing=0.005), 2.0, "inconclusive", True),  # not much lower, or perhaps very much
        (wave(0.1 * TOP_MS), FULL, 0.5, "worse", False),
    ],
)
@pytest.mark.parametrize("told_by", ["bounds", "buckets"])
def test_beyond_the_last_bucket_a_level_is_at_least_that(before, after, slo, verdict, resolved, told_by):
    """slo: as a multiple of the last edge."""

    def half(values: FloatArray, start_s: float) -> Evidence:
        window = side(12, p95_ms=values, qps=100.0, start_s=start_s).window
        window = replace(window, percentile_source="histogram")
        if told_by == "bounds":
            return Evidence(replace(window, bounds_ms=tuple(EDGES_MS[:-1])), slo=Slo(p95_ms=slo * TOP_MS))
        return Evidence(window, buckets=replace(TOP, counts=TOP.counts * np.nan), slo=Slo(p95_ms=slo * TOP_MS))

    outcome = judge(half(before, 0.0), half(after, 900.0))
    assert (outcome.verdict, outcome.resolved) == (verdict, resolved)


def test_a_histogram_of_one_endless_bucket_shows_nothing():
    only = BucketWindow("ranker", Span(0.0, 110.0, 10.0), np.array([np.inf]), np.full((12, 1), 100.0))
    assert from_buckets(only, 40.0) is None
    assert last_edge_ms(only) is None


def test_without_a_series_there_are_no_points():
    assert from_series(side(qps=5.0).window).side.points.size == 0


@pytest.mark.parametrize(
    ("points_n", "history", "source"),
    [(12, 60, "series"), (12, 0, "buckets"), (7, 60, "buckets"), (7, 0, "buckets")],
)
def test_the_series_is_used_where_its_history_tells_its_autocorrelation(points_n, history, source):
    past = MetricWindow("ranker", Span(-600.0, -10.0, 10.0), {"p95_ms": np.full(60, 50.0)}) if history else None
    p95 = np.where(np.arange(12) < points_n, 50.0, np.nan)
    one = Evidence(side(p95_ms=p95).window, histogram([0.0, 0.0, 100.0, 0.0]), history=past)
    assert [p.source for p in both_sides(one, one, SETTINGS)] == [source, source]


def test_a_control_whose_load_is_not_known_on_both_sides_explains_nothing():
    before, after = side(p95_ms=wave(200), qps=100.0), side(start_s=300, p95_ms=wave(60), qps=50.0, queue_depth=0.0)
    control = side(p95_ms=wave(200), qps=100.0), side(start_s=300, p95_ms=wave(200))
    change = Change(lever="batch_size", old={"batch_size": 1}, new={"batch_size": 8})
    plan = Plan(
        id="p", incident_id="i", service="ranker", decided_at_s=0.0, mode="act", diagnosis=Diagnosis(cause="unknown"),
        chosen=Option(changes=(change,)),
    )  # fmt: skip
    outcome = BeforeAfterVerifier(SETTINGS).judge(plan, before, after, control)
    assert "may explain it" not in outcome.reason


SLO = Slo(p95_ms=100.0, error_rate=0.01)


def refusing(share: float, *, p95_ms: float = 90.0, qps: float = 10.0, start_s: float = 0.0, slo: Slo = SLO) -> Evidence:
    """A service whose queue refuses at its limit: `qps` is what it answers."""
    return side(start_s=start_s, slo=slo, p95_ms=wave(p95_ms), error_rate=share, qps=qps, queue_depth=0.0)


@pytest.mark.parametrize(
    ("before", "after", "verdict", "resolved"),
    [
        # Of 1,200 requests a side 3 % and then none are refused: P95 stays where the limit keeps it.
        (refusing(0.03), refusing(0.0), "improved", True),
        (refusing(0.03), refusing(0.01), "improved", True),
        (refusing(0.03), refusing(0.011), "unchanged", True),  # over the objective, within two standard errors
        (refusing(0.05), refusing(0.02), "unchanged", False),  # 0.57 points beside 1 % are luck: it is still refusing
        (refusing(0.05), refusing(0.015), "unchanged", True),
        (refusing(0.05), refusing(0.05), "unchanged", True),  # what the change did not move is another matter
        (refusing(0.01), refusing(0.0), "unchanged", True),  # it never was over the objective
        # 60 requests: one or two that are refused no longer say nothing.
        (refusing(0.03, qps=0.5), refusing(0.0, qps=0.5), "inconclusive", None),
        # A third of what was asked for (10.3/s) is gone: no wonder that nothing is refused.
        (refusing(0.03), refusing(0.0, qps=6.6), "unchanged", True),
        (refusing(0.03), refusing(0.0, qps=6.8), "improved", True),
        # Nothing is refused any more because all wait longer.
        (refusing(0.03), refusing(0.0, p95_ms=93.0), "unchanged", True),
    ],
)
def test_what_is_no_longer_refused_is_an_improvement(before, after, verdict, resolved):
    found = judge(before, after)
    assert (found.verdict, found.resolved) == (verdict, resolved), found.reason


def test_few_requests_before_and_many_refused():
    """80 requests are too few for P95; a quarter of them refused and then none is no luck."""
    found = judge(refusing(0.25, p95_ms=150.0, qps=0.66), refusing(0.0, p95_ms=50.0, qps=2.0))
    assert found.verdict == "improved" and found.reason.startswith("the share of failed requests fell from 25.00% to")
    assert found.resolved


def test_all_points_under_the_objective_are_resolved_however_uncertain_their_level():
    """A P95 that rose from 1 ms to 150 before makes every level uncertain; after it, each point lies under 100 ms."""
    before = side(p95_ms=np.geomspace(1.0, 150.0, 12), slo=SLO)
    points = wave(80.0, swing=0.2)
    assert judge(before, side(p95_ms=points, slo=SLO)).resolved is True
    assert judge(before, side(p95_ms=np.append(101.0, points[1:]), slo=SLO)).resolved is None
