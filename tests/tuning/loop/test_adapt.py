"""Adapting in the loop: the step is a record, the factor is in the store, and a sweep holds scores against it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from detection import pipeline
from detection.ranker_fitting import Example
from tests.detection.test_pipeline import END_S, SERVICES, SETTINGS, baselines, history, windows  # noqa: F401 (fixtures)
from tests.fakes.ledger import FakeLedger
from tests.fakes.world import SERVICES as YAML
from tests.fakes.world import KeptMails, World, parts
from tuning.loop.adapt import STRICTNESS, adapt, factors, incidents_of, steps_of
from tuning.policies.strictness import DAY_S, STEP
from tuning.query import Query

NOW_S = 1_800_000_000.0


def example(number: int, reach: float, real: bool, service: str = "ranker", **more: float) -> Example:
    return Example(f"i{number}", service, NOW_S - DAY_S, {"act_reach": reach, **more}, real)


KNOWN = [example(n, 1.1, False) for n in range(3)] + [example(n, 3.0, True) for n in range(3, 6)]


def test_a_step_is_a_record_with_its_backtest_and_is_made_once():
    ledger = FakeLedger()
    loop = parts(World(), ledger, KeptMails())
    (step,) = adapt(loop, KNOWN, NOW_S)
    (line,) = ledger.find(Query(kinds=(STRICTNESS,)))
    assert line.service == "ranker" and line.body["before"]["false"] == 3 and line.body["after"]["false"] == 0
    assert factors(ledger, True) == {"ranker": STEP} and factors(ledger, False) == {}
    assert adapt(loop, KNOWN, NOW_S + 3600) == []
    assert steps_of(ledger.find(Query(kinds=(STRICTNESS,), order="written"))) == {"ranker": [step]}


def test_switched_off_the_thresholds_are_as_calibrated_again():
    ledger = FakeLedger()
    adapt(parts(World(), ledger, KeptMails()), KNOWN, NOW_S)
    off = parts(World(), ledger, KeptMails(), YAML.replace("detection: {", "detection: {learning: {adapt: false}, "))
    assert adapt(off, KNOWN, NOW_S + 1) == [] and factors(ledger, True) == {}


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", json.dumps({"ranker": "much", "b": -1}).encode()])
def test_what_makes_no_sense_in_the_store_adapts_nothing(data):
    ledger = FakeLedger()
    ledger.put_blob(STRICTNESS, data, at_s=0.0)
    assert factors(ledger, True) == {}


def test_an_incident_counts_once_with_its_highest_score_as_calibrated():
    twice = [example(1, 1.2, True), example(1, 1.5, True, strictness=1.2), example(2, 0.9, False)]
    assert sorted(one.reach for one in incidents_of(twice)["ranker"]) == [0.9, pytest.approx(1.8)]


def test_a_stricter_service_only_warns_of_what_it_would_have_acted_on(baselines):  # noqa: F811
    live = windows(END_S - 7200, END_S + 600, 60.0, seed=1)
    for name in ("s0", "s1"):
        live[name].values["mean_ms"][-10:] *= 1.9
    held = {"s1": 2.0}
    loose, _, _ = pipeline.detect(SERVICES, live, baselines, END_S + 600, SETTINGS)
    strict, _, _ = pipeline.detect(SERVICES, live, baselines, END_S + 600, SETTINGS, strictness=held)
    tiers = [{a.service: (a.tier, a.evidence["act_reach"]) for a in found if a.signal == "mean_ms"} for found in (loose, strict)]
    before, after = tiers
    assert before["s1"][0] == "act" and before["s0"] == after["s0"]
    assert after["s1"][1] == pytest.approx(before["s1"][1] / 2, rel=1e-2)
    assert after["s1"][0] == ("act" if before["s1"][1] > 2 else "warn")
    assert np.isfinite(after["s1"][1])
