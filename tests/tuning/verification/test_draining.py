"""How long a change settles when a queue stood before it."""

from __future__ import annotations

import numpy as np
import pytest

from tuning.verification.draining import settled

TIMES = np.arange(0.0, 41.0, 1.0)
COMMON = {"settle_s": 20.0, "rate_window_s": 10.0, "floor": 4.0, "bound_s": 320.0}


@pytest.mark.parametrize(
    ("queue", "expected_s"),
    [
        (np.zeros(41), 20.0),
        (np.full(41, 3.0), 20.0),
        (np.maximum(0.0, 100 - 20 * TIMES), 20.0),
        (np.maximum(0.0, 300 - 10 * TIMES), 39.0),
        (np.full(41, 500.0), 20.0),
        (500 + 20 * TIMES, 20.0),
        (np.where(TIMES < 3, 500.0, np.nan), 20.0),
    ],
    ids=["no queue", "hardly one", "gone at once", "gone after 29 s", "stands", "grows", "too few points"],
)
def test_what_is_seen_at_the_end_of_the_planned_wait(queue: np.ndarray, expected_s: float) -> None:
    assert settled(TIMES, queue, **COMMON).settle_s == pytest.approx(expected_s)


@pytest.mark.parametrize(("start", "per_s"), [(2000.0, 20.0), (4000.0, 25.0)])
def test_one_that_is_still_draining_is_extrapolated(start: float, per_s: float) -> None:
    found = settled(TIMES, start - per_s * TIMES, **COMMON)
    assert found.settle_s == pytest.approx((start - 0.05 * start) / per_s + 10.0)
    assert f"{start:.0f} requests waited" in found.reason


def test_the_bound_holds_and_a_noisy_queue_changes_little() -> None:
    assert settled(TIMES, 1e6 - 5000 * TIMES, **{**COMMON, "bound_s": 100.0}).settle_s == 100.0
    noise = np.random.default_rng(3).normal(0, 20, TIMES.size)
    clean, noisy = (settled(TIMES, 2000 - 20 * TIMES + n, **COMMON).settle_s for n in (0.0, noise))
    assert noisy == pytest.approx(clean, rel=0.2)


def test_it_ends_when_it_is_asked_again_and_again() -> None:
    settle_s, asked = 20.0, 0
    while True:
        now = np.arange(0.0, settle_s + 20.0)
        found = settled(now, np.maximum(0.0, 5000 - 15 * now), **{**COMMON, "settle_s": settle_s})
        if found.settle_s <= settle_s:
            break
        settle_s, asked = found.settle_s, asked + 1
    assert asked <= 3 and settle_s == pytest.approx(min(320.0, 4750 / 15 + 10), rel=0.05)
