"""The verdict: what it must say, and what it must not be talked into."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from detection.model import BucketWindow, FloatArray, MetricWindow, Slo, Span
from tuning.errors import ConfigError
from tuning.model import Change, Diagnosis, Option, Outcome, Plan
from tuning.ports import Evidence
from tuning.verification import REGISTRY, get
from tuning.verification.before_after import BeforeAfterVerifier
from tuning.verification.settings import VerificationSettings

STEP_S = 15.0
N = 15


def a_plan() -> Plan:
    change = Change(lever="batch_size", old={"batch_size": 1}, new={"batch_size": 8})
    return Plan(
        id="p",
        incident_id="i",
        service="ranker",
        decided_at_s=0.0,
        mode="act",
        diagnosis=Diagnosis(cause="unknown"),
        chosen=Option(changes=(change,)),
    )


def evidence(p95_ms: object, *, start_s: float = 0.0, step_s: float = STEP_S, **more: object) -> Evidence:
    """more: other signals (constants or arrays), or fields of Evidence."""
    points = np.asarray(p95_ms, dtype=np.float64)
    names = ("expected_p95_ms", "unhelped_p95_ms", "history", "buckets", "slo")
    fields = {name: more.pop(name) for name in names if name in more}
    values = {"p95_ms": points} | {k: np.broadcast_to(np.asarray(v, float), points.shape) for k, v in more.items()}
    window = MetricWindow("ranker", Span(start_s, start_s + step_s * (points.size - 1), step_s), values)
    return Evidence(window, **({"slo": Slo(p95_ms=100.0)} | fields))  # type: ignore[arg-type]


def noisy(level: float, *, seed: int, sigma: float = 0.05, n: int = N) -> FloatArray:
    return level * np.exp(np.random.default_rng(seed).normal(0, sigma, n))


def judge(before: Evidence, after: Evidence, control: tuple[Evidence, Evidence] | None = None) -> Outcome:
    return BeforeAfterVerifier(VerificationSettings()).judge(a_plan(), before, after, control)


def autocorrelated(rng: np.random.Generator, n: int, phi: float, sigma: float) -> FloatArray:
    noise = rng.normal(size=n) * sigma * math.sqrt(1 - phi * phi)
    out = np.empty(n)
    out[0] = rng.normal() * sigma
    for i in range(1, n):
        out[i] = phi * out[i - 1] + noise[i]
    return out


def rolling(rng: np.random.Generator, n: int, window: int, sigma: float) -> FloatArray:
    """What rate() over several steps makes of independent noise."""
    total = np.cumsum(np.concatenate([[0.0], rng.normal(size=n + window - 1) * sigma * math.sqrt(window)]))
    return np.asarray((total[window:] - total[:-window]) / window)


def test_a_clear_fall_is_improved_with_its_size_and_interval() -> None:
    outcome = judge(evidence(noisy(200, seed=1)), evidence(noisy(60, seed=2), start_s=600))
    assert (outcome.verdict, outcome.resolved) == ("improved", True)
    assert outcome.effect is not None
    assert outcome.effect.low < 0.3 < outcome.effect.high
    assert outcome.effect.low > 0.2
    assert outcome.samples_before == outcome.samples_after == N
    assert outcome.p95_before_ms == pytest.approx(200, rel=0.1)


def test_a_clear_rise_is_worse() -> None:
    outcome = judge(evidence(noisy(100, seed=1)), evidence(noisy(160, seed=2), start_s=600))
    assert (outcome.verdict, outcome.resolved) == ("worse", False)


def test_no_difference_is_unchanged_when_the_data_are_good_enough_to_say_so() -> None:
    before, after = noisy(100, seed=3, sigma=0.03), noisy(100, seed=4, sigma=0.03)
    assert judge(evidence(before), evidence(after, start_s=600)).verdict == "unchanged"


def test_great_noise_is_inconclusive() -> None:
    before, after = noisy(100, seed=3, sigma=0.6), noisy(90, seed=4, sigma=0.6)
    outcome = judge(evidence(before), evidence(after, start_s=600))
    assert outcome.verdict == "inconclusive"
    assert "uncertain" in outcome.reason


def test_improved_is_not_resolved_while_p95_is_over_its_objective() -> None:
    outcome = judge(evidence(noisy(400, seed=1)), evidence(noisy(150, seed=2), start_s=600))
    assert (outcome.verdict, outcome.resolved) == ("improved", False)


@pytest.mark.parametrize(("last_ms", "resolved"), [(80.0, None), (130.0, False)])
def test_a_p95_that_is_under_its_objective_only_lately_asks_for_a_longer_look(last_ms, resolved) -> None:
    """Two thirds of the look were over it: whether it is met depends on when one looks."""
    before = evidence(noisy(140, seed=1, sigma=0.3))
    came = np.concatenate([noisy(150, seed=2, sigma=0.3, n=N - 5).clip(110), np.full(5, last_ms)])
    assert judge(before, evidence(came, start_s=1000)).resolved is resolved


def test_without_an_objective_nobody_knows_whether_it_is_resolved() -> None:
    before, after = evidence(noisy(200, seed=1), slo=None), evidence(noisy(60, seed=2), start_s=600, slo=None)
    assert judge(before, after).resolved is None


def test_a_queue_that_grew_without_bound_and_is_normal_again() -> None:
    """10 to 15 points a side, 2 s apart, of a rate over 15 s: the fast settings of a demo."""
    rng = np.random.default_rng(11)
    for n in (10, 12, 15):
        for _ in range(10):
            before = 1500 * (1 + 0.1 * np.arange(n)) * np.exp(rolling(rng, n, 8, 0.05))
            after = 60 * np.exp(rolling(rng, n, 8, 0.08))
            outcome = judge(evidence(before, step_s=2.0), evidence(after, start_s=100, step_s=2.0))
            assert (outcome.verdict, outcome.resolved) == ("improved", True)


@pytest.mark.parametrize("phi", [0.0, 0.7, 0.9])
def test_nothing_happened_is_rarely_called_something(phi: float) -> None:
    """The benchmark counts this on thousands of pairs; here enough of them to notice a mistake."""
    rng = np.random.default_rng(int(phi * 100))
    false = 0
    for _ in range(60):
        x = autocorrelated(rng, 400 + 2 * N, phi, 0.1)
        past = MetricWindow("ranker", Span(-400 * STEP_S, -STEP_S, STEP_S), {"p95_ms": 100 * np.exp(x[:400])})
        before = evidence(100 * np.exp(x[400 : 400 + N]), history=past)
        after = evidence(100 * np.exp(x[400 + N :]), start_s=N * STEP_S)
        false += judge(before, after).verdict in ("improved", "worse")
    assert false <= (4 if phi < 0.9 else 6)


def test_a_true_fall_is_seen_through_autocorrelated_noise() -> None:
    rng = np.random.default_rng(7)
    seen = 0
    for _ in range(40):
        x = autocorrelated(rng, 400 + 2 * N, 0.5, 0.1)
        past = MetricWindow("ranker", Span(-400 * STEP_S, -STEP_S, STEP_S), {"p95_ms": 100 * np.exp(x[:400])})
        before = evidence(100 * np.exp(x[400 : 400 + N]), history=past)
        after = evidence(70 * np.exp(x[400 + N :]), start_s=N * STEP_S)
        seen += judge(before, after).verdict == "improved"
    assert seen >= 38


def test_history_of_another_step_is_not_believed() -> None:
    """Independent at 60 s says nothing about neighbours at 15 s."""
    rng = np.random.default_rng(5)
    coarse = MetricWindow("ranker", Span(-60.0 * 400, -60.0, 60.0), {"p95_ms": 100 * np.exp(rng.normal(0, 0.1, 400))})
    x = np.concatenate([np.linspace(-0.1, 0.1, N), np.linspace(0.1, 0.3, N)])
    before, after = evidence(100 * np.exp(x[:N])), evidence(100 * np.exp(x[N:]), start_s=N * STEP_S)
    assert judge(replace(before, history=coarse), after) == judge(before, after)


def test_few_points_are_inconclusive() -> None:
    outcome = judge(evidence([200.0] * 4), evidence([120.0] * 15, start_s=600))
    assert outcome.verdict == "inconclusive"
    assert "only 4 P95 points before" in outcome.reason


@pytest.mark.parametrize(
    ("after_ms", "qps", "resolved"),
    [
        ([60.0] * 15, 5.0, True),
        ([160.0] * 15, 5.0, False),
        ([60.0] * 12 + [160.0, 60.0, 60.0], 5.0, None),
        ([60.0] * 31 + [160.0] * 3 + [60.0] * 11, 5.0, True),  # a burst in a long look, that is over again
        ([60.0] * 31 + [160.0] * 12 + [60.0] * 2, 5.0, None),  # one that is not
        ([60.0] * 4, 50.0, None),  # too few points
        ([60.0] * 15, 0.2, None),  # too few requests
    ],
)
def test_without_enough_before_the_objective_is_told_by_what_came_after(after_ms, qps, resolved) -> None:
    outcome = judge(evidence([50.0, 200.0, 150.0], qps=qps), evidence(after_ms, start_s=600, qps=qps))
    assert (outcome.verdict, outcome.resolved, outcome.effect) == ("inconclusive", resolved, None)


def test_what_is_not_sure_and_says_better_in_its_whole_interval_leans_to_better() -> None:
    rng = np.random.default_rng(5)
    before, after = 200 * np.exp(autocorrelated(rng, 15, 0.8, 0.2)), 130 * np.exp(autocorrelated(rng, 15, 0.8, 0.2))
    outcome = judge(evidence(before, qps=50.0), evidence(after, start_s=600, qps=50.0))
    assert (outcome.verdict, outcome.leaning) == ("inconclusive", True) and outcome.effect is not None
    assert 0.8 < outcome.effect.high < 1
    again = judge(evidence(after, qps=50.0), evidence(before, start_s=600, qps=50.0))
    assert (again.verdict, again.leaning) == ("inconclusive", False), "worse is no leaning to better"
    fewer = judge(evidence(before, qps=50.0, queue_depth=0.0), evidence(after, start_s=600, qps=30.0, queue_depth=0.0))
    assert (fewer.verdict, fewer.leaning) == ("inconclusive", False), "a load that fell explains it"


def test_gaps_are_no_points_and_no_zeros() -> None:
    after = noisy(60, seed=2)
    after[::2] = np.nan
    outcome = judge(evidence(noisy(200, seed=1)), evidence(after, start_s=600))
    assert outcome.samples_after == 7
    assert outcome.verdict == "inconclusive"


def test_no_data_at_all_is_neither_success_nor_failure() -> None:
    empty = Evidence(MetricWindow("ranker", Span(600.0, 800.0, STEP_S), {}), slo=Slo(p95_ms=100))
    outcome = judge(evidence(noisy(200, seed=1)), empty)
    assert (outcome.verdict, outcome.resolved, outcome.effect) == ("inconclusive", None, None)


def test_no_traffic_is_not_a_cure() -> None:
    before, after = evidence(noisy(200, seed=1), qps=50.0), evidence(noisy(20, seed=2), start_s=600, qps=0.0)
    outcome = judge(before, after)
    assert outcome.verdict != "improved"
    assert outcome.resolved is None


def test_a_constant_series_proves_no_tiny_effect() -> None:
    assert judge(evidence([100.0] * N), evidence([98.0] * N, start_s=600)).verdict == "unchanged"
    assert judge(evidence([100.0] * N), evidence([100.0] * N, start_s=600)).verdict == "unchanged"


def test_a_load_that_fell_explains_the_fall() -> None:
    before = evidence(noisy(200, seed=1), qps=100.0, expected_p95_ms=200.0)
    after = evidence(noisy(60, seed=2), start_s=600, qps=30.0, expected_p95_ms=60.0)
    assert judge(before, after).verdict in ("unchanged", "inconclusive")
    unmodelled = judge(
        evidence(noisy(200, seed=1), qps=100.0, queue_depth=1.0),
        evidence(noisy(60, seed=2), start_s=600, qps=30.0, queue_depth=0.0),
    )
    assert unmodelled.verdict == "inconclusive"
    assert "load" in unmodelled.reason


def test_the_model_is_asked_before_a_wide_gap_is_believed() -> None:
    before = evidence(noisy(200, seed=1), qps=100.0, expected_p95_ms=200.0)
    after = evidence(noisy(60, seed=2), start_s=600, qps=80.0, expected_p95_ms=60.0)
    assert judge(before, after).verdict in ("unchanged", "inconclusive")


@pytest.mark.parametrize("expected", [2000.0, math.inf])
def test_a_growing_queue_that_is_gone_needs_no_scatter_around_a_level(expected: float) -> None:
    before = evidence(np.linspace(300, 3000, 6), qps=100.0, expected_p95_ms=expected)
    after = evidence(noisy(60, seed=2), start_s=600, qps=100.0, expected_p95_ms=expected)
    outcome = judge(before, after)
    assert (outcome.verdict, outcome.resolved) == ("improved", True)


def test_a_load_that_rose_hides_no_win() -> None:
    before = evidence(noisy(100, seed=1), qps=50.0, expected_p95_ms=100.0)
    after = evidence(noisy(100, seed=2), start_s=600, qps=100.0, expected_p95_ms=300.0)
    outcome = judge(before, after)
    assert outcome.verdict == "improved"
    assert "the load alone" in outcome.reason


def test_an_old_setting_that_could_not_cope_is_compared_with_what_it_could_do_now() -> None:
    before = evidence(noisy(2000, seed=1), qps=100.0, expected_p95_ms=math.inf)
    fell = evidence(noisy(60, seed=2), start_s=600, qps=80.0, expected_p95_ms=60.0)
    assert judge(before, fell).verdict in ("unchanged", "inconclusive")
    still = evidence(noisy(60, seed=2), start_s=600, qps=100.0, expected_p95_ms=math.inf)
    assert judge(before, still).verdict == "improved"


@pytest.mark.parametrize(
    ("level", "new_expected", "verdict"),
    [
        (110.0, math.inf, "improved"),  # as high as before, where the old setting would rise without end
        (110.0, 120.0, "inconclusive"),
        (110.0, None, "inconclusive"),
        (400.0, math.inf, "worse"),
    ],
)
def test_a_load_that_outgrew_the_old_setting_is_a_win_of_the_one_that_carries_it(
    level: float, new_expected: float | None, verdict: str
) -> None:
    before = evidence(noisy(105, seed=1, sigma=0.4), qps=100.0, expected_p95_ms=100.0)
    after = evidence(noisy(level, seed=2, sigma=0.4), start_s=600, qps=120.0, expected_p95_ms=new_expected)
    outcome = judge(before, after)
    assert outcome.verdict == verdict
    if verdict == "improved":
        assert "would not have coped" in outcome.reason


@pytest.mark.parametrize(
    ("qps", "new_expected", "errors", "found"),
    [
        (170.0, math.inf, 0.0, ("improved", False)),  # it answers what the old setting could not, and not yet enough
        (140.0, math.inf, 0.0, ("worse", False)),  # so few more that the model alone would say so
        (170.0, 150.0, 0.0, ("worse", False)),  # the old setting would carry that load
        (170.0, math.inf, 0.2, ("worse", False)),  # requests fail since
    ],
)
def test_a_queue_that_outgrows_a_change_which_answers_far_more_is_no_harm_of_it(qps, new_expected, errors, found) -> None:
    before = evidence(noisy(105, seed=1, sigma=0.2), qps=100.0, expected_p95_ms=100.0, error_rate=0.0)
    after = evidence(
        noisy(800, seed=2, sigma=0.2), start_s=600, qps=qps, expected_p95_ms=new_expected, error_rate=errors
    )
    outcome = judge(before, after)
    assert (outcome.verdict, outcome.resolved) == found


@pytest.mark.parametrize(
    ("level", "expected", "found"),
    [
        (60.0, math.inf, ("improved", True)),
        (60.0, 500.0, ("inconclusive", True)),  # a model's word on a level that nobody saw before is none
        (60.0, None, ("inconclusive", True)),
        (300.0, math.inf, ("inconclusive", False)),  # it does not meet the objective either
    ],
)
def test_with_too_few_requests_before_what_the_old_setting_cannot_carry_is_told(
    level: float, expected: float | None, found: tuple[str, bool]
) -> None:
    before = evidence(noisy(200, seed=1, n=6), qps=1.0, expected_p95_ms=math.inf)
    after = evidence(noisy(level, seed=2), start_s=600, qps=10.0, expected_p95_ms=expected)
    outcome = judge(before, after)
    assert (outcome.verdict, outcome.resolved) == found
    assert "before the change" in outcome.reason
    assert ("would not cope" in outcome.reason) is (found[0] == "improved")


def test_the_control_takes_the_credit_that_is_its_own() -> None:
    """Everybody got faster: the changed replica by no more than the others."""
    common = np.random.default_rng(3).normal(0, 0.2, 2 * N)
    before, after = evidence(200 * np.exp(common[:N])), evidence(100 * np.exp(common[N:]), start_s=600)
    jitter = noisy(1, seed=4, sigma=0.02), noisy(1, seed=5, sigma=0.02)
    same = (
        evidence(200 * np.exp(common[:N]) * jitter[0]),
        evidence(100 * np.exp(common[N:]) * jitter[1], start_s=600),
    )
    assert judge(before, after, same).verdict == "unchanged"
    flat = evidence(200 * np.exp(common[:N]) * jitter[0]), evidence(200 * np.exp(common[N:]) * jitter[1], start_s=600)
    outcome = judge(before, after, flat)
    assert outcome.verdict == "improved"
    assert outcome.effect is not None
    assert outcome.effect.high - outcome.effect.low < 0.1  # the common noise is gone


@pytest.mark.parametrize(
    ("signal", "old", "new"),
    [("error_rate", 0.001, 0.08), ("qps", 100.0, 60.0), ("accuracy", 0.93, 0.88), ("agreement", 0.999, 0.9)],
)
def test_a_win_that_loses_elsewhere_is_worse(signal: str, old: float, new: float) -> None:
    before = evidence(noisy(200, seed=1), **{signal: old})
    after = evidence(noisy(60, seed=2), start_s=600, **{signal: new})
    outcome = judge(before, after)
    assert outcome.verdict == "worse"
    (failed,) = [g for g in outcome.guards if not g.ok]
    assert failed.signal == signal
    assert failed.reason in outcome.reason


@pytest.mark.parametrize(("agreement", "verdict"), [(0.995, "improved"), (0.9, "worse")], ids=["agrees", "does not"])
def test_a_faster_version_whose_shadowed_answers_differ_is_worse(agreement: float, verdict: str) -> None:
    """Shadowing begins with the swap: there is nothing to compare with but the bound."""
    before = evidence(noisy(200, seed=1))
    after = replace(evidence(noisy(60, seed=2), start_s=600, agreement=agreement), min_agreement=0.98)
    assert judge(before, after).verdict == verdict


def test_harmless_moves_of_guard_metrics_do_no_harm() -> None:
    before = evidence(noisy(200, seed=1), error_rate=0.001, qps=100.0, accuracy=0.93)
    after = evidence(noisy(60, seed=2), start_s=600, error_rate=0.003, qps=95.0, accuracy=0.927)
    assert judge(before, after).verdict == "improved"


@pytest.mark.parametrize(
    ("depth", "verdict"), [(np.linspace(200, 6500, N), "worse"), (np.linspace(900, 100, N), "improved")]
)
def test_a_fall_of_the_served_rate_is_a_loss_only_if_less_is_answered_than_asked(
    depth: FloatArray, verdict: str
) -> None:
    # In both cases the model has an expectation; it knows only what was answered.
    before = evidence(noisy(100, seed=1), qps=100.0, queue_depth=np.linspace(0, 200, N), expected_p95_ms=100.0)
    after = evidence(noisy(60, seed=2), start_s=400, qps=70.0, queue_depth=depth, expected_p95_ms=100.0)
    outcome = judge(before, after)
    assert outcome.verdict == verdict
    assert ("fell from 100/s to 70/s" in outcome.reason) == (verdict == "worse")


def test_a_throughput_that_fell_like_the_controls_is_no_loss() -> None:
    before, after = evidence(noisy(200, seed=1), qps=100.0), evidence(noisy(60, seed=2), start_s=600, qps=60.0)
    control = evidence(noisy(200, seed=3), qps=100.0), evidence(noisy(200, seed=4), start_s=600, qps=60.0)
    assert judge(before, after, control).verdict == "improved"


EDGES_MS = np.array([5, 10, 25, 50, 100, 250, 500, 1000, np.inf])


def buckets(median_ms: float, per_step: int, *, seed: int, start_s: float = 0.0, n: int = 20) -> BucketWindow:
    rng = np.random.default_rng(seed)
    rows = [
        np.histogram(median_ms * np.exp(rng.normal(0, 0.5, per_step)), np.concatenate([[0.0], EDGES_MS]))[0]
        for _ in range(n)
    ]
    return BucketWindow("ranker", Span(start_s, start_s + 2.0 * (n - 1), 2.0), EDGES_MS, np.asarray(rows, float))


def with_buckets(median_ms: float, per_step: int, *, seed: int, start_s: float = 0.0, n: int = 20) -> Evidence:
    """Only the histogram: the P95 series is missing."""
    span = Span(start_s, start_s + 2.0 * (n - 1), 2.0)
    window = MetricWindow("ranker", span, {"p95_ms": np.full(n, np.nan)})
    return Evidence(window, buckets(median_ms, per_step, seed=seed, start_s=start_s, n=n), slo=Slo(p95_ms=100))


def test_buckets_alone_are_enough() -> None:
    outcome = judge(with_buckets(80, 100, seed=1), with_buckets(30, 100, seed=2, start_s=100))
    assert (outcome.verdict, outcome.resolved) == ("improved", True)
    assert outcome.method.endswith("buckets")
    assert outcome.p95_after_ms == pytest.approx(30 * math.exp(0.5 * 1.645), rel=0.25)


def test_thin_buckets_are_joined_until_a_point_rests_on_enough_requests() -> None:
    outcome = judge(with_buckets(80, 10, seed=1, n=40), with_buckets(30, 10, seed=2, start_s=100, n=40))
    assert outcome.samples_after == 10
    thin = judge(with_buckets(80, 10, seed=1), with_buckets(30, 10, seed=2, start_s=100))
    assert thin.verdict == "inconclusive"


def test_beyond_the_last_bucket_nothing_is_resolved() -> None:
    outcome = judge(with_buckets(80, 100, seed=1), with_buckets(5000, 100, seed=2, start_s=100))
    assert (outcome.verdict, outcome.resolved) == ("worse", False)


def test_the_same_evidence_gives_the_same_outcome() -> None:
    before, after = evidence(noisy(200, seed=1)), evidence(noisy(60, seed=2), start_s=600)
    assert judge(before, after) == judge(before, after)


def test_an_unknown_method_is_named_with_the_known_ones() -> None:
    assert list(REGISTRY) == sorted(REGISTRY)
    with pytest.raises(ConfigError, match=r"'t_test'.*before_after"):
        get("t_test")


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="interval_level"):
        VerificationSettings(confidence=0.8)


@pytest.mark.parametrize(
    ("after_ms", "unhelped_ms", "verdict"),
    [
        pytest.param(280, None, "unchanged", id="nothing grew: as before is no help"),
        pytest.param(280, 1500.0, "improved", id="as before, where nothing would have led to five times as much"),
        pytest.param(400, 2000.0, "improved", id="over what it was, and far below what it would be"),
        pytest.param(1500, 1500.0, "inconclusive", id="what nothing would have led to anyway is no help"),
        pytest.param(1200, 1500.0, "inconclusive", id="a fifth below a forecast is within its error"),
    ],
)
def test_a_trouble_that_grows_is_compared_with_what_nothing_would_have_led_to(after_ms, unhelped_ms, verdict) -> None:
    before = evidence(noisy(280, seed=1), qps=100.0, expected_p95_ms=280.0)
    known = {"qps": 100.0, "expected_p95_ms": 280.0, "unhelped_p95_ms": unhelped_ms}
    after = evidence(noisy(after_ms, seed=2), start_s=600, **known)
    outcome = judge(before, after)
    assert outcome.verdict == verdict
    assert ("grew slower" in outcome.reason) == (unhelped_ms is not None)


@pytest.mark.parametrize("floor", [0.0, 0.01])
@pytest.mark.parametrize("history", [None, 100.0, 41.3], ids=["no history", "flat history", "another flat history"])
@pytest.mark.parametrize("counts", [(1, 1), (2, 2), (15, 1), (2, 15), (3, 3), (3, 15), (15, 15)], ids=str)
@pytest.mark.parametrize("levels", [(41.3, 41.3), (100.0, 100.0), (100.0, 80.0)], ids=str)
def test_a_flat_or_short_series_gives_an_outcome_that_the_ledger_can_read(
    levels: tuple[float, float], counts: tuple[int, int], history: float | None, floor: float
) -> None:
    settings = VerificationSettings(min_points=3, noise_floor=floor)
    sides = [np.where(np.arange(N) < count, level, np.nan) for level, count in zip(levels, counts, strict=True)]
    days = None
    if history is not None:
        span = Span(-STEP_S * 239, STEP_S * (N - 1), STEP_S)
        days = MetricWindow("ranker", span, {"p95_ms": np.full(span.points, history)})
    before, after = evidence(sides[0], history=days), evidence(sides[1], start_s=600)
    outcome = BeforeAfterVerifier(settings).judge(a_plan(), before, after)
    assert Outcome.model_validate_json(outcome.model_dump_json()) == outcome
    if min(counts) < 3:
        assert outcome.verdict == "inconclusive" and outcome.effect is None
    else:
        assert outcome.effect is not None
        assert outcome.effect.low <= outcome.effect.value <= outcome.effect.high < math.inf
        assert outcome.effect.value == pytest.approx(levels[1] / levels[0])
