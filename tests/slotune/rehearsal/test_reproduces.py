"""On the recording of a live run a rehearsal decides what the loop decided: the same plans and verdicts, to the letter."""

from __future__ import annotations

import logging

import pytest

from benchmarks.control.runs import STEP_S
from benchmarks.control.scenarios import END_S, SCENARIOS
from benchmarks.control.source import START_S
from benchmarks.rehearse.live import SETTLED_S, Recorded, live, settings_of
from slotune.rehearsal.counterfactual import Counterfactual, usual
from slotune.rehearsal.drivers import drivers
from slotune.rehearsal.history import from_recording, save
from slotune.rehearsal.loop import rehearse, settings_for

DECISIONS = ("open_incidents", "choose_action", "guard", "hold", "settle", "verify_p95", "keep", "roll_back")


def scenario(name: str):
    return next(s for s in SCENARIOS if s.name == name)


def decisions(records) -> list[tuple[object, ...]]:
    return [
        (r.at_s, r.kind, r.id, r.body) for r in sorted(records, key=lambda r: (r.at_s, r.id)) if r.kind in DECISIONS
    ]


def replay(which, history):
    settings = settings_for(settings_of(which), STEP_S)
    (service,) = settings.service_values()
    window_s = settings.prometheus.rate_window_s
    causes = drivers(history.window, service, window_s)
    world = Counterfactual(service, history, causes, usual(causes, service), window_s, START_S + SETTLED_S)
    done = rehearse(settings, {"simulated": world}, START_S + SETTLED_S, START_S + END_S, lambda _share: None)
    assert done.failures == 0, done.said
    return world, done


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def lost() -> Recorded:
    return live(scenario("one of three replicas lost"), seed=3)


def test_every_decision_of_a_live_run_is_taken_again(lost):
    world, done = replay(scenario("one of three replicas lost"), lost.history)
    assert {r.kind for r in lost.ledger} >= {"choose_action", "verify_p95", "keep"}
    assert decisions(done.records) == decisions(lost.ledger)
    assert not world.departed.any(), "the setting was the recorded one all the time, so that everything is measured"


def test_also_from_the_files_that_it_was_saved_in(lost, tmp_path):
    save(tmp_path, {"simulated": lost.history})
    which = scenario("one of three replicas lost")
    read = from_recording(tmp_path / "simulated.csv")
    _, done = replay(which, read)
    assert decisions(done.records) == decisions(lost.ledger)


def test_with_a_change_of_precision_and_of_replicas():
    which = scenario("only INT8 is left")
    ran = live(which, seed=3)
    _, done = replay(which, ran.history)
    assert any(r.kind == "quantize_int8" for r in ran.ledger)
    assert decisions(done.records) == decisions(ran.ledger)
