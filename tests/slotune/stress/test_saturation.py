"""What ran out first, from signals at the ends of steps."""

from __future__ import annotations

import numpy as np

from detection.model import MetricWindow, Span
from slotune.stress.model import Step
from slotune.stress.saturation import saturated
from tuning.model import Interval

P95 = {"p95_ms": Interval(value=50, low=40, high=60)}


def steps(*rates: float) -> list[Step]:
    return [
        Step(rate, rate, rate, 100.0 + 20 * k, 120.0 + 20 * k, 300, 20.0, 80.0, P95, 0.0, 0.5, 0.1, "met")
        for k, rate in enumerate(rates)
    ]


def window(**levels: list[float]) -> MetricWindow:
    """A level for each step of 20 s."""
    span = Span(100.0, 100.0 + 20 * len(next(iter(levels.values()))), 1.0)
    place = np.minimum((span.times() - 100.5) // 20, len(next(iter(levels.values()))) - 1).astype(int).clip(0)
    return MetricWindow("ranker", span, {name: np.array(values)[place] for name, values in levels.items()})


def test_the_first_to_reach_its_limit_is_named_first():
    seen = window(busy=[0.4, 0.7, 0.95, 1.0], rows_per_batch=[2.0, 7.8, 8.0, 8.0], batch_size=[8.0] * 4, queue_depth=[1.0, 2.0, 3.0, 60.0])
    found, untold = saturated(seen, steps(10, 20, 30, 40), None)
    assert [(one.signal, one.at_per_s) for one in found] == [("rows_per_batch", 20), ("busy", 30), ("queue_depth", 40)]
    assert "GPU utilisation" in untold and "requests waiting" not in untold


def test_a_server_that_always_computes_is_at_its_limit_once_its_batches_are_full():
    seen = window(busy=[0.92, 0.97, 1.0], rows_per_batch=[2.0, 5.0, 7.6], batch_size=[8.0] * 3)
    found = saturated(seen, steps(10, 20, 30), None)[0]
    assert {(one.signal, one.at_per_s) for one in found} == {("busy", 30), ("rows_per_batch", 30)}
    unknown = saturated(window(busy=[0.92, 0.97, 1.0]), steps(10, 20, 30), None)[0]
    assert [(one.signal, one.at_per_s) for one in unknown] == [("busy", 10)]


def test_a_batch_of_one_row_is_no_limit_and_a_gap_is_no_value():
    seen = window(busy=[np.nan, np.nan], rows_per_batch=[1.0, 1.0], batch_size=[1.0, 1.0])
    found, untold = saturated(seen, steps(10, 20), None)
    assert found == () and any("computes" in one for one in untold)


def test_replicas_ran_out_only_where_they_grew_to_their_bound():
    grown = window(replicas=[2.0, 3.0, 4.0])
    assert [(one.signal, one.at_per_s) for one in saturated(grown, steps(10, 20, 30), 4)[0]] == [("replicas", 30)]
    assert saturated(grown, steps(10, 20, 30), 6)[0] == ()
    assert saturated(window(replicas=[4.0, 4.0]), steps(10, 20), 4)[0] == ()
