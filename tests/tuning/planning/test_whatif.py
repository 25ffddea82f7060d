"""The what-if against a plain event-by-event reference, against closed forms, and for its own sanity."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detection.model import FloatArray
from tuning.planning import whatif
from tuning.planning.whatif import Lane, arrivals, simulate


def bounded(
    lane: Lane, stream: FloatArray, factors: FloatArray, queue_limit: float = math.inf
) -> tuple[FloatArray, float]:
    """One lane, plainly: (latencies in seconds of the served requests, rejected share), with a bounded queue.

    stream: arrival times in seconds. A request that finds `queue_limit` waiting is refused. It is the reference that
    `simulate` is tested against.
    """
    times = stream.tolist()
    waiting: list[float] = []
    latencies: list[float] = []
    refused, nxt, free, step = 0, 0, 0.0, 0
    while nxt < len(times) or waiting:
        if not waiting:
            waiting.append(times[nxt])
            nxt += 1
        start = max(free, waiting[0])
        deadline = waiting[0] + lane.timeout_s
        # Take in what arrives until the batch may start: it is full, or its oldest request has waited long enough.
        while nxt < len(times) and (
            times[nxt] <= start or (len(waiting) < lane.batch and times[nxt] <= max(free, deadline))
        ):
            if len(waiting) < queue_limit:
                waiting.append(times[nxt])
                start = max(start, times[nxt]) if len(waiting) <= lane.batch else start
            else:
                refused += 1
            nxt += 1
        if len(waiting) < lane.batch:
            start = max(free, deadline) if nxt < len(times) else max(free, waiting[-1])
        rows = min(len(waiting), lane.batch)
        free = start + (lane.alpha_s + lane.beta_s * rows) * factors[step % len(factors)]
        latencies.extend(free - t for t in waiting[:rows])
        del waiting[:rows]
        step += 1
    return np.array(latencies), refused / max(1, len(times))


@pytest.mark.parametrize(
    "batch, timeout_s, qps",
    [(1, 0.0, 90), (4, 0.005, 200), (8, 0.02, 60), (8, 0.0, 300), (16, 0.01, 600), (32, 0.01, 1000)],
)
def test_it_agrees_with_the_plain_reference(batch, timeout_s, qps):
    lane = Lane(qps=qps, cv2=1.0, batch=batch, timeout_s=timeout_s, alpha_s=0.008, beta_s=0.0005, spread=0.2)
    fast = simulate([lane], batches=2500, seed=3, requests=2500)[0]
    factors = whatif._factors(np.array([0.2]), 2500, 3)[:, 0]
    slow, refused = bounded(lane, arrivals(2500, 1.0, 3) / qps, factors)
    assert refused == 0
    assert fast.p95_ms == pytest.approx(1e3 * np.quantile(slow[250:], 0.95), rel=0.05)


def test_one_server_of_constant_time_is_the_m_d_1_queue():
    # Pollaczek-Khinchine: mean wait = rho * s / (2 (1 - rho)) for Poisson arrivals and constant service.
    lane = Lane(qps=60.0, cv2=1.0, batch=1, timeout_s=0.0, alpha_s=0.01, beta_s=0.0, spread=0.0)
    answer = simulate([lane], batches=12_000, seed=1, requests=12_000)[0]
    assert answer.queue_ms == pytest.approx(0.6 * 10 / (2 * 0.4), rel=0.12)
    assert answer.busy == pytest.approx(0.6, rel=0.03)


def test_large_batches_follow_the_cycle():
    # With no limit on the batch, a batch holds what came during the one before: b = qps (alpha + beta b), so a cycle
    # lasts alpha / (1 - qps beta); a request waits half of one on average and is computed in the next.
    alpha, beta, qps = 0.02, 0.001, 400.0
    lane = Lane(qps=qps, cv2=1.0, batch=1024, timeout_s=0.0, alpha_s=alpha, beta_s=beta, spread=0.0)
    answer = simulate([lane], batches=1500, seed=2, requests=20_000)[0]
    assert answer.mean_ms == pytest.approx(1e3 * 1.5 * alpha / (1 - qps * beta), rel=0.06)


def test_bursts_wait_longer():
    calm, wild = (simulate([Lane(150, cv2, 4, 0.0, 0.015, 0.001)], batches=3000, seed=1)[0] for cv2 in (1.0, 6.0))
    assert wild.p95_ms > 1.5 * calm.p95_ms


@pytest.mark.parametrize("cv2", [0.25, 1.0, 4.0])
def test_the_arrivals_have_the_asked_variation(cv2):
    gaps = np.diff(arrivals(200_000, cv2, 5))
    assert gaps.mean() == pytest.approx(1.0, rel=0.02)
    assert gaps.var() == pytest.approx(cv2, rel=0.06)


def test_an_overloaded_lane_grows_with_its_horizon():
    def p95(horizon_s):
        lane = Lane(qps=150, cv2=1, batch=1, timeout_s=0, alpha_s=0.01, beta_s=0, horizon_s=horizon_s)
        return simulate([lane], batches=500, seed=1)[0].p95_ms

    assert p95(240) > 1.8 * p95(120) > 30_000


def test_a_bounded_queue_refuses_what_it_cannot_hold():
    lane = Lane(qps=200, cv2=1, batch=1, timeout_s=0, alpha_s=0.01, beta_s=0, spread=0.0)
    latencies, refused = bounded(lane, arrivals(20_000, 1.0, 1) / 200, np.ones(1), queue_limit=20)
    assert refused == pytest.approx(0.5, abs=0.03)
    assert latencies.max() <= 0.22


def test_a_slow_replica_among_sound_ones_shows_in_the_mix():
    fast, slow = simulate([Lane(20, 1, 4, 0, 0.02, 0.001), Lane(20, 1, 4, 0, 0.2, 0.001)], batches=2000, seed=1)
    mixed = whatif.mix([(2 / 3, fast), (1 / 3, slow)])
    assert mixed.p50_ms < 3 * fast.p50_ms
    assert mixed.p95_ms > 0.5 * slow.p50_ms
    assert math.isclose(mixed.mean_ms, 2 / 3 * fast.mean_ms + 1 / 3 * slow.mean_ms)


def test_the_same_seed_gives_the_same_answer():
    lanes = [Lane(100, 1, b, 0.005, 0.01, 0.001) for b in (1, 4, 16)]
    one, other = (simulate(lanes, batches=500, seed=9) for _ in range(2))
    assert [a.p95_ms for a in one] == [a.p95_ms for a in other]
