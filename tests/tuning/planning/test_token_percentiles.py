"""Percentiles of a language model's times: through the buckets of a histogram, between two levels, with one look's luck."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tuning.planning import token_percentiles as pc

EDGES = (10.0, 25.0, 50.0, 100.0)


def read(values: list[float], weights: list[float], level: float = 0.95) -> float:
    below = np.cumsum(weights) / sum(weights)
    return pc.exported(np.array(values), below, EDGES, level)


@pytest.mark.parametrize(
    ("values", "weights", "shown"),
    [
        # 95 of 96 in the bucket of 10 to 25 ms: 95/96 of the way.
        ([12.0, 40.0], [96.0, 4.0], 10 + 15 * 95 / 96),
        # One of the six in the bucket of 25 to 50 ms.
        ([12.0, 40.0], [94.0, 6.0], 25 + 25 * 1 / 6),
        # Nothing between 25 and 50 ms: the line is drawn in the next bucket that holds something.
        ([12.0, 80.0], [94.0, 6.0], 50 + 50 * 1 / 6),
        # The first bucket begins at 0.
        ([3.0], [1.0], 9.5),
        # What an edge names lies in the bucket that it ends.
        ([25.0], [1.0], 10 + 15 * 0.95),
        # Beyond the last bucket nothing is known but that.
        ([12.0, 400.0], [90.0, 10.0], 100.0),
    ],
)
def test_a_histogram_draws_a_line_between_the_edges(values, weights, shown):
    assert read(values, weights) == pytest.approx(shown)


def test_what_is_read_agrees_with_counts_in_buckets():
    rng = np.random.default_rng(4)
    values = np.sort(rng.lognormal(3.0, 0.7, 5_000))
    shares = np.arange(1, values.size + 1) / values.size
    counts = np.array([(values <= edge).mean() for edge in EDGES])
    k = int(np.searchsorted(counts, 0.9))
    line = EDGES[k - 1] + (EDGES[k] - EDGES[k - 1]) * (0.9 - counts[k - 1]) / (counts[k] - counts[k - 1])
    assert pc.exported(values, shares, EDGES, 0.9) == pytest.approx(line)


def test_single_iterations_scatter_around_what_they_take():
    values, below = pc.scattered(np.array([10.0, 100.0]), np.array([99.0, 1.0]))
    assert values.size == 14 and (np.diff(values) >= 0).all() and below[-1] == 1.0
    assert pc.at(values, below, 0.5) == pytest.approx(10.0, rel=0.01)
    assert 11.0 < pc.at(values, below, 0.95) < 13.0 < 80.0 < pc.at(values, below, 0.995)


def test_a_look_of_few_reads_its_percentile_at_levels_further_apart():
    few, many = pc.levels(0.05, 100.0), pc.levels(0.05, 10_000.0)
    assert few[1] == many[1] == pytest.approx(0.95)
    assert few[0] - few[2] > 5 * (many[0] - many[2]) > 0
    assert min(pc.levels(0.05, 1.0)) >= 0.5


def test_percentiles_of_nothing_and_the_scatter_of_a_short_run():
    assert pc.p95(np.empty(0)) == 1e9
    assert pc.p95(np.arange(101.0)) == pytest.approx(95.0)
    assert pc.noise(np.ones(10), 100.0) == 0.5
    steady, wild = np.full(100, 5.0), np.repeat([1.0, 2.0, 4.0, 8.0], 25)
    assert pc.noise(steady, 100.0) == 0.02 < pc.noise(wild, 100.0) == pytest.approx(
        float(np.std(np.log([1, 2, 4, 8]))) * math.sqrt(25 / 100)
    )
