"""Two sides compared: what differs is found, what is equal is not called different, and what cannot be told says so."""

from __future__ import annotations

import os

import numpy as np
import pytest

from detection.model import MetricWindow, Span
from tuning.cost import PER_1000
from tuning.verification.comparison import compare, missing, worst
from tuning.verification.settings import VerificationSettings

SETTINGS = VerificationSettings()
STEP_S = 60.0


def ar1(rng, n, phi, sigma):
    noise = np.empty(n)
    noise[0] = rng.normal() * sigma
    for i in range(1, n):
        noise[i] = phi * noise[i - 1] + rng.normal() * sigma * np.sqrt(1 - phi**2)
    return noise


def side(seed, *, start_s=0.0, n=60, p95=100.0, qps=50.0, errors=0.001, phi=0.3, sigma=0.1, shared=None, **more):
    """A window of n points a minute apart. shared: a course of log latency that both sides have."""
    rng = np.random.default_rng(seed)
    common = 0.0 if shared is None else shared
    values = {
        "p50_ms": 0.4 * p95 * np.exp(ar1(rng, n, phi, sigma) + common),
        "p95_ms": p95 * np.exp(ar1(rng, n, phi, sigma) + common),
        "p99_ms": 1.6 * p95 * np.exp(ar1(rng, n, phi, 1.5 * sigma) + common),
        "qps": qps * np.exp(ar1(rng, n, phi, 0.05)),
        "error_rate": np.clip(errors + rng.normal(size=n) * 0.0005, 0, 1),
    }
    values.update({name: np.full(n, v) if np.isscalar(v) else v for name, v in more.items()})
    span = Span(start_s, start_s + (n - 1) * STEP_S, STEP_S)
    return MetricWindow("ranker", span, values, "histogram", bounds_ms=(10.0, 100.0, 1000.0))


def line(found, signal):
    return next(one for one in found.lines if one.signal == signal)


@pytest.mark.parametrize("start_s", [0.0, 36_000.0])
def test_a_version_that_is_2_9_times_slower_is_worse_and_its_interval_holds_the_truth(start_s):
    found = compare(side(1), side(2, start_s=start_s, p95=290.0), SETTINGS)
    p95 = line(found, "p95_ms")
    assert found.side_by_side is (start_s == 0.0)
    assert p95.verdict == "worse" and p95.low < 2.9 < p95.high
    assert p95.a == pytest.approx(100, rel=0.1) and p95.b == pytest.approx(290, rel=0.1)
    assert found.verdict == "different" and worst(found.lines).signal in ("p50_ms", "p95_ms", "p99_ms")


def test_a_faster_one_is_better_and_other_signals_are_the_same():
    found = compare(side(1, sigma=0.03), side(2, p95=70.0, sigma=0.03), SETTINGS)
    assert line(found, "p95_ms").verdict == "better"
    assert line(found, "error_rate").verdict == "same"
    assert line(found, "qps").verdict == "same"


def test_more_errors_are_worse_by_a_difference_in_points():
    found = line(compare(side(1), side(2, errors=0.05), SETTINGS), "error_rate")
    assert found.verdict == "worse" and not found.ratio
    assert found.effect == pytest.approx(0.049, abs=0.002)


def test_what_happens_to_both_at_the_same_time_cancels():
    wave = 0.8 * np.sin(np.arange(60) / 9.0)
    together = compare(side(1, shared=wave, sigma=0.03), side(2, shared=wave, p95=120.0, sigma=0.03), SETTINGS)
    apart = compare(
        side(1, shared=wave, sigma=0.03), side(2, start_s=36_000.0, shared=wave, p95=120.0, sigma=0.03), SETTINGS
    )
    assert line(together, "p95_ms").verdict == "worse"
    width = [line(found, "p95_ms").high / line(found, "p95_ms").low for found in (together, apart)]
    assert width[0] < 1.2 < width[1]


def test_another_load_at_another_time_explains_a_latency_and_nothing_else():
    found = compare(side(1), side(2, start_s=36_000.0, p95=250.0, qps=150.0, errors=0.05), SETTINGS)
    p95 = line(found, "p95_ms")
    assert p95.verdict == "cannot tell" and "the load differs by +" in p95.reason
    assert line(found, "error_rate").verdict == "worse"
    assert any("another load" in note for note in found.notes)


def test_too_few_points_cannot_tell():
    found = compare(side(1, n=5), side(2, n=5, p95=500.0), SETTINGS)
    assert {one.verdict for one in found.lines} == {"cannot tell"} and found.verdict == "cannot tell"
    assert "5 points at the same times, 8 are needed" in line(found, "p95_ms").reason


def test_gaps_and_zeros_are_no_points():
    values = np.full(60, np.nan)
    values[:4] = 100.0
    values[4:20] = 0.0
    found = line(compare(side(1), side(2, p95_ms=values), SETTINGS), "p95_ms")
    assert found.verdict == "cannot tell" and "4 points" in found.reason


def test_a_signal_of_one_side_only_is_named_and_left_out():
    one, other = side(1, accuracy=0.9), side(2)
    found = compare(one, other, SETTINGS)
    assert missing(one, other) == {"accuracy": "B"}
    assert all(row.signal != "accuracy" for row in found.lines)
    assert any("B has no accuracy" in note for note in found.notes)


def test_a_percentile_beyond_the_last_bucket_is_named():
    found = compare(side(1), side(2, p95_ms=1000.0), SETTINGS)
    assert any("last bucket (1000 ms) in 100%" in note for note in found.notes)


def test_cost_is_a_line_of_its_own():
    prices = (PER_1000, np.full(60, 0.02), np.full(60, 0.03))
    found = line(compare(side(1), side(2), SETTINGS, costs=[prices]), "cost_per_1000")
    assert found.verdict == "worse" and found.effect == pytest.approx(1.5)


PAIRS, FIRST_PAIR = int(os.environ.get("SLOTUNE_COMPARE_PAIRS", "200")), 250_000
"""How many pairs of equal sides a case compares; their seeds are none that anything was chosen on."""


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.7])
@pytest.mark.parametrize("start_s", [0.0, 36_000.0], ids=["side by side", "one after the other"])
def test_equal_versions_are_hardly_ever_called_different(phi, start_s):
    called = sum(
        compare(side(2 * k, phi=phi), side(2 * k + 1, phi=phi, start_s=start_s), SETTINGS).verdict == "different"
        for k in range(FIRST_PAIR, FIRST_PAIR + PAIRS)
    )
    print(f"{called} of {PAIRS} pairs of equal versions are called different ({called / PAIRS:.2%})")
    # 3 % at most, by more than three standard errors of so many pairs
    assert called <= 0.03 * PAIRS + 3 * (0.03 * 0.97 * PAIRS) ** 0.5
