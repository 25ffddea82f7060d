"""Learning in the loop: baselines leave out what was not normal, latency models come from calm traffic."""

from __future__ import annotations

from tests.fakes.ledger import FakeLedger
from tests.fakes.world import SERVICES, START_S, KeptMails, World, parts
from tuning.loop.learn import learn_baselines, left_out
from tuning.loop.learn_latency import learn_latency
from tuning.loop.observe import latency_model
from tuning.loop.once import run_once
from tuning.planning import latency_model as models
from tuning.query import Query

SHORT = SERVICES.replace(
    "detection: {lookback: 10m,", "detection: {lookback: 10m, history: 1h, history_step: 60s, min_history: 5m,"
)


def test_incidents_and_changes_are_left_out_of_the_history():
    world, ledger = World(qps=lambda t: 60.0 if not 120 < t < 400 else 180.0), FakeLedger()
    loop = parts(world, ledger, KeptMails(), SHORT)
    world.wait(60)
    while world.now_s < START_S + 900:
        run_once(loop, world.now, world.wait_until)
        world.wait(15)
    spans = left_out(loop, world.now_s)["ranker"]
    assert any(start <= START_S + 130 <= end for start, end in spans)
    learned = learn_baselines(loop, world.now_s)
    assert learned.services == 1 and learned.abstained == {}


def test_a_service_without_history_is_named_with_the_reason():
    world, ledger = World(), FakeLedger()
    learned = learn_baselines(parts(world, ledger, KeptMails(), SHORT), world.now_s)
    assert learned.services == 0 and "ranker" in learned.abstained


def test_the_latency_line_is_learned_from_calm_traffic_and_kept():
    world, ledger = World(qps=lambda t: 40.0 + 40.0 * (t // 100 % 3), alpha_ms=8.0, beta_ms=0.5), FakeLedger()
    world.batch_size = 8
    loop = parts(world, ledger, KeptMails(), SHORT)
    world.wait(900)
    assert learn_latency(loop, world.now_s) == 1
    kept = models.load(latency_model(loop, loop.service("ranker")))[models.key("", "")]
    assert kept.known and abs(kept.predict(1.0)[0] - 12.0) < 1.5


def test_nothing_is_learned_from_a_service_in_trouble():
    world, ledger = World(qps=lambda t: 60.0 if t < 120 else 180.0), FakeLedger()
    loop = parts(world, ledger, KeptMails(), SHORT.replace("mode: act", "mode: observe"))
    world.wait(200)
    run_once(loop, world.now, world.wait_until)
    assert learn_latency(loop, world.now_s) == 0


def test_damaged_baselines_are_none_and_are_learned_again():
    from tuning.loop.watch import BASELINES, stored_baselines

    world, ledger = World(), FakeLedger()
    loop = parts(world, ledger, KeptMails(), SHORT)
    ledger.put_blob(BASELINES, b"not an archive", at_s=0.0)
    assert stored_baselines(ledger) is None
    world.wait(900)
    assert learn_baselines(loop, world.now_s).services == 1
    assert stored_baselines(ledger) is not None


def test_a_signal_that_left_its_own_past_is_a_line_in_the_review_and_no_more():
    import numpy as np

    from detection.model import MetricWindow, Span
    from tuning.loop.learn import drifted

    span = Span(0.0, 8 * 86400.0 - 300.0, 300.0)
    rng = np.random.default_rng(0)
    steady = rng.normal(100.0, 5.0, span.points)
    moved = np.where(span.times() < 6 * 86400.0, steady, steady * 3)
    windows = {n: MetricWindow(n, span, {"qps": v}) for n, v in (("moved", moved), ("steady", steady))}
    assert [drift.service for drift in drifted(windows)] == ["moved"]


def test_a_stress_test_is_no_normal_traffic_and_teaches_the_latency_line():
    """Left out of what is normal from its beginning to its end, or to the latest that it can have had; the line learns
    from it where the same version was served all the time."""
    from detection.model import Span
    from tuning.loop.learn_latency import learn_from, served
    from tuning.stressed import stress_record, stressed, under_way

    world, ledger = World(qps=lambda t: 20.0 + t / 4, alpha_ms=8.0, beta_ms=0.5), FakeLedger()
    world.batch_size = 8
    loop = parts(world, ledger, KeptMails(), SHORT)
    service, before = loop.service("ranker"), served(loop, loop.service("ranker"))
    world.wait(300)
    ledger.put(stress_record("ranker", START_S + 10.0, START_S + 900.0, "intent", {}))
    rows = ledger.find(Query(kinds=("stress",)))
    assert stressed(rows) == {"ranker": [(START_S + 10.0, START_S + 900.0)]}
    assert under_way(rows, START_S + 500.0) is not None and under_way(rows, START_S + 901.0) is None
    ledger.put(stress_record("ranker", START_S + 10.0, START_S + 300.0, "result", {}))
    assert left_out(loop, world.now_s)["ranker"] == [(START_S + 10.0, START_S + 300.0)]
    assert under_way(ledger.find(Query(kinds=("stress",))), START_S + 100.0) is None
    span = Span(START_S + 10.0, START_S + 300.0, 1.0)
    assert learn_from(loop, service, span, ("1", "fp32")) is not None and latency_model(loop, service) is None
    assert learn_from(loop, service, span, None) is not None
    assert learn_from(loop, service, span, before) is None
    assert models.load(latency_model(loop, service))[models.key("", "")].known
    assert "not there" in (learn_from(loop, service, Span(10.0, 20.0, 1.0), before) or "")
