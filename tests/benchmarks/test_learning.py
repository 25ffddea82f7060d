"""What the re-ranker's benchmark counts, and from what it lets it learn."""

from __future__ import annotations

import numpy as np

from benchmarks.learning.curve import counted, curve
from benchmarks.learning.heard import Heard, examples
from detection.model import Anomaly

STEP_S = 300.0
STAMPS = STEP_S * np.arange(2 * 288)
EVENTS = ((90_000.0, 91_200.0), (120_000.0, 121_200.0))


def anomaly(at_s: float, seen: int = 1) -> Anomaly:
    return Anomaly(
        id=f"a{at_s}", service="s", signal="value", tier="warn", since_s=at_s, at_s=at_s, observed=1.0, expected_low=None,
        expected_high=None, score=1.5, detectors=("clock",), reason="odd", kinds=("vote",), evidence={"top": 1.5}, seen=seen,
    )  # fmt: skip


def series(*at_s: float) -> Heard:
    said = tuple((at, anomaly(at)) for at in at_s)
    return Heard("s", STAMPS, said, {"family": "f", "group": "g"}, EVENTS, STEP_S, begins_s=43_200.0)


def test_an_alarm_is_a_run_of_flags_and_false_where_it_touches_no_event():
    flags = np.array([3_000.0, 60_000.0, 60_300.0, 61_800.0, 70_000.0 - 100.0, 90_300.0, 91_500.0])
    count = counted([series()], {"s": flags})
    assert (count.events, count.hit) == (2, 1), "what was flagged before the labels begin counts for nothing"
    assert count.false_alarms == 2, "60,000 to 61,800 is one alarm, 69,900 the next; the last one began in an event"
    assert count.days == 422 * STEP_S / 86_400.0


def test_a_curve_goes_from_few_alarms_to_many():
    at = np.array([60_000.0, 90_000.0, 120_000.0, 150_000.0])
    points = curve([series()], {"s": (at, np.array([0.2, 0.9, 0.5, 0.4]))})
    assert [(p.hit, p.false_alarms) for p in points if p.hit + p.false_alarms] == sorted(
        (p.hit, p.false_alarms) for p in points if p.hit + p.false_alarms
    )
    assert (points[-1].hit, points[-1].false_alarms) == (2, 2)
    assert max(p.hit for p in points if not p.false_alarms) == 2


def test_an_incident_is_real_where_it_overlaps_an_event_and_what_nobody_labelled_teaches_nothing():
    found = examples(series(3_000.0, 60_000.0, 60_300.0, 61_500.0, 89_700.0, 90_000.0))
    assert [(one.incident_id, one.real) for one in found] == [
        ("s@60000", False), ("s@60000", False), ("s@61500", False), ("s@89700", True), ("s@89700", True),
    ]  # fmt: skip
