"""Whether something else is to be seen now than when nothing could be done."""

from __future__ import annotations

import numpy as np
import pytest

from detection.model import MetricWindow, Span
from tuning.policies.moved import moved

STEP_S = 10.0
THEN_S, NOW_S = 600.0, 900.0


def window(then: float, now: float, signal: str = "qps", between_s: float = 700.0) -> MetricWindow:
    times = np.arange(0.0, NOW_S + 1, STEP_S)
    return MetricWindow("ranker", Span(0.0, NOW_S, STEP_S), {signal: np.where(times < between_s, then, now)})


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (window(100.0, 130.0), "the load has moved from 100 to 130 since"),
        (window(100.0, 129.0), ""),
        (window(130.0, 100.0), "the load has moved from 130 to 100 since"),
        (window(129.0, 100.0), ""),
        (window(0.0, 5.0), "the load has moved from 0 to 5 since"),
        (window(5.0, 0.0), "the load has moved from 5 to 0 since"),
        (window(0.0, 0.0), ""),
        (window(4.0, 3.0, "replicas"), "the number of ready replicas has moved from 4 to 3 since"),
        (window(100.0, 300.0, "p95_ms"), ""),  # that is the incident itself
        (window(100.0, 300.0, between_s=880.0), ""),  # twenty seconds are no level
        (window(100.0, float("nan")), ""),
        (window(100.0, 200.0, between_s=300.0), ""),  # it had moved before
        (None, ""),
    ],
)
def test_what_has_moved(seen: MetricWindow | None, why: str) -> None:
    assert moved(seen, THEN_S, NOW_S, 0.3) == why


def test_what_the_last_look_has_seen_itself_is_no_news() -> None:
    assert moved(window(100.0, 300.0, between_s=560.0), NOW_S - 59.0, NOW_S, 0.3) == ""
    assert moved(window(100.0, 300.0, between_s=860.0), NOW_S - 60.0, NOW_S, 0.3) != ""
