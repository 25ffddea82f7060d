"""A neighbour that comes and goes: what explains windowed means, and what the queue makes of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tuning.planning import whatif
from tuning.planning.phases import Phases, Seen, batches_of, posterior
from tuning.planning.whatif import Lane, simulate

WINDOW_S, BEGINS_S = 20.0, 1000.0


def means(share, ratio, period_s, *, place=0.0, until_s=80.0, fast=1.0):
    """Windowed means every 5 s of batches that a slow phase makes as many of as a fast one, shape (2, k)."""
    fine = np.arange(BEGINS_S - 40.0, BEGINS_S + until_s, 0.05)
    slow = (fine >= BEGINS_S) & ((fine - BEGINS_S + place) % period_s < share * period_s)
    pace = np.where(slow, ratio * fast, fast)
    ends = np.arange(BEGINS_S + 10.0, BEGINS_S + until_s, 5.0)
    return np.array([(end, pace[(fine > end - WINDOW_S) & (fine <= end)].mean()) for end in ends]).T


def variation2(share, ratio):
    """Squared variation of single batches of which a share is `ratio` times as slow."""
    return share * (1 - share) * (ratio - 1) ** 2 / (1 + share * (ratio - 1)) ** 2


def explained(share, ratio, period_s, busy=0.3, **more):
    paces = [means(share, ratio, period_s, place=place, **more) for place in (0.0, 3.7)]
    return posterior(Seen(paces, WINDOW_S, BEGINS_S, 0.06, variation2(share, ratio), busy), 16)


@pytest.mark.parametrize(
    ("share", "ratio", "period_s"), [(0.35, 2.2, 12.0), (0.5, 3.0, 20.0), (0.5, 4.0, 48.0), (0.35, 4.8, 64.0), (0.6, 1.6, 30.0)]
)  # fmt: skip
def test_how_slow_and_how_often_is_found_from_windowed_means(share, ratio, period_s):
    found = explained(share, ratio, period_s)
    low, middle, high = np.quantile([one.ratio for one in found], (0.05, 0.5, 0.95))
    assert middle == pytest.approx(ratio, rel=0.25) and low <= 1.05 * ratio and high >= 0.95 * ratio
    assert np.median([one.share for one in found]) == pytest.approx(share, abs=0.16)


def test_a_long_period_shows_in_the_means():
    assert np.median([one.period_s for one in explained(0.5, 3.0, 48.0)]) == pytest.approx(48.0, rel=0.35)
    assert np.median([one.period_s for one in explained(0.5, 3.0, 8.0)]) < 24.0


def test_what_is_slower_in_between_as_well_is_told_apart():
    paces = [means(0.45, 2.5, 48.0, fast=1.75, place=place) for place in (0.0, 3.7)]
    found = posterior(Seen(paces, WINDOW_S, BEGINS_S, 0.06, variation2(0.45, 2.5), 0.3), 16)
    assert np.median([one.fast for one in found]) == pytest.approx(1.75, rel=0.2)


def test_without_any_mean_nothing_is_explained():
    assert posterior(Seen([], WINDOW_S, BEGINS_S, 0.06, 0.3, 0.5), 16) == ()


def test_the_explanations_come_from_the_mildest_to_the_worst():
    found = explained(0.5, 3.0, 20.0)
    assert len(found) == 16 and [one.slow for one in found] == sorted(one.slow for one in found)


def test_a_slow_phase_that_does_not_carry_its_load_makes_fewer_batches():
    # Never at rest, 3 times as slow for half of the time: a third of the batches of a fast phase that never rests.
    assert batches_of(1.0, np.array(0.5), np.array(3.0)) == pytest.approx(1 / 3)
    # It carries its load: as many as the fast one.
    assert batches_of(0.3, np.array(0.5), np.array(3.0)) == 1.0
    # In between, busy 0.75: the slow half never rests, the fast one half of its time.
    assert batches_of(0.75, np.array(0.5), np.array(3.0)) == pytest.approx(2 / 3)


def test_what_a_server_that_never_rests_takes_is_the_mean_of_both_rates():
    assert Phases(0.5, 3.0, 10.0).sustained == pytest.approx(1.5)
    assert Phases(0.25, 2.0, 10.0, fast=1.4).sustained == pytest.approx(1.6)


def plainly(lane, seed):
    """P95 in ms of one request after the other through a server of alternating speed."""
    phases, free, latencies = lane.phases, 0.0, []
    for came in np.cumsum(np.random.default_rng(seed).exponential(1 / lane.qps, 60_000)):
        start = max(free, came)
        slow = start % phases.period_s < phases.share * phases.period_s
        free = start + lane.alpha_s * phases.fast * (phases.ratio if slow else 1.0)
        latencies.append(free - came)
    return 1e3 * float(np.quantile(latencies, 0.95))


@pytest.mark.parametrize(
    "phases",
    [
        Phases(0.5, 1.5, 8.0),
        Phases(0.35, 4.0, 12.0),
        Phases(0.5, 2.5, 20.0, fast=1.1),
        # Far longer than what is simulated: looked at phase by phase.
        Phases(0.4, 3.0, 300.0),
        Phases(0.5, 1.5, 400.0),
    ],
)
def test_the_queue_of_a_slow_phase_is_worked_off_in_the_next(phases):
    lane = Lane(qps=50.0, cv2=1.0, batch=1, timeout_s=0.0, alpha_s=0.01, beta_s=0.0, spread=0.0, phases=phases)
    found = np.median([
        one.p95_ms
        for one in simulate([whatif.replace(lane, stream=k) for k in range(9)], batches=6000, seed=4, requests=6000)
    ])  # fmt: skip
    assert found == pytest.approx(plainly(lane, 5), rel=0.2)


def test_phases_that_do_not_carry_the_load_together_grow():
    def p95(horizon_s):
        lane = Lane(60.0, 1.0, 1, 0.0, 0.01, 0.0, horizon_s=horizon_s, phases=Phases(0.5, 4.0, 10.0))
        return simulate([lane], batches=500, seed=1)[0].p95_ms

    assert math.isclose(Lane(60.0, 1.0, 1, 0.0, 0.01, 0.0, phases=Phases(0.5, 4.0, 10.0)).capacity, 62.5)
    assert p95(240.0) > 0
    heavy = Lane(90.0, 1.0, 1, 0.0, 0.01, 0.0, horizon_s=120.0, phases=Phases(0.5, 4.0, 10.0))
    assert simulate([heavy], batches=500, seed=1)[0].p95_ms > 30_000
