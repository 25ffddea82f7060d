"""The week behind the look-back reaches the planner: kept by learn_baselines, without incidents, read by observe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from detection.model import BucketWindow, Incident, MetricWindow, Service, Span
from tests.fakes.ledger import FakeLedger
from tests.fakes.world import SERVICES, START_S, KeptMails, World, parts
from tuning.loop.learn import learn_baselines
from tuning.loop.observe import history_key, observe
from tuning.model import Record
from tuning.planning import engines
from tuning.planning.settings import PlanningSettings

WEEKLY = SERVICES.replace("lookback: 10m,", "lookback: 10m, history: 7d, history_step: 5m, min_history: 5m,")
NOW_S = START_S + 8 * 86400.0
SETTINGS = PlanningSettings(rate_window_s=15, verify_window_s=600)


class Recorded:
    """A source whose load doubles within an hour from NOW_S on, falls back an hour before it, every day; batches take 20 ms."""

    asked: list[tuple[tuple[str, ...], tuple[str, ...], Span]]

    def __init__(self) -> None:
        self.asked = []

    @staticmethod
    def qps(times: np.ndarray) -> np.ndarray:
        hour = (times - NOW_S) % 86400.0 / 3600.0
        return 100.0 * (1 + np.clip(np.where(hour > 23, hour - 24, hour), 0, 1))

    def read(self, services: Sequence[Service], signals: Sequence[str], span: Span) -> Mapping[str, MetricWindow]:
        self.asked.append((tuple(s.name for s in services), tuple(signals), span))
        times = span.times()
        every = {"qps": self.qps(times), "p95_ms": np.full(times.size, 40.0), "batch_ms": np.full(times.size, 20.0),
                 "rows_per_batch": 1.0 + times % 7, "batch_cv2": np.full(times.size, 0.04),
                 "replicas": np.full(times.size, 2.0), "busy": np.full(times.size, 0.5)}  # fmt: skip
        return {s.name: MetricWindow(s.name, span, {k: v for k, v in every.items() if k in signals}) for s in services}

    def read_replicas(
        self, services: Sequence[Service], signals: Sequence[str], span: Span
    ) -> Mapping[str, Mapping[str, MetricWindow]]:
        return {}

    def read_buckets(self, services: Sequence[Service], span: Span) -> Mapping[str, BucketWindow]:
        return {}


def loop_of(source: Recorded):
    ledger = FakeLedger()
    return replace(parts(World(), ledger, KeptMails(), WEEKLY), source=source, ledger=ledger)


def incident(opened_at_s: float) -> Incident:
    return Incident(id="i", service="ranker", symptom="latency", tier="act", severity="critical",
                    opened_at_s=opened_at_s, detected_at_s=NOW_S, signals=(), anomalies=(), reason="slow")  # fmt: skip


def test_before_anything_was_kept_there_is_no_history():
    loop = loop_of(Recorded())
    assert observe(loop, loop.service("ranker"), NOW_S).history is None


def test_one_query_for_all_services_feeds_every_observation_and_an_incident_costs_no_long_one():
    source = Recorded()
    loop = loop_of(source)
    learn_baselines(loop, NOW_S - 600)
    assert len([signals for _, signals, _ in source.asked if "batch_cv2" in signals]) == 1
    asked = len(source.asked)
    found = observe(loop, loop.service("ranker"), NOW_S).history
    assert found is not None and found.span.step_s == 300.0
    assert found.span.end_s - found.span.start_s == pytest.approx(7 * 86400.0)
    assert max(span.end_s - span.start_s for _, _, span in source.asked[asked:]) < 86400.0


def test_the_load_of_the_same_time_last_week_tells_what_comes_next():
    loop = loop_of(Recorded())
    learn_baselines(loop, NOW_S - 600)
    seen = observe(loop, loop.service("ranker"), NOW_S)
    engine = engines.get(seen.service.engine)
    rate = engine.assess(incident(NOW_S - 90), seen, SETTINGS, -np.inf).arrivals
    assert rate.method == "same time last week"
    # 630 s on (the look and two rate windows): 17.5 % of the hour's rise.
    assert rate.qps.value == pytest.approx(117.5, rel=0.03)
    without = engine.assess(incident(NOW_S - 90), replace(seen, history=None), SETTINGS, -np.inf).arrivals
    assert without.qps.value < 103


def test_an_incident_that_fills_the_look_back_has_its_baseline_and_its_line_from_the_history():
    loop = loop_of(Recorded())
    learn_baselines(loop, NOW_S - 7200)
    seen = observe(loop, loop.service("ranker"), NOW_S)
    engine = engines.get(seen.service.engine)
    old = incident(seen.window.span.start_s - 600)
    situation = engine.assess(old, seen, SETTINGS, -np.inf)
    assert situation.base.qps == pytest.approx(200.0, rel=0.01) and situation.base.replicas == 2.0
    assert situation.slow == pytest.approx(1.0, abs=0.1)
    assert situation.spread == pytest.approx(0.2)
    blind = engine.assess(old, replace(seen, history=None), SETTINGS, -np.inf)
    assert blind.base.qps is None and blind.slow is None


def test_what_was_an_incident_is_a_gap_in_what_is_kept():
    loop = loop_of(Recorded())
    start_s, end_s = NOW_S - 5 * 3600, NOW_S - 4 * 3600
    body = {"opened_at_s": start_s, "closed": False}
    loop.ledger.put(Record(id="i", kind="open_incidents", service="ranker", incident_id="i", at_s=start_s, body=body))
    loop.ledger.put(Record(id="i:closed", kind="open_incidents", service="ranker", incident_id="i", at_s=end_s,
                           body=body | {"closed": True}))  # fmt: skip
    learn_baselines(loop, NOW_S)
    kept = observe(loop, loop.service("ranker"), NOW_S).history
    during = kept.between(start_s, end_s).values["qps"]
    assert during.size == 13 and np.isnan(during).all()
    assert np.isfinite(kept.between(start_s - 7200, start_s - 300).values["qps"]).all()


def test_a_damaged_history_is_none():
    loop = loop_of(Recorded())
    loop.ledger.put_blob(history_key("ranker"), b"not an archive", at_s=NOW_S)
    assert observe(loop, loop.service("ranker"), NOW_S).history is None
