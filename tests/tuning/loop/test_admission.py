"""A limit of what is taken in through the whole loop: the last lever, proven by goodput, and given back by itself."""

from __future__ import annotations

import dataclasses

import pytest

from tests.fakes.dying import Dying
from tests.fakes.ledger import FakeLedger
from tests.fakes.world import KeptMails, World, WorldAdmission, WorldBatch, WorldSource, WorldVariant, parts
from tuning.loop.once import run_once
from tuning.loop.parts import Parts
from tuning.model import Report

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
      admission:
        mode: act
        connection: ranker_control
        limits: queue
        min: 2
        max_refused: 80%
        read: {path: /config, limit_at: /max_queue}
        write: {path: /config, body: {max_queue: "{limit}"}}
"""
VARIANT = """
      variant:
        mode: act
        connection: ranker_control
        quality_of: accuracy on 5,000 held-back rows
        read: {path: /variant, variant_at: /serves}
        write: {path: /variant, body: {serves: "{variant}"}}
        variants:
          - {name: full, quality: 92.4%}
          - {name: small, quality: 90.6%, service_time: 0.35}
"""
CALM_S = 300.0


def loop_of(world: World, services: str = SERVICES, batch_max: int = 1) -> tuple[Parts, FakeLedger, KeptMails]:
    ledger, mails = FakeLedger(), KeptMails()
    made = parts(world, ledger, mails, services.replace("MAX", str(batch_max)))
    levers = {"batch_size": WorldBatch(world), "variant": WorldVariant(world), "admission": WorldAdmission(world)}
    world.pace_by_variant = {"small": 0.35}
    return dataclasses.replace(made, source=WorldSource(world), actuator=lambda _s, name: levers[name]), ledger, mails


def drive(world: World, loop: Parts, seconds: float, every_s: float = 15.0) -> list[Report]:
    reports, end = [], world.now_s + seconds
    while world.now_s < end:
        reports += run_once(loop, world.now, world.wait_until)
        world.wait(every_s)
    return reports


def surge(factor: float, until_s: float = 1e9):
    return lambda t: 60.0 * (factor if CALM_S <= t < until_s else 1.0)


def limits(world: World) -> list[int]:
    return [int(one["queue_limit"]) for one in world.applies if "queue_limit" in one]


def test_what_would_be_late_is_refused_the_rest_is_in_time_and_the_limit_returns():
    world = World(qps=surge(3.0, until_s=CALM_S + 500))
    loop, ledger, mails = loop_of(world)
    reports = drive(world, loop, CALM_S + 500)
    plan, outcome = reports[0].plan, reports[0].outcome
    assert plan.chosen.levers == ("admission",)
    refusal = plan.chosen.refusal
    assert refusal is not None
    # 180 come, 118 are answered: a third has to go
    assert refusal.share.low < 0.35 < refusal.share.high + 0.05 and refusal.share_now < 0.01
    assert 90 < refusal.in_time_per_s < 130 and refusal.in_time_now_per_s < 10
    assert "Refused: " in plan.reason and "Answered in time: " in plan.reason and "requests/s come" in plan.reason
    assert 60 < plan.revert_below_qps < 117, "below what is carried, above the calm"
    assert outcome is not None and (outcome.verdict, outcome.resolved) == ("improved", True), outcome
    goodput = next(one for one in outcome.guards if one.signal == "goodput")
    assert goodput.ok and goodput.after > 100 and goodput.before < 20
    assert next(one for one in outcome.guards if one.signal == "error_rate").ok
    drive(world, loop, 400)
    assert limits(world) == [limits(world)[0], 100_000], "one step down, one back"
    assert not ledger.open_changes()
    told = mails.mails[-1]
    assert "queue limit is 100000 again" in told.subject and "of the requests refused" in told.subject


@pytest.mark.parametrize("lever", ["batch", "variant"])
def test_it_is_the_last_lever(lever: str):
    world = World(qps=surge(3.0))
    services = SERVICES + VARIANT if lever == "variant" else SERVICES
    loop, _, _ = loop_of(world, services, batch_max=32 if lever == "batch" else 1)
    drive(world, loop, CALM_S + 300)
    assert world.queue_limit == 100_000
    assert world.batch_size > 1 if lever == "batch" else world.variant == "small"


def test_a_person_is_asked_unless_the_lever_says_otherwise():
    world = World(qps=surge(3.0))
    loop, _, _ = loop_of(world, SERVICES.replace("        mode: act\n", ""))
    reports = drive(world, loop, CALM_S + 100)
    assert reports[0].plan.mode == "approve" and reports[0].plan.chosen.levers == ("admission",)
    assert world.queue_limit == 100_000 and reports[0].refusal.guard == "approval"


def test_more_than_may_be_refused_is_not():
    world = World(qps=surge(3.0))
    loop, _, _ = loop_of(world, SERVICES.replace("max_refused: 80%", "max_refused: 20%"))
    reports = drive(world, loop, CALM_S + 200)
    assert limits(world) == []
    assert any("max_refused is 20%" in option.reason for option in reports[0].plan.rejected)


def test_the_limit_of_a_person_stays():
    world = World(qps=surge(3.0, until_s=CALM_S + 300))
    loop, ledger, mails = loop_of(world)
    drive(world, loop, CALM_S + 300)
    assert world.queue_limit < 100
    world.queue_limit = 77
    drive(world, loop, 300)
    assert world.queue_limit == 77 and not ledger.open_changes()
    assert any("taken over by somebody" in mail.subject for mail in mails.mails)


def test_while_it_refuses_nothing_is_lowered_again_and_the_hold_says_why():
    world = World(qps=surge(3.0))
    loop, ledger, _ = loop_of(world)
    reports = drive(world, loop, CALM_S + 900)
    assert len(limits(world)) == 1
    held = [report.plan.reason for report in reports if not report.plan.chosen.changes]
    assert all("was lent and refuses" in reason for reason in held), held
    assert [change.state for change in ledger.open_changes()] == ["leased"]


def test_a_limit_that_wins_nothing_is_taken_back():
    """The queue that is limited is not the one in which requests wait."""
    world = World(qps=surge(3.0))
    loop, _, _ = loop_of(world)
    deaf = world.queue_limit

    class Deaf(WorldAdmission):
        def apply(self, service, change, *, key):
            made = super().apply(service, change, key=key)
            self.shown, world.queue_limit = world.queue_limit, deaf
            return made

        def read(self, service):
            shown = getattr(self, "shown", deaf)
            return super().read(service).model_copy(update={"values": {"queue_limit": shown}})

    lever = Deaf(world)
    levers = {"batch_size": WorldBatch(world), "admission": lever}
    loop = dataclasses.replace(loop, actuator=lambda _s, name: levers[name])
    reports = drive(world, loop, CALM_S + 500)
    assert reports[0].plan.chosen.levers == ("admission",)
    assert reports[0].decision.step == "roll_back" and limits(world)[-1] == deaf


def test_without_answers_in_time_to_count_no_limit_is_set():
    world = World(qps=surge(3.0))
    world.percentile_source = "summary"
    loop, _, _ = loop_of(world)
    real = loop.source

    class NoMedian(WorldSource):
        def read(self, services, signals, span):
            return real.read(services, [one for one in signals if one != "p50_ms"], span)

    loop = dataclasses.replace(loop, source=NoMedian(world))
    reports = drive(world, loop, CALM_S + 100)
    assert limits(world) == []
    assert any("answers in time cannot be counted" in option.reason for option in reports[0].plan.rejected)


# Between the plan and its claim (2, 3) nothing is open, and whoever runs the loop runs the attempt again.
@pytest.mark.parametrize("at", [1, *range(4, 21)])
def test_wherever_a_run_dies_the_limit_is_lowered_once_and_comes_back(at: int):
    world = World(qps=surge(3.0, until_s=CALM_S + 700))
    loop, ledger, _ = loop_of(world)
    world.wait(CALM_S)
    dying = Dying(ledger, at)
    with pytest.raises(SystemExit):
        drive(world, dataclasses.replace(loop, ledger=dying), 1500)
    drive(world, loop, 1500)
    assert dying.count == at, "it died once"
    assert world.queue_limit == 100_000 and not ledger.open_changes()
    assert len(limits(world)) == 2 and limits(world)[0] < 100
