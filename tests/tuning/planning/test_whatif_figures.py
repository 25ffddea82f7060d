"""What the what-if answers, lane by lane, in figures: the simulation is deterministic, so they may not move."""

from __future__ import annotations

import numpy as np
import pytest

from tuning.planning.whatif import Lane, arrivals, fluid, mix, queued, simulate, split_cv2

FIGURES = ("p50_ms", "p95_ms", "mean_ms", "queue_ms", "busy", "noise")
BATCHED = {"batch": 8, "timeout_s": 0.02, "alpha_s": 0.008, "beta_s": 0.0005}
LANES = {
    "one row at a time": (
        Lane(90, 1.0, 1, 0.0, 0.008, 0.0005, 0.2),
        (16.1816, 54.5011, 21.3095, 12.8212, 0.7847, 0.036),
    ),
    "another stretch of the arrivals": (
        Lane(300, 1.0, **BATCHED, spread=0.2, stream=1),
        (21.0335, 31.9562, 21.2692, 9.7181, 0.5372, 0.0029),
    ),
    "smooth arrivals that wait for their batch": (
        Lane(60, 0.3, **BATCHED, spread=0.05),
        (28.2164, 29.5916, 23.1123, 14.1363, 0.2909, 0.0004),
    ),
    "bursts, and batches that vary": (
        Lane(300, 6.0, 16, 0.004, 0.008, 0.0005, 0.4),
        (15.5723, 31.8141, 16.9692, 5.9131, 0.6947, 0.0202),
    ),
    "just over its capacity": (
        Lane(118, 1, 1, 0, 0.008, 0.0005, 0.1),
        (1297.7377, 1378.7377, 1297.7377, 1289.2377, 1.0, 0.2),
    ),
    "far over it, with a backlog": (
        Lane(200, 1, 1, 0, 0.008, 0.0005, 0.1, backlog=50, horizon_s=90),
        (43175.0885, 62202.5885, 43175.0885, 43166.5885, 1.0, 0.2),
    ),
}


@pytest.mark.parametrize("name", LANES)
def test_the_figures_of_a_lane(name):
    _, expected = LANES[name]
    together = simulate([lane for lane, _ in LANES.values()], batches=400, seed=5, requests=1600)
    found = together[list(LANES).index(name)]
    assert [getattr(found, figure) for figure in FIGURES] == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(("share", "steady"), [(0.984, True), (0.986, False)])
def test_up_to_98_5_percent_a_steady_state_is_simulated(share, steady):
    lane = Lane(share * 100.0, 1.0, 1, 0.0, 0.01, 0.0, 0.1)
    found = simulate([lane], batches=300, seed=1)[0]
    assert (found.noise != 0.2) is steady


@pytest.mark.parametrize(
    ("backlog", "qps", "horizon_s", "p95", "p50"),
    [
        # 4 rows take 34 ms: 117.6/s. The queue grows by 82.4/s for 90 s on top of 50; the last minute waited for it.
        (50.0, 200.0, 90.0, 62253.7975, 43226.2975),
        (50.0, 100.0, 90.0, 1353.7975, 1226.2975),
        # No horizon: the look is now, and the backlog waits in front.
        (50.0, 200.0, 0.0, 476.0, 476.0),
    ],
)
def test_the_fluid_limit(backlog, qps, horizon_s, p95, p50):
    found = fluid(Lane(qps, 1, 4, 0, 0.03, 0.001, 0.1, backlog=backlog, horizon_s=horizon_s))
    assert found.p95_ms == pytest.approx(p95, rel=1e-4)
    assert found.p50_ms == pytest.approx(p50, rel=1e-4)
    assert found.queue_ms == pytest.approx(found.mean_ms - 34.0)


def test_a_queue_that_drains_waits_from_all_of_it_to_nothing():
    found = queued(Lane(20, 1, 4, 0, 0.03, 0.001, 0.1), np.linspace(0.0, 2.0, 101))
    assert [getattr(found, figure) for figure in FIGURES] == pytest.approx([1051, 1951, 1051, 1017, 1.0, 0.2])


def test_a_mix_is_weighted_by_its_shares():
    one, other = simulate([lane for lane, _ in list(LANES.values())[:2]], batches=400, seed=5, requests=1600)
    found = mix([(0.75, one), (0.25, other)])
    expected = (17.9361, 50.7615, 21.2994, 12.0454, 0.7228, 0.036)
    assert [getattr(found, figure) for figure in FIGURES] == pytest.approx(expected, rel=1e-3)
    assert mix([(1.0, one)]) is one


@pytest.mark.parametrize(("cv2", "replicas", "each"), [(4.0, 3, 2.0), (4.0, 0.5, 4.0), (1.0, 7, 1.0), (0.4, 2, 0.7)])
def test_a_stream_that_is_split_comes_nearer_to_poisson(cv2, replicas, each):
    assert split_cv2(cv2, replicas) == pytest.approx(each)


def test_capacity_and_load():
    lane = Lane(qps=50.0, cv2=1.0, batch=4, timeout_s=0.0, alpha_s=0.03, beta_s=0.0025)
    assert (lane.capacity, lane.load) == (pytest.approx(100.0), pytest.approx(0.5))


@pytest.mark.parametrize(("cv2", "first"), [(1.0, 0.22959), (0.5, 0.8556)])
def test_the_stream_of_arrivals_is_the_seeds(cv2, first):
    found = arrivals(1000, cv2, 11)
    assert found[-1] == pytest.approx(1000, rel=0.2)
    assert np.all(np.diff(found) >= 0)
    assert found[0] == pytest.approx(first, abs=1e-3)
