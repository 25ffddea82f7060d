"""Which replica is changed first: a table of fleets, and what their peers come to."""

from __future__ import annotations

import numpy as np
import pytest

from detection.model import MetricWindow, Span
from tuning.policies.canary import Choice, choose, pooled

SPAN = Span(0.0, 50.0, 5.0)


def window(p95: float = 100.0, qps: float = 10.0, points: int = 10) -> MetricWindow:
    values = np.full(SPAN.points, np.nan)
    values[:points] = p95
    return MetricWindow("ranker", SPAN, {"p95_ms": values, "qps": np.full(SPAN.points, qps)}, "histogram")


@pytest.mark.parametrize(
    ("endpoints", "windows", "chosen"),
    [
        (
            {"pod-a": "10.0.0.1:8000", "pod-b": "10.0.0.2:8000", "pod-c": "10.0.0.3:8000"},
            {"pod-a": window(qps=30), "pod-b": window(qps=10), "pod-c": window(qps=1)},
            Choice("pod-b", "pod-b", ("pod-a", "pod-c")),
        ),
        (
            {"one": "10.0.0.1:8000", "two": "10.0.0.2:8000"},
            {"10.0.0.1:8000": window(), "10.0.0.2:8000": window()},
            Choice("one", "10.0.0.1:8000", ("10.0.0.2:8000",)),
        ),
        (
            {"slotune_ranker": "demo-1:8000", "slotune_ranker_2": "demo-2:8000"},
            {"demo-1": window(), "demo-2": window()},
            Choice("slotune_ranker", "demo-1", ("demo-2",)),
        ),
        (
            {"one": "10.0.0.1:8000", "two": "10.0.0.2:8000"},
            {"10.0.0.1:8002": window(), "10.0.0.2:8002": window()},
            Choice("one", "10.0.0.1:8002", ("10.0.0.2:8002",)),
        ),
        (
            {"a": "h:1", "b": "h:2", "c": "h:3"},
            {"a": window(points=2), "b": window(), "c": window()},
            Choice("b", "b", ("c",)),
        ),
    ],
    ids=[
        "the most typical traffic",
        "by address",
        "by host",
        "metrics on another port",
        "one that just started is no peer",
    ],
)
def test_chooses(endpoints: dict[str, str], windows: dict[str, MetricWindow], chosen: Choice) -> None:
    assert choose(endpoints, windows) == chosen


@pytest.mark.parametrize(
    ("endpoints", "windows", "says"),
    [
        ({"a": "h:1"}, {"a": window()}, "only one replica"),
        ({"a": "h:1", "b": "h:2"}, {}, "only 0 of 2"),
        ({"a": "h:1", "b": "h:2"}, {"h": window()}, "only 0 of 2"),
        ({"a": "h:1", "b": "h:2"}, {"h:3": window(), "h:4": window()}, "only 0 of 2"),
        ({"a": "h:1", "b": "i:1"}, {"h:3": window(), "h:4": window(), "i:3": window()}, "only 1 of 2"),
        ({"a": "h:1", "b": "i:2"}, {"a": window(), "b": window(points=0)}, "only 1 of 2"),
        ({"a": "h:1", "b": "i:2"}, {"a": window(p95=0.0), "b": window(p95=0.0)}, "only 0 of 2"),
    ],
    ids=[
        "alone",
        "no series",
        "one host, two ports",
        "one host, other ports",
        "whose of the two",
        "a silent peer",
        "zero is no latency",
    ],
)
def test_says_why_not(endpoints: dict[str, str], windows: dict[str, MetricWindow], says: str) -> None:
    why = choose(endpoints, windows)
    assert isinstance(why, str) and says in why


def test_traffic_that_nobody_exports_chooses_by_name() -> None:
    silent = {name: MetricWindow("ranker", SPAN, {"p95_ms": np.full(SPAN.points, 5.0)}) for name in ("b", "a")}
    assert choose({"b": "h:1", "a": "i:1"}, silent) == Choice("a", "a", ("b",))


def test_peers_are_their_geometric_mean_and_gaps_stay_gaps() -> None:
    one, other = window(p95=100.0, points=6), window(p95=400.0, points=4)
    both = pooled("ranker", SPAN, [one, other])
    assert both.values["p95_ms"][:4] == pytest.approx(200.0)
    assert both.values["p95_ms"][4:6] == pytest.approx(100.0)
    assert np.isnan(both.values["p95_ms"][6:]).all()
    assert both.values["qps"] == pytest.approx(10.0)
    assert pooled("ranker", SPAN, []).values == {}


def test_a_latency_under_a_millisecond_is_a_point() -> None:
    chosen = choose({"a": "h:1", "b": "i:1"}, {"a": window(p95=0.5), "b": window(p95=0.5)})
    assert isinstance(chosen, Choice)
