"""A smaller variant through the whole loop: only where nothing else does, at a price that is told, and back by itself."""

from __future__ import annotations

import dataclasses

import pytest

from tests.fakes.ledger import FakeLedger
from tests.fakes.world import KeptMails, World, WorldBatch, WorldSource, WorldVariant, parts
from tuning.loop.learn_latency import learn_latency
from tuning.loop.observe import latency_model
from tuning.loop.once import run_once
from tuning.loop.parts import Parts
from tuning.model import Report
from tuning.past import KINDS, Past
from tuning.planning import latency_model as models
from tuning.planning.variants import keyed
from tuning.query import Query
from tuning.report.review import review

SERVICES = """
prometheus: {rate_window: 15s, step: 5s}
verification: {look: 60s, longer_look: 60s}
safety: {cool_down: 0s, hold_again: 60s, revert_for: 60s}
detection: {lookback: 10m, detectors: [rules], close_after: 60s}
mail: {to: [oncall@example.com]}
services:
  - name: ranker
    serving: slotune_demo
    selectors: {service: ranker}
    slo: {p95: 150ms, for: 10s}
    mode: act
    levers:
      batch_size: {min: 1, max: MAX, connection: ranker_control}
      variant:
        mode: act
        connection: ranker_control
        quality_of: accuracy on 5,000 held-back rows
        read: {path: /variant, variant_at: /serves}
        write: {path: /variant, body: {serves: "{variant}"}}
        variants:
          - {name: full, quality: 92.4%}
          - {name: int8, quality: 92.0%, service_time: 0.75}
          - {name: small, quality: 90.6%, service_time: 0.35}
          - {name: cached, quality: 81%, service_time: 0.1}
"""
CALM_S = 300.0
PACES = {"int8": 0.75, "small": 0.35, "cached": 0.1}


def loop_of(world: World, services: str = SERVICES, batch_max: int = 1) -> tuple[Parts, FakeLedger, KeptMails]:
    ledger, mails = FakeLedger(), KeptMails()
    made = parts(world, ledger, mails, services.replace("MAX", str(batch_max)))
    levers = {"batch_size": WorldBatch(world), "variant": WorldVariant(world)}
    world.pace_by_variant = dict(PACES)
    return dataclasses.replace(made, source=WorldSource(world), actuator=lambda _s, name: levers[name]), ledger, mails


def drive(world: World, loop: Parts, seconds: float, every_s: float = 15.0) -> list[Report]:
    reports, end = [], world.now_s + seconds
    while world.now_s < end:
        reports += run_once(loop, world.now, world.wait_until)
        world.wait(every_s)
    return reports


def surge(factor: float, until_s: float = 1e9):
    return lambda t: 60.0 * (factor if CALM_S <= t < until_s else 1.0)


def test_overload_is_met_by_the_variant_that_loses_least_and_does_and_the_whole_one_returns():
    world = World(qps=surge(3.0, until_s=CALM_S + 500))
    loop, ledger, mails = loop_of(world)
    reports = drive(world, loop, CALM_S + 500)
    plan, outcome = reports[0].plan, reports[0].outcome
    assert plan.chosen.levers == ("variant",) and plan.chosen.changes[0].new == {"variant": "small"}, "int8 is not enough"
    assert plan.chosen.quality_loss == pytest.approx(0.018)
    assert (outcome.verdict, outcome.resolved) == ("improved", True)
    goodput = next(one for one in outcome.guards if one.signal == "goodput")
    assert goodput.ok and goodput.after > 2.5 * goodput.before
    assert "-1.8 points" in plan.reason and "requests/s come" in plan.reason
    assert 60 < plan.revert_below_qps < 117, "below what the whole one carries, above the calm"
    assert any("cached" in option.reason or option.text() == "variant full -> cached" for option in plan.rejected)
    drive(world, loop, 400)
    assert [one["variant"] for one in world.applies] == ["small", "full"]
    assert not ledger.open_changes()
    told = mails.mails[-1]
    assert "full serves again" in told.subject and "point-minutes" in told.subject
    assert "accuracy on 5,000 held-back rows" in told.text


