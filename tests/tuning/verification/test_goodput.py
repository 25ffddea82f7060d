"""Answers in time per second: from histograms and from percentiles, and what a fall or a rise of them says."""

from __future__ import annotations

import numpy as np
import pytest

from detection.model import BucketWindow, MetricWindow, Slo, Span
from tuning.ports import Evidence
from tuning.verification import goodput

SPAN = Span(0.0, 290.0, 10.0)


def side(*, qps: float = 100.0, p50: float | None = None, p95: float | None = None, counts=None, limit_ms: float = 100.0):
    values = {"qps": np.full(SPAN.points, qps)}
    if p50 is not None:
        values["p50_ms"] = np.full(SPAN.points, p50)
    if p95 is not None:
        values["p95_ms"] = np.full(SPAN.points, p95)
    buckets = None
    if counts is not None:
        upper = np.array([50.0, 100.0, 200.0, np.inf])
        buckets = BucketWindow("ranker", SPAN, upper, np.tile(np.array(counts, dtype=float), (SPAN.points, 1)))
    return Evidence(MetricWindow("ranker", SPAN, values, "histogram"), buckets=buckets, slo=Slo(p95_ms=limit_ms))


@pytest.mark.parametrize(
    ("limit_ms", "share"), [(50.0, 0.6), (100.0, 0.8), (150.0, 0.85), (200.0, 0.9), (25.0, 0.3), (1e6, 1.0)]
)
def test_a_histogram_is_cut_at_the_limit(limit_ms, share):
    found = goodput.share_within(side(counts=[60, 20, 10, 10], limit_ms=limit_ms))
    # what lies beyond the last edge counts as late, however long that is
    assert found == pytest.approx(min(share, 0.9) if limit_ms > 200 else share)


@pytest.mark.parametrize(("p50", "p95", "share"), [(100.0, 300.0, 0.5), (20.0, 100.0, 0.95), (5000.0, 9000.0, 0.0), (1.0, 1.0, 1.0)])
def test_percentiles_stand_for_a_lognormal(p50, p95, share):
    assert goodput.share_within(side(p50=p50, p95=p95)) == pytest.approx(share, abs=0.002)
    assert goodput.goodput(side(p50=p50, p95=p95, qps=40)) == pytest.approx(40 * share, abs=0.1)


def test_what_is_not_measured_is_not_told():
    assert goodput.share_within(side(p95=80.0)) is None and goodput.goodput(side(p95=80.0)) is None
    assert goodput.share_within(side(p50=np.nan, p95=80.0)) is None
    assert goodput.compared(side(p95=80.0), side(p50=1.0, p95=2.0), 0.2) is None


def test_fewer_in_time_is_a_loss_unless_less_was_asked_for():
    good, late = {"p50": 20.0, "p95": 60.0}, {"p50": 90.0, "p95": 400.0}
    assert not goodput.compared(side(**good), side(**late), 0.2).ok
    fell = goodput.compared(side(**good, qps=100), side(**good, qps=30), 0.2)
    assert fell.ok and goodput.rose(fell, 0.2) == ""
    better = goodput.compared(side(**late), side(**good), 0.2)
    assert better.ok and "in time before" in goodput.rose(better, 0.2)
