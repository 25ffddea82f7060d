"""A route that fails through the whole loop: taken out while the others carry the load, probed, and back on proof."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from tests.fakes.dying import Dying
from tests.fakes.ledger import FakeLedger
from tests.fakes.routes import RoutesBreaker, RoutesWorld, Way
from tests.fakes.world import KeptMails, WorldBatch, WorldSource, parts
from tuning.loop.once import run_once
from tuning.loop.parts import Parts
from tuning.model import Report
from tuning.orders import order, order_record

SERVICES = """
prometheus: {rate_window: 15s, step: 5s}
verification: {look: 60s, longer_look: 60s}
safety: {cool_down: 0s, hold_again: 60s}
detection: {lookback: 10m, detectors: [rules], close_after: 60s}
mail: {to: [oncall@example.com]}
services:
  - name: ranker
    serving: slotune_demo
    selectors: {service: ranker}
    slo: {p95: 150ms, for: 10s, error_rate: 2%}
    mode: act
    signals:
      eu_failed: {class: inference, promql: "x{$sel} by ($by)", unit: share, worse: up}
      eu_p95: {class: inference, promql: "y{$sel} by ($by)", unit: ms, worse: up}
      us_failed: {class: inference, promql: "z{$sel} by ($by)", unit: share, worse: up}
    levers:
      batch_size: {min: 1, max: 8, connection: ranker_control}
      breaker:
        mode: act
        connection: gateway
        open_for: 60s
        open_max: 10m
        probe_for: 30s
        read: {path: /routes}
        write: {path: "/routes/{route}", body: {weight: "{state}"}}
        states: {closed: 100, half_open: 5, open: 0}
        routes:
          - {name: eu, state_at: /eu/weight, capacity: 80, failed: eu_failed, max_failed: 20%, p95: eu_p95, max_p95: 400ms}
          - {name: us, state_at: /us/weight, capacity: 80, failed: us_failed, max_failed: 20%}
