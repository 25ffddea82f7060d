"""The effect ledger: posteriors and calibration from records."""

from __future__ import annotations

import pytest

from tuning.model import Record
from tuning.planning import effects as ef


def trial(
    k: int, verdict: str, *, cause="load_surge", lever="batch_size", predicted=100.0, observed=100.0, resolved=None
):
    plan = {
        "id": f"p{k}",
        "diagnosis": {"cause": cause},
        "chosen": {
            "changes": [{"lever": lever}],
            "predicted_p95_ms": {"value": predicted, "low": 0.8 * predicted, "high": 1.3 * predicted},
        },
    }
    outcome = {"plan_id": f"p{k}", "verdict": verdict, "resolved": resolved, "p95_after_ms": observed}
    return [
        Record(id=f"p{k}", kind="choose_action", service="s", incident_id=f"i{k}", at_s=k, body=plan),
        Record(id=f"o{k}", kind="verify_p95", service="s", incident_id=f"i{k}", at_s=k + 0.5, body=outcome),
    ]


def trials(*verdicts: str, **kwargs):
    return [record for k, verdict in enumerate(verdicts) for record in trial(k, verdict, **kwargs)]


def test_without_a_history_nobody_is_punished():
    assert ef.posterior((), "s", "load_surge", ("batch_size",)).weight == 1.0


def test_failures_demote_and_successes_restore():
    bad = ef.posterior(ef.effects(trials(*["unchanged"] * 6)), "s", "load_surge", ("batch_size",))
    good = ef.posterior(ef.effects(trials(*["improved"] * 6)), "s", "load_surge", ("batch_size",))
    assert bad.mean < 0.4 < 0.75 < good.mean
    assert bad.text() == "worked 0 of 6 times"


def test_causes_levers_and_services_are_kept_apart():
    seen = ef.effects(trials(*["worse"] * 5))
    for service, cause, lever in (("t", "load_surge", "batch_size"), ("s", "slower_service", "batch_size"),
                                  ("s", "load_surge", "replicas")):  # fmt: skip
        assert ef.posterior(seen, service, cause, (lever,)).tries == 0


def test_inconclusive_counts_for_nothing():
    assert ef.posterior(ef.effects(trials("inconclusive")), "s", "load_surge", ("batch_size",)).tries == 0


def test_improved_but_not_resolved_did_not_work():
    assert ef.effects(trials("improved", resolved=False))[0].worked is False


def test_calibration_is_shrunk_and_one_wild_trial_does_not_rule():
    assert ef.calibration((), "s") == (0.0, pytest.approx(0.1))
    bias, scatter = ef.calibration(ef.effects(trials(*["improved"] * 20, observed=150.0)), "s")
    assert 0.25 < bias < 0.41
    wild, _ = ef.calibration(ef.effects(trials("improved", observed=10_000.0)), "s")
    assert wild <= 0.1 and scatter < 0.25


def test_broken_records_are_left_out():
    broken = Record(id="x", kind="verify_p95", service="s", at_s=1, body={"plan_id": "gone", "verdict": "improved"})
    empty = Record(id="y", kind="choose_action", service="s", at_s=1, body={"id": "z", "chosen": None})
    none = Record(id="v", kind="verify_p95", service="s", at_s=2, body={"plan_id": "z", "verdict": "improved"})
    assert ef.effects([broken, empty, none]) == ()
