"""Learning from labels in the loop: evidence in the ledger, a model of it, and sweeps that use it."""

from __future__ import annotations

import numpy as np
import pytest

from detection.model import Anomaly, Incident
from tests.fakes.ledger import FakeLedger
from tests.fakes.world import SERVICES, START_S, KeptMails, World, parts
from tuning.loop import examples
from tuning.loop.once import run_once
from tuning.loop.records import incident_record
from tuning.orders import order, order_record
from tuning.query import Query

NOW_S = 1_800_000_000.0
OFF = SERVICES.replace("detection: {", "detection: {learning: {rerank: false}, ")


def anomaly(number: int, *, seen: int = 1, change: float = 1.0, tier: str = "warn") -> Anomaly:
    at_s = NOW_S + 60.0 * number
    known = {"change": change, "tier_act": float(tier == "act"), "seen": float(seen)}
    return Anomaly.model_validate({
        "id": f"a{number}", "service": f"s{number % 7}", "signal": "qps", "tier": tier, "since_s": at_s, "at_s": at_s,
        "observed": 1.0, "expected_low": 0.0, "expected_high": 0.5, "score": 2.0, "detectors": ("clock",), "reason": "odd",
        "kinds": ("vote",), "evidence": known, "seen": seen,
    })  # fmt: skip


def incident(one: Anomaly) -> Incident:
    return Incident(id=f"i{one.id}", service=one.service, symptom="traffic", tier=one.tier, severity="warning",
                    opened_at_s=one.since_s, detected_at_s=one.at_s, signals=(one.signal,), anomalies=(one,), reason="odd")  # fmt: skip


def told(ledger: FakeLedger, count: int, *, labelled: int | None = None) -> None:
    """`count` warnings with evidence, of which a person called the large changes real."""
    rng = np.random.default_rng(0)
    for number in range(count):
        real = bool(rng.random() < 0.4)
        one = anomaly(number, change=float(rng.normal(4.0 if real else 1.5, 0.6)))
        ledger.put(incident_record(incident(one)))
        examples.keep(ledger, [one], [incident(one)], one.at_s)
        if number < (count if labelled is None else labelled):
            said = order("label", "ann", one.at_s + 9, about=f"ia{number}", label="real" if real else "not_real")
            ledger.put(order_record(said))


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger()


def test_evidence_is_kept_at_the_first_second_fourth_judgement_and_once(ledger):
    for seen in (1, 2, 3, 4, 5, 6, 7, 8, 8):
        one = anomaly(1, seen=seen)
        examples.keep(ledger, [one], [incident(one)], one.at_s)
    rows = ledger.find(Query(kinds=(examples.EVIDENCE,)))
    assert sorted(row.body["evidence"]["seen"] for row in rows) == [1, 2, 4, 8]
    stale = anomaly(1, seen=16)
    examples.keep(ledger, [stale], [incident(stale)], stale.at_s + 60)
    assert len(ledger.find(Query(kinds=(examples.EVIDENCE,)))) == 4


def test_until_there_are_enough_labels_it_says_how_many_are_missing(ledger):
    loop = parts(World(), ledger, KeptMails())
    told(ledger, 50, labelled=40)
    said = examples.learn_ranker(loop, NOW_S + 1e5)
    assert "40 incidents are labelled" in said and "20 more labelled incidents" in said
    assert examples.stands(ledger.get_blob(examples.STATE), loop.settings.detection) == said and examples.judge(loop) is None


def test_enough_labels_make_a_model_once_and_a_sweep_asks_it(ledger):
    loop = parts(World(), ledger, KeptMails())
    told(ledger, 130)
    said = examples.learn_ranker(loop, NOW_S + 1e5)
    assert said.startswith("What model") and "move_tiers" in said and "130 labelled incidents" in said
    assert examples.learn_ranker(loop, NOW_S + 2e5) == said
    (version,) = ledger.find(Query(kinds=(examples.RANKER,)))
    judge = examples.judge(loop)
    assert version.body["used"] and version.body["model"] == judge.ranker.id
    low, high = judge.probabilities([{"change": 1.0, "seen": 1.0}, {"change": 5.0, "seen": 1.0}])
    assert low < 0.4 < 0.6 < high


def test_labels_that_are_taken_back_take_the_model_back(ledger):
    loop = parts(World(), ledger, KeptMails())
    told(ledger, 130)
    examples.learn_ranker(loop, NOW_S + 1e5)
    for number in range(130):
        ledger.put(order_record(order("label", "bob", NOW_S + 5e4, about=f"ia{number}", label="real")))
    assert "15 more of them no real problems" in examples.learn_ranker(loop, NOW_S + 2e5)
    assert examples.judge(loop) is None


def test_switched_off_nothing_is_learned_and_nothing_is_asked(ledger):
    told(ledger, 130)
    examples.learn_ranker(parts(World(), ledger, KeptMails()), NOW_S + 1e5)
    off = parts(World(), ledger, KeptMails(), OFF)
    assert "is off" in examples.learn_ranker(off, NOW_S + 2e5) and examples.judge(off) is None


def test_a_damaged_model_is_passed_over_and_learned_again(ledger):
    loop = parts(World(), ledger, KeptMails())
    told(ledger, 130)
    said = examples.learn_ranker(loop, NOW_S + 1e5)
    ledger.put_blob(examples.RANKER, b"no model", at_s=0.0)
    assert examples.judge(loop) is None
    assert examples.learn_ranker(loop, NOW_S + 2e5) == said and examples.judge(loop) is not None


def incidents_of(settings: str) -> list[tuple[str, float, dict[str, object]]]:
    world, ledger = World(qps=lambda t: 60.0 if t < 120 else 180.0), FakeLedger()
    loop = parts(world, ledger, KeptMails(), settings)
    world.wait(60)
    while world.now_s < START_S + 400:
        run_once(loop, world.now, world.wait_until)
        world.wait(15)
    return [(line.id, line.at_s, line.body) for line in ledger.find(Query(kinds=("open_incidents",)))]


def test_a_cold_start_has_the_same_incidents_as_with_learning_off():
    with_learning = incidents_of(SERVICES)
    assert with_learning and with_learning == incidents_of(OFF)
