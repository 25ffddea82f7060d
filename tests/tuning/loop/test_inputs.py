"""What a service is fed, within the loop: checks become signals, name the cause of a hold, and refuse stale calibration."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detection.errors import ConfigError
from detection.inputs import Rows
from detection.model import InputSample
from tests.detection.test_inputs import DAY_S, DAYS, changed, inputs
from tests.fakes.ledger import FakeLedger
from tests.fakes.planning import make_incident, make_observation
from tests.fakes.world import SERVICES, START_S, KeptMails, World, parts
from tests.tuning.planning.test_diagnosis import NOW, REST, SITUATION
from tuning.loop import watch
from tuning.loop.call import with_drift
from tuning.loop.inputs import LASTS_S, check_inputs, last_checked
from tuning.loop.learn import drift_figures, learn_baselines
from tuning.planning import diagnosis as dg
from tuning.planning.settings import PlanningSettings

SAMPLE = SERVICES.replace("mode: act", "mode: act\n    inputs: {sample: /rows, time_column: at, fresh: 2d}")


def rows(drifts: bool) -> Rows:
    """Ten days that end when the world begins."""
    whole = inputs(1)
    whole = Rows(whole.columns, whole.times + START_S - DAYS * DAY_S)
    if not drifts:
        return whole
    newest = whole.times > whole.times.max() - DAY_S
    return changed(whole, x2=whole.columns["x2"] + np.where(newest, 2.0, 0.0))


def loop_on(drifts: bool = True, read=None):
    loop = parts(World(), FakeLedger(), KeptMails(), services=SAMPLE)
    asked = []

    def reader(path, time_column, ignore):
        asked.append((path, time_column, ignore))
        return rows(drifts)

    return dataclasses.replace(loop, inputs=read or reader), asked


def test_the_settings_say_where_the_sample_lies():
    loop, asked = loop_on()
    assert loop.services["ranker"].inputs == InputSample(sample="/rows", time_column="at", fresh_s=2 * DAY_S)
    check_inputs(loop, START_S)
    assert asked == [("/rows", "at", ())]


@pytest.mark.parametrize("drifts", [True, False])
def test_a_drift_is_a_warning_of_the_next_sweep_and_quiet_days_are_none(drifts):
    loop, _ = loop_on(drifts)
    loop.source.world.wait(300)
    now_s = loop.source.world.now_s
    learned = learn_baselines(loop, now_s)
    sweep = watch.detect_anomalies(loop, watch.pull_metrics(loop, now_s))
    incidents = [r.body for r in loop.ledger.find(watch.Query(kinds=("open_incidents",)))]
    assert (sweep.anomalies > 0) == drifts and incidents == []
    watch.open_incidents(loop, sweep)
    found = [r.body for r in loop.ledger.find(watch.Query(kinds=("open_incidents",)))]
    assert [(one["symptom"], one["tier"]) for one in found] == ([("data", "warn")] if drifts else [])
    assert any("the inputs have changed: x2 has drifted" in line for line in learned.drift) == drifts


def test_a_hold_names_the_inputs_as_its_cause_and_another_cause_has_them_beside_it():
    observation = make_observation({"p95_ms": 50.0})
    observation = dataclasses.replace(observation, odd_inputs=("x2 has drifted",))
    situation = dataclasses.replace(SITUATION, now=dataclasses.replace(NOW, **(REST | {"p95_ms": 50.0})))
    quality = dg.diagnose(make_incident("quality"), observation, situation, PlanningSettings())
    assert (quality.cause, quality.curable, quality.evidence) == ("data_drift", False, ("x2 has drifted",))
    slow = dg.diagnose(make_incident(), dataclasses.replace(make_observation(), odd_inputs=("x2 has drifted",)),
                       SITUATION, PlanningSettings())  # fmt: skip
    assert slow.cause != "data_drift" and slow.evidence[-1] == "beside it, x2 has drifted"


def test_calibration_data_from_before_the_drift_are_told_of_it():
    loop, _ = loop_on()
    learn_baselines(loop, START_S)
    service = loop.services["ranker"]
    lever = service.levers["batch_size"].model_copy(update={"name": "precision"})
    service = service.model_copy(update={"levers": {"precision": lever}})
    told = with_drift(service, drift_figures(loop.ledger)).levers["precision"].options["drift"]
    assert told["psi"] > told["psi_limit"] and told["at_s"] == START_S and "x2 has drifted" in told["reason"]


def test_a_sample_that_cannot_be_read_is_named_and_says_nothing(caplog):
    def refuses(*_):
        raise ConfigError("there is no such file or folder of inputs", where="/rows")

    loop, _ = loop_on(read=refuses)
    found = check_inputs(loop, START_S)["ranker"]
    assert found.ratios == {} and "/rows" in found.said[0] and "/rows" in caplog.text


def test_a_check_is_known_for_some_hours():
    loop, _ = loop_on()
    check_inputs(loop, START_S)
    assert last_checked(loop.ledger, START_S + LASTS_S)["ranker"].odd
    assert last_checked(loop.ledger, START_S + LASTS_S + 1) == {}
    loop.ledger.put_blob("inputs", b"[1", at_s=START_S)
    assert last_checked(loop.ledger, START_S) == {}
