"""The whole loop, driven by hand through run_once in a small world of its own."""

from __future__ import annotations

import pytest

from detection.errors import Permanent, SourceUnreachable, Temporary
from tests.fakes.ledger import FakeLedger
from tests.fakes.world import SERVICES, START_S, KeptMails, World, parts
from tuning.errors import LedgerUnavailable
from tuning.loop.once import run_once
from tuning.model import STEPS, Plan, Report


def surge(t: float) -> float:
    return 60.0 if t < 120 else 180.0


def drive(world: World, loop, seconds: float, every_s: float = 15.0) -> list[Report]:
    reports, end = [], world.now_s + seconds
    while world.now_s < end:
        reports += run_once(loop, world.now, world.wait_until)
        world.wait(every_s)
    return reports


def world_and_loop(services: str = SERVICES, **kwargs):
    world, ledger, mails = World(**kwargs), FakeLedger(), KeptMails()
    world.wait(60)
    return world, ledger, mails, parts(world, ledger, mails, services)


def kinds(ledger: FakeLedger) -> list[str]:
    return [record.kind for record in ledger.records.values()]


def test_a_surge_is_found_cured_by_a_larger_batch_proven_and_mailed_once():
    world, ledger, mails, loop = world_and_loop(qps=surge)
    reports = drive(world, loop, 600)
    assert [r.outcome.verdict for r in reports] == ["improved"]
    assert reports[0].outcome.resolved and reports[0].decision.step == "keep"
    assert world.batch_size > 1 and len(world.applies) == 1
    assert len(mails.mails) == 1 and "Resolved" in mails.mails[0].subject
    assert not ledger.open_changes()


HOLDS_ON = SERVICES.replace("[rules]", "[rules], rules: {latency_p95: {keep_firing_for: 300s}}")


def test_a_rule_that_only_holds_on_after_a_proven_cure_starts_nothing():
    world, ledger, mails, loop = world_and_loop(HOLDS_ON.replace("hold_again: 60s", "hold_again: 10m"), qps=surge)
    reports = drive(world, loop, 900)
    assert [report.outcome.resolved for report in reports] == [True]
    assert len(mails.mails) == 1 and "Resolved" in mails.mails[0].subject
    closed = next(r for r in ledger.records.values() if r.body.get("reason") == "no anomaly seen any more")
    verdict = next(r for r in ledger.records.values() if r.kind == "verify_p95")
    assert closed.at_s - verdict.at_s > 200, "the rule did hold on"


def test_what_gets_worse_after_a_proven_cure_is_news_although_the_rule_never_let_go():
    def again(t: float) -> float:
        return surge(t) if t < 360 else 3000.0

    world, _ledger, _mails, loop = world_and_loop(HOLDS_ON.replace("hold_again: 60s", "hold_again: 10m"), qps=again)
    first, second = drive(world, loop, 480)[:2]
    assert first.outcome.resolved and second.plan.incident_id == first.plan.incident_id
    assert second.plan.decided_at_s < START_S + 360 + 60


@pytest.mark.parametrize(("percentile_source", "least_s"), [("histogram", 15.0), ("summary", 75.0)])
def test_a_look_begins_when_p95_no_longer_remembers_the_old_setting(percentile_source, least_s):
    world, ledger, _mails, loop = world_and_loop(qps=surge)
    world.percentile_source = percentile_source
    report = drive(world, loop, 400)[0]
    delay_s = loop.service("ranker").levers["batch_size"].effect_delay_s
    assert report.plan.settle_s >= least_s + delay_s
    outcome = next(r for r in ledger.records.values() if r.kind == "verify_p95")
    assert outcome.at_s - report.receipts[0].at_s >= least_s + delay_s


def test_when_nothing_is_wrong_nothing_is_changed_and_nobody_is_mailed():
    world, _ledger, mails, loop = world_and_loop()
    assert drive(world, loop, 300) == [] and world.applies == [] and mails.mails == []


def test_errors_without_load_end_in_one_mail_that_says_why_and_no_change():
    world, ledger, mails, loop = world_and_loop(error_share=lambda t: 0.3 if t > 90 else 0.0)
    drive(world, loop, 400)
    assert world.applies == [] and "hold" in kinds(ledger)
    assert len(mails.mails) == 1 and "error" in mails.mails[0].text.lower()


@pytest.mark.parametrize(("grown", "looks"), [(1.0, 1), (2.0, 2)])
def test_a_hold_is_looked_at_again_before_its_time_where_the_load_has_moved_and_mailed_once(grown, looks):
    """Errors are no lever's to mend; what comes on top of them may be, and the mail says nothing twice."""
    world, ledger, mails, loop = world_and_loop(
        SERVICES.replace("hold_again: 60s", "hold_again: 1h"),
        qps=lambda t: 40.0 if t < 240 else 40.0 * grown,
        error_share=lambda t: 0.3 if t > 90 else 0.0,
    )
    drive(world, loop, 600)
    assert kinds(ledger).count("hold") == looks and world.applies == []
    assert len(mails.mails) == 1