def test_what_costs_no_quality_goes_first():
    world = World(qps=surge(3.0))
    loop, _, _ = loop_of(world, batch_max=32)
    reports = drive(world, loop, CALM_S + 300)
    assert all(report.plan.chosen.levers != ("variant",) for report in reports)
    assert world.variant == "full" and world.batch_size > 1


def test_where_what_is_free_was_tried_and_did_not_do_quality_is_paid_with():
    world = World(qps=surge(9.0), beta_ms=2.5)
    loop, _, _ = loop_of(world, batch_max=16)
    drive(world, loop, CALM_S + 500)
    assert world.applies[0].get("batch_size", 0) > 1 and world.variant != "full"


def test_a_person_is_asked_unless_the_lever_says_otherwise():
    world = World(qps=surge(3.0))
    loop, _, _ = loop_of(world, SERVICES.replace("        mode: act\n", ""))
    reports = drive(world, loop, CALM_S + 100)
    assert reports[0].plan.mode == "approve" and reports[0].plan.chosen.levers == ("variant",)
    assert world.variant == "full" and reports[0].refusal.guard == "approval"


def test_the_variant_of_a_person_stays():
    world = World(qps=surge(3.0, until_s=CALM_S + 300))
    loop, ledger, mails = loop_of(world)
    drive(world, loop, CALM_S + 300)
    assert world.variant == "small"
    world.variant = "int8"
    drive(world, loop, 300)
    assert world.variant == "int8" and not ledger.open_changes()
    assert any("taken over by somebody" in mail.subject for mail in mails.mails)


def test_a_variant_that_does_not_help_is_taken_back():
    world = World(qps=surge(3.0))
    loop, _, _ = loop_of(world)
    world.pace_by_variant = dict.fromkeys(PACES, 1.1)
    reports = drive(world, loop, CALM_S + 400)
    assert reports[0].plan.chosen.levers == ("variant",)
    assert world.variant == "full" and reports[0].decision.step == "roll_back"


def test_a_surge_that_grows_takes_the_next_variant_on_top_and_each_comes_off_by_itself():
    def load(t: float) -> float:
        return 60.0 * (1.0 if t < CALM_S else 2.2 if t < 900 else 6.0 if t < 1800 else 1.0)

    world = World(qps=load)
    loop, ledger, _ = loop_of(world)
    drive(world, loop, 1800)
    drive(world, loop, 900)
    switched = [one["variant"] for one in world.applies]
    assert switched[0] in ("int8", "small") and "cached" in switched, switched
    assert world.variant == "full" and not ledger.open_changes()


def test_the_review_sums_points_times_minutes():
    world = World(qps=surge(3.0, until_s=CALM_S + 500))
    loop, ledger, _ = loop_of(world)
    drive(world, loop, CALM_S + 900)
    made = Past().add(reversed(ledger.find(Query(kinds=KINDS))))
    seen = review(made, {}, (), 0.0, world.now_s)
    lasted_min = sum(variant == "small" for variant in world.variants) / 60
    assert seen.degraded == 1 and seen.quality == pytest.approx(1.8 * lasted_min, rel=0.02)


def test_each_variant_has_a_line_of_its_own_learned_from_what_came_after_the_switch():
    world = World(qps=surge(3.0))
    loop, _, _ = loop_of(world)
    drive(world, loop, CALM_S - 15)
    assert learn_latency(loop, world.now_s) == 1
    drive(world, loop, 500)
    assert world.variant == "small" and learn_latency(loop, world.now_s) == 1
    kept = models.load(latency_model(loop, loop.service("ranker")))
    lines = {name: kept[models.key(keyed("", name), "")].predict(1.0)[0] for name in ("full", "small")}
    assert lines["small"] == pytest.approx(0.35 * lines["full"], rel=0.1)


def test_a_way_back_that_fails_requests_is_taken_again():
    def errors(t: float) -> float:
        return 0.3 if world.variant == "full" and t > CALM_S + 500 else 0.0

    world = World(qps=surge(3.0, until_s=CALM_S + 400), error_share=errors)
    loop, _, _ = loop_of(world)
    drive(world, loop, CALM_S + 700)
    assert [one["variant"] for one in world.applies][:3] == ["small", "full", "small"]