"""
CALM_S = 300.0


def loop_of(world: RoutesWorld, services: str = SERVICES) -> tuple[Parts, FakeLedger, KeptMails]:
    ledger, mails = FakeLedger(), KeptMails()
    made = parts(world, ledger, mails, services)
    levers = {"batch_size": WorldBatch(world), "breaker": RoutesBreaker(world)}
    return dataclasses.replace(made, source=WorldSource(world), actuator=lambda _s, name: levers[name]), ledger, mails


def drive(world: RoutesWorld, loop: Parts, seconds: float, every_s: float = 15.0) -> list[Report]:
    reports, end = [], world.now_s + seconds
    while world.now_s < end:
        reports += run_once(loop, world.now, world.wait_until)
        world.wait(every_s)
    return reports


def during(value: float, until_s: float, otherwise: float = 0.0):
    return lambda t: value if CALM_S <= t < until_s else otherwise


def steps(world: RoutesWorld, route: str = "eu") -> list[str]:
    return [str(one[route]) for one in world.applies if route in one]


def test_a_route_that_fails_is_taken_out_probed_and_gets_its_requests_again():
    world = RoutesWorld(eu=Way(errors=during(0.9, CALM_S + 250)), us=Way())
    loop, ledger, mails = loop_of(world)
    reports = drive(world, loop, CALM_S + 200)
    plan, outcome = reports[0].plan, reports[0].outcome
    assert plan.chosen.levers == ("breaker",) and plan.chosen.changes[0].new == {"eu": "open"}
    assert "eu: 90% of its requests fail (limit 20%)" in plan.reason and "probed after 60 s" in plan.reason
    assert outcome is not None and (outcome.verdict, outcome.resolved) == ("improved", True), outcome
    assert any(mail.subject.startswith("[slotune] Resolved: ranker: eu closed → open") for mail in mails.mails)
    drive(world, loop, 600)
    assert steps(world)[0] == "open" and steps(world)[-2:] == ["half_open", "closed"]
    assert not ledger.open_changes() and world.ways["eu"].state == "closed"
    assert any("eu gets its requests again after" in mail.subject for mail in mails.mails)


def test_a_probe_that_fails_opens_it_again_and_the_next_one_comes_later():
    world = RoutesWorld(eu=Way(errors=during(0.9, 1e9)), us=Way())
    loop, ledger, mails = loop_of(world)
    drive(world, loop, CALM_S + 1200)
    assert steps(world)[:5] == ["open", "half_open", "open", "half_open", "open"]
    probes = [r.at_s for r in ledger.records.values() if r.kind == "roll_back" and r.body.get("after") == {"eu": "half_open"}]
    gaps = [b - a for a, b in itertools.pairwise(probes)]
    assert len(gaps) >= 2 and gaps[1] > 1.5 * gaps[0], gaps
    assert [change.state for change in ledger.open_changes()] == ["leased"], "a way back is always known"
    failed = [mail for mail in mails.mails if "the probe of eu failed" in mail.subject]
    assert len(failed) >= 2 and "90% failed (limit 20%)" in failed[0].text


def test_a_route_that_is_slow_is_taken_out_too():
    world = RoutesWorld(eu=Way(slow_ms=during(900.0, 1e9, 20.0)), us=Way())
    loop, _, _ = loop_of(world)
    reports = drive(world, loop, CALM_S + 200)
    assert "its P95 is 900 ms (limit 400 ms)" in reports[0].plan.reason
    assert reports[0].outcome.verdict == "improved" and world.ways["eu"].state == "open"


def test_where_the_others_could_not_carry_the_load_it_stays_in_and_the_hold_says_so():
    world = RoutesWorld(qps=lambda _t: 90.0, eu=Way(errors=during(0.9, 1e9)), us=Way())
    loop, _, _ = loop_of(world)
    reports = drive(world, loop, CALM_S + 100)
    assert steps(world) == []
    assert "without it the others carry 80/s, and 90 requests/s come: it stays in" in reports[0].plan.reason


def test_what_all_routes_do_is_no_matter_of_one():
    world = RoutesWorld(eu=Way(errors=during(0.9, 1e9)), us=Way(errors=during(0.9, 1e9)))
    loop, _, _ = loop_of(world)
    reports = drive(world, loop, CALM_S + 100)
    assert steps(world) == [] and all(report.plan.chosen.levers != ("breaker",) for report in reports)


def test_a_person_is_asked_unless_the_lever_says_otherwise():
    world = RoutesWorld(eu=Way(errors=during(0.9, 1e9)), us=Way())
    loop, _, _ = loop_of(world, SERVICES.replace("      breaker:\n        mode: act\n", "      breaker:\n"))
    reports = drive(world, loop, CALM_S + 100)
    assert reports[0].plan.mode == "approve" and reports[0].refusal.guard == "approval" and steps(world) == []


def test_what_a_person_sets_is_final():
    world = RoutesWorld(eu=Way(errors=during(0.9, 1e9)), us=Way())
    loop, ledger, mails = loop_of(world)
    drive(world, loop, CALM_S + 200)
    assert world.ways["eu"].state in ("open", "half_open")
    world.ways["eu"].state = "closed"
    drive(world, loop, 30)
    assert not ledger.open_changes() and any("gets its requests again" in mail.subject for mail in mails.mails)


def test_on_a_persons_word_it_gets_its_requests_again_at_once():
    world = RoutesWorld(eu=Way(errors=during(0.9, CALM_S + 120)), us=Way())
    loop, ledger, _ = loop_of(world, SERVICES.replace("open_for: 60s", "open_for: 10m"))
    drive(world, loop, CALM_S + 200)
    assert steps(world) == ["open"]
    (lease,) = ledger.open_changes()
    ledger.put(order_record(order("hand_back", "ann", world.now_s, service="ranker", about=lease.plan_id, why="mended")))
    drive(world, loop, 45)
    assert steps(world) == ["open", "closed"] and not ledger.open_changes()


def test_a_stop_holds_the_probe_up_and_is_told():
    world = RoutesWorld(eu=Way(errors=during(0.9, CALM_S + 100)), us=Way())
    loop, ledger, mails = loop_of(world, SERVICES.replace("open_for: 60s", "open_for: 3m"))
    drive(world, loop, CALM_S + 150)
    ledger.put(order_record(order("pause", "ann", world.now_s, service="ranker", why="let it be")))
    drive(world, loop, 400)
    assert steps(world) == ["open"]
    assert any("what is due is not done" in mail.text for mail in mails.mails), [mail.subject for mail in mails.mails]


def test_a_probe_that_nobody_measures_proves_nothing():
    world = RoutesWorld(eu=Way(errors=during(0.9, CALM_S + 100)), us=Way())
    loop, _, _ = loop_of(world)
    drive(world, loop, CALM_S + 100)
    world.mute.add("eu")
    drive(world, loop, 400)
    assert steps(world)[:3] == ["open", "half_open", "open"]


# Between the plan and its claim (2, 3) nothing is open, and whoever runs the loop runs the attempt again.
@pytest.mark.parametrize("at", [1, *range(4, 31)])
def test_wherever_a_run_dies_the_route_is_taken_out_and_comes_back(at: int):
    world = RoutesWorld(eu=Way(errors=during(0.9, CALM_S + 250)), us=Way())
    loop, ledger, _ = loop_of(world)
    world.wait(CALM_S)
    dying = Dying(ledger, at)
    with pytest.raises(SystemExit):
        drive(world, dataclasses.replace(loop, ledger=dying), 1200)
    drive(world, loop, 900)
    assert world.ways["eu"].state == "closed" and not ledger.open_changes()
    assert steps(world)[0] == "open" and steps(world)[-2:] == ["half_open", "closed"]
