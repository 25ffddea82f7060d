"""What the benchmark of stress tests counts, and that its queues are the ones it says."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.stress.__main__ import Queue, Row, figures


def row(truth: float, knee: float | None, low: float | None, high: float | None) -> Row:
    return Row("x", 1, truth, knee, low, high, 9)


def test_an_interval_holds_the_truth_where_its_own_side_reaches_it():
    assert row(100.0, 100.0, 90.0, 110.0).miss == 0.0
    assert row(110.0, 100.0, 90.0, 121.0).miss == pytest.approx(0.5)
    assert row(80.0, 100.0, 90.0, 200.0).miss > 2
    assert row(101.0, 100.0, 90.0, 100.0).miss == float("inf")
    assert row(100.0, None, 0.0, 45.0).miss is None


def test_figures_count_what_held_and_what_width_would_do():
    rows = [row(100.0, 100.0, 90.0, 110.0)] * 8 + [row(80.0, 100.0, 90.0, 110.0), row(100.0, None, 0.0, 45.0)]
    found = figures(rows)
    assert (found["tests"], found["no_knee"], found["held"]) == (10, 1, 8)
    assert found["worst"] == 0.25 and found["coverage"] == pytest.approx(8 / 9, abs=1e-3) and found["bias"] > 0


def test_a_queue_waits_as_pollaczek_and_khinchine_say():
    """Mean wait of M/G/1: rho s (1 + cv^2) / 2 (1 - rho). 400,000 requests at 60 %, within 5 %."""
    for cv in (0.0, 1.0):
        queue = Queue("x", 0.02, cv, 100.0)
        seen = queue.seen(30.0, 400_000, np.random.default_rng(2))
        wait_ms = 0.6 * 20.0 * (1 + cv**2) / (2 * 0.4)
        assert float(seen.latency_ms.mean()) == pytest.approx(20.0 + wait_ms, rel=0.05)