def test_a_change_that_makes_it_worse_is_rolled_back_and_the_roll_back_is_verified():
    # A larger batch takes 40 times as long: the queue grows faster than before.
    world, ledger, mails, loop = world_and_loop(qps=lambda t: 60.0 if t < 120 else 130.0, batch_hurts=40.0)
    reports = drive(world, loop, 420)
    first = reports[0]
    assert first.outcome.verdict == "worse" and first.decision.step == "roll_back"
    assert first.rollback and first.rollback_outcome is not None
    assert world.batch_size == 1 and not ledger.open_changes()
    assert "Rolled back" in mails.mails[0].subject


def test_the_intent_with_the_old_value_is_in_the_ledger_before_the_change():
    world, ledger, _mails, loop = world_and_loop(qps=surge)
    drive(world, loop, 300)
    rows = list(ledger.records.values())
    intent = next(i for i, r in enumerate(rows) if r.phase == "intent" and r.kind == "adjust_batch_size")
    receipt = next(i for i, r in enumerate(rows) if r.phase == "result" and r.kind == "adjust_batch_size")
    assert intent < receipt
    assert Plan.model_validate(rows[intent].body).chosen.changes[0].old["batch_size"] == 1


def test_every_record_kind_is_a_word_of_the_flow():
    world, ledger, _mails, loop = world_and_loop(qps=surge)
    drive(world, loop, 400)
    assert set(kinds(ledger)) <= set(STEPS)


def test_observe_mode_plans_and_mails_and_changes_nothing():
    world, _ledger, mails, loop = world_and_loop(SERVICES.replace("mode: act", "mode: observe"), qps=surge)
    drive(world, loop, 400)
    assert world.applies == [] and world.batch_size == 1
    assert len(mails.mails) == 1 and "observe" in mails.mails[0].text


def test_prometheus_down_fails_the_sweep_with_a_sentence_and_the_next_sweep_goes_on():
    world, _ledger, mails, loop = world_and_loop(qps=surge)
    world.down = True
    with pytest.raises(SourceUnreachable, match="no answer"):
        run_once(loop, world.now, world.wait_until)
    world.down = False
    drive(world, loop, 400)
    assert world.batch_size > 1 and len(mails.mails) == 1


def test_a_ledger_that_is_down_means_no_change_at_all():
    world, ledger, _mails, loop = world_and_loop(qps=surge)
    world.wait(90)
    ledger.down = "the ledger is down"
    with pytest.raises(LedgerUnavailable):
        run_once(loop, world.now, world.wait_until)
    assert world.applies == []


def test_an_endpoint_that_accepts_without_applying_leaves_nothing_open_and_is_reported():
    world, ledger, mails, loop = world_and_loop(qps=surge)
    world.swallow = True
    drive(world, loop, 200)
    assert world.batch_size == 1 and not ledger.open_changes()
    assert "still shows the old batch size" in mails.mails[0].text


def test_a_control_endpoint_that_is_down_leads_to_a_hold_that_names_it():
    world, ledger, mails, loop = world_and_loop(qps=surge)
    world.control_down = True
    drive(world, loop, 200)
    assert world.applies == [] and not ledger.open_changes()
    assert "gives no answer" in mails.mails[0].text


@pytest.mark.parametrize(
    ("error", "later"),
    [(Temporary("the mail server gives no answer"), True), (Permanent("all recipients are refused"), False)],
    ids=["unreachable: kept and sent later", "refused: written down and not tried again"],
)
def test_a_report_that_cannot_be_sent(error, later):
    world, ledger, mails, loop = world_and_loop(qps=surge)
    mails.error = error
    drive(world, loop, 300)
    assert mails.mails == [] and world.batch_size > 1
    mails.error = None
    drive(world, loop, 30)
    assert len(mails.mails) == (1 if later else 0)
    ids = [r.id for r in ledger.records.values() if r.kind == "email_report"]
    assert sum(name.endswith(":sent") for name in ids) == 1
    assert any(name.endswith(":failed") for name in ids) is later


def test_a_sweep_by_hand_of_some_services_leaves_the_others_alone():
    from tuning.loop import watch

    second = SERVICES[SERVICES.index("  - name") :].replace("ranker", "other")
    world, _ledger, _mails, loop = world_and_loop(SERVICES + second, qps=surge)
    world.wait(90)
    sweep = watch.detect_anomalies(loop, watch.pull_metrics(loop, world.now(), ["other"]))
    started = watch.open_incidents(loop, sweep)
    assert {request.incident.service for request in started} == {"other"}
    later = watch.detect_anomalies(loop, watch.pull_metrics(loop, world.now() + 1, ["ranker"]))
    assert {request.incident.service for request in watch.open_incidents(loop, later)} == {"ranker"}
    assert {i.service for i in watch.open_incidents_of(loop.ledger, world.now() + 1)} == {"other", "ranker"}


def test_a_sweep_of_a_service_that_is_not_configured_names_the_nearest():
    from detection.errors import ConfigError
    from tuning.loop import watch

    world, _ledger, _mails, loop = world_and_loop()
    with pytest.raises(ConfigError, match="did you mean 'ranker'"):
        watch.pull_metrics(loop, world.now(), ["rankr"])
